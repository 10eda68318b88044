// What CloudWatch is still to be told, on the disk: datapoints as statistic sets, log events, and what was sent and not yet answered.
//
// INVARIANTS
// - Nothing is sent that is not on the disk, and no batch is sent before the disk holds that it is.
// - A batch that was marked as sent when the process ended is one that nobody has an answer for.
// - A span of a series is one row: values of a span that a process which was killed had begun go into the same row.

import { randomUUID } from 'node:crypto'
import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import { type Database, databaseError, openDatabase, usedBytes } from '../host/files.ts'
import { Timeline, type Uptime } from './timeline.ts'

/** A row that waits, with the true time that it is told with (epoch milliseconds). */
export interface Row {
  readonly id: number
  readonly atMs: number
}

/** A statistic set: what one span of a series was like. */
export interface Datum extends Row {
  /** See rollup.ts. */
  readonly series: string
  readonly count: number
  readonly sum: number
  readonly low: number
  readonly high: number
}

/** A log event: JSON with an `id` that no other one has. */
export interface SpooledEvent extends Row {
  readonly key: string
  readonly body: string
}

/** What is sent as one request. `full`: more waits. `sentMs`: when it was marked as sent (true time). */
export interface Batch<One extends Row> {
  readonly id: number
  readonly rows: readonly One[]
  readonly full: boolean
  readonly sentMs: number
}

/** A batch without an answer. `askMs`: when it is to be asked after; null when nobody has said. True times. */
export interface Doubt {
  readonly id: number
  readonly sentMs: number
  readonly askMs: number | null
  /** The time that its oldest row is told with. */
  readonly oldestMs: number
}

/** How much one request may hold. `bytesOf` is an upper bound. */
export interface Limit<One extends Row> {
  readonly rows: number
  readonly bytes: number
  readonly spanMs: number
  readonly bytesOf: (row: One) => number
}

/** What has been counted since the spool was begun. */
export interface SpoolCounts {
  /** Accepted, also where that was known only by asking. */
  readonly sent: number
  /** Dropped for want of room. */
  readonly dropped: number
  /** Dropped for being older than is accepted. */
  readonly expired: number
  /** Refused for what they are. */
  readonly refused: number
  /** Never written, for the disk did not take them. */
  readonly unwritten: number
  /** Folded into coarser ones, which loses nothing but the moment. */
  readonly folded: number
}

/** What waits in one order, and how a row of it is read. */
export interface Queue<One extends Row> {
  readonly table: 'datums' | 'events'
  readonly columns: string
  readonly rowOf: (found: Readonly<Record<string, unknown>>, atMs: number, spool: string) => One
}

/** The datapoints that wait. */
export const DATUMS: Queue<Datum> = {
  table: 'datums',
  columns: '(SELECT key FROM series WHERE series.id = series) AS key, span, count, sum, low, high',
  rowOf: ({ id, key, count, sum, low, high }, atMs) => ({
    ...{ id: Number(id), atMs, series: String(key) },
    ...{ count: Number(count), sum: Number(sum), low: Number(low), high: Number(high) },
  }),
}

/** The log events that wait. */
export const EVENTS: Queue<SpooledEvent> = {
  table: 'events',
  columns: '0 AS span, body',
  rowOf({ id, body }, atMs, spool) {
    const key = `${spool}-${id}`
    return {
      ...{ id: Number(id), atMs, key },
      body: JSON.stringify({ id: key, atMs, ...JSON.parse(String(body)) }),
    }
  },
}

const tables = `
  CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value NOT NULL);
  CREATE TABLE IF NOT EXISTS boots (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, began INTEGER NOT NULL, ahead INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL);
  CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, sent INTEGER NOT NULL,
    oldest INTEGER NOT NULL, ask INTEGER);
  CREATE TABLE IF NOT EXISTS datums (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, boot INTEGER NOT NULL, tick INTEGER NOT NULL,
    span INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, batch INTEGER, at INTEGER,
    UNIQUE (series, boot, tick, span));
  CREATE INDEX IF NOT EXISTS datums_order ON datums (batch, boot, tick);
  CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, boot INTEGER NOT NULL, tick INTEGER NOT NULL,
    body TEXT NOT NULL, batch INTEGER, at INTEGER);
  CREATE INDEX IF NOT EXISTS events_order ON events (batch, boot, tick);`

