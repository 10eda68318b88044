// The daemon's round: looks at the host and its VMs, judges what it sees, makes the report, and tells those who listen.
//
// INVARIANTS
// - A round waits for nobody: what takes its time (libvirt, programs, the root side) is looked at beside it, and what was seen
//   last is used, with its age.
// - Who listens is told in the order of what happened, and cannot hold up the round.

import { type Datapoint, goneMs, METRICS, type MetricName } from '../../provisioning/metrics.ts'
import { HostError, problemOf } from '../../provisioning/problem.ts'
import type { Clock } from './clock.ts'
import { datapointsOf, type Round, reportValues } from './datapoints.ts'
import type { History } from './history.ts'
import type { HostLooker } from './host/look.ts'
import type { SlowLooker } from './host/slow-look.ts'
import { Judge } from './judge.ts'
import type { Notices } from './notices.ts'
import type { OwnUseLooker } from './own.ts'
import type { HeardEvent } from './questions.ts'
import { type Inventory, type Report, type ReportBody, Reports, reportBody, valueName } from './report.ts'
import type { RootAsker } from './root-view.ts'
import type { Sample, Sampler } from './sample.ts'
import { seenValue } from './seen.ts'
import { type Condition, type Moment, StandingFindings } from './standing-findings.ts'
import { timeLeft } from './trend.ts'

/** What happened to a VM, as it was heard. */
export interface VmHappening {
  readonly uuid: string
  readonly name: string
  /** libvirt's numbers of the event and its detail (virDomainEventType). */
  readonly event: number
  readonly detail: number
  /** When it was heard: epoch milliseconds, and on the steady clock. */
  readonly atMs: number
  readonly tickMs: number
}

/** Somebody else who finds something: `conditions` is all that is so now. Codes must be in the table of findings. */
export type FindingSource = () => readonly Condition[]

/** What the daemon's round is made of. */
export interface ReporterOptions {
  readonly clock: Clock
  readonly sampler: (heard: (event: HeardEvent) => void) => Sampler
  readonly host: HostLooker
  readonly slow: SlowLooker
  readonly notices: Notices
  readonly own: OwnUseLooker
  readonly root: RootAsker
  readonly history: History
  readonly inventory: () => Promise<Inventory>
  /** The name of an array as people know it. */
  readonly arrayTitle: (kernelName: string) => string
  /** Another one each time that the daemon starts. */
  readonly run: string
  readonly identity: Omit<Report['host'], 'bootedMs' | 'startedMs'>
  readonly sources?: readonly FindingSource[]
  /** How CloudWatch goes through peers. */
  readonly relay: () => Report['relay']
}

const beatMs = 10_000
/** As often as AWS says that notices of Spot be asked for: there are two minutes between them and the end. */
const noticesEveryMs = 5000
const rootStaleMs = 15 * 60_000
const trendEveryMs = 10 * 60_000
const trendSpanMs = 24 * 3_600_000
const trendGrainMs = 15 * 60_000
const inventoryAgainMs = 10 * 60_000
/** Several events of one start come within a few milliseconds. */
const soonMs = 50

/** Looks, judges and reports until it is stopped. */
export class Reporter {
  readonly #options: ReporterOptions
  readonly #sampler: Sampler
  readonly #judge = new Judge()
  readonly #findings: StandingFindings
  readonly #reports: Reports
  readonly #startedMs: number
  readonly #values = new Map<string, Datapoint>()
  readonly #left = new Map<string, { readonly spaceMs: number | null; readonly inodesMs: number | null }>()
  readonly #onReport = new Set<(report: Report) => void>()
  readonly #onValues = new Set<(values: readonly Datapoint[]) => void>()
  readonly #onVm = new Set<(happening: VmHappening) => void>()
  readonly #defect = Promise.withResolvers<never>()
  #before: Round | null = null
  /** Arrays and links as they were: when they change the root side is asked to look again. */
  #parts = ''
  #trendTickMs: number | null = null
  #inventory: { readonly value: Inventory; readonly atMs: number } | null = null
  #inventoryProblem: string | null = null
  #inventoryOf = ''
  #inventoryTickMs: number | null = null
  #isRefreshing = false

