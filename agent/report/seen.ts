// One part of the host, looked at: what was there, or why it could not be read.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'

/** What was there, or why nobody can tell. */
export type Seen<T> = { readonly value: T } | { readonly problem: ProblemReport }

/** Reads a part. What cannot be read is told, and keeps no other part from being read; a defect is thrown. */
export function seen<T>(look: () => T): Seen<T> {
  try {
    return { value: look() }
  } catch (error) {
    if (!(error instanceof HostError)) throw error
    return { problem: error.report() }
  }
}

/** The same for what must be waited for. */
export async function seenLater<T>(look: () => Promise<T>): Promise<Seen<T>> {
  try {
    return { value: await look() }
  } catch (error) {
    if (!(error instanceof HostError)) throw error
    return { problem: error.report() }
  }
}

/** What was there; null when it could not be read. */
export const seenValue = <T>(part: Seen<T>): T | null => ('value' in part ? part.value : null)
