// The folder that backups are in: its mark, a folder for each VM in it, and the manifest there.
//
// INVARIANTS
// - A folder is used only when it bears the mark, which only root sets: what should be mounted and is not does not bear it.
// - Neither it nor what is in it may be written by anybody else: what is restored from it is taken at its word.

import { randomBytes } from 'node:crypto'
import { readFile, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../../../provisioning/problem.ts'
import { createFile, errnoOf, makeFolder, removeFile, replaceFile } from '../../host/files.ts'
import { filesOf, type Manifest, parseManifest, printManifest } from './manifest.ts'

/** A place for backups. `id` tells its checkpoints from those of another place. */
export interface Place {
  readonly path: string
  readonly id: string
}

const markName = 'garrison-backups.json'
/** The name of a manifest in its folder. */
export const manifestName = 'manifest.json'
const schema = 'garrison/backup-place/1'

/** The text of a file; null when there is none. Throws `host.unreadable`. */
export async function textOf(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return null
    if (errno === undefined) throw error
    throw new HostError('host.unreadable', `${path} could not be read (${errno})`, {
      details: { path, errno },
      cause: error,
    })
  }
}

/** Throws `backup.not-trusted` when anybody but the user of this process may write into a folder. */
export async function wantOwn(path: string): Promise<void> {
  const { uid, mode } = await stat(path)
  if (uid === process.getuid?.() && (mode & 0o022) === 0) return
  throw new HostError(
    'backup.not-trusted',
    `${path} belongs to user ${uid}, with mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`,
    { details: { path } },
  )
}

/**
 * Opens a place for backups; with `init` one is made of a folder that is there. Throws `backup.no-place` when it is none,
 * `backup.not-trusted`, `request.invalid` when the path is not absolute.
 */
export async function openPlace(path: string, verb: string, init = false): Promise<Place> {
  if (!path.startsWith('/'))
    throw new HostError('request.invalid', `a place for backups is an absolute path, not ${path}`, {
      details: { verb },
    })
  const real = await realpath(path).catch((error: unknown) => {
    if (errnoOf(error) === undefined) throw error
    throw new HostError('backup.no-place', `there is no folder ${path}`, { details: { path } })
  })
  await wantOwn(real)
  const mark = join(real, markName)
  if (init) {
    const id = randomBytes(4).toString('hex')
    await createFile(mark, `${JSON.stringify({ schema, id })}\n`, 0o644)
  }
  const text = await textOf(mark)
  if (text === null)
    throw new HostError('backup.no-place', `${path} does not bear the mark of a place for backups`, {
      details: { path },
    })
  const [, id] = /"id":"([0-9a-f]{8})"/.exec(text) ?? []
  if (id === undefined || !text.includes(schema))
    throw new HostError('backup.no-place', `${mark} says nothing that is known`, { details: { path } })
  return { path: real, id }
}

/** The name of a VM's folder: its own where that is a plain word, and with `%XX` for every other byte. */
export const folderName = (vm: string): string =>
  [...Buffer.from(vm, 'utf8')]
    .map((byte, at) => {
      const one = String.fromCharCode(byte)
      return /[A-Za-z0-9_-]/.test(one) || (one === '.' && at > 0)
        ? one
        : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`
    })
    .join('')

/** The backups of one VM in a place. */
export class Store {
  readonly folder: string
  #manifest: Manifest
  readonly isNew: boolean

  private constructor(folder: string, manifest: Manifest, isNew: boolean) {
    this.folder = folder
    this.#manifest = manifest
    this.isNew = isNew
  }

  /**
   * Reads what is there of a VM; of one that has no folder it is empty. Throws `backup.manifest-damaged`, `backup.not-trusted`,
   * `host.unreadable`.
   */
  static open(place: Place, vm: Manifest['vm']): Promise<Store> {
    return Store.at(join(place.path, folderName(vm.name)), vm)
  }

  /** The same of a folder that is in no place for backups. */
  static async at(folder: string, vm: Manifest['vm']): Promise<Store> {
    const known = await Store.read(folder)
    return known ?? new Store(folder, { vm, backups: [], begun: null, removing: [] }, true)
  }

  /** Reads what is in a folder; null when there is no manifest. */
  static async read(folder: string): Promise<Store | null> {
    const path = join(folder, manifestName)
    const text = await textOf(path)
    if (text === null) return null
    await wantOwn(folder)
    return new Store(folder, parseManifest(text, path), false)
  }

  get manifest(): Manifest {
    return this.#manifest
  }

  /** Where a file of the manifest is. */
  pathOf(file: string): string {
    return join(this.folder, file)
  }

  /** Changes the manifest, on the disk first. */
  async change(changes: Partial<Manifest>): Promise<void> {
    const manifest = { ...this.#manifest, ...changes }
    // QEMU, which is not root, passes through to the images, which are its own while it writes them.
    await makeFolder(this.folder, { mode: 0o711 })
    await replaceFile(join(this.folder, manifestName), printManifest(manifest), 0o600)
    this.#manifest = manifest
  }

  /** Takes backups out, and then their files; after a crash the next call ends what this one began. */
  async remove(ids: readonly string[]): Promise<void> {
    const { backups, removing } = this.#manifest
    const going = backups.filter(({ id }) => ids.includes(id))
    const files = [...removing, ...going.flatMap(filesOf)]
    if (files.length === 0 && going.length === 0) return
    await this.change({ backups: backups.filter((one) => !going.includes(one)), removing: files })
    for (const file of files) await removeFile(this.pathOf(file))
    await this.change({ removing: [] })
  }
}
