// Writes files of the host so that a crash leaves either the old or the new one: the only file that writes. POSIX file calls.

import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rmdir,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import { HostError, type ProblemCode, type ProblemReport } from '../../provisioning/problem.ts'

const codeOf: Readonly<Record<string, ProblemCode>> = {
  ENOSPC: 'file.no-space',
  EDQUOT: 'file.no-space',
  EROFS: 'file.read-only',
  EEXIST: 'file.exists',
  ENOTEMPTY: 'file.exists',
}

/** The error number's name of a failed call (`ENOSPC`), or undefined when the value is no such error. */
export const errnoOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && /^E(?!RR_)[A-Z0-9]+$/.test(String(error.code))
    ? String(error.code)
    : undefined

const absence: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENOTDIR', 'ESRCH'])
const denial: ReadonlySet<string | undefined> = new Set(['EACCES', 'EPERM'])

/** Whether the error number's name of a failed call says that it may not be done. */
export const isDenied = (errno: string | undefined): boolean => denial.has(errno)

/** What a failed read means: null for absence; throws `host.denied` or `host.unreadable` for everything else. */
export function absentOrThrow(path: string, cause: unknown): null {
  const errno = errnoOf(cause)
  if (absence.has(errno)) return null
  if (errno === undefined) throw cause
  throw new HostError(
    denial.has(errno) ? 'host.denied' : 'host.unreadable',
    `${path} could not be read (${errno})`,
    { details: { path, errno }, cause },
  )
}

/** A failed write as a HostError: `file.no-space`, `file.read-only`, `file.exists` or `file.unwritable`. */
function fileError(doing: string, path: string, cause: unknown): HostError {
  if (cause instanceof HostError) return cause
  const errno = errnoOf(cause)
  if (errno === undefined) throw cause
  return new HostError(codeOf[errno] ?? 'file.unwritable', `could not ${doing} ${path} (${errno})`, {
    details: { path, errno },
    cause,
  })
}

const absent = (error: unknown): null => {
  if (errnoOf(error) === 'ENOENT') return null
  throw error
}

/** Flushes a folder, so that names made or removed in it survive a power cut. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Makes a folder (0755) and those above it where they are missing. Node's own recursion says ENOENT for a read-only filesystem. */
async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path, 0o755)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'EEXIST' && (await stat(path)).isDirectory()) return
    if (errno !== 'ENOENT') throw error
    await makeFolders(dirname(path))
    return makeFolders(path)
  }
  await syncFolder(dirname(path))
}

/** Mode, and optionally numeric owner and group. */
export interface FolderOptions {
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
}

/** Makes a folder and its parents (0755) where they are missing, then sets what is given. Follows links. */
export async function makeFolder(path: string, { mode, uid, gid }: FolderOptions = {}): Promise<void> {
  try {
    await makeFolders(path)
    const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      if (uid !== undefined || gid !== undefined) {
        const { uid: uidNow, gid: gidNow } = await folder.stat()
        await folder.chown(uid ?? uidNow, gid ?? gidNow)
      }
      // After chown, which clears the set-id bits.
      if (mode !== undefined) await folder.chmod(mode)
      await folder.sync()
    } finally {
      await folder.close()
    }
  } catch (error) {
    throw fileError('make folder', path, error)
  }
}

/** Numeric owner and group. */
export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** Writes `content` to a new file that did not exist, flushed to the disk; removes it again when that fails. */
async function writeNew(
  path: string,
  content: string | Uint8Array,
  mode: number,
  owner?: Owner,
): Promise<void> {
  const file = await open(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  )
  try {
    await file.writeFile(content)
    // Before the mode, whose set-id bits it clears.
    if (owner !== undefined) await file.chown(owner.uid, owner.gid)
    await file.chmod(mode)
    await file.sync()
  } catch (error) {
    await file.close()
    await unlink(path)
    throw error
  }
  // A close that fails (NFS, quota) means that the content may not be there.
  await file.close().catch(async (error) => {
    await unlink(path)
    throw error
  })
}

const temporaryName = (path: string): string =>
  `${dirname(path)}/.${basename(path)}.${randomBytes(6).toString('hex')}.new`

const temporaryPattern = /^\..+\.[0-9a-f]{12}\.new$/

/** Removes what a crashed `replaceFile` of the same path may have left beside it. */
export async function sweep(path: string): Promise<void> {
  const prefix = `.${basename(path)}.`
  for (const name of (await readdir(dirname(path)).catch(absent)) ?? [])
    if (name.startsWith(prefix) && temporaryPattern.test(name) && name.length === prefix.length + 16)
      await unlink(`${dirname(path)}/${name}`)
}

