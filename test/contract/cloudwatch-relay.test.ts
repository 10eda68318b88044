// Batches of a host whose link to the Region is down, sent by peers of its fleet: real processes, moto behind a layer that fails, a link
// that is cut, and kills of either side at every moment. Each datapoint once. GARRISON_LAB_FULL=1: 120 kills instead of 9.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Role } from '../../agent/peers/trust.ts'
import type { CloudWatchOverview } from '../../agent/report/cloudwatch.ts'
import type { MetricName } from '../../provisioning/metrics.ts'
import { seeded } from '../unit/simulated-host.ts'
import { type CloudWatchFront, type Fault, startCloudWatchFront } from './cloudwatch-front.ts'
import type { CloudWatchHostOptions } from './cloudwatch-host.ts'
import { FleetWorld, until } from './fleet-world.ts'
import { freePort, startMoto } from './moto.ts'

t.setTimeout(1_800_000)

const full = process.env.GARRISON_LAB_FULL === '1'
const begin = Date.UTC(2026, 10, 21, 12)
/** A second here is forty there: what is signed is taken for five minutes, and a busy machine is slow to ask a peer. */
const speed = 40
const program = join(import.meta.dirname, 'cloudwatch-host.ts')

/** The way from a host to the Region: cut, nobody listens. */
class ServiceLink {
  readonly port: number
  readonly #to: number
  readonly #sockets = new Set<Socket>()
  #server: Server | null = null

  constructor(port: number, to: number) {
    this.port = port
    this.#to = to
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async mend(): Promise<void> {
    if (this.#server !== null) return
    this.#server = createServer((near) => {
      const far = connect(this.#to, '127.0.0.1')
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one)
        one.pipe(other)
        one.once('close', () => {
          this.#sockets.delete(one)
          other.destroy()
        })
        // Its close follows.
        one.on('error', () => one.destroy())
      }
    })
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async cut(): Promise<void> {
    const server = this.#server
    this.#server = null
    if (server === null) return
    server.close()
    for (const socket of this.#sockets) socket.destroy()
    await once(server, 'close')
  }
}

interface Said extends Pick<CloudWatchOverview, 'relayed' | 'relayedFor' | 'metrics'> {
  readonly findings: readonly string[]
  readonly linked: readonly string[]
}

type Tallies = Map<string, number>

/** A host: its keys and spool, and the process that is there now. */
class Host {
  readonly options: Omit<CloudWatchHostOptions, 'measures'>
  readonly endpoint: string
  readonly metric: MetricName
  /** Values by series and minute that were begun to be taken in, and that are on the disk. */
  readonly begun: Tallies = new Map()
  readonly done: Tallies = new Map()
  said: Said | null = null
  child: ChildProcess | null = null

  constructor(options: Host['options'], endpoint: string, metric: MetricName) {
    this.options = options
    this.endpoint = endpoint
    this.metric = metric
  }

  async start(isMeasuring = true): Promise<ChildProcess> {
    const options: CloudWatchHostOptions = { ...this.options, measures: isMeasuring ? this.metric : null }
    const child = spawn(process.execPath, [program, JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        ...process.env,
        AWS_ENDPOINT_URL: this.endpoint,
        ...{ AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
        ...{ AWS_CONFIG_FILE: '/dev/null', AWS_SHARED_CREDENTIALS_FILE: '/dev/null' },
      },
    })
    this.child = child
    this.said = null
    const ready = Promise.withResolvers<void>()
    child.once('exit', () => ready.resolve())
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [what = '', minute] = line.split(' ')
      const into = { begun: this.begun, done: this.done }[what]
      if (what === 'ready') ready.resolve()
      else if (what === 'said' && this.child === child) this.said = JSON.parse(line.slice(5))
      else if (into) into.set(`${this.metric} ${minute}`, (into.get(`${this.metric} ${minute}`) ?? 0) + 1)
    })
    await ready.promise
    return child
  }

  async kill(): Promise<void> {
    const { child } = this
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
}

const moto = await startMoto()
t.teardown(() => moto.stop())

/** A fleet of which h05 and h06 reach the Region and offer to send for others, and h07 has a link that can be cut. */
class World {
  readonly hosts: Readonly<Record<'h05' | 'h06' | 'h07', Host>>
  readonly front: CloudWatchFront
  readonly link: ServiceLink

  private constructor(hosts: World['hosts'], front: CloudWatchFront, link: ServiceLink) {
    this.hosts = hosts
    this.front = front
    this.link = link
  }

