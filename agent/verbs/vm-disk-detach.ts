// The verb `vm disk detach`: detaches a disk from a VM.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { detachDisk } from '../vms/devices.ts'
import { durationMs } from '../vms/select.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Detaches the disk. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm disk detach'>,
): AsyncGenerator<VmLine> {
  const timeoutMs = durationMs(args.timeout ?? '20s', 'timeout', 'vm disk detach')
  yield* changeVms(context, args, {
    verb: 'vm disk detach',
    risk: 'disruptive',
    parallel: 1,
    work: (hand) => detachDisk(hand, args.disk, timeoutMs),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
