// The `vmnets` part of the desired document: networks that VMs attach to, and what is known of the wires that they lead to.

import { z } from 'zod'
import {
  type Cidr,
  contains,
  containsAll,
  countOf,
  endsOf,
  formatCidr,
  formatIp,
  networkOf,
  overlaps,
  parseCidr,
  parseIp,
} from '../link/address.ts'
import type { Family } from '../link/ip.ts'

/** Names are looked up in objects, where JavaScript has found these before anybody declares anything. */
const isFree = (name: string): boolean => !(name in Object.prototype)
const notFree = 'must be another name: JavaScript keeps this one for itself'

/** A network's name: libvirt's, and a part of names of files, rules and dotted paths. */
const networkName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$/, 'must be at most 31 letters, digits, _ or -')
  .refine(isFree, notFree)

const machineName = z
  .string()
  .regex(/^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, 'must be the name of a VM')
  .refine(isFree, notFree)

/** Interface names as the kernel takes them: at most 15 bytes without / and blanks. */
const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/, 'must be the name of an interface, at most 15 characters')
  .refine(isFree, notFree)

const mac = z
  .string()
  .regex(
    /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/,
    'must be a unicast MAC such as 52:54:00:12:34:56, lower-case',
  )

const prefixOf = (text: string): Cidr => {
  const prefix = parseCidr(text)
  if (prefix === null) throw new Error(`${text} has passed the schema and is no prefix`)
  return prefix
}

const isBase = (text: string): boolean => {
  const prefix = parseCidr(text)
  return prefix === null || prefix.value === networkOf(prefix).value
}

/** What is no address is not looked at further: what is checked below reckons with numbers. */
const address = (family: Family, like: string) =>
  z.string().refine((text) => parseIp(text)?.family === family, {
    message: `must be an address such as ${like}`,
    abort: true,
  })
const v4 = address('inet', '192.0.2.1')
const v6 = address('inet6', '2001:db8::1')

const prefix = (family: Family, like: string) =>
  z.string().refine((text) => parseCidr(text)?.family === family, {
    message: `must be a network such as ${like}`,
    abort: true,
  })

const subnetOf = (family: Family, like: string, shortest: number, longest: number) =>
  prefix(family, like)
    .refine(isBase, `must be written with its first address, as ${like}`)
    .refine((text) => {
      const length = parseCidr(text)?.prefix ?? 0
      return length >= shortest && length <= longest
    }, `must be from /${shortest} to /${longest}`)
const cidr4 = subnetOf('inet', '192.0.2.64/27', 8, 30)
const cidr6 = subnetOf('inet6', '2001:db8::100/120', 32, 126)

/** What belongs to one address family of a network. */
const familyPart = <Subnet extends z.ZodType<string>, Address extends z.ZodType<string>>(
  cidr: Subnet,
  address: Address,
) => ({
  subnet: cidr.describe('The addresses of the VMs. In mode routed a slice of the LAN that nobody else uses.'),
  gateway: address
    .optional()
    .describe('The address of this host in it, which the VMs send to. Default: its first one.'),
  dhcp: z
    .union([
      z.literal(false),
      z.strictObject({
        from: address.describe('The first address that is given out.'),
        to: address.describe('The last address that is given out.'),
      }),
    ])
    .optional()
    .describe('The range that is given out by DHCP, or false. Default: every address but the gateway.'),
  proxy: z
    .boolean()
    .default(true)
    .describe(
      'In mode routed: answer on the LAN for the addresses of the slice and no others (proxy ARP, NDP). false: the router of the LAN has a route to it.',
    ),
})

const forward = z.strictObject({
  protocol: z.enum(['tcp', 'udp']).default('tcp').describe('The protocol.'),
  port: z.int().min(1).max(65_535).describe('The port of this host on the uplink.'),
  to: z
    .union([v4, v6, machineName])
    .describe('The VM: its name, when it has a reservation, or an address of the subnet.'),
  toPort: z.int().min(1).max(65_535).optional().describe('The port of the VM. Default: the same.'),
  from: z
    .array(z.union([prefix('inet', '192.0.2.0/24'), prefix('inet6', '2001:db8::/64')]))
    .max(64)
    .default([])
    .describe('Who may use it, as prefixes. Default: everybody on the uplink.'),
})

