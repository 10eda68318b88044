// The Debian archive that guests install from: built from the machine's own apt sources by apt-get and dpkg-scanpackages.
import { createHash } from 'node:crypto'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runTool } from './processes.ts'

/** The distribution of the guests, by the names that its archive uses. */
export const release = { origin: 'Debian', codename: 'bookworm', suite: 'stable' } as const

/** What every image holds from the start: what a small cloud host of this distribution has, and no more. */
export const basePackages = [
  'apt',
  'linux-image-cloud-amd64',
  'initramfs-tools',
  'zstd',
  'grub-pc-bin',
  'grub2-common',
  'systemd',
  'systemd-sysv',
  'udev',
  'dbus',
  'kmod',
  'iproute2',
  'procps',
  'netbase',
  'openssh-server',
  'fdisk',
  'e2fsprogs',
  'dosfstools',
] as const

/** What the archive holds beside the base: what `garrison apply` installs, and what tests use to get in its way. */
export const hostPackages = [
  'mdadm',
  'lvm2',
  'thin-provisioning-tools',
  'xfsprogs',
  'btrfs-progs',
  'gdisk',
  'parted',
  'cloud-guest-utils',
  'cryptsetup-bin',
  'cryptsetup',
  'nvme-cli',
  'smartmontools',
  'qemu-system-x86',
  'qemu-utils',
  'libvirt-daemon-system',
  'libvirt-clients',
  'virtinst',
  'ovmf',
  'swtpm',
  'swtpm-tools',
  'dnsmasq-base',
  'cockpit',
  'cockpit-bridge',
  'cockpit-system',
  'cockpit-ws',
  'cockpit-machines',
  'cockpit-storaged',
  'udisks2-lvm2',
  'polkitd',
  'nftables',
  'chrony',
  'genisoimage',
  'xorriso',
  'libatomic1',
  'ca-certificates',
  'tar',
  'rsync',
  'strace',
] as const

/** What the archive holds beside that, in no image: scenarios install it themselves. */
export const scenarioPackages = ['network-manager'] as const

const apt = '/usr/bin/apt-get'

/** Fills `directory` with a signed-by-nobody archive (dists/, pool/) of all package lists and what they depend on. */
export async function buildArchive(directory: string, progress: (line: string) => void): Promise<void> {
  const pool = join(directory, 'pool')
  const work = join(directory, 'apt')
  await mkdir(join(pool, 'partial'), { recursive: true })
  await mkdir(join(work, 'lists', 'partial'), { recursive: true })
  // An empty dpkg database makes apt resolve for a machine that has nothing, and the pins keep whatever else this machine
  // installs from (vendor archives, other releases) out of the guests.
  await writeFile(join(work, 'dpkg'), '')
  await writeFile(
    join(work, 'preferences'),
    `Package: *\nPin: release o=${release.origin}, n=${release.codename}*\nPin-Priority: 500\n\n` +
      `Package: *\nPin: release o=*\nPin-Priority: -1\n`,
  )
  const options = [
    `Dir::State::status=${join(work, 'dpkg')}`,
    `Dir::State::lists=${join(work, 'lists')}`,
    `Dir::State::extended_states=${join(work, 'extended')}`,
    `Dir::Etc::preferences=${join(work, 'preferences')}`,
    'Dir::Etc::preferencesparts=/dev/null',
    `Dir::Cache=${work}`,
    `Dir::Cache::archives=${pool}`,
    'APT::Architecture=amd64',
    'APT::Install-Recommends=false',
    'APT::Sandbox::User=root',
    'Acquire::Languages=none',
    'APT::Update::Post-Invoke-Success=',
    'APT::Update::Post-Invoke=',
    'APT::Keep-Downloaded-Packages=true',
    'Acquire::Retries=3',
  ].flatMap((one) => ['-o', one])
  progress('reading the package lists of this machine’s apt sources')
  await runTool([apt, ...options, 'update'])
  progress('downloading the guests’ packages')
  let count = 0
  await runTool(
    [
      apt,
      ...options,
      '--yes',
      '--quiet',
      '--download-only',
      'install',
      '?essential',
      '?priority(required)',
      ...basePackages,
      ...hostPackages,
      ...scenarioPackages,
    ],
    {
      onLine: (line) => {
        if (line.startsWith('Get:') && ++count % 100 === 0) progress(`${count} packages downloaded`)
      },
    },
  )
  await rm(work, { recursive: true })
  await rm(join(pool, 'partial'), { recursive: true })
  await rm(join(pool, 'lock'), { force: true })
  // apt writes epochs as %3a, which file: sources would decode once more.
  for (const name of await readdir(pool)) {
    if (name.includes('%')) {
      await rename(join(pool, name), join(pool, decodeURIComponent(name).replaceAll(':', '.')))
    }
  }
  progress('indexing the archive')
  const scanned = await runTool([
    '/usr/bin/env',
    '-C',
    directory,
    '/usr/bin/dpkg-scanpackages',
    '--multiversion',
    'pool',
  ])
  await publish(directory, scanned.stdout)
}

/** Writes the index and a Release file, which apt matches pins and mmdebstrap its suite against. */
async function publish(directory: string, index: string): Promise<void> {
  const suite = join(directory, 'dists', release.codename)
  const binary = join('main', 'binary-amd64', 'Packages')
  await mkdir(join(suite, 'main', 'binary-amd64'), { recursive: true })
  await writeFile(join(suite, binary), index)
  const digest = createHash('sha256').update(index).digest('hex')
  await writeFile(
    join(suite, 'Release'),
    [
      `Origin: ${release.origin}`,
      `Label: ${release.origin}`,
      `Suite: ${release.suite}`,
      `Codename: ${release.codename}`,
      'Architectures: amd64',
      'Components: main',
      'Date: Thu, 01 Jan 2026 00:00:00 UTC',
      'SHA256:',
      ` ${digest} ${Buffer.byteLength(index)} ${binary}`,
      '',
    ].join('\n'),
  )
}
