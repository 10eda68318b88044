// Guest root images: made by mmdebstrap from the lab's own archive, put on their drive by a guest that runs the real tools.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { basePackages, buildArchive, hostPackages, release, scenarioPackages } from './packages.ts'
import { eachLine, endOf, runTool, startTool, takeLock } from './processes.ts'
import { ensureRequirements } from './requirements.ts'

/** What root stands on: a partition with ext4, xfs on LVM as the Rocky image has it, or a btrfs subvolume. */
export type Layout = 'ext4' | 'xfs-lvm' | 'btrfs'

/** All layouts, in the order of their docs. */
export const layouts: readonly Layout[] = ['ext4', 'xfs-lvm', 'btrfs']

/** Files that a guest is started from; all of them are shared and never written to. */
export interface Image {
  /** Raw root drive image of `rootImageBytes`. */
  rootPath: string
  /** Raw ext4 image of the package archive, mounted by guests on /srv/lab-packages. */
  packagesPath: string
  /** Private key that root of every guest accepts. */
  keyPath: string
  /** known_hosts file for the host alias `garrison-lab`. */
  knownHostsPath: string
}

/** Size of a root image; a guest's drive is larger, so its backup GPT header is not at its end. */
export const rootImageBytes = 3584 * 2 ** 20

interface Recipe {
  include: readonly string[]
  modules: readonly string[]
  script: string
}

/** Packages and initramfs modules without which root cannot be mounted. */
const layoutParts: Record<Layout, { packages: readonly string[]; modules: readonly string[] }> = {
  ext4: { packages: [], modules: ['ext4'] },
  'xfs-lvm': { packages: ['lvm2', 'xfsprogs'], modules: ['xfs', 'dm_mod'] },
  btrfs: { packages: ['btrfs-progs'], modules: ['btrfs'] },
}

/**
 * TCG keeps its translations by virtual address and forgets its address cache with each page table: without random maps and page
 * table isolation a process starts in a seventh of the time (docs/development/lab.md has the figures). On a busy machine the
 * kernel's own tests of its timers fail: it panics (no_timer_check) or takes a slower clock (tsc=reliable).
 */
const kernelOptions = 'console=ttyS0 loglevel=5 mitigations=off norandmaps no_timer_check tsc=reliable'

/** Files of every guest, by path; what makes it quick to boot, reachable, and free of a network's names. */
const guestFiles: Record<string, string> = {
  'etc/hostname': 'lab\n',
  'etc/hosts': '127.0.0.1 localhost\n127.0.1.1 lab\n',
  'etc/machine-id': '6c61620000000000000000000000cafe\n',
  'etc/systemd/network/10-lab.network':
    '[Match]\nMACAddress=52:54:00:6c:61:62\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n',
  'etc/systemd/journald.conf.d/lab.conf': '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n',
  'etc/ssh/sshd_config.d/lab.conf':
    'UsePAM no\nUseDNS no\nPasswordAuthentication no\nPrintMotd no\nMaxSessions 64\nMaxStartups 64\nX11Forwarding no\n',
  'etc/default/grub.d/lab.cfg':
    'GRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_DISABLE_OS_PROBER=true\n' +
    'GRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND="serial --speed=115200"\nGRUB_CMDLINE_LINUX_DEFAULT=""\n' +
    `GRUB_CMDLINE_LINUX="${kernelOptions} panic=0 systemd.show_status=error"\n`,
  'etc/apt/apt.conf.d/90lab': 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n',
  'etc/dpkg/dpkg.cfg.d/lab':
    'force-unsafe-io\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/locale/*\n' +
    'path-exclude=/usr/share/info/*\npath-include=/usr/share/man/man1/garrison*\npath-include=/usr/share/doc/garrison*\n',
  // A list instead of every module, and the quickest compression: update-initramfs takes 3 min under TCG otherwise.
  'etc/initramfs-tools/conf.d/lab': 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n',
  'srv/lab-packages/.mount-point': '',
}

/** Units that only cost boot time in a guest which lives for minutes. */
const masked = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty@tty1.service',
  'serial-getty@ttyS0.service',
  'systemd-hwdb-update.service',
  'systemd-pcrphase.service',
  'grub-common.service',
]

const enabled = ['systemd-networkd.service', 'ssh.service']

