// What a job has told, kept on the disk as JSON lines in a file of its own, so that it can be followed again.

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { appendLine, errnoOf, removeFile } from '../host/files.ts'

/** How a job stands. `interrupted`: its process ended before it did, or was told to. */
export type JobOutcome = 'running' | 'done' | 'failed' | 'cancelled' | 'interrupted'

/** How a job began. Times are epoch milliseconds. */
export interface JobBegun {
  readonly id: string
  /** The verb by its name in the table. */
  readonly verb: string
  /** The same as it was typed. */
  readonly typed: string
  readonly who: string
  readonly beganMs: number
}

/** How a job ended. */
export interface JobEnded {
  readonly outcome: Exclude<JobOutcome, 'running'>
  readonly endedMs: number
  /** What its process would have ended with; null when it did not come so far. */
  readonly exit: number | null
  readonly problem: ProblemReport | null
}

/** One line of the file. */
export type JobEntry =
  | ({ readonly kind: 'begun' } & JobBegun)
  | { readonly kind: 'told'; readonly line: object }
  | ({ readonly kind: 'ended' } & JobEnded)

/** All that is kept of a job. */
export interface JobRecord {
  readonly begun: JobBegun
  readonly lines: readonly object[]
  readonly ended: JobEnded | null
}

const idPattern = /^[0-9a-f]{6}$/

/** Whether a text can be the id of a job. */
export const isJobId = (text: string): boolean => idPattern.test(text)

const fileOf = (folder: string, id: string): string => join(folder, `${id}.jsonl`)

/** Adds a line, and returns when it is on the disk. */
export const appendJob = (folder: string, id: string, entry: JobEntry): Promise<void> =>
  appendLine(fileOf(folder, id), JSON.stringify(entry), 0o640)

/** Removes what is kept of a job. */
export const removeJob = (folder: string, id: string): Promise<void> => removeFile(fileOf(folder, id))

function unreadable(path: string, cause: unknown): unknown {
  const errno = errnoOf(cause)
  if (errno === undefined) return cause
  return new HostError(
    errno === 'EACCES' ? 'host.denied' : 'host.unreadable',
    `${path} could not be read (${errno})`,
    { details: { path, errno }, cause },
  )
}

/** The ids of all jobs that are kept. */
export async function jobIds(folder: string): Promise<readonly string[]> {
  try {
    const names = await readdir(folder)
    return names.flatMap((name) => (/^[0-9a-f]{6}\.jsonl$/.test(name) ? name.slice(0, 6) : []))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw unreadable(folder, error)
  }
}

/** Whatever of a line was written before its power was cut is none. */
function entryOf(line: string): readonly JobEntry[] {
  try {
    return [JSON.parse(line) as JobEntry]
  } catch (error) {
    if (error instanceof SyntaxError) return []
    throw error
  }
}

/** Reads what is kept of a job; null when there is none of that id. */
export async function readJob(folder: string, id: string): Promise<JobRecord | null> {
  const path = fileOf(folder, id)
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return null
    throw unreadable(path, error)
  })
  const entries = text?.split('\n').flatMap((line) => (line === '' ? [] : entryOf(line))) ?? []
  const begun = entries.find((entry) => entry.kind === 'begun')
  if (begun === undefined) return null
  return {
    begun,
    lines: entries.flatMap((entry) => (entry.kind === 'told' ? entry.line : [])),
    ended: entries.find((entry) => entry.kind === 'ended') ?? null,
  }
}
