// What is found: when it is said, when it is said no more, what hides it, and what is made of what was seen.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { datapointsOf, type Round } from '../../agent/report/datapoints.ts'
import { FINDINGS, type FindingEntry } from '../../agent/report/findings.ts'
import { type Beside, Judge } from '../../agent/report/judge.ts'
import { noticed } from '../../agent/report/notices.ts'
import type { VmSample } from '../../agent/report/sample.ts'
import { type Condition, StandingFindings } from '../../agent/report/standing-findings.ts'
import { timeLeft } from '../../agent/report/trend.ts'
import { parseMdstat } from '../../provisioning/array/mdstat.ts'
import type { InstanceEvents } from '../../provisioning/instance.ts'
import { METRICS } from '../../provisioning/metrics.ts'
import { HostError } from '../../provisioning/problem.ts'

const minute = 60_000
const sees = () => false

t.test('the table', async (t) => {
  for (const [code, entry] of Object.entries(FINDINGS) as [string, FindingEntry][]) {
    t.ok(entry.remedy.length > 20, `${code} has a remedy`)
    t.ok(entry.level !== undefined || entry.when !== undefined, `${code} says when`)
    t.ok(entry.level === undefined || Object.hasOwn(METRICS, entry.level.metric), code)
    const { above = {}, until = 0 } = entry.level ?? {}
    for (const level of Object.values(above)) t.ok(level >= until, `${code} ends below where it begins`)
  }
  t.same(Object.keys(FINDINGS), Object.keys(FINDINGS).sort(), 'in order')
  t.same(Object.keys(FINDINGS).length, new Set(Object.keys(FINDINGS)).size)
})

t.test('said when it has been so long enough, no more when it has not been so long enough', async (t) => {
  const standing = new StandingFindings([], { epochMs: 0, tickMs: 0 })
  const high: Condition = { code: 'memory.used', severity: 'warning', text: 'tight' }
  const codes = () => standing.said().findings.map(({ code }) => code)
  const take = (conditions: readonly Condition[], tickMs: number, epochMs = tickMs) =>
    standing.take({ conditions, blind: sees }, { epochMs, tickMs })
  take([high], 0, 1_000_000)
  t.same(codes(), [])
  take([high], minute)
  take([], 1.5 * minute)
  take([high], 2.5 * minute, 5_000_000)
  t.same(codes(), [], 'it was not so meanwhile')
  take([high], 4.5 * minute)
  t.same(codes(), ['memory.used'])
  t.equal(standing.said().findings[0]?.sinceMs, 5_000_000, 'since it was first so')
  t.equal(standing.said().findings[0]?.remedy, FINDINGS['memory.used'].remedy)
  take([], 5 * minute)
  take([], 9 * minute)
  t.same(codes(), ['memory.used'], 'it may be back any moment')
  take([], 9.5 * minute)
  t.same(codes(), [])
})

t.test(
  'a fault that nobody can see goes on being told, and one that was restored after a start too',
  async (t) => {
    const before = { code: 'array.failed', severity: 'high', text: 'x', remedy: 'y', sinceMs: 7 } as const
    const standing = new StandingFindings([before], { epochMs: 0, tickMs: 100 })
    standing.take({ conditions: [], blind: () => true }, { epochMs: 0, tickMs: 10 * minute })
    t.same(standing.said().findings, [before])
    t.same(standing.kept(), [before])
    standing.take({ conditions: [], blind: sees }, { epochMs: 0, tickMs: 10 * minute })
    t.same(standing.said().findings, [])
  },
)

t.test('causes hide what they cause, and what two have found is told once', async (t) => {
  const standing = new StandingFindings([], { epochMs: 0, tickMs: 0 })
  const conditions: readonly Condition[] = [
    { code: 'vm.io-error', severity: 'high', subject: 'web', text: 'paused' },
    { code: 'array.failed', severity: 'high', subject: 'md/garrison', text: 'gone', remedy: 'stop' },
    { code: 'array.failed', severity: 'high', subject: 'md/garrison', text: 'also seen by others' },
    { code: 'kernel.tainted', severity: 'notice', text: 'warned' },
  ]
  standing.take({ conditions, blind: sees }, { epochMs: 1, tickMs: 0 })
  t.match(standing.said(), {
    findings: [{ code: 'array.failed', text: 'gone', remedy: 'stop' }, { code: 'kernel.tainted' }],
    hidden: [{ code: 'vm.io-error', subject: 'web', because: 'array.failed' }],
  })
  t.equal(standing.said().findings.length, 2)
})

