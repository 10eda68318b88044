// The verb `vm suspend`: pauses VMs, in memory or to the disk.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { save, suspend } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Pauses every VM that is meant. */
export const run = (context: Context<Connection>, args: Args<'vm suspend'>): AsyncGenerator<VmLine> =>
  changeVms(context, args, {
    verb: 'vm suspend',
    risk: 'disruptive',
    parallel: 8,
    work: args['to-disk'] ? save : suspend,
  })

export { exitOf, live, render } from './vm-batch.ts'