const minuteMs = 60_000
const hourMs = 60 * minuteMs
/** CloudWatch takes nothing that is older than two weeks; a request is under way for a while. */
const oldestMs = 14 * 24 * hourMs - 10 * minuteMs
/** Spans that old datapoints are folded into, each a multiple of the one before. */
const coarser: Readonly<Record<number, number>> = {
  [minuteMs]: 5 * minuteMs,
  [5 * minuteMs]: 15 * minuteMs,
  [15 * minuteMs]: hourMs,
}
/** Of what waits in memory because the disk does not take it. */
const mostUnwritten = 20_000

interface Tally {
  readonly key: string
  readonly tick: number
  readonly span: number
  count: number
  sum: number
  low: number
  high: number
}

/** What is needed to open a spool. */
export interface SpoolOptions {
  readonly path: string
  readonly uptime: Uptime
  readonly epochMs: () => number
}

/** The spool of this host. */
export class Spool {
  readonly timeline: Timeline
  readonly #database: Database
  readonly #path: string
  readonly #boot: number
  /** No other spool has it. */
  readonly #name: string
  readonly #ids = new Map<string, number>()
  #unwritten = new Map<string, Tally>()
  #lost = 0
  #problem: ProblemReport | null = null

  readonly #openProblem: ProblemReport | null

  private constructor(
    database: Database,
    { path, uptime, epochMs }: SpoolOptions,
    openProblem: ProblemReport | null,
  ) {
    this.#database = database
    this.#path = path
    this.#openProblem = openProblem
    const boot = database.prepare('SELECT id, began, ahead FROM boots WHERE name = ?').get(uptime.boot)
    const before = { beganMs: Number(boot?.began), offsetMs: Number(boot?.ahead) }
    this.timeline = new Timeline(uptime, epochMs, before)
    this.#boot = Number(boot?.id)
    this.#name = String(this.#kept('id'))
  }

  /**
   * Opens it, made if it is missing, or if it was damaged. Where it cannot be opened it is in memory alone, and `problem` says so: a
   * host whose drive is full can still be told of.
   */
  static async open(
    options: SpoolOptions,
  ): Promise<{ readonly spool: Spool; readonly damagedPath: string | null }> {
    const { database, damagedPath, problem } = await openDatabase(options.path, {
      synchronous: 'normal',
      prepare(one) {
        one.exec(tables)
        one.prepare("INSERT OR IGNORE INTO kept VALUES ('id', ?)").run(randomUUID().slice(0, 8))
        const { beganMs } = new Timeline(options.uptime, options.epochMs, null)
        one
          .prepare('INSERT OR IGNORE INTO boots (name, began, ahead) VALUES (?, ?, 0)')
          .run(options.uptime.boot, beganMs)
      },
    })
    return { spool: new Spool(database, options, problem), damagedPath }
  }

  /** Why it is in memory alone, or why the disk took nothing the last time; null when it did. */
  get problem(): ProblemReport | null {
    return this.#openProblem ?? this.#problem
  }

