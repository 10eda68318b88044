// What a fleet costs one of its hosts: CPU, memory and bytes with many peers; a peer that does not read in a flood of events; everyone
// coming back at once; and (soak) many connections one after the other.
//
//   node test/bench/fleet.ts [PEERS] [SECONDS]         200 hosts, 60 seconds of rest
//   node test/bench/fleet.ts soak [CONNECTIONS]        10 000

import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { Address } from '../../agent/peers/address.ts'
import { makeRequest, signHost, usualLifetimes } from '../../agent/peers/authority.ts'
import { connectTo } from '../../agent/peers/dial.ts'
import { FleetFolder } from '../../agent/peers/folder.ts'
import { Keyring, readCredentials } from '../../agent/peers/keyring.ts'
import { socketOptions } from '../../agent/peers/link.ts'
import { type Dialled, Mesh } from '../../agent/peers/mesh.ts'
import { usualPace } from '../../agent/peers/pace.ts'
import { type FleetHost, FleetWorld, until } from '../contract/fleet-world.ts'

const [first = '200', second] = process.argv.slice(2)
const isSoak = first === 'soak'
const peerCount = isSoak ? 20 : Number(first) - 1
const clock = { epochMs: Date.now, steadyMs: () => performance.now() }
const log = { info: () => {}, error: (what: object, text: string) => console.error(text, what) }
const root = mkdtempSync(join(tmpdir(), 'garrison-fleet-'))
const world = new FleetWorld(root, { pace: usualPace })
const port = 17_443
const nowTickMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** A report as a host with twenty VMs makes one, and how it differs every ten seconds. */
function reportOf(host: string, round: number) {
  const vms = Array.from({ length: 20 }, (_, at) => ({
    ...{ uuid: `${host}-${at}`.padEnd(36, '0'), name: `vm-${at}`, power: 'running', vcpus: 4 },
    ...{ memoryBytes: 8 * 2 ** 30, cpuPercent: at < 6 ? (round * 7 + at) % 100 : 3, drives: ['vda', 'vdb'] },
    ...{ nics: [{ name: `vnet${at}`, receivedBytes: at < 6 ? round * 1000 : 0 }], since: 1_795_000_000_000 },
  }))
  const findings = Array.from({ length: 5 }, (_, at) => ({
    ...{ code: `array.finding-${at}`, severity: 'warning', since: 1_795_000_000_000 },
    text: 'A sentence that says what is so, and what a person would want to know of it at night.',
  }))
  const parts = Array.from({ length: 60 }, (_, at) => [`part-${at}`, at < 12 ? round * 3 + at : at * 1000])
  return { schema: 'garrison/report/1', host, health: 'ok', vms, findings, values: Object.fromEntries(parts) }
}

/** A peer that has keys and a mesh, and dials one host from an address of its own. */
class Peer {
  readonly mesh: Mesh
  readonly name: string
  /** When events and reports came here, on the steady clock of the machine. */
  readonly heard: { readonly time: number; readonly tickMs: number; readonly sentMs: number }[] = []
  missed = 0
  latest = -1
  socket: WebSocket | null = null
  round = 0

  constructor(name: string, at: number, keyring: Keyring) {
    this.name = name
    this.mesh = new Mesh({
      self: () => keyring.credentials.identity,
      // Nobody dials it: only what one host bears is measured.
      addresses: () => [],
      issues: () => false,
      dial: (host, addresses) =>
        this.#dial(keyring, host, addresses, `127.0.${1 + (at >> 7)}.${1 + (at & 127)}`),
      revocations: keyring,
      ...{ clock, log, pace: usualPace },
    })
    this.mesh.listen((event) => {
      if (event.what === 'report') this.latest = event.generation
      if (event.what !== 'event') return
      const { time, tickMs } = event.event as { readonly time: number; readonly tickMs: number }
      this.missed += event.missed
      this.heard.push({ time, tickMs: nowTickMs(), sentMs: tickMs })
    })
  }

  async #dial(
    keyring: Keyring,
    host: string,
    [address]: readonly Address[],
    localAddress: string,
  ): Promise<Dialled> {
    if (address === undefined || host !== 'h000') throw new Error('that one is not asked')
    const tls = { ...keyring.credentials.tls, servername: host, minVersion: 'TLSv1.3', localAddress } as const
    const raw = await connectTo(
      address,
      { ...tls, checkServerIdentity: () => undefined },
      AbortSignal.timeout(20_000),
    )
    const socket = new WebSocket(`ws://${host}/v1/mesh`, { ...socketOptions, createConnection: () => raw })
    const { promise, resolve, reject } = Promise.withResolvers<Dialled>()
    socket.once('error', reject)
    socket.once('open', () => {
      socket.off('error', reject)
      socket.pause()
      this.socket = socket
      resolve({ socket, peer: keyring.peerOf(raw), address })
    })
    return promise
  }

  isLinked = (): boolean => this.mesh.hosts().some(({ host, link }) => host === 'h000' && link !== null)

  publish(): void {
    this.round += 1
    this.mesh.publish(this.round, Date.now(), reportOf(this.name, this.round))
  }
}