t.test('a cause hides only what stands on it', async (t) => {
  const hiddenOf = (...conditions: readonly Condition[]) => {
    const standing = new StandingFindings([], { epochMs: 0, tickMs: 0 })
    standing.take({ conditions, blind: sees }, { epochMs: 1, tickMs: 0 })
    // What takes its time to appear.
    standing.take({ conditions, blind: sees }, { epochMs: 1, tickMs: 60 * minute })
    const { findings, hidden } = standing.said()
    for (const finding of findings) t.notOk('on' in finding)
    return hidden.map(({ code, subject, because }) => `${code} ${subject} ${because}`)
  }
  const condition = (code: string, subject: string, on?: readonly string[]): Condition => ({
    ...{ code, subject, severity: 'warning', text: '' },
    ...(on !== undefined && { on }),
  })
  const full = condition('filesystem.space', '/', ['vda'])
  t.same(hiddenOf(full, condition('filesystem.fills', '/v', ['md/garrison'])), [])
  t.same(hiddenOf(full, condition('filesystem.fills', '/')), ['filesystem.fills / filesystem.space'])
  t.same(hiddenOf(condition('nic.no-carrier', 'lni'), condition('nic.errors', 'eni')), [])
  const lost = condition('array.failed', 'md/garrison')
  t.same(hiddenOf(lost, full), [], 'the root filesystem is no part of the array')
  t.same(hiddenOf(lost, condition('filesystem.space', '/v', ['md/garrison', 'garrison'])), [
    'filesystem.space /v array.failed',
  ])
  t.same(hiddenOf(lost, condition('vm.io-error', 'web')), ['vm.io-error web array.failed'])
  t.same(
    hiddenOf(
      condition('software.unit-failed', 'a.service'),
      condition('units.failed', 'b.service', ['b.service']),
    ),
    [],
  )
})

t.test('what filesystems and drives stand on is known by their arrays', async (t) => {
  const array = {
    ...{
      kernelName: 'md127',
      active: true,
      readOnly: 'no' as const,
      personality: 'raid5',
      metadata: '1.2',
      blocks: 1,
    },
    ...{ wantedDevices: 3, workingDevices: 3, slots: 'UUU', progress: null },
    members: ['nvme1n1', 'nvme2n1p2'].map((kernelName) => ({
      ...{ kernelName, number: 0, faulty: false, spare: false, replacement: false, journal: false },
    })),
  } as const
  const drives = ['md127', 'nvme1n1', 'nvme2n1', 'nvme1n10'].map((name) => [name, {}] as const)
  const room = { sizeBytes: 100, freeBytes: 1, inodes: 0, freeInodes: 0 }
  const given = round({
    host: { arrays: { value: [array] }, drives: { value: new Map(drives) as never } },
    slow: {
      filesystems: {
        value: [
          {
            mountpoint: '/v',
            source: 's',
            on: ['md127', 'garrison'],
            readOnly: false,
            capacity: room,
            silentMs: 40_000,
          },
        ],
        atMs: 0,
      },
    },
  })
  const slow = ['nvme1n1', 'nvme2n1', 'nvme1n10'].map((drive) => ({
    ...({ metric: 'drive.latency', unit: 'milliseconds', value: 500, atMs: 1e12 } as const),
    dimensions: { drive },
  }))
  const { conditions } = new Judge().judge(given, {
    ...quietBeside,
    values: slow,
    arrayTitle: () => 'md/garrison',
  })
  t.same(
    conditions.filter(({ on }) => on).map(({ code, subject, on }) => `${code} ${subject} ${on}`),
    [
      'drive.slow nvme1n1 md/garrison',
      'drive.slow nvme2n1 md/garrison',
      'drive.slow nvme1n10 ',
      'filesystem.silent /v md/garrison,garrison',
    ],
  )
})

