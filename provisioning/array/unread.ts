// Facts that could not be read: what is unknown is written down as such, and hides nothing else.

import { HostError, type ProblemCode } from '../problem.ts'

/** A fact that could not be read. Who needs it must not guess. */
export interface Unread {
  readonly fact: string
  readonly code: ProblemCode
  readonly why: string
}

/** Turns the failure of one reading into an unread fact; a defect still throws. */
export function collect(unread: Unread[]) {
  return async <T>(fact: string, reading: () => Promise<T>): Promise<T | null> => {
    try {
      return await reading()
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      unread.push({ fact, code: error.code, why: error.message })
      return null
    }
  }
}
