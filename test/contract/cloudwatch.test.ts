// CloudWatch told through everything that can go wrong, with moto behind a layer that fails: every value once, in order, with hardly
// more requests than there must be. GARRISON_LAB_FULL=1: a day instead of an hour, and 200 kills instead of 12.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { setUp } from '../../agent/report/boards-call.ts'
import type { Clock } from '../../agent/report/clock.ts'
import type { CloudWatch } from '../../agent/report/cloudwatch.ts'
import { EVENTS } from '../../agent/report/spool.ts'
import { seeded } from '../unit/simulated-host.ts'
import { type CloudWatchFront, type Fault, startCloudWatchFront } from './cloudwatch-front.ts'
import { startMoto } from './moto.ts'
import { openTelling, point, settingsOf } from './telling.ts'

t.setTimeout(1_800_000)

const full = process.env.GARRISON_LAB_FULL === '1'
const second = 1000
const minute = 60 * second
const hour = 60 * minute
const begin = Date.UTC(2026, 10, 20, 12)

process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'test'
process.env.AWS_CONFIG_FILE = '/dev/null'
process.env.AWS_SHARED_CREDENTIALS_FILE = '/dev/null'

/** A time that passes only while the one who sleeps in it sleeps. */
function sleptTime() {
  const time = {
    upMs: 5000,
    /** How far the clock of the machine is ahead of the truth. */
    skewMs: 0,
    asleep: null as { readonly dueMs: number; readonly wake: () => void } | null,
    trueMs: (): number => begin + time.upMs,
    clock: {
      epochMs: (): number => begin + time.upMs + time.skewMs,
      steadyMs: (): number => time.upMs,
      sleep(ms: number, signal: AbortSignal): Promise<void> {
        const { promise, resolve } = Promise.withResolvers<void>()
        time.asleep = { dueMs: time.upMs + ms, wake: resolve }
        signal.addEventListener('abort', () => resolve())
        return promise
      },
    } satisfies Clock,
    /** Lets time pass, second by second where something happens at each tenth. */
    async pass(ms: number, eachTen: () => void): Promise<void> {
      const endMs = time.upMs + ms
      for (;;) {
        while (time.asleep === null) await delay(1)
        const tenMs = Math.floor(time.upMs / 10_000 + 1) * 10_000
        const nextMs = Math.min(tenMs, endMs, Math.max(time.asleep.dueMs, time.upMs))
        time.upMs = nextMs
        if (nextMs === tenMs) eachTen()
        const { dueMs, wake } = time.asleep
        if (dueMs <= nextMs) {
          time.asleep = null
          wake()
        }
        if (nextMs === endMs) return
      }
    },
  }
  return time
}

const moto = await startMoto()
t.teardown(() => moto.stop())
/** Long enough that a request of a busy machine is in time, however fast time is made to pass. */
const deadlineMs = 4000

async function frontOf(t: Test, now: () => number): Promise<CloudWatchFront> {
  await fetch(`${moto.endpoint}/moto-api/reset`, { method: 'POST' })
  const front = await startCloudWatchFront(moto.endpoint, deadlineMs + 300)
  front.now = now
  process.env.AWS_ENDPOINT_URL = front.endpoint
  t.teardown(() => front.close())
  return front
}

/** What was measured, by series and true minute. */
class Measured {
  readonly values = new Map<string, { count: number; sum: number }>()

  add(series: string, atMs: number, value: number): void {
    const key = `${series} ${Math.floor(atMs / minute) * minute}`
    const before = this.values.get(key) ?? { count: 0, sum: 0 }
    this.values.set(key, { count: before.count + 1, sum: before.sum + value })
  }
}

const near = (a: number, b: number): boolean => Math.abs(a - b) < 1e-6 * Math.max(1, Math.abs(b))

/** What is lost, and what is doubled. */
function compared(measured: Measured, { arrived }: CloudWatchFront) {
  const lost: string[] = []
  const doubled: string[] = []
  for (const [key, { count, sum }] of measured.values) {
    const got = arrived.get(key) ?? { count: 0, sum: 0 }
    if (got.count < count) lost.push(`${key}: ${got.count} of ${count}`)
    else if (got.count > count || !near(got.sum, sum)) doubled.push(`${key}: ${got.count} of ${count}`)
  }
  for (const key of arrived.keys()) if (!measured.values.has(key)) doubled.push(`${key}: never measured`)
  return { lost: lost.slice(0, 5), doubled: doubled.slice(0, 5) }
}