t.test('what AWS announces, with the time that is left', async (t) => {
  const nowMs = Date.UTC(2026, 10, 20, 12)
  const events = { spot: null, rebalance: null, maintenance: [], lifecycle: null }
  const event = (code: string, inMs: number | null, active = true) => ({
    ...{ id: 'instance-event-1', code, active, description: 'something else', notAfterMs: null },
    notBeforeMs: inMs === null ? null : nowMs + inMs,
  })
  const [hour, day] = [3_600_000, 86_400_000]
  const said = (more: Partial<InstanceEvents>) =>
    noticed({ ...events, ...more }, nowMs).map(({ code, severity, text }) => `${severity} ${code}: ${text}`)
  t.same(said({ lifecycle: 'InService', maintenance: [event('instance-retirement', day, false)] }), [])
  t.same(said({ maintenance: [event('instance-retirement', 10 * day + hour)] }), [
    'high ec2.retirement: AWS ends this instance, and what is on its own drives is gone at 2026-11-30 13:00 UTC, in 10 days',
  ])
  t.match(said({ maintenance: [event('system-reboot', 26 * hour)] }), [
    /^warning ec2\.maintenance: .* in 26 h$/,
  ])
  t.match(said({ maintenance: [event('instance-reboot', 90 * minute)] }), [
    /^high ec2\.maintenance: .* in 90 min$/,
  ])
  t.match(said({ maintenance: [event('system-maintenance', -hour)] }), [
    /^warning .* since 2026-11-20 11:00 UTC$/,
  ])
  t.match(said({ maintenance: [event('new-kind', null)] }), [
    /announces new-kind \(something else\) at a time that is not told/,
  ])
  t.match(
    said({
      spot: { action: 'terminate', atMs: nowMs + 110_000 },
      rebalance: { noticedMs: null },
      lifecycle: 'Terminated:Wait',
    }),
    [
      /^high ec2\.spot-interruption: .*\(terminate\) .* in 2 min$/,
      /^warning ec2\.rebalance/,
      /^high ec2\.lifecycle/,
    ],
  )
  const judge = new Judge()
  const spot = { ...events, spot: { action: 'stop', atMs: null } }
  t.same(found(judge.judge(round({ notices: { value: spot, atMs: 0 } }), quietBeside)), [
    'high ec2.spot-interruption',
  ])
  t.same(
    found(judge.judge(round({ notices: { value: null, atMs: 0 } }), quietBeside)),
    [],
    'no instance at all',
  )
  const blind = judge.judge(round({ notices: { ...nothingSeen, atMs: 0 } }), quietBeside)
  t.equal(blind.blind('ec2.retirement', 'instance-event-1'), true, 'silence cancels nothing')
})

const nothingSeen = { problem: new HostError('host.unreadable', 'not looked at here').report() }

/** A round in which nothing could be read but what is given. */
function round({
  tickMs = 0,
  epochMs = 1e12 + tickMs,
  host = {},
  slow = {},
  notices = null,
  vms = [],
  silence = null,
  lagMs = 0,
}: {
  tickMs?: number
  epochMs?: number
  host?: Partial<Round['host']>
  slow?: Partial<Round['slow']>
  notices?: Round['notices']
  vms?: readonly VmSample[]
  silence?: string | null
  lagMs?: number
} = {}): Round {
  return {
    host: {
      atMs: epochMs,
      tickMs,
      processors: nothingSeen,
      load: nothingSeen,
      memory: nothingSeen,
      oomKills: nothingSeen,
      pressure: { cpu: nothingSeen, memory: nothingSeen, io: nothingSeen },
      drives: nothingSeen,
      nics: nothingSeen,
      links: nothingSeen,
      arrays: nothingSeen,
      taint: nothingSeen,
      ...host,
    },
    slow: { filesystems: null, failedUnits: null, clock: null, reboot: null, ...slow },
    notices,
    vms: { atMs: epochMs, listed: { atMs: epochMs, ageMs: 0, stale: false }, silence, vms },
    own: { tickMs, memoryBytes: 1, cpuMs: tickMs / 100, lagMs, files: 3 },
  }
}

const quietBeside: Beside = {
  values: [],
  root: { seen: null, problem: null },
  left: new Map(),
  arrayTitle: (name) => name,
  historyProblem: null,
  isSo: () => false,
}
const found = (judgement: { readonly conditions: readonly Condition[] }) =>
  judgement.conditions
    .filter(({ code }) => code !== 'host.unreadable')
    .map(({ code, severity, subject = '' }) => `${severity} ${code} ${subject}`.trim())

