// The definition of a libvirt network (<network>): read into what Garrison knows of it, made, and changed in place.

import {
  at,
  element,
  elementsOf,
  insert,
  parseXml,
  printXml,
  remove,
  sameXml,
  textOf,
  type XmlElement,
} from '../libvirt/xml.ts'
import { formatIp, parseIp } from '../link/address.ts'
import type { Family } from '../link/ip.ts'

/** An address reservation. IPv4 goes by MAC, IPv6 by the name that the VM asks with. */
export interface HostModel {
  readonly mac: string | null
  readonly name: string | null
  readonly address: string
}

/** One address of the host in the network, with what is given out beside it. */
export interface IpModel {
  readonly family: Family
  readonly address: string
  readonly prefix: number
  readonly ranges: readonly { readonly from: string; readonly to: string }[]
  readonly hosts: readonly HostModel[]
}

/** What Garrison knows of a network's definition. */
export interface NetworkModel {
  /** libvirt's forward mode: open, bridge, passthrough, nat, route, …; `none` for a network of its own. */
  readonly forward: string
  /** The interfaces of the host that its VMs sit on, in the modes that have such. */
  readonly devices: readonly string[]
  readonly bridge: string | null
  /** The zone of firewalld that the bridge is put in. */
  readonly zone: string | null
  readonly isolate: boolean
  /** What each NIC may at most, in Mbit/s, as the VM sees it; of a NIC that names no other port group. */
  readonly limits: { readonly receive: number | null; readonly send: number | null }
  readonly mtu: number | null
  readonly domain: string | null
  readonly nameservers: readonly string[]
  readonly ips: readonly IpModel[]
}

const nothing: NetworkModel = {
  ...{ forward: 'none', devices: [], bridge: null, zone: null, isolate: false, mtu: null, domain: null },
  ...{ limits: { receive: null, send: null } },
  ...{ nameservers: [], ips: [] },
}

/** An address as the kernel writes it; what is none stays as it is. */
const plain = (text: string): string => {
  const one = parseIp(text)
  return one === null ? text : formatIp(one)
}

function prefixLength(family: Family, attributes: ReadonlyMap<string, string>): number {
  const mask = parseIp(attributes.get('netmask') ?? '')
  if (mask !== null) return mask.value.toString(2).split('1').length - 1
  return Number(attributes.get('prefix') ?? (family === 'inet' ? 24 : 64))
}

function readIp(ip: XmlElement): IpModel {
  const family: Family = ip.attributes.get('family') === 'ipv6' ? 'inet6' : 'inet'
  const dhcp = at(ip, 'dhcp')
  return {
    family,
    address: plain(ip.attributes.get('address') ?? ''),
    prefix: prefixLength(family, ip.attributes),
    ranges: elementsOf(dhcp, 'range').map(({ attributes }) => ({
      from: plain(attributes.get('start') ?? ''),
      to: plain(attributes.get('end') ?? ''),
    })),
    hosts: elementsOf(dhcp, 'host').map(({ attributes }) => ({
      mac: attributes.get('mac')?.toLowerCase() ?? null,
      name: attributes.get('name') ?? null,
      address: plain(attributes.get('ip') ?? ''),
    })),
  }
}

/** The port group of NICs that name none. */
const ownGroup = 'garrison'
/** libvirt's rates are in kilobytes a second. */
const kilobytesPerMegabit = 125

const groupOf = (root: XmlElement): XmlElement | undefined =>
  elementsOf(root, 'portgroup').find(({ attributes }) => attributes.get('name') === ownGroup)

function readLimits(root: XmlElement): NetworkModel['limits'] {
  const bandwidth = at(groupOf(root), 'bandwidth')
  const rate = (name: string): number | null => {
    const average = at(bandwidth, name)?.attributes.get('average')
    return average === undefined ? null : Number(average) / kilobytesPerMegabit
  }
  return { receive: rate('inbound'), send: rate('outbound') }
}

/** Reads what is known of a definition. */
export function readNetwork(root: XmlElement): NetworkModel {
  const forward = at(root, 'forward')
  const named = elementsOf(forward, 'interface').flatMap(({ attributes }) => attributes.get('dev') ?? [])
  const device = forward?.attributes.get('dev')
  const mtu = at(root, 'mtu')?.attributes.get('size')
  const bridge = at(root, 'bridge')?.attributes
  return {
    forward: forward === undefined ? 'none' : (forward.attributes.get('mode') ?? 'nat'),
    devices: named.length > 0 || device === undefined ? named : [device],
    bridge: bridge?.get('name') ?? null,
    zone: bridge?.get('zone') ?? null,
    limits: readLimits(root),
    isolate: at(root, 'port')?.attributes.get('isolated') === 'yes',
    mtu: mtu === undefined ? null : Number(mtu),
    domain: at(root, 'domain')?.attributes.get('name') ?? null,
    nameservers: elementsOf(at(root, 'dns'), 'forwarder').flatMap(({ attributes }) =>
      attributes.get('domain') === undefined ? (attributes.get('addr') ?? []) : [],
    ),
    ips: elementsOf(root, 'ip').map(readIp),
  }
}

/** A reservation as libvirt takes it. */
export const hostElement = ({ mac, name, address }: HostModel): XmlElement =>
  element('host', { mac: mac ?? undefined, name: name ?? undefined, ip: address })

