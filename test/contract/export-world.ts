// The host with counting guests, and VMs exported into a folder of it and imported from there.

import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BackupLine } from '../../agent/verbs/vm-backup.ts'
import type { ImportLine } from '../../agent/verbs/vm-import.ts'
import { type ExportedVm, parseExport } from '../../agent/vms/export/document.ts'
import { backupWorld } from './backup-world.ts'

/** Makes it. */
export async function exportWorld() {
  const world = await backupWorld()
  const { root, verb } = world
  const out = join(world.libvirtd.folder, 'out')
  mkdirSync(out, { mode: 0o711 })

  const exported = async (vm: string, dir: string, flags: object = {}) => {
    const { lines, last } = await verb<BackupLine>('vm export', { vm, dir, freeze: false, ...flags })
    return {
      lines,
      last,
      text: lines
        .map(({ text }) => text)
        .join('\n')
        .replace(/\s+/g, ' '),
    }
  }

  /** In a process of its own, which looks at the mounts of a container as at those of a host. */
  const imported = async (dir: string, flags: object = {}) => {
    const lines = await world.all<ImportLine>('vm import', {
      ...{ dir, 'new-identity': false, set: [], plan: false, declare: false },
      ...flags,
    })
    const last = lines.at(-1)
    if (last === undefined) throw new Error('vm import said nothing')
    return {
      lines,
      last,
      text: lines
        .map(({ text }) => text)
        .join('\n')
        .replace(/\s+/g, ' '),
    }
  }

  const documentIn = (dir: string): ExportedVm => {
    const path = join(dir, 'vm.json')
    return parseExport(readFileSync(path, 'utf8'), path)
  }
  const dropIn = (name: string) => join(root, 'etc/garrison/host.d', `vm-${name}.yaml`)
  return { ...world, out, exported, imported, documentIn, dropIn }
}
