// A clock that tests hold: time passes only when they say so, and it can be set.

import type { Clock } from '../../agent/report/clock.ts'

/** A held clock. `set` sets what it tells without any time passing. */
export interface HeldClock extends Clock {
  pass(ms: number): Promise<void>
  set(epochMs: number): void
}

/** Begins at a moment of 2026; the steady clock begins at 1000. */
export function heldClock(beginMs = Date.UTC(2026, 10, 20, 12)): HeldClock {
  let steadyMs = 1000
  let offsetMs = beginMs - steadyMs
  const waiting = new Set<{ readonly dueMs: number; readonly wake: () => void }>()
  const settle = async () => {
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }
  return {
    epochMs: () => steadyMs + offsetMs,
    steadyMs: () => steadyMs,
    sleep(ms, signal) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const waiter = { dueMs: steadyMs + ms, wake: resolve }
      waiting.add(waiter)
      signal.addEventListener('abort', () => {
        waiting.delete(waiter)
        resolve()
      })
      return promise
    },
    async pass(ms) {
      const endMs = steadyMs + ms
      await settle()
      for (;;) {
        const [next] = [...waiting].filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs)
        if (next === undefined) break
        waiting.delete(next)
        steadyMs = Math.max(steadyMs, next.dueMs)
        next.wake()
        await settle()
      }
      steadyMs = endMs
      await settle()
    },
    set(epochMs) {
      offsetMs = epochMs - steadyMs
    },
  }
}
