// The verb `vm kill`: cuts the power of VMs.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { kill } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Ends every VM that is meant, at once. */
export const run = (context: Context<Connection>, args: Args<'vm kill'>): AsyncGenerator<VmLine> =>
  changeVms(context, args, {
    verb: 'vm kill',
    risk: 'disruptive',
    parallel: 8,
    work: kill,
  })

export { exitOf, live, render } from './vm-batch.ts'
