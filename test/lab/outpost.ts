// The wires around an Outpost server, in namespaces of this machine: a switch that passes one MAC per LNI, a LAN, a VPC.
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Port } from './guest.ts'
import { endOf, linesOf, type Outcome, runTool, startTool, type Tool } from './processes.ts'
import { relay } from './relay.ts'

/** `switch` joins the LAN; `lan` is a host on it, `gateway` its router, DHCP and name server; `vpc` is what the ENI leads to. */
const places = ['switch', 'lan', 'gateway', 'vpc'] as const

/** A namespace of the outpost. */
export type Place = (typeof places)[number]

/** Addresses that are the same in every outpost, all from the ranges for documents but those of the VPC. */
export const addresses = {
  lan: '192.0.2.10',
  gateway: '192.0.2.1',
  lan6: '2001:db8:1::10',
  gateway6: '2001:db8:1::1',
  /** Beyond the gateway. */
  outside: '203.0.113.9',
  outside6: '2001:db8:9::9',
  vpc: '10.20.0.1',
  /** Of the instance metadata, in the VPC. */
  metadata: '169.254.169.254',
} as const

let made = 0

/** Made by `makeOutpost`; use `await using`, or call `close`. */
export class Outpost {
  readonly #name = `lab-${process.pid}-${made++}`
  readonly #servers: { readonly tool: Tool; readonly ended: Promise<unknown> }[] = []
  readonly #relays: Server[] = []
  readonly #spaces: string[] = []
  #folder = ''
  #ports = 0
  #counters = 0

