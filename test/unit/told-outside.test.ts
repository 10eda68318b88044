// What is told outside of the host: which series, what they cost, what watches them, log events, and the page for Prometheus.

import t from 'tap'
import type { Parts } from '../../agent/api/context.ts'
import { alarmsOf, dashboardBody, template } from '../../agent/report/boards.ts'
import { changesOf, nothingTold, toldOf } from '../../agent/report/changes.ts'
import type { CloudWatchOverview } from '../../agent/report/cloudwatch.ts'
import { costOf } from '../../agent/report/cost.ts'
import { Exposition, prometheusName } from '../../agent/report/exposition.ts'
import { dimensionsOf } from '../../agent/report/metrics-door.ts'
import type { Report } from '../../agent/report/report.ts'
import { Rollup, seriesKey, seriesOfKey } from '../../agent/report/rollup.ts'
import { render as renderOverview } from '../../agent/verbs/cloudwatch.ts'
import { render as renderCost, run as runCost } from '../../agent/verbs/cloudwatch-cost.ts'
import {
  exitOf as exitOfSetUp,
  render as renderSetUp,
  run as runSetUp,
} from '../../agent/verbs/cloudwatch-setup.ts'
import { grafanaDashboard } from '../../packaging/grafana.ts'
import { cloudwatchSchema } from '../../provisioning/cloudwatch.ts'
import { METRICS, type MetricName } from '../../provisioning/metrics.ts'

const usual = cloudwatchSchema.parse({})
const watched = { host: 'h07', instance: 'i-0123456789abcdef0', region: 'rg-1', topic: null }
const terminal = { colour: false, live: false, nowMs: 1_000_000 }
const names = Object.keys(METRICS) as MetricName[]

const report = (over: Partial<Report> = {}): Report => ({
  ...{ schema: 'garrison/report/1', run: 'r', generation: 1, atMs: 5000 },
  host: { name: 'h07', instance: 'i', bootedMs: 0, version: '1', startedMs: 0 },
  ...{ health: 'ok', standing: 'settled', findings: [], hidden: [], drift: null, metrics: {}, vms: [] },
  inventory: null,
  relay: { offers: false, by: null },
  ages: {
    host: { atMs: 0, stale: false, problem: null },
    vms: { atMs: 0, stale: false, problem: null },
    root: { atMs: 0, stale: false, problem: null },
    inventory: { atMs: 0, stale: false, problem: null },
  },
  ...over,
})

t.test('a value goes to the series of the host, and to that of its part where that is wanted', async (t) => {
  const rollup = new Rollup({ metrics: ['vm.cpu', 'cpu.busy'], parts: ['drive.busy'], vms: ['vm.cpu'] })
  const keys = (metric: MetricName, dimensions: Record<string, string> = {}) =>
    rollup.keysOf({ metric, unit: 'percent', value: 1, dimensions, atMs: 0 }).map(seriesOfKey)
  t.same(keys('cpu.busy'), [{ metric: 'cpu.busy', part: null }])
  t.same(keys('vm.cpu', { vm: 'web', uuid: 'u' }), [
    { metric: 'vm.cpu', part: null },
    { metric: 'vm.cpu', part: { scope: 'vm', name: 'web' } },
  ])
  t.same(keys('drive.busy', { drive: 'nvme0n1' }), [
    { metric: 'drive.busy', part: { scope: 'drive', name: 'nvme0n1' } },
  ])
  t.same(keys('memory.used'), [])
  const odd = { metric: 'vm.cpu', part: { scope: 'vm', name: ':grün\0 %1 \ud800' } } as const
  t.same(seriesOfKey(seriesKey(odd)), odd)
  const [, , dimension] = dimensionsOf(seriesKey(odd), watched)
  t.match(dimension?.Value ?? '', /^[\x20-\x39\x3b-\x7e][\x20-\x7e]*$/, 'printable ASCII, no colon first')
})

t.test('what is told by itself costs few dollars, and the dearest line is first', async (t) => {
  const series = Object.fromEntries(usual.metrics.map((metric) => [metric, 1]))
  const lines = costOf({ settings: usual, series, reportBytes: 20_000, changeBytesMonth: null, alarms: 5 })
  const month = lines.reduce((sum, line) => sum + (line.of === 'dashboards' ? 0 : line.month), 0)
  t.ok(month < 6, `${month} dollars`)
  const dear = costOf({
    settings: cloudwatchSchema.parse({ vms: ['vm.cpu'], logs: {}, prices: { metricMonth: 0.5 } }),
    ...{ series: { 'vm.cpu': 101 }, reportBytes: 20_000, changeBytesMonth: 1e9, alarms: 0 },
  })
  t.match(dear[0], { what: 'vm.cpu', number: 101, each: 0.5, month: 50.5 })
  t.match(
    dear.find(({ what }) => what === 'changes'),
    { month: 0.5 },
  )
  const answer = await runCost({
    cloudwatch: {
      overview: () =>
        ({
          ...{ told: usual, series, region: null },
          made: { changeBytes: 0, reportBytes: 0, spanMs: 0 },
        }) as unknown as CloudWatchOverview,
    },
    reports: { latest: report(), onReport: () => () => undefined },
  })
  const text = renderCost(answer, terminal)
  t.match(text, /^\$5\.\d\d a month for this host; \$8\.\d\d with the dashboard/)
  t.ok(text.split('\n').every((line) => line.length <= 80))
  await t.rejects(
    runCost({
      cloudwatch: { overview: () => ({ told: null, made: {} }) as unknown as CloudWatchOverview },
      reports: { latest: null, onReport: () => () => undefined },
    }),
    { code: 'cloudwatch.not-told' },
  )
})

