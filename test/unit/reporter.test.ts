// The round of the daemon over a held clock and a host that is made up: reports, generations, what listeners hear, and the root side.

import { join } from 'node:path'
import t from 'tap'
import { History } from '../../agent/report/history.ts'
import { HostLooker } from '../../agent/report/host/look.ts'
import { SlowLooker } from '../../agent/report/host/slow-look.ts'
import { Notices } from '../../agent/report/notices.ts'
import { OwnUseLooker } from '../../agent/report/own.ts'
import type { DomainRecord, HintEvent, StatsConnection } from '../../agent/report/questions.ts'
import type { Report } from '../../agent/report/report.ts'
import { reportJsonSchema, reportSchema } from '../../agent/report/report-schema.ts'
import { Reporter, type VmHappening } from '../../agent/report/reporter.ts'
import { RootAsker, type RootStatus } from '../../agent/report/root-view.ts'
import { Sampler } from '../../agent/report/sample.ts'
import { exitOf, render, run } from '../../agent/verbs/report.ts'
import type { InstanceEvents } from '../../provisioning/instance.ts'
import type { Datapoint } from '../../provisioning/metrics.ts'
import { HostError } from '../../provisioning/problem.ts'
import { heldClock } from './held-clock.ts'
import { noFleet } from './no-fleet.ts'

const plain = { colour: false, live: false, nowMs: 0 }
type Told = {
  readonly dom: { readonly name: string; readonly uuid: string }
  readonly event?: number
  readonly detail?: number
}

const rootStatus = (atMs: number): RootStatus => ({
  atMs,
  standing: 'drifted',
  applying: null,
  document: null,
  resources: [
    {
      resource: 'array',
      declared: true,
      standing: 'drifted',
      summary: 'md/garrison raid5',
      steps: [
        { key: 'array.create', summary: 'make it', risk: 'safe' },
        {
          ...{ key: 'array.grow', summary: 'grow it', risk: 'disruptive' },
          blocked: { code: 'drive.busy', message: 'in use', remedy: 'wait' },
        },
      ],
      findings: [
        {
          code: 'array.degraded',
          severity: 'high',
          subject: 'md/garrison',
          text: 'two of three',
          remedy: 'drives',
        },
      ],
    },
  ],
})

/** A host that tests make up: what its files say, its VMs, and what the root side answers. */
async function worldOf(folder: string) {
  const clock = heldClock()
  const files: Record<string, string> = {
    '/proc/stat': 'cpu  100 0 0 100 0 0 0 0 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\nbtime 1763640000\n',
    '/proc/loadavg': '1 1 1 1/1 1\n',
    '/proc/meminfo': 'MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n',
    '/proc/vmstat': 'pgfault 1\noom_kill 0\n',
    '/proc/diskstats': '',
    '/proc/net/dev':
      'Inter-|   Receive |  Transmit\n face |bytes packets errs drop|bytes packets errs drop\n',
    '/proc/sys/kernel/tainted': '0\n',
    '/proc/self/mountinfo': '',
    '/proc/mdstat': '',
    '/proc/self/stat':
      '1 (x) S 0 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1 0 1 4096000 10 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n',
    '/proc/self/statm': '1000 10 0 0 0 0 0\n',
  }
  const records: DomainRecord[] = [
    { dom: { uuid: 'u1', name: 'web', id: -1 }, params: { 'state.state': 5, 'state.reason': 1 } },
  ]
  const listeners = new Map<HintEvent, (told: Told) => void>()
  const root = { answer: async (): Promise<RootStatus> => rootStatus(clock.epochMs()), asked: 0 }
  const connection: StatsConnection = {
    connectGetAllDomainStats: async () => records,
    connectDomainEventRegisterAny: async (event, listener) => listeners.set(event, listener),
    on: () => {},
    close: () => {},
  }
  const { history } = await History.open(join(folder, 'history.sqlite'))
  const read = (path: string): string | null => files[path] ?? null
  const inventory = { asked: 0 }
  const announced: { events: InstanceEvents | null } = { events: null }
  const reporter = new Reporter({
    clock,
    sampler: (heard) =>
      new Sampler({
        ...{ connect: async () => connection, read, clock, heard },
        ...{ runFolder: '/run/libvirt', netDevPath: '/proc/net/dev' },
      }),
    host: new HostLooker({ read, list: () => null, exists: () => false, clock }),
    slow: new SlowLooker({
      ...{ read, list: () => null, exists: () => false, clock, capacity: async () => null },
      query: async ([program]) => ({
        exit: 0,
        stdout: program.endsWith('systemctl') ? '[]' : 'yes',
        stderr: '',
      }),
    }),
    notices: new Notices({ clock, ask: async () => announced.events }),
    own: new OwnUseLooker({ clock, everyMs: 10_000, memoryBytes: () => 5e7, cpuMs: () => 0, list: () => [] }),
    root: new RootAsker({
      clock,
      ask: () => {
        root.asked += 1
        return root.answer()
      },
    }),
    history,
    async inventory() {
      inventory.asked += 1
      throw new HostError('host.unreadable', 'no such thing here')
    },
    arrayTitle: (name) => (name === 'md127' ? 'md/garrison' : name),
    run: 'run-1',
    identity: { name: 'h07', instance: 'i-…', version: '1.2.3' },
    relay: () => ({ offers: false, by: null }),
  })
  const stop = new AbortController()
  const running = reporter.run(stop.signal)
  await clock.pass(0)
  return {
    ...{ clock, files, records, listeners, root, reporter, history, inventory, announced },
    async end() {
      stop.abort()
      await clock.pass(0)
      await running
      history.close()
    },
  }
}

