// What is wanted of each interface, in no backend's words: the document, and for DHCP what the network has told so far.

import { createHash } from 'node:crypto'
import type { Desired } from '../desired.ts'
import {
  contains,
  formatCidr,
  formatIp,
  networkOf,
  notOfHosts,
  overlaps,
  parseCidr,
  parseIp,
} from '../link/address.ts'
import { type Family, mainTable } from '../link/ip.ts'
import type { ObservedInterface, ObservedUplinks } from './observe.ts'
import { keepsAddress, type WrittenUplink, type WrittenVlan } from './schema.ts'

/** A route of our own; `via` is null for what is on the link itself, `table` for the main one. */
export interface WantedRoute {
  readonly to: string
  readonly via: string | null
  readonly table: number | null
}

/** A network that an interface is in, and the router there. */
export interface Learned {
  readonly network: string
  readonly gateway: string
}

/** What is wanted of one interface. Addresses and networks in canonical form. */
export interface Wanted {
  readonly key: string
  /** Where the document says it: `uplinks.lan`, `uplinks.lan.vlans.storage`. */
  readonly path: string
  /** Null for a VLAN. */
  readonly mac: string | null
  readonly vlan: { readonly id: number; readonly parent: string } | null
  /** Keys of the VLANs on it, which are the names of their interfaces. */
  readonly vlans: readonly string[]
  readonly management: boolean
  /** A VM network leads there. */
  readonly carriesVms: boolean
  readonly mtu: number | null
  readonly dhcp: boolean
  /** Router advertisements are taken. */
  readonly advertised: boolean
  readonly addresses: readonly string[]
  readonly gateways: readonly string[]
  readonly dns: readonly string[]
  /** Of its default route, among those of other interfaces; the lowest is taken. */
  readonly metric: number
  readonly routes: readonly WantedRoute[]
  readonly rules: readonly { readonly from: string; readonly table: number }[]
  /** What the routes and rules above were made from and only the network could tell: written down, since a lease can be lost. */
  readonly learned: readonly Learned[]
}

/** The first line of every file that Garrison writes about interfaces. */
export const mark =
  '# Written by Garrison from its desired document, which is what to change; this file is replaced.'

/** The name of the interface of a VLAN. */
export const vlanKey = (uplink: string, id: number): string => `${uplink}.${id}`

/** The priority of our rules: after those of amazon-ec2-net-utils and libvirt, before the main table. */
export const rulePriority = 20_000

/**
 * The incoming interface of what this host itself sends, for which alone the rules are: what the network sends to VMs has the same
 * source and would be led back to it.
 */
export const fromHere = 'lo'

// Cloud images give 100 and more, ifupdown 0, networkd 1024.
/** The metric of the default route over the uplink that carries it. */
const carrierMetric = 50
const managementMetric = 1000
const otherMetric = 2000

/**
 * Whether an interface keeps its addresses while its cable is out. Without the last one the kernel forgets for whom it answers there
 * (VMs), and routes of others; neither comes back with the cable. Where the default route is it goes, so that that of another uplink
 * takes over; but not from under VMs, for the kernel is told by their networks to leave a route without a carrier out.
 */
export const isKeptWithoutCarrier = ({
  metric,
  carriesVms,
}: Pick<Wanted, 'metric' | 'carriesVms'>): boolean => metric !== carrierMetric || carriesVms

const firstTable = 20_000
const tables = 10_000

/** A routing table for each key, the same whichever others there are unless two fall on one. */
function tablesOf(keys: readonly string[]): ReadonlyMap<string, number> {
  const taken = new Map<string, number>()
  for (const key of keys.toSorted()) {
    let at = createHash('sha256').update(`garrison table\0${key}`).digest().readUInt32BE() % tables
    while ([...taken.values()].includes(firstTable + at)) at = (at + 1) % tables
    taken.set(key, firstTable + at)
  }
  return taken
}

/** What AWS serves to an instance at addresses of its link: metadata, name service, time. */
export const linkLocalServices: Readonly<Record<Family, readonly string[]>> = {
  inet: ['169.254.169.123/32', '169.254.169.253/32', '169.254.169.254/32'],
  inet6: ['fd00:ec2::123/128', 'fd00:ec2::253/128', 'fd00:ec2::254/128'],
}

const canonical = (text: string): string => {
  const cidr = parseCidr(text)
  return cidr === null ? text : formatCidr(cidr)
}

const canonicalIp = (text: string): string => {
  const ip = parseIp(text)
  return ip === null ? text : formatIp(ip)
}

const networkText = (text: string): string => {
  const cidr = parseCidr(text)
  return cidr === null ? text : formatCidr(networkOf(cidr))
}

