// The verb `vm snapshot delete`: deletes a snapshot of a VM.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { deleteSnapshot } from '../vms/snapshots.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Deletes the snapshot. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm snapshot delete'>,
): AsyncGenerator<VmLine> {
  yield* changeVms(context, args, {
    verb: 'vm snapshot delete',
    risk: 'disruptive',
    parallel: 1,
    work: (hand) => deleteSnapshot(hand, args.snapshot, args.children),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
