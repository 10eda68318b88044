// The history: grains, starts anew, its size, damage, and charts of it.

import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { amount } from '../../agent/report/amounts.ts'
import { History } from '../../agent/report/history.ts'
import { chartRows, niceTop } from '../../agent/verbs/chart.ts'
import { type HistoryAnswer, render, run } from '../../agent/verbs/history.ts'
import { type Datapoint, METRICS, type MetricName } from '../../provisioning/metrics.ts'
import { noFleet } from './no-fleet.ts'

const minute = 60_000
const hour = 60 * minute
const beginMs = Date.UTC(2026, 10, 20, 12)
const value = (metric: MetricName, number: number, part = ''): Datapoint => ({
  metric,
  unit: METRICS[metric].unit,
  value: number,
  dimensions: part === '' ? {} : { [METRICS[metric].per]: part },
  atMs: 0,
})
/** Of SQLite, where nobody chooses another. */
const pageBytes = 4096
const opened = async (path: string, options = {}) => (await History.open(path, options)).history

t.test('minutes, quarters and hours tell the same', async (t) => {
  const path = join(t.testdir(), 'deep/history.sqlite')
  const history = await opened(path)
  t.equal(statSync(join(path, '..')).mode & 0o777, 0o700)
  for (let at = 0; at < 60; at += 1) {
    history.turn(beginMs + at * minute)
    history.add([value('cpu.busy', at), value('cpu.busy', at + 0.5), value('drive.read', at, 'one')])
  }
  const nowMs = beginMs + 60 * minute - 1
  const read = (sinceMs: number, more: object = {}) =>
    history.read({ metric: 'cpu.busy', sinceMs, ...more }, nowMs)
  const fine = read(beginMs)
  t.equal(fine.length, 60)
  t.same(fine.at(3), { atMs: beginMs + 3 * minute, count: 2, low: 3, high: 3.5, mean: 3.25 })
  t.same(fine.at(-1)?.high, 59.5, 'the minute of now too')
  const quarters = read(beginMs, { everyMs: 15 * minute })
  t.same(
    quarters.map(({ count, low, high, mean }) => [count, low, high, mean]),
    [0, 15, 30, 45].map((first) => [30, first, first + 14.5, first + 7.25]),
  )
  t.match(read(beginMs - 30 * 24 * hour), [{ atMs: beginMs, count: 120, low: 0, high: 59.5, mean: 29.75 }])
  t.same(read(beginMs + 10 * minute, { untilMs: beginMs + 11 * minute + 1 }).length, 2)
  t.same(history.partsOf('drive.read'), ['one'])
  t.same(history.partsOf('cpu.busy'), [])
  t.same(history.read({ metric: 'drive.read', part: 'two', sinceMs: 0 }, nowMs), [])
  history.close()
})

t.test('a start anew goes on with the minute that was begun', async (t) => {
  const path = join(t.testdir(), 'history.sqlite')
  const first = await opened(path)
  first.turn(beginMs)
  first.add([value('cpu.busy', 1), value('cpu.busy', 3)])
  const standing = [{ code: 'a.b', severity: 'high', text: 't', remedy: 'r', sinceMs: 5 }] as const
  t.same(first.findings(), [])
  first.keep(standing, 70)
  first.close()
  const second = await opened(path)
  t.same(second.findings(), standing)
  t.ok(second.generation() > 70, 'no generation comes twice')
  second.turn(beginMs + 20_000)
  second.add([value('cpu.busy', 8)])
  t.match(second.read({ metric: 'cpu.busy', sinceMs: beginMs }, beginMs + 30_000), [
    { count: 3, low: 1, high: 8, mean: 4 },
  ])
  second.close()
})

t.test('a process that is killed before it has written leaves no generation to come twice', async (t) => {
  const path = join(t.testdir(), 'history.sqlite')
  const killed = await opened(path)
  const next = await opened(path)
  t.ok(next.generation() > killed.generation() + 9000)
  next.close()
  killed.close()
})

t.test('where it cannot be opened it is kept in memory, and says why', async (t) => {
  const path = join(t.testdir({ file: '' }), 'file/history.sqlite')
  const { history } = await History.open(path)
  history.turn(beginMs)
  history.add([value('cpu.busy', 7)])
  history.turn(beginMs + minute)
  t.match(history.problem, { code: 'file.exists', message: 'history.sqlite' })
  t.match(history.read({ metric: 'cpu.busy', sinceMs: beginMs }, beginMs + minute), [{ mean: 7 }])
  history.close()
})

