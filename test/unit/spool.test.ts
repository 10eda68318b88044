// What waits for CloudWatch on the disk, and how it is sent: over a time that is held and another side that answers as it is told to.

import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Door, Outcome } from '../../agent/report/sending.ts'
import { Sender } from '../../agent/report/sending.ts'
import { DATUMS, type Datum, EVENTS, Spool } from '../../agent/report/spool.ts'
import type { Uptime } from '../../agent/report/timeline.ts'
import { HostError } from '../../provisioning/problem.ts'

const minute = 60_000
const hour = 60 * minute
const begin = Date.UTC(2026, 10, 20, 12)

/** A machine whose time tests hold. `skew`: how far its clock is ahead of the truth. */
function machine(name = 'boot-1') {
  const held = {
    upMs: 5000,
    skew: 0,
    uptime: { boot: name, ms: (): number => held.upMs } satisfies Uptime,
    trueMs: (): number => begin + held.upMs,
    epochMs: (): number => begin + held.upMs + held.skew,
    pass(ms: number) {
      held.upMs += ms
    },
  }
  return held
}

async function opened(t: Test, held: ReturnType<typeof machine>, folder = t.testdir()) {
  const path = join(folder, 'spool.sqlite')
  const { spool } = await Spool.open({ path, uptime: held.uptime, epochMs: held.epochMs })
  t.teardown(() => {
    try {
      spool.close()
    } catch {
      // A test that opened it again has closed it.
    }
  })
  return { spool, path, folder }
}

/** The other side: what it took, and how it answers next. */
class OtherSide {
  readonly taken = new Map<string, { count: number; sum: number; times: number }>()
  calls = 0
  asked = 0
  /** What comes of the next requests; accepted when there is nothing here. */
  next: (Outcome['kind'] | 'swallowed')[] = []
  poison = (_: Datum): boolean => false
  readonly door: Door<Datum>

  constructor(held: ReturnType<typeof machine>) {
    const problem = new HostError('cloudwatch.busy', 'not now')
    this.door = {
      limit: { rows: 10, bytes: 1000, spanMs: Number.POSITIVE_INFINITY, bytesOf: () => 10 },
      put: async (rows) => {
        this.calls += 1
        const serverMs = held.trueMs()
        const kind = this.next.shift() ?? 'accepted'
        if (kind === 'failed') return { kind, problem, serverMs }
        if (kind === 'swallowed') return { kind: 'unanswered', problem, serverMs: null }
        if (kind === 'refused' || rows.some(this.poison)) return { kind: 'refused', why: 'no', serverMs }
        this.put(rows)
        return kind === 'unanswered'
          ? { kind, problem, serverMs: null }
          : { kind: 'accepted', rejected: [], serverMs }
      },
      ask: async (rows) => {
        this.asked += 1
        const isThere = ({ series, atMs, count }: Datum) =>
          (this.taken.get(`${series} ${atMs}`)?.count ?? 0) >= count
        return new Set(rows.filter(isThere).map(({ id }) => id))
      },
      patience: () => [3 * minute, 15 * minute],
    }
  }

  put(rows: readonly Datum[]): void {
    for (const { series, atMs, count, sum } of rows) {
      const key = `${series} ${atMs}`
      const before = this.taken.get(key) ?? { count: 0, sum: 0, times: 0 }
      this.taken.set(key, { count: before.count + count, sum: before.sum + sum, times: before.times + 1 })
    }
  }
}

const otherSide = (held: ReturnType<typeof machine>): OtherSide => new OtherSide(held)

const { signal } = new AbortController()

t.test('values of a span are one statistic set, over starts of the daemon too', async (t) => {
  const held = machine()
  const { spool, folder } = await opened(t, held)
  spool.add(
    [
      { key: 'cpu.busy', value: 10 },
      { key: 'cpu.busy', value: 30 },
    ],
    minute,
  )
  t.equal(spool.take(DATUMS, otherSide(held).door.limit), null, 'a span that has not ended is not sent')
  spool.close()
  held.pass(10_000)
  const { spool: again } = await opened(t, held, folder)
  again.add([{ key: 'cpu.busy', value: 2 }], minute)
  held.pass(minute)
  const batch = again.take(DATUMS, otherSide(held).door.limit)
  t.match(batch?.rows, [{ series: 'cpu.busy', count: 3, sum: 42, low: 2, high: 30, atMs: begin }])
  t.equal(again.take(DATUMS, otherSide(held).door.limit), null, 'what is under way is not taken again')
})

