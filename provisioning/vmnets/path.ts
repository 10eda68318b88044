// The way of a VM's traffic from its NIC to the wire, as it is: each place that it passes, what was counted there, where it stops.

import type { Attachment } from '../libvirt/attachments.ts'
import { contains, formatCidr, parseIp } from '../link/address.ts'
import { defaultRoutes, type Family, type Link } from '../link/ip.ts'
import type { Counts, ObservedPaths } from './path-facts.ts'
import { keys, type Part, type Resolved, resolveNetworks } from './resolve.ts'
import { standingNetworks } from './stand.ts'
import { answersSwitch } from './uplink.ts'
import { priorities, wantedOnWire } from './want.ts'

/** One place on the way. `stop` says why nothing gets past it. */
export interface Hop {
  /** An interface, or `guest`, `network`, `rules`, `kernel`, `routes`, `answers`, `router`. */
  readonly at: string
  readonly text: string
  /** What an interface has counted; from the VM's side, where it is the VM's. */
  readonly counts: Counts | null
  readonly stop: { readonly text: string; readonly remedy: string } | null
  /** What does not stop everything, and may be what is looked for. */
  readonly notes: readonly string[]
}

/** The way of one NIC. */
export interface Path {
  readonly vm: string
  readonly mac: string | null
  /** libvirt's kind of attachment, and what to: `network default`, `bridge br0`. */
  readonly to: string
  /** The mode of a declared network, and why it is that one. */
  readonly mode: string | null
  readonly why: string | null
  /** What DHCP has given to this MAC. */
  readonly addresses: readonly string[]
  /** In the order in which what the VM sends passes them; the last is the first that stops it, if one does. */
  readonly hops: readonly Hop[]
}

interface Found {
  readonly text: string
  readonly stop?: Hop['stop']
  readonly counts?: Counts | null
  readonly notes?: readonly string[]
}

const hop = (at: string, { text, stop = null, counts = null, notes = [] }: Found): Hop => ({
  ...{ at, text, counts, stop, notes },
})

const apply = 'garrison plan shows the step that mends it, garrison apply performs it.'

const familyName = (family: Family): string => (family === 'inet' ? 'IPv4' : 'IPv6')

function interfaceHop({ links, counts }: ObservedPaths, name: string, more: Omit<Found, 'counts'>): Hop {
  const link = links.find((one) => one.name === name)
  const counted = { counts: counts[name] ?? null }
  if (link === undefined)
    return hop(name, { ...more, stop: { text: `there is no interface ${name}`, remedy: apply } })
  if (!link.up)
    return hop(name, {
      ...{ ...more, ...counted },
      stop: { text: `${name} is down`, remedy: `ip link set ${name} up, and look for what has set it down.` },
    })
  return hop(name, { ...more, ...counted })
}

function guestHop({ counts }: ObservedPaths, { vm, mac, tap }: Attachment, leases: readonly string[]): Hop {
  const counted = tap === null ? undefined : counts[tap]
  const text = `${vm}, ${mac ?? 'no MAC'}${leases.length === 0 ? '' : `, was given ${leases.join(', ')}`}`
  const isSilent = counted?.receivedPackets === 0
  return hop('guest', {
    text,
    stop: isSilent
      ? {
          text: 'the VM has sent no frame since it was started',
          remedy: 'Look into the guest: has it a driver for the NIC, and is the NIC up?',
        }
      : null,
  })
}

function tapHop(paths: ObservedPaths, { tap, isIsolated, filter }: Attachment, bridge: string | null): Hop {
  const name = tap ?? '?'
  const link = paths.links.find((one) => one.name === name)
  const text = [
    bridge === null ? 'the NIC of the VM' : `the NIC of the VM, port of ${bridge}`,
    ...(isIsolated ? ['kept from other VMs'] : []),
    ...(filter === null ? [] : [`filter ${filter}`]),
  ].join(', ')
  const found = interfaceHop(paths, name, { text })
  if (found.stop !== null || bridge === null || link?.master === bridge) return found
  const where = link?.master === null ? 'of no bridge' : `of ${link?.master}`
  return {
    ...found,
    stop: {
      text: `${name} is a port ${where}, not of ${bridge}`,
      remedy: `ip link set ${name} master ${bridge}; it was made one when the VM was started.`,
    },
  }
}

