// Drift that the document accepts until a day: which of it counts now, and which has run out.

import type { DesiredVms } from './schema.ts'

/** One acceptance, as it is declared, and the path or pattern of what it accepts. */
export interface Acceptance extends Readonly<DesiredVms['accepted'][string]> {
  readonly path: string
}

const dayMs = 86_400_000

/** Days from 1970-01-01 to a date of the proleptic Gregorian calendar, which the schema has found to exist. */
function daysTo(date: string): number {
  const [year = 0, month = 0, day = 0] = date.split('-').map(Number)
  // Years are counted from March, so that the leap day is the last of its year.
  const shifted = month <= 2 ? year - 1 : year
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  const leapDays = Math.floor(shifted / 4) - Math.floor(shifted / 100) + Math.floor(shifted / 400)
  return shifted * 365 + leapDays + dayOfYear - 719_468
}

/** When an acceptance ends: at the end of its day, UTC; epoch milliseconds. */
export const endMs = ({ until }: Pick<Acceptance, 'until'>): number => (daysTo(until) + 1) * dayMs

/** Whether a path is what a pattern says, in which * stands for anything. Takes no longer than the lengths multiplied. */
function matches(pattern: string, path: string): boolean {
  const parts = pattern.split('*')
  const [first = '', ...rest] = parts
  if (rest.length === 0) return pattern === path
  const last = rest.pop() ?? ''
  if (!path.startsWith(first) || !path.endsWith(last) || path.length < first.length + last.length)
    return false
  let from = first.length
  for (const part of rest) {
    const found = path.indexOf(part, from)
    if (found === -1) return false
    from = found + part.length
  }
  return from <= path.length - last.length
}

/** The acceptance of a path that has not run out; else one that has, or undefined. */
export const acceptanceOf = (
  accepted: DesiredVms['accepted'],
  path: string,
  nowMs: number,
): { readonly acceptance: Acceptance; readonly isOver: boolean } | undefined => {
  const fitting = Object.entries(accepted).flatMap(([one, said]) =>
    matches(one, path) ? { path: one, ...said } : [],
  )
  const valid = fitting.find((one) => nowMs < endMs(one))
  const acceptance = valid ?? fitting[0]
  return acceptance && { acceptance, isOver: valid === undefined }
}