t.test('alarms and dashboard are of what is told', async (t) => {
  t.same(
    alarmsOf(usual, watched).map(({ AlarmName }) => AlarmName.split(' ').at(-1)),
    ['silent', 'findings', 'array', 'space', 'memory'],
  )
  t.same(alarmsOf({ ...usual, metrics: [] }, watched), [])
  t.match(alarmsOf({ ...usual, everySeconds: 300 }, watched)[0], { Period: 300, EvaluationPeriods: 3 })
  const board = JSON.parse(dashboardBody(usual, 'rg-1'))
  t.equal(board.widgets.length, usual.metrics.length)
  const printed = template(usual, { ...watched, topic: 'arn' }) as { Resources: object }
  t.equal(Object.keys(printed.Resources).length, 6)
  t.ok(Object.keys(printed.Resources).every((id) => /^[A-Za-z0-9]+$/.test(id)))
  t.match(renderSetUp({ region: 'rg-1', made: [], template: printed }, terminal), /AWS::CloudWatch::Alarm/)
  const made = [{ kind: 'alarm', name: 'garrison h07 i array', change: 'made' } as const]
  t.equal(
    renderSetUp({ region: 'rg-1', made, template: null }, terminal),
    'made  alarm garrison h07 i array\nin rg-1',
  )
})

t.test('setup prints what it would make, and needs a document and a Region', async (t) => {
  const here = (desired: object, region: string | null) => ({
    parts: async () =>
      ({
        document: async () => ({ desired }),
        reader: { instance: async () => (region === null ? null : { region }) },
        ...{ hostname: 'h07', instance: async () => 'i-0123456789abcdef0' },
      }) as unknown as Parts,
  })
  const answer = await runSetUp({ print: true, topic: undefined }, here({ cloudwatch: usual }, 'rg-1'))
  t.same(answer, { region: 'rg-1', made: [], template: template(usual, watched) })
  t.equal(exitOfSetUp(), 0)
  await t.rejects(runSetUp({ print: true, topic: undefined }, here({}, 'rg-1')), {
    code: 'cloudwatch.not-told',
  })
  await t.rejects(runSetUp({ print: true, topic: 'ops' }, here({ cloudwatch: usual }, 'rg-1')), {
    code: 'request.invalid',
  })
  const { AWS_REGION: region } = process.env
  delete process.env.AWS_REGION
  await t.rejects(runSetUp({ print: true, topic: undefined }, here({ cloudwatch: usual }, null)), {
    code: 'cloudwatch.no-region',
  })
  if (region !== undefined) process.env.AWS_REGION = region
})

t.test('one event for each change, and none for what was told before', async (t) => {
  const finding = {
    ...{ code: 'vm.stuck', subject: 'web 3', text: 'stuck', remedy: 'look', sinceMs: 1 },
    severity: 'warning' as const,
  }
  const first = report({
    findings: [finding],
    vms: [
      {
        ...{
          uuid: 'u1',
          name: 'web 3',
          power: 'running',
          reason: 'booted',
          stale: false,
          stuckSinceMs: null,
        },
        ...{ cpuPercent: 1, memoryBytes: 1, readPerSecond: 1 },
        ...{ writtenPerSecond: 1, receivedPerSecond: 1, sentPerSecond: 1 },
      },
    ],
    drift: {
      ...{ atMs: 1, document: null, applying: null },
      resources: [
        { resource: 'array', declared: true, standing: 'settled', summary: 's', steps: [], problem: null },
      ],
    },
  })
  const told = toldOf(first, nothingTold)
  t.match(changesOf(first, nothingTold, told), [
    { event: 'finding', change: 'appeared', code: 'vm.stuck', subject: 'web 3' },
    { event: 'drift', resource: 'array', standing: 'settled' },
    { event: 'vm', name: 'web 3', power: 'running' },
  ])
  const same = report({ ...first, findings: [{ ...finding, text: 'stuck for longer' }] })
  t.same(changesOf(same, told, toldOf(same, told)), [])
  const graver = report({ ...first, findings: [{ ...finding, severity: 'high' as const }] })
  t.match(changesOf(graver, told, toldOf(graver, told)), [{ change: 'changed', severity: 'high' }])
  const after = report()
  const now = toldOf(after, told)
  t.match(changesOf(after, told, now), [
    { event: 'finding', change: 'ended', code: 'vm.stuck', subject: 'web 3' },
    { event: 'vm', uuid: 'u1', power: 'gone' },
  ])
  t.same(now.resources, told.resources, 'what the root side has not said again is as it was')
})