const networkHop = ({ observed: { networks } }: ObservedPaths, name: string): readonly Hop[] => {
  const facts = networks.find((one) => one.name === name)
  if (facts?.active) return []
  const text = facts === undefined ? `libvirt knows no network ${name}` : `network ${name} is not active`
  return [hop('network', { text, stop: { text, remedy: apply } })]
}

function bridgeHop(paths: ObservedPaths, { bridge, parts }: Resolved): Hop {
  const name = bridge ?? '?'
  const link = paths.links.find((one) => one.name === name)
  const gateways = parts.map(({ gateway, subnet }) => `${gateway}/${subnet.prefix}`)
  const lost = parts.filter(({ gateway }) => !link?.addresses.some(({ address }) => address === gateway))
  const found = interfaceHop(paths, name, {
    text: gateways.length === 0 ? 'the bridge' : `the bridge, gateway ${gateways.join(' and ')}`,
  })
  if (found.stop !== null || lost.length === 0) return found
  return {
    ...found,
    stop: {
      text: `${name} has lost ${lost.map(({ gateway }) => gateway).join(' and ')}, the gateway of the VMs`,
      remedy: 'Stop its VMs and restart the network, or put the address back with ip address add.',
    },
  }
}

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0)

/** What the rules of a network have counted. These counts are of all its VMs. */
function rulesHop({ observed: { table, frames } }: ObservedPaths, { name, parts }: Resolved): Hop {
  const chain = (way: string) => table?.find((one) => one.name === `${way}-${name}`)?.rules ?? null
  const [out, back] = [chain('out'), chain('in')]
  if (out === null || back === null)
    return hop('rules', {
      text: `no rules for network ${name} in table inet garrison_vms`,
      notes: ['nothing keeps its VMs from other interfaces of this host', apply],
    })
  const idOf = (comment: string): string => comment.split(' ')[0] ?? ''
  const of = (rules: typeof out, id: string) =>
    sum(rules.flatMap(({ comment, packets }) => (idOf(comment) === `${name}.${id}` ? packets : [])))
  const dropping = [
    ...parts.map(({ family }) => `spoofed-${keys[family]}`),
    ...['no-ipv4', 'no-ipv6', 'metadata', 'elsewhere'],
  ]
  const dropped = dropping.flatMap((id) => {
    const packets = of(out, id)
    return packets === 0 ? [] : [`dropped ${packets} by ${name}.${id}`]
  })
  // Those are about addresses of single VMs, and name them.
  const taken = (frames ?? [])
    .flatMap(({ rules }) => rules)
    .flatMap(({ comment, packets }) =>
      packets > 0 && comment.startsWith(`${name}.`) ? [`dropped ${packets} by ${idOf(comment)}`] : [],
    )
  const unasked = of(back, 'unasked')
  const passed = of(out, 'out') + of(out, 'within')
  const spoofed = sum(parts.map(({ family }) => of(out, `spoofed-${keys[family]}`)))
  return hop('rules', {
    text: `let ${passed} packets of network ${name} out`,
    notes: [...dropped, ...taken, ...(unasked === 0 ? [] : [`kept ${unasked} from it by ${name}.unasked`])],
    stop:
      passed === 0 && spoofed > 0
        ? {
            text: `what comes from network ${name} is not from an address of ${parts.map(({ subnet }) => formatCidr(subnet)).join(' or ')}`,
            remedy: 'Let the VM take its address by DHCP, or give it one of the subnet.',
          }
        : null,
  })
}

const forwardingKeys: Readonly<Record<Family, string>> = {
  inet: 'net/ipv4/ip_forward',
  inet6: 'net/ipv6/conf/all/forwarding',
}

function kernelHop({ observed: { sysctls } }: ObservedPaths, { parts }: Resolved): Hop {
  const off = parts.filter(({ family }) => sysctls[forwardingKeys[family]] !== '1')
  const names = (all: readonly Part[]) => all.map(({ family }) => familyName(family)).join(' and ')
  return hop('kernel', {
    text: `forwards ${names(parts)}`,
    stop:
      off.length === 0
        ? null
        : { text: `the kernel does not forward ${names(off)}: something has switched it off`, remedy: apply },
  })
}

