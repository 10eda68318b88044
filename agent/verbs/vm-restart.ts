// The verb `vm restart`: shuts VMs down and starts them again.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { restart } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { stoppingOf, waitedFor } from './vm-stop.ts'

/** Restarts every VM that is meant. */
export function run(context: Context<Connection>, args: Args<'vm restart'>): AsyncGenerator<VmLine> {
  const stopping = stoppingOf(args, 'vm restart')
  return changeVms(context, args, {
    verb: 'vm restart',
    risk: 'disruptive',
    parallel: waitedFor,
    work: (hand) => restart(hand, stopping),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
