// The hidden verb `stop`: lets the running apply end after the step in hand.

import type { Context } from '../api/context.ts'
import { EXIT, type Exit } from '../api/verbs.ts'

/** Asks the apply of this process to stop. */
export const run = async (context: Context): Promise<{ readonly stopped: boolean }> => ({
  stopped: context.stop(),
})

/** The answer in words. */
export const render = ({ stopped }: { readonly stopped: boolean }): string =>
  stopped ? 'The apply stops after the step in hand.' : 'No apply is running.'

/** 0 whether or not there was one. */
export const exitOf = (): Exit => EXIT.done