t.test('values: rates need two looks, and what was reset or is not known has none', async (t) => {
  const drive = { reads: 0, readBytes: 0, readMs: 0, writes: 0, writtenBytes: 0, writeMs: 0, busyMs: 0 }
  const look = (at: number, more: object): Round =>
    round({
      tickMs: at,
      host: {
        processors: {
          value: {
            ticks: { total: at, busy: at / 2, steal: 0, ioWait: 100 - at / 1000 },
            processors: 4,
            bootedMs: 5,
          },
        },
        load: { value: { one: 3, fifteen: 2 } },
        pressure: {
          cpu: { value: { someUs: at * 100, fullUs: null } },
          memory: nothingSeen,
          io: { value: null },
        },
        drives: { value: new Map([['disk', { ...drive, ...more }]]) },
      },
    })
  const values = (before: Round | null, now: Round) =>
    Object.fromEntries(
      datapointsOf(before, now).map(({ metric, value, dimensions: { drive: of } }) => [
        of === undefined ? metric : `${metric} ${of}`,
        value,
      ]),
    )
  const first = look(10_000, { reads: 100 })
  t.notMatch(Object.keys(values(null, first)), ['cpu.busy'])
  t.equal(values(null, first)['cpu.busy'], undefined)
  const second = look(20_000, { reads: 110, readMs: 50, readBytes: 40_960, busyMs: 2500 })
  const now = values(first, second)
  t.match(now, {
    'cpu.busy': 50,
    'cpu.steal': 0,
    'load.one': 3,
    'load.per-processor': 0.5,
    'pressure.cpu': 10,
    'drive.read disk': 4096,
    'drive.busy disk': 25,
    'drive.latency disk': 5,
    'agent.cpu': 1,
  })
  for (const unknown of ['cpu.io-wait', 'pressure.io', 'pressure.memory', 'memory.used'])
    t.notOk(unknown in now, `${unknown} is not known`)
  t.notOk('drive.read disk' in values(second, look(30_000, { reads: 5 })), 'the drive was replaced')
})

t.test('levels: they begin above one and end below another, and what cannot be seen stays', async (t) => {
  const judge = new Judge()
  const value = (metric: 'filesystem.used' | 'cpu.steal', number: number, atMs: number, dimensions = {}) =>
    ({ metric, unit: 'percent', value: number, dimensions, atMs }) as const
  const at = (mountpoint: string) => ({ filesystem: mountpoint })
  const seenFilesystems = { filesystems: { value: [], atMs: 0 } }
  const judged = (used: readonly number[], isSo: boolean, epochMs: number) =>
    judge.judge(round({ tickMs: epochMs - 1e12, epochMs, slow: seenFilesystems }), {
      ...quietBeside,
      values: used.map((one, index) => value('filesystem.used', one, epochMs, at(`/v${index}`))),
      isSo: () => isSo,
    })
  t.same(found(judged([84, 86, 96], false, 1e12)), [
    'warning filesystem.space /v1',
    'high filesystem.space /v2',
  ])
  t.same(found(judged([84, 84.9], true, 1e12 + 1)), [
    'warning filesystem.space /v0',
    'warning filesystem.space /v1',
    'high filesystem.space /v2',
  ])
  t.same(found(judged([82, 82, 82], true, 1e12 + 2)), [])
  judged([99], false, 1e12 + 3)
  t.same(found(judged([], false, 1e12 + 120_000)), ['high filesystem.space /v0'], 'a look was missed')
  t.same(found(judged([], false, 1e12 + 400_000)), [], 'it is gone')
  judged([99], false, 1e12 + 500_000)
  const blind = judge.judge(round({ tickMs: 900_000 }), quietBeside)
  t.same(found(blind), ['high filesystem.space /v0'], 'nobody can see')
  t.equal(blind.blind('filesystem.space', '/v0'), true)
  t.equal(blind.blind('filesystem.read-only', '/v0'), true)
  t.equal(blind.blind('libvirt.silent', undefined), false)
})

t.test('arrays as real machines had them', async (t) => {
  const folder = join(import.meta.dirname, '../../../shared/captures/mdstat')
  const judged = (name: string) =>
    found(
      new Judge().judge(
        round({ host: { arrays: { value: parseMdstat(readFileSync(join(folder, name), 'utf8')) } } }),
        quietBeside,
      ),
    )
  t.same(judged('checkraid-none.txt'), [])
  t.same(judged('ml-nvme-broken-raid5.txt').slice(0, 1), ['high array.degraded md127'])
  t.same(judged('ml-inactive-md480.txt'), ['high array.inactive md480'])
  t.same(judged('ml-nvme24-resync.txt'), ['warning array.resyncing md0'])
  t.same(judged('checkraid-raid0.txt'), [], 'raid0 has no slots')
  for (const name of readdirSync(folder)) t.doesNotThrow(() => judged(name), name)
})

