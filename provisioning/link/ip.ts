// The kernel's interfaces, addresses, routes, rules and neighbours as ip (iproute2 >= 5.10) tells them: argv and parsers of its JSON.

import { z } from 'zod'
import { HostError } from '../problem.ts'

/** The two address families that are asked for separately. */
export type Family = 'inet' | 'inet6'

const ip = (...args: readonly string[]): [string, ...string[]] => [
  '/usr/sbin/ip',
  '-json',
  '-details',
  ...args,
]

/** How `ip` is told of which family what follows is. */
export const familyOption = (family: Family): string => (family === 'inet' ? '-4' : '-6')

/** Asks for every interface with its addresses. */
export const ipAddresses = (): [string, ...string[]] => ip('address', 'show')

// Names of tables and protocols come from files of the host (/etc/iproute2), numbers do not.
/** Asks for the routes of every table. */
export const ipRoutes = (family: Family): [string, ...string[]] =>
  ip('-N', familyOption(family), 'route', 'show', 'table', 'all')

/** Asks for the rules that choose a routing table. */
export const ipRules = (family: Family): [string, ...string[]] =>
  ip('-N', familyOption(family), 'rule', 'show')

/** Asks for the neighbours that are known, of both families. */
export const ipNeighbours = (): [string, ...string[]] => ip('neighbour', 'show')

/** Asks for the addresses that the kernel answers for in the name of others (proxy ARP and NDP entries), of both families. */
export const ipProxies = (): [string, ...string[]] => ip('neighbour', 'show', 'proxy')

/** An address of an interface. `dynamic`: it has a lifetime, as those of DHCP and router advertisements. */
export interface Address {
  readonly family: Family
  readonly address: string
  readonly prefix: number
  /** global, link, host, site, or what the host's own table calls it. */
  readonly scope: string
  readonly dynamic: boolean
  readonly temporary: boolean
  /** Duplicate address detection runs still, or has found another host with this address. */
  readonly tentative: boolean
  readonly duplicate: boolean
  readonly deprecated: boolean
  /** Seconds until it goes; null when never. */
  readonly validSeconds: number | null
}

/** An interface. MACs are in lower case; null where its kind has none. */
export interface Link {
  readonly index: number
  readonly name: string
  readonly otherNames: readonly string[]
  /** ether, loopback, none, … */
  readonly type: string
  /** vlan, bridge, tun, veth, bond, macvtap, …; null for what a driver of a device made. */
  readonly kind: string | null
  readonly mac: string | null
  /** The device's own MAC where another is set. */
  readonly permanentMac: string | null
  readonly up: boolean
  readonly carrier: boolean
  readonly mtu: number
  /** The bridge or bond that it is a port of. */
  readonly master: string | null
  /** What it stands on: the interface below a VLAN or a macvtap. */
  readonly parent: string | null
  readonly vlan: { readonly id: number; readonly protocol: string } | null
  readonly addresses: readonly Address[]
}

/** Where a route leads next. */
export interface Hop {
  readonly via: string | null
  readonly device: string | null
}

/** One route. `to` is always a CIDR (`0.0.0.0/0`); several hops share the traffic. */
export interface Route extends Hop {
  readonly family: Family
  readonly to: string
  /** unicast, local, broadcast, blackhole, unreachable, prohibit, throw, or the kernel's number of another. */
  readonly type: string
  readonly table: number
  /** Who made it, by the kernel's number: 2 kernel, 3 boot, 4 static, 9 router advertisement, 16 DHCP (`RTPROT_…`). */
  readonly protocol: number
  readonly metric: number
  readonly source: string | null
  readonly hops: readonly Hop[]
  /** The kernel uses it not: the interface is down or has no carrier. */
  readonly dead: boolean
}

/** One rule that chooses a table. `from` and `to` are CIDRs, null for all; `table` is null for a rule that does something else. */
export interface Rule {
  readonly family: Family
  readonly priority: number
  readonly from: string | null
  readonly to: string | null
  readonly inverted: boolean
  readonly mark: number | null
  readonly markMask: number | null
  readonly incoming: string | null
  readonly outgoing: string | null
  readonly table: number | null
  readonly protocol: number | null
}

/** What is known of a neighbour; `mac` is null while it has not answered, and for an entry of a proxy. */
export interface Neighbour {
  readonly address: string
  readonly device: string
  readonly mac: string | null
  /** REACHABLE, STALE, FAILED, PERMANENT, … */
  readonly conditions: readonly string[]
}