const reservation = z
  .strictObject({
    mac: mac
      .optional()
      .describe('The MAC. Default: that of the NIC by which the VM is attached to this network.'),
    ipv4: v4.optional().describe('Its IPv4 address.'),
    ipv6: v6.optional().describe('Its IPv6 address, given to the host name that it asks with.'),
  })
  .refine(({ ipv4, ipv6 }) => (ipv4 ?? ipv6) !== undefined, { message: 'must have ipv4 or ipv6' })

const network = z.strictObject({
  mode: z
    .enum(['auto', 'routed', 'nat', 'bridge', 'passthrough', 'isolated'])
    .default('auto')
    .describe(
      'How VMs get to the wire. auto: bridge where a probe has proved that a second MAC passes, else routed when the subnet is a slice of the LAN, else nat.',
    ),
  uplink: interfaceName
    .optional()
    .describe('The uplink that leads to the wire, or the name of an interface. Not in mode isolated.'),
  vlan: z
    .int()
    .min(1)
    .max(4094)
    .optional()
    .describe('Over this VLAN of the uplink: its sub-interface UPLINK.VLAN, which must be declared too.'),
  bridge: interfaceName
    .optional()
    .describe(
      'The name of the bridge that VMs are attached to. Default: the one that it has, else made from its name. In mode bridge: a bridge that is there, instead of the uplink.',
    ),
  ipv4: z
    .strictObject(familyPart(cidr4, v4))
    .optional()
    .describe('IPv4 of the network. Not in mode bridge and passthrough, where the LAN decides.'),
  ipv6: z.strictObject(familyPart(cidr6, v6)).optional().describe('IPv6 of the network, as ipv4.'),
  domain: z
    .string()
    .regex(
      /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,9}$/,
      'must be a domain name',
    )
    .optional()
    .describe('The DNS domain that its VMs are given.'),
  nameservers: z
    .array(z.union([v4, v6]))
    .max(8)
    .default([])
    .describe('Who is asked for names that are not those of VMs. Default: whom this host asks.'),
  mtu: z
    .int()
    .min(1280)
    .max(9216)
    .optional()
    .describe('The MTU of its NICs, told by DHCP too. Default: 1500.'),
  reservations: z
    .record(machineName, reservation)
    .default({})
    .describe('Addresses that are kept for VMs, by VM.'),
  forwards: z
    .array(forward)
    .max(1000)
    .default([])
    .describe('In mode nat: ports of this host on the uplink that lead to VMs.'),
  antiSpoofing: z
    .boolean()
    .default(false)
    .describe(
      'Drop frames with the address of the gateway, or with one that is kept for another MAC, and from a MAC with a kept address those with any other. Not in mode bridge and passthrough.',
    ),
  limits: z
    .strictObject({
      receive: z.int().min(1).max(100_000).optional().describe('What it receives, in Mbit/s.'),
      send: z.int().min(1).max(100_000).optional().describe('What it sends, in Mbit/s.'),
    })
    .optional()
    .describe('What each NIC on it may at most, from its next start on.'),
  isolate: z.boolean().default(false).describe('Keep the VMs of this network from each other.'),
  reachHost: z
    .boolean()
    .default(false)
    .describe('Whether its VMs may open connections to this host; DHCP, DNS and ping always work.'),
})

const lan = z.strictObject({
  ipv4: z
    .strictObject({
      subnet: cidr4.describe('The addresses of the LAN.'),
      router: v4.optional().describe('Its router. Default: that of the route over this interface.'),
      dhcp: z
        .strictObject({ from: v4.describe('The first address.'), to: v4.describe('The last address.') })
        .optional()
        .describe('What the DHCP server of the LAN gives out; no slice may overlap it.'),
    })
    .optional()
    .describe('IPv4 of the LAN.'),
  ipv6: z
    .strictObject({
      subnet: cidr6.describe('The addresses of the LAN.'),
      router: v6.optional().describe('Its router. Default: that of the route over this interface.'),
    })
    .optional()
    .describe('IPv6 of the LAN.'),
})

type Network = z.output<typeof network>
type Refuse = (path: readonly (string | number)[], message: string) => void

const families = ['ipv4', 'ipv6'] as const

/** The gateway of a network where none is declared. */
const firstAddress = (prefix: Cidr): string => formatIp({ family: prefix.family, value: prefix.value + 1n })

