// Whether the clock follows a better one: `chronyc tracking` where chrony runs, else what the kernel was told (timedatectl).

import { unexpected } from '../unexpected.ts'

/** How the clock stands. `offsetMs` is null where nobody tells it. */
export interface ClockSource {
  readonly synchronised: boolean
  /** How far the clock is ahead of the true time, as far as chrony knows; behind when negative. */
  readonly offsetMs: number | null
}

/** Asks chrony, in numbers that are separated by commas. */
export const chronycTracking = (): [string, ...string[]] => ['/usr/bin/chronyc', '-c', '-n', 'tracking']

/** Asks systemd what the kernel was told last (STA_UNSYNC of adjtimex(2)). */
export const timedatectlSynchronised = (): [string, ...string[]] => [
  '/usr/bin/timedatectl',
  'show',
  '--property=NTPSynchronized',
  '--value',
]

/** Reads what chrony says; a leap of 3, `Not synchronised`, is the one that follows nobody. */
export function parseTracking(text: string): ClockSource {
  const fields = text.trim().split(',')
  const [offset, leap] = [Number(fields[4]), fields[13]]
  if (fields.length < 14 || Number.isNaN(offset)) throw unexpected('chronyc tracking', text)
  return { synchronised: leap !== 'Not synchronised', offsetMs: offset * 1000 }
}

/** Reads what systemd says. */
export function parseSynchronised(text: string): ClockSource {
  const word = text.trim()
  if (word !== 'yes' && word !== 'no') throw unexpected('timedatectl show', text)
  return { synchronised: word === 'yes', offsetMs: null }
}
