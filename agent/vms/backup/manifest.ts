// The manifest of one VM's backups: what there is, what stands on what, what is being made and what is being removed.
//
// INVARIANTS
// - It is replaced whole, and it alone says what a file of the folder is. A file that it does not name is nobody's.
// - A backup is in it only when every image of it was read back. What is being made is in `begun` before its first byte is.
// - A backup is taken out of it before its files are removed; until they are, they are in `removing`.
// - An image is never written again once it is in it.

import { createHash } from 'node:crypto'
import { HostError } from '../../../provisioning/problem.ts'

/** One disk in a backup. Sizes in bytes; `file` is in the folder of the manifest. */
export interface BackedDisk {
  /** libvirt's name of it (`vda`). */
  readonly target: string
  /** The name that it is declared with, where it is. */
  readonly name: string | null
  readonly file: string
  readonly kind: 'full' | 'incremental'
  /** The backup whose image of this disk this one keeps only the difference to; null for a full one. */
  readonly on: string | null
  /** What the guest sees. */
  readonly virtualBytes: number
  readonly fileBytes: number
  readonly sha256: string
  /** Where it was, and in what format. */
  readonly source: string
  readonly format: 'qcow2' | 'raw'
}

/** A copy of the variables of a VM's firmware: what it boots, and whom it trusts. `path` is where they are. */
export interface BackedFirmware {
  readonly file: string
  readonly path: string
  readonly fileBytes: number
  readonly sha256: string
}

/** A disk, or what is like one, that is not in a backup, and why. */
export interface LeftOut {
  readonly target: string
  readonly source: string | null
  readonly why: string
}

/** One backup. Times are epoch milliseconds. */
export interface Backup {
  /** When it was begun, as `20261120T210012Z`. */
  readonly id: string
  readonly atMs: number
  /**
   * How its disks were consistent: `off`, at one moment while it ran (`crash`: as after a power cut), or at one moment with its
   * filesystems frozen.
   */
  readonly consistency: 'off' | 'crash' | 'frozen'
  /** libvirt's checkpoint of that moment, which the next one can stand on; null when there is none. */
  readonly checkpoint: string | null
  /** Why disks are whole where one would expect only what has changed, in plain words; null when nothing is to be said. */
  readonly why: string | null
  readonly disks: readonly BackedDisk[]
  /** Null for a VM that has none, as one that boots with BIOS. */
  readonly firmware: BackedFirmware | null
  readonly leftOut: readonly LeftOut[]
  /** The definition, with its passwords. */
  readonly xml: string
  /** What the desired document said of it, or null. */
  readonly declaration: unknown
  readonly host: string
  /** When all its images were last read back. */
  readonly verifiedMs: number
  /** What is wrong with it since then, or null. */
  readonly damage: string | null
}

/** An image that is being made. */
export interface BegunDisk {
  readonly target: string
  readonly name: string | null
  readonly file: string
  readonly kind: 'full' | 'incremental'
  readonly on: string | null
  readonly source: string
  readonly format: 'qcow2' | 'raw'
  readonly isRead: boolean
}

/** A backup that is being made. `copied`: all its images are whole, and have yet to be read back. */
export interface Begun
  extends Pick<Backup, 'id' | 'atMs' | 'checkpoint' | 'why' | 'leftOut' | 'xml' | 'declaration'> {
  readonly how: 'push' | 'off'
  readonly phase: 'copying' | 'copied'
  readonly consistency: Backup['consistency']
  readonly disks: readonly BegunDisk[]
  readonly firmware: Pick<BackedFirmware, 'file' | 'path'> | null
}

/** Everything that is known of one VM's backups in one place; the oldest first. */
export interface Manifest {
  readonly vm: { readonly name: string; readonly uuid: string }
  readonly backups: readonly Backup[]
  readonly begun: Begun | null
  readonly removing: readonly string[]
}

const schema = 'garrison/backup-manifest/1'

const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex')

/** The text of a manifest. */
export function printManifest(manifest: Manifest): string {
  const body = `${JSON.stringify(manifest, null, 1)}\n`
  return `${JSON.stringify({ schema, sha256: digestOf(body) })}\n${body}`
}

/** Reads a manifest. Throws `backup.manifest-damaged` when it is torn or was changed. */
export function parseManifest(text: string, path: string): Manifest {
  const damaged = (why: string): HostError =>
    new HostError('backup.manifest-damaged', `${path} ${why}`, { details: { path } })
  const feed = text.indexOf('\n')
  const [head, body] = [text.slice(0, Math.max(0, feed)), text.slice(feed + 1)]
  let known: { readonly schema?: unknown; readonly sha256?: unknown } | null
  try {
    known = JSON.parse(head) as typeof known
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged('does not begin as a manifest does')
    throw error
  }
  if (known?.schema !== schema) throw damaged(`is not of the schema ${schema}`)
  if (known.sha256 !== digestOf(body)) throw damaged('is not as it was written')
  return JSON.parse(body) as Manifest
}

/** Every file of a backup. */
export const filesOf = ({
  disks,
  firmware,
}: {
  readonly disks: readonly { readonly file: string }[]
  readonly firmware: { readonly file: string } | null
}): readonly string[] => [...disks.map(({ file }) => file), ...(firmware === null ? [] : [firmware.file])]

/** The images that a disk of a backup is in, from the one that says most lately what is in it down to a full one; null when one is missing. */
export function chainOf(
  { backups }: Pick<Manifest, 'backups'>,
  id: string,
  target: string,
): readonly BackedDisk[] | null {
  const chain: BackedDisk[] = []
  for (let at: string | null = id; at !== null; ) {
    const backup = backups.find((one) => one.id === at)
    const disk: BackedDisk | undefined = backup?.disks.find((one) => one.target === target)
    // A manifest that leads in circles was never written here.
    if (disk === undefined || chain.length > backups.length) return null
    chain.push(disk)
    at = disk.on
  }
  return chain
}

/** Backups that stand on none that is damaged, and are not damaged themselves. */
export const soundBackups = (manifest: Pick<Manifest, 'backups'>): readonly Backup[] =>
  manifest.backups.filter((backup) => {
    const needed = neededBy(manifest, backup.id)
    return manifest.backups.every(({ id, damage }) => damage === null || !needed.has(id))
  })

/** A backup and all that it stands on. */
export function neededBy({ backups }: Pick<Manifest, 'backups'>, id: string): ReadonlySet<string> {
  const needed = new Set<string>([id])
  for (const one of needed)
    for (const { on } of backups.find((backup) => backup.id === one)?.disks ?? [])
      if (on !== null) needed.add(on)
  return needed
}