  constructor(options: ReporterOptions) {
    this.#options = options
    const { history } = options
    this.#sampler = options.sampler((event) => this.#hear(event))
    this.#findings = new StandingFindings(history.findings(), this.#now())
    this.#reports = new Reports(history.generation())
    this.#startedMs = options.clock.epochMs()
  }

  /** The latest report; null before the first round. */
  get latest(): Report | null {
    return this.#reports.latest
  }

  /** Calls with each report that differs from the one before; answers how to end that. */
  onReport(listener: (report: Report) => void): () => void {
    return listen(this.#onReport, listener)
  }

  /** Calls with the values of each round, every ten seconds; answers how to end that. */
  onValues(listener: (values: readonly Datapoint[]) => void): () => void {
    return listen(this.#onValues, listener)
  }

  /** Calls with what happens to a VM as soon as libvirt tells it; answers how to end that. */
  onVm(listener: (happening: VmHappening) => void): () => void {
    return listen(this.#onVm, listener)
  }

  /** Goes on until the signal aborts. Rejects only when there is a defect. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options
    const every = async (ms: number, work: () => void) => {
      while (!signal.aborted) {
        work()
        await clock.sleep(ms, signal)
      }
    }
    await Promise.race([
      Promise.all([
        this.#sampler.run(signal, (sample) => this.#round(sample)),
        every(beatMs, () => {
          this.#begin(this.#options.slow.look(this.#bootedMs()))
          this.#begin(this.#options.root.beat())
          this.#begin(this.#readInventory())
        }),
        every(noticesEveryMs, () => this.#begin(this.#lookForNotices())),
      ]),
      this.#defect.promise,
    ])
  }

  #now(): Moment {
    const { clock } = this.#options
    return { epochMs: clock.epochMs(), tickMs: clock.steadyMs() }
  }

  /** Begins work that the round does not wait for. */
  #begin(work: Promise<void>): void {
    work.catch((error: unknown) => this.#defect.reject(error))
  }

  #bootedMs(): number | null {
    return (this.#before && seenValue(this.#before.host.processors)?.bootedMs) ?? null
  }

  /** Looks for notices, and tells of a new one at once. */
  async #lookForNotices(): Promise<void> {
    const { notices } = this.#options
    if (!(await notices.look()) || this.#before === null) return
    this.#report({ ...this.#before, notices: notices.seen }, [])
  }

  #round(sample: Sample): void {
    const { host, slow, notices, own, root, history } = this.#options
    history.turn(this.#options.clock.epochMs())
    const round: Round = {
      ...{ host: host.look(), slow: slow.seen, notices: notices.seen },
      ...{ vms: sample, own: own.look() },
    }
    const seen = datapointsOf(this.#before, round)
    // What stands is told as it was said last, for it is judged by what is seen now; a report that told it of itself would never rest.
    const values = [...seen, ...reportValues(this.latest, round.host.atMs)]
    this.#before = round
    this.#keepValues(seen)
    history.add(values)
    this.#trend(round)
    const parts = JSON.stringify([
      seenValue(round.host.arrays)?.map(({ kernelName, active, slots, members, progress }) => [
        kernelName,
        active,
        slots,
        members.map(({ kernelName: member, faulty }) => [member, faulty]),
        progress?.action,
      ]),
      seenValue(round.host.links),
    ])
    if (this.#parts !== '' && parts !== this.#parts) root.nudge()
    this.#parts = parts
    for (const listener of this.#onValues) listener(values)
    this.#report(round, values)
    history.keep(this.#findings.kept(), this.latest?.generation ?? 0)
  }

  /** Looks again at the VMs alone, since something has happened to one. */
  async #refresh(): Promise<void> {
    if (this.#isRefreshing) return
    this.#isRefreshing = true
    await this.#options.clock.sleep(soonMs, new AbortController().signal)
    this.#isRefreshing = false
    await this.#sampler.follow()
    if (this.#before === null) return
    const round = { ...this.#before, vms: this.#sampler.sample() }
    this.#report(round, [])
  }

  #hear(heard: HeardEvent): void {
    if (heard.event !== 'lifecycle') return
    const { epochMs: atMs, tickMs } = this.#now()
    const { uuid, name } = heard.dom
    for (const listener of this.#onVm)
      listener({ uuid, name, event: heard.kind, detail: heard.detail, atMs, tickMs })
    this.#options.root.nudge()
    this.#begin(this.#refresh())
  }

  #report(round: Round, values: readonly Datapoint[]): void {
    const { root, history, arrayTitle, run, identity, sources = [] } = this.#options
    const now = this.#now()
    const judgement = this.#judge.judge(round, {
      values,
      root: root.view,
      left: this.#left,
      arrayTitle,
      historyProblem: history.problem,
      isSo: (code, subject) => this.#findings.has(code, subject),
    })
    const conditions = [...judgement.conditions, ...sources.flatMap((source) => source())]
    this.#findings.take({ ...judgement, conditions }, now)
    const { findings, hidden } = this.#findings.said()
    const seenMs = root.view.seen?.atMs
    const body: ReportBody = reportBody({
      run,
      host: { ...identity, bootedMs: this.#bootedMs(), startedMs: this.#startedMs },
      round,
      findings,
      hidden,
      root: root.view,
      rootStale: seenMs === undefined || now.epochMs - seenMs > rootStaleMs,
      values: [...this.#values.values()].filter(({ metric }) => METRICS[metric].per !== 'vm'),
      inventory: this.#inventory,
      inventoryProblem: this.#inventoryProblem,
      relay: this.#options.relay(),
    })
    if (!this.#reports.take(body, now.epochMs)) return
    const report = this.#reports.latest
    if (report !== null) for (const listener of this.#onReport) listener(report)
  }

  /** Keeps the last value of each metric of the host; what has not come again is of a part that is gone. */
  #keepValues(values: readonly Datapoint[]): void {
    for (const point of values)
      if (METRICS[point.metric].per !== 'vm') this.#values.set(valueName(point), point)
    const nowMs = this.#options.clock.epochMs()
    for (const [name, { metric, atMs }] of this.#values)
      if (nowMs - atMs > goneMs(metric)) this.#values.delete(name)
  }

  #trend({ slow }: Round): void {
    const { clock, history } = this.#options
    const tickMs = clock.steadyMs()
    if (slow.filesystems === null) return
    if (this.#trendTickMs !== null && tickMs - this.#trendTickMs < trendEveryMs) return
    this.#trendTickMs = tickMs
    this.#left.clear()
    const nowMs = clock.epochMs()
    for (const { mountpoint: part } of seenValue(slow.filesystems) ?? []) {
      const leftOf = (metric: MetricName, left: (value: number) => number): number | null => {
        const query = { metric, part, sinceMs: nowMs - trendSpanMs, everyMs: trendGrainMs }
        return timeLeft(history.read(query, nowMs).map(({ atMs, mean }) => ({ atMs, value: left(mean) })))
      }
      this.#left.set(part, {
        spaceMs: leftOf('filesystem.free', (bytes) => bytes),
        inodesMs: leftOf('filesystem.inodes-used', (percent) => 100 - percent),
      })
    }
  }

  /** Reads what the host is made of, once and whenever the kernel knows of other drives, NICs or memory. */
  async #readInventory(): Promise<void> {
    const round = this.#before
    if (round === null) return
    const { clock, inventory } = this.#options
    const { drives, nics, memory } = round.host
    const of = JSON.stringify([
      [...(seenValue(drives)?.keys() ?? [])],
      [...(seenValue(nics)?.keys() ?? [])],
      seenValue(memory)?.totalBytes,
    ])
    const isFailed = this.#inventoryProblem !== null
    const sinceMs = clock.steadyMs() - (this.#inventoryTickMs ?? Number.NEGATIVE_INFINITY)
    if (of === this.#inventoryOf && !(isFailed && sinceMs > inventoryAgainMs)) return
    this.#inventoryOf = of
    this.#inventoryTickMs = clock.steadyMs()
    try {
      this.#inventory = { value: await inventory(), atMs: clock.epochMs() }
      this.#inventoryProblem = null
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#inventoryProblem = problemOf(error).message
    }
  }
}

function listen<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}
