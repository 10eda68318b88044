// Where declared networks lead: the interfaces, and the kernel's switches that matter there.

import type { DesiredNetwork, DesiredVmnets } from './schema.ts'

/** What the document calls the interface that carries a network's traffic to the wire; null for one that leads nowhere or has a bridge of the host's. */
export const wireOf = ({ uplink, vlan }: DesiredNetwork): string | null =>
  uplink === undefined ? null : vlan === undefined ? uplink : `${uplink}.${vlan}`

/** Every such name, and the bridges of the host that networks stand on, sorted. */
export const wiresOf = ({ networks }: DesiredVmnets): readonly string[] =>
  [
    ...new Set(
      Object.values(networks).flatMap(
        (net) => wireOf(net) ?? (net.mode === 'bridge' ? (net.bridge ?? []) : []),
      ),
    ),
  ].sort()

const everywhere = [
  'net/ipv4/ip_forward',
  'net/ipv6/conf/all/forwarding',
  'net/ipv6/conf/all/proxy_ndp',
] as const

/** Whether the kernel answers on an interface for addresses behind it in IPv6, as a path below /proc/sys. */
export const answersSwitch = (device: string): string => `net/ipv6/conf/${device}/forwarding`

/** The switches, as paths below /proc/sys, which sysctl.d(5) takes too. */
export const sysctlKeys = (devices: readonly string[]): readonly string[] => [
  ...everywhere,
  ...devices.flatMap((device) => [
    `net/ipv4/conf/${device}/ignore_routes_with_linkdown`,
    `net/ipv4/conf/${device}/proxy_arp`,
    `net/ipv4/conf/${device}/rp_filter`,
    `net/ipv4/neigh/${device}/proxy_delay`,
    `net/ipv6/conf/${device}/accept_ra`,
    answersSwitch(device),
    `net/ipv6/conf/${device}/ignore_routes_with_linkdown`,
    `net/ipv6/neigh/${device}/proxy_delay`,
  ]),
]
