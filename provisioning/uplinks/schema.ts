// The part of the desired document about the host's interfaces to the networks outside.

import { z } from 'zod'
import { contains, leastMtu, networkOf, notOfHosts, overlaps, parseCidr, parseIp } from '../link/address.ts'
import type { Family } from '../link/ip.ts'
import { lniSchema } from './lni.ts'

const host = (family: Family, like: string) =>
  z.string().refine((text) => parseIp(text)?.family === family, `must be an address such as ${like}`)

/** An address of this host with its prefix: neither the network's own nor its broadcast address. */
const interfaceAddress = (family: Family, like: string) =>
  z
    .string()
    .refine(
      (text) => parseCidr(text)?.family === family,
      `must be an address with its prefix such as ${like}`,
    )
    .refine((text) => {
      const cidr = parseCidr(text)
      if (cidr === null) return true
      const host = (family === 'inet' ? 32 : 128) - cidr.prefix
      if (cidr.prefix === 0) return false
      if (host < 2) return true
      const last = networkOf(cidr).value + (1n << BigInt(host)) - 1n
      return cidr.value !== networkOf(cidr).value && (family === 'inet6' || cidr.value !== last)
    }, 'must be the address of one host, not of a whole network')
    .refine((text) => {
      const cidr = parseCidr(text)
      return cidr === null || !notOfHosts.some((network) => contains(network, cidr))
    }, 'must be the address of a host, not loopback, multicast, link-local or unspecified')

const nameServers = z
  .array(z.string().refine((text) => parseIp(text) !== null, 'must be the address of a name server'))
  .max(8)
  .default([])
  .describe('Name servers asked over this uplink.')

const manual = (family: Family, like: string, gateway: string) =>
  z
    .strictObject({
      cidr: interfaceAddress(family, like).describe(`Address and prefix, such as ${like}.`),
      gateway: host(family, gateway)
        .optional()
        .describe('The router of this network. Without it only the network itself is reached.'),
      dns: nameServers,
    })
    .superRefine(({ cidr, gateway }, context) => {
      const [own, router] = [parseCidr(cidr), gateway === undefined ? null : parseIp(gateway)]
      if (own === null || router === null) return
      const local = parseCidr('fe80::/10')
      if (local !== null && contains(local, router)) return
      if (router.value === own.value)
        context.addIssue({
          code: 'custom',
          path: ['gateway'],
          message: 'must be another address than its own',
        })
      else if (!contains(own, router))
        context.addIssue({ code: 'custom', path: ['gateway'], message: `must be within ${cidr}` })
    })

const address = z.union([z.literal('dhcp'), z.literal('none'), manual('inet', '192.0.2.10/24', '192.0.2.1')])

const address6 = z.union([
  z.literal('auto'),
  z.literal('none'),
  manual('inet6', '2001:db8::10/64', 'fe80::1'),
])

const mtu = z
  .int()
  .min(leastMtu)
  .max(9216)
  .optional()
  .describe('MTU in bytes. Default: left as it is. garrison network probe measures what the path carries.')

const routes = z
  .array(
    z
      .string()
      .refine((text) => {
        const cidr = parseCidr(text)
        return cidr !== null && cidr.prefix > 0 && networkOf(cidr).value === cidr.value
      }, 'must be a network such as 198.51.100.0/24 (not 0.0.0.0/0: that is defaultRoute)')
      .refine((text) => {
        const cidr = parseCidr(text)
        return cidr === null || !notOfHosts.some((network) => overlaps(network, cidr))
      }, 'must be a network of hosts, not loopback, multicast or link-local'),
  )
  .max(64)
  .default([])
  .describe('Networks that are reached over this uplink by its gateway, whichever carries the default route.')

const defaultRoute = z
  .boolean()
  .default(false)
  .describe('This one carries the default route of the host. Of all uplinks and VLANs at most one.')

const ipv6Needs = (value: { readonly mtu?: number | undefined; readonly address6?: unknown }): boolean =>
  value.mtu === undefined || value.mtu >= 1280 || value.address6 === undefined || value.address6 === 'none'
const ipv6Mtu = { message: 'must be at least 1280 where IPv6 is wanted', path: ['mtu'] }

const vlan = z
  .strictObject({
    id: z.int().min(1).max(4094).describe('The number in its tags.'),
    address: address.default('dhcp').describe('IPv4: dhcp, none, or cidr with gateway and dns.'),
    address6: address6
      .default('none')
      .describe('IPv6: auto (router advertisements), none, or cidr with gateway and dns.'),
    mtu,
    routes,
    defaultRoute,
  })
  .refine(ipv6Needs, ipv6Mtu)

const groupBit = 0x01

const mac = z
  .string()
  .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i, 'must be a MAC address such as 02:3a:00:00:00:11')
  .refine(
    (text) => (Number.parseInt(text.slice(0, 2), 16) & groupBit) === 0 && !/^[0:]+$/.test(text),
    'must be the MAC address of one interface, not of a group',
  )

const uplinkName = z
  .string()
  .regex(
    /^(?!all$|default$|lo$)[a-z][a-z0-9]{0,9}$/,
    'must be a lower-case letter, then at most 9 letters or digits, and not all, default or lo',
  )

