// One host of a fleet that tells CloudWatch, as a process that is there to be killed: membership and telling put together as in the daemon.
//
//   node cloudwatch-host.ts OPTIONS (JSON)

import { existsSync, writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { Fleet, type FleetDesired } from '../../agent/peers/fleet.ts'
import { hostClock } from '../../agent/report/clock.ts'
import { openMetrics } from '../../agent/report/metrics-door.ts'
import { namesOf, summaryOf } from '../../agent/verbs/fleet-words.ts'
import type { MetricName } from '../../provisioning/metrics.ts'
import { fast } from './fleet-world.ts'
import { openTelling, point } from './telling.ts'

/** How it is started. Time is made to run: `speed` times as fast, from `begin` on at `realMs`. */
export interface CloudWatchHostOptions {
  readonly name: string
  readonly keys: string
  readonly folder: string
  readonly desired: FleetDesired
  readonly settings: object
  readonly realMs: number
  readonly begin: number
  readonly speed: number
  /** What it measures, or null when it is to end once nothing waits. */
  readonly measures: MetricName | null
  /** While this file is there it stops itself (SIGSTOP) just before it sends for another host. */
  readonly stopFile: string
}

const options: CloudWatchHostOptions = JSON.parse(process.argv[2] ?? '{}')
const { name, keys, folder, desired, settings, realMs, begin, speed, measures, stopFile } = options
/** While a value is taken in no time passes, so that it is sure which minute it is of. */
let heldMs: number | null = null
const upMs = () => heldMs ?? (Date.now() - realMs) * speed
const nowMs = () => begin + upMs()

const { cloudwatch, spool } = await openTelling({
  ...{ folder, upMs, deadlineMs: 5000, jitter: 0, settings, host: name },
  clock: {
    epochMs: nowMs,
    steadyMs: upMs,
    sleep: (ms, signal) => hostClock.sleep(ms / speed, signal),
  },
  peers: {
    offering: () =>
      fleet.linked().filter((host) => summaryOf(fleet.reportOf(host)?.body ?? null).relay.offers),
    ask: (host, errand, stop) => fleet.askBatch(host, errand, stop),
  },
  async openMetrics(of) {
    const door = await openMetrics(of)
    const put: typeof door.put = (rows, at) => {
      if (of.host !== name && existsSync(stopFile)) process.kill(process.pid, 'SIGSTOP')
      return door.put(rows, at)
    }
    return { ...door, put }
  },
})
const fleet = await Fleet.open({
  ...{ folder: keys, settings: async () => desired, pace: fast },
  doorFor: () => ({ door: 'read', socket: '/nowhere' }),
  sessions: {
    open: async () => {
      throw new Error('no session is asked for here')
    },
    carry: async () => undefined,
  },
  batch(peer, errand) {
    const names = namesOf(fleet.reportOf(peer)?.body ?? null)
    return cloudwatch.relaying.answer(names && { peer, ...names }, errand)
  },
  clock: { epochMs: Date.now, steadyMs: () => performance.now() },
  log: { info: () => undefined, error: (what, text) => writeSync(2, `${text} ${JSON.stringify(what)}\n`) },
})
let told = ''
let generation = 0
const tell = () => {
  const report = { host: { name, instance: 'i-0123456789abcdef0' }, relay: cloudwatch.relay() }
  if (JSON.stringify(report) === told) return
  told = JSON.stringify(report)
  generation += 1
  fleet.publish(generation, Date.now(), report)
}
const telling = setInterval(tell, 50)
const saying = setInterval(() => {
  const { relayed, relayedFor, metrics } = cloudwatch.overview()
  const findings = cloudwatch.conditions().map(({ code }) => code)
  writeSync(1, `said ${JSON.stringify({ relayed, relayedFor, metrics, findings, linked: fleet.linked() })}\n`)
}, 100)
writeSync(1, 'ready\n')
const stop = new AbortController()
const running = cloudwatch.run(stop.signal)
const minute = 60_000
if (measures !== null)
  for (;;) {
    heldMs = upMs()
    const line = `${Math.floor(nowMs() / minute) * minute} 1 1\n`
    writeSync(1, `begun ${line}`)
    cloudwatch.takeValues([point(measures, 1)])
    writeSync(1, `done ${line}`)
    heldMs = null
    await delay(10_000 / speed)
  }
while (spool.waiting({ table: 'datums' }).rows > 0) await delay(100)
stop.abort()
await running
for (const timer of [telling, saying]) clearInterval(timer)
await fleet.close()
cloudwatch.close()