async function makePeers(): Promise<readonly Peer[]> {
  const issuing = world.folder('h000')
  const issuer = await issuing.readIssuer()
  const authority = await issuing.readAuthority()
  const own = await readCredentials(issuing)
  if (issuer === null || authority === null || own === null) throw new Error('the fleet was not begun')
  const peers: Peer[] = []
  for (let at = 1; at <= peerCount; at += 1) {
    const host = `h${String(at).padStart(3, '0')}`
    const { key, request } = await makeRequest(host)
    const identity = {
      ...{ fleet: own.identity.fleet, role: 'read' as const, host },
      enrolment: randomBytes(8).toString('hex'),
    }
    const chain = await signHost(issuer, request, identity, usualLifetimes.hostMs, Date.now())
    const folder = new FleetFolder(join(root, host))
    await folder.enter()
    await folder.writeHostKey({ key, chain: chain + issuer.certificate })
    await folder.writeAuthority(authority)
    const credentials = await readCredentials(folder)
    if (credentials === null) throw new Error('no keys')
    const peer = new Peer(host, at, new Keyring(folder, credentials, Date.now))
    peers.push(peer)
  }
  return peers
}

interface Use {
  readonly rssBytes: number
  readonly cpu: { readonly user: number; readonly system: number }
}
const useOf = (host: FleetHost) => host.ask<Use>({ do: 'memory' })
const cpuMs = ({ cpu }: Use): number => (cpu.user + cpu.system) / 1000
const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
const tell = (what: string, ...found: readonly string[]) =>
  console.log(`${what.padEnd(26)} ${found.join('; ')}`)
const quantile = (numbers: readonly number[], share: number): number =>
  numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * share))] ??
  Number.NaN
const begin = () =>
  world.start('h000', { desired: { port, listen: '127.0.0.1', peers: {} }, pace: usualPace })
const dialAll = (peers: readonly Peer[]) => {
  for (const { mesh } of peers) mesh.list({ h000: [{ over: 'lo', host: '127.0.0.1', port }] })
}
const linkedOf = (peers: readonly Peer[]): number => peers.filter((peer) => peer.isLinked()).length

async function trafficOf(host: FleetHost): Promise<number> {
  const links = (await host.hosts()).flatMap(({ link }) => link ?? [])
  return links.reduce((sum, { sentBytes, receivedBytes }) => sum + sentBytes + receivedBytes, 0)
}

/** The time that it takes until every peer is linked. */
async function allLinked(peers: readonly Peer[], fromMs: number): Promise<string> {
  const at: number[] = []
  await until(
    'all are linked',
    () => {
      const linked = linkedOf(peers)
      while (at.length < linked) at.push(performance.now() - fromMs)
      return linked === peers.length
    },
    180_000,
  )
  return `half after ${(quantile(at, 0.5) / 1000).toFixed(1)} s, all after ${((at.at(-1) ?? 0) / 1000).toFixed(1)} s`
}

