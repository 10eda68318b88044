// Hosts of a fleet as processes on loopback, for tests: begins, invites and joins by the same calls as the verbs.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lifetimes, usualLifetimes } from '../../agent/peers/authority.ts'
import { joinFleet } from '../../agent/peers/enrol.ts'
import type { FleetCondition, Membership } from '../../agent/peers/fleet.ts'
import { FleetFolder } from '../../agent/peers/folder.ts'
import { invite, makeFleet, makeFleetAuthority } from '../../agent/peers/issuing.ts'
import type { HeldReport, KnownHost, MeshEvent } from '../../agent/peers/mesh.ts'
import type { Role } from '../../agent/peers/trust.ts'
import type { FleetHostAsk, FleetHostOptions } from './fleet-host.ts'

/** A line that a host printed of itself. */
export interface Printed {
  readonly log?: string
  readonly failed?: string
  readonly happened?: MeshEvent
  readonly tickMs?: number
  readonly [key: string]: unknown
}

const program = join(import.meta.dirname, 'fleet-host.ts')

/** Everything goes fast here; what a host does in a minute is to be seen in a second. */
export const fast = {
  tickMs: 50,
  pingMs: 300,
  silentMs: 1500,
  stalledMs: 1000,
  helloMs: 1000,
  takenMs: 3000,
  courtesyMs: 200,
  leastRedialMs: 50,
  mostRedialMs: 500,
  askMs: 300,
} as const

/** A host as a process. */
export class FleetHost {
  readonly name: string
  readonly folder: FleetFolder
  readonly printed: Printed[] = []
  readonly child
  #asked = 0
  readonly #waiting = new Map<number, (line: { value?: unknown; error?: string }) => void>()
  readonly #ready = Promise.withResolvers<void>()
  #stderr = ''

  constructor(name: string, options: FleetHostOptions) {
    this.name = name
    this.folder = new FleetFolder(options.folder)
    this.child = spawn(process.execPath, [program, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk
    })
    this.child.once('exit', (code, signal) => {
      this.#ready.reject(new Error(`${name} ended (${code ?? signal}): ${this.#stderr}`))
    })
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const parsed = JSON.parse(line)
      if (typeof parsed.id === 'number') this.#waiting.get(parsed.id)?.(parsed)
      else if (parsed.ready) this.#ready.resolve()
      else this.printed.push(parsed)
    })
  }

  ready(): Promise<void> {
    return this.#ready.promise
  }

  /** Asks the process for something. Rejects with what it says is wrong. */
  async ask<T = unknown>(ask: FleetHostAsk): Promise<T> {
    const id = this.#asked++
    const { promise, resolve } = Promise.withResolvers<{ value?: unknown; error?: string }>()
    this.#waiting.set(id, resolve)
    this.child.stdin.write(`${JSON.stringify({ id, ...ask })}\n`)
    const { value, error } = await promise
    if (error !== undefined) throw new Error(error)
    return value as T
  }

  hosts = (): Promise<readonly KnownHost[]> => this.ask({ do: 'hosts' })
  conditions = (): Promise<readonly FleetCondition[]> => this.ask({ do: 'conditions' })
  membership = (): Promise<Membership> => this.ask({ do: 'membership' })
  reportOf = (host: string): Promise<HeldReport | null> => this.ask({ do: 'report', host })
  publish = (generation: number, report: object) => this.ask({ do: 'publish', generation, report })

  /** What it knows of one other host. */
  async known(host: string): Promise<KnownHost | undefined> {
    return (await this.hosts()).find((one) => one.host === host)
  }

  happened = (): readonly MeshEvent[] => this.printed.flatMap(({ happened }) => happened ?? [])

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  async leave(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.stdin.end()
    await once(this.child, 'exit')
  }
}

/** A fleet of processes. */
export class FleetWorld {
  readonly root: string
  readonly hosts = new Map<string, FleetHost>()
  readonly options: Partial<FleetHostOptions>

  constructor(root: string, options: Partial<FleetHostOptions> = {}) {
    this.root = root
    this.options = options
    mkdirSync(root, { recursive: true })
  }

  folder(name: string): FleetFolder {
    return new FleetFolder(join(this.root, name))
  }

  /** Begins the fleet with its first host; the daemon is not started. */
  async begin(name: string, lifetimes: Partial<Lifetimes> = {}): Promise<void> {
    const folder = this.folder(name)
    const all = { ...usualLifetimes, ...lifetimes }
    await folder.enter()
    const authority = await makeFleetAuthority(folder, folder.path, all, Date.now())
    await makeFleet(folder, authority, name, all, Date.now())
  }

  /** Starts the process of a host. */
  async start(name: string, options: Partial<FleetHostOptions> = {}): Promise<FleetHost> {
    const { desired } = { ...this.options, ...options }
    const host = new FleetHost(name, {
      folder: join(this.root, name),
      pace: fast,
      ...this.options,
      ...options,
      desired: {
        port: 0,
        listen: '127.0.0.1',
        addresses: { lo: '127.0.0.1' },
        ...desired,
        peers: { ...desired?.peers },
      },
    })
    this.hosts.set(name, host)
    await host.ready()
    return host
  }

  /** Lets a host join at another, which is then the one that it knows. */
  async join(name: string, at: FleetHost, role: Role = 'read'): Promise<void> {
    const nowMs = Date.now()
    const secret = await invite(at.folder, { role, host: name, untilMs: nowMs + 60_000 }, nowMs)
    const { port, fingerprint } = await at.membership()
    const folder = this.folder(name)
    await folder.enter()
    const addresses = [{ over: '-', host: '127.0.0.1', port }]
    await joinFleet(folder, { addresses, fingerprint, secret }, name, nowMs)
  }

  /** Ends every process that still runs. */
  async end(): Promise<void> {
    await Promise.all(
      [...this.hosts.values()].map((host) => {
        host.kill('SIGCONT')
        return host.leave()
      }),
    )
  }
}

/** Waits until something is so, looking every so often; says what was wanted when it is not in time. */
export async function until(
  what: string,
  isSo: () => Promise<boolean> | boolean,
  deadlineMs = 10_000,
  everyMs = 25,
): Promise<void> {
  const endMs = performance.now() + deadlineMs
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`not in ${deadlineMs} ms: ${what}`)
    await sleep(everyMs)
  }
}
