// Sends what waits in one queue of the spool and sees to it that it arrives once: what an answer means, and what is done without one.
//
// INVARIANTS
// - A batch without an answer is never sent again before the other side has said, long enough after, that it does not have it.
// - What cannot be sent now goes with the next batch: trying again costs no request of its own.
// - A row is given up for what it is only when others that were sent with it were accepted.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import type { Batch, Doubt, Limit, Queue, Row, Spool } from './spool.ts'

/** What came of a request. `serverMs`: the other side's time, where it said any. */
export type Outcome = { readonly serverMs: number | null } & (
  | { readonly kind: 'accepted'; readonly rejected: readonly number[] }
  /** It holds something that is not taken; none of it was. */
  | { readonly kind: 'refused'; readonly why: string }
  /** None of it was taken, and the same may be taken later. */
  | { readonly kind: 'failed'; readonly problem: HostError }
  /** Nobody can tell. */
  | { readonly kind: 'unanswered'; readonly problem: HostError }
)

/** The other side, for one queue. `nowMs` is the true time as it is best known. */
export interface Door<One extends Row> {
  readonly limit: Limit<One>
  /** One request, tried once. In an outcome that is accepted, `rejected` are the ids of rows that were not. */
  put(rows: readonly One[], nowMs: number): Promise<Outcome>
  /** Which of the rows it has, by their ids. Throws a HostError when that cannot be learnt. */
  ask(rows: readonly One[], nowMs: number): Promise<ReadonlySet<number>>
  /**
   * How long after it was sent a batch is asked after, each time to ask, in milliseconds. What is not seen the last time did not
   * arrive.
   */
  patience(doubt: Doubt): readonly [number, ...number[]]
}

/** How the sending of one queue stands. Times are true times. */
export interface Sending {
  readonly acceptedMs: number | null
  /** Why the last request failed; null when it did not. */
  readonly problem: ProblemReport | null
  /** Since when every request has failed. */
  readonly failingMs: number | null
  /** How many have. */
  readonly failures: number
  /** What was given up the last time, and why. */
  readonly refused: { readonly row: string; readonly why: string; readonly atMs: number } | null
  /** Why it cannot be learnt what became of batches without an answer. */
  readonly askProblem: ProblemReport | null
}

/** So many full batches are sent one after the other; what waits beyond them goes the next time. */
const mostAtOnce = 20
/** So many rows are looked for one by one that are not taken; where there are more, it is not they. */
const mostPoison = 10

const idsOf = (rows: readonly Row[]): readonly number[] => rows.map(({ id }) => id)

