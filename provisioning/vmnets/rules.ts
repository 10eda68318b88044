// What the VMs' traffic may do, as chains of nftables: where it may come from and go to, port forwards, masquerading.
//
// INVARIANTS
// - A chain of a network only returns or drops. What it lets pass is still for every other table of the host to refuse.
// - Everything is dropped that no rule names: VMs never get to the host's other interfaces, and so not to its metadata.

import { formatCidr, formatIp, parseIp } from '../link/address.ts'
import type { Chain, Rule } from './nft.ts'
import type { Part, Resolved } from './resolve.ts'

const word: Readonly<Record<Part['family'], 'ip' | 'ip6'>> = { inet: 'ip', inet6: 'ip6' }

const quoted = (names: readonly string[]): string =>
  names.length === 1 ? `"${names[0]}"` : `{ ${names.map((name) => `"${name}"`).join(', ')} }`

/** Bridges of other networks on the same wire: what passes between those passes as it would over the wire. */
const neighbours = (one: Resolved, all: readonly Resolved[]): readonly string[] =>
  one.device === null
    ? []
    : all.flatMap((other) =>
        other !== one && other.device === one.device && other.parts.length > 0 ? (other.bridge ?? []) : [],
      )

function* leaving(one: Resolved, all: readonly Resolved[]): Generator<Rule> {
  const { name, device, parts, bridge } = one
  for (const { family, subnet } of parts)
    yield {
      id: `${name}.spoofed-${keyOf(family)}`,
      match: `${word[family]} saddr != ${formatCidr(subnet)}`,
      verdict: 'drop',
    }
  for (const family of ['inet', 'inet6'] as const)
    if (!parts.some((part) => part.family === family))
      yield {
        id: `${name}.no-${keyOf(family)}`,
        match: `meta nfproto ${family === 'inet' ? 'ipv4' : 'ipv6'}`,
        verdict: 'drop',
      }
  // With br_netfilter what one VM sends to another passes here too.
  yield { id: `${name}.within`, match: `oifname "${bridge}"`, verdict: 'return' }
  yield { id: `${name}.metadata`, match: 'ip daddr 169.254.0.0/16', verdict: 'drop' }
  if (device !== null)
    yield {
      id: `${name}.out`,
      match: `oifname ${quoted([device, ...neighbours(one, all)])}`,
      verdict: 'return',
    }
  yield { id: `${name}.elsewhere`, match: '', verdict: 'drop' }
}

function* arriving(one: Resolved, all: readonly Resolved[]): Generator<Rule> {
  const { name, device, mode, bridge } = one
  yield { id: `${name}.answers`, match: 'ct state established,related', verdict: 'return' }
  yield { id: `${name}.within`, match: `iifname "${bridge}"`, verdict: 'return' }
  const from = device === null ? [] : [device, ...neighbours(one, all)]
  if (mode === 'routed' && from.length > 0)
    yield { id: `${name}.in`, match: `iifname ${quoted(from)}`, verdict: 'return' }
  if (mode === 'nat') yield { id: `${name}.forwarded`, match: 'ct status dnat', verdict: 'return' }
  yield { id: `${name}.unasked`, match: '', verdict: 'drop' }
}

function* toHost({ name, net }: Resolved): Generator<Rule> {
  yield { id: `${name}.host-answers`, match: 'ct state established,related', verdict: 'return' }
  yield { id: `${name}.dhcp-dns`, match: 'udp dport { 53, 67, 547 }', verdict: 'return' }
  yield { id: `${name}.dns`, match: 'tcp dport 53', verdict: 'return' }
  yield { id: `${name}.ping`, match: 'meta l4proto { icmp, ipv6-icmp }', verdict: 'return' }
  if (!net.reachHost) yield { id: `${name}.host`, match: '', verdict: 'drop' }
}

const keyOf = (family: Part['family']): 'ipv4' | 'ipv6' => (family === 'inet' ? 'ipv4' : 'ipv6')