function checkFamily(net: Network, key: 'ipv4' | 'ipv6', refuse: Refuse): void {
  const part = net[key]
  if (part === undefined) return
  const subnet = prefixOf(part.subnet)
  const at = (text: string) => parseIp(text) ?? { family: subnet.family, value: -1n }
  const inside = (path: readonly (string | number)[], text: string): boolean => {
    if (!contains(subnet, at(text))) refuse(path, `${text} is not in ${formatCidr(subnet)}`)
    else if (key === 'ipv4' && Object.values(endsOf(subnet)).includes(at(text).value))
      refuse(path, `${text} is the first or last address of ${formatCidr(subnet)}, which no host may have`)
    else return true
    return false
  }
  const gateway = part.gateway ?? firstAddress(subnet)
  if (part.gateway !== undefined) inside([key, 'gateway'], part.gateway)
  if (part.dhcp !== undefined && part.dhcp !== false) {
    const { from, to } = part.dhcp
    const areIn = [inside([key, 'dhcp', 'from'], from), inside([key, 'dhcp', 'to'], to)].every(Boolean)
    if (areIn && at(from).value > at(to).value) refuse([key, 'dhcp', 'to'], `${to} comes before ${from}`)
    else if (areIn && at(from).value <= at(gateway).value && at(gateway).value <= at(to).value)
      refuse([key, 'dhcp'], `the range holds ${gateway}, the gateway`)
  }
  const owners = new Map([[at(gateway).value, 'the gateway']])
  for (const [vm, reservation] of Object.entries(net.reservations)) {
    const address = reservation[key]
    if (address === undefined || !inside(['reservations', vm, key], address)) continue
    const owner = owners.get(at(address).value)
    if (owner !== undefined) refuse(['reservations', vm, key], `${address} is kept for ${owner} already`)
    owners.set(at(address).value, vm)
  }
  if (net.mode === 'routed' && part.proxy && countOf(subnet) > 1024n)
    refuse(
      [key, 'subnet'],
      'must span at most 1024 addresses to be answered for; else set proxy to false and give the LAN a route',
    )
}

function checkForwards(name: string, net: Network, taken: Map<string, string>, refuse: Refuse): void {
  if (net.forwards.length > 0 && net.mode !== 'nat') refuse(['forwards'], 'port forwards need mode nat')
  for (const [index, { protocol, port, to }] of net.forwards.entries()) {
    const address = parseIp(to)
    const part = address?.family === 'inet6' ? net.ipv6 : net.ipv4
    if (address === null && net.reservations[to] === undefined)
      refuse(['forwards', index, 'to'], `there is no reservation for ${to}, so its address is not known`)
    if (address !== null && (part === undefined || !contains(prefixOf(part.subnet), address)))
      refuse(['forwards', index, 'to'], `${to} is not in ${part?.subnet ?? 'this network'}`)
    const key = `${net.uplink}.${net.vlan ?? ''} ${protocol} ${port} ${address?.family === 'inet6' ? 6 : 4}`
    const other = taken.get(key)
    if (other !== undefined)
      refuse(['forwards', index, 'port'], `${protocol} ${port} of ${net.uplink} leads to ${other} already`)
    taken.set(key, `${to} of ${name}`)
  }
}

function checkMode(net: Network, refuse: Refuse): void {
  const { mode, uplink, bridge, ipv4, ipv6 } = net
  const isLayer2 = mode === 'bridge' || mode === 'passthrough'
  if (mode === 'isolated' && uplink !== undefined) refuse(['uplink'], 'an isolated network has no uplink')
  if (mode === 'isolated' && net.vlan !== undefined)
    refuse(['vlan'], 'an isolated network is on no wire, and so on no VLAN')
  if (mode !== 'isolated' && uplink === undefined && !(mode === 'bridge' && bridge !== undefined))
    refuse([], `mode ${mode} must name its uplink`)
  if (mode === 'bridge' && bridge !== undefined && uplink !== undefined)
    refuse(['bridge'], 'must not be beside uplink in mode bridge: its VMs are attached to one of them')
  if (mode === 'passthrough' && bridge !== undefined) refuse(['bridge'], 'mode passthrough has no bridge')
  for (const key of families)
    if (isLayer2 && net[key] !== undefined) refuse([key], `mode ${mode} has no addresses of its own`)
  if (isLayer2 && net.antiSpoofing) refuse(['antiSpoofing'], `mode ${mode} has no addresses of its own`)
  if (isLayer2 && Object.keys(net.reservations).length > 0)
    refuse(['reservations'], `mode ${mode} has no addresses of its own`)
  if (!isLayer2 && mode !== 'isolated' && (ipv4 ?? ipv6) === undefined)
    refuse([], `mode ${mode} needs ipv4 or ipv6`)
}

