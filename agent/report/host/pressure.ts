// How long tasks stood still for want of something: the kernel's pressure stall information, /proc/pressure (Documentation/accounting/psi.rst).

import { unexpected } from '../unexpected.ts'

/** Microseconds since boot. */
export interface Pressure {
  /** In which at least one task stood still. */
  readonly someUs: number
  /** In which all that had something to do stood still; null where the kernel does not tell (processors, before 5.13). */
  readonly fullUs: number | null
}

/** Reads one of /proc/pressure/cpu, memory and io. */
export function parsePressure(path: string, text: string): Pressure {
  const total = (kind: string): number | null => {
    const found = new RegExp(`^${kind} .*\\btotal=(\\d+)$`, 'm').exec(text)?.[1]
    return found === undefined ? null : Number(found)
  }
  const someUs = total('some')
  if (someUs === null) throw unexpected(path, text)
  return { someUs, fullUs: total('full') }
}
