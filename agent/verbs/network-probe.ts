// The verb `network probe`: measures what the network of an interface lets pass, writes it down, and says what that means for VMs.

import { Resolver } from 'node:dns/promises'
import { contains, parseCidr, parseIp } from '../../provisioning/link/address.ts'
import { ipAddresses, ipRoutes, type Link, parseLinks, parseRoutes } from '../../provisioning/link/ip.ts'
import { meaningOf, type ProbeRecord, parseProbe, probePath } from '../../provisioning/link/probe.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { ObservedUplinks } from '../../provisioning/uplinks/observe.ts'
import type { WrittenUplink } from '../../provisioning/uplinks/schema.ts'
import type { Context } from '../api/context.ts'
import { paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { ProbeTask } from '../host/probe.ts'
import { self } from '../host/unit.ts'

/** The answer of `network probe`. */
export interface NetworkProbe extends ProbeRecord {
  readonly meaning: readonly string[]
}

const probeMs = 240_000
const dnsMs = 2000

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb: 'network probe' } })

/** The interface that is meant: an uplink of the document, or the name of an interface; without either the one uplink that is not the managing one. */
async function targetOf(
  context: Context,
  asked: string | undefined,
): Promise<{ readonly device: string; readonly uplink: WrittenUplink | null }> {
  const { desired, assessments } = await context.look({ fresh: true })
  const uplinks = Object.entries(desired.uplinks ?? {})
  const others = uplinks.filter(([, { management }]) => !management)
  const [name, uplink] =
    (asked === undefined
      ? others.length === 1
        ? others[0]
        : undefined
      : uplinks.find(([one]) => one === asked)) ?? []
  if (name === undefined || uplink === undefined) {
    if (asked !== undefined) return { device: asked, uplink: null }
    throw invalid(
      others.length === 0
        ? 'the document names no uplink but the managing one; say which interface'
        : `say which: ${others.map(([one]) => one).join(', ')}`,
    )
  }
  const observed = assessments.find(({ resource }) => resource === 'uplinks')?.observed as
    | ObservedUplinks
    | undefined
  const device = observed?.interfaces?.find(({ key }) => key === name)?.link?.name
  if (device === undefined)
    throw new HostError('probe.no-link', `the interface of ${name} is not there, or could not be read`)
  return { device, uplink }
}

async function answered(context: Context, argv: readonly [string, ...string[]]): Promise<string> {
  const { exit, stdout, stderr } = await context.reader.query(argv)
  if (exit !== 0) throw new HostError('host.unexpected-answer', `${argv.join(' ')}: ${stderr.trim()}`)
  return stdout
}

const staticOf = (value: WrittenUplink['address']) => (typeof value === 'object' ? value : null)

/** Name servers: those of the document, else what networkd has been told on the interface, else those of the host. */
async function nameServers(
  { reader }: Context,
  link: Link,
  uplink: WrittenUplink | null,
): Promise<readonly string[]> {
  const declared = staticOf(uplink?.address)?.dns ?? []
  if (declared.length > 0) return declared
  const note = (await reader.readText(`/run/systemd/netif/links/${link.index}`)) ?? ''
  const told =
    /^DNS=(.*)$/m
      .exec(note)?.[1]
      ?.split(' ')
      .filter((one) => one !== '') ?? []
  if (told.length > 0) return told
  const conf = (await reader.readText('/etc/resolv.conf')) ?? ''
  return [...conf.matchAll(/^nameserver +(\S+)$/gm)].map(([, server = '']) => server)
}

/** Any answer at all says that a server is reached, a refusal too. */
async function asked(server: string, from: string | null): Promise<ProbeRecord['dns'][number]> {
  const ip = parseIp(server)
  if (ip === null || (ip.family === 'inet' && from === null)) return { server, answers: 'unknown' }
  const resolver = new Resolver({ timeout: dnsMs, tries: 2 })
  resolver.setServers([ip.family === 'inet' ? server : `[${server}]`])
  if (ip.family === 'inet' && from !== null && !server.startsWith('127.')) resolver.setLocalAddress(from)
  try {
    await resolver.resolve('.', 'NS')
    return { server, answers: 'answers' }
  } catch (error) {
    const { code } = error as { readonly code?: string }
    if (code === 'ETIMEOUT' || code === 'ECONNREFUSED') return { server, answers: 'silent' }
    if (code === undefined || /^(EADDR|EACCES|ENET)/.test(code)) return { server, answers: 'unknown' }
    return { server, answers: 'answers' }
  }
}