function* forwards({ name, net, device }: Resolved): Generator<Rule> {
  for (const { protocol, port, to, toPort, from } of net.forwards) {
    const reserved = net.reservations[to]
    const targets = parseIp(to) === null ? [reserved?.ipv4, reserved?.ipv6] : [to]
    for (const target of targets) {
      const address = parseIp(target ?? '')
      if (address === null) continue
      const ip = word[address.family]
      const sources = from.filter((one) => one.includes(':') === (address.family === 'inet6'))
      // A rule whose every source is of the other family would be open to everybody.
      if (from.length > 0 && sources.length === 0) continue
      const written = formatIp(address)
      const place = address.family === 'inet6' ? `[${written}]` : written
      yield {
        id: `${name}.forward-${protocol}-${port}-${keyOf(address.family)}`,
        match: [
          `iifname "${device}"`,
          `meta nfproto ${address.family === 'inet' ? 'ipv4' : 'ipv6'}`,
          'fib daddr type local',
          ...(sources.length > 0 ? [`${ip} saddr { ${sources.join(', ')} }`] : []),
          `${protocol} dport ${port}`,
        ].join(' '),
        verdict: `dnat ${ip} to ${place}:${toPort ?? port}`,
      }
    }
  }
}

/**
 * The chains for these networks; none when there is nothing to say. `others` are bridges of networks that are not declared: what
 * comes to those from a wire is for libvirt's own rules to judge.
 */
export function chainsFor(all: readonly Resolved[], others: readonly string[] = []): readonly Chain[] {
  const bridged = all.filter(({ bridge, mode }) => bridge !== null && mode !== 'bridge')
  if (bridged.length === 0) return []
  const jump = (way: 'iifname' | 'oifname', to: string) =>
    bridged.map(
      ({ name, bridge }): Rule => ({
        id: `${name}.jump-${to}`,
        match: `${way} "${bridge}"`,
        verdict: `jump ${to}-${name}`,
      }),
    )
  const bridges = quoted([...new Set([...bridged.flatMap(({ bridge }) => bridge ?? []), ...others])])
  const wires = [
    ...new Set(bridged.flatMap(({ device, parts }) => (device === null || parts.length === 0 ? [] : device))),
  ]
  const hook = (
    at: 'prerouting' | 'input' | 'forward' | 'postrouting',
    priority = 0,
    type: 'filter' | 'nat' = 'filter',
  ) => ({
    type,
    at,
    priority,
  })
  const natted = bridged.filter(({ mode, device }) => mode === 'nat' && device !== null)
  return [
    {
      name: 'forward',
      hook: hook('forward'),
      rules: [
        // Forwarding is on for the VMs' sake; the wire gets no way through this host to its other interfaces. What was led on by an
        // address translation, as ports of containers are, somebody wanted.
        ...wires.map(
          (wire): Rule => ({
            id: `transit.${wire}`,
            match: `iifname "${wire}" oifname != ${bridges} ct state new ct status & dnat == 0`,
            verdict: 'drop',
          }),
        ),
        ...jump('iifname', 'out'),
        ...jump('oifname', 'in'),
      ],
    },
    { name: 'input', hook: hook('input'), rules: jump('iifname', 'host') },
    ...(natted.length === 0
      ? []
      : [
          {
            name: 'prerouting',
            hook: hook('prerouting', -100, 'nat'),
            rules: natted.flatMap((one) => [...forwards(one)]),
          },
          {
            name: 'postrouting',
            hook: hook('postrouting', 100, 'nat'),
            rules: natted.flatMap(({ name, device, parts }) =>
              parts.map(
                ({ family, subnet }): Rule => ({
                  id: `${name}.masquerade-${keyOf(family)}`,
                  match: `oifname "${device}" ${word[family]} saddr ${formatCidr(subnet)}`,
                  verdict: 'masquerade',
                }),
              ),
            ),
          },
        ]),
    ...bridged.flatMap((one): readonly Chain[] => [
      { name: `out-${one.name}`, hook: null, rules: [...leaving(one, bridged)] },
      { name: `in-${one.name}`, hook: null, rules: [...arriving(one, bridged)] },
      { name: `host-${one.name}`, hook: null, rules: [...toHost(one)] },
    ]),
  ]
}
