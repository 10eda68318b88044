// Reads the interfaces that the document names, what holds them, and what Garrison and others have written about them.

import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import type { InstanceFacts } from '../instance.ts'
import { formatCidr, parseCidr } from '../link/address.ts'
import {
  type Address,
  defaultRoutes,
  type Family,
  type Hop,
  ipAddresses,
  ipRoutes,
  ipRules,
  type Link,
  mainTable,
  parseLinks,
  parseRoutes,
  parseRules,
  type Route,
} from '../link/ip.ts'
import { macAtIndex, macWritten, withMac } from '../link/named.ts'
import { HostError, type ProblemReport, problemOf } from '../problem.ts'
import { parseSystemctlShow, systemctlShow } from '../systemd/systemctl.ts'
import { autoDefaultFile } from './auto-default.ts'
import { cloudInitConfig, cloudInitPath } from './cloud-init.ts'
import { type ObservedLni, observeLni } from './lni.ts'
import { linkFile, networkdFolder, networkdUnit, parseLinkFile } from './networkd.ts'
import {
  type Connection,
  confFolder,
  networkManagerUnit,
  nmcliConnections,
  parseNmcliConnections,
  profileFolder,
  unmanagedFile,
} from './networkmanager.ts'
import { keepsAddress, type WrittenUplink } from './schema.ts'
import { fromHere, keyOfFile, rulePriority, vlanKey } from './want.ts'

/** The programs that configure interfaces, one of which Garrison writes files for. */
export type Backend = 'networkd' | 'networkmanager'

/** An interface as it is. Addresses are `ADDRESS/PREFIX` in canonical form. */
export interface ObservedLink {
  readonly index: number
  readonly name: string
  /** The one that its frames have, which somebody may have set. */
  readonly mac: string | null
  readonly mtu: number
  readonly up: boolean
  readonly carrier: boolean
  /** Of IPv6 the global ones; those that the kernel has found to be another host's are in `duplicates`. */
  readonly addresses: readonly string[]
  readonly duplicates: readonly string[]
  readonly vlan: { readonly id: number; readonly parent: string | null } | null
  /** The bridge or bond that it is a port of. */
  readonly master: string | null
  /** Routes over it that the kernel did not make by itself. */
  readonly routes: readonly {
    readonly to: string
    readonly via: string | null
    readonly table: number
    readonly metric: number
  }[]
  /** Where DHCP or advertisements lead packets over it in the main table, beside the default route. */
  readonly told: readonly string[]
}

/** Who has configured an interface: a file of networkd, a profile of NetworkManager. */
export interface Holder {
  readonly by: Backend
  readonly file: string
  /** Of the profile; null for networkd. */
  readonly uuid: string | null
  /** In the words of the backend: configured, configuring, failed, unmanaged; activated, activating, … */
  readonly phase: string
}

/** One interface of the document: an uplink, or a VLAN on one. */
export interface ObservedInterface {
  /** `lan`, or `lan.20` for a VLAN. */
  readonly key: string
  /** What it is looked for by; null when nobody tells which MAC the device index has, and for a VLAN. */
  readonly mac: string | null
  readonly management: boolean
  readonly kept: boolean
  readonly dhcp: boolean
  readonly carriesDefault: boolean
  /** Names of the interfaces that fit; more than one is one too many. */
  readonly found: readonly string[]
  readonly link: ObservedLink | null
  readonly holder: Holder | null
}

/** A file of Garrison's own. */
export interface OwnFile {
  readonly path: string
  readonly content: string
}

/** Everything that plan and check know of uplinks. */
export interface ObservedUplinks {
  readonly declared: boolean
  /** Null when none is there. */
  readonly backend: Backend | null
  /** The other one runs as well. */
  readonly both: boolean
  /** The host is an EC2 instance: its management interface leads to link-local services. */
  readonly onEc2: boolean
  readonly interfaces: readonly ObservedInterface[]
  /** The EC2 side of the local network interface; null when the document names none. */
  readonly lni: ObservedLni | null
  /** Why the metadata of the instance could not be read, where they were asked. */
  readonly instanceProblem: ProblemReport | null
  /** Where the best default route leads. */
  readonly defaults: Readonly<Record<Family, Hop | null>>
  /** Some interface of the host has an address, over which somebody may speak to it. */
  readonly reachable: boolean
  /** Rules of our priority: `FROM TABLE`. */
  readonly rules: readonly string[]
  /** Garrison's own files about interfaces, sorted by path. */
  readonly files: readonly OwnFile[]
  /** Profiles of NetworkManager that it has loaded, by UUID. */
  readonly loaded: readonly string[]
  readonly cloudInit: boolean
}

const nothing: ObservedUplinks = {
  declared: false,
  backend: null,
  both: false,
  onEc2: false,
  interfaces: [],
  lni: null,
  instanceProblem: null,
  defaults: { inet: null, inet6: null },
  reachable: false,
  rules: [],
  files: [],
  loaded: [],
  cloudInit: false,
}

