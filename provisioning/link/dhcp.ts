// What a DHCP server answers (RFC 2131 and 2132), read with care, and what is wrong with it.

import { contains, countOf, endsOf, formatIp, type Ip, leastMtu, notOfHosts, parseIp } from './address.ts'

/** One answer of a server to a question of ours. Addresses are IPv4; null is what it does not say. */
export interface DhcpAnswer {
  /** A server may say no to what it was not even asked (a NAK), or something else yet. */
  readonly kind: 'offer' | 'nak' | 'other'
  readonly server: string | null
  readonly address: string
  /** Null too for a mask of which the ones are not all in front. */
  readonly prefix: number | null
  readonly routers: readonly string[]
  readonly leaseSeconds: number | null
  readonly mtu: number | null
  /** An option is longer than what is left of the packet. */
  readonly torn: boolean
}

const magic = 0x63825363
const fixedBytes = 240
const kinds: Readonly<Record<number, DhcpAnswer['kind']>> = { 2: 'offer', 6: 'nak' }

interface Options {
  readonly values: ReadonlyMap<number, Uint8Array>
  readonly torn: boolean
}

/** The options by their code; of one that comes twice the first. */
function optionsOf(packet: Uint8Array): Options {
  const values = new Map<number, Uint8Array>()
  for (let at = fixedBytes; at < packet.length && packet[at] !== 255; ) {
    const code = packet[at] ?? 0
    if (code === 0) {
      at += 1
      continue
    }
    const end = at + 2 + (packet[at + 1] ?? packet.length)
    if (end > packet.length) return { values, torn: true }
    if (!values.has(code)) values.set(code, packet.subarray(at + 2, end))
    at = end
  }
  return { values, torn: false }
}

const numberOf = (bytes: Uint8Array | undefined, length: number): number | null =>
  bytes?.length === length ? bytes.reduce((value, byte) => value * 256 + byte, 0) : null

const addressOf = (bytes: Uint8Array): string =>
  formatIp({ family: 'inet', value: BigInt(numberOf(bytes, 4) ?? 0) })

function prefixOf(bytes: Uint8Array | undefined): number | null {
  const mask = numberOf(bytes, 4)?.toString(2).padStart(32, '0')
  return mask !== undefined && /^1*0*$/.test(mask) ? mask.replaceAll('0', '').length : null
}

/** Reads the answer to the question with this transaction id; null for what is none. */
export function parseDhcpAnswer(packet: Uint8Array, transaction: Uint8Array): DhcpAnswer | null {
  if (packet.length < fixedBytes || packet[0] !== 2) return null
  if (transaction.some((byte, at) => packet[4 + at] !== byte)) return null
  if (numberOf(packet.subarray(236, fixedBytes), 4) !== magic) return null
  const { values, torn } = optionsOf(packet)
  const routers = values.get(3) ?? new Uint8Array()
  const server = values.get(54)
  return {
    kind: kinds[numberOf(values.get(53), 1) ?? 0] ?? 'other',
    server: server?.length === 4 ? addressOf(server) : null,
    address: addressOf(packet.subarray(16, 20)),
    prefix: prefixOf(values.get(1)),
    routers: Array.from({ length: Math.floor(routers.length / 4) }, (_, at) =>
      addressOf(routers.subarray(4 * at, 4 * at + 4)),
    ),
    leaseSeconds: numberOf(values.get(51), 4),
    mtu: numberOf(values.get(26), 2),
    torn,
  }
}

const isHost = (ip: Ip | null): ip is Ip => ip !== null && !notOfHosts.some((net) => contains(net, ip))
const shortestSeconds = 60

/** What an offer says that makes no sense, or that a host had better not follow. */
export function oddnessOf(offer: DhcpAnswer): readonly string[] {
  const { server, address, prefix, routers, leaseSeconds, mtu, torn } = offer
  const ip = parseIp(address)
  const network = ip === null || prefix === null ? null : { ...ip, prefix }
  const isEnd = (ip: Ip): boolean =>
    network !== null &&
    countOf(network) > 2n &&
    (ip.value === endsOf(network).first || ip.value === endsOf(network).last)
  const odd: (string | false)[] = [
    torn && 'an option is longer than the packet',
    server === null && 'no server is named, so that it cannot be taken',
    !isHost(ip) && `${address} is no address of a host`,
    prefix === null && 'no network mask that is one',
    network !== null &&
      notOfHosts.some((net) => contains(network, net)) &&
      `a network of /${prefix} would take what is elsewhere`,
    isHost(ip) && isEnd(ip) && `${address} is the address of a whole network`,
    ...routers.slice(0, 1).map((router) => {
      const its = parseIp(router)
      if (!isHost(its)) return `the router ${router} is no host`
      if (router === address) return `the router ${router} is the address that is offered`
      return network !== null && !contains(network, its) && `the router ${router} is outside the network`
    }),
    leaseSeconds === null && 'for no time',
    leaseSeconds !== null && leaseSeconds < shortestSeconds && `for ${leaseSeconds} s`,
    mtu !== null && mtu < leastMtu && `an MTU of ${mtu}, and IPv4 needs ${leastMtu}`,
  ]
  return odd.filter((one) => one !== false)
}

/** What is wrong with the answers of DHCP servers, in words. */
export function oddnessOfAll(answers: readonly DhcpAnswer[]): readonly string[] {
  const offers = answers.filter(({ kind }) => kind === 'offer')
  const servers = [...new Set(offers.flatMap(({ server }) => server ?? []))].sort()
  const odd = offers.flatMap((offer) => {
    const wrong = oddnessOf(offer)
    const by = offer.server ?? 'a server without a name'
    return wrong.length === 0 ? [] : `${by} offers ${offer.address}: ${wrong.join('; ')}`
  })
  return [
    ...new Set(odd),
    ...(servers.length > 1 ? [`${servers.length} servers offer addresses: ${servers.join(', ')}`] : []),
    ...(answers.some(({ kind }) => kind === 'nak') ? ['a server refuses what nobody has asked it for'] : []),
  ]
}