function routesHop({ observed }: ObservedPaths, standing: readonly Resolved[], one: Resolved): Hop {
  const policies = wantedOnWire(standing).find(({ device }) => device === one.device)?.policies ?? []
  const mine = policies.filter(({ from }) => one.parts.some(({ subnet }) => formatCidr(subnet) === from))
  const isLed = ({ family, from, table, via }: (typeof mine)[number]): boolean =>
    observed.rules.some(
      (rule) => rule.from === from && rule.table === table && rule.priority === priorities.led,
    ) &&
    observed.routes.some((route) => route.family === family && route.table === table && route.via === via)
  const unled = mine.filter((policy) => !isLed(policy))
  if (unled.length > 0)
    return hop('routes', {
      text: `by ${mine.map(({ via }) => via).join(' and ')}`,
      stop: {
        text: `${unled.map(({ from }) => from).join(' and ')} is not led to the router of ${one.wire} any more`,
        remedy: apply,
      },
    })
  if (mine.length > 0)
    return hop('routes', {
      text: mine.map(({ from, via, table }) => `${from} by ${via} (table ${table})`).join(', '),
    })
  const [best] = defaultRoutes(observed.routes, 'inet')
  const beyond =
    best?.device === one.device
      ? `by ${best?.via ?? 'itself'}, as the host itself sends`
      : `to the LAN of ${one.wire} alone, since no router is known there`
  return hop('routes', { text: beyond })
}

function uplinkHop(paths: ObservedPaths, { wire, device, uplink, parts, mode }: Resolved): Hop {
  const name = device ?? '?'
  const addresses = (uplink?.addresses ?? []).filter(({ scope }) => scope === 'global')
  const found = interfaceHop(paths, name, {
    text: [
      wire === name ? 'the uplink' : `the uplink ${wire}`,
      ...(uplink?.mac == null ? [] : [uplink.mac]),
      ...addresses.map(({ address, prefix }) => `${address}/${prefix}`),
    ].join(', '),
  })
  if (found.stop !== null) return found
  if (uplink?.carrier === false)
    return {
      ...found,
      stop: { text: `${name} has no carrier`, remedy: 'Look at its cable and at the port of the switch.' },
    }
  const bare = parts.filter(({ family }) => !addresses.some((address) => address.family === family))
  return {
    ...found,
    stop:
      mode === 'nat' && parts.length > 0 && bare.length === parts.length
        ? {
            text: `${name} has no address under which VMs could leave`,
            remedy: 'See garrison status for the uplink: DHCP has not answered, or no address is declared.',
          }
        : null,
  }
}

function answersHop(
  { observed: { proxies, sysctls } }: ObservedPaths,
  standing: readonly Resolved[],
  one: Resolved,
) {
  const wire = wantedOnWire(standing).find(({ device }) => device === one.device)
  const mine = (wire?.proxies ?? []).filter((text) => {
    const ip = parseIp(text)
    return ip !== null && one.parts.some(({ subnet, proxy }) => proxy && contains(subnet, ip))
  })
  if (mine.length === 0) return []
  const missing = mine.filter(
    (text) => !proxies.some(({ device, address }) => device === one.device && address === text),
  )
  const isOff =
    mine.some((text) => parseIp(text)?.family === 'inet6') && sysctls[answersSwitch(one.device ?? '')] !== '1'
  const stops = [
    ...(missing.length > 0
      ? [
          `nobody answers on ${one.device} for ${missing.length} of ${mine.length} addresses, ${missing[0]} among them`,
        ]
      : []),
    ...(isOff
      ? [`the kernel answers on ${one.device} for no address in IPv6: something has switched it off`]
      : []),
  ]
  return [
    hop('answers', {
      text: `the host answers on ${one.device} for ${mine.length} addresses`,
      stop: stops.length === 0 ? null : { text: stops.join('; '), remedy: apply },
    }),
  ]
}

