// Tells CloudWatch in a process of its own that is there to be killed: measures, says what it measures, and sends; time is made to run.
//
//   node cloudwatch-teller.ts FOLDER REAL-BEGIN BEGIN SPEED measure|drain

import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { hostClock } from '../../agent/report/clock.ts'
import { openTelling, point } from './telling.ts'

const [, , folder = '', realText, beginText, speedText, mode] = process.argv
const [realMs, begin, speed] = [Number(realText), Number(beginText), Number(speedText)]
/** While a value is taken in no time passes, so that it is sure which minute it is of. */
let heldMs: number | null = null
const upMs = () => heldMs ?? (Date.now() - realMs) * speed
const nowMs = () => begin + upMs()
const { cloudwatch, spool } = await openTelling({
  ...{ folder, upMs, deadlineMs: 5000, jitter: 0.2, settings: { metrics: ['cpu.busy'] } },
  clock: {
    epochMs: nowMs,
    steadyMs: upMs,
    sleep: (ms, signal) => hostClock.sleep(ms / speed, signal),
  },
})
writeSync(1, 'ready\n')
const stop = new AbortController()
const running = cloudwatch.run(stop.signal)
const minute = 60_000
if (mode === 'measure')
  for (;;) {
    heldMs = upMs()
    const line = `${Math.floor(nowMs() / minute) * minute} 1 1\n`
    writeSync(1, `begun ${line}`)
    cloudwatch.takeValues([point('cpu.busy', 1)])
    writeSync(1, `done ${line}`)
    heldMs = null
    await delay(10_000 / speed)
  }
while (spool.waiting({ table: 'datums' }).rows > 0) await delay(100)
stop.abort()
await running
cloudwatch.close()
