// One apply at a time: a lock file with the holder's pid, its start time and the boot, as /proc tells them (proc(5)).

import { createHash, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { LockHolder } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import { createFile, errnoOf, removeFile } from './files.ts'

// INVARIANTS
// 1. `PATH` is the first record; `PATH.after-ID` is the record of who took over from the dead holder ID. The last of this chain
//    holds the lock. Names are made by link(2), which exactly one of several takers can do; ids are random and never come back.
// 2. A record is only ever removed by its own writer: the holder when it releases, PATH first, or one that has lost.
// 3. A taker that saw the chain before the holder released it links behind a record that nobody reaches any more. So each taker
//    looks from PATH again and holds the lock only if it finds itself at the end. While somebody holds it, nothing on the way from
//    PATH to him changes, so no second one can find himself there.

interface LockRecord extends LockHolder {
  readonly id: string
  readonly startTicks: string
  readonly boot: string
}

/** A held lock. */
export interface ApplyLock {
  /** Gives the lock back. */
  release(): Promise<void>
}

const isRecord = (value: unknown): value is LockRecord => {
  const { pid, who, sinceMs, id, startTicks, boot } = (value ?? {}) as Record<string, unknown>
  return (
    typeof pid === 'number' &&
    typeof sinceMs === 'number' &&
    [who, startTicks, boot].every((one) => typeof one === 'string') &&
    typeof id === 'string' &&
    /^[0-9a-f]{16}$/.test(id)
  )
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ESRCH') return null
    throw new HostError(
      errno === 'EACCES' ? 'host.denied' : 'host.unreadable',
      `${path} could not be read (${errno})`,
      {
        details: { path, errno },
        cause: error,
      },
    )
  }
}

async function readRecord(path: string): Promise<LockRecord | null> {
  const text = await readIfThere(path)
  if (text === null) return null
  try {
    const record: unknown = JSON.parse(text)
    if (isRecord(record)) return record
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
  }
  throw new HostError('apply.lock-damaged', `${path} is not a lock that Garrison wrote`, {
    details: { path },
  })
}

const bootId = async (): Promise<string> => (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

/** When a process started, in clock ticks since boot; null when it is gone or only waits to be reaped. */
async function startTicksOf(pid: number): Promise<string | null> {
  const text = await readIfThere(`/proc/${pid}/stat`)
  // The name in brackets may hold spaces and brackets itself.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ') ?? []
  const [mode, startTicks] = [fields[0], fields[19]]
  return mode === undefined || startTicks === undefined || 'ZXx'.includes(mode) ? null : startTicks
}

const isAlive = async ({ pid, boot, startTicks }: LockRecord): Promise<boolean> =>
  boot === (await bootId()) && startTicks === (await startTicksOf(pid))

interface Chain {
  readonly paths: readonly string[]
  readonly records: readonly LockRecord[]
  /** The name that the next taker has to make. */
  readonly next: string
}

async function readChain(path: string): Promise<Chain> {
  const paths: string[] = []
  const records: LockRecord[] = []
  for (let next = path; ; ) {
    const record = await readRecord(next)
    if (record === null) return { paths, records, next }
    paths.push(next)
    records.push(record)
    next = `${path}.after-${record.id}`
  }
}

/** Who holds the lock, or null when nobody does or it is this process. Errors: `apply.lock-damaged`, `host.denied`. */
export async function lockHolder(path: string): Promise<LockHolder | null> {
  const last = (await readChain(path)).records.at(-1)
  if (last === undefined || last.pid === process.pid || !(await isAlive(last))) return null
  return { pid: last.pid, who: last.who, sinceMs: last.sinceMs }
}

const locked = ({ pid, who, sinceMs }: LockHolder): HostError =>
  new HostError(
    'apply.locked',
    `an apply is running for ${who} (pid ${pid}) since ${new Date(sinceMs).toISOString()}`,
    { details: { pid, who, sinceMs } },
  )

/**
 * Takes the lock for `who` or throws `apply.locked`, which names the holder. A holder that is gone (other boot, no such process,
 * or another process under its pid) is replaced. The folder of `path` must be writable by root alone and is made if missing.
 */
export async function takeLock(path: string, who: string, sinceMs: number): Promise<ApplyLock> {
  const [boot, startTicks] = [await bootId(), await startTicksOf(process.pid)]
  if (startTicks === null)
    throw new HostError('host.unreadable', `/proc/${process.pid}/stat tells no start time`)
  const own: LockRecord = {
    id: randomBytes(8).toString('hex'),
    pid: process.pid,
    startTicks,
    boot,
    who,
    sinceMs,
  }
  for (;;) {
    const { records, next } = await readChain(path)
    const last = records.at(-1)
    if (last !== undefined && (await isAlive(last))) throw locked(last)
    if (!(await createFile(next, `${JSON.stringify(own)}\n`, 0o644))) continue
    const { paths, records: now } = await readChain(path)
    if (now.at(-1)?.id !== own.id) {
      await removeFile(next)
      continue
    }
    return {
      async release() {
        for (const one of paths) await removeFile(one)
      },
    }
  }
}

/** Takes whatever `what` names for one job of `who`, by a lock in `folder`; throws `job.busy`, which names who has it. */
export async function takeHold(
  folder: string,
  what: string,
  who: string,
  sinceMs: number,
): Promise<ApplyLock> {
  const name = createHash('sha256').update(what).digest('hex').slice(0, 16)
  try {
    return await takeLock(`${folder}/${name}`, who, sinceMs)
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'apply.locked') throw error
    const { who: holder, sinceMs: since } = error.details as unknown as LockHolder
    throw new HostError(
      'job.busy',
      `${what} is in the hands of a job of ${holder} since ${new Date(since).toISOString()}`,
      { details: error.details },
    )
  }
}