const vm = (name: string, more: Partial<VmSample> = {}): VmSample => ({
  uuid: name,
  name,
  power: { value: { power: 'running', reason: 'booted' }, atMs: 0, ageMs: 0, stale: false },
  process: null,
  nics: null,
  memory: null,
  disks: null,
  stuckSinceMs: null,
  problem: null,
  ...more,
})
const doing = (power: 'off' | 'paused' | 'crashed' | 'unknown', reason: string): Partial<VmSample> => ({
  power: { value: { power, reason }, atMs: 0, ageMs: 0, stale: false },
})

t.test('VMs: what went wrong is told, what somebody wanted is not', async (t) => {
  const judged = (vms: readonly VmSample[], silence: string | null = null) =>
    new Judge().judge(round({ vms, silence }), quietBeside)
  t.same(
    found(
      judged([
        vm('fine'),
        vm('stopped', doing('off', 'shutdown')),
        vm('suspended', doing('paused', 'user')),
        vm('panicked', doing('crashed', 'panicked')),
        vm('died', doing('off', 'crashed')),
        vm('full', doing('paused', 'I/O error')),
        vm('gone', doing('unknown', 'its process has ended')),
        vm('hangs', { stuckSinceMs: 5 }),
      ]),
    ),
    [
      'high vm.crashed panicked',
      'high vm.crashed died',
      'high vm.io-error full',
      'high vm.lost gone',
      'warning vm.stuck hangs',
    ],
  )
  const silent = judged([vm('hangs', { stuckSinceMs: 5 })], 'no answer within 3000 ms')
  t.equal(silent.blind('vm.crashed', 'x'), true)
  t.same(found(silent), ['high libvirt.silent', 'warning vm.stuck hangs'])
})

t.test('the clock, filesystems, units, reboots', async (t) => {
  const judge = new Judge()
  const filesystem = (readOnly: boolean, silentMs: number | null) => ({
    filesystems: {
      value: [
        {
          mountpoint: '/v',
          source: 's',
          on: null,
          readOnly,
          silentMs,
          capacity: { sizeBytes: 1000, freeBytes: 100, inodes: 100, freeInodes: 30 },
        },
      ],
      atMs: 0,
    },
  })
  const judged = (given: Parameters<typeof round>[0], beside: Partial<Beside> = {}) =>
    found(judge.judge(round(given), { ...quietBeside, ...beside }))
  t.same(judged({ slow: filesystem(true, null) }), [], 'it may have been meant so')
  t.same(judged({ tickMs: 10, slow: filesystem(false, 40_000) }), ['high filesystem.silent /v'])
  t.same(judged({ tickMs: 20, slow: filesystem(true, null) }), ['high filesystem.read-only /v'])
  t.same(
    judged(
      { tickMs: 30, slow: filesystem(false, null) },
      { left: new Map([['/v', { spaceMs: 20 * 3_600_000, inodesMs: null }]]) },
    ),
    ['high filesystem.fills /v'],
  )
  const left = new Map([['/v', { spaceMs: null, inodesMs: 50 * 3_600_000 }]])
  t.same(judged({ tickMs: 35, slow: filesystem(false, null) }, { left }), [
    'warning filesystem.inodes-run-out /v',
  ])
  t.same(judged({ tickMs: 40, epochMs: 1e12 + 40 + 3_600_000 }), ['notice clock.stepped'])
  t.same(judged({ tickMs: 50, epochMs: 1e12 + 50 + 3_600_000 }), [])
  t.same(
    judged({
      tickMs: 60,
      epochMs: 1e12 + 60 + 3_600_000,
      slow: {
        clock: { value: { synchronised: false, offsetMs: null }, atMs: 0 },
        failedUnits: { value: [{ unit: 'a.service', description: '' }], atMs: 0 },
        reboot: { value: ['glibc'], atMs: 0 },
      },
      host: { taint: { value: [{ severity: 'high', text: 'oops' }] } },
    }),
    [
      'high kernel.tainted',
      'notice kernel.reboot-needed',
      'warning clock.unsynchronised',
      'warning units.failed a.service',
    ],
  )
})