const partitions: Record<Layout, string> = {
  // As Debian's cloud images are: root is number 1 and the last one on the disk.
  ext4: `/dev/vdb14 : start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649
/dev/vdb15 : start=8192, size=253952, type=U
/dev/vdb1 : start=262144, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`,
  // As Rocky's LVM image is: BIOS boot, ESP, /boot, an unused PReP partition, and the volume group last.
  'xfs-lvm': `/dev/vdb1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
/dev/vdb2 : start=4096, size=204800, type=U
/dev/vdb3 : start=208896, size=1024000, type=L
/dev/vdb4 : start=1232896, size=8192, type=9E1A2D38-C612-4316-AA26-8B49521E5A8B
/dev/vdb5 : start=1241088, type=E6D6D379-F507-44C2-A23C-238F2A3DF928`,
  btrfs: `/dev/vdb1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
/dev/vdb2 : start=4096, size=204800, type=U
/dev/vdb3 : start=208896, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`,
}

const filesystems: Record<Layout, string> = {
  ext4: `mkfs.vfat -n ESP /dev/vdb15
mkfs.ext4 -q -L root /dev/vdb1
mount /dev/vdb1 /mnt
esp=/dev/vdb15
line="UUID=$(blkid -s UUID -o value /dev/vdb1) / ext4 errors=remount-ro 0 1"`,
  'xfs-lvm': `mkfs.vfat -n ESP /dev/vdb2
mkfs.xfs -q -L boot /dev/vdb3
pvcreate -q /dev/vdb5
# The stage is read-only, and LVM makes no change that it cannot archive.
vgcreate --config 'backup { backup=0 archive=0 }' -q rocky /dev/vdb5
lvcreate --config 'backup { backup=0 archive=0 }' -q -l 100%FREE -n root rocky
mkfs.xfs -q -L root /dev/rocky/root
mount /dev/rocky/root /mnt
mkdir /mnt/boot
mount /dev/vdb3 /mnt/boot
esp=/dev/vdb2
line="/dev/mapper/rocky-root / xfs defaults 0 0
UUID=$(blkid -s UUID -o value /dev/vdb3) /boot xfs defaults 0 0"`,
  btrfs: `mkfs.vfat -n ESP /dev/vdb2
mkfs.btrfs -q -L root /dev/vdb3
mount /dev/vdb3 /mnt
btrfs subvolume create /mnt/@rootfs
umount /mnt
mount -o subvol=@rootfs /dev/vdb3 /mnt
esp=/dev/vdb2
line="UUID=$(blkid -s UUID -o value /dev/vdb3) / btrfs defaults,subvol=@rootfs 0 0"`,
}

/**
 * PID 1 of the guest that installs: it runs from an unpartitioned copy of the image (vda) and puts it on the drive (vdb) with
 * the tools a distribution would use, so no loop device, device mapper or root is needed on the machine itself.
 */
const installScript = (layout: Layout) => `#!/bin/bash
set -e
trap 'echo LAB-INSTALL-FAILED line $LINENO; echo o > /proc/sysrq-trigger; sleep 60' ERR
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
exec > /dev/console 2>&1
step() { echo "LAB-STEP $*"; }
step starting udev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle
step partitioning
sfdisk --quiet /dev/vdb <<'TABLE'
label: gpt
${partitions[layout]}
TABLE
udevadm settle
step making filesystems
${filesystems[layout]}
mkdir -p /mnt/boot
step copying the system
cp -ax /. /mnt/
rm /mnt/lab-install
rmdir /mnt/lost+found || true
mkdir -p /mnt/boot/efi
printf '%s\\n' "$line" "UUID=$(blkid -s UUID -o value $esp) /boot/efi vfat umask=0077,nofail 0 0" \\
  "LABEL=lab-packages /srv/lab-packages ext4 ro,nofail,x-systemd.device-timeout=90s 0 0" > /mnt/etc/fstab
for one in dev proc sys run; do mount --rbind /$one /mnt/$one; done
step installing the boot loader
chroot /mnt grub-install --target=i386-pc /dev/vdb
chroot /mnt update-grub
step finishing
umount -R /mnt
if [ ${layout} = xfs-lvm ]; then vgchange -q -an rocky; fi
sync
echo LAB-INSTALL-DONE
echo o > /proc/sysrq-trigger
sleep 60
`

/** Directory of everything the lab keeps between runs. */
export function cacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'garrison-lab')
}

/** What tells one recipe from another in the name of a directory of the cache. */
export const hashOf = (recipe: unknown) =>
  createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 16)