  static async make(t: Test, { role = 'operate' as Role, into = 'Garrison' } = {}): Promise<World> {
    await fetch(`${moto.endpoint}/moto-api/reset`, { method: 'POST' })
    const front = await startCloudWatchFront(moto.endpoint, 5300)
    const realMs = Date.now()
    front.now = () => begin + (Date.now() - realMs) * speed
    const link = new ServiceLink(await freePort(), Number(new URL(front.endpoint).port))
    const root = t.testdir()
    const fleet = new FleetWorld(join(root, 'keys'))
    await fleet.begin('h05')
    const issuer = await fleet.start('h05')
    await fleet.join('h06', issuer, 'operate')
    await fleet.join('h07', issuer, role)
    await issuer.leave()
    const ports = { h05: await freePort(), h06: await freePort(), h07: await freePort() }
    const peers = Object.fromEntries(
      Object.entries(ports).map(([name, port]) => [name, { lo: `127.0.0.1:${port}` }]),
    )
    const host = (name: keyof typeof ports, metric: MetricName, endpoint: string, settings: object) => {
      const folder = join(root, name)
      mkdirSync(folder)
      const { [name]: own, ...others } = peers
      const desired = { port: ports[name], listen: '127.0.0.1', addresses: own, peers: others }
      const stopFile = join(folder, 'stop')
      return new Host(
        {
          ...{ name, folder, desired, settings, realMs, begin, speed, stopFile },
          keys: join(root, 'keys', name),
        },
        endpoint,
        metric,
      )
    }
    const offer = (metric: MetricName) => ({ metrics: [metric], relay: { offer: true } })
    const hosts = {
      h05: host('h05', 'memory.used', front.endpoint, offer('memory.used')),
      h06: host('h06', 'load.one', front.endpoint, offer('load.one')),
      h07: host('h07', 'cpu.busy', link.endpoint, {
        ...{ metrics: ['cpu.busy'], relay: { ask: true }, namespace: into },
      }),
    }
    t.teardown(async () => {
      for (const one of Object.values(hosts)) await one.kill()
      await link.cut()
      await front.close()
    })
    return new World(hosts, front, link)
  }

  all = (): readonly Host[] => Object.values(this.hosts)

  /** Lets each host send what waits, and says what is wrong with what has arrived. */
  async settled(): Promise<readonly string[]> {
    this.front.fault = () => null
    this.front.onPut = () => undefined
    await this.link.mend()
    for (const host of this.all()) {
      await host.kill()
      const child = await host.start(false)
      if (child.exitCode === null) await once(child, 'exit')
    }
    const begun = new Map(this.all().flatMap((host) => [...host.begun]))
    const done = new Map(this.all().flatMap((host) => [...host.done]))
    const wrong: string[] = []
    for (const [key, count] of begun) {
      const { count: got = 0, requests = 0 } = this.front.arrived.get(key) ?? {}
      // A value that was just being written when the process was killed may be on the disk or not.
      if (got < (done.get(key) ?? 0) || got > count || requests > 1)
        wrong.push(`${key}: ${got} in ${requests} requests, written ${done.get(key)}, measured ${count}`)
    }
    for (const key of this.front.arrived.keys()) if (!begun.has(key)) wrong.push(`${key}: never measured`)
    return wrong.slice(0, 5)
  }

  /** How many spans of a series have arrived. */
  arrived(metric: MetricName): number {
    return [...this.front.arrived.keys()].filter((key) => key.startsWith(metric)).length
  }
}

t.test('cut from the Region it is told by a peer, and by itself when the link is back', async (t) => {
  const world = await World.make(t)
  const { h05, h07 } = world.hosts
  await world.link.mend()
  for (const host of world.all()) await host.start()
  await until('its own way carries it', () => world.arrived('cpu.busy') > 2, 180_000)
  t.equal(h07.said?.relayed, null)
  await world.link.cut()
  await until('a peer sends', () => h07.said?.relayed != null, 180_000)
  const before = world.arrived('cpu.busy')
  await until('it goes on', () => world.arrived('cpu.busy') > before + 3, 180_000)
  await until('it is a finding', () => h07.said?.findings.includes('cloudwatch.relayed') === true, 180_000)
  t.notOk(h07.said?.findings.includes('cloudwatch.silent'))
  const { by } = h07.said?.relayed ?? {}
  const sender = by === 'h05' ? h05 : world.hosts.h06
  t.match(sender.said?.relayedFor, { h07: { requests: Number } }, 'the peer tells of it')
  await world.link.mend()
  await until(
    'it goes by itself again',
    () => h07.said?.relayed === null && h07.said.findings.length === 0,
    60_000,
  )
  t.same(await world.settled(), [])
})