t.test(
  'a batch that was under way at the end of the process is asked after, never just sent again',
  async (t) => {
    for (const arrived of [true, false]) {
      const held = machine()
      const { spool, folder } = await opened(t, held)
      const side = otherSide(held)
      spool.add([{ key: 'cpu.busy', value: 10 }], minute)
      held.pass(minute)
      const batch = spool.take(DATUMS, side.door.limit)
      if (arrived) side.put(batch?.rows ?? [])
      spool.close()
      const { spool: again } = await opened(t, held, folder)
      const sender = new Sender(again, DATUMS, ({ series }) => series)
      await sender.beat(side.door, signal)
      t.same([side.calls, side.asked], [0, 0], 'too early to tell')
      held.pass(4 * minute)
      await sender.beat(side.door, signal)
      t.same([side.calls, side.asked], [0, 1])
      t.equal(again.waiting(DATUMS).rows, arrived ? 0 : 1)
      held.pass(12 * minute)
      await sender.beat(side.door, signal)
      t.same([side.calls, side.asked], arrived ? [0, 1] : [1, 2])
      t.match([...side.taken.values()], [{ count: 1, times: 1 }])
      t.equal(again.counts().sent, 1)
      t.equal(again.waiting(DATUMS).rows, 0)
    }
  },
)

t.test('failures cost no request of their own, and what waited goes oldest first', async (t) => {
  const held = machine()
  const { spool } = await opened(t, held)
  const side = otherSide(held)
  const sender = new Sender(spool, DATUMS, ({ series }) => series)
  side.next = ['failed', 'failed', 'unanswered', 'swallowed']
  for (let at = 0; at < 30; at += 1) {
    spool.add(
      [
        { key: 'cpu.busy', value: at },
        { key: 'memory.used', value: at },
      ],
      minute,
    )
    held.pass(minute)
    await sender.beat(side.door, signal)
    if (at === 1) t.match(sender.standing, { failures: 2, problem: { code: 'cloudwatch.busy' } })
  }
  held.pass(20 * minute)
  await sender.beat(side.door, signal)
  t.equal(spool.waiting(DATUMS).rows, 0)
  t.equal(side.taken.size, 60)
  t.ok([...side.taken.values()].every(({ times }) => times === 1))
  t.ok(side.calls <= 31, `${side.calls} requests for 30 minutes`)
  t.ok(side.asked <= 4, `${side.asked} questions`)
})

t.test(
  'a row that is not taken is found by halves, and is given up only when others were taken',
  async (t) => {
    const held = machine()
    const { spool } = await opened(t, held)
    const side = otherSide(held)
    const door = { ...side.door, limit: { ...side.door.limit, rows: 100, bytes: 10_000 } }
    const sender = new Sender(spool, DATUMS, ({ series }) => series)
    for (const bad of [['s3'], ['s3', 's31'], ['s0'], ['s63']]) {
      side.calls = 0
      side.taken.clear()
      side.poison = ({ series }) => bad.includes(series)
      spool.add(
        Array.from({ length: 64 }, (_, at) => ({ key: `s${at}`, value: at })),
        minute,
      )
      held.pass(minute)
      await sender.beat(door, signal)
      t.equal(spool.waiting(DATUMS).rows, 0)
      t.equal(side.taken.size, 64 - bad.length)
      t.ok([...side.taken.values()].every(({ times }) => times === 1))
      t.ok(side.calls <= 1 + bad.length * 7, `${side.calls} requests`)
      t.ok(bad.includes(sender.standing.refused?.row ?? ''))
    }
    t.equal(spool.counts().refused, 5)
    side.poison = () => true
    spool.add(
      [
        { key: 's1', value: 1 },
        { key: 's2', value: 1 },
      ],
      minute,
    )
    held.pass(minute)
    await sender.beat(door, signal)
    t.equal(spool.waiting(DATUMS).rows, 2, 'when nothing is taken it is not the rows')
    t.match(sender.standing.problem, { code: 'cloudwatch.refused' })
  },
)

t.test('times are those of the server when the clock is wrong, however often it is set', async (t) => {
  const held = machine()
  held.skew = hour
  const { spool } = await opened(t, held)
  const side = otherSide(held)
  const sender = new Sender(spool, DATUMS, ({ series }) => series)
  side.next = ['failed']
  for (let at = 0; at < 10; at += 1) {
    // In the middle somebody mends it, and then sets it wrong again.
    if (at === 5) held.skew = 0
    if (at === 7) held.skew = -2 * hour
    spool.add([{ key: 'cpu.busy', value: at }], minute)
    held.pass(minute)
    await sender.beat(side.door, signal)
    if (at === 2) t.equal(spool.timeline.skewMs, hour)
  }
  t.same(
    [...side.taken.keys()],
    Array.from({ length: 10 }, (_, at) => `cpu.busy ${begin + at * minute}`),
  )
})

