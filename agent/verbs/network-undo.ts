// The verb `network undo`: undoes at once what the deadline would undo later.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import { readArmed, readEnded, readRestoring, undoFolderIn } from '../host/undo-saved.ts'
import type { EndedChange } from './network-confirm.ts'

/** Puts the old configuration back. Throws `undo.nothing-pending`, `undo.incomplete`. */
export async function run({ ownFolder, performer }: Context): Promise<EndedChange> {
  const folder = undoFolderIn(ownFolder)
  if (((await readArmed(folder)) ?? (await readRestoring(folder))) === null)
    throw new HostError('undo.nothing-pending', 'no change to the network waits to be undone')
  await performer.perform({ kind: 'undo', operation: 'restore' })
  return { last: await readEnded(folder) }
}

export { render } from './network-confirm.ts'

/** 1 when something failed on the way, else 0. */
export const exitOf = ({ last }: EndedChange): Exit =>
  last !== null && last.problems.length === 0 ? EXIT.done : EXIT.error
