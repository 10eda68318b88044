// A host as the VM networks see it: answers of libvirt, ip, nft and systemctl about an ENI and an LNI, as a test sets them.

import type { DomainFacts, HostReader, NetworkFacts } from '../../provisioning/host.ts'
import type { InstanceFacts } from '../../provisioning/instance.ts'
import type { ProbeRecord } from '../../provisioning/link/probe.ts'
import type { Action } from '../../provisioning/resource.ts'
import { readsNoCloud } from './no-cloud.ts'
import { readerOf } from './simulated-host.ts'

/** What is there. Absent is what a host has on which nobody has done anything. */
export interface NetworkHost {
  readonly networks?: readonly NetworkFacts[]
  readonly domains?: readonly DomainFacts[]
  /** The name of the interface with the LNI's MAC; null when none is plugged in. */
  readonly lni?: string | null
  readonly carrier?: boolean
  /** Whether the LNI has its addresses. */
  readonly addressed?: boolean
  /** Default routes over the LNI. */
  readonly router?: boolean
  readonly vlan?: boolean
  /** NICs of VMs that run. */
  readonly taps?: readonly string[]
  readonly rules?: readonly object[]
  readonly routes?: readonly object[]
  readonly proxies?: readonly string[]
  readonly files?: Readonly<Record<string, string>>
  readonly sysctls?: Readonly<Record<string, string>>
  /** Units that the next boot starts. */
  readonly enabled?: readonly string[]
  readonly firewalld?: boolean
  readonly isInstance?: boolean
  /** The table as nft prints it; null when there is none. */
  readonly table?: string | null
  /** The same of the table of frames. */
  readonly frames?: string | null
}

/** The MAC of its LNI. */
export const lniMac = '02:00:00:00:00:11'

/** What `garrison network probe` writes down of the LNI when all it has found out is what becomes of a second MAC. */
export const probed = (secondMac: ProbeRecord['secondMac'], mac = lniMac): ProbeRecord => ({
  ...{ atMs: 1, device: 'lni', mac, gateway: '192.0.2.1', arp: 'answers', ping: 'answers', secondMac },
  ...{
    secondAddress: 'unknown',
    dhcp: 'unknown',
    dhcpBy: null,
    pathMtu: null,
    odd: [],
    mtu: 1500,
    vlans: [],
    dns: [],
  },
  notes: [],
})

/** A network of libvirt that is defined, active and started at boot. */
export const networkFacts = (name: string, xml: string, more: Partial<NetworkFacts> = {}): NetworkFacts => ({
  ...{ name, uuid: '00000000-0000-4000-8000-000000000001', active: true, autostart: true, persistent: true },
  ...{ bridge: /<bridge name='([^']+)'/.exec(xml)?.[1] ?? null, xml, liveXml: xml },
  ...more,
})

/** A VM with one NIC, as libvirt tells it. */
export function domainOn(vm: string, nic: string, running = true): DomainFacts {
  const xml = `<domain type='kvm'><name>${vm}</name><devices>${nic}</devices></domain>`
  return {
    ...{ uuid: '00000000-0000-4000-8000-0000000000aa', name: vm, reason: 'booted', persistent: true },
    ...{ autostart: false, managedSave: false, hasSecrets: false, xml },
    power: running ? 'running' : 'off',
    liveXml: running ? xml : null,
  }
}

const address = (family: string, local: string, prefixlen: number) => ({
  ...{ family, local, prefixlen, scope: 'global', valid_life_time: 4_294_967_295 },
})

function linksOf({
  lni = 'lni',
  carrier = true,
  addressed = true,
  vlan = false,
  taps = [],
}: NetworkHost): object[] {
  const link = (ifindex: number, ifname: string, mac: string, addr_info: readonly object[]) => ({
    ...{ ifindex, ifname, address: mac, link_type: 'ether', mtu: 1500, addr_info },
    flags: ['BROADCAST', 'UP', ...(carrier || ifname === 'eni' ? ['LOWER_UP'] : [])],
  })
  return [
    ...taps.map((name, at) => link(10 + at, name, `fe:54:00:00:00:0${at}`, [])),
    link(2, 'eni', '02:00:00:00:00:10', [address('inet', '10.20.0.5', 24)]),
    ...(lni === null
      ? []
      : [
          link(
            3,
            lni,
            lniMac,
            addressed ? [address('inet', '192.0.2.20', 24), address('inet6', '2001:db8:1::20', 64)] : [],
          ),
          ...(vlan
            ? [
                {
                  ...link(4, 'lan.20', lniMac, [address('inet', '198.51.100.20', 24)]),
                  link: lni,
                  linkinfo: { info_kind: 'vlan', info_data: { id: 20, protocol: '802.1Q' } },
                },
              ]
            : []),
        ]),
  ]
}

