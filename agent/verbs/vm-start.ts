// The verb `vm start`: starts VMs.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { start } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Starts every VM that is meant. */
export const run = (context: Context<Connection>, args: Args<'vm start'>): AsyncGenerator<VmLine> =>
  changeVms(context, args, {
    verb: 'vm start',
    risk: 'safe',
    parallel: 8,
    work: (hand) => start(hand, { paused: args.paused }),
  })

export { exitOf, live, render } from './vm-batch.ts'