t.test('Prometheus gets every metric in base units, and nothing of what is gone', async (t) => {
  let nowMs = 0
  const exposition = new Exposition(() => nowMs)
  const all = names.map((metric) => ({
    ...{ metric, unit: METRICS[metric].unit, value: 50, atMs: 0 },
    dimensions: METRICS[metric].per === 'host' ? {} : { [METRICS[metric].per]: 'a"b' },
  }))
  exposition.take(all)
  const found = report({
    findings: [{ code: 'load.high', severity: 'notice', text: '', remedy: '', sinceMs: 0 }],
  })
  const { text, type } = await exposition.page(found, '1.2.3', 7)
  t.match(type, /^text\/plain/)
  t.match(text, /^garrison_cpu_busy_ratio 0\.5$/m)
  t.match(text, /^garrison_drive_latency_seconds\{drive="a\\"b"\} 0\.05$/m)
  t.match(text, /^garrison_build_info\{version="1\.2\.3"\} 1$/m)
  t.match(text, /^garrison_finding\{code="load\.high",severity="notice",subject=""\} 1$/m)
  for (const metric of names) t.match(text, new RegExp(`^${prometheusName(metric)}[{ ]`, 'm'))
  t.ok(names.every((metric) => /^garrison_[a-z0-9_]+$/.test(prometheusName(metric))))
  nowMs = 40_000
  const later = await exposition.page(null, '1.2.3', 0)
  t.notMatch(later.text, /garrison_cpu_busy_ratio/)
  t.match(later.text, /garrison_filesystem_used_ratio/)
})

t.test('the Grafana dashboard shows every metric once', async (t) => {
  const { panels } = JSON.parse(grafanaDashboard()) as { panels: { title: string; targets?: unknown[] }[] }
  t.same(panels.flatMap(({ title, targets }) => (targets ? [title] : [])).sort(), [...names].sort())
})

t.test('the overview says what waits, and why', async (t) => {
  const queue = {
    ...{ acceptedMs: 990_000, problem: null, failingMs: null, refused: null, askProblem: null },
    ...{ waiting: 0, doubtful: 0, waitingSinceMs: null },
  }
  const overview = {
    ...{ atMs: 0, told: cloudwatchSchema.parse({ logs: {} }), region: 'rg-1', metrics: queue, events: queue },
    counts: { sent: 5, dropped: 0, expired: 0, refused: 0, unwritten: 0, folded: 0 },
    ...{ spoolBytes: 40_960, skewMs: 0, series: { 'cpu.busy': 1, 'vm.cpu': 12 } },
    made: { reportBytes: 0, changeBytes: 0, spanMs: 0 },
    ...{ relayed: null, relayedFor: {} },
  }
  const good = renderOverview(overview, terminal)
  t.match(good, /13 series of 2 metrics in Garrison, rg-1, every 60 s/)
  t.match(good, /none waits/)
  const problem = { code: 'cloudwatch.busy', message: 'm', remedy: 'r', retry: true } as const
  const bad = renderOverview(
    {
      ...{ ...overview, skewMs: 3_600_000, counts: { ...overview.counts, dropped: 3, folded: 4 } },
      relayed: { by: 'h05', sinceMs: terminal.nowMs - 600_000 },
      relayedFor: { h06: { rows: 12, requests: 1, atMs: terminal.nowMs - 5000 } },
      metrics: {
        ...{ ...queue, waiting: 900, doubtful: 3, waitingSinceMs: 1, acceptedMs: null, problem },
        refused: { row: 'vm.cpu vm web', why: 'no', atMs: 1 },
        askProblem: problem,
      },
    },
    terminal,
  )
  for (const words of [
    /900 datapoints wait/,
    /3 in doubt/,
    /3 for want of room/,
    /4\s+folded/,
    /60 min ahead of/,
    /vm web: no/,
    /h05 sends for this host, which has not reached the Region for 10 min/,
    /h06: 12 in 1 request, the last 5 s ago/,
  ])
    t.match(bad, words)
  t.ok(bad.split('\n').every((line) => line.length <= 80))
  t.match(renderOverview({ ...overview, told: null }, terminal), /says nothing of CloudWatch/)
})