  /** Takes values in, each by the key of its series, into the span of now. On return they are on the disk, or wait until it takes them. */
  add(values: readonly { readonly key: string; readonly value: number }[], spanMs: number): void {
    const tick = Math.floor(this.timeline.tick() / spanMs) * spanMs
    for (const { key, value } of values) {
      const at = `${tick}\0${key}`
      const tally = this.#unwritten.get(at)
      if (tally !== undefined) {
        tally.count += 1
        tally.sum += value
        tally.low = Math.min(tally.low, value)
        tally.high = Math.max(tally.high, value)
      } else if (this.#unwritten.size < mostUnwritten)
        this.#unwritten.set(at, { key, tick, span: spanMs, count: 1, sum: value, low: value, high: value })
      else this.#lost += 1
    }
    this.#attempt(() => {
      const insert = this.#database.prepare(
        `INSERT INTO datums (series, boot, tick, span, count, sum, low, high) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
          ON CONFLICT DO UPDATE SET count = count + excluded.count, sum = sum + excluded.sum,
            low = MIN(low, excluded.low), high = MAX(high, excluded.high)`,
      )
      for (const { key, tick: at, span, count, sum, low, high } of this.#unwritten.values())
        insert.run(this.#seriesId(key), this.#boot, at, span, count, sum, low, high)
      if (this.#lost > 0) this.#count('unwritten', this.#lost)
    })
    if (this.#problem !== null) return
    this.#unwritten = new Map()
    this.#lost = 0
  }

  /** Takes events in, of now, and remembers `told` with them. Where the disk does not take them, they are counted as unwritten. */
  addEvents(bodies: readonly object[], told: string): void {
    const tick = Math.round(this.timeline.tick())
    this.#attempt(() => {
      const insert = this.#database.prepare('INSERT INTO events (boot, tick, body) VALUES (?, ?, ?)')
      for (const body of bodies) insert.run(this.#boot, tick, JSON.stringify(body))
      this.#keep('told', told)
    })
    if (this.#problem !== null) this.#lost += bodies.length
  }

  /** What was remembered by a name; null when nothing was. */
  recall(name: 'settings' | 'told'): string | null {
    const value = this.#kept(name)
    return value === undefined ? null : String(value)
  }

  /** Remembers a text by a name. */
  remember(name: 'settings' | 'told', text: string): void {
    this.#attempt(() => this.#keep(name, text))
  }

  /** Tells what kept the spool from being read. */
  fail(error: unknown): void {
    this.#problem = problemOf(databaseError('read', this.#path, error))
  }

  /** Marks what is oldest, as far as it fits into one request, as sent from now on; null when nothing waits, or the disk takes no mark. */
  take<One extends Row>(
    { table, columns, rowOf }: Queue<One>,
    limit: Limit<One>,
    ids?: readonly number[],
  ): Batch<One> | null {
    return this.#durably(() => {
      const offsetMs = this.timeline.offsetMs
      this.#database.prepare('UPDATE boots SET ahead = ? WHERE id = ?').run(offsetMs, this.#boot)
      const only = ids === undefined ? '' : `AND id IN (${ids.join(',')})`
      const span = table === 'datums' ? 'span' : '0'
      const found = this.#database
        .prepare(
          `SELECT id, tick, (SELECT ahead FROM boots WHERE boots.id = boot) AS ahead, ${columns} FROM ${table}
            WHERE batch IS NULL AND (boot < ?1 OR tick + ${span} <= ?2) ${only} ORDER BY boot, tick, id LIMIT ?3`,
        )
        .iterate(this.#boot, Math.floor(this.timeline.tick()), limit.rows)
      const rows: One[] = []
      let bytes = 0
      let full = false
      for (const one of found) {
        // A span is told by its beginning; which one of the true time it is, its middle decides.
        const wholeMs = Number(one.span)
        const trulyMs = Number(one.tick) + Number(one.ahead)
        const atMs = wholeMs === 0 ? trulyMs : Math.floor((trulyMs + wholeMs / 2) / wholeMs) * wholeMs
        const row = rowOf(one, atMs, this.#name)
        bytes += limit.bytesOf(row)
        const [first = row] = rows
        full = rows.length > 0 && (bytes > limit.bytes || row.atMs - first.atMs > limit.spanMs)
        if (full) break
        rows.push(row)
      }
      if (rows.length === 0) return null
      full ||= rows.length === limit.rows
      const sentMs = Math.round(this.timeline.nowMs())
      const { lastInsertRowid } = this.#database
        .prepare('INSERT INTO batches (queue, sent, oldest) VALUES (?, ?, ?)')
        .run(table, sentMs, Math.min(...rows.map(({ atMs }) => atMs)))
      const mark = this.#database.prepare(`UPDATE ${table} SET batch = ?, at = ? WHERE id = ?`)
      for (const { id, atMs } of rows) mark.run(lastInsertRowid, atMs, id)
      return { id: Number(lastInsertRowid), rows, full, sentMs }
    })
  }

  /** The batches that nobody has an answer for, oldest first. Not to be called while one of the queue is under way. */
  doubts({ table }: Pick<Queue<Row>, 'table'>): readonly Doubt[] {
    return this.#database
      .prepare('SELECT id, sent, oldest, ask FROM batches WHERE queue = ? ORDER BY id')
      .all(table)
      .map(({ id, sent, oldest, ask }) => ({
        ...{ id: Number(id), sentMs: Number(sent), oldestMs: Number(oldest) },
        askMs: ask === null ? null : Number(ask),
      }))
  }

  /** The rows of a batch. */
  rowsOf<One extends Row>({ table, columns, rowOf }: Queue<One>, batch: number): readonly One[] {
    return this.#database
      .prepare(`SELECT id, at, ${columns} FROM ${table} WHERE batch = ? ORDER BY boot, tick, id`)
      .all(batch)
      .map((row) => rowOf(row, Number(row.at), this.#name))
  }

  /** Ends a batch: forgets rows that are told or never will be, and counts them; the others wait again. */
  settle(
    { table }: Pick<Queue<Row>, 'table'>,
    batch: number,
    done: Readonly<Partial<Record<keyof SpoolCounts, readonly number[]>>>,
  ): void {
    this.#durably(() => {
      for (const [as, ids] of Object.entries(done)) this.#forgetRows(table, ids, as as keyof SpoolCounts)
      this.#database.prepare(`UPDATE ${table} SET batch = NULL, at = NULL WHERE batch = ?`).run(batch)
      this.#database.prepare('DELETE FROM batches WHERE id = ?').run(batch)
      return true
    })
  }

  /** Forgets rows that wait. */
  forget({ table }: Pick<Queue<Row>, 'table'>, ids: readonly number[], as: keyof SpoolCounts): void {
    this.#durably(() => {
      this.#forgetRows(table, ids, as)
      return true
    })
  }

