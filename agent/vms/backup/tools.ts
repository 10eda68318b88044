// What the making, reading back and restoring of backups work with: libvirt, qemu-img, and somebody who is told how far it is.

import { createHash } from 'node:crypto'
import { open, readFile, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HostReader, Performer } from '../../../provisioning/host.ts'
import { HostError } from '../../../provisioning/problem.ts'
import { growFile, removeFile } from '../../host/files.ts'
import type { ToLibvirt } from '../reach.ts'

/** How far a piece of work is; see `Progress` in agent/api/progress.ts. */
export interface Step {
  readonly subject: string
  readonly doing: string
  readonly doneBytes: number
  readonly totalBytes: number | null
}

/** What there is to work with. The reason of `signal` says whether the work was cancelled or its process must go. */
export interface Tools {
  readonly to: ToLibvirt
  readonly reader: Pick<HostReader, 'query' | 'capacity' | 'readText' | 'list'>
  readonly performer: Pick<Performer, 'perform'>
  readonly clock: () => number
  readonly signal: AbortSignal
  tell(step: Step): void
}

/** Copying and reading disks may take so long. */
const copyDeadlineMs = 24 * 3_600_000
const watchMs = 500
const [lockMs, lockPollMs] = [2000, 200]
const chunkBytes = 2 ** 20

/** Why work was given up: `job.cancelled`, after which nothing of it is to be left, or `job.interrupted`, to be gone on with. */
export const stopOf = (signal: AbortSignal): HostError =>
  signal.reason === 'cancelled'
    ? new HostError('job.cancelled', 'it was cancelled')
    : new HostError('job.interrupted', 'its process had to end')

/** Throws `stopOf` when the work is to end. */
export function goOn(signal: AbortSignal): void {
  if (signal.aborted) throw stopOf(signal)
}

/** Takes away what failed work has left; where that fails too, it is what went wrong first that is told. */
export async function afterFailure(error: unknown, giveUp: () => Promise<void>): Promise<void> {
  // What can be gone on with is left for the next run.
  if (error instanceof HostError && ['job.interrupted', 'libvirt.unreachable'].includes(error.code)) return
  try {
    await giveUp()
  } catch (second) {
    // It is written down, and the next run takes it away.
    if (!(second instanceof HostError)) throw second
  }
}

/** Whether qemu-img found an image in the hands of another process. */
export const isLocked = (error: unknown): boolean =>
  error instanceof HostError &&
  error.code === 'action.failed' &&
  /Failed to get .*lock/.test(
    String((error.details.outcome as { stderrTail?: string } | undefined)?.stderrTail),
  )

/**
 * Runs a program that may take hours. Answers its exit, one of `exits`. Throws `action.failed`, `job.cancelled`, `job.interrupted`.
 * A lock is waited for a while: it may be that of a program whose agent was killed, and which is about to end.
 */
export async function runTool(
  tools: Pick<Tools, 'performer' | 'signal'>,
  argv: readonly [string, ...string[]],
  exits: readonly number[] = [0],
): Promise<number> {
  for (const endMs = performance.now() + lockMs; ; await sleep(lockPollMs)) {
    try {
      return await runOnce(tools, argv, exits)
    } catch (error) {
      if (!isLocked(error) || performance.now() >= endMs) throw error
    }
  }
}

async function runOnce(
  { performer, signal }: Pick<Tools, 'performer' | 'signal'>,
  argv: readonly [string, ...string[]],
  exits: readonly number[],
): Promise<number> {
  goOn(signal)
  try {
    const { exit = 0 } = await performer.perform(
      { kind: 'run', argv, deadlineMs: copyDeadlineMs, exits },
      signal,
    )
    return exit
  } catch (error) {
    goOn(signal)
    throw error
  }
}

/** What a file takes on its filesystem, in bytes; 0 while there is none. */
export async function allocatedBytes(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * 512
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 0
    throw error
  }
}

/** Tells how large a file has become while something is written into it. */
export async function watched<T>(
  { tell }: Pick<Tools, 'tell'>,
  path: string,
  about: Omit<Step, 'doneBytes'>,
  work: Promise<T>,
): Promise<T> {
  const timer = setInterval(() => {
    // A look that fails is no answer, and the work itself says what is wrong.
    allocatedBytes(path).then(
      (doneBytes) => tell({ ...about, doneBytes }),
      () => undefined,
    )
  }, watchMs)
  try {
    return await work
  } finally {
    clearInterval(timer)
  }
}

/** Reads a file whole; its length, and the digest of what is in it. */
export async function digestOf(
  { tell, signal }: Pick<Tools, 'tell' | 'signal'>,
  path: string,
  about: Pick<Step, 'subject' | 'doing'>,
): Promise<{ readonly fileBytes: number; readonly sha256: string }> {
  const hash = createHash('sha256')
  await using file = await open(path)
  const { size: totalBytes } = await file.stat()
  const buffer = Buffer.allocUnsafe(chunkBytes)
  let doneBytes = 0
  for (;;) {
    goOn(signal)
    const { bytesRead } = await file.read(buffer, 0, chunkBytes, doneBytes)
    if (bytesRead === 0) break
    hash.update(buffer.subarray(0, bytesRead))
    doneBytes += bytesRead
    tell({ ...about, doneBytes, totalBytes })
  }
  return { fileBytes: doneBytes, sha256: hash.digest('hex') }
}

/** Copies a small file as it is, over what an earlier run may have left of the copy. */
export async function copySmall(from: string, to: string): Promise<void> {
  const content = await readFile(from)
  await removeFile(to)
  const file = await growFile(to, 0, 0o600)
  try {
    await file.append(content)
    await file.seal(0o600)
  } finally {
    await file.close()
  }
}
