// Units of systemd that have failed, as `systemctl list-units` tells them in JSON (systemd >= 246).

import { unexpected } from '../unexpected.ts'

/** A unit that failed. */
export interface FailedUnit {
  readonly unit: string
  readonly description: string
}

/** Asks which units have failed. */
export const systemctlFailed = (): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'list-units',
  '--all',
  '--state=failed',
  '--output=json',
  '--no-pager',
]

/** Reads the answer. */
export function parseFailedUnits(text: string): readonly FailedUnit[] {
  const list = parsed(text)
  return list.map(({ unit, description }) => {
    if (typeof unit !== 'string') throw unexpected('systemctl list-units', text)
    return { unit, description: typeof description === 'string' ? description : '' }
  })
}

function parsed(text: string): readonly Record<string, unknown>[] {
  try {
    const list: unknown = JSON.parse(text)
    if (Array.isArray(list) && list.every((one) => typeof one === 'object' && one !== null)) return list
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  throw unexpected('systemctl list-units', text)
}
