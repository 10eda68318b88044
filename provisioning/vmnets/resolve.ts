// Makes of each declared network what it is to be on this host: the mode, the interfaces, the addresses, or why it cannot be.

import { parseXml, XmlError } from '../libvirt/xml.ts'
import {
  type Cidr,
  contains,
  containsAll,
  countOf,
  formatCidr,
  formatIp,
  overlaps,
  parseCidr,
  parseIp,
} from '../link/address.ts'
import { type Family, givenDefaults, type Link } from '../link/ip.ts'
import type { ProblemCode } from '../problem.ts'
import { type NetworkModel, readNetwork } from './network.ts'
import { type ObservedVmnets, uplinkOf } from './observe.ts'
import type { DesiredNetwork, DesiredVmnets } from './schema.ts'
import { wireOf } from './uplink.ts'

/** The modes that a network can have in the end. */
export type Mode = Exclude<DesiredNetwork['mode'], 'auto'>

/** Why a network cannot be as it is declared; `path` is below the network. */
export interface Objection {
  readonly code: ProblemCode
  readonly path: string
  readonly message: string
}

/** One address family of a network. */
export interface Part {
  readonly family: Family
  readonly subnet: Cidr
  readonly gateway: string
  /** Whether this host answers for its addresses on the wire. */
  readonly proxy: boolean
  /** The router of the wire, when packets of these VMs must be led there past the host's own routes. */
  readonly router: string | null
}

/** One network as it is to be. */
export interface Resolved {
  readonly name: string
  readonly net: DesiredNetwork
  readonly mode: Mode
  /** Why this mode. */
  readonly why: string
  /** What the document calls the interface that leads to the wire; null for a network that leads nowhere. */
  readonly wire: string | null
  /** That interface; its declared name while it is not there. */
  readonly device: string | null
  readonly uplink: Link | null
  /** The bridge that its VMs are attached to; null where they sit on the uplink. */
  readonly bridge: string | null
  readonly parts: readonly Part[]
  readonly objections: readonly Objection[]
}

/** Where the document has what belongs to a family. */
export const keys = { inet: 'ipv4', inet6: 'ipv6' } as const
const families: readonly Family[] = ['inet', 'inet6']

/** Prefixes of the wire that an interface is on: declared, else those of its own addresses. */
export function lanPrefixes(
  { lans }: DesiredVmnets,
  wire: string | null,
  link: Link | null,
  family: Family,
): readonly Cidr[] {
  const declared = lans[wire ?? '']?.[keys[family]]?.subnet
  if (declared !== undefined) return [parseCidr(declared)].flatMap((one) => one ?? [])
  return (link?.addresses ?? [])
    .filter((one) => one.family === family && one.scope === 'global')
    .flatMap(({ address, prefix }) => parseCidr(`${address}/${prefix}`) ?? [])
}

/** The router of the wire, when the host itself sends elsewhere by default. */
function routerOf(
  { routes }: ObservedVmnets,
  { lans }: DesiredVmnets,
  wire: string,
  device: string | null,
  family: Family,
): string | null {
  const declared = lans[wire]?.[keys[family]]?.router
  if (declared !== undefined) return declared
  // A cable that is out changes nothing of what is wanted: it would be missing when the cable is back.
  const defaults = givenDefaults(routes, family)
  const [best] = defaults
  if (best === undefined || best.device === device) return null
  return defaults.find((route) => route.device === device)?.via ?? null
}

/** Whether a probe of this very interface has proved that frames with another MAC pass. */
const provedSecondMac = ({ probes }: ObservedVmnets, link: Link | null) => {
  const probe = probes[link?.name ?? '']
  return probe !== undefined && probe.mac === link?.mac ? probe : null
}

function isSlice(asked: DesiredVmnets, net: DesiredNetwork, link: Link | null): boolean {
  return families.some((family) => {
    const subnet = parseCidr(net[keys[family]]?.subnet ?? '')
    return (
      subnet !== null && lanPrefixes(asked, wireOf(net), link, family).some((lan) => containsAll(lan, subnet))
    )
  })
}

