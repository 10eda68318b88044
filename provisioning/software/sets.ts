// What each role takes on each distribution: packages by its own names, and the units that then are enabled and run.

import type { OsRelease } from './os-release.ts'

/** A role of the desired document. */
export type Role = 'storage' | 'vm-host' | 'console'

/** A unit that comes with a package. `leavesWhenIdle`: its socket starts it, so it is enabled and need not run. */
export interface WantedUnit {
  readonly unit: string
  readonly package: string
  readonly leavesWhenIdle?: true
}

/** What one role takes. */
export interface RoleSet {
  readonly packages: readonly string[]
  readonly units: readonly WantedUnit[]
}

/** A distribution that Garrison knows. */
export type Distribution = 'debian-12' | 'ubuntu-24.04' | 'el-9' | 'amazon-2023'

/** The package tools of a distribution. */
export type Family = 'apt' | 'dnf'

/** The architectures that EC2 metal hosts have, in systemd's words. */
export type Architecture = 'x86-64' | 'arm64'

/** The distribution and its tools, or null when it is none that Garrison knows. */
export function distributionOf({
  id,
  version,
}: OsRelease): { readonly distribution: Distribution; readonly family: Family } | null {
  if (id === 'debian' && version === '12') return { distribution: 'debian-12', family: 'apt' }
  if (id === 'ubuntu' && version === '24.04') return { distribution: 'ubuntu-24.04', family: 'apt' }
  if (['rhel', 'rocky', 'almalinux'].includes(id) && /^9(\.|$)/.test(version))
    return { distribution: 'el-9', family: 'dnf' }
  if (id === 'amzn' && version === '2023') return { distribution: 'amazon-2023', family: 'dnf' }
  return null
}

const units = (
  source: string,
  names: readonly string[],
  idle: readonly string[] = [],
): readonly WantedUnit[] => [
  ...names.map((unit) => ({ unit, package: source })),
  ...idle.map((unit) => ({ unit, package: source, leavesWhenIdle: true as const })),
]

const debian = (architecture: Architecture): Readonly<Record<Role, RoleSet>> => ({
  storage: {
    packages: ['mdadm', 'lvm2', 'xfsprogs', 'e2fsprogs', 'fdisk', 'nvme-cli', 'smartmontools'],
    units: [],
  },
  'vm-host': {
    packages: [
      ...(architecture === 'arm64' ? ['qemu-system-arm', 'qemu-efi-aarch64'] : ['qemu-system-x86', 'ovmf']),
      'qemu-utils',
      'xorriso',
      'libvirt-daemon-system',
      'libvirt-clients',
      'swtpm',
      'swtpm-tools',
      'dnsmasq-base',
    ],
    // The service starts the VMs at boot, and leaves after two minutes without any.
    units: units(
      'libvirt-daemon-system',
      ['libvirtd.socket', 'libvirtd-ro.socket', 'virtlogd.socket'],
      ['libvirtd.service'],
    ),
  },
  console: {
    packages: ['cockpit', 'cockpit-machines', 'cockpit-storaged', 'udisks2-lvm2', 'virtinst'],
    units: units('cockpit', ['cockpit.socket']),
  },
})

const redHat = (architecture: Architecture): Readonly<Record<Role, RoleSet>> => ({
  storage: {
    packages: [
      ...['mdadm', 'lvm2', 'xfsprogs', 'e2fsprogs', 'nvme-cli', 'smartmontools'],
      // matchpathcon and semanage, which label mounted volumes.
      ...['libselinux-utils', 'policycoreutils-python-utils'],
    ],
    units: [],
  },
  'vm-host': {
    packages: [
      'qemu-kvm',
      'qemu-img',
      'xorriso',
      'libvirt-daemon-kvm',
      'libvirt-client',
      architecture === 'arm64' ? 'edk2-aarch64' : 'edk2-ovmf',
      'swtpm',
      'swtpm-tools',
      'dnsmasq',
    ],
    // One daemon for each part of libvirt; virtproxyd keeps the paths of the old single one.
    units: units(
      'libvirt-daemon-kvm',
      [
        'virtqemud.socket',
        'virtqemud-ro.socket',
        'virtnetworkd.socket',
        'virtnodedevd.socket',
        'virtnwfilterd.socket',
        'virtsecretd.socket',
        'virtstoraged.socket',
        'virtproxyd.socket',
        'virtproxyd-ro.socket',
        'virtlogd.socket',
      ],
      ['virtqemud.service', 'virtnetworkd.service', 'virtstoraged.service'],
    ),
  },
  console: {
    packages: ['cockpit', 'cockpit-machines', 'cockpit-storaged', 'udisks2-lvm2', 'virt-install'],
    units: units('cockpit', ['cockpit.socket']),
  },
})

/** What a role takes on a distribution. What a distribution does not offer is found out, not written down here. */
export const roleSet = (family: Family, architecture: Architecture, role: Role): RoleSet =>
  (family === 'apt' ? debian : redHat)(architecture)[role]
