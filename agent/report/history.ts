// What was measured, kept on this host: three grains of time in one database of SQLite, bounded in age and size.
//
// INVARIANTS
// - A row is all values of one span of time, so that a minute costs one small write however many VMs there are.
// - The rows of the present are rewritten whole: a process that is killed loses at most the minute that had not ended.
// - Failing to write never keeps the daemon from its work; it is told, and what could not be written is a gap.

import { type Datapoint, type MetricName, partOf } from '../../provisioning/metrics.ts'
import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { type Database, databaseError, openDatabase, usedBytes } from '../host/files.ts'
import type { StandingFinding } from './standing-findings.ts'

/** One span of time. */
export interface Point {
  /** Its beginning, epoch milliseconds. */
  readonly atMs: number
  /** How many values there were. */
  readonly count: number
  readonly low: number
  readonly high: number
  readonly mean: number
}

/** What is to be read. `part` is the dimension of a metric that is not of the host as a whole. */
export interface HistoryQuery {
  readonly metric: MetricName
  readonly part?: string | undefined
  readonly sinceMs: number
  readonly untilMs?: number | undefined
  /** No finer than this. */
  readonly everyMs?: number | undefined
}

interface Tally {
  count: number
  low: number
  high: number
  mean: number
}

const minuteMs = 60_000
const dayMs = 86_400_000

/** How fine, and for how long. */
const grains = [
  { table: 'minutes', everyMs: minuteMs, keptMs: dayMs },
  { table: 'quarters', everyMs: 15 * minuteMs, keptMs: 14 * dayMs },
  { table: 'watches', everyMs: 180 * minuteMs, keptMs: 400 * dayMs },
] as const
const [, , coarsest] = grains

const tables = `
  CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY AUTOINCREMENT, metric TEXT NOT NULL, part TEXT NOT NULL,
    seen INTEGER NOT NULL, UNIQUE (metric, part));
  CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
  ${grains.map(({ table }) => `CREATE TABLE IF NOT EXISTS ${table} (at INTEGER PRIMARY KEY, tallies BLOB NOT NULL);`).join('\n')}`

/** Of one series in a row: its id, how many, low, high (float32) and mean (float64). */
const tallyBytes = 24

function packed(tallies: ReadonlyMap<number, Tally>): Uint8Array {
  const view = new DataView(new ArrayBuffer(tallies.size * tallyBytes))
  let at = 0
  for (const [id, { count, low, high, mean }] of tallies) {
    view.setUint32(at, id)
    view.setUint32(at + 4, count)
    view.setFloat32(at + 8, low)
    view.setFloat32(at + 12, high)
    view.setFloat64(at + 16, mean)
    at += tallyBytes
  }
  return new Uint8Array(view.buffer)
}

function* unpacked(bytes: Uint8Array): Generator<readonly [id: number, tally: Tally]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at + tallyBytes <= view.byteLength; at += tallyBytes)
    yield [
      view.getUint32(at),
      {
        count: view.getUint32(at + 4),
        low: view.getFloat32(at + 8),
        high: view.getFloat32(at + 12),
        mean: view.getFloat64(at + 16),
      },
    ]
}

/** One series of a row, without unpacking the others. */
function tallyOf(bytes: Uint8Array, id: number): Tally | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at + tallyBytes <= view.byteLength; at += tallyBytes)
    if (view.getUint32(at) === id) {
      const [, tally] = unpacked(bytes.subarray(at, at + tallyBytes)).next().value ?? []
      return tally ?? null
    }
  return null
}

/** A grain, and its span of now. */
interface Present {
  readonly grain: (typeof grains)[number]
  at: number
  tallies: Map<number, Tally>
}

/** More series than a host ever has at once: the names of VMs that come and go must not fill the file. */
const mostSeries = 20_000

/** How much of a history that has no file is kept. */
const inMemoryBytes = 8 * 2 ** 20

/** How many reports may have been made since the last generation was written down. */
const generationsAhead = 10_000

/** The history of this host. */
export class History {
  readonly #database: Database
  readonly #path: string
  readonly #mostBytes: number
  readonly #openProblem: ProblemReport | null
  /** The ids of series, until some are forgotten. */
  readonly #ids = new Map<string, number>()
  readonly #presents: readonly Present[] = grains.map((grain) => ({ grain, at: -1, tallies: new Map() }))
  #problem: ProblemReport | null = null
  #keptFindings = ''
  #generation: number

  private constructor(
    database: Database,
    path: string,
    mostBytes: number,
    openProblem: ProblemReport | null,
  ) {
    this.#database = database
    this.#path = path
    this.#mostBytes = mostBytes
    this.#openProblem = openProblem
    this.#generation = Number(this.#recall('generation') ?? -generationsAhead) + generationsAhead
    // At once, for a process that is killed early has told reports too.
    this.#attempt('write', () => this.#remember('generation', String(this.#generation)))
    this.#keptFindings = this.#recall('findings') ?? '[]'
  }

