// The verb `vm verify`: reads every image of the backups in a folder again.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { type BackupsLine, listed } from './vm-backups.ts'

/** Reads them, writes down what is damaged, and lists them. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm verify'>,
): AsyncGenerator<BackupsLine> {
  const { verifyAgain } = await import('../vms/backup/inventory.ts')
  yield* listed(context, args, (store, tools) => verifyAgain(tools, store))
}

export { exitOf, live, render } from './vm-backups.ts'