const forever = 4_294_967_295
const word = z.string().min(1)
const number = z.union([z.int(), z.string().regex(/^\d+$/).transform(Number)])
const hexadecimal = z.string().regex(/^0x[0-9a-f]+$/i)
const flags = z.array(z.string()).default([])
const isTrue = z
  .literal(true)
  .optional()
  .transform((value) => value === true)

/** iproute2 escapes `'` as JSON does not, and leaves control characters, which the name of an interface may hold, as they are. */
const mended = (text: string): string =>
  text
    .replace(/\\(['"\\/bfnrtu])/g, (whole, one) => (one === "'" ? one : whole))
    .replace(
      /[\u0000-\u0009\u000b-\u001f]/g,
      (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`,
    )

/** Parses an answer as a list of `row`. Some versions print nothing for no row, and an empty object for one that is left out. */
function rowsOf<Row extends z.ZodType>(row: Row, what: string, stdout: string): readonly z.output<Row>[] {
  try {
    const read: unknown = stdout.trim() === '' ? [] : JSON.parse(mended(stdout))
    return z
      .array(z.record(z.string(), z.unknown()))
      .parse(read)
      .filter((one) => Object.keys(one).length > 0)
      .map((one) => row.parse(one))
  } catch (cause) {
    throw new HostError('host.unexpected-answer', `ip told ${what} in a form that is not known`, { cause })
  }
}

const wide: Readonly<Record<Family, number>> = { inet: 32, inet6: 128 }

const cidr = (family: Family, text: string): string =>
  text === 'default'
    ? family === 'inet'
      ? '0.0.0.0/0'
      : '::/0'
    : text.includes('/')
      ? text
      : `${text}/${wide[family]}`

const addressRow = z.object({
  family: z.enum(['inet', 'inet6']),
  local: word,
  prefixlen: z.int().min(0).max(128),
  scope: word,
  dynamic: isTrue,
  temporary: isTrue,
  tentative: isTrue,
  dadfailed: isTrue,
  deprecated: isTrue,
  valid_life_time: z.number().default(forever),
})

const linkRow = z.object({
  ifindex: z.int(),
  ifname: word,
  altnames: z.array(word).default([]),
  flags,
  mtu: z.int(),
  link_type: word,
  address: z.string().optional(),
  permaddr: z.string().optional(),
  master: word.optional(),
  link: word.nullish(),
  linkinfo: z
    .object({
      info_kind: word.optional(),
      info_data: z.object({ id: z.int().optional(), protocol: z.string().optional() }).optional(),
    })
    .optional(),
  // Of another family, or left out by a version that prints an empty object for it.
  addr_info: z
    .array(z.looseObject({ family: z.string().optional() }))
    .default([])
    .transform((rows) => rows.filter(({ family }) => family === 'inet' || family === 'inet6'))
    .pipe(z.array(addressRow)),
})

const macOf = (text: string | undefined): string | null =>
  text !== undefined && /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? text.toLowerCase() : null

/** Parses `ipAddresses()`. Errors: `host.unexpected-answer`. */
export const parseLinks = (stdout: string): readonly Link[] =>
  rowsOf(linkRow, 'interfaces', stdout).map((row) => {
    const kind = row.linkinfo?.info_kind ?? null
    const { id, protocol = '802.1Q' } = row.linkinfo?.info_data ?? {}
    return {
      index: row.ifindex,
      name: row.ifname,
      otherNames: row.altnames,
      type: row.link_type,
      kind,
      mac: row.link_type === 'ether' ? macOf(row.address) : null,
      permanentMac: macOf(row.permaddr),
      up: row.flags.includes('UP'),
      carrier: row.flags.includes('LOWER_UP'),
      mtu: row.mtu,
      master: row.master ?? null,
      parent: row.link ?? null,
      vlan: kind === 'vlan' && id !== undefined ? { id, protocol } : null,
      addresses: row.addr_info.map((one) => ({
        family: one.family,
        address: one.local,
        prefix: one.prefixlen,
        scope: one.scope,
        dynamic: one.dynamic,
        temporary: one.temporary,
        tentative: one.tentative,
        duplicate: one.dadfailed,
        deprecated: one.deprecated,
        validSeconds: one.valid_life_time >= forever ? null : one.valid_life_time,
      })),
    }
  })

// rtnetlink(7), RTN_…: what -N makes a number of.
const routeTypes: Readonly<Record<string, string>> = {
  '1': 'unicast',
  '2': 'local',
  '3': 'broadcast',
  '4': 'anycast',
  '5': 'multicast',
  '6': 'blackhole',
  '7': 'unreachable',
  '8': 'prohibit',
  '9': 'throw',
}

/** The kernel's number of the main routing table. */
export const mainTable = 254

/** The default routes of the main table, best first, those over an interface without a carrier among them. */
export const givenDefaults = (routes: readonly Route[], family: Family): readonly Route[] =>
  routes
    .filter(
      (route) =>
        route.family === family &&
        route.table === mainTable &&
        route.to.endsWith('/0') &&
        route.type === 'unicast',
    )
    .toSorted((a, b) => a.metric - b.metric)

/** Those of them that lead somewhere. */
export const defaultRoutes = (routes: readonly Route[], family: Family): readonly Route[] =>
  givenDefaults(routes, family).filter(({ dead }) => !dead)

const hopRow = z.object({
  gateway: word.optional(),
  // A gateway of the other family.
  via: z.object({ host: word }).optional(),
  dev: word.optional(),
  flags,
})

const routeRow = hopRow.extend({
  dst: word,
  type: word.default('1'),
  table: number.default(mainTable),
  protocol: number.default(3),
  metric: z.number().default(0),
  prefsrc: word.optional(),
  nexthops: z.array(hopRow).default([]),
})

const hopOf = ({ gateway, via, dev }: z.output<typeof hopRow>): Hop => ({
  via: gateway ?? via?.host ?? null,
  device: dev ?? null,
})

const unused = (given: readonly string[]): boolean =>
  given.some((flag) => flag === 'dead' || flag === 'linkdown')

/** Parses `ipRoutes(family)`. Errors: `host.unexpected-answer`. */
export const parseRoutes = (family: Family, stdout: string): readonly Route[] =>
  rowsOf(routeRow, 'routes', stdout).map((row) => {
    const hops = row.nexthops.length > 0 ? row.nexthops : [row]
    const [first = row] = hops
    return {
      family,
      to: cidr(family, row.dst),
      type: routeTypes[row.type] ?? row.type,
      table: row.table,
      protocol: row.protocol,
      metric: row.metric,
      source: row.prefsrc ?? null,
      ...hopOf(first),
      hops: hops.map(hopOf),
      dead: hops.every((hop) => unused(hop.flags)),
    }
  })

const ruleRow = z.object({
  priority: z.int().default(0),
  not: z.null().optional(),
  src: word.default('all'),
  srclen: z.int().optional(),
  dst: word.default('all'),
  dstlen: z.int().optional(),
  fwmark: hexadecimal.optional(),
  fwmask: hexadecimal.optional(),
  iif: word.optional(),
  oif: word.optional(),
  table: number.optional(),
  protocol: number.optional(),
})

/** Parses `ipRules(family)`. Errors: `host.unexpected-answer`. */
export const parseRules = (family: Family, stdout: string): readonly Rule[] =>
  rowsOf(ruleRow, 'routing rules', stdout).map((row) => {
    const selector = (text: string, length: number | undefined): string | null =>
      text === 'all' ? null : length === undefined ? cidr(family, text) : `${text}/${length}`
    return {
      family,
      priority: row.priority,
      from: selector(row.src, row.srclen),
      to: selector(row.dst, row.dstlen),
      inverted: row.not === null,
      mark: row.fwmark === undefined ? null : Number(row.fwmark),
      markMask: row.fwmask === undefined ? null : Number(row.fwmask),
      incoming: row.iif ?? null,
      outgoing: row.oif ?? null,
      table: row.table ?? null,
      protocol: row.protocol ?? null,
    }
  })

const neighbourRow = z.object({
  dst: word,
  dev: word,
  lladdr: z.string().optional(),
  state: z.array(z.string()).default([]),
})

/** Parses `ipNeighbours()` and `ipProxies()`. Errors: `host.unexpected-answer`. */
export const parseNeighbours = (stdout: string): readonly Neighbour[] =>
  rowsOf(neighbourRow, 'neighbours', stdout).map(({ dst, dev, lladdr, state }) => ({
    address: dst,
    device: dev,
    mac: macOf(lladdr),
    conditions: state,
  }))