const uplink = z
  .strictObject({
    match: z
      .union([
        z.strictObject({ mac: mac.describe('The MAC address of the interface.') }),
        z.strictObject({
          deviceIndex: z.int().min(0).max(31).describe('The device index at which EC2 has it attached.'),
        }),
      ])
      .optional()
      .describe('Which interface it is, by mac or deviceIndex. Names are never trusted: they change.'),
    lni: lniSchema
      .optional()
      .describe('It is the local network interface of an Outposts server. Give match or lni.'),
    management: z
      .boolean()
      .default(false)
      .describe(
        'The host is managed over it: instance metadata and other link-local services of AWS stay on it.',
      ),
    address: z
      .union([z.literal('kept'), ...address.options])
      .optional()
      .describe(
        'IPv4: dhcp, none, cidr with gateway and dns, or kept: others have configured it and Garrison does not touch it. Default: kept with management, else dhcp.',
      ),
    address6: address6
      .optional()
      .describe(
        'IPv6: auto (router advertisements), none, or cidr with gateway and dns. Default: auto with management, else none.',
      ),
    mtu,
    routes,
    defaultRoute,
    vlans: z
      .record(uplinkName, vlan)
      .default({})
      .describe('Tagged VLANs on it by name; the interface of each is called UPLINK.ID.'),
  })
  .refine(ipv6Needs, ipv6Mtu)

type Written = z.output<typeof uplink>

const isKept = ({ address, management }: Pick<Written, 'address' | 'management'>): boolean =>
  address === 'kept' || (address === undefined && management)

type Complain = (path: readonly (string | number)[], message: string) => void

function judgeKept(name: string, one: Written, complain: Complain): void {
  if (!isKept(one)) return
  for (const key of ['address6', 'mtu'] as const)
    if (one[key] !== undefined) complain([name, key], 'is only taken with an address other than kept')
  if (one.defaultRoute) complain([name, 'defaultRoute'], 'is only taken with an address other than kept')
  if (one.routes.length > 0) complain([name, 'routes'], 'is only taken with an address other than kept')
  if (Object.keys(one.vlans).length > 0)
    complain([name, 'vlans'], 'is only taken with an address other than kept')
}

/** Networks that two interfaces would both be in: the kernel answers for one over the other. */
function judgeNetworks(
  all: readonly (readonly [readonly string[], Pick<Written, 'address' | 'address6'>])[],
  complain: Complain,
): void {
  const networks = all.flatMap(([path, { address, address6 }]) =>
    [['address', address] as const, ['address6', address6] as const].flatMap(([key, value]) => {
      const cidr = typeof value === 'object' ? parseCidr(value.cidr) : null
      return cidr === null ? [] : [{ path: [...path, key, 'cidr'], cidr }]
    }),
  )
  for (const [at, { path, cidr }] of networks.entries()) {
    const other = networks.slice(0, at).find((earlier) => overlaps(earlier.cidr, cidr))
    if (other !== undefined)
      complain(path, `must not overlap the network of ${other.path.slice(0, -2).join('.')}`)
  }
}

/** The uplinks of the host, by name. */
export const uplinksSchema = z
  .record(uplinkName, uplink)
  .superRefine((uplinks, context) => {
    const complain: Complain = (path, message) =>
      context.addIssue({ code: 'custom', path: [...path], message })
    const entries = Object.entries(uplinks)
    const carriers = entries.flatMap(([name, one]) => [
      ...(one.defaultRoute ? [[name]] : []),
      ...Object.entries(one.vlans).flatMap(([vlan, { defaultRoute }]) =>
        defaultRoute ? [[name, 'vlans', vlan]] : [],
      ),
    ])
    for (const path of carriers.slice(1))
      complain([...path, 'defaultRoute'], `is given to ${carriers[0]?.join('.')} already`)
    const managing = entries.filter(([, { management }]) => management)
    for (const [name] of managing.slice(1))
      complain([name, 'management'], `is given to ${managing[0]?.[0]} already`)
    const [carrier] = carriers
    const [manager] = managing
    if (carrier !== undefined && manager !== undefined && carrier[0] !== manager[0] && isKept(manager[1]))
      complain(
        [manager[0], 'address'],
        `must be dhcp or cidr, not kept, when ${carrier.join('.')} carries the default route: its answers need routes of their own`,
      )
    const matches = new Map<string, string>()
    for (const [name, one] of entries) {
      judgeKept(name, one, complain)
      if ((one.match === undefined) === (one.lni === undefined))
        complain([name], 'must have exactly one of match and lni')
      if (one.lni !== undefined && one.management)
        complain(
          [name, 'management'],
          'is not for the local network interface: AWS does not reach the host over it',
        )
      // An instance has one local network interface at most.
      const match = one.lni === undefined ? JSON.stringify(one.match).toLowerCase() : 'lni'
      const other = matches.get(match)
      if (other !== undefined) complain([name, 'match'], `is the interface of ${other}`)
      matches.set(match, name)
      const ids = new Map<number, string>()
      for (const [vlan, { id }] of Object.entries(one.vlans)) {
        const taken = ids.get(id)
        if (taken !== undefined) complain([name, 'vlans', vlan, 'id'], `is the id of ${taken} already`)
        ids.set(id, vlan)
      }
    }
    judgeNetworks(
      entries.flatMap(([name, one]) => [
        [[name], one] as const,
        ...Object.entries(one.vlans).map(([vlan, tagged]) => [[name, 'vlans', vlan], tagged] as const),
      ]),
      complain,
    )
  })
  .describe('The interfaces to the networks outside, by name.')

/** One uplink as the document has it. */
export type WrittenUplink = Written

/** One VLAN of an uplink as the document has it. */
export type WrittenVlan = z.output<typeof vlan>

/** Whether others configure it, and Garrison only knows that it is there. */
export const keepsAddress = isKept
