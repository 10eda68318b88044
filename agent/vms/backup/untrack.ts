// Has libvirt forget what it keeps of a VM for its next backup, so that what checkpoints stand in the way of can be done.

import type { Performer } from '../../../provisioning/host.ts'
import { HostError } from '../../../provisioning/problem.ts'
import type { DomainModel } from '../../../provisioning/vms/domain.ts'
import type { ToLibvirt } from '../reach.ts'
import { dropCheckpoint, forgetCheckpoint, ownCheckpoints } from './checkpoints.ts'

/** What the work is done with. */
export interface Untracking {
  readonly to: ToLibvirt
  readonly performer: Pick<Performer, 'perform'>
}

/** The VM. */
export interface Untracked {
  readonly name: string
  readonly uuid: string
  readonly isOff: boolean
  readonly model: DomainModel | null
}

/** Takes the record of a checkpoint out of an image of a VM that is off; that there is none is success. */
async function removeRecord({ performer }: Untracking, image: string, name: string): Promise<void> {
  const argv = ['/usr/bin/qemu-img', 'bitmap', '--remove', '-f', 'qcow2', '--', image, name] as const
  try {
    await performer.perform({ kind: 'run', argv: [...argv], deadlineMs: 60_000 })
  } catch (error) {
    const said =
      error instanceof HostError ? (error.details.outcome as { stderrTail?: string } | undefined) : null
    if (!/not found|does not exist/i.test(said?.stderrTail ?? '')) throw error
  }
}

/** Forgets all that was kept for backups of a VM; how many checkpoints that were. Others' are left. */
export async function untrack(
  untracking: Untracking,
  { name, uuid, isOff, model }: Untracked,
): Promise<number> {
  const { to } = untracking
  const dom = { name, uuid }
  const checkpoints = await ownCheckpoints(to, dom)
  for (const checkpoint of checkpoints) {
    if (!isOff) await dropCheckpoint(to, dom, checkpoint)
    else {
      for (const { source, format, readOnly } of model?.disks ?? [])
        if (source !== null && format === 'qcow2' && !readOnly)
          await removeRecord(untracking, source.at, checkpoint)
      await forgetCheckpoint(to, dom, checkpoint)
    }
  }
  return checkpoints.length
}
