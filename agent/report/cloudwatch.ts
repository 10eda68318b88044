// Tells CloudWatch of this host what the desired document wants told: values into the spool, and on a jittered beat out of it.
//
// INVARIANTS
// - What is measured goes to the disk at once; sending is another matter, and may fail for two weeks.
// - After failures it is tried again after one minute, two, four, and then every five: never less often, however long it lasts.

import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'
import type { Datapoint } from '../../provisioning/metrics.ts'
import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { databaseError } from '../host/files.ts'
import { amount } from './amounts.ts'
import { changesOf, type LastTold, nothingTold, toldOf } from './changes.ts'
import type { Clock } from './clock.ts'
import type { Errand } from './errand.ts'
import { type LogsOptions, streamOf } from './logs-door.ts'
import type { MetricsOptions } from './metrics-door.ts'
import { type DoneFor, Relaying } from './relaying.ts'
import type { Report } from './report-schema.ts'
import { Rollup } from './rollup.ts'
import { type Door, Sender, type Sending } from './sending.ts'
import {
  DATUMS,
  type Datum,
  EVENTS,
  type Row,
  type Spool,
  type SpoolCounts,
  type SpooledEvent,
} from './spool.ts'
import type { Condition } from './standing-findings.ts'
import { type Peers, Ways } from './ways.ts'

/** A door that is closed when it is not needed any more. */
type Closable<D> = D & { close(): void }

/** What it stands on. */
export interface CloudWatchOptions {
  readonly clock: Clock
  readonly spool: Spool
  /** What the desired document says of CloudWatch; null: nothing. Throws a HostError when that is not known. */
  readonly settings: () => Promise<DesiredCloudWatch | null>
  /** The Region of this instance; null off EC2. Throws a HostError. */
  readonly region: () => Promise<string | null>
  readonly host: string
  readonly instance: string
  readonly openMetrics: (options: MetricsOptions) => Promise<Closable<Door<Datum>>>
  readonly openLogs: (options: LogsOptions) => Promise<Closable<Door<SpooledEvent>>>
  /** The peers that may be asked to send while the Region is not reached. */
  readonly peers: Peers
  /** From 0 up to 1, another one on each host. */
  readonly jitter: number
}

/** One queue, as `garrison cloudwatch` tells it. Times are epoch milliseconds by the server. */
export interface QueueOverview extends Omit<Sending, 'failures'> {
  readonly waiting: number
  readonly doubtful: number
  readonly waitingSinceMs: number | null
}

/** How telling CloudWatch stands. */
export interface CloudWatchOverview {
  readonly told: DesiredCloudWatch | null
  readonly region: string | null
  readonly metrics: QueueOverview
  /** Null when no events are wanted. */
  readonly events: QueueOverview | null
  readonly counts: SpoolCounts
  readonly spoolBytes: number
  /** How far the clock is from the server's. */
  readonly skewMs: number
  /** How many series were told of within the last hour, by metric. */
  readonly series: Readonly<Record<string, number>>
  /** Bytes of events that were made since the daemon began, of whole reports and of changes, and in how long. */
  readonly made: { readonly reportBytes: number; readonly changeBytes: number; readonly spanMs: number }
  /** The peer that sends for this host while the Region is not reached, and since when it is not; null while none does. */
  readonly relayed: { readonly by: string; readonly sinceMs: number } | null
  /** What this host has sent for peers since the daemon began, by their names. */
  readonly relayedFor: Readonly<Record<string, DoneFor>>
}

