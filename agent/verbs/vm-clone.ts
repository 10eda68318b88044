// The verb `vm clone`: makes another VM like one.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { clone } from '../vms/clone.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { siteOf } from './vm-site.ts'

/** Clones the VM. Throws `job.busy`, and what `changeVms` throws. */
export async function* run(context: Context<Connection>, args: Args<'vm clone'>): AsyncGenerator<VmLine> {
  const site = await siteOf(context)
  const held = await context.hold(`the disks of ${args.name}`)
  try {
    yield* changeVms(context, args, {
      verb: 'vm clone',
      risk: 'safe',
      parallel: 1,
      work: (hand, all) => clone(hand, args.name, all, site),
    })
  } finally {
    await held.release()
  }
}

export { exitOf, live, render } from './vm-batch.ts'
