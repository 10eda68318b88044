// Long work that outlives whoever asked for it: begun once, followed by whoever wants to, cancelled by whoever may.
//
// INVARIANTS
// - A job runs in the process that began it and ends with it. What it leaves behind is the verb's business: a verb that is a job
//   can be asked again after any end, and goes on or begins anew.
// - Who follows sees all lines from the first; of progress only the newest.
// - A job that ended says so in its file; one that does not, and whose process has gone, was interrupted.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LockHolder } from '../../provisioning/host.ts'
import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import {
  appendJob,
  isJobId,
  type JobBegun,
  type JobEnded,
  type JobOutcome,
  type JobRecord,
  jobIds,
  readJob,
  removeJob,
} from './job-file.ts'
import { isProgress, type Progress, Rate } from './progress.ts'

/** One job as it is shown. */
export interface JobFacts extends JobBegun {
  readonly outcome: JobOutcome
  readonly endedMs: number | null
  readonly exit: number | null
  readonly problem: ProblemReport | null
  readonly progress: Progress | null
}

/** Why the work of a job is to end: the reason of its signal. Interrupted, it leaves behind what can be gone on with. */
export type JobStop = 'cancelled' | 'interrupted'

/** A job of this process. `ended` resolves when it has ended, however it did. */
export interface BegunJob {
  readonly id: string
  readonly ended: Promise<void>
  stop(why: JobStop): void
}

/** What a job does: lines as they come, and what the process would end with after each. */
export interface JobWork {
  lines(signal: AbortSignal): AsyncIterable<object>
  exitOf(line: object): number | null
}

/** Where jobs are kept, and how it is known that a process still holds one (see agent/host/lock.ts). */
export interface JobPlace {
  readonly folder: string
  readonly clock: () => number
  readonly lock: (path: string, who: string) => Promise<{ release(): Promise<void> }>
  /** Who holds a lock, when it is not this process. */
  readonly holder: (path: string) => Promise<LockHolder | null>
}

/** Jobs that are kept after they have ended. */
const keptJobs = 50
const tellMs = 250
/** How often progress is written down, for those who follow from another process. */
const keepMs = 10_000
const pollMs = 1000

interface Running {
  readonly begun: JobBegun
  readonly lines: object[]
  readonly controller: AbortController
  progress: Progress | null
  end: JobEnded | null
  /** Resolves, and is made anew, at everything that is told. */
  news: PromiseWithResolvers<void>
}

const noSuchJob = (id: string): HostError =>
  new HostError('job.unknown', `there is no job ${JSON.stringify(id)}`)

/** The jobs of one host. */
export class Jobs {
  readonly #place: JobPlace
  readonly #running = new Map<string, Running>()

  constructor(place: JobPlace) {
    this.#place = place
  }

  #lockPath(id: string): string {
    return join(this.#place.folder, `${id}.lock`)
  }