/** The `vmnets` part, strict, with every default. */
export const vmnetsSchema = z
  .strictObject({
    networks: z
      .record(networkName, network)
      .default({})
      .describe(
        'Networks by the name that libvirt has for them; default is where a VM goes that names none. One that is not here is left alone.',
      ),
    lans: z
      .record(interfaceName, lan)
      .default({})
      .describe(
        'What is known of the LANs, by the uplink or interface that leads there. Default: what the host sees.',
      ),
  })
  .superRefine(({ networks, lans }, context) => {
    const all = Object.entries(networks)
    const taken = new Map<string, string>()
    for (const [name, lan] of Object.entries(lans)) {
      const { subnet, router, dhcp } = lan.ipv4 ?? {}
      for (const [key, address] of [
        ['router', router],
        ['dhcp', dhcp?.from],
        ['dhcp', dhcp?.to],
      ] as const)
        if (
          subnet !== undefined &&
          address !== undefined &&
          !contains(prefixOf(subnet), parseIp(address) ?? { family: 'inet', value: -1n })
        )
          context.addIssue({
            code: 'custom',
            message: `${address} is not in ${subnet}`,
            path: ['lans', name, 'ipv4', key],
          })
    }
    for (const [at, [name, net]] of all.entries()) {
      const refuse: Refuse = (path, message) => {
        context.addIssue({ code: 'custom', message, path: ['networks', name, ...path] })
      }
      checkMode(net, refuse)
      checkForwards(name, net, taken, refuse)
      const lan = lans[net.vlan === undefined ? (net.uplink ?? '') : `${net.uplink}.${net.vlan}`]
      for (const key of families) {
        checkFamily(net, key, refuse)
        const part = net[key]
        if (part === undefined) continue
        const subnet = prefixOf(part.subnet)
        for (const [other, { [key]: theirs }] of all.slice(0, at))
          if (theirs !== undefined && overlaps(subnet, prefixOf(theirs.subnet)))
            refuse([key, 'subnet'], `${part.subnet} overlaps ${theirs.subnet} of network ${other}`)
        const wire = lan?.[key]
        if (wire === undefined) continue
        const whole = prefixOf(wire.subnet)
        if (net.mode === 'routed' && part.proxy && !containsAll(whole, subnet))
          refuse([key, 'subnet'], `${part.subnet} is not a slice of ${wire.subnet}, the LAN of ${net.uplink}`)
        if (net.mode === 'nat' && overlaps(whole, subnet))
          refuse([key, 'subnet'], `${part.subnet} overlaps ${wire.subnet}, the LAN of ${net.uplink}`)
        const router = wire.router === undefined ? null : parseIp(wire.router)
        if (router !== null && contains(subnet, router))
          refuse([key, 'subnet'], `${part.subnet} holds ${wire.router}, the router of the LAN`)
        const ends = endsOf(subnet)
        const dhcp = 'dhcp' in wire ? wire.dhcp : undefined
        const [from, to] = [parseIp(dhcp?.from ?? ''), parseIp(dhcp?.to ?? '')]
        if (from !== null && to !== null && from.value <= ends.last && ends.first <= to.value)
          refuse(
            [key, 'subnet'],
            `${part.subnet} overlaps ${dhcp?.from} to ${dhcp?.to}, which the LAN gives out by DHCP`,
          )
      }
    }
    const bridges = new Map<string, string>()
    for (const [name, { bridge, mode }] of all) {
      if (bridge === undefined || mode === 'bridge') continue
      const other = bridges.get(bridge)
      if (other !== undefined)
        context.addIssue({
          code: 'custom',
          message: `is the bridge of network ${other} already`,
          path: ['networks', name, 'bridge'],
        })
      bridges.set(bridge, name)
    }
    const passed = new Map<string, string>()
    for (const [name, { mode, uplink, vlan }] of all) {
      const device = vlan === undefined ? uplink : `${uplink}.${vlan}`
      if (device === undefined) continue
      const other = passed.get(device)
      if (other !== undefined && (mode === 'passthrough' || networks[other]?.mode === 'passthrough'))
        context.addIssue({
          code: 'custom',
          message: `${device} is used by network ${other}, and passthrough takes it whole`,
          path: ['networks', name, 'uplink'],
        })
      passed.set(device, name)
    }
  })
  .describe('Networks that VMs attach to.')

/** The `vmnets` part after defaults. */
export type DesiredVmnets = z.output<typeof vmnetsSchema>

/** One network after defaults. */
export type DesiredNetwork = DesiredVmnets['networks'][string]
