// Reads the desired document from its folder: host.yaml, then host.d/*.yaml in the order of their names.

import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
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
  await orNull(folder, trustFolder(folder))
  const first = await read('host.yaml')
  if (first === null)
    throw new HostError('desired.missing', `there is no ${join(folder, 'host.yaml')}`, {
      details: { folder },
    })
  const dropInFolder = join(folder, 'host.d')
  await orNull(dropInFolder, trustFolder(dropInFolder))
  const names = (await orNull(dropInFolder, readdir(dropInFolder))) ?? []
  const dropIns = names.filter((name) => name.endsWith('.yaml') && !name.startsWith('.')).sort()
  const files = await Promise.all(dropIns.map((name) => read(`host.d/${name}`)))
  return [first, ...files.filter((file) => file !== null)]
}