function ipElement({ family, address, prefix, ranges, hosts }: IpModel): XmlElement {
  const given = [
    ...ranges.map(({ from, to }) => element('range', { start: from, end: to })),
    ...hosts.map(hostElement),
  ]
  return element(
    'ip',
    { family: family === 'inet' ? 'ipv4' : 'ipv6', address, prefix: String(prefix) },
    given.length === 0 ? [] : [element('dhcp', {}, given)],
  )
}

function child(root: XmlElement, name: string): XmlElement {
  const found = at(root, name)
  if (found !== undefined) return found
  const made = element(name)
  insert(root, made)
  return made
}

function replaced(root: XmlElement, name: string, made: XmlElement | null): void {
  for (const old of elementsOf(root, name)) remove(root, old)
  if (made !== null) insert(root, made)
}

const writers: { readonly [Name in keyof NetworkModel]: (root: XmlElement, model: NetworkModel) => void } = {
  forward: (root, { forward, devices }) =>
    replaced(
      root,
      'forward',
      forward === 'none'
        ? null
        : element(
            'forward',
            { mode: forward },
            devices.map((dev) => element('interface', { dev })),
          ),
    ),
  devices: (root, model) => writers.forward(root, model),
  bridge(root, { bridge, forward, zone }) {
    if (bridge === null) return replaced(root, 'bridge', null)
    const made = element('bridge', {
      name: bridge,
      // A bridge without ports has no loops to look for, and need not wait before it forwards.
      ...(forward !== 'bridge' && { zone: zone ?? undefined, stp: 'off', delay: '0' }),
    })
    replaced(root, 'bridge', made)
  },
  zone: (root, model) => writers.bridge(root, model),
  limits(root, { limits: { receive, send } }) {
    const old = groupOf(root)
    if (old !== undefined) remove(root, old)
    if (receive === null && send === null) return
    const rate = (name: string, mbps: number | null) =>
      mbps === null ? [] : [element(name, { average: String(mbps * kilobytesPerMegabit) })]
    insert(
      root,
      element('portgroup', { name: ownGroup, default: 'yes' }, [
        element('bandwidth', {}, [...rate('inbound', receive), ...rate('outbound', send)]),
      ]),
    )
  },
  isolate: (root, { isolate }) =>
    replaced(root, 'port', isolate ? element('port', { isolated: 'yes' }) : null),
  mtu: (root, { mtu }) => replaced(root, 'mtu', mtu === null ? null : element('mtu', { size: String(mtu) })),
  domain: (root, { domain }) =>
    replaced(root, 'domain', domain === null ? null : element('domain', { name: domain, localOnly: 'yes' })),
  nameservers(root, { nameservers }) {
    const dns = child(root, 'dns')
    for (const one of elementsOf(dns, 'forwarder'))
      if (one.attributes.get('domain') === undefined) remove(dns, one)
    for (const addr of nameservers) insert(dns, element('forwarder', { addr }))
  },
  ips(root, { ips }) {
    const old = elementsOf(root, 'ip')
    for (const one of old) remove(root, one)
    for (const ip of ips) {
      const made = ipElement(ip)
      const before = old.find((one) => readIp(one).address === ip.address)
      // What else is there (TFTP, BOOTP) stays.
      for (const other of elementsOf(before).filter(({ name }) => name !== 'dhcp')) insert(made, other)
      for (const other of elementsOf(at(before, 'dhcp')).filter(
        ({ name }) => name !== 'range' && name !== 'host',
      ))
        insert(child(made, 'dhcp'), other)
      insert(root, made)
    }
  },
}

/** The parts that are compared, in the order in which they are told. */
const compared = [
  'forward',
  'devices',
  'bridge',
  'zone',
  'limits',
  'isolate',
  'mtu',
  'domain',
  'nameservers',
  'ips',
] as const

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other)

const withoutOrder = (model: NetworkModel): NetworkModel => ({
  ...model,
  devices: model.devices.toSorted(),
  ips: model.ips.map((ip) => ({
    ...ip,
    hosts: ip.hosts.toSorted((a, b) => (a.address < b.address ? -1 : 1)),
  })),
})

/** Which parts of two models are not the same. What is in no order is compared in none. */
export function differingParts(one: NetworkModel, other: NetworkModel): readonly (keyof NetworkModel)[] {
  const [mine, theirs] = [withoutOrder(one), withoutOrder(other)]
  return compared.filter((part) => !same(mine[part], theirs[part]))
}

/** The same without its reservations, which are changed while it is in use. */
export const withoutHosts = (model: NetworkModel): NetworkModel => ({
  ...model,
  ips: model.ips.map((ip) => ({ ...ip, hosts: [] })),
})

/** A definition of a new network; libvirt gives it UUID and MAC. */
export function newNetwork(name: string, model: NetworkModel): XmlElement {
  const root = element('network', {}, [element('name', {}, [name])])
  return changedNetwork(root, nothing, model)
}

/** A copy of a definition in which these parts are as wanted, and all else as it was. */
export function changedNetwork(root: XmlElement, observed: NetworkModel, wanted: NetworkModel): XmlElement {
  const copy = structuredClone(root)
  for (const part of differingParts(observed, wanted)) writers[part](copy, wanted)
  return copy
}

/** The definition as text, or null when it is another one after it was written and read again, or not what is wanted. */
export function verifiedText(root: XmlElement, wanted: NetworkModel): string | null {
  const text = printXml(root)
  const again = parseXml(text).root
  const isRight = sameXml(root, again) && differingParts(readNetwork(again), wanted).length === 0
  return isRight && textOf(at(again, 'name')) !== null ? text : null
}
