// The verb `vm delete`: deletes VMs, and their disks when told.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { deleteVm } from '../vms/delete.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { siteOf } from './vm-site.ts'

/** Deletes every VM that is meant. */
export async function* run(context: Context<Connection>, args: Args<'vm delete'>): AsyncGenerator<VmLine> {
  const site = await siteOf(context)
  yield* changeVms(context, args, {
    verb: 'vm delete',
    risk: args.disks ? 'destroys-data' : 'disruptive',
    // Two at once might each take a disk that they share for the other's.
    parallel: 1,
    work: (hand, all) => deleteVm(hand, args.disks, all, site),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
