// The verb `vm disk resize`: makes a disk of a VM larger.

import { HostError } from '../../provisioning/problem.ts'
import type { DiskModel } from '../../provisioning/vms/disks.ts'
import { resizeDisk } from '../../provisioning/vms/qemu-img.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { growDisk } from '../vms/devices.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { bytesOf } from './vm-set.ts'

const verb = 'vm disk resize'
const deadlineMs = 600_000

/** Grows the disk: by QEMU where the VM runs, by qemu-img where it is off. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm disk resize'>,
): AsyncGenerator<VmLine> {
  const sizeBytes = bytesOf(args.size, 'size', verb)
  const growFile = async ({ source, format, target }: DiskModel): Promise<void> => {
    if (source?.kind !== 'file' || (format !== 'qcow2' && format !== 'raw'))
      throw new HostError(
        'request.invalid',
        `${target} is no file of qcow2 or raw: grow it by its own means`,
        {
          details: { verb },
        },
      )
    const argv = resizeDisk({ path: source.at, sizeBytes }, format)
    await context.performer.perform({ kind: 'run', argv, deadlineMs })
  }
  yield* changeVms(context, args, {
    verb,
    risk: 'safe',
    parallel: 1,
    work: (hand) => growDisk(hand, args.disk, sizeBytes, growFile),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
