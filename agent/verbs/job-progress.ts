// How long work says how far it is.

import type { Progress } from '../api/progress.ts'
import { bytes, duration } from '../api/terminal.ts'

/** Subject, what is done, how much of it, at what rate, and how long it will take; what is not known is left out. */
export function progressText({
  subject,
  doing,
  doneBytes,
  totalBytes,
  bytesPerSecond = null,
  leftMs = null,
}: Progress): string {
  const amount = totalBytes === null ? bytes(doneBytes) : `${bytes(doneBytes)} of ${bytes(totalBytes)}`
  const rate = bytesPerSecond === null ? '' : `, ${bytes(bytesPerSecond)}/s`
  const left = leftMs === null ? '' : `, ${duration(leftMs)} left`
  return `${subject}: ${doing} ${amount}${rate}${left}`
}
