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
import { HostError } from '../problem.ts'
import { bootUnits, ownFolder, rulesPath, sysctlFile, unitFolder, uplinkBatch } from './files.ts'
import { nftTable, type ObservedChain, parseTable } from './nft.ts'
import { type ProbeRecord, parseProbe, probePath } from './probe.ts'
import type { DesiredVmnets } from './schema.ts'
import { deviceOf, devicesOf, sysctlKeys } from './uplink.ts'

/** Everything that plan and check know of the VMs' networks. */
export interface ObservedVmnets {
  /** What was declared when it was looked at; null when nothing was, and then nothing was asked. */
  readonly asked: DesiredVmnets | null
  readonly networks: readonly NetworkFacts[]
  readonly attachments: readonly Attachment[]
  /** The interfaces that declared networks lead to, and the bridges of networks. */
  readonly links: readonly Link[]
  /** Default routes, and those over the uplinks. */
  readonly routes: readonly Route[]
  readonly rules: readonly Rule[]
  readonly proxies: readonly Neighbour[]
  readonly sysctls: Readonly<{ [key: string]: string | null }>
  readonly table: readonly ObservedChain[] | null
  /** Files of our own, by path; null for one that is not there. */
  readonly files: Readonly<{ [path: string]: string | null }>
  /** Units of ours that the next boot starts. */
  readonly enabled: readonly string[]
  readonly hasFirewalld: boolean
  /** What probes have found, by interface. */
  readonly probes: Readonly<{ [device: string]: ProbeRecord }>
}

const nothing: ObservedVmnets = {
  ...{ asked: null, networks: [], attachments: [], links: [], routes: [], rules: [], proxies: [] },
  ...{ sysctls: {}, table: null, files: {}, enabled: [], hasFirewalld: false, probes: {} },
}

async function ask(reader: HostReader, argv: [string, ...string[]]): Promise<string> {
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

/** Observes the networks. Asks nothing when none are declared. Throws `libvirt.unreachable`, `host.denied`. */
export async function observe(reader: HostReader, desired: Desired): Promise<ObservedVmnets> {
  const { vmnets } = desired
  if (vmnets === undefined) return nothing
  const [networks, domains] = await Promise.all([reader.networks(), reader.domains()])
  const devices = devicesOf(vmnets)
  const bridges = networks.flatMap(({ bridge }) => bridge ?? [])
  const links = parseLinks(await ask(reader, ipAddresses())).filter(
    ({ name }) => devices.includes(name) || bridges.includes(name),
  )
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
  const proxies = parseNeighbours(await ask(reader, ipProxies())).filter(({ device }) =>
    devices.includes(device),
  )
  const sysctls: { [key: string]: string | null } = {}
  for (const key of sysctlKeys(devices))
    sysctls[key] = (await reader.readText(`/proc/sys/${key}`))?.trim() ?? null
  const files: { [path: string]: string | null } = {}
  const units = bootUnits(devices)
  for (const path of [
    ...[sysctlFile, rulesPath],
    ...devices.flatMap((device) => bothFamilies.map((family) => uplinkBatch(device, family))),
    ...units.map((unit) => `${unitFolder}/${unit}`),
  ])
    files[path] = await reader.readText(path)
  for (const name of (await reader.list(ownFolder)) ?? [])
    if (/\.ipv[46]$/.test(name))
      files[`${ownFolder}/${name}`] ??= await reader.readText(`${ownFolder}/${name}`)
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
    attachments: domains.flatMap(attachmentsOf),
    ...{ links, routes, rules, proxies, sysctls, files, enabled, probes },
    table: parseTable(await reader.query(nftTable())),
    hasFirewalld: await isUnit(reader, 'is-active', 'firewalld.service', /^active$/),
  }
}

/** The interface that a declared network leads to, as it is now; null when there is none. */
export const uplinkOf = ({ links }: ObservedVmnets, net: Parameters<typeof deviceOf>[0]): Link | null =>
  links.find(({ name }) => name === deviceOf(net)) ?? null