/**
 * Replaces a file whole or not at all: temporary file beside it, fsync, rename, fsync of the folder. Missing parent folders are
 * made (0755). Of a link, the file that it leads to is replaced. On failure the last good file is untouched and nothing is left beside it. One writer per path at a time.
 */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  mode: number,
  owner?: Owner,
): Promise<void> {
  try {
    await makeFolders(dirname(path))
    // A link stays a link: an administrator put it there so that the file is found elsewhere.
    const real = (await realpath(path).catch(absent)) ?? path
    const temporary = temporaryName(real)
    await sweep(real)
    await writeNew(temporary, content, mode, owner)
    try {
      await rename(temporary, real)
    } catch (error) {
      await unlink(temporary)
      throw error
    }
    await syncFolder(dirname(real))
  } catch (error) {
    throw fileError('write', path, error)
  }
}

/** Makes `path` a link to `target`, in the place of a file or link that is there; a crash leaves the one or the other. */
export async function replaceLink(path: string, target: string): Promise<void> {
  const temporary = temporaryName(path)
  try {
    await makeFolders(dirname(path))
    await sweep(path)
    await symlink(target, temporary)
    try {
      await rename(temporary, path)
    } catch (error) {
      await unlink(temporary)
      throw error
    }
    await syncFolder(dirname(path))
  } catch (error) {
    throw fileError('link', path, error)
  }
}

/**
 * Gives a file another name in its folder, replacing what has it; false when it is not there (any more). Of several processes that
 * try at once, one gets true: rename(2) of the same source succeeds once.
 */
export async function takeFile(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    await syncFolder(dirname(to))
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw fileError('take', from, error)
  }
}

/** Makes a file that must not exist yet, whole or not at all; false when the name is taken. */
export async function createFile(path: string, content: string, mode: number): Promise<boolean> {
  const temporary = temporaryName(path)
  try {
    await makeFolders(dirname(path))
    await writeNew(temporary, content, mode)
    try {
      await link(temporary, path)
    } finally {
      await unlink(temporary)
    }
    await syncFolder(dirname(path))
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw fileError('create', path, error)
  }
}

/** A file that is being written, piece by piece. */
export interface NewFile {
  /** Adds text at its end. Throws `file.no-space`, `file.read-only`, `file.unwritable`. */
  add(text: string): Promise<void>
  close(): Promise<void>
}

/** Begins a file that must not exist yet: `file.exists`. */
export async function newFile(path: string, mode: number): Promise<NewFile> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  try {
    const file = await open(path, flags, mode)
    return {
      async add(text) {
        try {
          await file.writeFile(text)
        } catch (error) {
          throw fileError('write', path, error)
        }
      },
      close: () => file.close(),
    }
  } catch (error) {
    throw fileError('create', path, error)
  }
}

/** Removes a file or an empty folder; that it is absent already is success. */
export async function removeFile(path: string): Promise<void> {
  try {
    const found = await lstat(path).catch(absent)
    if (found === null) return
    await (found.isDirectory() ? rmdir(path) : unlink(path)).catch(absent)
    await syncFolder(dirname(path))
  } catch (error) {
    throw fileError('remove', path, error)
  }
}

/**
 * Renames on one filesystem; `file.exists` when `to` is there. A file is linked and unlinked, which replaces nothing however
 * the race goes, and a crash between the two is completed by the next call. Node has no RENAME_NOREPLACE, so a folder that
 * appears at `to` in the instant before the rename is replaced if it is empty (rename(2) refuses one with content).
 */
export async function moveFile(from: string, to: string): Promise<void> {
  try {
    const source = await lstat(from)
    const target = await lstat(to).catch(absent)
    const halfDone =
      target !== null && target.dev === source.dev && target.ino === source.ino && source.nlink > 1
    if (target !== null && !(halfDone && source.isFile()))
      throw new HostError('file.exists', `could not move ${from}: ${to} exists already`, {
        details: { path: to, errno: 'EEXIST' },
      })
    if (source.isDirectory()) await rename(from, to)
    else {
      if (!halfDone) await link(from, to)
      await unlink(from)
    }
    await syncFolder(dirname(to))
    await syncFolder(dirname(from))
  } catch (error) {
    throw fileError('move', `${from} to ${to}`, error)
  }
}

const lineFeed = 0x0a

/** Whether bytes can simply be added: the file is empty or its last line is whole. */
async function endsWhole(file: FileHandle, sizeBytes: number): Promise<boolean> {
  if (sizeBytes === 0) return true
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, sizeBytes - 1)
  return buffer[0] === lineFeed
}

/**
 * Adds a line (without line feed) to a file, made with its folder if missing, and returns when it is on the disk. A line that a
 * crash has torn is ended first. On failure what was added is taken off again. One writer per path at a time.
 */