/** Builds, or finds in the cache, the image of a layout; `prepared` has the whole package set installed already. */
export async function buildImage(
  layout: Layout,
  options: { prepared?: boolean; progress?: (line: string) => void } = {},
): Promise<Image> {
  const prepared = options.prepared ?? false
  const progress = options.progress ?? ((line) => process.stderr.write(`lab: ${line}\n`))
  await ensureRequirements(progress)
  const archiveHash = hashOf([buildArchive.toString(), basePackages, hostPackages, scenarioPackages, release])
  const archive = await cached(`packages-${archiveHash}`, progress, async (directory) => {
    await buildArchive(join(directory, 'archive'), progress)
    await makeKeys(directory)
    progress('making the package drive')
    const path = join(directory, 'packages.raw')
    await writeFile(path, '')
    await truncate(path, 768 * 2 ** 20)
    const tree = join(directory, 'archive')
    await runTool(['/usr/sbin/mkfs.ext4', '-q', '-L', 'lab-packages', '-O', '^has_journal', '-d', tree, path])
  })
  const recipe: Recipe = {
    include: [...basePackages, ...layoutParts[layout].packages, ...(prepared ? hostPackages : [])],
    modules: layoutParts[layout].modules,
    script: installScript(layout),
  }
  const hash = hashOf([archiveHash, recipe, guestFiles, masked, enabled, rootImageBytes, makeTree.toString()])
  const name = `${layout}-${prepared ? 'prepared' : 'bare'}-${hash}`
  const image = await cached(name, progress, async (directory) => {
    await makeTree(directory, archive, recipe, (line) => progress(`${name}: ${line}`))
    await install(directory, (line) => progress(`${name}: ${line}`))
  })
  return {
    rootPath: join(image, 'root.raw'),
    packagesPath: join(archive, 'packages.raw'),
    keyPath: join(archive, 'key'),
    knownHostsPath: join(archive, 'known_hosts'),
  }
}

/**
 * A directory of the cache, built at most once at a time. It is built under another name and renamed when whole, so an
 * interrupted build is never used; the lock dies with its holder, so one is never waited for in vain.
 */
export async function cached(
  name: string,
  progress: (line: string) => void,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const path = join(cacheDirectory(), name)
  if (existsSync(path)) return path
  await mkdir(cacheDirectory(), { recursive: true })
  const lockPath = `${path}.lock`
  let lock = await takeLock(lockPath, false)
  if (!lock) {
    progress(`${name}: waiting for another process that is building it`)
    lock = await takeLock(lockPath, true)
  }
  try {
    if (existsSync(path)) return path
    const began = performance.now()
    progress(`${name}: building (kept in ${cacheDirectory()})`)
    const unfinished = `${path}.unfinished`
    await rm(unfinished, { recursive: true, force: true })
    await mkdir(unfinished)
    await build(unfinished)
    await rename(unfinished, path)
    progress(`${name}: built in ${Math.round((performance.now() - began) / 1000)} s`)
    return path
  } finally {
    await lock?.release()
  }
}