/** The sender of one queue. */
export class Sender<One extends Row> {
  readonly #spool: Spool
  readonly #queue: Queue<One>
  readonly #nameOf: (row: One) => string
  #standing: Sending = {
    ...{ acceptedMs: null, problem: null, failingMs: null, failures: 0, refused: null, askProblem: null },
  }

  /** `nameOf` says of a row what a person would know it by. */
  constructor(spool: Spool, queue: Queue<One>, nameOf: (row: One) => string) {
    this.#spool = spool
    this.#queue = queue
    this.#nameOf = nameOf
  }

  get standing(): Sending {
    return this.#standing
  }

  /** Asks after what nobody has an answer for, and sends what waits; ends at the first failure. One at a time. */
  async beat(door: Door<One>, signal: AbortSignal): Promise<void> {
    for (const doubt of this.#spool.doubts(this.#queue))
      if (signal.aborted || !(await this.#askAfter(door, doubt))) return
    for (let sent = 0; sent < mostAtOnce && !signal.aborted; sent += 1) {
      const batch = this.#spool.take(this.#queue, door.limit)
      if (batch === null || !(await this.#send(door, batch)) || !batch.full) return
    }
  }

  #nowMs(): number {
    return this.#spool.timeline.nowMs()
  }

  /** Answers whether to go on. */
  async #askAfter(door: Door<One>, doubt: Doubt): Promise<boolean> {
    const times = door.patience(doubt).map((ms) => Math.round(doubt.sentMs + ms))
    const nowMs = this.#nowMs()
    const [firstMs = nowMs] = times
    if (nowMs < (doubt.askMs ?? firstMs)) return true
    const rows = this.#spool.rowsOf(this.#queue, doubt.id)
    try {
      const there = await door.ask(rows, nowMs)
      const nextMs = times.find((ms) => ms > nowMs)
      if (there.size >= rows.length || nextMs === undefined)
        this.#spool.settle(this.#queue, doubt.id, { sent: [...there] })
      else this.#spool.askAt(doubt.id, nextMs)
      this.#standing = { ...this.#standing, askProblem: null }
      return true
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#standing = { ...this.#standing, askProblem: error.report() }
      // Whoever may not ask can still be let send.
      if (error.code === 'cloudwatch.denied') return true
      this.#fail(error)
      return false
    }
  }

  /** Answers whether to go on. */
  async #send(door: Door<One>, batch: Batch<One>): Promise<boolean> {
    const outcome = await this.#put(door, batch)
    return outcome.kind === 'refused'
      ? this.#sift(door, batch.rows, outcome.why)
      : outcome.kind === 'accepted'
  }

  async #put(door: Door<One>, batch: Batch<One>): Promise<Outcome> {
    const { timeline } = this.#spool
    const askedTick = timeline.tick()
    const outcome = await door.put(batch.rows, timeline.nowMs())
    if (outcome.serverMs !== null) timeline.hear(outcome.serverMs, askedTick)
    if (outcome.kind === 'accepted') {
      const rejected = new Set(outcome.rejected)
      const sent = idsOf(batch.rows).filter((id) => !rejected.has(id))
      this.#spool.settle(this.#queue, batch.id, { sent, refused: outcome.rejected })
      this.#standing = {
        ...this.#standing,
        ...{ acceptedMs: this.#nowMs(), problem: null, failingMs: null, failures: 0 },
      }
    } else if (outcome.kind === 'unanswered') this.#fail(outcome.problem)
    else {
      this.#spool.settle(this.#queue, batch.id, {})
      if (outcome.kind === 'failed') this.#fail(outcome.problem)
    }
    return outcome
  }

  /** Finds by halves what is not taken among rows that were refused, and sends the others. Answers whether to go on. */
  async #sift(door: Door<One>, rows: readonly One[], because: string): Promise<boolean> {
    let why = because
    let anyAccepted = false
    let left = rows
    const poison: One[] = []
    const take = async (some: readonly One[]): Promise<'accepted' | 'refused' | null> => {
      const batch = this.#spool.take(this.#queue, door.limit, idsOf(some))
      if (batch === null) return null
      const outcome = await this.#put(door, batch)
      if (outcome.kind === 'refused') why = outcome.why
      if (outcome.kind !== 'accepted') return outcome.kind === 'refused' ? 'refused' : null
      anyAccepted = true
      const gone = new Set(idsOf(batch.rows))
      left = left.filter(({ id }) => !gone.has(id))
      return 'accepted'
    }
    for (;;) {
      let suspects = left
      while (suspects.length > 1) {
        const half = suspects.slice(0, Math.ceil(suspects.length / 2))
        const came = await take(half)
        if (came === null) return false
        suspects = came === 'refused' ? half : suspects.slice(half.length)
      }
      const [found] = suspects
      if (found === undefined) break
      poison.push(found)
      left = left.filter(({ id }) => id !== found.id)
      if (left.length === 0 || poison.length > mostPoison) break
      // Sent whole: most often one row alone is bad, and this is what shows it.
      const came = await take(left)
      if (came === null) return false
      if (came === 'accepted') break
    }
    if (!anyAccepted || poison.length > mostPoison) {
      this.#fail(new HostError('cloudwatch.refused', `CloudWatch takes none of it: ${why}`))
      return false
    }
    this.#spool.forget(this.#queue, idsOf(poison), 'refused')
    const [first] = poison
    if (first !== undefined)
      this.#standing = {
        ...this.#standing,
        refused: { row: this.#nameOf(first), why, atMs: this.#nowMs() },
      }
    return true
  }

  #fail(problem: HostError): void {
    const { failingMs, failures } = this.#standing
    this.#standing = {
      ...this.#standing,
      problem: problem.report(),
      failingMs: failingMs ?? this.#nowMs(),
      failures: failures + 1,
    }
  }
}