export async function appendLine(path: string, line: string, mode: number): Promise<void> {
  try {
    await makeFolders(dirname(path))
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW
    const file = await open(path, flags, mode)
    try {
      const { size } = await file.stat()
      try {
        await file.writeFile(`${(await endsWhole(file, size)) ? '' : '\n'}${line}\n`)
        await file.datasync()
      } catch (error) {
        await file.truncate(size)
        throw error
      }
      if (size === 0) await syncFolder(dirname(path))
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError('append to', path, error)
  }
}

/** A file that is written from its front to its end, over more than one run where need be. */
export interface GrowingFile {
  /** How long it is. */
  readonly bytes: number
  append(content: Uint8Array): Promise<void>
  /** Returns when all that was appended is on the disk. */
  sync(): Promise<void>
  /** Says that it is whole: it gets its last mode, and all of it is on the disk. */
  seal(mode: number): Promise<void>
  close(): Promise<void>
}

/**
 * Opens a file for growing, made (with its folder) if it is missing, and cut to `keepBytes` if it is longer. Not replaced whole: what a
 * crash leaves is some of what was appended, and of what was synced all. One writer per path at a time.
 */
export async function growFile(path: string, keepBytes: number, mode: number): Promise<GrowingFile> {
  const failed = (error: unknown): never => {
    throw fileError('write', path, error)
  }
  const opened = async () => {
    await makeFolders(dirname(path))
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, mode)
    try {
      await file.truncate(keepBytes)
      await syncFolder(dirname(path))
    } catch (error) {
      await file.close()
      throw error
    }
    return file
  }
  const file = await opened().catch(failed)
  let bytes = keepBytes
  return {
    get bytes() {
      return bytes
    },
    async append(content) {
      for (let done = 0; done < content.length; ) {
        const { bytesWritten } = await file.write(content, done, content.length - done, bytes).catch(failed)
        done += bytesWritten
        bytes += bytesWritten
      }
    },
    sync: () => file.datasync().catch(failed),
    async seal(sealed) {
      await file.chmod(sealed).catch(failed)
      await file.sync().catch(failed)
    },
    close: () => file.close().catch(failed),
  }
}

/** A database of SQLite in one file. */
export type Database = DatabaseSync

/** How a database is kept. `full`: what was committed survives a power cut; `normal`: the end of this process, and it is never torn. */
export interface DatabaseOptions {
  readonly synchronous: 'full' | 'normal'
  /** Makes the tables that are missing. */
  readonly prepare: (database: Database) => void
}

/** A database that was opened. */
export interface OpenedDatabase {
  readonly database: Database
  readonly damagedPath: string | null
  readonly problem: ProblemReport | null
}

const corrupt = 11
const notADatabase = 26
const damage: ReadonlySet<unknown> = new Set([corrupt, notADatabase])

/**
 * Opens a database, made with its folder (0700) if it is missing. SIGKILL is a normal end for it. One that is damaged is moved aside,
 * to where `damagedPath` says, and begun anew. Where it cannot be opened (a full drive, one that can only be read) it is in memory, and
 * `problem` says why: `file.unwritable`, `file.no-space`, `file.read-only`, ….
 */
export async function openDatabase(
  path: string,
  { synchronous, prepare }: DatabaseOptions,
): Promise<OpenedDatabase> {
  // Loaded here, for few need it.
  const { DatabaseSync: Sqlite } = await import('node:sqlite')
  const begin = (at = path): Database => {
    const database = new Sqlite(at, { timeout: 5000 })
    try {
      database.exec(`PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
        PRAGMA synchronous = ${synchronous.toUpperCase()}; PRAGMA journal_size_limit = 4194304`)
      prepare(database)
      // A page that the drive has lost is found here: later it would fail each write that comes upon it, at every start anew.
      const { quick_check: found } = database.prepare('PRAGMA quick_check(1)').get() ?? {}
      if (found !== 'ok') throw Object.assign(new Error(`${path}: ${found}`), { errcode: corrupt })
      return database
    } catch (error) {
      database.close()
      throw error
    }
  }
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    try {
      return { database: begin(), damagedPath: null, problem: null }
    } catch (error) {
      if (!(error instanceof Error && 'errcode' in error && damage.has(error.errcode))) throw error
      const damagedPath = `${path}.damaged`
      await rename(path, damagedPath)
      for (const beside of ['-wal', '-shm']) await unlink(`${path}${beside}`).catch(absent)
      return { database: begin(), damagedPath, problem: null }
    }
  } catch (error) {
    const told = databaseError('open', path, error)
    if (!(told instanceof HostError)) throw told
    return { database: begin(':memory:'), damagedPath: null, problem: told.report() }
  }
}

/** How many bytes of a database are in use: those that it holds free for later are none. */
export function usedBytes(database: Database): number {
  const number = (name: string) => Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0])
  return (number('page_count') - number('freelist_count')) * number('page_size')
}

const sqliteCodes: Readonly<Record<number, ProblemCode>> = { 8: 'file.read-only', 13: 'file.no-space' }

/** A failed call of SQLite as a HostError: `file.no-space`, `file.read-only` or `file.unwritable`; anything else as it is. */
export function databaseError(doing: string, path: string, cause: unknown): unknown {
  if (!(cause instanceof Error && 'errcode' in cause && typeof cause.errcode === 'number'))
    return errnoOf(cause) === undefined ? cause : fileError(doing, path, cause)
  const code = sqliteCodes[cause.errcode & 0xff] ?? 'file.unwritable'
  return new HostError(code, `could not ${doing} ${path} (${cause.message})`, { details: { path }, cause })
}