t.test('what the root side found is handed on, and kept while it does not answer', async (t) => {
  const seen = {
    atMs: 1,
    standing: 'drifted' as const,
    applying: null,
    document: null,
    resources: [
      {
        resource: 'volumes',
        declared: true,
        standing: 'settled' as const,
        summary: '',
        steps: [],
        findings: [
          { code: 'volumes.space', severity: 'high' as const, subject: 'images', text: '', remedy: '' },
          { code: 'volumes.lost', severity: 'high' as const, subject: 'images', text: '', remedy: 'go' },
        ],
      },
      {
        resource: 'array',
        declared: true,
        standing: 'unknown' as const,
        summary: '',
        steps: [],
        findings: [],
        problem: new HostError('host.denied', 'no').report(),
      },
    ],
  }
  const judge = new Judge()
  const first = judge.judge(round(), { ...quietBeside, root: { seen, problem: null } })
  t.same(found(first), ['high volumes.lost images', 'warning root.unknown array'], 'space is judged here')
  t.equal(first.blind('volumes.lost', 'images'), false)
  t.equal(first.blind('array.member-failed', 'md/x'), true, 'that could not be read')
  t.equal(first.blind('drive.wear', 'x'), true)
  const problem = new HostError('door.closed', 'closed').report()
  const second = judge.judge(round(), { ...quietBeside, root: { seen, problem } })
  t.same(found(second)[0], 'warning root.silent')
  t.equal(second.blind('volumes.lost', 'images'), true)
})

t.test('a cable is one finding, whoever sees that it is out', async (t) => {
  const uplink = { code: 'nic.no-carrier', severity: 'high', text: 'lan (ens6)', remedy: 'look' } as const
  const seen = {
    ...{ atMs: 1, standing: 'settled' as const, applying: null, document: null },
    resources: [
      {
        ...{ resource: 'uplinks', declared: true, standing: 'settled' as const, summary: '', steps: [] },
        findings: [
          { ...uplink, subject: 'ens6' },
          { ...uplink, subject: 'lan.20' },
        ],
      },
    ],
  } as const
  const root: Beside['root'] = { seen, problem: null }
  const judged = (carriers: Readonly<Record<string, boolean>>, view: Beside['root'] = root) => {
    const links = { value: Object.entries(carriers).map(([name, carrier]) => ({ name, carrier })) }
    return new Judge().judge(round({ host: { nics: { value: new Map() }, links } }), {
      ...quietBeside,
      root: view,
    })
  }
  const quick = judged({ ens5: true, ens6: false }, quietBeside.root)
  t.same(found(quick), ['warning nic.no-carrier ens6'])
  const both = judged({ ens5: false, ens6: false })
  t.same(found(both), [
    'warning nic.no-carrier ens5',
    'high nic.no-carrier ens6',
    'high nic.no-carrier lan.20',
  ])
  t.match(
    both.conditions.find(({ subject }) => subject === 'ens6'),
    { text: 'lan (ens6)', remedy: 'look' },
  )
  t.same(found(judged({ ens6: true })), ['high nic.no-carrier lan.20'], 'that it is in again is seen here')
  t.equal(both.blind('nic.no-carrier', 'ens6'), false)
  t.equal(quick.blind('nic.no-carrier', 'ens6'), false)
  t.equal(quick.blind('nic.no-carrier', 'lan.20'), true, 'which only the root side can see')
  const standing = new StandingFindings([], { epochMs: 0, tickMs: 0 })
  for (const [at, judgement] of [quick, quick, both, both].entries())
    standing.take(judgement, { epochMs: 1000 * at, tickMs: 20_000 * at })
  t.match(
    standing.said().findings.filter(({ subject }) => subject === 'ens6'),
    [{ severity: 'high', sinceMs: 0 }],
    'as old as it is',
  )
})

t.test('what is left at the rate of the last day', async (t) => {
  const quarters = (count: number, value: (at: number) => number) =>
    Array.from({ length: count }, (_, at) => ({ atMs: at * 15 * minute, value: value(at) }))
  const hour = 60 * minute
  t.equal(timeLeft(quarters(96, (at) => 1000 - at * 10)), 5 * 15 * minute, 'a straight line')
  t.equal(timeLeft(quarters(96, () => 1000)), null, 'nothing goes')
  t.equal(timeLeft(quarters(96, (at) => at)), null, 'it grows')
  t.equal(timeLeft(quarters(20, (at) => 1000 - at)), null, 'too short')
  t.equal(timeLeft([]), null)
  t.equal(timeLeft(quarters(96, (at) => 1000 - (at % 8) * 100)), null, 'up and down is no trend')
  const noisy = timeLeft(quarters(96, (at) => 2000 - at * 10 + (at % 2) * 20)) ?? 0
  t.ok(noisy > 20 * hour && noisy < 30 * hour, `${noisy / hour}`)
})
