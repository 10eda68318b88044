// What the host must have for the resolved networks: definitions, switches of the kernel, answers in the name of VMs, routes.

import { contains, endsOf, formatCidr, formatIp, parseIp } from '../link/address.ts'
import { type Family, familyOption } from '../link/ip.ts'
import type { HostModel, IpModel, NetworkModel } from './network.ts'
import type { ObservedVmnets } from './observe.ts'
import { carriesDefault, type Part, type Resolved } from './resolve.ts'
import { answersSwitch } from './uplink.ts'

/** libvirt's word for a mode. */
export const forwardOf = ({ mode }: Resolved): string =>
  // With `open` libvirt adds no rule of its own, which would refuse what ours let pass.
  ({ routed: 'open', nat: 'open', isolated: 'none', bridge: 'bridge', passthrough: 'passthrough' })[mode]

function hostsOf({ macs }: ObservedVmnets, one: Resolved, family: Family): readonly HostModel[] {
  return Object.entries(one.net.reservations).flatMap(([vm, { ipv4, ipv6 }]): readonly HostModel[] => {
    const address = parseIp((family === 'inet' ? ipv4 : ipv6) ?? '')
    if (address === null) return []
    const text = formatIp(address)
    if (family === 'inet6') return [{ mac: null, name: vm, address: text }]
    const mac = macs[one.name]?.[vm]
    return mac === undefined ? [] : [{ mac, name: vm, address: text }]
  })
}

/** Whether two reservations cannot both be. */
const conflict = (one: HostModel, other: HostModel): boolean =>
  one.address === other.address ||
  (one.mac !== null && one.mac === other.mac) ||
  (one.name !== null && one.name === other.name)

/** What the whole range is when none is declared: the longer side of the gateway. */
function usualRange({
  family,
  subnet,
  gateway,
}: Part): { readonly from: string; readonly to: string } | null {
  const ends = endsOf(subnet)
  const at = parseIp(gateway)?.value ?? ends.first
  const [first, last] = [ends.first + 1n, ends.last - 1n]
  const [from, to] = at - first > last - at ? [first, at - 1n] : [at + 1n, last]
  if (from > to) return null
  const text = (value: bigint): string => formatIp({ family, value })
  // dnsmasq takes no range of IPv6 that is wider than it can count.
  const end = to - from > 65_535n ? from + 65_535n : to
  return { from: text(from), to: text(end) }
}

function ipOf(observed: ObservedVmnets, one: Resolved, part: Part, known: NetworkModel | null): IpModel {
  const { family, gateway, subnet } = part
  const written = family === 'inet' ? one.net.ipv4?.dhcp : one.net.ipv6?.dhcp
  const range = written === undefined ? usualRange(part) : written === false ? null : written
  const hosts = hostsOf(observed, one, family)
  const there = known?.ips.find((ip) => ip.family === family)?.hosts ?? []
  const text = (address: string): string => {
    const number = parseIp(address)
    return number === null ? address : formatIp(number)
  }
  return {
    family,
    address: gateway,
    prefix: subnet.prefix,
    ranges: range === null ? [] : [{ from: text(range.from), to: text(range.to) }],
    hosts:
      written === false
        ? []
        : [
            ...hosts,
            ...there.filter((other) => !hosts.some((mine) => conflict(mine, other)) && isIn(part, other)),
          ],
  }
}

const isIn = ({ subnet }: Part, { address }: HostModel): boolean => {
  const one = parseIp(address)
  return one !== null && contains(subnet, one)
}

/** The zone of firewalld in which it lets VMs ask for DHCP and DNS, and packets from and to them pass. */
const firewalldZone = 'libvirt-routed'

/** The definition that a network is to have. Reservations that somebody else made stay, where they contradict none of ours. */
export function wantedModel(
  observed: ObservedVmnets,
  one: Resolved,
  known: NetworkModel | null,
): NetworkModel {
  const { mode, net, device, bridge, parts } = one
  const sits = mode === 'bridge' || mode === 'passthrough'
  return {
    forward: forwardOf(one),
    devices: sits && device !== null ? [device] : [],
    bridge,
    zone: sits ? null : observed.hasFirewalld && mode !== 'isolated' ? firewalldZone : (known?.zone ?? null),
    isolate: net.isolate,
    limits: { receive: net.limits?.receive ?? null, send: net.limits?.send ?? null },
    mtu: net.mtu ?? null,
    domain: net.domain ?? null,
    nameservers: net.nameservers.map((text) => {
      const one = parseIp(text)
      return one === null ? text : formatIp(one)
    }),
    ips: parts.map((part) => ipOf(observed, one, part, known)),
  }
}

const leads = ({ device, parts }: Resolved): boolean => device !== null && parts.length > 0