function modeOf(
  observed: ObservedVmnets,
  asked: DesiredVmnets,
  net: DesiredNetwork,
): readonly [Mode, string] {
  if (net.mode !== 'auto') return [net.mode, 'declared']
  const link = uplinkOf(observed, net)
  const probe = provedSecondMac(observed, link)
  if (probe?.secondMac === 'passes') return ['bridge', `a probe saw a second MAC pass on ${wireOf(net)}`]
  const known =
    probe?.secondMac === 'dropped'
      ? `a probe saw a second MAC dropped on ${wireOf(net)}`
      : `no probe has proved that a second MAC passes on ${wireOf(net)}`
  return isSlice(asked, net, link)
    ? ['routed', `${known}, and its subnet is a slice of the LAN`]
    : ['nat', `${known}, and its subnet is no slice of the LAN`]
}

const longestName = 15

/** A name for the bridge of a network: an interface's name has at most 15 bytes. */
function bridgeName(name: string): string {
  const plain = `vm-${name}`
  if (plain.length <= longestName) return plain
  // FNV-1a tells long names apart that begin alike.
  let hash = 0x811c9dc5
  for (const one of name) hash = Math.imul(hash ^ (one.codePointAt(0) ?? 0), 0x01000193) >>> 0
  return `vm-${name.slice(0, 5)}-${hash.toString(36).slice(-6).padStart(6, '0')}`
}

/** What libvirt has under this name, or null. Throws an XmlError. */
export function definedModel({ networks }: ObservedVmnets, name: string): NetworkModel | null {
  const known = networks.find((one) => one.name === name)
  return known === undefined ? null : readNetwork(parseXml(known.xml).root)
}

function keptBridge(observed: ObservedVmnets, name: string): string | null {
  try {
    const model = definedModel(observed, name)
    return model === null || ['bridge', 'passthrough'].includes(model.forward) ? null : model.bridge
  } catch (error) {
    if (error instanceof XmlError) return null
    throw error
  }
}

function partOf(
  observed: ObservedVmnets,
  asked: DesiredVmnets,
  net: DesiredNetwork,
  mode: Mode,
  family: Family,
): Part | null {
  const written = net[keys[family]]
  const subnet = parseCidr(written?.subnet ?? '')
  if (written === undefined || subnet === null) return null
  const wire = wireOf(net)
  const first = { family, value: subnet.value + 1n }
  return {
    family,
    subnet,
    gateway: formatIp(parseIp(written.gateway ?? '') ?? first),
    proxy: mode === 'routed' && written.proxy,
    router: wire === null ? null : routerOf(observed, asked, wire, observed.devices[wire] ?? null, family),
  }
}

const mostProxied = 1024n

function* sliceObjections(
  observed: ObservedVmnets,
  asked: DesiredVmnets,
  { family, subnet, proxy }: Part,
  mode: Mode,
  wire: string,
  uplink: Link,
): Generator<Objection> {
  const path = `${keys[family]}.subnet`
  const text = formatCidr(subnet)
  const lans = lanPrefixes(asked, wire, uplink, family)
  const own = uplink.addresses.filter((one) => one.family === family)
  if (mode === 'routed' && proxy && lans.length > 0 && !lans.some((lan) => containsAll(lan, subnet)))
    yield {
      code: 'vmnet.slice-outside-lan',
      path,
      message: `${text} is not a slice of the LAN of ${wire}`,
    }
  if (mode === 'nat' && lans.some((lan) => overlaps(lan, subnet)))
    yield { code: 'vmnet.subnet-on-lan', path, message: `${text} overlaps the LAN of ${wire}` }
  if (mode === 'routed' && proxy && countOf(subnet) > mostProxied)
    yield {
      code: 'vmnet.slice-too-large',
      path,
      message: `${text} has more than ${mostProxied} addresses to answer for`,
    }
  const inside = own.find(({ address }) => {
    const one = parseIp(address)
    return one !== null && contains(subnet, one)
  })
  const router = observed.routes.find(
    (route) =>
      route.device === uplink.name &&
      route.via !== null &&
      contains(subnet, parseIp(route.via) ?? { family, value: -1n }),
  )
  if (mode === 'routed' && (inside !== undefined || router !== undefined))
    yield {
      code: 'vmnet.address-taken',
      path,
      message:
        inside === undefined
          ? `${text} holds ${router?.via}, the router of the LAN`
          : `${text} holds ${inside.address}, which this host has on ${uplink.name}`,
    }
}