async function bench(peers: readonly Peer[]): Promise<void> {
  const restMs = Number(second ?? 60) * 1000
  let host = await begin()
  await sleep(1000)
  const alone = await useOf(host)
  tell('alone', mb(alone.rssBytes))
  const begunMs = performance.now()
  dialAll(peers)
  const joined = await allLinked(peers, begunMs)
  tell(`${peers.length} peers come`, joined, `${(cpuMs(await useOf(host)) - cpuMs(alone)).toFixed(0)} ms CPU`)
  await host.publish(1, reportOf('h000', 1))
  let generation = 1
  for (const peer of peers) peer.publish()
  await sleep(5000)

  const before = await useOf(host)
  const bytesBefore = await trafficOf(host)
  const fromMs = performance.now()
  const rounds = restMs / 10_000
  for (let round = 0; round < rounds; round += 1) {
    generation += 1
    await host.publish(generation, reportOf('h000', generation))
    for (const peer of peers) {
      peer.publish()
      await sleep(10_000 / (peers.length + 1))
    }
  }
  const minutes = (performance.now() - fromMs) / 60_000
  const after = await useOf(host)
  const bytes = (await trafficOf(host)) - bytesBefore
  tell(
    'a report each 10 s',
    `${((cpuMs(after) - cpuMs(before)) / minutes).toFixed(0)} ms CPU a minute (${((cpuMs(after) - cpuMs(before)) / minutes / 600).toFixed(2)} %)`,
    mb(after.rssBytes),
    `${mb(bytes / minutes)} a minute, both ways, all peers`,
    `a whole report is ${JSON.stringify(reportOf('h000', 1)).length} bytes`,
  )

  for (let time = 0; time < 100; time += 1) {
    await host.ask({ do: 'tell', event: { kind: 'lifecycle' } })
    await sleep(20)
  }
  await sleep(500)
  const late = peers.flatMap(({ heard }) => heard.map(({ tickMs, sentMs }) => tickMs - sentMs))
  tell(
    `an event to ${peers.length} peers`,
    `p50 ${quantile(late, 0.5).toFixed(1)} ms`,
    `p99 ${quantile(late, 0.99).toFixed(1)} ms`,
    `${late.length} of ${100 * peers.length} came`,
  )
  const one = peers[1]?.heard.map(({ tickMs, sentMs }) => tickMs - sentMs) ?? []
  tell(
    '  of them to one peer',
    `p50 ${quantile(one, 0.5).toFixed(1)} ms`,
    `p99 ${quantile(one, 0.99).toFixed(1)} ms`,
  )

  const stalled = peers[0]
  for (const peer of peers) peer.heard.length = 0
  stalled?.socket?.pause()
  await sleep(6000)
  const floodMs = performance.now()
  const flooded = host.ask({ do: 'tell', event: { kind: 'flood', text: 'x'.repeat(500) }, times: 10_000 })
  let peakBytes = 0
  await flooded
  generation += 1
  await host.publish(generation, reportOf('h000', generation))
  const others = peers.slice(1)
  await until(
    'the report has come to all others',
    () => others.every(({ latest }) => latest === generation),
    60_000,
  )
  const throughMs = performance.now() - floodMs
  peakBytes = Math.max(peakBytes, (await useOf(host)).rssBytes)
  await until('the one that does not read is cut off', async () => !(await host.known('h001'))?.link, 60_000)
  const cutMs = performance.now() - floodMs
  await host.ask({ do: 'tell', event: { kind: 'after' } })
  await sleep(1000)
  const counts = others.map(({ heard, missed }) => heard.length + missed)
  tell(
    'flood of 10 000, 1 stalled',
    `a report made after it is with the ${others.length} others ${(throughMs / 1000).toFixed(1)} s after its begin`,
    `told ${Math.min(...others.map(({ heard }) => heard.length))} to each, the rest counted: ${Math.min(...counts)} to ${Math.max(...counts)} of 10 001`,
    `the stalled one cut off after ${(cutMs / 1000).toFixed(1)} s`,
    mb(peakBytes),
  )
  tell('  the others', `${linkedOf(others)} of ${others.length} linked all the time`)
  stalled?.socket?.resume()

  host.kill('SIGKILL')
  await until('all have lost it', () => linkedOf(peers) === 0, 60_000)
  await sleep(20_000)
  host = await begin()
  const againMs = performance.now()
  const fresh = await useOf(host)
  const again = await allLinked(peers, againMs)
  tell(
    'back after 20 s away',
    again,
    `${(cpuMs(await useOf(host)) - cpuMs(fresh)).toFixed(0)} ms CPU for all of it`,
  )
}

async function soak(peers: readonly Peer[]): Promise<void> {
  const most = Number(second ?? 10_000)
  const host = await begin()
  await host.publish(1, reportOf('h000', 1))
  const pid = host.child.pid ?? 0
  const handles = () => readdirSync(`/proc/${pid}/fd`).length
  let done = 0
  const grain = Math.max(1, Math.floor(most / 10))
  const address = [{ over: 'lo', host: '127.0.0.1', port }] as const
  dialAll(peers)
  const turn = async (peer: Peer) => {
    while (done < most) {
      await until('linked', () => peer.isLinked(), 180_000)
      done += 1
      if (done % grain === 0) {
        const { rssBytes } = await useOf(host)
        tell(`${done} connections`, mb(rssBytes), `${handles()} file descriptors`)
      }
      const gone = peer.socket
      // By turns as one who leaves, as one who is gone, and as one who dials anew while a link stands.
      if (done % 3 === 0) gone?.close(1001)
      else if (done % 3 === 1) gone?.terminate()
      else peer.mesh.renewed()
      await until('a new one', () => peer.socket !== gone, 180_000)
      peer.mesh.list({ h000: address })
    }
  }
  await Promise.all(peers.map(turn))
  for (const { mesh } of peers) mesh.close()
  await sleep(3000)
  const { rssBytes } = await useOf(host)
  tell('all gone', mb(rssBytes), `${handles()} file descriptors`)
}

await world.begin('h000')
const peers = await makePeers()
try {
  await (isSoak ? soak(peers) : bench(peers))
} finally {
  for (const { mesh } of peers) mesh.close()
  await world.end()
  rmSync(root, { recursive: true })
}