const callsOf = ({ calls }: CloudWatchFront, operation: string): number => calls.get(operation) ?? 0

t.test(
  `${full ? 'a day' : 'an hour'} of failures loses nothing, doubles nothing and costs hardly a request`,
  async (t) => {
    const hours = full ? 24 : 1
    const time = sleptTime()
    time.skewMs = hour
    const front = await frontOf(t, time.trueMs)
    const { cloudwatch, spool } = await openTelling({
      ...{ folder: t.testdir(), clock: time.clock, upMs: () => time.upMs, deadlineMs, jitter: 0.4 },
      settings: { vms: ['vm.cpu'] },
    })
    const random = seeded(20_261_121)
    const measured = new Measured()
    const stop = new AbortController()
    const running = cloudwatch.run(stop.signal)
    let poisoned = 0
    const measure = () => {
      const at = time.trueMs()
      for (const metric of ['cpu.busy', 'memory.used', 'vms.running', 'findings.high'] as const) {
        const value = random() * 100
        measured.add(metric, at, value)
        cloudwatch.takeValues([point(metric, value)])
      }
      for (let vm = 0; vm < 12; vm += 1) {
        const value = random() * 800
        measured.add('vm.cpu', at, value)
        measured.add(`vm.cpu web-${vm}`, at, value)
        cloudwatch.takeValues([point('vm.cpu', value, `web-${vm}`)])
      }
    }
    // Four in a hundred requests, of any kind; and stretches in which nothing goes.
    const kinds: readonly Fault[] = [
      ...(['unavailable', 'throttled', 'reset-before', 'reset-after', 'slow-before', 'slow-after'] as const),
      ...(['error-before', 'error-after'] as const),
    ]
    let stretch: Fault | null = null
    front.fault = () =>
      stretch ?? (random() < 0.04 ? (kinds[Math.floor(random() * kinds.length)] ?? null) : null)
    for (let at = 0; at < hours * 60; at += 1) {
      const of = at % 60
      if (at === 10) time.skewMs = 0
      if (at === 25) time.skewMs = -hour
      if (at === 35) time.skewMs = 0
      stretch = of >= 15 && of < 22 ? 'expired' : of >= 40 && of < 43 ? 'unavailable' : null
      await front.down(of >= 28 && of < 33)
      // Once in an hour something that is never taken.
      if (of === 50) {
        poisoned += 1
        cloudwatch.takeValues([point('vm.cpu', 0, 'poison')])
        measured.add('vm.cpu', time.trueMs(), 0)
      }
      await time.pass(minute, measure)
    }
    front.fault = () => null
    await front.down(false)
    const measuredCalls = callsOf(front, 'PutMetricData') + callsOf(front, 'GetMetricData')
    await time.pass(25 * minute, () => undefined)
    stop.abort()
    await running
    t.same(compared(measured, front), { lost: [], doubled: [] })
    t.equal(front.disorders, 0, 'in the order that it was measured in, but for what was in doubt')
    t.equal(spool.counts().refused, poisoned)
    t.match(spool.counts(), { dropped: 0, expired: 0, unwritten: 0 })
    t.equal(spool.waiting({ table: 'datums' }).rows, 0)
    // There must be one request for each minute in which something ended, the halves in which a bad datum can be found, and one
    // question for each answer that did not come.
    const unanswered = [...front.faults].reduce(
      (sum, [name, number]) => sum + (/-/.test(name) ? number : 0),
      0,
    )
    const least = hours * 60 + poisoned * (Math.ceil(Math.log2(18)) + 1) + unanswered
    t.comment(
      `${measuredCalls} requests, at least ${least}; ${unanswered} without an answer; ${[...front.calls].join(' ')}; ${[...front.faults].join(' ')}`,
    )
    t.ok(measuredCalls <= least * 1.05, `${measuredCalls} requests where ${least} are the least`)
    cloudwatch.close()
  },
)

