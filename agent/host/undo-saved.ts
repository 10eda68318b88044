// What is kept of a host before a change to its network, and how it is put back: JSON files in one folder that only root may read.
//
// INVARIANTS
// - A change is armed exactly while `armed.json` is there. Who takes that name away (rename) decides alone what becomes of it.
// - Putting back can be cut off anywhere and begun again: it looks at each file, and `restoring.json` goes last.

import { randomUUID } from 'node:crypto'
import { lstat, readFile, readlink } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Session } from '../../provisioning/link/ss.ts'
import { HostError, problemOf } from '../../provisioning/problem.ts'
import type { Reload } from '../../provisioning/resource.ts'
import { type Argv, execute, lastLines } from './exec.ts'
import { errnoOf, removeFile, replaceFile, replaceLink, sweep, takeFile } from './files.ts'

/** Where changes are kept until they are confirmed, below the folder of what is Garrison's own. */
export const undoFolderIn = (ownFolder: string): string => `${ownFolder}/network-undo`

/** The same on an installed host. */
export const undoFolder = undoFolderIn('/var/lib/garrison')

/** A file as it was. `content` is base64. */
type Saved = { readonly path: string } & (
  | { readonly kind: 'absent' }
  | { readonly kind: 'link'; readonly target: string }
  | {
      readonly kind: 'file'
      readonly content: string
      readonly mode: number
      readonly uid: number
      readonly gid: number
    }
)

/** A change that is armed, or being undone. Times are epoch milliseconds; `sessions` are those in use when it was armed. */
export interface Armed {
  readonly id: string
  readonly bootId: string
  readonly summary: string
  readonly armedAtMs: number
  readonly deadlineMs: number
  readonly files: readonly Saved[]
  readonly reload: readonly Reload[]
  readonly sessions: readonly Session[]
}

/** What became of a change, by whom or what, and what went wrong on the way. */
export interface Ended {
  readonly id: string
  readonly summary: string
  readonly outcome: 'confirmed' | 'undone'
  readonly by: string
  readonly atMs: number
  readonly problems: readonly string[]
}

/**
 * So long before its deadline a change begins to be undone: a program is started, the backend reads files, a lease is asked for. That
 * takes less than a second on an idle host, and nine have been seen on one whose processors had ten times the work that they can do.
 */
export const leadMs = (deadlineMs: number): number => Math.min(20_000, deadlineMs / 4)

const names = {
  armed: 'armed.json',
  restoring: 'restoring.json',
  confirmed: 'confirmed.json',
  mark: 'mark.json',
  reload: 'reload',
  ended: 'last.json',
} as const

const at = (folder: string, name: keyof typeof names): string => `${folder}/${names[name]}`

/** One of the folder's files, or null when it is not there. Throws `undo.damaged`, `host.denied`. */
async function read<Content>(folder: string, name: keyof typeof names): Promise<Content | null> {
  const path = at(folder, name)
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Content
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return null
    if (errnoOf(cause) === 'EACCES')
      throw new HostError('host.denied', `${path} may be read by root alone`, { cause })
    throw new HostError('undo.damaged', `${path} cannot be read`, { details: { path }, cause })
  }
}

const write = (folder: string, name: keyof typeof names, content: unknown): Promise<void> =>
  replaceFile(at(folder, name), `${JSON.stringify(content)}\n`, 0o600)

/** The change that is armed, or null. */
export const readArmed = (folder: string): Promise<Armed | null> => read(folder, 'armed')

/** The change that is being undone, or could not be whole, or null. */
export const readRestoring = (folder: string): Promise<Armed | null> => read(folder, 'restoring')

/** What became of the last change, or null. */
export const readEnded = (folder: string): Promise<Ended | null> => read(folder, 'ended')

/** Which change was armed last, whatever has become of it, and what sessions had carried when it was made. */
interface Mark {
  readonly id: string
  readonly sessions: readonly Session[]
}

/** The mark of the change that was armed last. */
export const readMark = async (folder: string): Promise<Mark> =>
  (await read<Mark>(folder, 'mark')) ?? { id: '', sessions: [] }

/** Keeps what sessions have carried. */
export const writeMark = async (folder: string, sessions: readonly Session[]): Promise<void> =>
  write(folder, 'mark', { ...(await readMark(folder)), sessions })

async function save(path: string): Promise<Saved> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null
    throw error
  })
  if (found === null) return { path, kind: 'absent' }
  if (found.isSymbolicLink()) return { path, kind: 'link', target: await readlink(path) }
  if (!found.isFile())
    throw new HostError('undo.unarmed', `${path} is no file, so it could not be put back`, {
      details: { path },
    })
  const content = (await readFile(path)).toString('base64')
  return { path, kind: 'file', content, mode: found.mode & 0o7777, uid: found.uid, gid: found.gid }
}

/** Where a change is made to a link, the file behind it changes: both are kept. */
async function saveAll(paths: readonly string[]): Promise<readonly Saved[]> {
  const saved: Saved[] = []
  const waiting = [...paths]
  for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
    if (saved.some((one) => one.path === path)) continue
    const one = await save(path)
    saved.push(one)
    if (one.kind === 'link') waiting.push(new URL(one.target, `file://${path}`).pathname)
  }
  return saved
}

async function putBack(saved: Saved): Promise<void> {
  // Who was making the change may have been ended while it wrote.
  await sweep(saved.path)
  const now = await save(saved.path)
  if (JSON.stringify(now) === JSON.stringify(saved)) return
  if (saved.kind === 'absent') await removeFile(saved.path)
  else if (saved.kind === 'link') await replaceLink(saved.path, saved.target)
  else {
    // Of a link the file behind it would be replaced.
    if (now.kind === 'link') await removeFile(saved.path)
    await replaceFile(saved.path, Buffer.from(saved.content, 'base64'), saved.mode, saved)
  }
}