function routerHop({ observed, neighbours }: ObservedPaths, standing: readonly Resolved[], one: Resolved) {
  const led = one.parts.flatMap(({ router }) => router ?? [])
  const main = observed.routes.flatMap(({ device, via, to }) =>
    device === one.device && via !== null && to.endsWith('/0') ? via : [],
  )
  return [...new Set(standing.includes(one) ? [...led, ...main] : main)].slice(0, 2).map((router) => {
    const known = neighbours.find(({ address, device }) => address === router && device === one.device)
    const isLost = known?.conditions.some((word) => word === 'FAILED' || word === 'INCOMPLETE') ?? false
    return hop('router', {
      text: `${router}, ${known === undefined ? 'not asked for yet' : isLost ? 'does not answer' : `at ${known.mac}`}`,
      stop: isLost
        ? {
            text: `${router} does not answer ${router.includes(':') ? 'NDP' : 'ARP'} on ${one.device}`,
            remedy: `Is it the router of that LAN? See vmnets.lans.${one.wire}, and garrison network probe.`,
          }
        : null,
    })
  })
}

/** Where a VM sits on the wire with a MAC of its own. */
function wireHop({ observed }: ObservedPaths, nic: Attachment, link: Link | null): readonly Hop[] {
  const probe = observed.probes[link?.name ?? '']
  if (link === null || nic.mac === link.mac || probe?.mac !== link.mac) return []
  return [
    hop('wire', {
      text: `frames of ${nic.mac}, beside ${link.mac} of ${link.name} itself`,
      stop:
        probe.secondMac === 'dropped'
          ? {
              text: `the wire of ${link.name} drops frames with another MAC than ${link.mac}: a probe saw it`,
              remedy: 'Attach the VM to a network of mode routed or nat.',
            }
          : null,
    }),
  ]
}

const upToStop = (hops: readonly Hop[]): readonly Hop[] => {
  const at = hops.findIndex(({ stop }) => stop !== null)
  return at === -1 ? hops : hops.slice(0, at + 1)
}

function hopsOf(
  paths: ObservedPaths,
  standing: readonly Resolved[],
  nic: Attachment,
  declared: Resolved | null,
  leases: readonly string[],
): readonly Hop[] {
  if (!nic.isLive)
    return [
      hop('guest', {
        text: nic.vm,
        stop: { text: `${nic.vm} does not run`, remedy: `garrison vm start ${nic.vm}` },
      }),
    ]
  const one = standing.find(({ name }) => name === declared?.name) ?? declared
  const sits = nic.tap !== null && /^macv(tap|lan)/.test(nic.tap)
  const bridge = sits ? null : (one?.bridge ?? nic.through)
  const begin = [
    ...(nic.kind === 'network' ? networkHop(paths, nic.to) : []),
    guestHop(paths, nic, leases),
    tapHop(paths, nic, bridge),
  ]
  const under = paths.links.find(({ name }) => name === (sits ? nic.through : null)) ?? null
  if (one === null || one.mode === 'bridge' || one.mode === 'passthrough') {
    const below = sits ? nic.through : bridge
    return [
      ...begin,
      ...(below === null
        ? []
        : [interfaceHop(paths, below, { text: sits ? 'what the NIC sits on' : 'the bridge' })]),
      ...wireHop(paths, nic, under),
    ]
  }
  if (one.device === null) return [...begin, bridgeHop(paths, one), rulesHop(paths, one)]
  return [
    ...begin,
    bridgeHop(paths, one),
    kernelHop(paths, one),
    rulesHop(paths, one),
    routesHop(paths, standing, one),
    uplinkHop(paths, one),
    ...answersHop(paths, standing, one),
    ...routerHop(paths, standing, one),
  ]
}

/** The ways of the NICs of one VM, or of all; of a VM that does not run those that it will have. */
export function pathsOf(paths: ObservedPaths, vm?: string): readonly Path[] {
  const { observed, leases } = paths
  const all = observed.asked === null ? [] : resolveNetworks(observed, observed.asked)
  const standing = standingNetworks(observed, all)
  const running = new Set(observed.attachments.flatMap(({ isLive, vm: name }) => (isLive ? name : [])))
  return observed.attachments
    .filter((nic) => nic.isLive === running.has(nic.vm) && (vm === undefined || nic.vm === vm))
    .map((nic) => {
      const declared = (nic.kind === 'network' && all.find(({ name }) => name === nic.to)) || null
      const given = leases.flatMap(({ mac, address }) => (mac === nic.mac ? address : []))
      return {
        ...{ vm: nic.vm, mac: nic.mac, to: `${nic.kind} ${nic.to}`, addresses: given },
        mode: declared?.mode ?? null,
        why: declared?.why ?? null,
        hops: upToStop(hopsOf(paths, standing, nic, declared, given)),
      }
    })
}
