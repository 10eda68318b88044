// The verb `vm resume`: lets paused VMs run on.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { resume } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Lets every VM that is meant run on. */
export const run = (context: Context<Connection>, args: Args<'vm resume'>): AsyncGenerator<VmLine> =>
  changeVms(context, args, {
    verb: 'vm resume',
    risk: 'safe',
    parallel: 8,
    work: resume,
  })

export { exitOf, live, render } from './vm-batch.ts'