t.test('an answer that was long under way makes no clock wrong', async (t) => {
  const held = machine()
  const { spool } = await opened(t, held)
  const { timeline } = spool
  const asked = timeline.tick()
  const said = held.trueMs() + 1000
  held.pass(10 * minute)
  timeline.hear(said, asked)
  t.same([timeline.skewMs, timeline.offsetMs], [0, 0])
  held.skew = 20 * minute
  timeline.hear(held.trueMs(), timeline.tick())
  t.same([timeline.skewMs, timeline.offsetMs], [20 * minute, 0])
  timeline.hear(said, asked)
  t.equal(timeline.offsetMs, 0, 'nor one right that was wrong, nor another')
})

t.test('what is left of another boot keeps its times', async (t) => {
  const held = machine()
  const { spool, folder } = await opened(t, held)
  spool.add([{ key: 'cpu.busy', value: 1 }], minute)
  spool.close()
  const next = machine('boot-2')
  next.epochMs = () => begin + 3 * hour + next.upMs
  next.trueMs = next.epochMs
  const { spool: again } = await opened(t, next, folder)
  again.add([{ key: 'cpu.busy', value: 2 }], minute)
  next.pass(minute)
  const side = otherSide(next)
  await new Sender(again, DATUMS, ({ series }) => series).beat(side.door, signal)
  t.same([...side.taken.keys()], [`cpu.busy ${begin}`, `cpu.busy ${begin + 3 * hour}`])
})

t.test('when there is no more room spans become longer, and only then the oldest is dropped', async (t) => {
  const held = machine()
  const { spool } = await opened(t, held)
  const day = 24 * hour
  for (let at = 0; at < 2 * day; at += minute) {
    spool.add(
      Array.from({ length: 8 }, (_, one) => ({ key: `s${one}`, value: 1 })),
      minute,
    )
    held.pass(minute)
  }
  const before = spool.usedBytes()
  spool.tidy(before / 2)
  t.ok(spool.usedBytes() <= before / 2)
  t.match(spool.counts(), { dropped: 0, expired: 0 })
  t.ok(spool.counts().folded > 0)
  const side = otherSide(held)
  const all = () => {
    const batch = spool.take(DATUMS, { ...side.door.limit, rows: 100_000, bytes: 1e9 })
    spool.settle(DATUMS, batch?.id ?? 0, {})
    return batch?.rows ?? []
  }
  t.equal(
    all().reduce((sum, { count }) => sum + count, 0),
    8 * 2 * 24 * 60,
    'every value is still in one of them',
  )
  spool.tidy(100_000)
  t.ok(spool.counts().dropped > 0)
  t.ok((all()[0]?.atMs ?? 0) > begin, 'the oldest went first')
  held.pass(15 * day)
  const left = spool.waiting(DATUMS).rows
  spool.tidy(2 ** 30)
  t.equal(spool.counts().expired, left)
  t.equal(spool.waiting(DATUMS).rows, 0)
})

t.test('events keep their order and their ids, within the limits of a request', async (t) => {
  const held = machine()
  const { spool } = await opened(t, held)
  for (let at = 0; at < 5; at += 1) {
    spool.addEvents([{ event: 'finding', at }], `{"at":${at}}`)
    held.pass(hour)
  }
  t.equal(spool.recall('told'), '{"at":4}')
  const limit = { rows: 100, bytes: 10_000, spanMs: 3 * hour, bytesOf: () => 1 }
  const first = spool.take(EVENTS, limit)
  t.equal(first?.rows.length, 4, 'no longer than a request may span')
  t.ok(first?.full)
  t.match(JSON.parse(first?.rows[1]?.body ?? ''), {
    id: first?.rows[1]?.key ?? '',
    atMs: begin + hour + 5000,
    event: 'finding',
  })
  spool.settle(EVENTS, first?.id ?? 0, { sent: first?.rows.slice(1).map(({ id }) => id) ?? [] })
  const rest = spool.take(EVENTS, { ...limit, spanMs: 24 * hour })
  t.same(
    rest?.rows.map(({ key }) => key),
    [first?.rows[0]?.key, rest?.rows[1]?.key],
  )
})

t.test('a disk that is full loses nothing while there is memory', async (t) => {
  const held = machine()
  const { spool } = await opened(t, held)
  spool.fail(Object.assign(new Error('disk I/O error'), { errcode: 10 }))
  t.match(spool.problem, { code: 'file.unwritable' })
  spool.add([{ key: 'cpu.busy', value: 1 }], minute)
  t.equal(spool.problem, null)
})