const instance: InstanceFacts = {
  ...{ instanceId: 'i-1', region: 'xx-test-1', zone: 'xx-test-1a', partition: 'aws', outpostArn: null },
  ...{ mac: '02:00:00:00:00:10', interfaces: [] },
}

/** The reader of such a host. */
export function networkReader(host: NetworkHost): HostReader {
  const { lni = 'lni', router = false, rules = [], routes = [], proxies = [], files = {} } = host
  const {
    networks = [],
    domains = [],
    enabled = [],
    firewalld = false,
    table = null,
    frames = null,
    sysctls = {},
  } = host
  const answer = (stdout: string, exit = 0, stderr = '') => ({ exit, stdout, stderr })
  const json = (rows: readonly object[]) => answer(JSON.stringify(rows))
  const defaultOver = (dev: string, gateway: string, metric: number) => ({
    ...{ type: '1', dst: 'default', gateway, dev, protocol: '16', metric, flags: [] },
  })
  return {
    ...readerOf({ files: new Map(), journal: [] }),
    ...readsNoCloud,
    instance: async () => (host.isInstance === false ? null : instance),
    domains: async () => domains,
    networks: async () => networks,
    async query(argv) {
      if (argv[0].endsWith('/nft') && argv.includes('bridge'))
        return frames === null ? answer('', 1, 'Error: No such file or directory') : answer(frames)
      if (argv[0].endsWith('/nft'))
        return table === null ? answer('', 1, 'Error: No such file or directory') : answer(table)
      if (argv[0].endsWith('/systemctl')) {
        const [, verb, unit] = argv
        const isOn =
          verb === 'is-enabled' ? enabled.includes(unit ?? '') : unit === 'firewalld.service' && firewalld
        return answer(isOn ? (verb === 'is-enabled' ? 'enabled' : 'active') : 'inactive', isOn ? 0 : 1)
      }
      if (argv.includes('address')) return json(linksOf(host))
      if (argv.includes('neighbour'))
        return json(proxies.map((dst) => ({ dst, dev: lni, flags: ['proxy'], state: [] })))
      const six = argv.includes('-6')
      const isOfFamily = (one: object) => JSON.stringify(one).includes('::') === six
      if (argv.includes('rule')) return json(rules.filter(isOfFamily))
      const all: readonly { readonly dev: string }[] = [
        ...(six ? [] : [defaultOver('eni', '10.20.0.1', 100)]),
        ...(router && lni !== null && !six ? [defaultOver(lni, '192.0.2.1', 200)] : []),
        ...(routes as readonly { readonly dev: string }[]).filter(isOfFamily),
      ]
      return json(
        all.map((one) =>
          host.carrier === false && one.dev !== 'eni' ? { ...one, flags: ['linkdown'] } : one,
        ),
      )
    },
    async readText(path) {
      if (path.startsWith('/proc/sys/'))
        return `${sysctls[path.slice('/proc/sys/'.length)] ?? (path.endsWith('_delay') ? '80' : '0')}\n`
      return files[path] ?? null
    },
    list: async (folder) =>
      Object.keys(files).flatMap((path) =>
        path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : [],
      ),
  }
}

/** The rules of an nft script as nft would list them. */
function listed(script: string): string | null {
  if (!script.includes(' chain ')) return null
  const rows: object[] = []
  let chain = ''
  for (const line of script.split('\n')) {
    const [, name] = /^ {2}chain (\S+) \{/.exec(line) ?? []
    if (name !== undefined) {
      chain = name
      rows.push({ chain: { family: 'inet', table: 'garrison_vms', name } })
    }
    const [, type, hook, prio] = /type (\w+) hook (\w+) priority (-?\d+);/.exec(line) ?? []
    if (type !== undefined)
      rows[rows.length - 1] = { chain: { name: chain, type, hook, prio: Number(prio), policy: 'accept' } }
    const [, comment] = /comment "([^"]+)"/.exec(line) ?? []
    if (comment !== undefined)
      rows.push({ rule: { chain, comment, expr: [{ counter: { packets: 0, bytes: 0 } }] } })
  }
  return JSON.stringify({ nftables: [{ metainfo: {} }, ...rows] })
}

