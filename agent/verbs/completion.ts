// The verb `completion`: the completion script of a shell.

import { completionScript } from '../api/completion.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `completion`. */
export interface Completion {
  readonly shell: string
  readonly script: string
}

/** Makes the script from the table of verbs. */
export const run = async ({ shell }: Args<'completion'>): Promise<Completion> => ({
  shell,
  script: completionScript(shell),
})

/** The script alone. */
export const render = ({ script }: Completion): string => script.trimEnd()

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
