// Reads what libvirt and the kernel know of the declared networks: definitions, VMs on them, interfaces, routes, rules, proxies.

import type { Desired } from '../desired.ts'
import type { HostReader, NetworkFacts } from '../host.ts'
import { type Attachment, attachmentsOf } from '../libvirt/attachments.ts'
import {
  type Family,
  ipAddresses,
  ipProxies,
  ipRoutes,
  ipRules,
  type Link,
  type Neighbour,
  parseLinks,
  parseNeighbours,
  parseRoutes,
  parseRules,
  type Route,
  type Rule,
} from '../link/ip.ts'
import { linkOfUplink } from '../link/named.ts'
import { type ProbeRecord, parseProbe, probePath } from '../link/probe.ts'
import { HostError } from '../problem.ts'
import {
  deviceOfBatch,
  ownFolder,
  rulesPath,
  rulesUnit,
  sysctlFile,
  unitFolder,
  uplinkBatch,
  uplinkUnit,
} from './files.ts'
import { nftTable, type ObservedChain, parseTable } from './nft.ts'
import type { DesiredNetwork, DesiredVmnets } from './schema.ts'
import { sysctlKeys, wireOf, wiresOf } from './uplink.ts'

/** Everything that plan and check know of the VMs' networks. */
export interface ObservedVmnets {
  /** What was declared when it was looked at; null when nothing was, and then nothing was asked. */
  readonly asked: DesiredVmnets | null
  readonly networks: readonly NetworkFacts[]
  readonly attachments: readonly Attachment[]
  /** The interfaces that are there of those that networks lead to, by what the document calls them. */
  readonly devices: Readonly<{ [wire: string]: string }>
  /** Those of them that are uplinks of the document, or VLANs there: what is wrong with such is told by that resource. */
  readonly uplinks: readonly string[]
  /** These interfaces, and the bridges of networks. */
  readonly links: readonly Link[]
  /** Default routes, and those over the uplinks. */
  readonly routes: readonly Route[]
  readonly rules: readonly Rule[]
  readonly proxies: readonly Neighbour[]
  readonly sysctls: Readonly<{ [key: string]: string | null }>
  readonly table: readonly ObservedChain[] | null
  /** The table of the same name in which frames are judged on their bridges. */
  readonly frames: readonly ObservedChain[] | null
  /** Files of our own, by path; null for one that is not there. */
  readonly files: Readonly<{ [path: string]: string | null }>
  /** Units of ours that the next boot starts. */
  readonly enabled: readonly string[]
  readonly hasFirewalld: boolean
  /** Whether the host is an EC2 instance, of which no wire lets a MAC pass that EC2 has not given; null when nobody can tell or asked. */
  readonly isInstance: boolean | null
  /** The MACs of VMs that addresses are kept for, by network and VM, as far as anybody can tell. */
  readonly macs: Readonly<{ [network: string]: Readonly<{ [vm: string]: string }> }>
  /** What probes have found, by interface. */
  readonly probes: Readonly<{ [device: string]: ProbeRecord }>
}

const nothing: ObservedVmnets = {
  ...{
    asked: null,
    networks: [],
    attachments: [],
    devices: {},
    uplinks: [],
    links: [],
    routes: [],
    rules: [],
    proxies: [],
  },
  ...{
    sysctls: {},
    table: null,
    frames: null,
    macs: {},
    files: {},
    enabled: [],
    hasFirewalld: false,
    probes: {},
    isInstance: null,
  },
}

/** The answer of a tool that ends with 0. Throws `host.unexpected-answer`. */
export async function ask(reader: HostReader, argv: [string, ...string[]]): Promise<string> {
  const { exit, stdout, stderr } = await reader.query(argv)
  if (exit !== 0)
    throw new HostError(
      'host.unexpected-answer',
      `${argv.join(' ')} ended with ${exit}: ${stderr.trim().split('\n').at(-1)}`,
    )
  return stdout
}

const bothFamilies: readonly Family[] = ['inet', 'inet6']
const defaults = ['0.0.0.0/0', '::/0']

const isUnit = async (reader: HostReader, verb: string, unit: string, word: RegExp): Promise<boolean> => {
  const { stdout } = await reader.query(['/usr/bin/systemctl', verb, unit])
  return word.test(stdout.trim())
}

async function isInstance(reader: HostReader, { networks }: DesiredVmnets): Promise<boolean | null> {
  if (!Object.values(networks).some(({ mode, uplink }) => mode === 'bridge' && uplink !== undefined))
    return null
  try {
    return (await reader.instance()) !== null
  } catch (error) {
    // Not to know is no leave to send frames with other MACs.
    if (!(error instanceof HostError)) throw error
    return null
  }
}

