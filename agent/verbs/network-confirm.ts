// The verb `network confirm`: a person testifies that the host is reached after a change to its network.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import type { Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import { type Ended, keepChange, readEnded, undoFolderIn } from '../host/undo-saved.ts'
import { endedText } from './network-pending.ts'

/** The answer of `network confirm` and `network undo`. */
export interface EndedChange {
  readonly last: Ended | null
}

/** Lets the change stay. The timer finds nothing then. Throws `undo.nothing-pending`. */
export async function run({ ownFolder, who, clock }: Context): Promise<EndedChange> {
  const folder = undoFolderIn(ownFolder)
  if (!(await keepChange(folder, who, clock())))
    throw new HostError('undo.nothing-pending', 'no change to the network waits to be confirmed')
  return { last: await readEnded(folder) }
}

/** The answer in words. */
export const render = ({ last }: EndedChange, terminal: Terminal): string =>
  last === null ? 'Nothing was pending.' : endedText(terminal, last)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