/** What is armed, but for what is found out when it is. */
export type Arming = Pick<Armed, 'summary' | 'deadlineMs' | 'reload' | 'sessions'> & {
  readonly paths: readonly string[]
}

const bootId = async (): Promise<string> => (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

/** The files as they are, to be armed. */
export async function saved({ paths, ...rest }: Arming): Promise<Omit<Armed, 'armedAtMs'>> {
  const files = await saveAll(paths)
  return { ...rest, id: randomUUID(), bootId: await bootId(), files }
}

/** Throws `undo.pending` while another change is armed or being undone. */
export async function assertNonePending(folder: string): Promise<void> {
  const pending = (await readArmed(folder)) ?? (await readRestoring(folder))
  if (pending)
    throw new HostError('undo.pending', `an earlier change is not confirmed yet: ${pending.summary}`, {
      details: {
        summary: pending.summary,
        undoneAtMs: pending.armedAtMs + pending.deadlineMs - leadMs(pending.deadlineMs),
      },
    })
}

/** From the moment that this returns the change is undone unless it is confirmed. */
export async function writeArmed(folder: string, armed: Armed): Promise<void> {
  await write(folder, 'mark', { id: armed.id, sessions: [] } satisfies Mark)
  await write(folder, 'armed', armed)
}

/** Lets a change stay; false when it was not armed any more. */
export async function keepChange(folder: string, by: string, nowMs: number): Promise<boolean> {
  if (!(await takeFile(at(folder, 'armed'), at(folder, 'confirmed')))) return false
  const { id = '', summary = '' } = (await read<Armed>(folder, 'confirmed')) ?? {}
  const ended: Ended = { id, summary, outcome: 'confirmed', by, atMs: nowMs, problems: [] }
  await write(folder, 'ended', ended)
  await removeFile(at(folder, 'confirmed'))
  return true
}

const rounds = 3
const betweenRoundsMs = 1000

/** Does each until it has succeeded or three rounds are over; what the last round failed with. */
async function inRounds<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
): Promise<readonly string[]> {
  let left = items
  let problems: readonly string[] = []
  for (let round = 1; left.length > 0 && round <= rounds; round += 1) {
    if (round > 1) await sleep(betweenRoundsMs)
    const failed: { readonly item: Item; readonly why: string }[] = []
    for (const item of left)
      await work(item).catch((error: unknown) => failed.push({ item, why: problemOf(error).message }))
    left = failed.map(({ item }) => item)
    problems = failed.map(({ why }) => why)
  }
  return problems
}

async function reloadOne(folder: string, { argv, deadlineMs, content, exits = [0] }: Reload): Promise<void> {
  const path = at(folder, 'reload')
  if (content !== undefined) await replaceFile(path, content, 0o600)
  const whole: Argv = content === undefined ? argv : [...argv, path]
  const { exit, ended, stderr } = await execute(whole, { deadlineMs, keep: 'tail' })
  if (content !== undefined) await removeFile(path)
  if (ended !== 'exited' || !exits.includes(exit))
    throw new HostError('action.failed', `${argv.join(' ')} ended with ${exit}: ${lastLines(stderr, 1)}`)
}

/** Whether the network of this boot has been begun, so that putting files back is not enough. */
async function networkIsUp(armed: Armed): Promise<boolean> {
  if (armed.bootId === (await bootId())) return true
  const argv = ['/usr/bin/systemctl', 'is-active', '--quiet', 'network-pre.target'] as const
  const { exit } = await execute(argv, { deadlineMs: 10_000, keep: 'tail' })
  return exit === 0
}

/** Whether systemd has begun to stop everything. */
export async function isGoingDown(): Promise<boolean> {
  const argv = ['/usr/bin/systemctl', 'is-system-running'] as const
  const { stdout } = await execute(argv, { deadlineMs: 10_000, keep: 'tail' })
  return stdout.trim() === 'stopping'
}

/**
 * Undoes what is armed or was begun to be undone; null when there is nothing. Throws `undo.incomplete` when a file could not be put
 * back, and then goes on from there when it is called again. A program that fails is told in the answer and in the record.
 */
export async function restore(folder: string, clock: () => number): Promise<Ended | null> {
  await takeFile(at(folder, 'armed'), at(folder, 'restoring'))
  const armed = await readRestoring(folder)
  if (armed === null) return null
  const unrestored = await inRounds(armed.files, putBack)
  const goesDown = await isGoingDown()
  const up = goesDown || (await networkIsUp(armed))
  // Also when a file is missing: what is back is better used than not.
  const unreloaded = up ? await inRounds(armed.reload, (one) => reloadOne(folder, one)) : []
  const { id, summary } = armed
  const by = goesDown ? 'shutdown' : armed.bootId === (await bootId()) ? 'deadline' : 'boot'
  const problems = [...unrestored, ...unreloaded]
  if (unrestored.length > 0)
    throw new HostError('undo.incomplete', `not all is as it was: ${problems.join('; ')}`, {
      details: { problems },
    })
  const ended: Ended = { id, summary, outcome: 'undone', by, atMs: clock(), problems }
  await write(folder, 'ended', ended)
  // Who was making the change may yet write a file of it before it is ended: the next boot looks at them all once more.
  if (!goesDown) await removeFile(at(folder, 'restoring'))
  return ended
}
