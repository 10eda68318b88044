// The hidden verb `network restore`: what systemd starts at the deadline of a change and at boot. It needs no other part of the agent.

import type { Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { restore, undoFolder } from '../host/undo-saved.ts'
import type { EndedChange } from './network-confirm.ts'
import { endedText } from './network-pending.ts'

/** Undoes what is armed. Throws `undo.incomplete`, `undo.damaged`; systemd then starts it again. */
export const run = async ({ folder }: Args<'network restore'>): Promise<EndedChange> => ({
  last: await restore(folder ?? undoFolder, Date.now),
})

/** The answer in words. */
export const render = ({ last }: EndedChange, terminal: Terminal): string =>
  last === null ? 'Nothing was pending.' : endedText(terminal, last)

/** Always 0: what failed after the files were back is in the answer, and doing it again would not help. */
export const exitOf = (): Exit => EXIT.done