async function makeKeys(directory: string): Promise<void> {
  for (const name of ['key', 'host-key']) {
    const path = join(directory, name)
    await runTool(['/usr/bin/ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'garrison-lab', '-f', path])
  }
  const host = await readFile(join(directory, 'host-key.pub'), 'utf8')
  await writeFile(join(directory, 'known_hosts'), `garrison-lab ${host}`)
}

/** In a user namespace an ordinary user owns files as root does, which is all that tar and mkfs need. */
const asRoot = process.getuid?.() === 0 ? [] : ['/usr/bin/unshare', '--map-root-user', '--map-auto', '--']

/** Makes `stage.raw`, the installed system on an unpartitioned filesystem, and its kernel and initrd beside it. */
async function makeTree(
  directory: string,
  archive: string,
  { include, modules, script }: Recipe,
  progress: (line: string) => void,
): Promise<void> {
  const overlay = join(directory, 'overlay')
  const files: Record<string, string> = {
    ...guestFiles,
    'etc/initramfs-tools/modules': `nvme\nvirtio_pci\nvirtio_blk\n${modules.join('\n')}\n`,
    'lab-install': script,
    'root/.ssh/authorized_keys': await readFile(join(archive, 'key.pub'), 'utf8'),
    'etc/ssh/ssh_host_ed25519_key': await readFile(join(archive, 'host-key'), 'utf8'),
    'etc/ssh/ssh_host_ed25519_key.pub': await readFile(join(archive, 'host-key.pub'), 'utf8'),
  }
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(overlay, path)), { recursive: true })
    await writeFile(join(overlay, path), text)
  }
  await chmod(join(overlay, 'lab-install'), 0o755)
  await chmod(join(overlay, 'etc/ssh/ssh_host_ed25519_key'), 0o600)
  await chmod(join(overlay, 'root'), 0o700)
  await chmod(join(overlay, 'root/.ssh'), 0o700)
  const overlayTar = join(directory, 'overlay.tar')
  await runTool(['/usr/bin/tar', '-C', overlay, '--owner=0', '--group=0', '-cf', overlayTar, '.'])

  progress('installing packages with mmdebstrap')
  const tar = join(directory, 'system.tar')
  const units = [
    `systemctl --quiet mask ${masked.join(' ')}`,
    `systemctl --quiet enable ${enabled.join(' ')}`,
  ]
  const source = `deb [trusted=yes] file:/srv/lab-packages ${release.codename} main`
  await runTool([
    '/usr/bin/mmdebstrap',
    '--quiet',
    '--variant=minbase',
    `--include=${include.join(',')}`,
    // The overlay goes in before the packages, whose scripts read it; dpkg keeps what is already there.
    `--essential-hook=tar-in ${overlayTar} /`,
    '--dpkgopt=force-confold',
    '--dpkgopt=force-unsafe-io',
    ...units.map((one) => `--customize-hook=chroot "$1" ${one}`),
    `--customize-hook=echo '${source}' > "$1"/etc/apt/sources.list`,
    release.codename,
    tar,
    `deb [trusted=yes] copy:${join(archive, 'archive')} ${release.codename} main`,
  ])

  progress('making the stage filesystem')
  const tree = join(directory, 'tree')
  await mkdir(tree)
  await runTool([...asRoot, '/usr/bin/tar', '-C', tree, '--xattrs', '--exclude=./dev/*', '-xpf', tar])
  await rm(tar)
  const stage = join(directory, 'stage.raw')
  await writeFile(stage, '')
  await truncate(stage, rootImageBytes)
  await runTool([
    ...asRoot,
    '/usr/sbin/mkfs.ext4',
    '-q',
    '-L',
    'lab-stage',
    '-O',
    '^has_journal',
    '-d',
    tree,
    stage,
  ])
  for (const [link, name] of [
    ['vmlinuz', 'kernel'],
    ['initrd.img', 'initrd'],
  ] as const) {
    await runTool([...asRoot, '/usr/bin/cp', '--dereference', join(tree, link), join(directory, name)])
  }
  await runTool([...asRoot, '/usr/bin/rm', '-rf', tree, overlay, overlayTar])
}

/** Boots the stage, which puts itself on `root.raw`, and removes it. */
async function install(directory: string, progress: (line: string) => void): Promise<void> {
  const root = join(directory, 'root.raw')
  await writeFile(root, '')
  await truncate(root, rootImageBytes)
  const log: string[] = []
  const machine = startTool([
    '/usr/bin/qemu-system-x86_64',
    ...['-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'Westmere', '-m', '1024'],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', join(directory, 'kernel'), '-initrd', join(directory, 'initrd')],
    ...['-append', `root=LABEL=lab-stage ro init=/lab-install panic=-1 ${kernelOptions}`],
    ...['-drive', `file=${join(directory, 'stage.raw')},format=raw,if=virtio,snapshot=on`],
    ...['-drive', `file=${root},format=raw,if=virtio,cache=unsafe,discard=unmap`],
  ])
  eachLine(machine.stdout, (line) => {
    log.push(line)
    const step = /LAB-STEP (.*)/.exec(line)?.[1]
    if (step) progress(step.trim())
  })
  eachLine(machine.stderr, (line) => log.push(line))
  const timer = setTimeout(() => machine.kill('SIGKILL'), 1_200_000)
  await endOf(machine).finally(() => clearTimeout(timer))
  if (!log.some((line) => line.includes('LAB-INSTALL-DONE'))) {
    throw new Error(
      `The guest that installs ${directory} did not finish. Its console:\n${log.slice(-60).join('\n')}`,
    )
  }
  for (const name of ['stage.raw', 'kernel', 'initrd']) await rm(join(directory, name))
}
