// The verb `vm rename`: gives a VM another name.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { rename } from '../vms/rename.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { siteOf } from './vm-site.ts'

/** Renames the VM. */
export async function* run(context: Context<Connection>, args: Args<'vm rename'>): AsyncGenerator<VmLine> {
  const site = await siteOf(context)
  yield* changeVms(context, args, {
    verb: 'vm rename',
    risk: 'safe',
    parallel: 1,
    work: (hand, all) => rename(hand, args.name, all, site),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