  /** Keeps a batch apart until it is asked after (true time). */
  askAt(batch: number, askMs: number): void {
    this.#durably(() => {
      this.#database.prepare('UPDATE batches SET ask = ? WHERE id = ?').run(askMs, batch)
      return true
    })
  }

  /** Drops what is too old to be taken, and makes room where more waits than may: first by coarser spans, and only then by dropping. */
  tidy(mostBytes: number): void {
    this.#attempt(() => {
      const oldest = Math.round(this.timeline.nowMs() - oldestMs)
      for (const { id = null, ahead } of this.#database.prepare('SELECT id, ahead FROM boots').all())
        for (const table of ['datums', 'events']) {
          const tooOld = oldest - Number(ahead)
          const forget = `DELETE FROM ${table} WHERE boot = ?1 AND tick < ?2`
          const { changes } = this.#database.prepare(`${forget} AND batch IS NULL`).run(id, tooOld)
          const { changes: doubtful } = this.#database
            .prepare(`${forget} AND batch IN (SELECT id FROM batches)`)
            .run(id, tooOld)
          this.#count('expired', Number(changes) + Number(doubtful))
        }
      this.#database.exec(`DELETE FROM batches WHERE id NOT IN
        (SELECT batch FROM datums WHERE batch > 0 UNION SELECT batch FROM events WHERE batch > 0)`)
      // A half of the room is for events: they tell more each, and are the same report again and again.
      for (let rounds = 0; rounds < 100 && this.#eventBytes() > mostBytes / 2; rounds += 1)
        if (!this.#dropOldest('events')) break
      for (let rounds = 0; rounds < 100 && this.usedBytes() > mostBytes; rounds += 1)
        if (!this.#fold() && !this.#dropOldest('datums')) break
      this.#database
        .prepare(
          'DELETE FROM boots WHERE id <> ? AND id NOT IN (SELECT boot FROM datums UNION SELECT boot FROM events)',
        )
        .run(this.#boot)
    })
    this.#attempt(() => this.#database.exec('PRAGMA incremental_vacuum'))
  }

  /** How much the disk holds that is in use. */
  usedBytes(): number {
    return usedBytes(this.#database)
  }

  /** How many rows of a queue wait, in doubt ones among them, how many those are, and since when the oldest (true time). */
  waiting({ table }: Pick<Queue<Row>, 'table'>): {
    readonly rows: number
    readonly doubtful: number
    readonly sinceMs: number | null
  } {
    const found = this.#database
      .prepare(
        `SELECT COUNT(*) AS count, COUNT(batch) AS doubtful, MIN(tick + ahead) AS since FROM ${table} JOIN boots ON boots.id = boot`,
      )
      .get()
    const { count = 0, doubtful = 0, since = null } = found ?? {}
    return { rows: Number(count), doubtful: Number(doubtful), sinceMs: since === null ? null : Number(since) }
  }

  counts(): SpoolCounts {
    const number = (name: keyof SpoolCounts) => Number(this.#kept(name) ?? 0)
    return {
      sent: number('sent'),
      dropped: number('dropped'),
      expired: number('expired'),
      refused: number('refused'),
      unwritten: number('unwritten') + this.#lost,
      folded: number('folded'),
    }
  }

  /** Ends; what waits is on the disk. */
  close(): void {
    this.#database.close()
  }

  #eventBytes(): number {
    const found = this.#database.prepare('SELECT COALESCE(SUM(LENGTH(body)), 0) AS bytes FROM events').get()
    return Number(found?.bytes)
  }

  /** Folds the older half of what has the finest span into a coarser one; false when none can be folded. */
  #fold(): boolean {
    for (const [fine, coarse] of Object.entries(coarser)) {
      const among = `FROM datums WHERE batch IS NULL AND span = ${fine}`
      const middle = this.#database
        .prepare(
          `SELECT boot, tick ${among} ORDER BY boot, tick LIMIT 1 OFFSET (SELECT COUNT(*) / 2 ${among})`,
        )
        .get()
      if (middle === undefined) continue
      // Whole hours, so that no span is folded in part.
      const until = Math.floor(Number(middle.tick) / hourMs) * hourMs
      const old = `${among} AND (boot < ${Number(middle.boot)} OR boot = ${Number(middle.boot)} AND tick < ${until})`
      const before = Number(this.#database.prepare(`SELECT COUNT(*) AS count ${old}`).get()?.count)
      if (before === 0) continue
      this.#database.exec(`
        CREATE TEMP TABLE folding AS SELECT series, boot, tick / ${coarse} * ${coarse} AS start, SUM(count) AS count, SUM(sum) AS sum,
          MIN(low) AS low, MAX(high) AS high ${old} GROUP BY series, boot, start;
        DELETE ${old};
        INSERT INTO datums (series, boot, tick, span, count, sum, low, high)
          SELECT series, boot, start, ${coarse}, count, sum, low, high FROM folding WHERE true
          ON CONFLICT DO UPDATE SET count = count + excluded.count, sum = sum + excluded.sum,
            low = MIN(low, excluded.low), high = MAX(high, excluded.high), span = excluded.span;
        DROP TABLE folding`)
      this.#count('folded', before)
      return true
    }
    return false
  }

  /** Drops the oldest tenth of what waits; false when nothing does. */
  #dropOldest(table: 'datums' | 'events'): boolean {
    const waits = `FROM ${table} WHERE batch IS NULL`
    const { changes } = this.#database
      .prepare(
        `DELETE FROM ${table} WHERE id IN
          (SELECT id ${waits} ORDER BY boot, tick LIMIT (SELECT (COUNT(*) + 9) / 10 ${waits}))`,
      )
      .run()
    this.#count('dropped', Number(changes))
    return Number(changes) > 0
  }

  #forgetRows(table: string, ids: readonly number[], as: keyof SpoolCounts): void {
    const forget = this.#database.prepare(`DELETE FROM ${table} WHERE id = ?`)
    let forgotten = 0
    for (const id of ids) forgotten += Number(forget.run(id).changes)
    this.#count(as, forgotten)
  }

  #seriesId(key: string): number {
    const known = this.#ids.get(key)
    if (known !== undefined) return known
    this.#database.prepare('INSERT OR IGNORE INTO series (key) VALUES (?)').run(key)
    const id = Number(this.#database.prepare('SELECT id FROM series WHERE key = ?').get(key)?.id)
    this.#ids.set(key, id)
    return id
  }

  #keep(name: string, value: string): void {
    this.#database.prepare('INSERT OR REPLACE INTO kept VALUES (?, ?)').run(name, value)
  }

  #kept(name: string): unknown {
    return this.#database.prepare('SELECT value FROM kept WHERE name = ?').get(name)?.value
  }

  #count(name: keyof SpoolCounts, more: number): void {
    if (more === 0) return
    this.#database
      .prepare('INSERT INTO kept VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value')
      .run(name, more)
  }

  /** One change that outlives a power cut when this returns; null when the disk does not take it. */
  #durably<T>(work: () => T | null): T | null {
    this.#database.exec('PRAGMA synchronous = FULL')
    try {
      return this.#attempt(work) ?? null
    } finally {
      this.#database.exec('PRAGMA synchronous = NORMAL')
    }
  }

  /** All of it or nothing. */
  #attempt<T>(work: () => T): T | undefined {
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      const result = work()
      this.#database.exec('COMMIT')
      this.#problem = null
      return result
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      this.#ids.clear()
      const told = databaseError('write', this.#path, error)
      if (!(told instanceof HostError)) throw told
      this.#problem = told.report()
      return undefined
    }
  }
}