/** Everything that is to be measured, from the document and from what there is. Throws `probe.no-link`, `request.invalid`. */
async function taskOf(
  context: Context,
  { interface: name, address, vlan, 'own-mac': ownMac }: Args<'network probe'>,
): Promise<ProbeTask> {
  const { device, uplink } = await targetOf(context, name)
  const links = parseLinks(await answered(context, ipAddresses()))
  const link = links.find((one) => one.name === device)
  if (link === undefined) throw new HostError('probe.no-link', `there is no interface ${device}`)
  if (!link.up || !link.carrier || link.mac === null)
    throw new HostError('probe.no-link', `${device} is down, has no carrier, or is no Ethernet`)
  const own = link.addresses.find(({ family, scope }) => family === 'inet' && scope === 'global')
  const network = own === undefined ? null : parseCidr(`${own.address}/${own.prefix}`)
  if (address !== undefined) {
    const extra = parseIp(address)
    if (extra?.family !== 'inet') throw invalid(`${address} is no IPv4 address`)
    if (network === null || !contains(network, extra))
      throw invalid(`${address} is not in the network of ${device}`)
  }
  const routes = parseRoutes('inet', await answered(context, ipRoutes('inet')))
  const known = staticOf(uplink?.address)?.gateway
  const toldOn = (name: string) =>
    routes.find(
      ({ to, hops, via }) => to.endsWith('/0') && via !== null && hops.some((hop) => hop.device === name),
    )?.via ?? null
  const extra = (vlan ?? []).map((text) => {
    const id = Number(text)
    if (!Number.isInteger(id) || id < 1 || id > 4094) throw invalid(`${text} is no VLAN id`)
    return { id, gateway: null }
  })
  const declared = Object.values(uplink?.vlans ?? {}).map((one) => ({
    id: one.id,
    gateway: staticOf(one.address)?.gateway ?? null,
  }))
  const tagged = [...new Map([...extra, ...declared].map((one) => [one.id, one])).values()].map(
    ({ id, gateway }) => {
      const one = links.find(({ parent, vlan }) => parent === device && vlan?.id === id)
      if (one === undefined) return { id, gateway, used: null }
      const leased = one.addresses.some(({ family, dynamic }) => family === 'inet' && dynamic)
      return { id, gateway: gateway ?? toldOn(one.name), used: { device: one.name, leased } }
    },
  )
  const servers = await nameServers(context, link, uplink)
  return {
    device,
    mac: link.mac,
    mtu: link.mtu,
    gateway: known ?? toldOn(device),
    dns: await Promise.all(servers.slice(0, 8).map((server) => asked(server, own?.address ?? null))),
    host: '/proc/1/ns/net',
    leased: own?.dynamic ?? false,
    address: address ?? null,
    ownMac,
    vlans: tagged,
  }
}

/** Measures. Throws `probe.no-link`, `request.invalid`, `action.failed`. */
export async function run(context: Context, args: Args<'network probe'>): Promise<NetworkProbe> {
  const task = await taskOf(context, args)
  const held = await context.hold(`measuring ${task.device}`)
  try {
    await context.performer.perform(
      {
        kind: 'run',
        // In a namespace of its own, so that what it makes goes with it.
        argv: [
          '/usr/bin/unshare',
          '--net',
          '--',
          ...self,
          'network',
          'measure',
          '--json',
          '--',
          JSON.stringify(task),
        ],
        deadlineMs: probeMs,
        unit: true,
      },
      context.signal,
    )
  } finally {
    await held.release()
  }
  const record = parseProbe(await context.reader.readText(probePath(task.device)))
  if (record === null) throw new HostError('host.unexpected-answer', `there is no record of ${task.device}`)
  return { ...record, meaning: meaningOf(record) }
}

const indent = 16

/** The answer in words. */
export function render(probe: NetworkProbe, terminal: Terminal): string {
  const {
    device,
    mac,
    gateway,
    arp,
    ping,
    secondMac,
    secondAddress,
    dhcp,
    dhcpBy,
    pathMtu,
    mtu,
    vlans,
    dns,
    odd,
  } = probe
  const row = (label: string, text: string): string => paragraph(`  ${label}`, text, indent)
  return [
    `${paint(terminal, 'strong', device)} ${mac}`,
    row(
      'gateway',
      gateway === null
        ? 'not known'
        : `${gateway}: ${arp}${arp === 'answers' && ping === 'silent' ? ', but no pings' : ''}`,
    ),
    row('second MAC', secondMac),
    row('second addr.', secondAddress),
    row('DHCP', dhcpBy === null ? dhcp : `${dhcp} (${dhcpBy})`),
    ...odd.map((text) => row('', text)),
    row('path MTU', pathMtu === null ? 'unknown' : `${pathMtu} of ${mtu}`),
    ...vlans.map(({ id, answers }) => row(`VLAN ${id}`, answers)),
    ...dns.map(({ server, answers }) => row('name server', `${server}: ${answers}`)),
    ...probe.notes.map((note) => row('note', note)),
    ...probe.meaning.map((text, at) => row(at === 0 ? 'means' : '', text)),
  ].join('\n')
}

/** 0, or 4 when it is not known whether a second MAC passes. */
export const exitOf = ({ secondMac }: NetworkProbe): Exit =>
  secondMac === 'unknown' ? EXIT.unknown : EXIT.done
