// What VM networks go by in the record that `garrison network probe` leaves behind (link/probe.ts).

import { z } from 'zod'

/** What matters of it here. */
export interface ProbeRecord {
  readonly atMs: number
  /** The MAC that the interface had then: of another interface nothing is known. */
  readonly mac: string
  readonly secondMac: 'passes' | 'dropped' | 'unknown'
}

const record = z.object({
  atMs: z.number(),
  mac: z.string(),
  secondMac: z.enum(['passes', 'dropped', 'unknown']),
})

/** Parses a record; null when there is none, or one that says nothing that is known: then nothing is proved. */
export function parseProbe(text: string | null): ProbeRecord | null {
  if (text === null) return null
  try {
    const { success, data } = record.safeParse(JSON.parse(text))
    return success ? data : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}
