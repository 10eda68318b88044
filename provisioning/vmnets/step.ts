// How a step of this resource is put together.

import type { Step } from '../resource.ts'

/** Milliseconds that a program gets which only speaks to the kernel or to systemd. */
export const briefMs = 30_000

/** A step `vmnets.ID`, safe unless it says otherwise. */
export const step = (
  id: string,
  subject: string | undefined,
  more: Pick<Step, 'summary' | 'because' | 'actions'> & Partial<Step>,
): Step => ({ id: `vmnets.${id}`, ...(subject !== undefined && { subject }), risk: 'safe', ...more })

/** Runs a program that changes the network: outside the sandbox of this process. */
export const run = (...argv: [string, ...string[]]) =>
  ({ kind: 'run', argv, deadlineMs: briefMs, unit: true }) as const