  /**
   * Opens it, made if it is missing, or if it was damaged. Where it cannot be opened (a full drive, one that can only be read) it is
   * kept in memory and `problem` says so: then more than ever somebody must watch.
   */
  static async open(
    path: string,
    { mostBytes = 128 * 2 ** 20 }: { readonly mostBytes?: number } = {},
  ): Promise<{ readonly history: History; readonly damagedPath: string | null }> {
    const { database, damagedPath, problem } = await openDatabase(path, {
      // A power cut may take the last minutes along, and they are not worth a flush of the drive each minute.
      synchronous: 'normal',
      prepare: (one) => one.exec(tables),
    })
    const bytes = problem === null ? mostBytes : inMemoryBytes
    return { history: new History(database, path, bytes, problem), damagedPath }
  }

  /** Why it could not be opened, or not written the last time; null when it could. */
  get problem(): ProblemReport | null {
    return this.#openProblem ?? this.#problem
  }

  /** The generation to go on from: no report had a higher one. */
  generation(): number {
    return this.#generation
  }

  /** The findings that stood when they were last kept. */
  findings(): readonly StandingFinding[] {
    return JSON.parse(this.#keptFindings)
  }

  /** Goes on to the span of time that it is now, and writes down those that have ended. */
  turn(nowMs: number): void {
    if (this.#presents[0]?.at === Math.floor(nowMs / minuteMs)) return
    this.#attempt('write', () => {
      this.#write()
      for (const present of this.#presents) {
        const at = Math.floor(nowMs / present.grain.everyMs)
        if (present.at === at) continue
        // In the coarsest grain alone, for one that was seen in it has values for as long.
        if (present.grain === coarsest) this.#forgetSeries(present, nowMs)
        present.at = at
        present.tallies = new Map(unpacked(this.#row(present.grain.table, at)))
      }
      this.#shrink(nowMs)
    })
  }

  /** Takes values into the span of now. */
  add(values: readonly Datapoint[]): void {
    this.#attempt('read', () => {
      for (const point of values) {
        const id = this.#idOf(point.metric, partOf(point) ?? '')
        for (const { tallies } of this.#presents) {
          const tally = tallies.get(id)
          const { value } = point
          if (tally === undefined) tallies.set(id, { count: 1, low: value, high: value, mean: value })
          else {
            tally.count += 1
            tally.low = Math.min(tally.low, value)
            tally.high = Math.max(tally.high, value)
            tally.mean += (value - tally.mean) / tally.count
          }
        }
      }
    })
  }