/** The kernel's switches, as paths below /proc/sys with their values. */
export function wantedSysctls(
  observed: ObservedVmnets,
  all: readonly Resolved[],
): readonly (readonly [key: string, value: string])[] {
  const { sysctls } = observed
  const forwarded = all.filter(leads)
  const partsOf = (family: Family, on: readonly Resolved[]): readonly Part[] =>
    on.flatMap(({ parts }) => parts).filter((part) => part.family === family)
  const perDevice = [...new Set(forwarded.map(({ device }) => device ?? ''))].flatMap((device) => {
    const on = forwarded.filter((one) => one.device === device)
    const [v4, v6] = [partsOf('inet', on), partsOf('inet6', on)]
    const advertised = `net/ipv6/conf/${device}/accept_ra`
    return [
      // It keeps its addresses while its cable is out, and its default route with them: another one is to be taken then.
      ...(carriesDefault(observed, device)
        ? (['ipv4', 'ipv6'] as const).map(
            (family) => [`net/${family}/conf/${device}/ignore_routes_with_linkdown`, '1'] as const,
          )
        : []),
      // Single entries are answered for instead.
      ...(v4.some(({ proxy }) => proxy)
        ? [
            [`net/ipv4/conf/${device}/proxy_arp`, '0'] as const,
            // It is there to let the real owner answer first; these have no other.
            [`net/ipv4/neigh/${device}/proxy_delay`, '0'] as const,
          ]
        : []),
      // What comes back to a VM may be from addresses to which the host itself would send elsewhere.
      ...(v4.some(({ router }) => router !== null)
        ? [[`net/ipv4/conf/${device}/rp_filter`, '2'] as const]
        : []),
      // With 1 a host that forwards takes no route from router advertisements any more; with 0 somebody else reads them.
      ...(v6.length > 0 && sysctls[advertised] !== '0' ? [[advertised, '2'] as const] : []),
      ...(v6.some(({ proxy }) => proxy)
        ? [
            [`net/ipv6/neigh/${device}/proxy_delay`, '0'] as const,
            // NetworkManager switches that of an interface off when it begins with it.
            [answersSwitch(device), '1'] as const,
          ]
        : []),
    ]
  })
  const v6 = partsOf('inet6', forwarded)
  return [
    ...(partsOf('inet', forwarded).length > 0 ? [['net/ipv4/ip_forward', '1'] as const] : []),
    ...(v6.length > 0 ? [['net/ipv6/conf/all/forwarding', '1'] as const] : []),
    // That of one interface is set anew by what configures it. Only single entries are answered for.
    ...(v6.some(({ proxy }) => proxy) ? [['net/ipv6/conf/all/proxy_ndp', '1'] as const] : []),
    ...perDevice,
  ]
}

/** A rule and a route that lead the VMs of one subnet to the router of their wire. */
export interface Policy {
  readonly family: Family
  readonly from: string
  readonly table: number
  readonly via: string
}

/** What one interface must have. Addresses are in the order of their numbers. */
export interface OnWire {
  readonly device: string
  readonly proxies: readonly string[]
  readonly policies: readonly Policy[]
}

/** The first of our routing tables, one for each interface that VMs are led to; and the priorities of our rules. */
export const firstTable = 5210
/** First: what the main table knows better than by its default route. */
export const priorities = { known: 5210, led: 5211 } as const

/** What each interface must have that must have anything, by their names. */
export function wantedOnWire(all: readonly Resolved[]): readonly OnWire[] {
  const devices = [...new Set(all.flatMap((one) => (leads(one) ? (one.device ?? []) : [])))].sort()
  return devices.flatMap((device, index) => {
    const parts = all.filter((one) => one.device === device).flatMap((one) => one.parts)
    const proxies = parts.filter(({ proxy }) => proxy).flatMap(proxiedBy)
    const policies = parts.flatMap(({ family, subnet, router }) =>
      router === null ? [] : [{ family, from: formatCidr(subnet), table: firstTable + index, via: router }],
    )
    return proxies.length + policies.length === 0 ? [] : { device, proxies, policies }
  })
}

/** Every address of a slice but those that no VM can have; of IPv4 the kernel answers for the gateway by itself. */
function proxiedBy({ family, subnet, gateway }: Part): readonly string[] {
  const own = parseIp(gateway)?.value
  const found: string[] = []
  const { first, last } = endsOf(subnet)
  for (let value = first + 1n; value < last; value += 1n)
    if (value !== own || family === 'inet6') found.push(formatIp({ family, value }))
  return found
}

/** Lines for `ip -batch` that begin to answer for all addresses of one family. */
export const batchLines = ({ device, proxies }: OnWire, family: Family): readonly string[] =>
  proxies
    .filter((address) => parseIp(address)?.family === family)
    .map((address) => proxyLine('replace', address, device))

/** The line that begins or ends to answer for an address. */
export const proxyLine = (verb: 'replace' | 'delete', address: string, device: string): string =>
  `neighbour ${verb} proxy ${address} dev ${device}`

/** What `ip` is asked for the route of a policy, to be refused while the interface has no address in the network of the router. */
export const bootRoute = ({ family, table, via }: Policy, device: string): string =>
  `${familyOption(family)} route replace default via ${via} dev ${device} table ${table} protocol kernel`

/** The lines of one policy. */
export const policyLines = ({ from, table, via }: Policy, device: string): readonly string[] => [
  // The address of the interface may come later. What networkd has not made it takes away, but for what it holds to be the kernel's.
  `route replace default via ${via} dev ${device} table ${table} onlink protocol kernel`,
  `rule add priority ${priorities.known} from ${from} lookup main suppress_prefixlength 0 protocol kernel`,
  `rule add priority ${priorities.led} from ${from} lookup ${table} protocol kernel`,
]
