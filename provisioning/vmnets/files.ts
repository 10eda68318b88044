// The files that bring rules and addresses of VM networks back at the next boot: their places and their text.

import { type Family, familyOption } from '../link/ip.ts'

/** Where what is loaded lies. */
export const ownFolder = '/var/lib/garrison/vmnets'

/** The nft script. */
export const rulesPath = `${ownFolder}/rules.nft`

/** sysctl.d(5): read at boot, and again for an interface that is plugged in. */
export const sysctlFile = '/etc/sysctl.d/60-garrison-vmnets.conf'

/** Where units of an administrator lie. */
export const unitFolder = '/etc/systemd/system'

const suffix: Readonly<Record<Family, string>> = { inet: 'ipv4', inet6: 'ipv6' }

/** What is told to `ip -batch` when the interface appears. */
export const uplinkBatch = (device: string, family: Family): string =>
  `${ownFolder}/${device}.${suffix[family]}`

/** The unit that loads the rules. */
export const rulesUnit = 'garrison-vmnets.service'

/** The unit that answers for addresses on an interface. */
export const uplinkUnit = (device: string): string => `garrison-vmnets-${device}.service`

/** The interface that a file of ours in `ownFolder` is about; null for another file. */
export const deviceOfBatch = (name: string): string | null => /^(.+)\.ipv[46]$/.exec(name)?.[1] ?? null

/** The unit of an interface (systemd.unit(5), escaping of paths). */
export const deviceUnit = (device: string): string =>
  `sys-subsystem-net-devices-${device.replace(/[^A-Za-z0-9:_.]/g, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`)}.device`

const heading = '# Written by Garrison from the desired document; changes here are undone.'

/** The text of the unit that loads the rules before any VM starts. */
export const rulesUnitText = (): string =>
  [
    heading,
    '[Unit]',
    'Description=Rules of the VM networks',
    'Documentation=man:garrison(1)',
    // Starting nftables.service empties every table.
    'After=local-fs.target nftables.service',
    'PartOf=nftables.service',
    'Before=libvirtd.service virtnetworkd.service virtqemud.service',
    `ConditionPathExists=${rulesPath}`,
    '',
    '[Service]',
    'Type=oneshot',
    'RemainAfterExit=yes',
    `ExecStart=/usr/sbin/nft --file ${rulesPath}`,
    '',
    '[Install]',
    'WantedBy=multi-user.target',
    '',
  ].join('\n')

/**
 * The text of the unit that runs each time that the interface appears, until `ip` has taken `routes` and the batches after them.
 * `policies` are lines for `ip` that may be there already, `switches` paths below /proc/sys that are to be 1.
 */
export const uplinkUnitText = (
  device: string,
  {
    policies,
    routes,
    switches,
  }: {
    readonly policies: readonly string[]
    readonly routes: readonly string[]
    readonly switches: readonly string[]
  },
): string => {
  const batches = (['inet', 'inet6'] as const).map(
    (family) => `/usr/sbin/ip ${familyOption(family)} -force -batch ${uplinkBatch(device, family)}`,
  )
  return [
    heading,
    '[Unit]',
    `Description=Addresses of VMs on ${device}`,
    'Documentation=man:garrison(1)',
    `BindsTo=${deviceUnit(device)}`,
    `After=local-fs.target ${deviceUnit(device)}`,
    'StartLimitIntervalSec=0',
    '',
    '[Service]',
    'Type=oneshot',
    'RemainAfterExit=yes',
    ...policies.map((policy) => `ExecStart=-/usr/sbin/ip ${policy}`),
    // At once as well: one family may have its address long before the other.
    ...batches.map((batch) => `ExecStart=-${batch}`),
    // Refused until the interface has its address. Before that the kernel takes no route over one that is down, and NetworkManager
    // removes the routes of others when it begins with an interface.
    ...routes.map((route) => `ExecStart=/usr/sbin/ip ${route}`),
    // Before it gives the interface its addresses, NetworkManager switches its IPv6 off and on, and the kernel forgets what it
    // answers for; and it switches off that it answers at all.
    ...switches.map((path) => `ExecStart=/usr/sbin/sysctl --quiet --write ${path}=1`),
    ...batches.map((batch) => `ExecStart=${batch}`),
    'Restart=on-failure',
    'RestartSec=5s',
    // A cable may be out for days.
    'LogLevelMax=err',
    '',
    '[Install]',
    `WantedBy=${deviceUnit(device)}`,
    '',
  ].join('\n')
}

/** The text of the sysctl drop-in. */
export const sysctlText = (values: readonly (readonly [key: string, value: string])[]): string =>
  [heading, ...values.map(([key, value]) => `${key} = ${value}`), ''].join('\n')