/** What is open, and for which Region and settings. */
interface Doors {
  readonly of: string
  readonly metrics: Closable<Door<Datum>>
  readonly logs: Closable<Door<SpooledEvent>> | null
  /** The same with the detour through peers, where that is wanted. */
  readonly ways: { readonly metrics: Door<Datum>; readonly logs: Door<SpooledEvent> | null }
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
/** What was measured in the last round of a span is written by then. */
const leastPhaseMs = 3000
const jitterMs = 45_000
const mostPauseMinutes = 5
const silentMs = 10 * minuteMs
/** What CloudWatch Logs takes for one event. */
const mostEventBytes = 250_000

/** What of a report is told, within what one event may hold. */
function reportEvent(report: Report): object {
  const { vms, inventory, ...rest } = report
  const whole = { event: 'report', ...report }
  if (Buffer.byteLength(JSON.stringify(whole)) <= mostEventBytes) return whole
  const withoutVms = { event: 'report', ...rest, inventory, vms: [], left: ['vms'] }
  if (Buffer.byteLength(JSON.stringify(withoutVms)) <= mostEventBytes) return withoutVms
  const { run, generation, atMs, host, health, standing, ages } = rest
  return {
    ...{ event: 'report', schema: report.schema, run, generation, atMs, host, health, standing, ages },
    left: ['vms', 'inventory', 'metrics', 'findings', 'drift'],
  }
}

/** The telling of one host. */
export class CloudWatch {
  readonly #options: CloudWatchOptions
  readonly #metrics: Sender<Datum>
  readonly #events: Sender<SpooledEvent>
  readonly #phaseMs: number
  readonly #ways: Ways
  /** What peers have this host send. */
  readonly relaying: Relaying
  #settings: DesiredCloudWatch | null = null
  #settingsText = 'null'
  #settingsProblem: ProblemReport | null = null
  #regionProblem: ProblemReport | null = null
  #region: string | null = null
  #regionOfHost: string | null = null
  #rollup: Rollup | null = null
  #doors: Doors | null = null
  #told: LastTold | null = null
  #reportTick: number | null = null
  readonly #seen = new Map<string, number>()
  #made = { reportBytes: 0, changeBytes: 0 }
  readonly #startedTick: number
  #conditions: readonly Condition[] = []
  readonly #lost: { readonly before: number; seen: number; tick: number | null }

