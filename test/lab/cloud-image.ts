// A small Debian image as clouds have it (cloud-init, guest agent, serial console; boots by BIOS and UEFI): mmdebstrap, syslinux.
//
// It is put together without a loop device or a guest: its filesystems are made as files are, at their places in the image.
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { cached, hashOf } from './image.ts'
import { release } from './packages.ts'
import { runTool } from './processes.ts'
import { ensureRequirements } from './requirements.ts'

const needed = [
  { package: 'mmdebstrap', path: '/usr/bin/mmdebstrap' },
  { package: 'e2fsprogs', path: '/usr/sbin/mkfs.ext4' },
  { package: 'dosfstools', path: '/usr/sbin/mkfs.vfat' },
  { package: 'fdisk', path: '/usr/sbin/sfdisk' },
  { package: 'mtools', path: '/usr/bin/mcopy' },
  { package: 'qemu-utils', path: '/usr/bin/qemu-img' },
  { package: 'syslinux', path: '/usr/bin/syslinux' },
  { package: 'syslinux-common', path: '/usr/lib/syslinux/mbr/mbr.bin' },
]

const packages = [
  'linux-image-cloud-amd64',
  'initramfs-tools',
  'zstd',
  'systemd-sysv',
  'systemd-boot-efi',
  'udev',
  'dbus',
  'kmod',
  'iproute2',
  'netbase',
  'openssh-server',
  'fdisk',
  'e2fsprogs',
  'cloud-init',
  'cloud-guest-utils',
  'qemu-guest-agent',
]

const mib = 2 ** 20
/** Where the filesystem of the boot loaders begins and ends; behind it is root, which grows. */
const [bootMiB, rootMiB, imageMiB] = [1, 97, 1280]

const kernelLine =
  'root=LABEL=root ro console=ttyS0 loglevel=4 mitigations=off norandmaps no_timer_check tsc=reliable'

const systemFiles: Readonly<Record<string, string>> = {
  'etc/fstab': 'LABEL=root / ext4 errors=remount-ro 0 1\n',
  'etc/machine-id': '',
  'etc/cloud/cloud.cfg.d/10-small.cfg': 'locale: C.UTF-8\n',
  'etc/initramfs-tools/conf.d/small': 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n',
  'etc/initramfs-tools/modules': 'virtio_pci\nvirtio_blk\next4\n',
  'etc/dpkg/dpkg.cfg.d/small':
    'force-unsafe-io\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/locale/*\n',
}

/** Units that only cost time in a guest that lives for minutes. */
const masked = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty@tty1.service',
  'systemd-hwdb-update.service',
  'systemd-pcrphase.service',
]

const bootFiles: Readonly<Record<string, string>> = {
  'syslinux.cfg': `DEFAULT linux\nLABEL linux\n  LINUX vmlinuz\n  INITRD initrd.img\n  APPEND ${kernelLine}\n`,
  'loader/loader.conf': 'timeout 0\ndefault linux.conf\n',
  'loader/entries/linux.conf': `title linux\nlinux /vmlinuz\ninitrd /initrd.img\noptions ${kernelLine}\n`,
}

/** The distribution's own sources among those of this machine, as apt names them. */
async function sources(): Promise<readonly string[]> {
  const { stdout } = await runTool([
    '/usr/bin/apt-get',
    'indextargets',
    '--format',
    'deb $(REPO_URI) $(RELEASE) $(COMPONENT)',
    'Created-By: Packages',
    `Origin: ${release.origin}`,
  ])
  return [...new Set(stdout.split('\n').filter((line) => line.includes(release.codename)))]
}

async function writeTree(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
}

async function make(directory: string, progress: (line: string) => void): Promise<void> {
  const overlay = join(directory, 'overlay')
  const tree = join(directory, 'tree')
  const boot = join(directory, 'boot')
  await writeTree(overlay, systemFiles)
  await runTool(['/usr/bin/apt-get', 'update'])
  progress('installing packages with mmdebstrap')
  await runTool([
    '/usr/bin/mmdebstrap',
    '--quiet',
    '--mode=root',
    '--variant=minbase',
    `--include=${packages.join(',')}`,
    `--essential-hook=copy-in ${join(overlay, 'etc')} /`,
    '--dpkgopt=force-confold',
    `--customize-hook=chroot "$1" systemctl --quiet mask ${masked.join(' ')}`,
    '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd.service',
    '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname',
    release.codename,
    tree,
    ...(await sources()),
  ])

  progress('making the image')
  const raw = join(directory, 'image.raw')
  await writeFile(raw, '')
  await truncate(raw, imageMiB * mib)
  const sectors = (at: number) => (at * mib) / 512
  await runTool(['/usr/sbin/sfdisk', '--quiet', '--', raw], {
    stdin: `label: dos\nstart=${sectors(bootMiB)}, size=${sectors(rootMiB - bootMiB)}, type=ef, bootable\nstart=${sectors(rootMiB)}, type=83\n`,
  })
  const bootKiB = ((rootMiB - bootMiB) * mib) / 1024
  await runTool([
    '/usr/sbin/mkfs.vfat',
    ...['-F', '16', '-n', 'BOOT', '--offset', String(sectors(bootMiB)), '--', raw, String(bootKiB)],
  ])
  await writeTree(boot, bootFiles)
  await mkdir(join(boot, 'EFI/BOOT'), { recursive: true })
  for (const [from, to] of [
    ['vmlinuz', 'vmlinuz'],
    ['initrd.img', 'initrd.img'],
    ['usr/lib/systemd/boot/efi/systemd-bootx64.efi', 'EFI/BOOT/BOOTX64.EFI'],
  ] as const)
    await runTool(['/usr/bin/cp', '--dereference', '--', join(tree, from), join(boot, to)])
  const place = `${raw}@@${bootMiB * mib}`
  const parts = ['EFI', 'loader', 'syslinux.cfg', 'vmlinuz', 'initrd.img'].map((name) => join(boot, name))
  await runTool(['/usr/bin/mcopy', '-s', '-Q', '-i', place, ...parts, '::/'])
  await runTool(['/usr/bin/syslinux', '--install', '--offset', String(bootMiB * mib), raw])
  await runTool([
    '/usr/bin/dd',
    ...['if=/usr/lib/syslinux/mbr/mbr.bin', `of=${raw}`, 'bs=440', 'count=1', 'conv=notrunc', 'status=none'],
  ])
  await runTool([
    '/usr/sbin/mkfs.ext4',
    ...['-q', '-F', '-L', 'root', '-E', `offset=${rootMiB * mib}`, '-d', tree, raw],
    String(((imageMiB - rootMiB) * mib) / 1024),
  ])
  await runTool(['/usr/bin/qemu-img', 'convert', '-O', 'qcow2', raw, join(directory, 'image.qcow2')])
  for (const path of [overlay, tree, boot, raw]) await rm(path, { recursive: true })
}

/** Builds the image, or finds it in the cache of the lab; its path. Needs root. It must not be written to. */
export async function cloudImage(
  progress: (line: string) => void = (line) => process.stderr.write(`cloud image: ${line}\n`),
): Promise<string> {
  await ensureRequirements(progress, needed)
  const hash = hashOf([
    packages,
    kernelLine,
    systemFiles,
    masked,
    bootFiles,
    imageMiB,
    make.toString(),
    release,
  ])
  const directory = await cached(`cloud-${hash}`, progress, (one) => make(one, progress))
  return join(directory, 'image.qcow2')
}