async function ask<Answer>(
  reader: HostReader,
  argv: readonly [string, ...string[]],
  parse: (stdout: string) => Answer,
): Promise<Answer> {
  const { exit, stdout, stderr } = await reader.query(argv)
  if (exit !== 0)
    throw new HostError('host.unexpected-answer', `${argv.join(' ')} ended with ${exit}: ${stderr.trim()}`)
  return parse(stdout)
}

const families = ['inet', 'inet6'] as const

const routesOf = async (reader: HostReader): Promise<readonly Route[]> =>
  (
    await Promise.all(
      families.map((family) => ask(reader, ipRoutes(family), (stdout) => parseRoutes(family, stdout))),
    )
  ).flat()

const rulesOf = async (reader: HostReader): Promise<readonly string[]> =>
  (
    await Promise.all(
      families.map((family) => ask(reader, ipRules(family), (stdout) => parseRules(family, stdout))),
    )
  )
    .flat()
    .flatMap(({ priority, from, table, incoming }) =>
      priority === rulePriority && from !== null && table !== null && incoming === fromHere
        ? [`${from} ${table}`]
        : [],
    )

const kernelProtocol = 2
const toldProtocols = [9, 16]

const cidrText = ({ address, prefix }: Address): string => {
  const cidr = parseCidr(`${address}/${prefix}`)
  return cidr === null ? `${address}/${prefix}` : formatCidr(cidr)
}

const isGlobal = ({ scope }: Address): boolean => scope === 'global' || scope === 'site'

function linkOf(link: Link, routes: readonly Route[]): ObservedLink {
  // A lease may name an address of the link or of loopback, which NetworkManager gives it the scope of.
  const usable = link.addresses.filter((one) => one.family === 'inet' || isGlobal(one))
  const over = routes
    .filter(({ type, protocol }) => type === 'unicast' && protocol !== kernelProtocol)
    .filter(({ hops }) => hops.some(({ device }) => device === link.name))
  return {
    index: link.index,
    name: link.name,
    mac: link.mac,
    mtu: link.mtu,
    up: link.up,
    carrier: link.carrier,
    addresses: usable.filter(({ temporary, duplicate }) => !temporary && !duplicate).map(cidrText),
    duplicates: usable.filter(({ duplicate }) => duplicate).map(cidrText),
    vlan: link.vlan === null ? null : { id: link.vlan.id, parent: link.parent },
    master: link.master,
    routes: over.map(({ to, via, table, metric }) => ({ to, via, table, metric })),
    told: over
      .filter(({ table, protocol }) => table === mainTable && toldProtocols.includes(protocol))
      .flatMap(({ to }) => (to.endsWith('/0') ? [] : to)),
  }
}

function defaultOver(routes: readonly Route[], family: Family): Hop | null {
  const [best] = defaultRoutes(routes, family)
  return best === undefined ? null : { via: best.via, device: best.device }
}

/** Garrison's own files in the folders of both backends. */
async function ownFiles(reader: HostReader): Promise<readonly OwnFile[]> {
  const listed = await Promise.all(
    [networkdFolder, profileFolder, confFolder].map(async (folder) =>
      ((await reader.list(folder)) ?? []).map((name) => `${folder}/${name}`),
    ),
  )
  const paths = listed.flat().filter((path) => keyOfFile(path) !== null)
  const read = [...paths, autoDefaultFile, unmanagedFile, cloudInitPath].sort().map(async (path) => ({
    path,
    content: await reader.readText(path),
  }))
  return (await Promise.all(read)).flatMap(({ path, content }) =>
    content === null ? [] : [{ path, content }],
  )
}

/** Which backends run. Throws `uplinks.backend-down` when one is to run and none does. */
async function backendsOf(reader: HostReader) {
  const units = [networkdUnit, networkManagerUnit] as const
  const [networkd, manager] = parseSystemctlShow(units, (await reader.query(systemctlShow(units))).stdout)
  const running = {
    networkd: networkd?.active === 'active' || networkd?.active === 'reloading',
    networkmanager: manager?.active === 'active' || manager?.active === 'reloading',
  }
  const down = [networkd, manager].findIndex((unit) => unit?.file === 'enabled')
  if (!running.networkd && !running.networkmanager && down >= 0) {
    const unit = units[down]
    throw new HostError('uplinks.backend-down', `${unit} is enabled and does not run`, { details: { unit } })
  }
  return running
}

/** What one backend makes of an interface. */
async function holderOf(
  reader: HostReader,
  link: Link,
  connections: readonly Connection[] | null,
  networkd: boolean,
): Promise<Holder | null> {
  const profile = connections?.find(({ device }) => device === link.name)
  const text = networkd ? await reader.readText(linkFile(link.index)) : null
  const note = text === null ? null : parseLinkFile(text)
  // What another has configured NetworkManager shows as a profile too, one that it has made up itself.
  const isMadeUp = profile?.file.startsWith('/run/') && note?.file != null && note.phase !== 'unmanaged'
  if (profile !== undefined && !isMadeUp)
    return { by: 'networkmanager', file: profile.file, uuid: profile.uuid, phase: profile.phase ?? '' }
  return note?.file == null ? null : { by: 'networkd', file: note.file, uuid: null, phase: note.phase }
}