t.test('the names of VMs that came and went are forgotten with their values', async (t) => {
  const history = await opened(join(t.testdir(), 'history.sqlite'))
  const watch = 3 * hour
  for (let at = 0; at < 3; at += 1) {
    history.turn(beginMs + at * watch)
    history.add([
      value('vm.cpu', 1, 'stays'),
      ...Array.from({ length: 7500 }, (_, vm) => value('vm.cpu', 1, `vm-${at}-${vm}`)),
    ])
  }
  history.turn(beginMs + 3 * watch)
  const parts = history.partsOf('vm.cpu')
  t.ok(parts.length < 22_000, `${parts.length}`)
  const of = (watch: number) => parts.filter((part) => part.startsWith(`vm-${watch}-`)).length
  t.ok(of(0) < 7500, 'the oldest go first')
  t.same([of(1), of(2)], [7500, 7500])
  history.turn(beginMs + 399 * 24 * hour)
  history.add([value('vm.cpu', 1, 'stays')])
  history.turn(beginMs + 500 * 24 * hour)
  t.same(history.partsOf('vm.cpu'), ['stays'])
  t.equal(history.problem, null)
  history.close()
})

t.test('a clock that is set back adds to what is there', async (t) => {
  const history = await opened(join(t.testdir(), 'history.sqlite'))
  for (const at of [0, 1, 0, 1, 2]) {
    history.turn(beginMs + at * minute)
    history.add([value('load.one', at + 1)])
  }
  t.same(
    history.read({ metric: 'load.one', sinceMs: beginMs }, beginMs + 3 * minute).map(({ count }) => count),
    [2, 2, 1],
  )
  history.close()
})

t.test('what is too old is forgotten, and it never grows beyond its size', async (t) => {
  const path = join(t.testdir(), 'history.sqlite')
  const mostBytes = 250_000
  const history = await opened(path, { mostBytes })
  const many = Array.from({ length: 100 }, (_, at) => value('vm.cpu', at, `vm-${at}`))
  let largest = 0
  for (let at = 0; at < 10 * 60; at += 1) {
    history.turn(beginMs + at * minute)
    history.add(many)
    if (at % 60 === 0) largest = Math.max(largest, statSync(path).size)
  }
  t.equal(history.problem, null)
  t.comment(`${largest} bytes at most`)
  t.ok(largest < mostBytes * 1.2, `${largest}`)
  const nowMs = beginMs + 10 * hour
  const part = 'vm-7'
  const minutes = history.read({ metric: 'vm.cpu', part, sinceMs: nowMs - 24 * hour }, nowMs)
  t.ok(minutes.length > 10 && minutes.length < 24 * 60, `${minutes.length} of the finest are left`)
  t.ok((minutes[0]?.atMs ?? 0) > beginMs + 5 * hour, 'the oldest went first')
  t.ok(history.read({ metric: 'vm.cpu', part, sinceMs: beginMs, everyMs: 180 * minute }, nowMs).length >= 3)
  history.close()
})

t.test('a damaged file is moved aside, and a place that cannot be written says so', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'history.sqlite')
  writeFileSync(path, Buffer.alloc(8192, 0x5a))
  const { history, damagedPath } = await History.open(path)
  t.equal(damagedPath, `${path}.damaged`)
  t.equal(readFileSync(`${path}.damaged`).length, 8192)
  history.turn(beginMs)
  history.add([value('load.one', 1)])
  history.close()
  t.equal((await History.open(path)).damagedPath, null)
})

t.test('a page that the drive has lost is found when it is opened, whichever it is', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'history.sqlite')
  const history = await opened(path)
  for (let at = 0; at < 60; at += 1) {
    history.turn(beginMs + at * minute)
    history.add(Array.from({ length: 10 }, (_, vm) => value('vm.cpu', at, `vm-${vm}`)))
  }
  history.close()
  const whole = readFileSync(path)
  const pages = whole.length / pageBytes
  t.ok(pages > 10, `${pages} pages`)
  for (let page = 0; page < pages; page += 1) {
    const lost = join(folder, `without-${page}.sqlite`)
    writeFileSync(lost, Buffer.from(whole).fill(0, page * pageBytes, (page + 1) * pageBytes))
    const { history: again, damagedPath } = await History.open(lost)
    t.equal(damagedPath, `${lost}.damaged`, `page ${page}`)
    again.turn(beginMs)
    again.add([value('vm.cpu', 1, 'vm-1')])
    t.equal(again.read({ metric: 'vm.cpu', part: 'vm-1', sinceMs: beginMs }, beginMs + minute).length, 1)
    t.equal(again.problem, null)
    again.close()
  }
})

