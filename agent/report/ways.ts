// Which way CloudWatch is told: directly, or, while the Region cannot be reached and where that is wanted, through a peer.
//
// INVARIANTS
// - A batch goes another way only when none of it has left on the way before: another answer than that leaves it in doubt, and
//   CloudWatch itself is asked after it before it is sent again.
// - The host that measured keeps the batch until then; a peer remembers nothing. What a peer still holds when it is stopped is taken
//   by nobody later: it is signed with the time at which the batch was marked as sent.

import { HostError } from '../../provisioning/problem.ts'
import { type Errand, outcomeIn, type Place, thereIn } from './errand.ts'
import type { Door, Outcome } from './sending.ts'
import type { Doubt, Limit, Row } from './spool.ts'

/** What came of asking a peer. */
export type PeerAnswer =
  | { readonly kind: 'answered'; readonly value: unknown }
  /** It did nothing of it. */
  | { readonly kind: 'refused'; readonly problem: HostError }
  /** Nobody can tell what it did. */
  | { readonly kind: 'unanswered'; readonly problem: HostError }

/** The peers that may be asked. */
export interface Peers {
  /** Those that are linked and say that they send for others. */
  offering(): readonly string[]
  /** `stop` gives it up. */
  ask(host: string, errand: Errand, stop: AbortSignal): Promise<PeerAnswer>
}

/** How it goes through peers. */
export interface Detour {
  /** Since when the Region is not reached (tick of the spool). */
  readonly sinceTick: number
  /** The peer that was the last to send. */
  readonly by: string
}

const minuteMs = 60_000
/** What a peer takes at a time: a fleet port takes no more, and every one of its hosts may need it. */
const mostBytes = 250_000
const mostAsked = 3
/** The Region is tried by this host itself about as often. */
const directEveryMs = minuteMs - 5000
/** AWS takes no signature that is five minutes old, by clocks that agree within five. */
const heldUpMs = 10 * minuteMs

const isUnreached = (outcome: Outcome): boolean =>
  outcome.kind === 'failed' && outcome.problem.code === 'cloudwatch.unreachable'

/** The ways of one host, for both of its queues. */
export class Ways {
  readonly #peers: Peers
  readonly #tick: () => number
  readonly #stop = new AbortController()
  #sinceTick: number | null = null
  #triedTick = 0
  #by: string | null = null

  /** `tick`: milliseconds on an axis that nobody sets. */
  constructor(peers: Peers, tick: () => number) {
    this.#peers = peers
    this.#tick = tick
  }

  /** Gives up what a peer is asked for: nobody can tell what became of it. */
  close(): void {
    this.#stop.abort()
  }

  /** Null while it goes directly, or nobody has sent. */
  get detour(): Detour | null {
    return this.#sinceTick === null || this.#by === null ? null : { sinceTick: this.#sinceTick, by: this.#by }
  }

  /** Whether the Region was reached directly the last time that it was tried. */
  get isDirect(): boolean {
    return this.#sinceTick === null
  }

  /** A door that goes through peers where the direct one does not. */
  through<One extends Row>(direct: Door<One>, queue: Errand['queue'], place: Place): Door<One> {
    const ways = this
    const errand = (what: Errand['do'], rows: readonly One[], nowMs: number) =>
      ({ do: what, queue, place, nowMs, rows }) as unknown as Errand
    const limit: Limit<One> = {
      ...direct.limit,
      bytes: mostBytes,
      bytesOf: (row) => Math.max(direct.limit.bytesOf(row), JSON.stringify(row).length + 1),
    }
    return {
      get limit() {
        return ways.#sinceTick === null ? direct.limit : limit
      },
      async put(rows, nowMs) {
        const wasDown = ways.#sinceTick !== null
        if (ways.#isDirectDue()) {
          const outcome = await direct.put(rows, nowMs)
          ways.#learn(!isUnreached(outcome))
          // The first time it is larger than what a peer takes; the next one is not.
          if (!isUnreached(outcome) || !wasDown) return outcome
        }
        return ways.#put(rows, errand('put', rows, nowMs))
      },
      async ask(rows, nowMs) {
        if (ways.#isDirectDue())
          try {
            return await direct.ask(rows, nowMs)
          } catch (error) {
            if (!(error instanceof HostError) || error.code !== 'cloudwatch.unreachable') throw error
            ways.#learn(false)
          }
        return ways.#ask(rows, errand('ask', rows, nowMs))
      },
      patience(doubt: Doubt) {
        const [first, ...others] = direct.patience(doubt)
        const last = (others.pop() ?? first) + heldUpMs
        return [first, ...others, last]
      },
    }
  }

  #isDirectDue(): boolean {
    return this.#sinceTick === null || this.#tick() - this.#triedTick >= directEveryMs
  }

  #learn(isReached: boolean): void {
    this.#triedTick = this.#tick()
    if (!isReached) this.#sinceTick ??= this.#triedTick
    else {
      this.#sinceTick = null
      this.#by = null
    }
  }

  /** Who is asked: the one that sent the last time, and a few others by chance, so that not all hosts come to the same one. */
  #asked(): readonly string[] {
    const offering = this.#peers.offering()
    const others = offering
      .filter((host) => host !== this.#by)
      .map((host) => ({ host, lot: Math.random() }))
      .sort((a, b) => a.lot - b.lot)
      .map(({ host }) => host)
    return [...offering.filter((host) => host === this.#by), ...others].slice(0, mostAsked)
  }

  async #put(rows: readonly Row[], errand: Errand): Promise<Outcome> {
    let last: Outcome = {
      ...{ kind: 'failed', serverMs: null },
      problem: new HostError(
        'cloudwatch.unreachable',
        'the Region is not reached, and no peer is linked that sends for others',
      ),
    }
    for (const host of this.#asked()) {
      if (this.#stop.signal.aborted) break
      const said = await this.#peers.ask(host, errand, this.#stop.signal)
      const outcome = said.kind === 'answered' ? outcomeIn(said.value, rows) : null
      if (outcome?.kind === 'accepted' || outcome?.kind === 'refused') {
        this.#by = host
        return outcome
      }
      const kind = outcome?.kind ?? (said.kind === 'refused' ? 'failed' : 'unanswered')
      const why =
        outcome?.problem.message ?? (said.kind === 'answered' ? 'its answer is none' : said.problem.message)
      const code =
        outcome?.problem.code ?? (kind === 'failed' ? 'cloudwatch.unreachable' : 'cloudwatch.unanswered')
      last = {
        ...{ kind, serverMs: outcome?.serverMs ?? null },
        problem: new HostError(code, `through ${host}: ${why}`),
      }
      if (kind === 'unanswered') return last
    }
    return last
  }

  async #ask(rows: readonly Row[], errand: Errand): Promise<ReadonlySet<number>> {
    let last = new HostError(
      'cloudwatch.unreachable',
      'the Region is not reached, and no peer asks for others',
    )
    for (const host of this.#asked()) {
      if (this.#stop.signal.aborted) break
      const said = await this.#peers.ask(host, errand, this.#stop.signal)
      const there = said.kind === 'answered' ? thereIn(said.value, rows) : null
      if (there !== null) return there
      const why = said.kind === 'answered' ? 'its answer is none' : said.problem.message
      last = new HostError('cloudwatch.unreachable', `through ${host}: ${why}`)
    }
    throw last
  }
}
