// Measures what a network lets pass, by ip and ping (iputils) and DHCP's first question: it runs in a network namespace of its own.
//
// INVARIANTS
// - Interfaces that it makes are born in its own namespace, so that they go with this process, however it ends.
// - The interface that is measured keeps its addresses, routes and link; one more address on it has a lifetime that the kernel ends.

import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import { leastMtu } from '../../provisioning/link/address.ts'
import { type DhcpAnswer, oddnessOfAll, parseDhcpAnswer } from '../../provisioning/link/dhcp.ts'
import { ipNeighbours, type Neighbour, parseNeighbours } from '../../provisioning/link/ip.ts'
import type { ProbeRecord } from '../../provisioning/link/probe.ts'
import { type Argv, type Execution, execute, lastLines } from './exec.ts'

/** What is to be measured. `host` is the network namespace of the host, as a path. */
export interface ProbeTask extends Pick<ProbeRecord, 'device' | 'mac' | 'mtu' | 'gateway' | 'dns'> {
  readonly host: string
  /** The interface has its address from a DHCP server. */
  readonly leased: boolean
  /** An address that nobody has, to be tried as a second one. */
  readonly address: string | null
  /** Nothing is sent with another MAC. */
  readonly ownMac: boolean
  /** `used` is the interface that the host has for a VLAN already: the kernel makes no second one, in no namespace. */
  readonly vlans: readonly {
    readonly id: number
    readonly gateway: string | null
    readonly used: { readonly device: string; readonly leased: boolean } | null
  }[]
}

type Answers = ProbeRecord['arp']

const tries = 3
const headerBytes = 28

const run = (argv: Argv): Promise<Execution> => execute(argv, { deadlineMs: 10_000, keep: 'all' })
const ip = (...args: readonly string[]): Argv => ['/usr/sbin/ip', ...args]
const echo = (device: string, to: string, ...more: readonly string[]): Argv => [
  ...(['/usr/bin/ping', '-n', '-q', '-c', '1', '-W', '1', '-I', device] as const),
  ...[...more, '--', to],
]

const known = (stdout: string, device: string, address: string): Neighbour | undefined =>
  parseNeighbours(stdout).find((one) => one.device === device && one.address === address)

/** A router that asks for somebody is known by its MAC too; reachable is one that has answered the question of the kernel itself. */
const hasAnswered = (stdout: string, device: string, address: string): boolean =>
  known(stdout, device, address)?.conditions.includes('REACHABLE') ?? false

/** The first question of DHCP (RFC 2131), with the answer asked for as a broadcast. */
function discover(xid: Buffer, mac: string): Buffer {
  const packet = Buffer.alloc(300)
  packet.set([1, 1, 6, 0], 0)
  packet.set(xid, 4)
  packet.writeUInt16BE(0x8000, 10)
  packet.set(Buffer.from(mac.replaceAll(':', ''), 'hex'), 28)
  packet.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 2, 1, 3, 255], 236)
  return packet
}

const othersMs = 500
const mostAnswers = 16

/** What DHCP servers answer to a MAC, the first and who answers within half a second after it; nothing is asked for after it. */
async function answersTo(mac: string): Promise<readonly DhcpAnswer[]> {
  const xid = randomBytes(4)
  const socket = createSocket('udp4')
  const answers: DhcpAnswer[] = []
  const { promise, resolve, reject } = Promise.withResolvers<boolean>()
  socket.on('error', reject)
  socket.on('message', (packet) => {
    const answer = answers.length < mostAnswers ? parseDhcpAnswer(packet, xid) : null
    if (answer === null) return
    answers.push(answer)
    resolve(true)
  })
  try {
    await new Promise<void>((bound) => socket.bind(68, '0.0.0.0', bound))
    socket.setBroadcast(true)
    for (let sent = 0; sent < tries && answers.length === 0; sent += 1) {
      socket.send(discover(xid, mac), 67, '255.255.255.255')
      if (await Promise.race([promise, sleep(2000, false)])) await sleep(othersMs)
    }
    return answers
  } finally {
    socket.close()
  }
}