const latest = ({ latest: report }: Reporter): Report => {
  if (report === null) throw new Error('no report')
  return report
}

t.test('reports: their shape, their generation, their age', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, reporter } = world
  await clock.pass(10_000)
  const report = latest(reporter)
  t.same(reportSchema.parse(report), report, 'is what its schema says, and nothing else')
  t.match(report, {
    schema: 'garrison/report/1',
    run: 'run-1',
    health: 'high',
    standing: 'drifted',
    host: { name: 'h07', bootedMs: 1763640000000 },
    findings: [{ code: 'array.degraded', subject: 'md/garrison' }],
    metrics: { 'load.one': 1, 'memory.used': 50 },
    vms: [{ name: 'web', power: 'off', reason: 'shutdown', stale: false, cpuPercent: null }],
    drift: { resources: [{ steps: [{ blocked: null }, { blocked: 'drive.busy' }], problem: null }] },
    ages: { inventory: { atMs: null, problem: 'no such thing here' } },
  })
  const generations: number[] = []
  const unlisten = reporter.onReport(({ generation }) => generations.push(generation))
  await clock.pass(30_000)
  t.same(generations, [], 'nothing has changed')
  t.ok(latest(reporter).atMs > report.atMs, 'and that is known')
  world.files['/proc/meminfo'] = 'MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n'
  await clock.pass(10_000)
  t.same(generations, [report.generation + 1])
  unlisten()
  world.files['/proc/loadavg'] = '9 9 9 1/1 1\n'
  await clock.pass(10_000)
  t.equal(generations.length, 1)
  t.match(reportJsonSchema(), { type: 'object', required: ['schema', 'run', 'generation'] })
  await world.end()
})

t.test('a part of the host that cannot be read is told, and nothing that it found ends', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, reporter, files } = world
  const mdstat = `md127 : active raid5 a[0] b[1]\n 100 blocks super 1.2 level 5 [3/2] [UU_]\n`
  world.root.answer = async () => ({ ...rootStatus(clock.epochMs()), resources: [] })
  files['/proc/mdstat'] = mdstat
  await clock.pass(10_000)
  const codes = () => latest(reporter).findings.map(({ code }) => code)
  await clock.pass(300_000)
  t.same(codes(), ['array.degraded'])
  files['/proc/mdstat'] = 'nonsense is no array'
  files['/proc/sys/kernel/tainted'] = 'P'
  await clock.pass(30_000)
  t.same(codes(), [])
  await clock.pass(60_000)
  t.same(codes(), ['host.unreadable'])
  await world.end()
})

t.test('the root side is asked on a slow beat, and sooner when the arrays change', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, root, files, reporter } = world
  t.equal(root.asked, 1)
  await clock.pass(290_000)
  t.equal(root.asked, 1)
  await clock.pass(10_000)
  t.equal(root.asked, 2)
  files['/proc/mdstat'] = 'md127 : active raid5 a[0] b[1]\n 100 blocks super 1.2 level 5 [3/2] [UU_]\n'
  await clock.pass(40_000)
  t.equal(root.asked, 3)
  root.answer = async () => {
    throw new HostError('door.closed', 'nobody listens')
  }
  await clock.pass(300_000)
  t.equal(root.asked, 4)
  t.match(latest(reporter).ages.root, { problem: 'nobody listens', stale: false })
  t.equal(latest(reporter).standing, 'drifted', 'what was said is minutes old')
  await clock.pass(900_000)
  t.match(latest(reporter), { standing: 'unknown', ages: { root: { stale: true } } })
  t.ok(latest(reporter).findings.some(({ code }) => code === 'root.silent'))
  t.ok(
    latest(reporter).findings.some(({ code }) => code === 'array.degraded'),
    'what it had found is not mended by silence',
  )
  const never = Promise.withResolvers<RootStatus>()
  root.answer = () => never.promise
  const before = root.asked
  await clock.pass(1_000_000)
  t.equal(root.asked, before + 1, 'one question at a time')
  t.match(latest(reporter).ages.root.problem, /does not answer/)
  never.resolve(rootStatus(clock.epochMs()))
  await clock.pass(10_000)
  t.equal(latest(reporter).ages.root.problem, null)
  await world.end()
})

