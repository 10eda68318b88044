// systemd-networkd (systemd >= 249): its files, what it notes about a link in /run, and the argv that make it read and use files.

import { HostError } from '../problem.ts'
import type { Action } from '../resource.ts'
import type { OwnFile } from './observe.ts'
import { fromHere, isKeptWithoutCarrier, mark, rulePriority, type Wanted, writeLearned } from './want.ts'

/** The unit of networkd. */
export const networkdUnit = 'systemd-networkd.service'

/** Where the administrator's files are. */
export const networkdFolder = '/etc/systemd/network'

/**
 * The first file that matches is taken, in the order of the names whatever the folder: before what cloud-init (10-cloud-init),
 * netplan (10-netplan) and amazon-ec2-net-utils (70) write.
 */
const pathOf = (key: string, kind: 'network' | 'netdev'): string =>
  `${networkdFolder}/05-garrison-${key}.${kind}`

const lines = (...all: readonly (string | readonly string[])[]): string =>
  `${[mark, ...all.flat()].join('\n')}\n`

const yes = (value: boolean): string => (value ? 'yes' : 'no')

// A VLAN, a macvtap of a VM and a bridge have the MAC of the interface below them.
const matchLines = ({ mac, key }: Pick<Wanted, 'mac' | 'key'>): readonly string[] =>
  mac === null
    ? ['[Match]', `Name=${key}`, 'Kind=vlan']
    : ['[Match]', `MACAddress=${mac}`, 'Type=ether', 'Kind=!vlan macvlan macvtap ipvlan bridge bond team']

const dhcpLines = ({ metric, management }: Wanted): readonly string[] => [
  '',
  '[DHCPv4]',
  'ClientIdentifier=mac',
  // The address is kept for this host while it starts again or is configured anew.
  'SendRelease=no',
  `RouteMetric=${metric}`,
  // What a server that nobody vouches for may not do: take the routes to the metadata, the name of the host, its clock, its MTU.
  'UseRoutes=no',
  'UseGateway=yes',
  'UseHostname=no',
  'UseNTP=no',
  'UseMTU=no',
  // Whatever it calls a name server, an endpoint of AWS as well, would be led to this interface.
  ...(management ? [] : ['RoutesToDNS=no']),
]

const advertisedLines = ({ metric }: Wanted): readonly string[] => [
  '',
  '[IPv6AcceptRA]',
  `RouteMetric=${metric}`,
  'UseMTU=no',
  '',
  '[DHCPv6]',
  'UseHostname=no',
  'UseNTP=no',
]

function network(wanted: Wanted): OwnFile {
  const { key, mtu, management, dhcp, advertised, addresses, dns, vlans, gateways, metric, routes, rules } =
    wanted
  const family6 = advertised || addresses.some((address) => address.includes(':'))
  return {
    path: pathOf(key, 'network'),
    content: lines(
      writeLearned(wanted.learned),
      matchLines(wanted),
      '',
      '[Link]',
      ...(mtu === null ? [] : [`MTUBytes=${mtu}`]),
      `RequiredForOnline=${yes(management)}`,
      '',
      '[Network]',
      `DHCP=${dhcp ? 'ipv4' : 'no'}`,
      `IPv6AcceptRA=${yes(advertised)}`,
      `LinkLocalAddressing=${family6 ? 'ipv6' : 'no'}`,
      'LLMNR=no',
      'MulticastDNS=no',
      ...(isKeptWithoutCarrier(wanted) ? ['IgnoreCarrierLoss=yes'] : []),
      addresses.map((address) => `Address=${address}`),
      dns.map((server) => `DNS=${server}`),
      vlans.map((vlan) => `VLAN=${vlan}`),
      dhcp ? dhcpLines(wanted) : [],
      advertised ? advertisedLines(wanted) : [],
      gateways.flatMap((gateway) => ['', '[Route]', `Gateway=${gateway}`, `Metric=${metric}`]),
      routes.flatMap(({ to, via, table }) => [
        '',
        '[Route]',
        `Destination=${to}`,
        ...(via === null
          ? to.includes(':')
            ? []
            : ['Scope=link']
          : [`Gateway=${via}`, ...(dhcp || advertised ? ['GatewayOnLink=yes'] : [])]),
        // What is on the link itself comes before what a server says of it; 0 is what the kernel makes of a static address.
        ...(table !== null ? [`Table=${table}`] : via === null ? ['Metric=1'] : []),
      ]),
      rules.flatMap(({ from, table }) => [
        '',
        '[RoutingPolicyRule]',
        `From=${from}`,
        `Table=${table}`,
        `Priority=${rulePriority}`,
        `IncomingInterface=${fromHere}`,
      ]),
    ),
  }
}

