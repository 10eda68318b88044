// The table of nftables that a firewall becomes, in the JSON of libnftables (libnftables-json(5)) and in the form that nft itself prints.

import { parseIp } from '../link/address.ts'
import type { Json } from '../resource.ts'
import { type DesiredFirewall, type Opening, services } from './schema.ts'

/** A chain without what the kernel numbers. */
export interface Chain {
  readonly name: string
  readonly hook?: string
  readonly type?: string
  readonly prio?: number
  readonly policy?: string
}

/** A rule without its handle and counts. */
export interface Rule {
  readonly chain: string
  readonly comment?: string
  readonly expr: readonly Json[]
}

/** The whole of one table. `other` names what is in it and never wanted: sets, maps, flowtables. */
export interface Ruleset {
  readonly chains: readonly Chain[]
  readonly rules: readonly Rule[]
  readonly other: readonly string[]
}

/** The table that is Garrison's own: no other is ever touched. */
export const table = { family: 'inet', name: 'garrison' } as const

const equals = (left: Json, right: Json): Json => ({ match: { op: '==', left, right } })
const field = (protocol: string, name: string): Json => ({ payload: { protocol, field: name } })
const accept: Json = { accept: null }

const rule = (chain: string, comment: string, ...expr: readonly Json[]): Rule => ({ chain, comment, expr })

const from = (source: string): Json => {
  const [address = '', length] = source.split('/')
  const family = parseIp(address)?.family === 'inet6' ? 'ip6' : 'ip'
  const right = length === undefined ? address : { prefix: { addr: address, len: Number(length) } }
  return equals(field(family, 'saddr'), right)
}

const errors = ['destination-unreachable', 'time-exceeded', 'parameter-problem', 'echo-request'] as const
const neighbours = ['nd-router-advert', 'nd-neighbor-solicit', 'nd-neighbor-advert'] as const

/** What an opening opens, in words: `ssh`, `tcp 5900-5999`. */
export const openingText = (opening: Opening): string => {
  if ('service' in opening) return opening.service
  const { protocol, port, to } = opening
  return `${protocol} ${port}${to === undefined ? '' : `-${to}`}`
}

/** Protocol and ports of an opening. */
export const portsOf = (opening: Opening) =>
  'service' in opening
    ? ({ protocol: 'tcp', first: services[opening.service], last: services[opening.service] } as const)
    : { protocol: opening.protocol, first: opening.port, last: opening.to ?? opening.port }

function openingRules(opening: Opening): readonly Rule[] {
  const { protocol, first, last } = portsOf(opening)
  const right = first === last ? first : { range: [first, last] }
  const ports = equals(field(protocol, 'dport'), right)
  const text = openingText(opening)
  if (opening.from.length === 0) return [rule('guarded', text, ports, accept)]
  return [...new Set(opening.from)].map((source) =>
    rule('guarded', `${text} from ${source}`, from(source), ports, accept),
  )
}

/** What is guarded: names of interfaces, and the MAC that frames to it have, which stays when it is renamed. */
export interface Guard {
  readonly called: string
  readonly names: readonly string[]
  readonly mac: string | null
}

const jump: Json = { jump: { target: 'guarded' } }

/** A guard over interfaces by their names alone. */
export const namedGuard = (name: string): Guard => ({ called: name, names: [name], mac: null })

