// An Outpost's wire in namespaces: a host with a libvirtd of its own, an LNI and an ENI; a switch that passes one MAC; a LAN.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import { type Libvirtd, startLibvirtd, virsh } from './libvirtd.ts'
import { caller, listener, type VmNic, vmXml, wirePath } from './vm-side.ts'
import type { Finished, Told } from './vms-world.ts'

const agentPath = join(import.meta.dirname, 'vms-agent.ts')

/** The MAC that the switch lets pass. */
export const lniMac = '02:00:00:00:00:11'

/** What is known of the LAN. */
export const lans = {
  lni: {
    ipv4: { subnet: '192.0.2.0/24', router: '192.0.2.1', dhcp: { from: '192.0.2.128', to: '192.0.2.254' } },
    ipv6: { subnet: '2001:db8:1::/64', router: '2001:db8:1::1' },
  },
}
/** A slice of it. */
export const routed = {
  uplink: 'lni',
  ipv4: { subnet: '192.0.2.64/27' },
  ipv6: { subnet: '2001:db8:1::100/120' },
  reservations: { a: { ipv4: '192.0.2.70', ipv6: '2001:db8:1::170' } },
}
const natted = {
  mode: 'nat',
  uplink: 'lni',
  ipv4: { subnet: '10.77.0.0/24' },
  ipv6: { subnet: 'fd77::/120' },
  reservations: { n: { ipv4: '10.77.0.9' } },
  forwards: [
    { port: 8080, to: 'n', toPort: 80 },
    { port: 8081, to: '10.77.0.9', toPort: 80, from: ['198.51.100.0/24'] },
  ],
}
const alone = { mode: 'isolated', ipv4: { subnet: '10.88.0.0/24' } }
/** Three networks: `default` is routed, `hidden` is nat, `alone` is isolated. */
export const everything = { default: routed, hidden: natted, alone }

/** What a command said, and whether it ended well. */
export interface Ran {
  readonly exit: number
  readonly out: string
}

/** The namespaces and what can be done in them. */
export interface Wire {
  readonly libvirtd: Libvirtd
  /** Runs a command in the namespaces of the host; throws when it fails. */
  host(...argv: readonly string[]): string
  /** Runs a command in `lan`, `gw`, `vpc`, `sw` or a VM's name. */
  at(place: string, ...argv: readonly string[]): Ran
  /** Writes a record below /var/lib/garrison. */
  remember(path: string, record: object): void
  /** Writes the document. */
  write(document: object): void
  /** Writes a document of these networks. */
  declare(networks: object): void
  /** The MAC that answers on the LAN for an address, or `nobody`. */
  macOfNeighbour(address: string): string
  virsh(...args: readonly string[]): string
  all<Line>(verb: string, args?: object): Promise<readonly Told<Line>[]>
  answer<Result>(verb: string, args?: object): Promise<Told<Result>>
  apply(): Promise<Told<Finished>>
  /** Makes a VM without a system whose NIC is on a network; a namespace of its name stands behind that NIC as `eth0`. */
  boot(
    name: string,
    network: string,
    nic?: Omit<VmNic, 'network'>,
  ): Promise<{ readonly mac: string; readonly tap: string }>
  /** Gives the namespace of a VM its addresses and gateways as DHCP would, without it. */
  configure(name: string, addresses: readonly string[], gateways: readonly string[]): void
  /** What a VM is given by DHCP, by a client of its own; null when nobody answers. */
  lease(name: string): string | null
  /** An interface of the host that leads to the LAN beside the LNI, with its MAC, and the addresses of both ends. */
  tagged(device: string, address: string, peer: string): void
  /** Plugs a port of the switch out or in. */
  cable(port: string, way: 'up' | 'down'): void
  /** Loses what the kernel keeps in memory of VM networks, and does what the units and files that are there do at a boot. */
  boots(): void
  /** Begins the unit of a device as systemd does, and does something after each of its commands; whether it succeeds. */
  begins(device: string, after: (command: string) => void): boolean
  /** Whether a ping from one place to an address is answered. */
  reaches(place: string, address: string): boolean
  /** A line that a TCP or UDP server in one place is sent from another. */
  exchange(server: string, port: number, client: string, address: string, to?: number): Promise<string>
  stop(): Promise<void>
}