/** Whether the host itself sends over an interface what no other route leads elsewhere. */
export const carriesDefault = ({ routes }: ObservedVmnets, device: string): boolean =>
  families.some((family) => givenDefaults(routes, family)[0]?.device === device)

const xmlsOf = ({ networks }: ObservedVmnets, name: string): readonly string[] => {
  const facts = networks.find((one) => one.name === name)
  return facts === undefined ? [] : [...new Set([facts.xml, facts.liveXml ?? facts.xml])]
}

function unreadable(xml: string): string | null {
  try {
    parseXml(xml)
    return null
  } catch (error) {
    if (error instanceof XmlError) return error.message
    throw error
  }
}

function* objectionsTo(
  observed: ObservedVmnets,
  asked: DesiredVmnets,
  one: Omit<Resolved, 'objections'>,
): Generator<Objection> {
  const { net, mode, wire, device, uplink, bridge, parts, name } = one
  const stands = wire ?? (mode === 'bridge' ? bridge : null)
  if (stands !== null && observed.devices[stands] === undefined) {
    yield {
      code: 'vmnet.uplink-missing',
      path: net.vlan === undefined ? (wire === null ? 'bridge' : 'uplink') : 'vlan',
      message: `there is no interface ${stands}, which network ${name} leads to`,
    }
    return
  }
  for (const xml of xmlsOf(observed, name)) {
    const problem = unreadable(xml)
    if (problem !== null)
      yield {
        code: 'vmnet.xml-unreadable',
        path: 'mode',
        message: `the definition of network ${name} cannot be read: ${problem}`,
      }
  }
  if (mode === 'passthrough' && device !== null && carriesDefault(observed, device))
    yield {
      code: 'vmnet.uplink-needed',
      path: 'uplink',
      message: `${device} carries the default route of this host, which would be cut off`,
    }
  const seen = provedSecondMac(observed, uplink)?.secondMac ?? 'unknown'
  const isProved = seen === 'passes' || (seen === 'unknown' && observed.isInstance === false)
  if (mode === 'bridge' && device !== null && !isProved)
    yield {
      code: 'vmnet.second-mac-unproved',
      path: 'mode',
      message:
        seen === 'dropped'
          ? `a probe saw that ${device} drops frames with a second MAC`
          : `no probe has proved that ${device} lets frames with a second MAC pass`,
    }
  if (wire !== null && uplink !== null)
    for (const part of parts) yield* sliceObjections(observed, asked, part, mode, wire, uplink)
}

/** Every declared network, resolved, in the order of the document. */
export const resolveNetworks = (observed: ObservedVmnets, asked: DesiredVmnets): readonly Resolved[] =>
  Object.entries(asked.networks).map(([name, net]) => {
    const [mode, why] = modeOf(observed, asked, net)
    const sits = mode === 'bridge' || mode === 'passthrough'
    const wire = wireOf(net)
    const one = {
      ...{ name, net, mode, why },
      wire,
      device: wire === null ? null : (observed.devices[wire] ?? wire),
      uplink: uplinkOf(observed, net),
      bridge: sits ? (net.bridge ?? null) : (net.bridge ?? keptBridge(observed, name) ?? bridgeName(name)),
      parts: sits ? [] : families.flatMap((family) => partOf(observed, asked, net, mode, family) ?? []),
    }
    return { ...one, objections: [...objectionsTo(observed, asked, one)] }
  })
