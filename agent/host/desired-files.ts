// Reads what a person wrote for a host: host.yaml, then host.d/*.yaml in the order of their names; and templates.

import { open, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'
import type { DocumentFile } from '../../provisioning/written.ts'
import { errnoOf } from './files.ts'

async function orNull<T>(path: string, reading: Promise<T>): Promise<T | null> {
  try {
    return await reading
  } catch (cause) {
    const errno = errnoOf(cause)
    if (errno === 'ENOENT') return null
    if (errno === undefined) throw cause
    throw new HostError(
      errno === 'EACCES' ? 'host.denied' : 'host.unreadable',
      `${path} could not be read (${errno})`,
      {
        details: { path, errno },
        cause,
      },
    )
  }
}

/** Throws `desired.not-trusted` unless only root, or who runs this, can write there. */
function trust(path: string, { uid, mode }: { readonly uid: number; readonly mode: number }): void {
  const own = uid === 0 || uid === process.getuid?.()
  if (own && (mode & 0o022) === 0) return
  throw new HostError(
    'desired.not-trusted',
    `${path} can be written by others than root (owner ${uid}, mode ${(mode & 0o7777).toString(8)})`,
    { details: { path, uid, mode: mode & 0o7777 } },
  )
}

/** What an open file says; it is trusted as it is read, whatever takes its name meanwhile. */
async function readTrusted(path: string): Promise<Buffer> {
  await using file = await open(path)
  trust(path, await file.stat())
  return await file.readFile()
}

const trustFolder = async (path: string): Promise<void> => trust(path, await stat(path))

/** The YAML files in a folder, sorted; null when there is no folder. */
async function namesIn(folder: string): Promise<readonly string[] | null> {
  const [names] = await Promise.all([orNull(folder, readdir(folder)), orNull(folder, trustFolder(folder))])
  return names?.filter((name) => name.endsWith('.yaml') && !name.startsWith('.')).sort() ?? null
}

/**
 * The templates in a folder, by their absolute paths; null when there is no such folder. Errors: `desired.not-trusted`,
 * `host.denied`, `host.unreadable`.
 */
export async function readTemplateFiles(folder: string): Promise<readonly DocumentFile[] | null> {
  const names = await namesIn(folder)
  const files = names?.map(async (name) => {
    const path = join(folder, name)
    const text = await orNull(path, readTrusted(path))
    return text === null ? [] : [{ path, text }]
  })
  return files === undefined ? null : (await Promise.all(files)).flat()
}

/**
 * The files of the desired document in `folder` (usually /etc/garrison), named relative to it, for `parseDocument`.
 * Errors: `desired.missing` when there is no host.yaml, `desired.not-trusted` when others than root can write one of them or add
 * another, `host.denied`, `host.unreadable`.
 */
export async function readDesiredFiles(folder: string): Promise<readonly [DocumentFile, ...DocumentFile[]]> {
  const read = async (path: string): Promise<DocumentFile | null> => {
    const text = await orNull(join(folder, path), readTrusted(join(folder, path)))
    return text === null ? null : { path, text }
  }
  const [first, dropIns] = await Promise.all([
    read('host.yaml'),
    namesIn(join(folder, 'host.d')),
    orNull(folder, trustFolder(folder)),
  ])
  if (first === null)
    throw new HostError('desired.missing', `there is no ${join(folder, 'host.yaml')}`, {
      details: { folder },
    })
  const files = await Promise.all((dropIns ?? []).map((name) => read(`host.d/${name}`)))
  return [first, ...files.filter((file) => file !== null)]
}

/** The files of a document with one more drop-in, or another in the place of one that is there. */
export function withDropIn(files: readonly DocumentFile[], dropIn: DocumentFile): readonly DocumentFile[] {
  const [first, ...others] = files.filter(({ path }) => path !== dropIn.path)
  const dropIns = [...others, dropIn].sort((a, b) => (a.path < b.path ? -1 : 1))
  return first === undefined ? dropIns : [first, ...dropIns]
}

/** One file that the caller names, whoever can write it. Throws `absent` when it is not there, `host.denied`, `host.unreadable`. */
export async function readOne(path: string, absent: ProblemCode): Promise<DocumentFile> {
  const text = await orNull(path, readFile(path))
  if (text === null) throw new HostError(absent, `there is no ${path}`, { details: { path } })
  return { path, text }
}