  constructor(options: CloudWatchOptions) {
    this.#options = options
    const { spool } = options
    this.#metrics = new Sender(spool, DATUMS, ({ series }) => series.replaceAll('\0', ' '))
    this.#events = new Sender(spool, EVENTS, ({ body }) => body.slice(0, 120))
    this.#phaseMs = leastPhaseMs + options.jitter * jitterMs
    this.#ways = new Ways(options.peers, () => spool.timeline.tick())
    this.relaying = new Relaying({
      ...options,
      own: () =>
        this.#settings === null || this.#region === null
          ? null
          : { settings: this.#settings, region: this.#region },
      epochMs: options.clock.epochMs,
    })
    this.#startedTick = spool.timeline.tick()
    const before = lostOf(spool.counts())
    this.#lost = { before, seen: before, tick: null }
    const kept = spool.recall('settings')
    // What was wanted before goes on until the document has been read.
    if (kept !== null) this.#take(JSON.parse(kept))
  }

  /** Takes the values of a round. */
  takeValues(values: readonly Datapoint[]): void {
    const rollup = this.#rollup
    if (rollup === null || this.#settings === null) return
    const { spool } = this.#options
    const tick = spool.timeline.tick()
    const sorted = values.flatMap((point) => rollup.keysOf(point).map((key) => ({ key, value: point.value })))
    for (const { key } of sorted) this.#seen.set(key, tick)
    if (sorted.length > 0) spool.add(sorted, this.#settings.everySeconds * 1000)
  }

  /** Takes a report that differs from the one before. */
  takeReport(report: Report): void {
    const { logs } = this.#settings ?? {}
    if (logs === undefined) return
    const { spool, host, instance } = this.#options
    this.#told ??= JSON.parse(spool.recall('told') ?? JSON.stringify(nothingTold)) as LastTold
    const tick = spool.timeline.tick()
    const now = toldOf(report, this.#told)
    const changes = logs.changes ? changesOf(report, this.#told, now) : []
    const isDue =
      logs.reportMinutes > 0 &&
      (this.#reportTick === null || tick - this.#reportTick >= logs.reportMinutes * minuteMs)
    const whole = isDue ? [reportEvent(report)] : []
    if (isDue) this.#reportTick = tick
    this.#told = now
    if (changes.length + whole.length === 0) return
    const events = [...changes, ...whole].map((event) => ({ host, instance, ...event }))
    spool.addEvents(events, JSON.stringify(now))
    const bytes = (some: readonly object[]) =>
      some.reduce((sum: number, one) => sum + Buffer.byteLength(JSON.stringify(one)) + 100, 0)
    this.#made.changeBytes += bytes(changes)
    this.#made.reportBytes += bytes(whole)
  }

  /** Goes on until the signal aborts. Rejects only when there is a defect. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, spool } = this.#options
    let triedTick = Number.NEGATIVE_INFINITY
    // What is under way is in doubt then, as after any other end, and asked after by who comes next.
    signal.addEventListener('abort', () => {
      this.#close()
      this.#ways.close()
      this.relaying.close()
    })
    await this.#refresh()
    while (!signal.aborted) {
      const spanMs = (this.#settings?.everySeconds ?? 60) * 1000
      const tick = spool.timeline.tick()
      const nextTick = Math.floor((tick - this.#phaseMs) / spanMs + 1) * spanMs + this.#phaseMs
      await clock.sleep(nextTick - tick, signal)
      if (signal.aborted) break
      await this.#refresh()
      const failures = Math.max(this.#metrics.standing.failures, this.#events.standing.failures)
      const pauseMs = failures === 0 ? 0 : Math.min(2 ** (failures - 1), mostPauseMinutes) * minuteMs
      // Half a minute of grace: the beats themselves are a minute apart.
      const isDue = spool.timeline.tick() - triedTick >= pauseMs - minuteMs / 2
      if (this.#settings !== null) spool.tidy(this.#settings.spoolMiB * 2 ** 20)
      if (isDue && this.#settings !== null) {
        triedTick = spool.timeline.tick()
        await this.#beat(signal)
      }
      this.#judge()
    }
  }

  /** Ends, once `run` has; what waits is on the disk. */
  close(): void {
    this.#close()
    this.#options.spool.close()
  }

  /** What is wrong with it now. */
  conditions(): readonly Condition[] {
    return this.#conditions
  }

  overview(): CloudWatchOverview {
    const { spool } = this.#options
    const queue = (
      sender: Sender<Datum> | Sender<SpooledEvent>,
      table: 'datums' | 'events',
    ): QueueOverview => {
      const { failures: _, ...standing } = sender.standing
      const { rows, doubtful, sinceMs } = spool.waiting({ table })
      return { ...standing, waiting: rows, doubtful, waitingSinceMs: sinceMs }
    }
    const tick = spool.timeline.tick()
    const series: Record<string, number> = {}
    for (const [key, seenTick] of this.#seen) {
      if (tick - seenTick > hourMs) this.#seen.delete(key)
      else {
        const [metric = ''] = key.split('\0')
        series[metric] = (series[metric] ?? 0) + 1
      }
    }
    return {
      told: this.#settings,
      region: this.#region,
      metrics: queue(this.#metrics, 'datums'),
      events: this.#settings?.logs === undefined ? null : queue(this.#events, 'events'),
      counts: spool.counts(),
      spoolBytes: spool.usedBytes(),
      skewMs: spool.timeline.skewMs,
      series,
      made: { ...this.#made, spanMs: tick - this.#startedTick },
      relayed: this.#relayed(),
      relayedFor: Object.fromEntries(this.relaying.done),
    }
  }

  /** What other hosts are told of it: whether this one sends for them, and who sends for it. */
  relay(): Report['relay'] {
    const { acceptedMs, problem } = this.#metrics.standing
    const isWell = acceptedMs !== null && problem === null && this.#ways.isDirect
    return { offers: this.#settings?.relay?.offer === true && isWell, by: this.#relayed()?.by ?? null }
  }

  #relayed(): CloudWatchOverview['relayed'] {
    const { detour } = this.#ways
    return (
      detour && {
        by: detour.by,
        sinceMs: Math.round(detour.sinceTick + this.#options.spool.timeline.offsetMs),
      }
    )
  }

  #take(settings: DesiredCloudWatch | null): void {
    this.#settings = settings
    this.#settingsText = JSON.stringify(settings)
    this.#rollup = settings === null ? null : new Rollup(settings)
    this.#seen.clear()
  }

  /** What is wanted now, and where it goes. */
  async #refresh(): Promise<void> {
    const { settings, region, spool } = this.#options
    try {
      const wanted = await settings()
      this.#settingsProblem = null
      const text = JSON.stringify(wanted)
      if (text !== this.#settingsText) {
        this.#take(wanted)
        spool.remember('settings', text)
      }
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      // What was wanted before is wanted still.
      this.#settingsProblem = error.report()
    }
    if (this.#settings === null) {
      this.#close()
      return
    }
    try {
      // That of an instance never changes, and each question to its metadata is a dozen requests.
      if (this.#settings.region === undefined) this.#regionOfHost ??= await region()
      this.#region = this.#settings.region ?? this.#regionOfHost ?? process.env.AWS_REGION ?? null
      this.#regionProblem =
        this.#region === null
          ? new HostError(
              'cloudwatch.no-region',
              'this host is no EC2 instance, and the document names no Region',
            ).report()
          : null
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#regionProblem = error.report()
    }
  }

  async #open(region: string): Promise<Doors> {
    const of = `${region} ${this.#settingsText}`
    if (this.#doors?.of === of) return this.#doors
    this.#close()
    const { host, instance, openMetrics, openLogs } = this.#options
    const { namespace = 'Garrison', logs, relay } = this.#settings ?? {}
    const metrics = await openMetrics({ region, namespace, host, instance })
    const events =
      logs === undefined ? null : await openLogs({ region, ...logs, stream: streamOf(host, instance) })
    const through = <One extends Row>(door: Door<One>, queue: Errand['queue'], into: string): Door<One> =>
      relay?.ask === true ? this.#ways.through(door, queue, { region, host, instance, into }) : door
    this.#doors = {
      ...{ of, metrics, logs: events },
      ways: {
        metrics: through(metrics, 'datums', namespace),
        logs: events && through(events, 'events', logs?.group ?? ''),
      },
    }
    return this.#doors
  }

  #close(): void {
    this.#doors?.metrics.close()
    this.#doors?.logs?.close()
    this.#doors = null
  }

  async #beat(signal: AbortSignal): Promise<void> {
    if (this.#region === null) return
    try {
      const { metrics, logs } = (await this.#open(this.#region)).ways
      await this.#metrics.beat(metrics, signal)
      if (logs !== null) await this.#events.beat(logs, signal)
    } catch (error) {
      // What the disk does with the spool is told as a finding; anything else is a defect.
      if (!(databaseError('read', 'the spool', error) instanceof HostError)) throw error
      this.#options.spool.fail(error)
    }
  }

  #judge(): void {
    this.#conditions = this.#settings === null ? [] : this.#found()
  }

  #found(): readonly Condition[] {
    const { spool } = this.#options
    const nowMs = spool.timeline.nowMs()
    const conditions: Condition[] = []
    const add = (code: string, severity: Condition['severity'], text: string, remedy?: string) =>
      conditions.push({ code, severity, text, ...(remedy !== undefined && { remedy }) })
    for (const problem of [this.#settingsProblem, this.#regionProblem])
      if (problem !== null) add('cloudwatch.settings', 'warning', problem.message, problem.remedy)
    for (const [sender, table] of [
      [this.#metrics, 'datums'],
      [this.#events, 'events'],
    ] as const) {
      const { problem, failingMs, failures, askProblem, refused } = sender.standing
      if (problem !== null && failingMs !== null) {
        const { rows } = spool.waiting({ table })
        const what = table === 'datums' ? 'datapoints' : 'events'
        const text = `${problem.message}; ${rows} ${what} wait on the disk`
        if (problem.code === 'cloudwatch.denied' && failures > 1)
          add('cloudwatch.denied', 'warning', text, problem.remedy)
        else if (nowMs - failingMs >= silentMs)
          add(
            'cloudwatch.silent',
            'warning',
            `nothing was taken for ${amount('milliseconds', nowMs - failingMs)}: ${text}`,
            problem.remedy,
          )
      }
      if (askProblem?.code === 'cloudwatch.denied')
        add('cloudwatch.cannot-ask', 'warning', askProblem.message, askProblem.remedy)
      if (refused !== null && nowMs - refused.atMs < dayMs)
        add('cloudwatch.refused', 'notice', `${refused.row}: ${refused.why}`)
    }
    const relayed = this.#relayed()
    if (relayed !== null)
      add(
        'cloudwatch.relayed',
        'notice',
        `the Region is not reached; ${relayed.by} tells CloudWatch of this host`,
      )
    if (spool.problem !== null) add('cloudwatch.spool-unwritable', 'warning', spool.problem.message)
    const lost = lostOf(spool.counts())
    if (lost > this.#lost.seen) {
      this.#lost.seen = lost
      this.#lost.tick = spool.timeline.tick()
    }
    if (this.#lost.tick !== null && spool.timeline.tick() - this.#lost.tick < dayMs)
      add(
        'cloudwatch.dropped',
        'warning',
        `${lost - this.#lost.before} datapoints and events were dropped since the daemon began`,
      )
    const skewMs = spool.timeline.skewMs
    if (Math.abs(skewMs) > minuteMs)
      add(
        'clock.skewed',
        'warning',
        `the clock is ${amount('milliseconds', Math.abs(skewMs))} ${skewMs > 0 ? 'ahead of' : 'behind'} what AWS says that the time is`,
      )
    return conditions
  }
}

const lostOf = ({ dropped, expired, unwritten }: SpoolCounts): number => dropped + expired + unwritten
