// Which disks of a VM are copied, and of which of them only what has changed.

import { dirname } from 'node:path'
import { HostError } from '../../../provisioning/problem.ts'
import type { DiskModel } from '../../../provisioning/vms/disks.ts'
import { type Backup, chainOf, type LeftOut, type Manifest, soundBackups } from './manifest.ts'

/** A disk that is copied. `isRead`: the guest only reads it, so it can be copied at any time. */
export interface Chosen {
  readonly target: string
  readonly name: string | null
  readonly source: string
  readonly format: 'qcow2' | 'raw'
  readonly isRead: boolean
}

/**
 * The disks that a backup holds. What the guest only reads is part of it when it lies beside its other disks, as its seed does; an
 * installer that many VMs have is not. `without` says of names of disks why they are not wanted. Throws `backup.disk-unsupported`.
 */
export function chooseDisks(
  vm: string,
  disks: readonly DiskModel[],
  without: ReadonlyMap<string, string> = new Map(),
): { readonly chosen: readonly Chosen[]; readonly leftOut: readonly LeftOut[] } {
  const folders = new Set(
    disks.flatMap(({ readOnly, source }) => (readOnly || source === null ? [] : dirname(source.at))),
  )
  const chosen: Chosen[] = []
  const leftOut: LeftOut[] = []
  for (const { target, name, source, format, readOnly } of disks) {
    const leave = (why: string) => leftOut.push({ target, source: source?.at ?? null, why })
    const unsupported = (why: string) =>
      new HostError('backup.disk-unsupported', `${target} of ${vm} ${why}`, { details: { vm, target } })
    const unwanted = name === null ? undefined : without.get(name)
    if (source === null) leave('it has no medium')
    else if (unwanted !== undefined) leave(unwanted)
    else if (readOnly && !(source.kind === 'file' && folders.has(dirname(source.at))))
      leave('the guest only reads it, and it is not kept with its other disks')
    else if (source.kind !== 'file' && source.kind !== 'block')
      throw unsupported(`is a ${source.kind} disk (${source.at}), no file or device of this host`)
    else if (format !== 'qcow2' && format !== 'raw') throw unsupported(`is in the format ${format}`)
    else if (!/^[a-z]{1,16}$/.test(target)) throw unsupported('has a name that no file can have')
    else chosen.push({ target, name, source: source.at, format, isRead: readOnly })
  }
  if (chosen.length === 0)
    throw new HostError('backup.disk-unsupported', `${vm} has no disk to be kept`, { details: { vm } })
  return { chosen, leftOut }
}

/** What a disk is copied since: the backup that it then stands on, or why all of it is copied. */
export type Since = { readonly on: Backup } | { readonly why: string }

/** What is known when it is decided what is copied since when. */
export interface Known {
  readonly manifest: Pick<Manifest, 'backups'>
  /** The most incremental ones after a full one. */
  readonly mostIncrements: number
  /** Whether a file of the manifest is there, as long as it was. */
  readonly isThere: (file: string, bytes: number) => boolean
  /** Whether a backup can be stood on besides. */
  readonly isUsable: (backup: Backup) => boolean
}

/** Decides for one disk; the newest backup that can be stood on is. `none` says why there is none where nothing else is in the way. */
export function sinceWhen(
  { manifest, mostIncrements, isThere, isUsable }: Known,
  { target }: Pick<Chosen, 'target'>,
  none: string,
): Since {
  const { backups } = manifest
  if (!backups.some(({ disks }) => disks.some((disk) => disk.target === target)))
    return { why: 'it is the first' }
  let why = none
  for (const backup of soundBackups(manifest).toReversed()) {
    if (!isUsable(backup)) continue
    const chain = chainOf(manifest, backup.id, target)
    if (chain === null) continue
    const lost = chain.find(({ file, fileBytes }) => !isThere(file, fileBytes))
    if (lost !== undefined) why = `${lost.file} is not there as it was`
    else if (chain.length > mostIncrements) return { why: `${chain.length - 1} stand on the last full one` }
    else return { on: backup }
  }
  return { why }
}

/** Why disks are whole, each reason once with the disks that it is about; null when none is. */
export function whyWhole(
  reasons: readonly (readonly [target: string, why: string])[],
  disks: number,
): string | null {
  const byReason = Map.groupBy(reasons, ([, why]) => why)
  const parts = [...byReason].map(([why, all]) =>
    all.length === disks ? why : `${all.map(([target]) => target).join(', ')}: ${why}`,
  )
  return parts.length === 0 ? null : parts.join('; ')
}