  /** Makes the namespaces and starts the servers in them. */
  async open(): Promise<void> {
    this.#folder = await mkdtemp(join(tmpdir(), 'garrison-outpost-'))
    await removeAbandoned()
    for (const place of places) {
      await ip('netns', 'add', this.#space(place))
      this.#spaces.push(this.#space(place))
      await this.#ip(place, 'link', 'set', 'lo', 'up')
    }
    await this.#ip('switch', 'link', 'add', 'wire', 'type', 'bridge')
    await this.#ip('switch', 'link', 'set', 'wire', 'up')
    for (const place of ['lan', 'gateway'] as const) {
      const link = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', this.#space(place)]
      await this.#ip('switch', 'link', 'add', place, ...link)
      await this.#ip('switch', 'link', 'set', place, 'master', 'wire', 'up')
      await this.#ip(place, 'link', 'set', 'eth0', 'up')
      await this.#ip(place, 'address', 'add', `${addresses[place]}/24`, 'dev', 'eth0')
      await this.#ip(place, 'address', 'add', `${addresses[`${place}6`]}/64`, 'dev', 'eth0', 'nodad')
    }
    await this.#ip('vpc', 'link', 'add', 'eth0', 'type', 'bridge')
    await this.#ip('vpc', 'link', 'set', 'eth0', 'up')
    for (const one of [`${addresses.vpc}/24`, `${addresses.metadata}/32`])
      await this.#ip('vpc', 'address', 'add', one, 'dev', 'eth0')
    for (const one of [`${addresses.outside}/32`, `${addresses.outside6}/128`])
      await this.#ip('gateway', 'address', 'add', one, 'dev', 'lo')
    const forwarding = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']
    await this.run('gateway', ['/usr/sbin/sysctl', '-qw', ...forwarding])
    for (const via of [addresses.gateway, addresses.gateway6])
      await this.#ip('lan', 'route', 'add', 'default', 'via', via)
    await this.#nft('add table bridge wire')
    await this.#nft('add chain bridge wire arriving { type filter hook prerouting priority -300; }')
    for (const [place, range] of [
      ['gateway', '192.0.2.100,192.0.2.150'],
      ['vpc', '10.20.0.100,10.20.0.150'],
    ] as const)
      this.serve(place, [
        ...[
          '/usr/sbin/dnsmasq',
          '--keep-in-foreground',
          '--conf-file=/dev/null',
          '--no-hosts',
          '--no-resolv',
        ],
        ...['--user=root', '--interface=eth0', '--bind-interfaces', '--no-ping'],
        '--pid-file=',
        ...[`--dhcp-range=${range},3600`, `--dhcp-leasefile=${join(this.#folder, `${place}.leases`)}`],
        ...['--address=/outside.example/203.0.113.9'],
      ])
  }

  /** Runs argv in a place, to its end. Throws on another exit than 0 unless `allowFailure`. */
  run(place: Place, argv: readonly string[], options: { allowFailure?: boolean } = {}): Promise<Outcome> {
    return runTool([...this.#enter(place), ...argv], { deadlineMs: 60_000, ...options })
  }

  /** Starts a server in a place; it ends with the outpost. */
  serve(place: Place, argv: readonly string[]): Tool {
    const tool = startTool([...this.#enter(place), ...argv])
    this.#servers.push({ tool, ended: endOf(tool) })
    return tool
  }

  /** Leads who asks for an address and port in a place to a server of this process. */
  async lead(place: Place, address: string, port: number, endpoint: string): Promise<void> {
    const path = join(this.#folder, `${address}-${port}`)
    const { hostname: host, port: to } = new URL(endpoint)
    this.#relays.push(await relay({ path }, { host, port: Number(to) }))
    const script = join(import.meta.dirname, 'relay.ts')
    this.serve(place, [process.execPath, script, address, String(port), path])
  }

  /** Whether a host in a place gets an answer from an address within some seconds. */
  async reaches(place: Place, address: string): Promise<boolean> {
    const ping = ['/usr/bin/ping', '-n', '-c', '1', '-W', '2', address]
    for (let tries = 0; tries < 5; tries += 1)
      if ((await this.run(place, ping, { allowFailure: true })).exit === 0) return true
    return false
  }

  /** Lets the host on the LAN speak a VLAN, with these addresses in it, whatever its kernel knows of VLANs. */
  async speak(vlan: number, own: readonly string[]): Promise<void> {
    const script = join(import.meta.dirname, 'vlan-wire.py')
    const device = `eth0.${vlan}`
    await linesOf(this.serve('lan', ['/usr/bin/python3', script, 'eth0', String(vlan), device]))()
    for (const one of own) await this.#ip('lan', 'address', 'add', one, 'dev', device)
  }

  /** Counts the frames that come to the switch from a port and that are as nft says, also those that it drops; answers with what tells how many so far. */
  async counter({ device }: Port, match: string): Promise<() => Promise<number>> {
    const name = `counter${this.#counters++}`
    await this.#nft(`add counter bridge wire ${name}`)
    await this.#nft(`insert rule bridge wire arriving iifname "${device}" ${match} counter name ${name}`)
    return async () => {
      const { stdout } = await this.#nft(`list counter bridge wire ${name}`)
      return Number(/packets (\d+)/.exec(stdout)?.[1])
    }
  }

  /**
   * A port for a guest. On the LAN it is an LNI's unless it is `open`: the switch drops what does not come from its MAC, and general
   * broadcast but ARP and DHCP (Outposts server, 'Local network interfaces').
   */
  port(side: 'lan' | 'vpc', mac: string, { open = false } = {}): Port {
    const device = `lab${process.pid}-${made}${this.#ports++}`
    const [place, bridge] = side === 'lan' ? (['switch', 'wire'] as const) : (['vpc', 'eth0'] as const)
    let secured = open || side === 'vpc'
    return {
      mac,
      device,
      make: async () => {
        await this.#ip(place, 'link', 'delete', device).catch(async (error: Error) => {
          if (!/Cannot find device/.test(error.message)) throw error
        })
        await ip('tuntap', 'add', 'dev', device, 'mode', 'tap')
      },
      connect: async () => {
        await ip('link', 'set', device, 'netns', this.#space(place))
        await this.#ip(place, 'link', 'set', device, 'master', bridge, 'up')
        if (secured) return
        secured = true
        const from = `add rule bridge wire arriving iifname "${device}"`
        await this.#nft(`${from} ether saddr != ${mac} counter drop`)
        const broadcast = 'ether daddr ff:ff:ff:ff:ff:ff ether type != arp udp dport != 67'
        await this.#nft(`${from} ${broadcast} counter drop`)
      },
    }
  }

  /** Plugs the cable of a port out of the switch, or in again. */
  async cable({ device }: Port, plugged: boolean): Promise<void> {
    await this.#ip('switch', 'link', 'set', device, plugged ? 'up' : 'down')
  }

  /** Ends the servers and removes the namespaces with all that is in them. */
  async close(): Promise<void> {
    for (const { tool, ended } of this.#servers) {
      tool.kill('SIGKILL')
      await ended
    }
    for (const server of this.#relays) server.close()
    for (const space of this.#spaces) await ip('netns', 'delete', space)
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** Same as `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #space(place: Place): string {
    return `${this.#name}-${place}`
  }

  #enter(place: Place): string[] {
    return ['/usr/sbin/ip', 'netns', 'exec', this.#space(place)]
  }

  #ip(place: Place, ...argv: string[]): Promise<Outcome> {
    return ip('-n', this.#space(place), ...argv)
  }

  #nft(command: string): Promise<Outcome> {
    return this.run('switch', ['/usr/sbin/nft', command])
  }
}

const ip = (...argv: string[]): Promise<Outcome> => runTool(['/usr/sbin/ip', ...argv])

/** Removes the namespaces of outposts whose process was killed before it could. */
async function removeAbandoned(): Promise<void> {
  const { stdout } = await ip('netns', 'list')
  for (const [name, pid] of stdout.matchAll(/^lab-(\d+)-\d+-\w+/gm)) {
    if (!existsSync(`/proc/${pid}`)) await ip('netns', 'delete', name)
  }
}

/** Makes an outpost without a server in it. */
export async function makeOutpost(): Promise<Outpost> {
  const outpost = new Outpost()
  try {
    await outpost.open()
  } catch (error) {
    await outpost.close()
    throw error
  }
  return outpost
}