/** The rules of a firewall. Established traffic, errors, neighbours and the answers of DHCP servers need no opening. */
export function rulesetOf({ allow }: Pick<DesiredFirewall, 'allow'>, guards: readonly Guard[]): Ruleset {
  return {
    chains: [
      // Before those of others: what is dropped here stays so, and what is let through they may still refuse.
      { name: 'input', type: 'filter', hook: 'input', prio: -10, policy: 'accept' },
      { name: 'guarded' },
    ],
    rules: [
      ...[...new Set(guards.flatMap(({ names }) => names))].flatMap((name) =>
        [name, `${name}.*`].map((pattern) =>
          rule('input', `guard ${pattern}`, equals({ meta: { key: 'iifname' } }, pattern), jump),
        ),
      ),
      ...[...new Set(guards.flatMap(({ mac }) => mac ?? []))].map((mac) =>
        rule('input', `guard ${mac}`, equals(field('ether', 'daddr'), mac), jump),
      ),
      rule(
        'guarded',
        'answers',
        { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established', 'related'] } },
        accept,
      ),
      rule('guarded', 'icmp', equals(field('icmp', 'type'), { set: [...errors] }), accept),
      rule(
        'guarded',
        'icmpv6',
        equals(field('icmpv6', 'type'), {
          set: [...errors, 'packet-too-big', 'mld-listener-query', ...neighbours],
        }),
        accept,
      ),
      rule('guarded', 'dhcp', equals(field('udp', 'sport'), 67), equals(field('udp', 'dport'), 68), accept),
      rule('guarded', 'dhcpv6', from('fe80::/10'), equals(field('udp', 'dport'), 546), accept),
      ...allow.flatMap(openingRules),
      rule('guarded', 'all else', { counter: null }, { drop: null }),
    ].map(canonical),
    other: [],
  }
}

const isObject = (value: Json): value is { readonly [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** nft prints the members of a set in the order of their numbers, and a counter with its counts. */
function canonicalJson(value: Json): Json {
  if (Array.isArray(value)) return value.map(canonicalJson)
  if (!isObject(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      if (key === 'counter') return [key, null]
      if (key === 'set' && Array.isArray(inner))
        return [
          key,
          inner.map(canonicalJson).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
        ]
      return [key, canonicalJson(inner)]
    }),
  )
}

/** A rule as two of them can be compared. */
export const canonical = ({ chain, comment, expr }: Rule): Rule => ({
  chain,
  ...(comment !== undefined && { comment }),
  expr: expr.map(canonicalJson),
})

const add = (kind: string, fields: Json): Json => ({ add: { [kind]: fields } })

/** What `nft --json --file` takes to make the table this, or with null to take it away: in one transaction, whatever is there. */
export function transactionOf(ruleset: Ruleset | null): string {
  const { family, name } = table
  const place = { family, table: name }
  const commands: readonly Json[] = [
    // Without the first the second fails where there is none.
    add('table', table),
    { delete: { table } },
    ...(ruleset === null
      ? []
      : [
          add('table', table),
          ...ruleset.chains.map((chain) => add('chain', { ...place, ...chain })),
          ...ruleset.rules.map((one) => add('rule', { ...place, ...one })),
        ]),
  ]
  return `{"nftables":[\n${commands.map((command) => JSON.stringify(command)).join(',\n')}\n]}\n`
}

/** How the table that is there differs from the wanted one, in words; empty when it does not. */
export function differences(live: Ruleset | null, wanted: Ruleset): readonly string[] {
  if (live === null) return ['the table inet garrison is not there']
  const text = (one: Chain | Rule): string => JSON.stringify(one)
  const label = (one: Rule): string => one.comment ?? text(one)
  const found: string[] = []
  if (JSON.stringify(live.chains.map(sorted)) !== JSON.stringify(wanted.chains.map(sorted)))
    found.push('its chains are others')
  const [has, wants] = [live.rules.map(text), wanted.rules.map(text)]
  found.push(
    ...wanted.rules.filter((one) => !has.includes(text(one))).map((one) => `missing: ${label(one)}`),
    ...live.rules.filter((one) => !wants.includes(text(one))).map((one) => `not wanted: ${label(one)}`),
    ...live.other.map((one) => `not wanted: ${one}`),
  )
  // The same rules in another order may drop before they let through.
  if (found.length === 0 && has.join() !== wants.join()) found.push('its rules are in another order')
  return found
}

const sorted = (chain: Chain): Json => Object.entries(chain).toSorted(([a], [b]) => (a < b ? -1 : 1))
