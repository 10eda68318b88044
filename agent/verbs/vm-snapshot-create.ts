// The verb `vm snapshot create`: makes a snapshot of VMs.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { makeSnapshot } from '../vms/snapshots.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Makes a snapshot of every VM that is meant. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm snapshot create'>,
): AsyncGenerator<VmLine> {
  const { clock } = context
  const name =
    args.name ??
    new Date(clock())
      .toISOString()
      .replace(/\.\d+Z$/, '')
      .replaceAll(':', '-')
  const making = {
    name,
    description: args.description ?? '',
    diskOnly: args['disk-only'],
    quiesce: args.quiesce,
  }
  yield* changeVms(context, args, {
    verb: 'vm snapshot create',
    risk: 'disruptive',
    parallel: 4,
    work: (hand) => makeSnapshot(hand, making),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