const familyOf = (text: string): Family => (text.includes(':') ? 'inet6' : 'inet')

const learnedLine = /^# learned (\S+) by (\S+)$/gm

/** What a file of ours notes as learned. */
export const readLearned = (content: string): readonly Learned[] =>
  [...content.matchAll(learnedLine)].map(([, network = '', gateway = '']) => ({ network, gateway }))

/** The note of what was learned, as lines of a comment that each backend reads over. */
export const writeLearned = (learned: readonly Learned[]): readonly string[] =>
  learned.map(({ network, gateway }) => `# learned ${network} by ${gateway}`)

const any: Readonly<Record<Family, string>> = { inet: '0.0.0.0/0', inet6: '::/0' }

const notedOf = ({ files }: ObservedUplinks, key: string): readonly Learned[] =>
  files.filter(({ path }) => keyOfFile(path) === key).flatMap(({ content }) => readLearned(content))

/** Whose networks go before: those that the host is managed over, then those that the document gives, then those that came first. */
const rankOf = ({ management, dhcp }: ObservedInterface): number => (management ? 0 : dhcp ? 2 : 1)

/**
 * Why what a lease or an advertisement says of an interface is not followed; null when it is. Anybody on the network may be its DHCP
 * server: what is another interface's, or no network of hosts, gets no rule or table, which would lead the host's other answers away.
 */
export function doubtOf(
  observed: ObservedUplinks,
  key: string,
  { network, gateway }: Learned,
): { readonly why: string; readonly isAnothers: boolean } | null {
  const [cidr, router] = [parseCidr(network), parseIp(gateway)]
  if (cidr === null || router === null) return { why: `${network} by ${gateway}`, isAnothers: false }
  if (notOfHosts.some((one) => overlaps(one, cidr)))
    return { why: `${network} is no network of hosts`, isAnothers: false }
  const isLocal = router.family === 'inet6' && gateway.startsWith('fe80:')
  if (!isLocal && notOfHosts.some((one) => contains(one, router)))
    return { why: `its router ${gateway} is no host`, isAnothers: false }
  const at = observed.interfaces.findIndex((one) => one.key === key)
  const [own] = observed.interfaces.slice(at)
  for (const [place, one] of observed.interfaces.entries()) {
    const addresses = one.link?.addresses.flatMap((text) => parseCidr(text) ?? []) ?? []
    const goesBefore = own !== undefined && (rankOf(one) - rankOf(own) || place - at) < 0
    const isRouter = addresses.some(({ family, value }) => family === router.family && value === router.value)
    if (isRouter && (goesBefore || one === own))
      return { why: `its router ${gateway} is this host, on ${one.key}`, isAnothers: false }
    const theirs = [
      ...addresses,
      ...notedOf(observed, one.key).flatMap((noted) => parseCidr(noted.network) ?? []),
    ]
    if (goesBefore && theirs.some((net) => overlaps(net, cidr) || contains(net, router)))
      return { why: `${network} by ${gateway} is where ${one.key} is`, isAnothers: true }
  }
  return null
}

/** What an interface has been told by DHCP or advertisements: the networks that it is in, with the router of the family. */
export function toldOn({ interfaces }: ObservedUplinks, key: string, family: Family): readonly Learned[] {
  const link = interfaces.find((one) => one.key === key)?.link
  const gateway = link?.routes.find(
    ({ to, table, via }) => to === any[family] && table === mainTable && via !== null,
  )?.via
  if (gateway == null) return []
  const networks = (link?.addresses ?? []).filter((address) => familyOf(address) === family).map(networkText)
  return [...new Set(networks)].sort().map((network) => ({ network, gateway }))
}

/** The networks that an interface is in by DHCP or advertisements, as far as that is believed, else what was written down of them. */
const learnedOf = (observed: ObservedUplinks, key: string, families: readonly Family[]): readonly Learned[] =>
  families.flatMap((family) => {
    const isBelieved = (one: Learned): boolean => doubtOf(observed, key, one) === null
    const told = toldOn(observed, key, family).filter(isBelieved)
    if (told.length > 0) return told
    return notedOf(observed, key)
      .filter(({ network }) => familyOf(network) === family)
      .filter(isBelieved)
  })

const ownFile =
  /\/(?:05-|90-)?garrison-([a-z][a-z0-9]*(?:\.\d+)?)(?:\.(?:network|netdev|nmconnection)|-carrier\.conf)$/

/** Which interface a file of ours is about; null when it is none of ours. */
export const keyOfFile = (path: string): string | null => ownFile.exec(path)?.[1] ?? null

