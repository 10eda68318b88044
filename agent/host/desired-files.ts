// Reads the desired document from its folder: host.yaml, then host.d/*.yaml in the order of their names.

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DocumentFile } from '../../provisioning/document.ts'
import { HostError } from '../../provisioning/problem.ts'
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

/**
 * The files of the desired document in `folder` (usually /etc/garrison), named relative to it, for `parseDocument`.
 * Errors: `desired.missing` when there is no host.yaml, `host.denied`, `host.unreadable`.
 */
export async function readDesiredFiles(folder: string): Promise<readonly [DocumentFile, ...DocumentFile[]]> {
  const read = async (path: string): Promise<DocumentFile | null> => {
    const text = await orNull(join(folder, path), readFile(join(folder, path)))
    return text === null ? null : { path, text }
  }
  const first = await read('host.yaml')
  if (first === null)
    throw new HostError('desired.missing', `there is no ${join(folder, 'host.yaml')}`, {
      details: { folder },
    })
  const names = (await orNull(join(folder, 'host.d'), readdir(join(folder, 'host.d')))) ?? []
  const dropIns = names.filter((name) => name.endsWith('.yaml') && !name.startsWith('.')).sort()
  const files = await Promise.all(dropIns.map((name) => read(`host.d/${name}`)))
  return [first, ...files.filter((file) => file !== null)]
}
