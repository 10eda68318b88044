// The time as sampling needs it: one clock that tells it, one that only measures it, and a way to wait.

import { setTimeout as sleep } from 'node:timers/promises'

/** Passed in, so that tests can hold it. */
export interface Clock {
  /** Epoch milliseconds. It is set now and then, also back. */
  epochMs(): number
  /** Milliseconds since some moment; it never goes back and nobody sets it. */
  steadyMs(): number
  /** Waits until then, or until the signal aborts: whoever aborts wants the wait to end. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

/** The clocks of this machine. */
export const hostClock: Clock = {
  epochMs: Date.now,
  steadyMs: () => performance.now(),
  sleep: (ms, signal) =>
    sleep(ms, undefined, { signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error
    }),
}