/** The files of one interface. */
export function networkdFiles(wanted: Wanted): readonly OwnFile[] {
  const { key, vlan } = wanted
  if (vlan === null) return [network(wanted)]
  const netdev = lines('[NetDev]', `Name=${key}`, 'Kind=vlan', '', '[VLAN]', `Id=${vlan.id}`)
  return [{ path: pathOf(key, 'netdev'), content: netdev }, network(wanted)]
}

/** Says that networkd leaves an interface alone, which another backend configures. */
export const networkdClaim = (wanted: Wanted): OwnFile => ({
  path: pathOf(wanted.key, 'network'),
  content: lines(matchLines(wanted), '', '[Link]', 'Unmanaged=yes'),
})

/** Makes networkd read its files again; interfaces whose file is another than before are configured anew, but for those that it has failed to. */
export const networkctlReload = (): [string, ...string[]] => ['/usr/bin/networkctl', 'reload']

/** Configures an interface anew from its file. */
export const networkctlReconfigure = (name: string): [string, ...string[]] => [
  '/usr/bin/networkctl',
  'reconfigure',
  '--',
  name,
]

/** Waits until networkd has configured an interface. Ends with 1 when it has not by then. */
export const networkdOnline = (name: string, seconds: number): [string, ...string[]] => [
  '/usr/lib/systemd/systemd-networkd-wait-online',
  `--interface=${name}`,
  `--timeout=${seconds}`,
]

const onlineSeconds = 20

/**
 * What makes networkd use the files of an interface, whose name is given, and waits until it has an address. When it reads files
 * that have changed it configures the interface anew by itself, and asked to in the middle of that it would begin again.
 */
export const networkdApply = (name: string | null, changed: boolean): readonly Action[] => [
  { kind: 'run', argv: networkctlReload(), deadlineMs: 30_000 },
  ...(name === null
    ? []
    : ([
        ...(changed ? [] : [{ kind: 'run', argv: networkctlReconfigure(name), deadlineMs: 30_000 } as const]),
        {
          kind: 'run',
          argv: networkdOnline(name, onlineSeconds),
          deadlineMs: (onlineSeconds + 10) * 1000,
          // 1: it is not by then. Whether that is a fault the next look tells.
          exits: [0, 1],
        },
      ] as const)),
]

/** Where networkd notes what it does with a link. */
export const linkFile = (index: number): string => `/run/systemd/netif/links/${index}`

/** The phase of a link that is not configured anew when files are read again. */
export const failedPhase = 'failed'

/** What networkd notes about a link. */
export interface LinkNote {
  /** configured, configuring, failed, pending, unmanaged, … */
  readonly phase: string
  readonly file: string | null
}

/** Parses a file of /run/systemd/netif/links, which sd-network(3) reads likewise. Errors: `host.unexpected-answer`. */
export function parseLinkFile(text: string): LinkNote {
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1]
  const phase = value('ADMIN_STATE')
  if (phase === undefined)
    throw new HostError('host.unexpected-answer', 'systemd-networkd notes no ADMIN_STATE of a link')
  return { phase, file: value('NETWORK_FILE') || null }
}