t.test('what happens to a VM is told at once, and the report follows', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, reporter, listeners, records } = world
  await clock.pass(15_000)
  const heard: VmHappening[] = []
  reporter.onVm((happening) => heard.push(happening))
  const values: (readonly Datapoint[])[] = []
  reporter.onValues((round) => values.push(round))
  records[0] = { dom: { uuid: 'u1', name: 'web', id: -1 }, params: { 'state.state': 6, 'state.reason': 1 } }
  listeners.get('lifecycle')?.({ dom: { uuid: 'u1', name: 'web' }, event: 8, detail: 0 })
  t.match(heard, [{ uuid: 'u1', name: 'web', event: 8, detail: 0, tickMs: clock.steadyMs() }])
  t.equal(latest(reporter).vms[0]?.power, 'off')
  await clock.pass(60)
  t.match(latest(reporter), {
    health: 'high',
    vms: [{ power: 'crashed' }],
    findings: [{ code: 'array.degraded' }, { code: 'vm.crashed', subject: 'web' }],
  })
  t.equal(values.length, 0, 'no value is told twice')
  await clock.pass(10_000)
  t.equal(values.length, 1)
  await world.end()
})

t.test('what AWS announces is told within five seconds', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, reporter, announced } = world
  await clock.pass(21_000)
  const generations: number[] = []
  reporter.onReport(({ generation }) => generations.push(generation))
  announced.events = {
    ...{ spot: { action: 'terminate', atMs: null }, rebalance: null, maintenance: [], lifecycle: null },
  }
  await clock.pass(5000)
  t.equal(generations.length, 1)
  t.ok(latest(reporter).findings.some(({ code }) => code === 'ec2.spot-interruption'))
  await clock.pass(4000)
  t.equal(generations.length, 1, 'and once')
  announced.events = null
  await clock.pass(5000)
  t.notOk(latest(reporter).findings.some(({ code }) => code === 'ec2.spot-interruption'))
  await world.end()
})

t.test('after a start anew: findings are as old as they were, generations go on', async (t) => {
  const folder = t.testdir()
  const first = await worldOf(folder)
  await first.clock.pass(10_000)
  const { generation, findings } = latest(first.reporter)
  const [finding] = findings
  await first.end()
  const second = await worldOf(folder)
  second.root.answer = async () => {
    throw new HostError('door.closed', 'not yet')
  }
  await second.clock.pass(100_000)
  t.ok(latest(second.reporter).generation > generation)
  t.match(
    latest(second.reporter).findings.find(({ code }) => code === 'array.degraded'),
    { sinceMs: finding?.sinceMs },
  )
  await second.end()
})

t.test(
  'the inventory is read once, again when the host changes, and not often when that fails',
  async (t) => {
    const world = await worldOf(t.testdir())
    const { clock, inventory, files } = world
    await clock.pass(300_000)
    t.equal(inventory.asked, 1)
    await clock.pass(330_000)
    t.equal(inventory.asked, 2)
    files['/proc/meminfo'] = 'MemTotal: 2000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n'
    await clock.pass(20_000)
    t.equal(inventory.asked, 3)
    await world.end()
  },
)

t.test('the verb: text of eighty columns, one report or each that differs', async (t) => {
  const world = await worldOf(t.testdir())
  const { clock, reporter, history, files } = world
  const stop = new AbortController()
  const context = {
    ...{ who: '', clock: () => clock.epochMs(), signal: stop.signal, reports: reporter, history },
    fleet: noFleet,
  }
  const early = { ...context, reports: { latest: null, onReport: () => () => {} } }
  await t.rejects(run(early, { watch: false }).next(), { code: 'report.none-yet' })
  await clock.pass(20_000)
  const one: Report[] = []
  for await (const report of run(context, { watch: false })) one.push(report)
  t.equal(one.length, 1)
  const text = render(latest(reporter), { ...plain, nowMs: clock.epochMs() })
  for (const line of text.split('\n')) t.ok(line.length <= 80, line)
  t.match(text, /^h07 {4}drifted {4}health: 1 high +seen/)
  t.match(text, / {2}vms +0 of 1 run/)
  t.match(text, / {2}resources +array drifted; looked 20 s ago/)
  t.match(text, / {2}HIGH +array\.degraded: md\/garrison: two of three/)
  t.equal(exitOf(latest(reporter)), 2)
  const watched: number[] = []
  const watching = (async () => {
    for await (const { generation } of run(context, { watch: true })) watched.push(generation)
  })()
  await clock.pass(20_000)
  t.equal(watched.length, 1)
  files['/proc/loadavg'] = '7 1 1 1/1 1\n'
  await clock.pass(10_000)
  t.equal(watched.length, 2)
  stop.abort()
  await watching
  await world.end()
})
