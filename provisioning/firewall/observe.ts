// Reads what guards the host now: the table as the kernel has it, the file for the next boot, and who is in over what.

import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import { contains, formatIp, parseCidr, parseIp } from '../link/address.ts'
import { defaultRoutes, ipAddresses, ipRoutes, type Link, parseLinks, parseRoutes } from '../link/ip.ts'
import { macOfUplink, withMac } from '../link/named.ts'
import { lively, ofSsh, sessionsOf } from '../link/ss.ts'
import { HostError } from '../problem.ts'
import { nftList, parseTable } from './nft.ts'
import {
  differences,
  type Guard,
  namedGuard,
  portsOf,
  type Ruleset,
  rulesetOf,
  transactionOf,
} from './ruleset.ts'
import type { DesiredFirewall } from './schema.ts'

/** What the rules are loaded from at boot. */
export const rulesFile = '/etc/garrison/firewall.json'

/** The unit that loads them. */
export const unit = 'garrison-firewall.service'

/** Whether firewalld judges the same packets. */
const firewalld = 'firewalld.service'

/** A lively SSH session over a guarded interface; `readmitted`: whether the wanted rules would let it in anew. */
export interface GuardedSession {
  readonly peer: string
  readonly interface: string
  readonly readmitted: boolean
}

/** What was seen. `live` is null where there is no table, `wanted` where nothing is declared. */
export interface ObservedFirewall {
  readonly live: Ruleset | null
  readonly wanted: Ruleset | null
  /** How the two differ, in words. */
  readonly differences: readonly string[]
  /** Whether the file for the next boot is as it should be. */
  readonly isFileWanted: boolean
  /** What systemd says of the unit that loads it: enabled, disabled, masked, or empty when it is not there. */
  readonly unitFile: string
  readonly isFirewalldActive: boolean
  readonly interfaces: readonly { readonly name: string; readonly isThere: boolean }[]
  readonly sessions: readonly GuardedSession[]
  /** Whether anybody is in over SSH at all. */
  readonly hasSessions: boolean
  /** A router that can be asked whether the host is reached: the one of the default route. */
  readonly gateway: { readonly device: string; readonly address: string } | null
}

async function liveTable(reader: HostReader): Promise<Ruleset | null> {
  const { exit, stdout, stderr } = await reader.query(nftList())
  if (exit === 0) return parseTable(stdout)
  if (/No such file or directory/.test(stderr)) return null
  if (/not permitted/.test(stderr)) throw new HostError('host.denied', 'nft tells its rules to root alone')
  throw new HostError('host.unexpected-answer', `nft list table ended with ${exit}: ${stderr.trim()}`)
}

const hostOf = (peer: string): string => {
  const host = peer
    .slice(0, peer.lastIndexOf(':'))
    .replace(/^\[|\]$/g, '')
    .replace(/%.*$/, '')
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(host) ? host.slice('::ffff:'.length) : host
}

/** Whether a new TCP connection from the address to the port is let in. */
function admits({ allow }: DesiredFirewall, address: string, port: number): boolean {
  const ip = parseIp(address)
  return allow.some((opening) => {
    const { protocol, first, last } = portsOf(opening)
    if (protocol !== 'tcp' || port < first || port > last) return false
    if (opening.from.length === 0) return true
    return opening.from.some((source) => {
      if (ip === null) return false
      const network = parseCidr(source)
      if (network !== null) return contains(network, ip)
      const one = parseIp(source)
      return one !== null && formatIp(one) === formatIp(ip)
    })
  })
}

const isGuarded = (guards: readonly Guard[], name: string): boolean =>
  guards.some(({ names }) => names.some((one) => name === one || name.startsWith(`${one}.`)))

/** What is guarded: an uplink by its MAC and whatever it is called now, else an interface by its name. Errors: `imds.…`. */
async function guardsOf(
  reader: HostReader,
  desired: Desired,
  links: readonly Link[],
): Promise<readonly Guard[]> {
  const { firewall, uplinks = {} } = desired
  const others = Object.entries(uplinks).flatMap(([name, { management }]) => (management ? [] : [name]))
  const asked = firewall?.interfaces ?? (others.length === 0 ? ['lni'] : others)
  const guards: Guard[] = []
  for (const called of new Set(asked)) {
    if (uplinks[called] === undefined) {
      guards.push(namedGuard(called))
      continue
    }
    const mac = await macOfUplink(reader, desired, called)
    const devices = mac === null ? [] : withMac(links, mac)
    // Its VLANs are called after the uplink.
    guards.push({ called, names: [called, ...devices.map(({ name }) => name)], mac })
  }
  return guards
}

/** Looks at the firewall. Without a firewall in the document only at the table, in case an earlier one left it. */
export async function observe(reader: HostReader, desired: Desired): Promise<ObservedFirewall> {
  const { firewall } = desired
  const nothing = {
    sessions: [],
    hasSessions: false,
    gateway: null,
    interfaces: [],
    isFirewalldActive: false,
  }
  if (firewall === undefined) {
    const isFileWanted = (await reader.facts(rulesFile)) === null
    const idle = { wanted: null, live: null, differences: [], unitFile: '' }
    return { ...idle, ...nothing, isFileWanted }
  }
  const [live, file, links, routes, units, sessions] = await Promise.all([
    liveTable(reader),
    reader.readText(rulesFile),
    reader.query(ipAddresses()).then(({ stdout }) => parseLinks(stdout)),
    reader.query(ipRoutes('inet')).then(({ stdout }) => parseRoutes('inet', stdout)),
    reader.query([
      '/usr/bin/systemctl',
      'show',
      '--property=Id,ActiveState,UnitFileState',
      '--',
      unit,
      firewalld,
    ]),
    sessionsOf(reader).then((all) => ofSsh(lively(all))),
  ])
  const guards = await guardsOf(reader, desired, links)
  const wanted = rulesetOf(firewall, guards)
  const [ours = '', theirs = ''] = units.stdout.split(/\n\s*\n/)
  const byAddress = new Map(
    links.flatMap(({ name, addresses }) => addresses.map(({ address }) => [address, name] as const)),
  )
  const route = defaultRoutes(routes, 'inet').find(({ via }) => via !== null)
  return {
    live,
    wanted,
    differences: differences(live, wanted),
    isFileWanted: file === transactionOf(wanted),
    unitFile: /^UnitFileState=(.*)$/m.exec(ours)?.[1] ?? '',
    isFirewalldActive: /^ActiveState=active$/m.test(theirs),
    interfaces: guards.map(({ called, names }) => ({
      name: called,
      isThere: links.some(({ name }) => names.includes(name)),
    })),
    sessions: sessions.flatMap(({ local, peer }) => {
      const name = byAddress.get(hostOf(local))
      if (name === undefined || !isGuarded(guards, name)) return []
      const port = Number(local.slice(local.lastIndexOf(':') + 1))
      const address = hostOf(peer)
      return { peer: address, interface: name, readmitted: admits(firewall, address, port) }
    }),
    hasSessions: sessions.length > 0,
    gateway: route?.device && route.via ? { device: route.device, address: route.via } : null,
  }
}