  /** Keeps what stands, at once when it has changed, and the generation with it. */
  keep(findings: readonly StandingFinding[], generation: number): void {
    this.#generation = Math.max(this.#generation, generation)
    const text = JSON.stringify(findings)
    if (text === this.#keptFindings) return
    this.#attempt('write', () => {
      this.#remember('findings', text)
      this.#remember('generation', String(this.#generation))
      this.#keptFindings = text
    })
  }

  /** The parts that a metric was told of, in the order of their names; none for the host as a whole. */
  partsOf(metric: MetricName): readonly string[] {
    const rows = this.#database.prepare('SELECT part FROM series WHERE metric = ? ORDER BY part').all(metric)
    return rows.map(({ part }) => String(part)).filter((part) => part !== '')
  }

  /** How fine a query is answered: as fine as is kept for so long. */
  everyMs({ sinceMs, everyMs = 0 }: HistoryQuery, nowMs: number): number {
    return this.#grainFor(nowMs - sinceMs, everyMs).everyMs
  }

  /** What was measured, oldest first; spans without a value are left out. */
  read(query: HistoryQuery, nowMs: number): readonly Point[] {
    const { metric, part = '', sinceMs, untilMs = nowMs, everyMs = 0 } = query
    const found = this.#database
      .prepare('SELECT id FROM series WHERE metric = ? AND part = ?')
      .get(metric, part)
    if (found === undefined) return []
    const id = Number(found.id)
    const grain = this.#grainFor(nowMs - sinceMs, everyMs)
    const present = this.#presents.find((one) => one.grain === grain)
    const points: Point[] = []
    const [from, to] = [Math.floor(sinceMs / grain.everyMs), Math.floor(untilMs / grain.everyMs)]
    const add = (at: number, tally: Tally | null | undefined) => {
      if (tally) points.push({ atMs: at * grain.everyMs, ...tally })
    }
    const rows = this.#database.prepare(
      `SELECT at, tallies FROM ${grain.table} WHERE at BETWEEN ? AND ? ORDER BY at`,
    )
    for (const { at, tallies } of rows.iterate(from, to))
      if (at !== present?.at && tallies instanceof Uint8Array) add(Number(at), tallyOf(tallies, id))
    if (present !== undefined && present.at >= from && present.at <= to)
      add(present.at, present.tallies.get(id))
    return points.sort((a, b) => a.atMs - b.atMs)
  }

  /** Writes down everything and ends. */
  close(): void {
    this.#attempt('write', () => this.#write())
    this.#database.close()
  }

  #grainFor(spanMs: number, leastMs: number): (typeof grains)[number] {
    return grains.find(({ keptMs, everyMs }) => spanMs <= keptMs && everyMs >= leastMs) ?? coarsest
  }

  #row(table: string, at: number): Uint8Array {
    const found = this.#database.prepare(`SELECT tallies FROM ${table} WHERE at = ?`).get(at)
    return found?.tallies instanceof Uint8Array ? found.tallies : new Uint8Array()
  }

  #recall(name: string): string | null {
    const found = this.#database.prepare('SELECT value FROM kept WHERE name = ?').get(name)
    return found === undefined ? null : String(found.value)
  }

  #remember(name: string, value: string): void {
    this.#database.prepare('INSERT OR REPLACE INTO kept VALUES (?, ?)').run(name, value)
  }

  #idOf(metric: MetricName, part: string): number {
    const key = `${metric}\0${part}`
    const known = this.#ids.get(key)
    if (known !== undefined) return known
    const database = this.#database
    const nowMs = (this.#presents[0]?.at ?? 0) * minuteMs
    database
      .prepare('INSERT OR IGNORE INTO series (metric, part, seen) VALUES (?, ?, ?)')
      .run(metric, part, nowMs)
    const found = database.prepare('SELECT id FROM series WHERE metric = ? AND part = ?').get(metric, part)
    const id = Number(found?.id)
    this.#ids.set(key, id)
    return id
  }

  /** Writes all of it or none. */
  #atOnce(write: () => void): void {
    this.#database.exec('BEGIN IMMEDIATE')
    try {
      write()
      this.#database.exec('COMMIT')
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    }
  }

  /** The spans of now. */
  #write(): void {
    if (this.#presents.every(({ at }) => at === -1)) return
    this.#atOnce(() => {
      for (const { grain, at, tallies } of this.#presents)
        if (tallies.size > 0)
          this.#database
            .prepare(`INSERT OR REPLACE INTO ${grain.table} VALUES (?, ?)`)
            .run(at, packed(tallies))
      this.#remember('generation', String(this.#generation))
    })
  }

  /** Notes which series there were in a span that has ended, and forgets those that have no value any more, or are too many. */
  #forgetSeries({ at, tallies }: Present, nowMs: number): void {
    const database = this.#database
    const seenMs = at * coarsest.everyMs
    this.#atOnce(() => {
      const note = database.prepare('UPDATE series SET seen = ? WHERE id = ?')
      for (const id of tallies.keys()) note.run(seenMs, id)
      database.prepare('DELETE FROM series WHERE seen < ?').run(nowMs - coarsest.keptMs)
      database
        .prepare(
          'DELETE FROM series WHERE id IN (SELECT id FROM series ORDER BY seen DESC LIMIT -1 OFFSET ?)',
        )
        .run(mostSeries)
    })
    this.#ids.clear()
  }

  /** Forgets what is too old, and more of the grain that takes most while all of it is too large. */
  #shrink(nowMs: number): void {
    for (const { table, everyMs, keptMs } of grains)
      this.#database.prepare(`DELETE FROM ${table} WHERE at < ?`).run(Math.floor((nowMs - keptMs) / everyMs))
    while (usedBytes(this.#database) > this.#mostBytes) {
      const largest = grains
        .map(({ table }) => ({
          table,
          ...this.#database
            .prepare(`SELECT COUNT(*) AS rows, COALESCE(SUM(LENGTH(tallies)), 0) AS bytes FROM ${table}`)
            .get(),
        }))
        .map(({ table, rows, bytes }: { table: string; rows?: unknown; bytes?: unknown }) => ({
          table,
          rows: Number(rows),
          bytes: Number(bytes),
        }))
        .sort((a, b) => b.bytes - a.bytes)[0]
      if (largest === undefined || largest.rows < 10) break
      this.#database.exec(
        `DELETE FROM ${largest.table} WHERE at IN
          (SELECT at FROM ${largest.table} ORDER BY at LIMIT ${Math.ceil(largest.rows / 10)})`,
      )
    }
    this.#database.exec('PRAGMA incremental_vacuum')
  }

  #attempt(doing: 'read' | 'write', work: () => void): void {
    try {
      work()
      if (doing === 'write') this.#problem = null
    } catch (error) {
      const told = databaseError(doing, this.#path, error)
      if (!(told instanceof HostError)) throw told
      this.#problem = told.report()
    }
  }
}