t.test('events arrive once and whole, in a group that is made', async (t) => {
  const time = sleptTime()
  const front = await frontOf(t, time.trueMs)
  const { cloudwatch, spool } = await openTelling({
    ...{ folder: t.testdir(), clock: time.clock, upMs: () => time.upMs, deadlineMs, jitter: 0 },
    settings: { logs: {} },
  })
  const stop = new AbortController()
  const running = cloudwatch.run(stop.signal)
  const faults: (Fault | null)[] = [
    'unavailable',
    'reset-after',
    null,
    'slow-before',
    'error-after',
    'throttled',
  ]
  let puts = 0
  front.fault = (operation) => {
    if (operation !== 'PutLogEvents') return null
    puts += 1
    return faults[puts - 1] ?? null
  }
  for (let at = 0; at < 30; at += 1) {
    spool.addEvents([{ event: 'finding', at }], '{}')
    await time.pass(minute, () => undefined)
  }
  await time.pass(30 * minute, () => undefined)
  stop.abort()
  await running
  t.equal(spool.waiting(EVENTS).rows, 0)
  t.equal(front.events.size, 30)
  t.ok([...front.events.values()].every((times) => times === 1))
  t.match(cloudwatch.overview(), { counts: { sent: 30 }, events: { problem: null } })
  cloudwatch.close()
})

t.test('told to stop it waits for no answer, and the next one asks what became of it', async (t) => {
  const time = sleptTime()
  const front = await frontOf(t, time.trueMs)
  const folder = t.testdir()
  const open = () =>
    openTelling({
      ...{ folder, clock: time.clock, upMs: () => time.upMs, deadlineMs: minute, jitter: 0 },
      settings: { metrics: ['cpu.busy'] },
    })
  const first = await open()
  const taken = Promise.withResolvers<void>()
  front.fault = () => 'slow-after'
  front.onPut = (at) => {
    if (at === 'performed') taken.resolve()
  }
  const stop = new AbortController()
  const running = first.cloudwatch.run(stop.signal)
  while (time.asleep === null) await delay(1)
  first.cloudwatch.takeValues([point('cpu.busy', 7)])
  time.upMs += minute
  time.asleep.wake()
  await taken.promise
  const stoppedMs = performance.now()
  stop.abort()
  await running
  t.ok(performance.now() - stoppedMs < deadlineMs, 'long before the front lets go')
  t.equal(first.spool.waiting({ table: 'datums' }).doubtful, 1)
  first.cloudwatch.close()

  front.fault = () => null
  time.asleep = null
  const second = await open()
  const again = new AbortController()
  const runningAgain = second.cloudwatch.run(again.signal)
  await time.pass(10 * minute, () => {})
  t.equal(second.spool.waiting({ table: 'datums' }).rows, 0)
  t.same([...front.arrived.values()], [{ count: 1, sum: 7, requests: 1 }])
  again.abort()
  await runningAgain
  second.cloudwatch.close()
})

t.test('what stands in the way is told as a finding', async (t) => {
  const time = sleptTime()
  const front = await frontOf(t, time.trueMs)
  const { cloudwatch } = await openTelling({
    ...{ folder: t.testdir(), clock: time.clock, upMs: () => time.upMs, deadlineMs, jitter: 0 },
    settings: {},
  })
  const stop = new AbortController()
  const running = cloudwatch.run(stop.signal)
  const measure = () => cloudwatch.takeValues([point('cpu.busy', 1)])
  const codes = (one: CloudWatch) => one.conditions().map(({ code }) => code)
  front.fault = () => 'denied'
  await time.pass(5 * minute, measure)
  t.same(codes(cloudwatch), ['cloudwatch.denied'])
  front.fault = () => 'unavailable'
  await time.pass(15 * minute, measure)
  t.same(codes(cloudwatch), ['cloudwatch.silent'])
  const before = callsOf(front, 'PutMetricData')
  await time.pass(hour, measure)
  t.ok(callsOf(front, 'PutMetricData') - before <= 13, 'every five minutes')
  t.ok(callsOf(front, 'PutMetricData') - before >= 10, 'and no less often')
  front.fault = () => null
  await time.pass(10 * minute, measure)
  t.same(codes(cloudwatch), [])
  time.skewMs = 7 * minute
  await time.pass(3 * minute, measure)
  t.same(codes(cloudwatch), ['clock.skewed'])
  stop.abort()
  await running
  cloudwatch.close()
})