interface Place {
  readonly key: string
  readonly path: string
  readonly one: WrittenUplink | WrittenVlan
  readonly management: boolean
  readonly mac: string | null
  readonly vlan: Wanted['vlan']
  readonly vlans: readonly string[]
}

const staticOf = (value: WrittenVlan['address'] | WrittenVlan['address6'] | 'kept' | undefined) =>
  typeof value === 'object' ? [value] : []

/** What is wanted of every interface that is not left to others, uplinks before their VLANs. One whose MAC nobody tells is left out. */
export function wantedOf(
  { uplinks = {}, vmnets }: Pick<Desired, 'uplinks' | 'vmnets'>,
  observed: ObservedUplinks,
): readonly Wanted[] {
  const macs = new Map(observed.interfaces.map(({ key, mac }) => [key, mac]))
  const kept = Object.values(uplinks).filter(keepsAddress).length
  const places = Object.entries(uplinks).flatMap(([name, one]): readonly Place[] => {
    const mac = macs.get(name) ?? null
    if (keepsAddress(one) || mac === null) return []
    const path = `uplinks.${name}`
    const tagged = Object.entries(one.vlans).map(([vlan, written]) => ({
      key: vlanKey(name, written.id),
      path: `${path}.vlans.${vlan}`,
      one: written,
      management: false,
      mac: null,
      vlan: { id: written.id, parent: name },
      vlans: [],
    }))
    const vlans = tagged.map(({ key }) => key)
    return [{ key: name, path, one, management: one.management, mac, vlan: null, vlans }, ...tagged]
  })
  const tableOf = tablesOf(places.map(({ key }) => key))
  const several = places.length + kept > 1
  const wires = Object.values(vmnets?.networks ?? {}).map(({ uplink = '', vlan }) =>
    vlan === undefined ? uplink : vlanKey(uplink, vlan),
  )
  return places.map(({ key, path, one, management, mac, vlan, vlans }) => {
    const { address = 'dhcp', address6 = management ? 'auto' : 'none', defaultRoute } = one
    const dhcp = address === 'dhcp'
    const advertised = address6 === 'auto'
    const manual = [...staticOf(address), ...staticOf(address6)]
    const learned = learnedOf(observed, key, [
      ...(dhcp ? ['inet' as const] : []),
      ...(advertised ? ['inet6' as const] : []),
    ])
    const known = [
      ...learned,
      ...manual.flatMap(({ cidr, gateway }) =>
        gateway === undefined ? [] : [{ network: networkText(cidr), gateway: canonicalIp(gateway) }],
      ),
    ]
    const gatewayOf = (family: Family) =>
      known.find(({ network }) => familyOf(network) === family)?.gateway ?? null
    const families: readonly Family[] = ['inet', ...(address6 === 'none' ? [] : ['inet6' as const])]
    const services =
      management && observed.onEc2 ? families.flatMap((family) => linkLocalServices[family]) : []
    const declared = one.routes.map(networkText).flatMap((to) => {
      const via = gatewayOf(familyOf(to))
      return via === null ? [] : [{ to, via, table: null }]
    })
    // Answers leave as the question came, over the interface that has the address: by a table of its own.
    const table = several && !defaultRoute ? (tableOf.get(key) ?? null) : null
    const answers =
      table === null
        ? []
        : known.flatMap(({ network, gateway }): readonly WantedRoute[] => {
            const cidr = parseCidr(network)
            const router = parseIp(gateway)
            const near = cidr !== null && router !== null && contains(cidr, router)
            return [
              ...(near ? [{ to: network, via: null, table }] : []),
              { to: any[familyOf(network)], via: gateway, table },
            ]
          })
    // The metric of another interface may be lower, and a lease put it into this network too.
    const near = management ? answers.filter(({ via }) => via === null).map(({ to }) => to) : []
    const routes = [
      ...[...services, ...near].map((to) => ({ to, via: null, table: null })),
      ...declared,
      ...answers,
    ]
    return {
      key,
      path,
      mac,
      vlan,
      vlans,
      management,
      carriesVms: wires.includes(key),
      mtu: one.mtu ?? null,
      dhcp,
      advertised,
      addresses: manual.map(({ cidr }) => canonical(cidr)),
      gateways: manual.flatMap(({ gateway }) => (gateway === undefined ? [] : [canonicalIp(gateway)])),
      dns: manual.flatMap((each) => each.dns.map(canonicalIp)),
      metric: defaultRoute ? carrierMetric : management ? managementMetric : otherMetric,
      routes: [...new Map(routes.map((route) => [JSON.stringify(route), route])).values()],
      rules: table === null ? [] : known.map(({ network }) => ({ from: network, table })),
      learned: table !== null || declared.length > 0 ? learned : [],
    }
  })
}
