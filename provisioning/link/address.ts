// IPv4 and IPv6 addresses and networks as numbers: read, written in their one canonical form (RFC 5952), and compared.

import type { Family } from './ip.ts'

/** An address; `value` is its bits as a number. */
export interface Ip {
  readonly family: Family
  readonly value: bigint
}

/** A network, or an address with the length of its prefix; `value` keeps the bits of the host. */
export interface Cidr extends Ip {
  readonly prefix: number
}

const bits: Readonly<Record<Family, number>> = { inet: 32, inet6: 128 }

function ipv4(text: string): bigint | null {
  // A leading zero is octal to some and decimal to others.
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return null
  const octets = text.split('.').map(Number)
  if (octets.some((octet) => octet > 255)) return null
  return octets.reduce((value, octet) => (value << 8n) | BigInt(octet), 0n)
}

function ipv6(text: string): bigint | null {
  const [head = '', tail, more] = text.split('::')
  if (more !== undefined) return null
  const groupsOf = (part: string): readonly string[] => (part === '' ? [] : part.split(':'))
  const first = groupsOf(head)
  const last = tail === undefined ? [] : groupsOf(tail)
  const missing = 8 - first.length - last.length
  if (tail === undefined ? missing !== 0 : missing < 1) return null
  const groups = [...first, ...Array<string>(Math.max(0, missing)).fill('0'), ...last]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n)
}

/** Reads an address; null when it is none. A zone (`%eth0`) and a dotted end of IPv6 are not taken. */
export function parseIp(text: string): Ip | null {
  const family = text.includes(':') ? 'inet6' : 'inet'
  const value = family === 'inet' ? ipv4(text) : ipv6(text)
  return value === null ? null : { family, value }
}

/** Reads `ADDRESS/PREFIX`; null when it is none. */
export function parseCidr(text: string): Cidr | null {
  const [, address = '', length = ''] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? []
  const ip = parseIp(address)
  const prefix = Number(length)
  return ip === null || length === '' || prefix > bits[ip.family] ? null : { ...ip, prefix }
}

/** The canonical text of an address. */
export function formatIp({ family, value }: Ip): string {
  if (family === 'inet') return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.')
  const groups = Array.from({ length: 8 }, (_, at) =>
    ((value >> BigInt(112 - 16 * at)) & 0xffffn).toString(16),
  )
  const written = groups.join(':')
  // The longest run of zeros, the first of equals, is left out; a single one is not.
  const runs = written.match(/\b0(:0)+\b/g) ?? []
  const longest = runs.reduce((most, run) => (run.length > most.length ? run : most), '')
  if (longest === '') return written
  const at = written.search(new RegExp(`(^|:)${longest}(:|$)`))
  const start = at === 0 && written.startsWith(longest) ? 0 : at + 1
  const before = written.slice(0, start).replace(/:$/, '')
  const after = written.slice(start + longest.length).replace(/^:/, '')
  return `${before}::${after}`
}

/** The canonical text of an address with its prefix. */
export const formatCidr = (cidr: Cidr): string => `${formatIp(cidr)}/${cidr.prefix}`

/** The network that an address with a prefix is in: the bits of the host are zero. */
export function networkOf({ family, value, prefix }: Cidr): Cidr {
  const host = BigInt(bits[family] - prefix)
  return { family, prefix, value: (value >> host) << host }
}

/** Whether an address is in a network. */
export const contains = (network: Cidr, ip: Ip): boolean =>
  network.family === ip.family &&
  networkOf({ ...ip, prefix: network.prefix }).value === networkOf(network).value

/** Whether two networks have an address in common. */
export const overlaps = (one: Cidr, other: Cidr): boolean =>
  one.prefix <= other.prefix ? contains(one, other) : contains(other, one)

/** Whether a network lies wholly in another. */
export const containsAll = (outer: Cidr, inner: Cidr): boolean =>
  outer.prefix <= inner.prefix && contains(outer, inner)

/** The first and the last address of a network, as numbers. */
export function endsOf(cidr: Cidr): { readonly first: bigint; readonly last: bigint } {
  const first = networkOf(cidr).value
  return { first, last: first + countOf(cidr) - 1n }
}

/** How many addresses a network has. */
export const countOf = ({ family, prefix }: Cidr): bigint => 1n << BigInt(bits[family] - prefix)

/** Networks in which no host of a LAN has an address: unspecified, loopback, link-local, multicast and what is reserved beyond. */
export const notOfHosts: readonly Cidr[] = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/3',
  '::/127',
  'fe80::/10',
  'ff00::/8',
].flatMap((text) => parseCidr(text) ?? [])

/** Bytes that every link carries for IPv4 (RFC 791). */
export const leastMtu = 576