t.test(
  'setup makes what is missing, changes what differs, and is done with it the second time',
  async (t) => {
    await frontOf(t, Date.now)
    const watched = {
      ...{ host: 'h07', instance: 'i-0123456789abcdef0', region: ['eu', 'west', '1'].join('-') },
      topic: null,
    }
    const changes = async (settings: object, more: object = {}) =>
      (await setUp(settingsOf(settings), { ...watched, ...more })).map(({ change }) => change)
    t.same(await changes({}), Array(6).fill('made'))
    t.same(await changes({}), Array(6).fill('as it was'))
    const topic = ['arn', 'aws', 'sns', watched.region, '1'.repeat(12), 'ops'].join(':')
    t.same(await changes({}, { topic }), ['as it was', ...Array(5).fill('changed')])
    t.same(await changes({ metrics: ['cpu.busy', 'memory.used'] }, { topic }), [
      ...['changed', 'as it was', 'as it was'],
      ...['removed', 'removed', 'removed'],
    ])
  },
)

t.test('killed at any moment it loses nothing that was written and doubles nothing', async (t) => {
  const kills = full ? 200 : 12
  /** A second here is ten minutes there. */
  const speed = 600
  const realMs = Date.now()
  const now = () => begin + (Date.now() - realMs) * speed
  const front = await frontOf(t, now)
  const random = seeded(200)
  const kinds: readonly Fault[] = ['reset-before', 'reset-after', 'slow-after', 'error-before', 'unavailable']
  front.fault = () => (random() < 0.1 ? (kinds[Math.floor(random() * kinds.length)] ?? null) : null)
  const folder = t.testdir()
  const begun = new Map<string, { count: number; sum: number }>()
  const done = new Map<string, { count: number; sum: number }>()
  const program = join(import.meta.dirname, 'cloudwatch-teller.ts')
  /** Runs it until it is killed, or until it says that nothing waits. */
  async function live(kill: 'after-a-while' | 'asked' | 'performed' | null): Promise<void> {
    const child = spawn(
      process.execPath,
      [program, folder, String(realMs), String(begin), String(speed), kill === null ? 'drain' : 'measure'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const timers: NodeJS.Timeout[] = []
    const killIn = (ms: number) => timers.push(setTimeout(() => child.kill('SIGKILL'), ms))
    let left = 1 + Math.floor(random() * 4)
    front.onPut = (at) => {
      if (at !== kill) return
      left -= 1
      // With the request, with its answer, or with what is written down after it.
      if (left === 0) killIn(random() * 40)
    }
    for await (const line of createInterface({ input: child.stdout })) {
      if (line === 'ready' && kill !== null) killIn(kill === 'after-a-while' ? random() * 2000 : 15_000)
      const [what, minuteText, count, sum] = line.split(' ')
      const into = what === 'begun' ? begun : what === 'done' ? done : null
      const key = `cpu.busy ${minuteText}`
      const before = into?.get(key) ?? { count: 0, sum: 0 }
      into?.set(key, { count: before.count + Number(count), sum: before.sum + Number(sum) })
    }
    for (const timer of timers) clearTimeout(timer)
  }
  const moments = ['after-a-while', 'asked', 'performed'] as const
  for (let kill = 0; kill < kills; kill += 1) await live(moments[kill % 3] ?? 'asked')
  front.fault = () => null
  await live(null)
  const wrong: string[] = []
  for (const [key, { count }] of begun) {
    const got = front.arrived.get(key)?.count ?? 0
    // A value that was just being written when the process was killed may be on the disk or not.
    if (got < (done.get(key)?.count ?? 0) || got > count)
      wrong.push(`${key}: ${got}, written ${done.get(key)?.count ?? 0}, measured ${count}`)
  }
  for (const key of front.arrived.keys()) if (!begun.has(key)) wrong.push(`${key}: never measured`)
  t.same(wrong.slice(0, 5), [])
  const many = [...front.arrived.values()].filter(({ requests }) => requests > 1)
  t.equal(many.length, 0, 'no span of a series in two requests')
  t.ok(begun.size > kills, `${begun.size} spans`)
  t.comment(
    `${kills} kills, ${begun.size} spans, ${[...front.calls].join(' ')}, ${[...front.faults].join(' ')}`,
  )
})
