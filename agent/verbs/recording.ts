// Keeps what is seen on a terminal in a new file (asciicast v2).

import { CastLines, castHeader } from '../api/asciicast.ts'
import { type NewFile, newFile } from '../host/files.ts'

/** What is recorded, and of which terminal. */
interface Recorded {
  readonly title: string
  readonly term: string
  readonly columns: number
  readonly rows: number
  /** No more than about this is kept; without it, everything. */
  readonly mostBytes?: number
}

/** A recording that goes on. What goes wrong with it is remembered and told at its end, for what it records goes on all the same. */
export interface Recording {
  /** Resolves when it is written, or will never be. */
  output(bytes: Uint8Array): Promise<void>
  resize(columns: number, rows: number): void
  /** Answers what went wrong, or null. */
  end(): Promise<unknown>
}

const isFull = '\r\n[no more than this is recorded]\r\n'

/** Begins a recording. Throws `file.exists`, `file.no-space`, `file.unwritable`. */
export async function beginRecording(
  path: string,
  { title, term, columns, rows, mostBytes = Number.POSITIVE_INFINITY }: Recorded,
): Promise<Recording> {
  const file: NewFile = await newFile(path, 0o600)
  const beganMs = Date.now()
  const cast = new CastLines(beganMs)
  let problem: unknown = null
  let written = 0
  let writing = Promise.resolve()
  const add = (line: string): Promise<void> => {
    if (line === '' || written >= mostBytes) return writing
    written += line.length
    const last = written >= mostBytes ? cast.output(Buffer.from(isFull), Date.now()) : ''
    writing = writing
      .then(() => (problem === null ? file.add(line + last) : undefined))
      .catch((error: unknown) => {
        problem = error
      })
    return writing
  }
  await add(castHeader({ width: columns, height: rows, atMs: beganMs, title, term }))
  return {
    output: (bytes) => add(cast.output(bytes, Date.now())),
    resize: (width, height) => void add(cast.resize(width, height, Date.now())),
    async end() {
      add(cast.end(Date.now()))
      await writing
      await file.close()
      return problem
    },
  }
}
