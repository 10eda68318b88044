// Where the cloud says that the hosts of the fleet are: asked now and then, and remembered for when it cannot be asked.

import { HostError, problemOf } from '../../provisioning/problem.ts'
import { type Address, addressPattern, addressText } from './address.ts'
import { type FleetFolder, wantDamaged } from './folder.ts'
import { hostPattern } from './trust.ts'

/** Addresses by the name of the host. */
export type Found = Readonly<Record<string, readonly string[]>>

/** What it stands on. */
export interface DiscoveryGround {
  readonly folder: FleetFolder
  readonly tag: string
  /** The port that all of them are expected at. */
  readonly port: number
  /** Asks for the instances with the tag. Throws a HostError when they cannot be told. */
  readonly ask: (tag: string) => Promise<Found>
  /** Takes what was found: all of it, each time that it is another. */
  readonly found: (hosts: Readonly<Record<string, readonly Address[]>>) => void
  readonly log: { error(what: object, text: string): void }
  readonly everyMs?: number
}

const usualEveryMs = 10 * 60_000
const mostHosts = 512
const mostAddresses = 8

/** Asks until it is closed. What it is told only says where to try: who is there its certificate says. */
export class Discovery {
  readonly #ground: DiscoveryGround
  #timer: NodeJS.Timeout | null = null
  #known = ''
  #closed = false
  /** Why the last question was not answered. */
  problem: string | null = null
  /** What is wrong with what was remembered, until it is written anew. */
  damaged: HostError | null = null

  constructor(ground: DiscoveryGround) {
    this.#ground = ground
  }

  /** Takes what is remembered, and begins to ask. */
  async begin(): Promise<void> {
    const { folder, tag } = this.#ground
    try {
      const kept = await folder.readDiscovered()
      if (kept?.tag === tag) this.#take(kept.hosts)
    } catch (error) {
      this.damaged = wantDamaged(error)
      this.#ground.log.error({ err: this.damaged.report() }, 'what was found before is lost')
    }
    this.#next(0)
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  /** A whole fleet that was started at once does not ask at once. */
  #next(afterMs: number): void {
    if (this.#closed) return
    this.#timer = setTimeout(() => void this.#look(), afterMs * (0.75 + Math.random() / 2))
  }

  async #look(): Promise<void> {
    const { tag, ask, folder, log, everyMs = usualEveryMs } = this.#ground
    try {
      const hosts = await ask(tag)
      this.problem = null
      if (this.#closed || JSON.stringify(hosts) === this.#known) return
      // What is tried is remembered already; a disk that does not take it keeps nobody from trying.
      try {
        await folder.writeDiscovered({ tag, hosts })
        this.damaged = null
      } finally {
        this.#take(hosts)
      }
    } catch (error) {
      const { code, message } = problemOf(error)
      // Told once for each way that it fails; what is remembered still holds.
      if (this.problem !== message)
        log.error({ code, why: message }, 'hosts of the fleet could not be looked for')
      this.problem = message
      if (!(error instanceof HostError)) throw error
    } finally {
      this.#next(everyMs)
    }
  }

  #take(hosts: Found): void {
    this.#known = JSON.stringify(hosts)
    const { port, found } = this.#ground
    const addressesOf = (addresses: readonly string[]): readonly Address[] =>
      addresses
        .map((host) => ({ over: 'eni', host, port }))
        .filter((address) => addressPattern.test(addressText(address)))
        .slice(0, mostAddresses)
    found(
      Object.fromEntries(
        Object.entries(hosts)
          .filter(([host]) => hostPattern.test(host))
          .slice(0, mostHosts)
          .map(([host, addresses]) => [host, addressesOf(addresses)]),
      ),
    )
  }
}