const words = (line: string): readonly string[] => line.split(' ')
const after = (line: readonly string[], word: string): string => line[line.indexOf(word) + 1] ?? ''
const isRuleOf = (rule: object, line: readonly string[]): boolean => {
  const { src, srclen, priority } = rule as { src: string; srclen: number; priority: number }
  return `${src}/${srclen}` === after(line, 'from') && String(priority) === after(line, 'priority')
}

function told(host: NetworkHost, line: readonly string[]): NetworkHost {
  const [object, verb] = line
  if (object === 'neighbour') {
    const kept = (host.proxies ?? []).filter((one) => one !== line[3])
    return { ...host, proxies: verb === 'delete' ? kept : [...kept, line[3] ?? ''] }
  }
  if (object === 'rule') {
    const [src = '', length = ''] = after(line, 'from').split('/')
    const table = after(line, 'lookup')
    const rule = {
      ...{ priority: Number(after(line, 'priority')), src, srclen: Number(length) },
      table: table === 'main' ? '254' : table,
    }
    const others = (host.rules ?? []).filter((one) => !isRuleOf(one, line))
    return { ...host, rules: verb === 'delete' ? others : [...others, rule] }
  }
  const made = {
    ...{ type: '1', dst: 'default', gateway: after(line, 'via'), dev: after(line, 'dev'), flags: [] },
    ...{ table: after(line, 'table'), protocol: '2' },
  }
  return { ...host, routes: [...(host.routes ?? []), made] }
}

/** The host after an action. */
export function performedOn(host: NetworkHost, action: Action): NetworkHost {
  const { files = {}, networks = [] } = host
  const without = (path: string) => Object.fromEntries(Object.entries(files).filter(([one]) => one !== path))
  const changed = (name: string, change: (one: NetworkFacts) => NetworkFacts): NetworkHost => ({
    ...host,
    networks: networks.map((one) => (one.name === name ? change(one) : one)),
  })
  if (action.kind === 'folder') return host
  if (action.kind === 'write') return { ...host, files: { ...files, [action.path]: action.content } }
  if (action.kind === 'remove') return { ...host, files: without(action.path) }
  if (action.kind === 'run') {
    const [program, ...args] = action.argv
    if (program.endsWith('/nft') && args[0] === 'delete') return { ...host, frames: null }
    if (program.endsWith('/nft')) {
      const [packets = '', frames] = (files[args[1] ?? ''] ?? '').split('table bridge garrison_vms\n')
      return {
        ...host,
        table: listed(packets),
        ...(frames !== undefined && { frames: listed((files[args[1] ?? ''] ?? '').slice(packets.length)) }),
      }
    }
    if (program.endsWith('/sysctl'))
      return {
        ...host,
        sysctls: {
          ...host.sysctls,
          ...Object.fromEntries(
            (files[args[1]?.split('=')[1] ?? ''] ?? '')
              .split('\n')
              .flatMap((line) => (line.includes(' = ') ? [line.split(' = ')] : [])),
          ),
        },
      }
    if (program.endsWith('/systemctl')) {
      const enabled = (host.enabled ?? []).filter((unit) => unit !== args[2])
      return { ...host, enabled: args[0] === 'enable' ? [...enabled, args[2] ?? ''] : enabled }
    }
    if (args.includes('-batch'))
      return (action.stdin ?? '')
        .trim()
        .split('\n')
        .reduce((now, line) => told(now, words(line)), host)
    return told(host, args.slice(1))
  }
  if (action.kind !== 'network') throw new Error(`this host cannot ${action.kind}`)
  const { name } = action
  switch (action.operation) {
    case 'define': {
      const old = networks.find((one) => one.name === name)
      const { xml } = action
      if (old !== undefined) return changed(name, (one) => ({ ...one, xml, persistent: true }))
      const made = networkFacts(name, xml, { active: false, autostart: false, liveXml: null })
      return { ...host, networks: [...networks, made] }
    }
    case 'start':
      return changed(name, (one) => ({ ...one, active: true, liveXml: one.xml }))
    case 'stop':
      return changed(name, (one) => ({ ...one, active: false, liveXml: null }))
    case 'autostart':
      return changed(name, (one) => ({ ...one, autostart: action.enabled }))
    default:
      throw new Error(`this host cannot ${action.operation}`)
  }
}