/** The MAC of a VM's NIC on a network: declared with the address, or with the VM, else what libvirt knows. */
function macsOf({ vms }: Desired, { networks }: DesiredVmnets, attachments: readonly Attachment[]) {
  const macOf = (network: string, vm: string): string | null => {
    const written = Object.values(vms?.machines[vm]?.nics ?? {}).find(
      (nic) =>
        (nic.network ?? (nic.bridge === undefined && nic.macvtap === undefined ? 'default' : null)) ===
        network,
    )
    const nic = attachments.find((one) => one.vm === vm && one.kind === 'network' && one.to === network)
    return networks[network]?.reservations[vm]?.mac ?? written?.mac ?? nic?.mac ?? null
  }
  return Object.fromEntries(
    Object.entries(networks).map(([network, { reservations }]) => [
      network,
      Object.fromEntries(
        Object.keys(reservations).flatMap((vm) => {
          const mac = macOf(network, vm)
          return mac === null ? [] : [[vm, mac] as const]
        }),
      ),
    ]),
  )
}

/** The wires of networks that the document has as uplinks, or as VLANs there. */
const uplinksOf = ({ uplinks }: Desired, { networks }: DesiredVmnets): readonly string[] => [
  ...new Set(
    Object.values(networks).flatMap((net) => {
      const declared = uplinks?.[net.uplink ?? '']
      const isThere =
        declared !== undefined &&
        (net.vlan === undefined || Object.values(declared.vlans).some(({ id }) => id === net.vlan))
      return isThere ? (wireOf(net) ?? []) : []
    }),
  ),
]

/** Observes the networks. Asks nothing when none are declared. Throws `libvirt.unreachable`, `host.denied`. */
export async function observe(reader: HostReader, desired: Desired): Promise<ObservedVmnets> {
  const { vmnets } = desired
  if (vmnets === undefined) return nothing
  const [networks, domains] = await Promise.all([reader.networks(), reader.domains()])
  const known = parseLinks(await ask(reader, ipAddresses()))
  const found: { [wire: string]: string } = {}
  for (const wire of wiresOf(vmnets)) {
    const link = await linkOfUplink(reader, desired, wire, known)
    if (link !== null) found[wire] = link.name
  }
  const devices = [...new Set(Object.values(found))].sort()
  const attachments = domains.flatMap(attachmentsOf)
  const bridges = networks.flatMap(({ bridge }) => bridge ?? [])
  const links = known.filter(({ name }) => devices.includes(name) || bridges.includes(name))
  const routes: Route[] = []
  const rules: Rule[] = []
  for (const family of bothFamilies) {
    routes.push(
      ...parseRoutes(family, await ask(reader, ipRoutes(family))).filter(
        ({ to, device, type }) =>
          type === 'unicast' && (defaults.includes(to) || devices.includes(device ?? '')),
      ),
    )
    rules.push(...parseRules(family, await ask(reader, ipRules(family))))
  }
  const proxies = parseNeighbours(await ask(reader, ipProxies()))
  const sysctls: { [key: string]: string | null } = {}
  for (const key of sysctlKeys(devices))
    sysctls[key] = (await reader.readText(`/proc/sys/${key}`))?.trim() ?? null
  const files: { [path: string]: string | null } = {}
  const before = ((await reader.list(ownFolder)) ?? []).flatMap((name) => deviceOfBatch(name) ?? [])
  const concerned = [...new Set([...devices, ...before])].sort()
  const units = [rulesUnit, ...concerned.map(uplinkUnit)]
  for (const path of [
    ...[sysctlFile, rulesPath],
    ...concerned.flatMap((device) => bothFamilies.map((family) => uplinkBatch(device, family))),
    ...units.map((unit) => `${unitFolder}/${unit}`),
  ])
    files[path] = await reader.readText(path)
  const enabled: string[] = []
  for (const unit of units) if (await isUnit(reader, 'is-enabled', unit, /^enabled$/)) enabled.push(unit)
  const probes: { [device: string]: ProbeRecord } = {}
  for (const device of devices) {
    const record = parseProbe(await reader.readText(probePath(device)))
    if (record !== null) probes[device] = record
  }
  return {
    asked: vmnets,
    networks,
    attachments,
    uplinks: uplinksOf(desired, vmnets),
    ...{ devices: found, links, routes, rules, proxies, sysctls, files, enabled, probes },
    macs: macsOf(desired, vmnets, attachments),
    table: parseTable(await reader.query(nftTable('inet'))),
    frames: parseTable(await reader.query(nftTable('bridge'))),
    isInstance: await isInstance(reader, vmnets),
    hasFirewalld: await isUnit(reader, 'is-active', 'firewalld.service', /^active$/),
  }
}

/** The interface that a declared network leads to, as it is now; null when there is none. */
export const uplinkOf = ({ devices, links }: ObservedVmnets, net: DesiredNetwork): Link | null =>
  links.find(({ name }) => name === devices[wireOf(net) ?? '']) ?? null