t.test('an acknowledgement that is lost is asked for through another peer', async (t) => {
  const world = await World.make(t)
  const { h05, h06, h07 } = world.hosts
  for (const host of world.all()) await host.start()
  await until('a peer sends', () => h07.said?.relayed != null, 180_000)
  const sender = h07.said?.relayed?.by === 'h05' ? h05 : h06
  let isKilled = false
  world.front.onPut = (at, series) => {
    if (at !== 'performed' || isKilled || !series.startsWith('cpu.busy')) return
    isKilled = true
    sender.child?.kill('SIGKILL')
  }
  await until('CloudWatch took it and the peer told nobody', () => isKilled, 180_000)
  const other = sender === h05 ? 'h06' : 'h05'
  await until('another sends', () => h07.said?.relayed?.by === other, 180_000)
  await until('CloudWatch has told that it is there', () => h07.said?.metrics.doubtful === 0, 180_000)
  t.same(await world.settled(), [])
})

t.test('what a peer still held when it was stopped is taken by nobody later', async (t) => {
  const world = await World.make(t)
  const { h05, h06, h07 } = world.hosts
  for (const host of world.all()) await host.start()
  await until('a peer sends', () => h07.said?.relayed != null, 180_000)
  const sender = h07.said?.relayed?.by === 'h05' ? h05 : h06
  writeFileSync(sender.options.stopFile, '')
  await until(
    'it has one in its hand',
    () => h07.said?.linked.includes(sender.options.name) === false,
    120_000,
  )
  await until(
    'another has been asked after it, and sends',
    () => {
      const { relayed, metrics } = h07.said ?? {}
      return relayed?.by !== sender.options.name && metrics?.doubtful === 0
    },
    180_000,
  )
  const refusedBefore = world.front.late
  rmSync(sender.options.stopFile)
  sender.child?.kill('SIGCONT')
  await until('it came too late', () => world.front.late > refusedBefore, 180_000)
  t.same(await world.settled(), [])
})

t.test('a peer sends for none that may not ask, and nothing into another namespace', async (t) => {
  for (const [what, options, why] of [
    ['role', { role: 'read' as Role }, /role read/],
    ['namespace', { into: 'Other' }, /this host tells Garrison/],
  ] as const)
    await t.test(what, async (t) => {
      const world = await World.make(t, options)
      const { h07 } = world.hosts
      for (const host of world.all()) await host.start()
      await until('it is told why', () => why.test(h07.said?.metrics.problem?.message ?? ''), 180_000)
      t.equal(h07.said?.metrics.doubtful, 0)
      t.equal(world.arrived('cpu.busy'), 0)
    })
})

t.test('killed on either side at any moment, with a link that comes and goes: each once', async (t) => {
  const kills = full ? 120 : 9
  const world = await World.make(t)
  const random = seeded(20_261_121)
  const kinds: readonly Fault[] = ['reset-before', 'reset-after', 'slow-after', 'error-before', 'unavailable']
  world.front.fault = () => (random() < 0.1 ? (kinds[Math.floor(random() * kinds.length)] ?? null) : null)
  for (const host of world.all()) await host.start()
  const { h05, h06, h07 } = world.hosts
  const moments = ['asked', 'performed', 'after-a-while'] as const
  let relayed = 0
  for (let kill = 0; kill < kills; kill += 1) {
    const moment = moments[kill % 3] ?? 'asked'
    // Most often the one that has the batch in hand; else the host whose batch it is.
    const isOrigin = random() < 0.4
    const hit = Promise.withResolvers<void>()
    const strike = (ms: number) => setTimeout(() => hit.resolve(), ms)
    let left = 1 + Math.floor(random() * 3)
    world.front.onPut = (at, series) => {
      if (at !== moment || !series.startsWith('cpu.busy')) return
      left -= 1
      if (left === 0) strike(random() * 40)
    }
    const last = strike(moment === 'after-a-while' ? random() * 6000 : 20_000)
    await hit.promise
    clearTimeout(last)
    if (h07.said?.relayed) relayed += 1
    const victim = isOrigin ? h07 : h07.said?.relayed?.by === 'h06' ? h06 : h05
    await victim.kill()
    if (random() < 0.3) await (random() < 0.3 ? world.link.mend() : world.link.cut())
    await delay(random() * 500)
    await victim.start()
  }
  t.same(await world.settled(), [])
  const spans = world.arrived('cpu.busy')
  t.ok(
    relayed > 0 && spans > kills,
    `${kills} kills, ${spans} spans; peers sent when it was killed ${relayed} times`,
  )
  t.comment(
    `${[...world.front.calls].join(' ')}, ${[...world.front.faults].join(' ')}, ${world.front.late} late`,
  )
})
