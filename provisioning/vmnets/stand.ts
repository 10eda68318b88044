// Each declared network as its VMs have it now: as declared, or as it runs while nothing can be taken from under them.

import { parseXml, XmlError } from '../libvirt/xml.ts'
import { formatIp, networkOf, parseCidr, parseIp } from '../link/address.ts'
import { type NetworkModel, readNetwork } from './network.ts'
import type { ObservedVmnets } from './observe.ts'
import { keys, type Mode, type Part, type Resolved } from './resolve.ts'
import { forwardOf } from './want.ts'

/** VMs that run and are attached to a network, by name. */
export const usersOf = ({ attachments }: ObservedVmnets, name: string): readonly string[] => [
  ...new Set(
    attachments.flatMap((one) => (one.isLive && one.kind === 'network' && one.to === name ? one.vm : [])),
  ),
]

/** Bridges of active networks that are not declared. */
export const otherBridges = ({ asked, networks }: ObservedVmnets): readonly string[] =>
  networks.flatMap(({ name, bridge, active }) =>
    active && asked?.networks[name] === undefined ? (bridge ?? []) : [],
  )

/** How a network runs; null when it does not, or when that cannot be read. */
function liveModel({ networks }: ObservedVmnets, name: string): NetworkModel | null {
  const xml = networks.find((one) => one.name === name)?.liveXml
  if (typeof xml !== 'string') return null
  try {
    return readNetwork(parseXml(xml).root)
  } catch (error) {
    if (error instanceof XmlError) return null
    throw error
  }
}

/** What the rules have made of a network that libvirt has none for. */
const isMasqueraded = ({ table }: ObservedVmnets, name: string): boolean =>
  (table ?? []).some(({ rules }) => rules.some(({ comment }) => comment.startsWith(`${name}.masquerade-`)))

function partsOf(live: NetworkModel, one: Resolved, mode: Mode): readonly Part[] {
  return live.ips.flatMap(({ family, address, prefix }) => {
    const [cidr, ip] = [parseCidr(`${address}/${prefix}`), parseIp(address)]
    if (cidr === null || ip === null) return []
    return {
      ...{ family, subnet: networkOf(cidr), gateway: formatIp(ip) },
      proxy: mode === 'routed' && one.net[keys[family]]?.proxy !== false,
      router: one.parts.find((part) => part.family === family)?.router ?? null,
    }
  })
}

/** Whether the traffic of a network goes the way that is wanted of it, whatever else of it waits. */
const isOnItsWay = (live: NetworkModel, one: Resolved): boolean =>
  live.forward === forwardOf(one) &&
  live.bridge === one.bridge &&
  JSON.stringify(live.ips.map(({ family, address, prefix }) => [family, address, prefix])) ===
    JSON.stringify(one.parts.map(({ family, gateway, subnet }) => [family, gateway, subnet.prefix]))

/** A network as it runs, or null when libvirt's own rules lead its traffic. */
function asItRuns(observed: ObservedVmnets, one: Resolved, live: NetworkModel): Resolved | null {
  if (live.forward !== 'open' && live.forward !== 'none') return null
  const mode = live.forward === 'none' ? 'isolated' : isMasqueraded(observed, one.name) ? 'nat' : 'routed'
  return {
    ...one,
    ...{ mode, bridge: live.bridge, parts: partsOf(live, one, mode) },
    device: mode === 'isolated' ? null : one.device,
  }
}

/**
 * What the host's rules and routes are to be about: a network that VMs run on is as it runs until it can be restarted, one that is
 * objected to is as it runs, and one that does not run is not there.
 */
export const standingNetworks = (observed: ObservedVmnets, all: readonly Resolved[]): readonly Resolved[] =>
  all.flatMap((one) => {
    const live = liveModel(observed, one.name)
    const isHeld = one.objections.length > 0 || usersOf(observed, one.name).length > 0
    if (live === null) return one.objections.length > 0 ? [] : one
    return !isHeld || isOnItsWay(live, one) ? one : (asItRuns(observed, one, live) ?? [])
  })
