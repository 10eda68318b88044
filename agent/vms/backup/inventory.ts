// What backups there are in a place, and whether they are still what they were.

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError, type ProblemReport } from '../../../provisioning/problem.ts'
import { type BackedDisk, type Backup, chainOf, type Manifest } from './manifest.ts'
import { type Place, Store } from './place.ts'
import { readBack } from './read-back.ts'
import { digestOf, type Tools } from './tools.ts'

/** The backups of one VM, or why it cannot be said what there is. */
export type Inventory =
  | { readonly vm: string; readonly store: Store }
  | { readonly vm: string; readonly problem: ProblemReport }

/** Every VM that has backups in a place, or one of them, by name. Throws `backup.none`. */
export async function* inventory(place: Place, vm: string | undefined): AsyncGenerator<Inventory> {
  const names = (await readdir(place.path, { withFileTypes: true }))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort()
  let found = false
  for (const folder of names) {
    try {
      const store = await Store.read(join(place.path, folder))
      if (store === null || (vm !== undefined && store.manifest.vm.name !== vm)) continue
      found = true
      yield { vm: store.manifest.vm.name, store }
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      found = true
      yield { vm: folder, problem: error.report() }
    }
  }
  if (vm !== undefined && !found)
    throw new HostError('backup.none', `there is no backup of ${vm} in ${place.path}`)
}

async function damageOf(
  tools: Omit<Tools, 'to'>,
  { manifest, pathOf }: { readonly manifest: Manifest; pathOf(file: string): string },
  backup: Backup,
  disk: BackedDisk,
): Promise<string | null> {
  const path = pathOf(disk.file)
  const chain = chainOf(manifest, backup.id, disk.target)
  if (chain === null) return `${disk.file} stands on what is not there`
  try {
    await stat(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      return `${disk.file} is not there`
    throw error
  }
  try {
    const backing = chain[1]?.file ?? null
    const { fileBytes, sha256 } = await readBack(
      tools,
      { path, virtualBytes: disk.virtualBytes, backing },
      `${manifest.vm.name} ${backup.id}`,
    )
    return fileBytes === disk.fileBytes && sha256 === disk.sha256
      ? null
      : `${disk.file} is not as it was written`
  } catch (error) {
    if (!(error instanceof HostError) || !['backup.damaged', 'host.unreadable'].includes(error.code))
      throw error
    return error.message
  }
}

/** Whether a file is what it was when it was made. */
export async function isAsMade(
  tools: Pick<Tools, 'tell' | 'signal'>,
  path: string,
  { fileBytes, sha256 }: { readonly fileBytes: number; readonly sha256: string },
): Promise<boolean> {
  try {
    const found = await digestOf(tools, path, { subject: path, doing: 'reading' })
    return found.fileBytes === fileBytes && found.sha256 === sha256
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false
    throw error
  }
}

/** Reads every image of a VM's backups again, and writes down what is damaged and what is not any more. */
export async function verifyAgain(tools: Omit<Tools, 'to'>, store: Store): Promise<void> {
  const { manifest } = store
  const backups: Backup[] = []
  for (const backup of manifest.backups) {
    const found: string[] = []
    for (const disk of backup.disks) {
      const damage = await damageOf(tools, { manifest, pathOf: (file) => store.pathOf(file) }, backup, disk)
      if (damage !== null) found.push(damage)
    }
    const { firmware } = backup
    if (firmware !== null && !(await isAsMade(tools, store.pathOf(firmware.file), firmware)))
      found.push(`${firmware.file} is not as it was written`)
    backups.push({
      ...backup,
      verifiedMs: tools.clock(),
      damage: found.length === 0 ? null : found.join('; '),
    })
  }
  await store.change({ backups })
}