const run = (...argv: readonly string[]): string => {
  const [program = '', ...args] = argv
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

const lniAddresses = ['192.0.2.20/24', '2001:db8:1::20/64']

/** Makes the wire. Needs root and what startLibvirtd needs. */
export async function vmnetsWire(): Promise<Wire> {
  const libvirtd = await startLibvirtd({ network: true })
  const root = mkdtempSync(join(tmpdir(), 'garrison-vmnets-'))
  for (const folder of ['run', 'etc/garrison', 'sysctl.d', 'system', 'lib'])
    mkdirSync(join(root, folder), { recursive: true })
  symlinkSync(join(libvirtd.folder, 'run'), join(root, 'run/libvirt'))
  const spaces = new Set<string>()
  const removeAll = (): void => {
    for (const place of spaces) run('/usr/sbin/ip', 'netns', 'delete', space(place))
    spaces.clear()
    rmSync(root, { recursive: true, force: true })
  }
  // Namespaces outlive whoever made them, and those of one that was killed may still be there.
  process.once('exit', removeAll)
  const space = (place: string): string => `${basename(root)}-${place}`
  const add = (place: string): void => {
    run('/usr/sbin/ip', 'netns', 'add', space(place))
    spaces.add(place)
    run('/usr/sbin/ip', '-n', space(place), 'link', 'set', 'lo', 'up')
  }
  const inHost = (): readonly string[] => ['/usr/bin/nsenter', '-t', String(libvirtd.pid), '-m', '-n', '--']
  const host: Wire['host'] = (...argv) => run(...inHost(), ...argv)
  const at: Wire['at'] = (place, ...argv) => {
    const { status, stdout, stderr } = spawnSync('/usr/sbin/ip', ['netns', 'exec', space(place), ...argv], {
      encoding: 'utf8',
      timeout: 60_000,
    })
    return { exit: status ?? 1, out: `${stdout}${stderr}` }
  }
  const must = (place: string, ...argv: readonly string[]): void => {
    const { exit, out } = at(place, ...argv)
    if (exit !== 0) throw new Error(`${place}: ${argv.join(' ')}: ${out}`)
  }
  const ip = (place: string, ...argv: readonly string[]): void => must(place, '/usr/sbin/ip', ...argv)

  for (const place of ['sw', 'lan', 'gw', 'vpc']) add(place)
  for (const [from, to] of [
    [join(root, 'sysctl.d'), '/etc/sysctl.d'],
    [join(root, 'system'), '/etc/systemd/system'],
  ] as const)
    host('/usr/bin/mount', '--bind', from, to)
  // What is there of other software stays out of sight, and what is written out of the machine.
  mkdirSync('/var/lib/garrison', { recursive: true })
  host('/usr/bin/mount', '--bind', join(root, 'lib'), '/var/lib/garrison')
  // libvirt sets switches of a bridge's ports there, and a sysfs shows the interfaces of the namespace that it was mounted in.
  mkdirSync(join(root, 'sys'))
  host('/usr/bin/mount', '-t', 'sysfs', 'sysfs', join(root, 'sys'))
  for (const path of ['class/net', 'devices/virtual/net'])
    host('/usr/bin/mount', '--bind', join(root, 'sys', path), join('/sys', path))
  host('/usr/sbin/ip', 'link', 'set', 'lo', 'up')
  ip('sw', 'link', 'add', 'br0', 'type', 'bridge')
  ip('sw', 'link', 'set', 'br0', 'up')
  const plug = (port: string, name: string, where: readonly string[]): void => {
    ip('sw', 'link', 'add', port, 'type', 'veth', 'peer', 'name', name)
    ip('sw', 'link', 'set', port, 'master', 'br0', 'up')
    ip('sw', 'link', 'set', name, 'netns', ...where)
  }
  plug('p-lni', 'lni', [String(libvirtd.pid)])
  plug('p-lan', 'eth0', [space('lan')])
  plug('p-gw', 'eth0', [space('gw')])
  ip('vpc', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eni')
  ip('vpc', 'link', 'set', 'eni', 'netns', String(libvirtd.pid))
  // Port security of the LNI: the frames of one MAC, and no general broadcast but ARP and DHCP.
  const wireRules = [
    `iifname "p-lni" ether saddr != ${lniMac} counter drop`,
    'iifname "p-lni" ether daddr ff:ff:ff:ff:ff:ff ether type != arp udp dport != 67 counter drop',
  ]
  must('sw', '/usr/sbin/nft', 'add table bridge wire')
  must('sw', '/usr/sbin/nft', 'add chain bridge wire pre { type filter hook prerouting priority -300; }')
  for (const rule of wireRules) must('sw', '/usr/sbin/nft', `add rule bridge wire pre ${rule}`)
  const addresses = (place: string | null, device: string, list: readonly string[]): void => {
    for (const one of list) {
      const words = ['address', 'add', one, 'dev', device, ...(one.includes(':') ? ['nodad'] : [])]
      if (place === null) host('/usr/sbin/ip', ...words)
      else ip(place, ...words)
    }
    const up = ['link', 'set', device, 'up']
    if (place === null) host('/usr/sbin/ip', ...up)
    else ip(place, ...up)
  }
  host('/usr/sbin/ip', 'link', 'set', 'lni', 'address', lniMac)
  addresses(null, 'lni', lniAddresses)
  addresses(null, 'eni', ['10.20.0.5/24'])
  addresses('lan', 'eth0', ['192.0.2.10/24', '2001:db8:1::10/64'])
  addresses('gw', 'eth0', ['192.0.2.1/24', '2001:db8:1::1/64'])
  addresses('vpc', 'eth0', ['10.20.0.1/24', '169.254.169.254/32'])
  // What is beyond the router.
  addresses('gw', 'lo', ['203.0.113.9/32', '2001:db8:9::9/128'])
  must('gw', '/usr/sbin/sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
  ip('lan', 'route', 'add', 'default', 'via', '192.0.2.1')
  ip('lan', '-6', 'route', 'add', 'default', 'via', '2001:db8:1::1')
  // The host itself sends over its ENI.
  host('/usr/sbin/ip', 'route', 'add', 'default', 'via', '10.20.0.1')

  const all: Wire['all'] = async <Line>(verb: string, args: object = {}) => {
    const lines: Told<Line>[] = []
    const [program = '', ...rest] = inHost()
    const agent = spawn(
      program,
      [...rest, process.execPath, agentPath, root, verb, JSON.stringify(args), 'vmnets,vms'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    createInterface({ input: agent.stdout }).on('line', (line) => lines.push(JSON.parse(line)))
    await once(agent, 'close')
    return lines
  }
  const write: Wire['write'] = (document) =>
    writeFileSync(join(root, 'etc/garrison/host.yaml'), JSON.stringify(document, null, 2))
  const children = new Set<ReturnType<typeof spawn>>()
  /** Does what systemd does for a unit, up to the first line that fails and may not. */
  const beginsBy = (unit: string, after: (command: string) => void = () => {}): boolean =>
    [...unit.matchAll(/^ExecStart=(-?)(.*)$/gm)].every(([, may, command = '']) => {
      const [program = '', ...rest] = [...inHost(), ...command.split(' ')]
      const isTaken = spawnSync(program, rest).status === 0 || may === '-'
      after(command)
      return isTaken
    })

  return {
    libvirtd,
    host,
    at,
    all,
    remember(path, record) {
      mkdirSync(dirname(join(root, 'lib', path)), { recursive: true })
      writeFileSync(join(root, 'lib', path), JSON.stringify(record))
    },
    write,
    declare: (networks) => write({ version: 1, vmnets: { networks, lans } }),
    macOfNeighbour(address) {
      at('lan', '/usr/sbin/ip', 'neigh', 'flush', 'dev', 'eth0')
      at('lan', '/usr/bin/ping', '-c', '1', '-W', '1', address)
      return /lladdr (\S+)/.exec(at('lan', '/usr/sbin/ip', 'neigh', 'show', address).out)?.[1] ?? 'nobody'
    },
    virsh: (...args) => virsh(libvirtd.socketPath, 'qemu:///system', ...args),
    async answer<Result>(verb: string, args: object = {}) {
      const [one] = await all<Result>(verb, args)
      if (one === undefined) throw new Error(`${verb} said nothing`)
      return one
    },
    async apply() {
      const last = (await all<ApplyLine>('apply', { allow: 'safe' })).at(-1)
      if (last?.line.event !== 'finished') throw new Error(`apply ended with ${JSON.stringify(last)}`)
      return last as Told<Finished>
    },
    async boot(name, network, nic = {}) {
      if (!spaces.has(name)) add(name)
      const path = join(root, `${name}.xml`)
      writeFileSync(path, vmXml(name, [{ network, ...nic }]))
      if (!virsh(libvirtd.socketPath, 'qemu:///system', 'list', '--all', '--name').split('\n').includes(name))
        virsh(libvirtd.socketPath, 'qemu:///system', 'define', path)
      virsh(libvirtd.socketPath, 'qemu:///system', 'start', '--paused', name)
      const [tap = '', , , , given = ''] = virsh(libvirtd.socketPath, 'qemu:///system', 'domiflist', name)
        .trim()
        .split(/\s+/)
      const pid = readFileSync(join(libvirtd.folder, 'run/qemu', `${name}.pid`), 'utf8').trim()
      const wire = spawn(
        '/usr/sbin/ip',
        ['netns', 'exec', space(name), '/usr/bin/python3', wirePath, pid, tap, 'eth0', given],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      children.add(wire)
      await Promise.race([
        once(wire.stdout, 'data'),
        once(wire, 'exit').then(() => {
          throw new Error(`nothing carries the frames of ${name}`)
        }),
      ])
      return { mac: given, tap }
    },
    configure(name, list, gateways) {
      addresses(name, 'eth0', list)
      for (const gateway of gateways)
        ip(name, gateway.includes(':') ? '-6' : '-4', 'route', 'replace', 'default', 'via', gateway)
    },
    tagged(device, address, peer) {
      ip('lan', 'link', 'add', 'tagged', 'type', 'veth', 'peer', 'name', device)
      ip('lan', 'link', 'set', device, 'netns', String(libvirtd.pid))
      host('/usr/sbin/ip', 'link', 'set', device, 'address', lniMac)
      addresses(null, device, [address])
      addresses('lan', 'tagged', [peer])
    },
    cable: (port, way) => ip('sw', 'link', 'set', port, way),
    boots() {
      host('/usr/sbin/nft', 'delete', 'table', 'inet', 'garrison_vms')
      host('/usr/sbin/sysctl', '-qw', 'net.ipv4.ip_forward=0', 'net.ipv6.conf.all.forwarding=0')
      host('/usr/sbin/sysctl', '-qw', 'net.ipv6.conf.all.proxy_ndp=0')
      for (const family of ['-4', '-6']) {
        const lines = host('/usr/sbin/ip', family, 'neigh', 'show', 'proxy').trim().split('\n')
        for (const [address = '', , device = ''] of lines.map((line) => line.split(' ')))
          if (address !== '') host('/usr/sbin/ip', family, 'neigh', 'delete', 'proxy', address, 'dev', device)
        for (const priority of ['5210', '5211'])
          while (host('/usr/sbin/ip', family, 'rule', 'show', 'priority', priority) !== '')
            host('/usr/sbin/ip', family, 'rule', 'delete', 'priority', priority)
        host('/usr/sbin/ip', family, 'route', 'flush', 'table', '5210')
      }
      host('/usr/sbin/sysctl', '--quiet', '--load=/etc/sysctl.d/60-garrison-vmnets.conf')
      // An interface appears before its backend gives it what it has.
      host('/usr/sbin/ip', 'address', 'flush', 'dev', 'lni')
      host('/usr/sbin/ip', 'link', 'set', 'lni', 'down')
      const units = readdirSync(join(root, 'system'))
        .filter((name) => name.endsWith('.service'))
        .map((name) => readFileSync(join(root, 'system', name), 'utf8'))
      const failed = units.filter((unit) => !beginsBy(unit))
      addresses(null, 'lni', lniAddresses)
      for (const unit of failed)
        if (!/^Restart=on-failure$/m.test(unit) || !beginsBy(unit)) throw new Error(`does not begin: ${unit}`)
    },
    begins: (device, after) =>
      beginsBy(readFileSync(join(root, 'system', `garrison-vmnets-${device}.service`), 'utf8'), after),
    lease: (name) =>
      /lease of (\S+) obtained/.exec(
        at(name, '/usr/bin/busybox', 'udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '8', '-s', '/bin/true')
          .out,
      )?.[1] ?? null,
    reaches: (place, address) =>
      at(place, '/usr/bin/ping', '-c', '3', '-i', '0.3', '-W', '2', address).exit === 0,
    async exchange(server, port, client, address, to = port) {
      const any = address.includes(':') ? '::' : '0.0.0.0'
      const listening = spawn(
        '/usr/sbin/ip',
        ['netns', 'exec', space(server), '/usr/bin/python3', '-c', listener, String(port), any],
        { stdio: ['ignore', 'pipe', 'ignore'] },
      )
      const lines = createInterface({ input: listening.stdout })
      await once(lines, 'line')
      const heard = once(lines, 'line')
      const { exit } = at(client, '/usr/bin/python3', '-c', caller, address, String(to))
      if (exit !== 0) listening.kill()
      const [said] = exit === 0 ? await heard : ['nothing']
      return String(said)
    },
    async stop() {
      for (const child of children) child.kill()
      await libvirtd.stop()
      process.off('exit', removeAll)
      removeAll()
    },
  }
}
