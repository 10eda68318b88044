// Copies disks that nobody writes: of a VM that is off, or that its guest only reads. qemu-img takes QEMU's own lock on them.
//
// INVARIANTS
// - QEMU's lock keeps a VM from being started while its disk is copied, and a copy from being made while it runs. A raw disk that is
//   compared with an earlier image is not locked meanwhile, but when the copy is compared with it in the end.
// - A disk that was another before and after (its times and length) was written in between, and the copy is thrown away.

import { stat } from 'node:fs/promises'
import { HostError } from '../../../provisioning/problem.ts'
import { convertDisk, createClone } from '../../../provisioning/vms/qemu-img.ts'
import type { Chosen } from './choice.ts'
import { isSameDisk } from './read-back.ts'
import { allocatedBytes, goOn, isLocked, runTool, type Tools, watched } from './tools.ts'

type At = Pick<Chosen, 'source' | 'format' | 'isRead'>

async function look(path: string): Promise<string> {
  const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
  return [ino, size, mtimeNs, ctimeNs].join(' ')
}

const busy = (vm: string, source: string, why: string): HostError =>
  new HostError('vm.busy', `${source}, a disk of ${vm}, ${why}`, { details: { vm } })

/** Copies a disk into a new qcow2: whole, or what differs from the image `on` (a name in the same folder). Throws `vm.busy`. */
export async function copyAtRest(
  tools: Omit<Tools, 'to'>,
  vm: string,
  { source, format, isRead }: At,
  path: string,
  on: string | null,
): Promise<void> {
  const { signal } = tools
  const before = await look(source)
  const from = { path: source, format }
  const about = { subject: vm, doing: on === null ? 'copying' : 'comparing', totalBytes: null }
  try {
    if (on === null)
      await watched(
        tools,
        path,
        { ...about, totalBytes: await allocatedBytes(source) },
        runTool(tools, convertDisk(from, { path, format: 'qcow2' })),
      )
    else {
      // A clone of the disk as it is, put onto the earlier image: qemu-img then writes into it what differs between the two.
      await runTool(tools, createClone({ path, sizeBytes: null }, from))
      await watched(
        tools,
        path,
        about,
        runTool(tools, [
          '/usr/bin/qemu-img',
          'rebase',
          '-q',
          ...['-t', 'writeback', '-f', 'qcow2', '-F', 'qcow2', '-b', on],
          '--',
          path,
        ]),
      )
    }
    if (!(await isSameDisk(tools, from, { path, format: 'qcow2' })))
      throw new HostError('backup.copy-failed', `${vm}: the copy of ${source} is not the same as ${source}`, {
        details: { vm },
      })
  } catch (error) {
    goOn(signal)
    if (isLocked(error)) throw busy(vm, source, 'is in use')
    throw error
  }
  if (!isRead && before !== (await look(source))) throw busy(vm, source, 'was written while it was copied')
}