  async #prune(): Promise<void> {
    const { folder } = this.#place
    const all = (await this.list()).filter(({ outcome }) => outcome !== 'running')
    for (const { id } of all.slice(keptJobs - 1)) await removeJob(folder, id)
  }

  /** Begins work that goes on by itself. Errors: `file.no-space`, `file.read-only`, `file.unwritable`. */
  async begin(asked: Pick<JobBegun, 'verb' | 'typed' | 'who'>, work: JobWork): Promise<BegunJob> {
    const { folder, clock, lock } = this.#place
    await this.#prune()
    const taken = await jobIds(folder)
    let id = randomBytes(3).toString('hex')
    while (taken.includes(id)) id = randomBytes(3).toString('hex')
    const begun: JobBegun = { id, ...asked, beganMs: clock() }
    const held = await lock(this.#lockPath(id), asked.who)
    await appendJob(folder, id, { kind: 'begun', ...begun })
    const running: Running = {
      begun,
      lines: [],
      controller: new AbortController(),
      progress: null,
      end: null,
      news: Promise.withResolvers(),
    }
    this.#running.set(id, running)
    const ended = this.#perform(running, work).finally(() => held.release())
    return { id, ended, stop: (why) => running.controller.abort(why) }
  }

  /** Performs the work to its end and writes down what it tells. Never rejects but for its own file. */
  async #perform(running: Running, { lines, exitOf }: JobWork): Promise<void> {
    const { folder, clock } = this.#place
    const { begun, controller } = running
    const { signal } = controller
    const rate = new Rate()
    let [toldMs, keptMs] = [-tellMs, performance.now()]
    let exit: number | null = null
    let problem: ProblemReport | null = null
    try {
      for await (const line of lines(signal)) {
        if (isProgress(line)) {
          const nowMs = performance.now()
          if (nowMs - toldMs < tellMs && line.doneBytes !== line.totalBytes) continue
          toldMs = nowMs
          running.progress = rate.told(line, nowMs)
          if (nowMs - keptMs >= keepMs) {
            keptMs = nowMs
            await appendJob(folder, begun.id, { kind: 'told', line: running.progress })
          }
        } else {
          running.progress = null
          running.lines.push(line)
          exit = exitOf(line) ?? exit
          await appendJob(folder, begun.id, { kind: 'told', line })
        }
        this.#tell(running)
      }
    } catch (error) {
      problem = problemOf(error)
    }
    const outcome: JobEnded['outcome'] = signal.aborted
      ? (signal.reason as JobStop)
      : problem === null && (exit ?? 0) === 0
        ? 'done'
        : 'failed'
    const end: JobEnded = { outcome, endedMs: clock(), exit, problem }
    try {
      await appendJob(folder, begun.id, { kind: 'ended', ...end })
    } finally {
      running.end = end
      this.#running.delete(begun.id)
      this.#tell(running)
    }
  }

  #tell(running: Running): void {
    const { news } = running
    running.news = Promise.withResolvers()
    news.resolve()
  }

  async #outcomeOf({ begun, ended }: JobRecord): Promise<JobOutcome> {
    if (ended !== null) return ended.outcome
    const isHeld =
      this.#running.has(begun.id) || (await this.#place.holder(this.#lockPath(begun.id))) !== null
    return isHeld ? 'running' : 'interrupted'
  }

  /** Every job that is kept, the newest first. */
  async list(): Promise<readonly JobFacts[]> {
    const { folder } = this.#place
    const records = await Promise.all((await jobIds(folder)).map((id) => readJob(folder, id)))
    const all = records.flatMap((record) => record ?? [])
    const facts = await Promise.all(
      all.map(async (record): Promise<JobFacts> => {
        const { begun, ended, lines } = record
        const last = lines.at(-1)
        const known = last !== undefined && isProgress(last) ? last : null
        return {
          id: begun.id,
          verb: begun.verb,
          typed: begun.typed,
          who: begun.who,
          beganMs: begun.beganMs,
          outcome: await this.#outcomeOf(record),
          endedMs: ended?.endedMs ?? null,
          exit: ended?.exit ?? null,
          problem: ended?.problem ?? null,
          progress: ended === null ? (this.#running.get(begun.id)?.progress ?? known) : null,
        }
      }),
    )
    return facts.sort((a, b) => b.beganMs - a.beganMs)
  }

  /**
   * All that a job has told, and what it goes on to tell until it ends or the signal aborts. Throws the problem that it ended with,
   * `job.cancelled`, `job.interrupted`, `job.unknown`.
   */
  async *follow(id: string, signal: AbortSignal): AsyncGenerator<object> {
    const running = isJobId(id) ? this.#running.get(id) : undefined
    if (running === undefined) yield* this.#followFile(id, signal)
    else yield* this.#followRunning(running, signal)
  }

  async *#followRunning(running: Running, signal: AbortSignal): AsyncGenerator<object> {
    const left = Promise.withResolvers<void>()
    const leave = () => left.resolve()
    signal.addEventListener('abort', leave)
    try {
      let shown: Progress | null = null
      for (let at = 0; !signal.aborted; ) {
        const { news, end } = running
        while (at < running.lines.length) {
          yield running.lines[at] as object
          at += 1
        }
        if (running.progress !== null && running.progress !== shown) {
          shown = running.progress
          yield shown
        }
        if (end !== null) {
          throwEnd(running.begun, end)
          return
        }
        await Promise.race([news.promise, left.promise])
      }
    } finally {
      signal.removeEventListener('abort', leave)
    }
  }

  async *#followFile(id: string, signal: AbortSignal): AsyncGenerator<object> {
    for (let at = 0; !signal.aborted; ) {
      const record = isJobId(id) ? await readJob(this.#place.folder, id) : null
      if (record === null) throw noSuchJob(id)
      const { begun, lines, ended } = record
      const isGone = ended === null && (await this.#outcomeOf(record)) === 'interrupted'
      for (const line of lines.slice(at)) if (!isProgress(line) || line === lines.at(-1)) yield line
      at = lines.length
      if (ended !== null) {
        throwEnd(begun, ended)
        return
      }
      if (isGone) throw interrupted(begun)
      await sleep(pollMs)
    }
  }

  /** Asks a job to end and to leave nothing half done. Throws `job.unknown`, `job.ended`, `job.elsewhere`. */
  async cancel(id: string): Promise<JobFacts> {
    const known = (await this.list()).find((job) => job.id === id)
    if (known === undefined) throw noSuchJob(id)
    if (known.outcome !== 'running') throw new HostError('job.ended', `job ${id} has ended: ${known.outcome}`)
    const running = this.#running.get(id)
    if (running === undefined) {
      const holder = await this.#place.holder(this.#lockPath(id))
      throw new HostError('job.elsewhere', `job ${id} runs in another process (pid ${holder?.pid})`, {
        details: { pid: holder?.pid },
      })
    }
    running.controller.abort('cancelled' satisfies JobStop)
    return known
  }
}

const interrupted = ({ id }: JobBegun): HostError =>
  new HostError('job.interrupted', `the process of job ${id} ended before the job did`)

function throwEnd(begun: JobBegun, { outcome, problem }: JobEnded): void {
  if (problem !== null)
    throw new HostError(problem.code, problem.message, { details: { ...problem.details } })
  if (outcome === 'interrupted') throw interrupted(begun)
  if (outcome === 'cancelled') throw new HostError('job.cancelled', `job ${begun.id} was cancelled`)
}