/** What the metadata tell, asked only where the document needs it. */
async function instanceOf(reader: HostReader, uplinks: readonly WrittenUplink[]) {
  const needed = uplinks.some(
    (one) =>
      (one.match !== undefined && 'deviceIndex' in one.match) || (one.management && !keepsAddress(one)),
  )
  if (!needed) return { instance: null, instanceProblem: null }
  try {
    return { instance: await reader.instance(), instanceProblem: null }
  } catch (error) {
    // What is configured already goes on without them; why they are missing is told.
    if (!(error instanceof HostError)) throw error
    return { instance: null, instanceProblem: problemOf(error) }
  }
}

/** The MAC that an uplink is looked for by; while nobody can tell, the one that is in our own file. */
function macOf(
  name: string,
  { match, lni: wantsLni }: WrittenUplink,
  files: readonly OwnFile[],
  instance: InstanceFacts | null,
  lni: ObservedLni | null,
): string | null {
  const own = files.filter(({ path }) => keyOfFile(path) === name)
  const [written = null] = own.flatMap(({ content }) => macWritten(content) ?? [])
  if (wantsLni !== undefined) return lni?.lni?.mac ?? (lni?.reading.problem ? written : null)
  if (match === undefined) return null
  if ('mac' in match) return match.mac.toLowerCase()
  return instance === null ? written : macAtIndex(instance, match.deviceIndex)
}

/** Looks at the interfaces of the document; at nothing when it names none. */
export async function observe(reader: HostReader, { uplinks }: Desired): Promise<ObservedUplinks> {
  if (uplinks === undefined) return nothing
  const running = await backendsOf(reader)
  const wantedLni = Object.values(uplinks).find(({ lni }) => lni !== undefined)?.lni
  const [{ instance, instanceProblem }, lni, links, routes, rules, files, cloudInit, connections] =
    await Promise.all([
      instanceOf(reader, Object.values(uplinks)),
      wantedLni === undefined ? null : observeLni(reader, wantedLni),
      ask(reader, ipAddresses(), parseLinks),
      routesOf(reader),
      rulesOf(reader),
      ownFiles(reader),
      reader.facts(cloudInitConfig),
      running.networkmanager ? ask(reader, nmcliConnections(), parseNmcliConnections) : null,
    ])
  const interfaces: ObservedInterface[] = []
  const add = async (found: readonly Link[], rest: Omit<ObservedInterface, 'found' | 'link' | 'holder'>) => {
    const [link] = found.length === 1 ? found : []
    interfaces.push({
      ...rest,
      found: found.map(({ name }) => name),
      link: link === undefined ? null : linkOf(link, routes),
      holder: link === undefined ? null : await holderOf(reader, link, connections, running.networkd),
    })
  }
  for (const [name, one] of Object.entries(uplinks)) {
    const mac = macOf(name, one, files, instance, lni)
    const kept = keepsAddress(one)
    await add(mac === null ? [] : withMac(links, mac), {
      key: name,
      mac,
      management: one.management,
      kept,
      dhcp: !kept && (one.address ?? 'dhcp') === 'dhcp',
      carriesDefault: one.defaultRoute,
    })
    for (const { id, address, defaultRoute } of Object.values(one.vlans)) {
      const key = vlanKey(name, id)
      await add(
        links.filter((link) => link.name === key),
        {
          key,
          mac: null,
          management: false,
          kept: false,
          dhcp: address === 'dhcp',
          carriesDefault: defaultRoute,
        },
      )
    }
  }
  const both = running.networkd && running.networkmanager
  const holders = interfaces.flatMap(({ management, holder }) =>
    holder === null ? [] : [{ management, holder }],
  )
  const first = holders.find(({ management }) => management) ?? holders[0]
  const only = running.networkd ? 'networkd' : running.networkmanager ? 'networkmanager' : null
  return {
    declared: true,
    backend: both ? (first?.holder.by ?? only) : only,
    both,
    // Where the metadata are silent the firmware says that they should not be, or our own file that they were once there: a host
    // does not cease to be an instance because a lease has taken the way to them.
    onEc2:
      instance !== null ||
      instanceProblem !== null ||
      files.some(({ content }) => content.includes('169.254.169.254')),
    interfaces,
    lni,
    instanceProblem,
    defaults: { inet: defaultOver(routes, 'inet'), inet6: defaultOver(routes, 'inet6') },
    reachable: links.some(({ type, addresses }) => type !== 'loopback' && addresses.some(isGlobal)),
    rules,
    files,
    loaded: connections?.map(({ uuid }) => uuid) ?? [],
    cloudInit: cloudInit !== null,
  }
}