t.test('what is torn by a power cut opens again with what was whole', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'history.sqlite')
  const history = await opened(path)
  for (let at = 0; at < 5; at += 1) {
    history.turn(beginMs + at * minute)
    history.add([value('load.one', at)])
  }
  const torn = join(folder, 'torn.sqlite')
  copyFileSync(path, torn)
  const wal = readFileSync(`${path}-wal`)
  for (const length of [0, 10, 4000, wal.length - 100, wal.length]) {
    writeFileSync(`${torn}-wal`, wal.subarray(0, length))
    const again = await opened(torn)
    t.equal(again.problem, null)
    t.ok(again.read({ metric: 'load.one', sinceMs: beginMs }, beginMs + hour).length <= 5, `${length} bytes`)
    again.close()
    copyFileSync(path, torn)
  }
  history.close()
})

t.test('charts', async (t) => {
  t.same(
    [0, 0.3, 7, 11, 99, 100].map((one) => niceTop(one, 10)),
    [1, 0.5, 10, 20, 100, 100],
  )
  t.same(
    [3 * 2 ** 30, 900, 2 ** 20].map((one) => niceTop(one, 1024)),
    [5 * 2 ** 30, 1000, 2 ** 20],
  )
  const rows = chartRows(
    [
      { from: 0, to: 0.25, value: 0 },
      { from: 0.3, to: 0.4, value: 16 },
      { from: 0.99, to: 1.2, value: 8 },
      { from: 2, to: 3, value: 4 },
    ],
    { columns: 4, rows: 2, top: 16 },
  )
  t.same(rows, [' █  ', '▁█ █'], 'what is there is seen, and what is not known is empty')
  t.same(chartRows([{ from: 0.25, to: 0.75, value: 8 }], { columns: 8, rows: 1, top: 8 }), ['  ████  '])
  t.equal(amount('percent', 99.97), '100 %')
})

t.test('the verb', async (t) => {
  const history = await opened(join(t.testdir(), 'history.sqlite'))
  for (let at = 0; at < 120; at += 1) {
    history.turn(beginMs + at * minute)
    history.add([
      value('cpu.busy', at < 60 ? 10 : 80),
      value('drive.read', 5 * 2 ** 20, 'one'),
      value('vm.cpu', 1, 'web'),
      value('vm.cpu', 2, 'db'),
    ])
  }
  const nowMs = beginMs + 2 * hour
  const context = {
    ...{ who: '', clock: () => nowMs, signal: new AbortController().signal, history },
    reports: { latest: null, onReport: () => () => {} },
    fleet: noFleet,
  }
  const ask = (metric?: string, of?: string, since?: string) => run(context, { metric, of, since })
  const terminal = { colour: false, live: false, nowMs }
  const text = render(await ask('cpu.busy', undefined, '2h'), terminal).split('\n')
  t.match(text[0], /^cpu\.busy: now 80 %, mean 45 %, from 10 % to 80 %$/)
  t.equal(text.length, 10)
  t.match(text[1], /^100 % │$/)
  t.match(text[2], /^ {6}│ {35,37}▃+$/)
  t.match(text[8], /^ {2}0 % │[█▆▇]+$/)
  for (const line of text) t.ok(line.length <= 80, line)
  t.match(await ask('drive.read'), { part: 'one', unit: 'bytes-per-second', everyMs: minute })
  t.match(render(await ask('drive.read', 'one', '1m'), terminal), /drive\.read of one: now 5\.0 MiB\/s/)
  t.match(render(await ask('load.one'), terminal), /nothing was measured since/)
  await t.rejects(ask('vm.cpu'), { code: 'request.invalid', message: /needs --of with a vm: one of db, web/ })
  await t.rejects(ask('vm.cpu', 'x'), { message: 'there is no vm x: one of db, web' })
  await t.rejects(ask('nic.sent'), { message: /none is known yet/ })
  await t.rejects(ask('cpu.busy', 'x'), { message: /takes no --of/ })
  await t.rejects(ask('cpu.bussy'), { message: /there is no metric/ })
  await t.rejects(ask('cpu.busy', undefined, 'yesterday'), { code: 'request.invalid' })
  const all = (await ask()) as Extract<HistoryAnswer, { metric: null }>
  t.equal(all.metrics.length, Object.keys(METRICS).length)
  for (const line of render(all, terminal).split('\n')) t.ok(line.length <= 80, line)
  history.close()
})