/** Measures. What cannot be is `unknown`, with a note why. */
export async function measure(task: ProbeTask, atMs: number): Promise<ProbeRecord> {
  const { device, mac, mtu, gateway, address, host } = task
  const notes: string[] = []
  const onHost = (argv: Argv): Promise<Execution> => run(['/usr/bin/nsenter', `--net=${host}`, '--', ...argv])

  /** Tries a few times, since one frame may be lost. */
  const anyOf = async (attempt: () => Promise<boolean>, most = tries): Promise<boolean> => {
    for (let tried = 0; tried < most; tried += 1) if (await attempt()) return true
    return false
  }

  /** Asks from the host's own interface. What is known of an address afterwards was said afterwards. */
  async function asksOnHost(
    from: string,
    to: string,
  ): Promise<{ readonly arp: boolean; readonly ping: boolean }> {
    await onHost(ip('neighbour', 'flush', 'to', to, 'dev', from))
    const { exit } = await onHost(echo(from, to))
    return { arp: hasAnswered((await onHost(ipNeighbours())).stdout, from, to), ping: exit === 0 }
  }

  async function control(): Promise<{ readonly arp: Answers; readonly ping: Answers }> {
    if (gateway === null) return { arp: 'unknown', ping: 'unknown' }
    let arp: Answers = 'silent'
    const ping = await anyOf(async () => {
      const said = await asksOnHost(device, gateway)
      if (said.arp) arp = 'answers'
      return said.ping
    })
    return { arp: ping ? 'answers' : arp, ping: ping ? 'answers' : 'silent' }
  }

  /** An interface on the measured one, in this namespace; what is asked over it, and null when it cannot be made. */
  async function over<Answer>(
    name: string,
    kind: readonly string[],
    ask: () => Promise<Answer>,
  ): Promise<Answer | null> {
    const made = await onHost(
      ip('link', 'add', 'link', device, 'name', name, 'netns', `${process.pid}`, ...kind),
    )
    if (made.exit !== 0) {
      notes.push(`${kind.join(' ')}: ${lastLines(made.stderr, 1)}`)
      return null
    }
    try {
      await run(ip('link', 'set', 'dev', name, 'addrgenmode', 'none'))
      await run(ip('link', 'set', 'dev', name, 'up'))
      await run(ip('route', 'add', 'default', 'dev', name))
      return await ask()
    } finally {
      await run(ip('link', 'delete', 'dev', name))
    }
  }

  /** Without an address the kernel asks as RFC 5227 does for an address that it would like to have, and teaches nobody. */
  const asks = (name: string, to: string): Promise<boolean> =>
    anyOf(async () => {
      await run(echo(name, to))
      return hasAnswered((await run(ipNeighbours())).stdout, name, to)
    })

  async function second(arp: Answers): Promise<Pick<ProbeRecord, 'secondMac' | 'dhcp' | 'dhcpBy' | 'odd'>> {
    const lease = task.leased ? ({ dhcp: 'answers', dhcpBy: 'lease' } as const) : null
    const nothing = {
      ...{ secondMac: 'unknown', odd: [] },
      ...(lease ?? { dhcp: 'unknown', dhcpBy: null }),
    } satisfies Awaited<ReturnType<typeof second>>
    if (task.ownMac) {
      notes.push('second MAC: not tried, as was asked for')
      return nothing
    }
    const other = ['02', ...(randomBytes(5).toString('hex').match(/../g) ?? [])].join(':')
    const seen = await over('second', ['address', other, 'type', 'macvlan', 'mode', 'private'], async () => ({
      gateway: gateway !== null && (await asks('second', gateway)),
      answers: await answersTo(other),
    }))
    if (seen === null) return nothing
    const isOffered = seen.answers.some(({ kind }) => kind === 'offer')
    if (seen.gateway || seen.answers.length > 0)
      return {
        secondMac: 'passes',
        odd: [...oddnessOfAll(seen.answers)],
        ...(lease ?? (isOffered ? { dhcp: 'answers', dhcpBy: 'offer' } : { dhcp: 'silent', dhcpBy: null })),
      }
    return arp === 'answers' ? { ...nothing, secondMac: 'dropped' } : nothing
  }

  async function secondAddress(ping: Answers): Promise<ProbeRecord['secondAddress']> {
    if (address === null || gateway === null) return 'unknown'
    const taken =
      (await anyOf(async () => (await onHost(echo(device, address))).exit === 0)) ||
      typeof known((await onHost(ipNeighbours())).stdout, device, address)?.mac === 'string'
    if (taken) {
      notes.push(`second address: ${address} is another host's`)
      return 'unknown'
    }
    const cidr = `${address}/32`
    const lifetime = ['valid_lft', '30', 'preferred_lft', '0']
    const added = await onHost(ip('address', 'add', cidr, 'dev', device, ...lifetime))
    if (added.exit !== 0) {
      notes.push(`second address: ${lastLines(added.stderr, 1)}`)
      return 'unknown'
    }
    const passes = await anyOf(async () => (await onHost(echo(address, gateway))).exit === 0)
    await onHost(ip('address', 'delete', cidr, 'dev', device))
    if (passes) return 'passes'
    return ping === 'answers' ? 'dropped' : 'unknown'
  }

  async function pathMtu(ping: Answers): Promise<number | null> {
    if (gateway === null || ping !== 'answers') return null
    const fits = (bytes: number): Promise<boolean> =>
      anyOf(async () => {
        const size = ['-M', 'do', '-s', `${bytes - headerBytes}`]
        return (await onHost(echo(device, gateway, ...size))).exit === 0
      }, 2)
    if (await fits(mtu)) return mtu
    if (!(await fits(leastMtu))) return null
    let [fitting, tooLarge] = [leastMtu, mtu]
    while (tooLarge - fitting > 1) {
      const middle = Math.floor((fitting + tooLarge) / 2)
      if (await fits(middle)) fitting = middle
      else tooLarge = middle
    }
    return fitting
  }

  // With it comes the table of local addresses, without which the kernel takes every address for a broadcast and asks nobody.
  await run(ip('link', 'set', 'dev', 'lo', 'up'))
  const { arp, ping } = await control()
  if (gateway === null) notes.push('no gateway of this interface is known, and by one most is measured')
  const macs = await second(arp)
  const vlans: ProbeRecord['vlans'] = []
  for (const { id, gateway: router, used } of task.vlans) {
    const heard =
      used === null
        ? await over(
            `vlan${id}`,
            ['type', 'vlan', 'id', `${id}`],
            async () =>
              (router !== null && (await asks(`vlan${id}`, router))) || (await answersTo(mac)).length > 0,
          )
        : used.leased ||
          (router === null ? null : await anyOf(async () => (await asksOnHost(used.device, router)).arp))
    if (used !== null && heard === null)
      notes.push(`VLAN ${id}: ${used.device} of this host is in it, and no router is known to be asked there`)
    vlans.push({ id, answers: heard === null ? 'unknown' : heard ? 'answers' : 'silent' })
  }
  return {
    ...{ atMs, device, mac, gateway, arp, ping, ...macs },
    secondAddress: await secondAddress(ping),
    pathMtu: await pathMtu(ping),
    ...{ mtu, vlans, dns: task.dns, notes },
  }
}
