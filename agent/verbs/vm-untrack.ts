// The verb `vm untrack`: has libvirt forget what it keeps of VMs for their next backup.

import type { Context } from '../api/context.ts'
import { count } from '../api/terminal.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Forgets it of every VM that is meant. */
export async function* run(context: Context<Connection>, args: Args<'vm untrack'>): AsyncGenerator<VmLine> {
  const { untrack } = await import('../vms/backup/untrack.ts')
  const { performer } = context
  yield* changeVms(context, args, {
    verb: 'vm untrack',
    risk: 'safe',
    parallel: 4,
    async work({ to, vm, changes }) {
      const forgotten = await changes.make(
        {
          word: 'untrack',
          vm: vm.name,
          summary: 'forget what has changed since its last backup',
          risk: 'safe',
        },
        () => untrack({ to, performer }, { ...vm, isOff: vm.power === 'off' }),
      )
      return {
        changed: forgotten > 0,
        text: forgotten === 0 ? 'nothing was kept' : `${count(forgotten, 'record')} forgotten`,
      }
    },
  })
}

export { exitOf, live, render } from './vm-batch.ts'
