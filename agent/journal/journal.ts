// The journal: append-only lines `checksum JSON` in numbered files, on the disk before the host is touched.

import { createHash } from 'node:crypto'
import { open, readdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { JournalEntry, JournalWriter, UnfinishedStep } from '../../provisioning/host.ts'
import { OneByOne } from '../../provisioning/one-by-one.ts'
import { HostError } from '../../provisioning/problem.ts'
import { told } from '../../provisioning/told.ts'
import { appendLine, errnoOf, makeFolder, removeFile } from '../host/files.ts'

// INVARIANTS
// 1. One writer: the holder of the apply lock.
// 2. A file is never renamed; the one with the highest number is written, the lowest is removed first. So a reader that has
//    read a file to its end goes on in the next number.
// 3. A line is `16 hex digits of SHA-256`, space, JSON, line feed, written by one call. What is not that is damaged; a line that
//    begins inside a damaged one is found again, so damage costs the lines that it touches and no other.

/** How much is kept. */
export interface JournalLimits {
  /** A file that would grow beyond this is followed by the next. */
  readonly fileBytes: number
  readonly files: number
  /** A step is not begun with less room than this, so that its outcome can be written too. */
  readonly reserveBytes: number
}

const usualLimits: JournalLimits = { fileBytes: 8 * 2 ** 20, files: 8, reserveBytes: 2 ** 20 }

/** A line that is torn or was changed. `offset` is in bytes, `line` counts from 1. */
export interface DamagedLine {
  readonly file: string
  readonly line: number
  readonly offset: number
  readonly bytes: number
}

/** What a reader of the journal is given, oldest first. */
export type JournalRecord =
  | { readonly kind: 'entry'; readonly entry: JournalEntry }
  | { readonly kind: 'damaged'; readonly damaged: DamagedLine }

const lineFeed = 0x0a
const headBytes = 17
const pollMs = 250

const checksum = (json: string | Uint8Array): string =>
  createHash('sha256').update(json).digest('hex').slice(0, 16)

const encodeLine = (entry: JournalEntry): string => {
  const json = JSON.stringify(entry.kind === 'step-started' ? { ...entry, step: told(entry.step) } : entry)
  return `${checksum(json)} ${json}`
}

const decodeLine = (line: Buffer): JournalEntry | null => {
  if (line.length <= headBytes || line[headBytes - 1] !== 0x20) return null
  const json = line.subarray(headBytes)
  return checksum(json) === line.toString('latin1', 0, headBytes - 1)
    ? JSON.parse(json.toString('utf8'))
    : null
}

/** Where in a damaged line a whole one begins (a line feed before it was overwritten), or null. */
function findLine(line: Buffer): { readonly at: number; readonly entry: JournalEntry } | null {
  const text = line.toString('latin1')
  for (const { index } of text.matchAll(/(?=[0-9a-f]{16} \{)/g)) {
    const entry = index === 0 ? null : decodeLine(line.subarray(index))
    if (entry !== null) return { at: index, entry }
  }
  return null
}

const nameOf = (number: number): string => `${String(number).padStart(8, '0')}.jsonl`

/** Numbers of the journal's files in rising order; none when there is no folder. */
async function fileNumbers(folder: string): Promise<readonly number[]> {
  try {
    const names = await readdir(folder)
    return names
      .flatMap((name) => (/^\d{8}\.jsonl$/.test(name) ? Number.parseInt(name, 10) : []))
      .sort((a, b) => a - b)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw unreadable(folder, error)
  }
}

function unreadable(path: string, cause: unknown): unknown {
  const errno = errnoOf(cause)
  if (errno === undefined) return cause
  return new HostError(
    errno === 'EACCES' ? 'host.denied' : 'host.unreadable',
    `the journal ${path} could not be read (${errno})`,
    { details: { path, errno }, cause },
  )
}

/** One file of the journal, read so far. */
interface Position {
  readonly number: number
  readonly offset: number
  readonly line: number
}

/** The bytes of a file from `offset` on, or null when the file is gone (the oldest may be removed while it is read). */
async function bytesFrom(path: string, offset: number): Promise<Buffer | null> {
  try {
    const file = await open(path)
    try {
      const { size } = await file.stat()
      const buffer = Buffer.allocUnsafe(Math.max(0, size - offset))
      const { bytesRead } = await file.read(buffer, 0, buffer.length, offset)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    throw unreadable(path, error)
  }
}

interface Reading {
  readonly records: readonly JournalRecord[]
  readonly position: Position
}

/** Reads what has been added to a file since `position`; an unfinished last line only when `toEnd`. */
async function readOn(folder: string, position: Position, toEnd: boolean): Promise<Reading> {
  const file = join(folder, nameOf(position.number))
  const bytes = await bytesFrom(file, position.offset)
  const records: JournalRecord[] = []
  let [at, line] = [0, position.line]
  while (bytes !== null && at < bytes.length) {
    const feed = bytes.indexOf(lineFeed, at)
    if (feed === -1 && !toEnd) break
    const end = feed === -1 ? bytes.length : feed
    const content = bytes.subarray(at, end)
    const entry = decodeLine(content)
    const inner = entry === null ? findLine(content) : null
    if (entry !== null) records.push({ kind: 'entry', entry })
    // A line is empty where a torn one had lost nothing but its line feed.
    else if (content.length > 0)
      records.push({
        kind: 'damaged',
        damaged: { file, line, offset: position.offset + at, bytes: inner?.at ?? content.length },
      })
    if (inner !== null) records.push({ kind: 'entry', entry: inner.entry })
    at = end + 1
    line += 1
  }
  return { records, position: { number: position.number, offset: position.offset + at, line } }
}

/** What is asked of the journal. Times are epoch milliseconds. */
export interface JournalQuery {
  readonly sinceMs?: number
  /** Goes on with what is added until this signal is aborted. */
  readonly follow?: AbortSignal
}

/** What stat(2) knows of a file, or null when it is gone. */
async function statOrNull(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    throw unreadable(path, error)
  }
}

const sizeOf = async (path: string): Promise<number> => (await statOrNull(path))?.size ?? 0

/** Whether a file was last written before `ms`; a file that is gone was. */
const endedBefore = async (path: string, ms: number): Promise<boolean> =>
  ((await statOrNull(path))?.mtimeMs ?? 0) < ms

/** The journal of one host, as the composition roots use it. Holds nothing open. */
export class Journal implements JournalWriter {
  readonly #folder: string
  readonly #limits: JournalLimits
  readonly #appends = new OneByOne()

  constructor(folder: string, limits: Partial<JournalLimits> = {}) {
    this.#folder = folder
    this.#limits = { ...usualLimits, ...limits }
  }

  /** Returns when the line is on the disk; throws `journal.unwritable`, and then no line was added. */
  append(entry: JournalEntry): Promise<void> {
    return this.#appends.do(() => this.#append(entry))
  }

  async #append(entry: JournalEntry): Promise<void> {
    const { fileBytes, files, reserveBytes } = this.#limits
    try {
      if ((await statOrNull(this.#folder)) === null) await makeFolder(this.#folder)
      if (entry.kind === 'step-started') await this.#wantRoom(reserveBytes)
      const line = encodeLine(entry)
      const numbers = await fileNumbers(this.#folder)
      const last = numbers.at(-1) ?? 1
      const written = await sizeOf(this.#path(last))
      const isFull = written > 0 && written + Buffer.byteLength(line) >= fileBytes
      await appendLine(this.#path(isFull ? last + 1 : last), line, 0o640)
      if (isFull) for (const old of numbers.slice(0, 1 - files)) await removeFile(this.#path(old))
    } catch (cause) {
      const reason = cause instanceof HostError ? cause.message : errnoOf(cause)
      if (reason === undefined) throw cause
      throw new HostError('journal.unwritable', `the journal in ${this.#folder} is not writable: ${reason}`, {
        details: { folder: this.#folder, ...(cause instanceof HostError && { cause: cause.report() }) },
        cause,
      })
    }
  }

  #path(number: number): string {
    return join(this.#folder, nameOf(number))
  }

  async #wantRoom(wantedBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#folder)
    if (bavail * bsize < wantedBytes)
      throw new HostError(
        'file.no-space',
        `${bavail * bsize} bytes are free, ${wantedBytes} are kept for the outcome`,
      )
  }

  /** Oldest first; damaged lines are named where they lie and cost no other. Errors: `host.denied`, `host.unreadable`. */
  async *read({ sinceMs = 0, follow }: JournalQuery = {}): AsyncGenerator<JournalRecord, void, void> {
    let position: Position = { number: 0, offset: 0, line: 1 }
    for (;;) {
      const numbers = (await fileNumbers(this.#folder)).filter((number) => number >= position.number)
      for (const number of numbers) {
        const isLast = number === numbers.at(-1)
        if (position.number !== number) position = { number, offset: 0, line: 1 }
        if (
          !isLast &&
          position.offset === 0 &&
          (await endedBefore(join(this.#folder, nameOf(number)), sinceMs))
        )
          continue
        // Only the last file can have a line in the making, and only while somebody follows is it worth waiting for.
        const reading: Reading = await readOn(this.#folder, position, !isLast || follow === undefined)
        position = reading.position
        for (const record of reading.records)
          if (record.kind === 'damaged' || record.entry.atMs >= sinceMs) yield record
      }
      if (follow === undefined || follow.aborted) return
      await sleep(pollMs, undefined, { signal: follow }).catch((error: unknown) => {
        if (!follow.aborted) throw error
      })
    }
  }

  /**
   * Steps that were started and of which no end is written, nor that a later apply did them or found the whole host settled;
   * those of the newest apply first. Looks at the newest two files
   * (16 MiB by default). `instance` is empty when the apply's first line is no longer there.
   */
  async unfinishedSteps(): Promise<readonly UnfinishedStep[]> {
    const instances = new Map<string, string>()
    const whole = new Set<string>()
    const unfinished = new Map<string, UnfinishedStep>()
    for (const number of (await fileNumbers(this.#folder)).slice(-2)) {
      const { records } = await readOn(this.#folder, { number, offset: 0, line: 1 }, true)
      for (const record of records) {
        if (record.kind === 'damaged') continue
        const { entry } = record
        const { apply } = entry
        if (entry.kind === 'apply-started') {
          instances.set(apply, entry.instance)
          if (entry.request.only === undefined) whole.add(apply)
        }
        if (entry.kind === 'step-started')
          unfinished.set(`${apply} ${entry.key}`, {
            apply,
            key: entry.key,
            instance: instances.get(apply) ?? '',
            step: entry.step,
          })
        if (entry.kind === 'step-failed') unfinished.delete(`${apply} ${entry.key}`)
        // What a later apply has done, or has found done, is finished.
        if (entry.kind === 'step-done')
          for (const [known, { key }] of unfinished) if (key === entry.key) unfinished.delete(known)
        if (entry.kind === 'apply-ended' && entry.outcome === 'settled' && whole.has(apply))
          unfinished.clear()
      }
    }
    return [...unfinished.values()].reverse()
  }
}
