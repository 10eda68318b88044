// The verb `vm snapshot revert`: brings a VM back to a snapshot.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { revertToSnapshot } from '../vms/snapshots.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Reverts the VM. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm snapshot revert'>,
): AsyncGenerator<VmLine> {
  yield* changeVms(context, args, {
    verb: 'vm snapshot revert',
    risk: 'destroys-data',
    parallel: 1,
    work: (hand) => revertToSnapshot(hand, args.snapshot, args.power),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
