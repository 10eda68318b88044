// What people read: exact texts of every verb's shapes, and that no text of a host makes a line wider than 80 columns.

import t from 'tap'
import {
  ago,
  bytes,
  duration,
  paragraph,
  problemText,
  safeJson,
  shorten,
  type Terminal,
  visible,
  visibleIn,
  widthOf,
  withTail,
  wrap,
} from '../../agent/api/terminal.ts'
import * as apply from '../../agent/verbs/apply.ts'
import * as check from '../../agent/verbs/check.ts'
import * as drives from '../../agent/verbs/drives.ts'
import * as drivesShow from '../../agent/verbs/drives-show.ts'
import * as journal from '../../agent/verbs/journal.ts'
import * as plan from '../../agent/verbs/plan.ts'
import * as status from '../../agent/verbs/status.ts'
import * as why from '../../agent/verbs/why.ts'
import type { JournalEntry } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Finding, Step } from '../../provisioning/resource.ts'

process.env.TZ = 'UTC'
const nowMs = Date.UTC(2026, 10, 20, 21, 47, 17)
const piped: Terminal = { colour: false, live: false, nowMs }
const coloured: Terminal = { colour: true, live: true, nowMs }

const text = (...lines: readonly string[]): string => lines.join('\n')

t.test('units', async (t) => {
  t.same([0, 340, 9_940, 9_960, 99_000, 100_000, 5_900_000, 6_000_000, 4 * 86_400_000].map(duration), [
    '0.0 s',
    '0.3 s',
    '9.9 s',
    '10 s',
    '99 s',
    '2 min',
    '98 min',
    '2 h',
    '4 days',
  ])
  t.same([0, 999, 4000, 61_000].map(ago), ['just now', 'just now', '4 s ago', '61 s ago'])
  t.same([512, 40_802_189_312, 1_900_000_000_000, 999 * 2 ** 30, 1000 * 2 ** 30].map(bytes), [
    '512 B',
    '38.0 GiB',
    '1.7 TiB',
    '999 GiB',
    '1.0 TiB',
  ])
  t.equal(shorten('AWS1A0123456789BCDEF', 12), 'AWS1A0…9BCDEF'.slice(0, 6).concat('…BCDEF'))
  t.equal(shorten('short', 12), 'short')
})

t.test('text of the host cannot drive a terminal', async (t) => {
  t.equal(
    visible('a\u001b[2Jb\u009bc\u202ed\u2066\r\u0000\u007f\ud800é…𝄞\n'),
    'a\\x1b[2Jb\\x9bc\\u202ed\\u2066\\x0d\\x00\\x7f\\ud800é…𝄞\n',
  )
  t.same(visibleIn({ 'k\u0007': ['\u001b', 1, null, { deep: '\u200f' }] }), {
    'k\\x07': ['\\x1b', 1, null, { deep: '\\u200f' }],
  })
  const hostile = { a: '\u001b]0;x\u0007\u009b\u202e\ud800\n"\\' }
  t.notMatch(safeJson(hostile), /[\u0000-\u001f\u007f-\u009f\u202e\ud800]/)
  t.same(JSON.parse(safeJson(hostile)), hostile)
})

t.test('paragraphs', async (t) => {
  t.same(wrap('one two  three\nfour', 9), ['one two', 'three', 'four'])
  t.equal(paragraph('  key', 'a text', 8), '  key   a text')
  t.equal(paragraph('  a-long-key', 'a text', 8), '  a-long-key  a text')
  t.equal(paragraph('label', '', 8), 'label')
  t.equal(withTail('left', 'right'), `left${' '.repeat(71)}right`)
  t.equal(withTail('x'.repeat(75), 'right'), `${'x'.repeat(75)}\n${' '.repeat(75)}right`)
  t.equal(widthOf('\u001b[32mgood\u001b[0m'), 4)
})

t.test('an error is three parts', async (t) => {
  const problem = new HostError('apply.locked', 'an apply is running for root (pid 7) since 02:14').report()
  t.equal(
    problemText(piped, problem, 'Nothing was changed.'),
    text(
      'garrison: apply.locked: an apply is running for root (pid 7) since 02:14',
      '  Nothing was changed.',
      '  Follow it with garrison journal --follow; when it has ended, run yours again.',
    ),
  )
})

const finding: Finding = {
  code: 'array.resyncing',
  severity: 'warning',
  text: 'not redundant until 14:32',
  remedy: 'Rollouts and reboots wait for it. Nothing to do.',
}
const part = {
  resource: 'array',
  declared: true,
  standing: 'settled' as const,
  summary: 'md/garrison raid5 3 x 1.7 TiB, resync 62 %, 24 min left',
  steps: [],
  findings: [],
}
const denied = new HostError('host.denied', '/proc/1/ns/mnt could not be read (EACCES)').report()
const shown: status.Status = {
  host: 'op-rack2-h07',
  version: '0.1.0',
  atMs: nowMs - 4000,
  ageMs: 4000,
  standing: 'drifted',
  health: 'warning',
  applying: null,
  document: null,
  resources: [
    { ...part, findings: [finding] },
    {
      ...part,
      resource: 'root',
      standing: 'drifted',
      summary: '38.0 GiB xfs on rl/root',
      steps: [{ key: 'root.grow', summary: 'grow', risk: 'safe' }],
    },
  ],
}

t.test('status', async (t) => {
  t.equal(
    status.render(shown, piped),
    text(
      'op-rack2-h07    drifted    health: 1 warning                        seen 4 s ago',
      '  array      settled    md/garrison raid5 3 x 1.7 TiB, resync 62 %, 24 min left',
      '  root       drifted    38.0 GiB xfs on rl/root                    garrison plan',
      '  WARNING  array.resyncing: not redundant until 14:32',
      '           Rollouts and reboots wait for it. Nothing to do.',
    ),
  )
  const partly: status.Status = {
    ...shown,
    standing: 'unknown',
    health: 'unknown',
    applying: { who: 'operate.sock, says alice', sinceMs: nowMs - 65_000 },
    resources: ['array', 'volumes'].map((resource) => ({
      ...part,
      resource,
      standing: 'unknown' as const,
      summary: denied.message,
      problem: denied,
    })),
  }
  t.equal(
    status.render(partly, piped),
    text(
      'op-rack2-h07    unknown    health: unknown                          seen 4 s ago',
      '  applying   for operate.sock, says alice, begun 65 s ago',
      '  array      unknown    /proc/1/ns/mnt could not be read (EACCES)',
      '                                                              garrison why array',
      '  volumes    unknown    /proc/1/ns/mnt could not be read (EACCES)',
      '                                                            garrison why volumes',
      '  UNKNOWN  host.denied: array, volumes could not be read',
      '           Run it as root, or through garrison-operate.socket as a member of',
      '           group garrison.',
    ),
  )
  t.equal(status.exitOf(shown), 2)
  t.equal(status.exitOf(partly), 4)
  t.equal(status.exitOf({ ...shown, standing: 'settled' }), 0)
  t.equal(status.exitOf({ ...shown, standing: 'settled', document: denied }), 1)
})

const step: Step = {
  id: 'uplinks.mtu',
  summary: 'set MTU of lni to 1500',
  risk: 'disruptive',
  because: [{ path: 'uplinks.mtu', desired: 1500, observed: 9001, why: 'host.yaml:31' }],
  actions: [
    { kind: 'write', path: '/etc/x.conf', content: 'a\nb\n', mode: 0o644 },
    { kind: 'run', argv: ['/usr/bin/tool', '--set', "it's"], deadlineMs: 1000 },
    { kind: 'folder', path: '/srv', mode: 0o750, owner: 'root', group: 'kvm' },
    { kind: 'wait', until: { kind: 'exists', path: '/dev/md/x' }, summary: 'it', deadlineMs: 30_000 },
  ],
}

t.test('plan', async (t) => {
  const blocked = { code: 'drive.busy' as const, message: 'nvme1n1 is held', remedy: 'See who holds it.' }
  const planned: plan.Plan = {
    host: 'h',
    atMs: nowMs,
    steps: [
      { ...step, resource: 'uplinks', key: 'uplinks.mtu', waits: [] },
      {
        ...step,
        resource: 'array',
        key: 'array.create',
        waits: ['software'],
        risk: 'safe',
        actions: [],
        blocked,
      },
    ],
    unknown: [{ resource: 'volumes', problem: denied }],
  }
  t.equal(
    plan.render(planned, piped),
    text(
      '2 steps, 1 disruptive, 1 blocked',
      '  uplinks.mtu   set MTU of lni to 1500',
      '    because     uplinks.mtu: desired 1500 (host.yaml:31), observed 9001',
      '    runs        write /etc/x.conf (0644, 2 lines)',
      "                /usr/bin/tool --set 'it'\\''s'",
      '                make folder /srv (0750, root:kvm)',
      '                wait at most 30 s until /dev/md/x exists',
      '    risk        disruptive: garrison apply --allow disruptive',
      '  array.create  set MTU of lni to 1500',
      '    because     uplinks.mtu: desired 1500 (host.yaml:31), observed 9001',
      '    waits       until software is settled',
      '    blocked     drive.busy: nvme1n1 is held',
      '                See who holds it.',
      '  volumes       unknown: host.denied: /proc/1/ns/mnt could not be read (EACCES)',
      '                Run it as root, or through garrison-operate.socket as a member',
      '                of group garrison.',
    ),
  )
  t.equal(plan.exitOf(planned), 3)
  t.equal(plan.exitOf({ ...planned, steps: [] }), 4)
  t.equal(plan.exitOf({ ...planned, steps: planned.steps.slice(0, 1), unknown: [] }), 2)
  const table = { sizeBytes: 4096, table: { label: 'gpt', partitions: [{ node: '/dev/vda1' }] }, flags: [] }
  const deep = {
    ...planned.steps[0],
    because: [{ path: 'root', desired: 'all', observed: table }],
  } as (typeof planned.steps)[number]
  t.match(
    plan.render({ ...planned, steps: [deep] }, piped),
    /because {5}root: desired all, observed sizeBytes 4096, table \{…\}, flags\n +none\n/,
    'what is deep is left to --json',
  )
  const nothing = { ...planned, steps: [], unknown: [] }
  t.equal(plan.render(nothing, piped), 'Nothing to do: settled.')
  t.equal(plan.exitOf(nothing), 0)
})

t.test('apply', async (t) => {
  const failed: apply.ApplyLine = {
    event: 'step-failed',
    resource: 'array',
    key: 'array.create',
    durationMs: 2100,
    problem: new HostError('action.failed', 'mdadm ended with 1', {
      details: { outcome: { stderrTail: 'mdadm: cannot open\nmdadm: giving up' } },
    }).report(),
  }
  t.equal(
    apply.render(failed, piped),
    text(
      'array.create    action.failed: mdadm ended with 1                  2.1 s  failed',
      '  | mdadm: cannot open',
      '  | mdadm: giving up',
      '  Read its last lines above (also in garrison journal), mend the cause, then run',
      '  garrison apply again.',
    ),
  )
  const finished: apply.ApplyLine = {
    event: 'finished',
    outcome: 'blocked',
    performed: 2,
    durationMs: 3400,
    left: [
      {
        resource: 'array',
        key: 'array.level',
        reason: 'risk',
        text: 'is disruptive',
        command: 'garrison apply --allow disruptive --only array',
      },
      { resource: 'root', key: 'root.grow', reason: 'not-asked', text: 'only array was asked for' },
    ],
    problems: [],
    findings: [finding],
  }
  t.equal(
    apply.render(finished, piped),
    text(
      '2 steps performed in 3.4 s. Not settled: what is left may not be performed.',
      '  array.level   not allowed yet; to perform it:',
      '                garrison apply --allow disruptive --only array',
      '  WARNING  array.resyncing: not redundant until 14:32',
      '           Rollouts and reboots wait for it. Nothing to do.',
    ),
  )
  t.equal(apply.exitOf(finished), 3)
  t.same(
    (['settled', 'failed', 'stopped', 'drifted', 'unknown'] as const).map((outcome) =>
      apply.exitOf({ ...finished, outcome }),
    ),
    [0, 1, 2, 2, 4],
  )
  t.equal(apply.exitOf(failed), null)
  const begun: apply.ApplyLine = {
    event: 'step-started',
    resource: 'array',
    key: 'array.create',
    summary: 'raid5 from 3 drives',
    risk: 'safe',
    because: [],
  }
  t.equal(apply.render(begun, coloured), null, 'a terminal shows it with the time it takes')
  t.equal(apply.live(begun), 'array.create  raid5 from 3 drives')
  t.equal(apply.render(begun, piped), 'array.create    raid5 from 3 drives')
})

const drive: drives.JudgedDrive = {
  name: 'nvme3n1',
  path: '/dev/nvme3n1',
  model: 'Amazon EC2 NVMe Instance Storage',
  serial: 'AWS1A0123456789BCD04',
  sizeBytes: 1_900_000_000_000,
  verdict: 'refused',
  text: 'has a LVM signature at byte 512',
  reasons: [
    {
      code: 'drive.busy',
      text: 'has a LVM signature at byte 512',
      remedy: 'Look what is on it, then clear it yourself.',
    },
  ],
}
const blank: drives.JudgedDrive = {
  ...drive,
  name: 'nvme1n1',
  path: '/dev/nvme1n1',
  serial: 'AWS1A0123456789BCD02',
  verdict: 'chosen',
  text: 'blank, unused, same size',
  reasons: [],
}

t.test('drives', async (t) => {
  t.equal(
    drives.render(
      { host: 'h', atMs: nowMs, ageMs: 0, drives: [blank, drive, { ...drive, name: 'nvme4n1' }] },
      piped,
    ),
    text(
      'drive    model          serial       size     verdict',
      'nvme1n1  Amazon…torage  AWS1A…BCD02  1.7 TiB  chosen: blank, unused, same size',
      'nvme3n1  Amazon…torage  AWS1A…BCD04  1.7 TiB  refused: has a LVM signature at',
      '                                              byte 512',
      'nvme4n1  Amazon…torage  AWS1A…BCD04  1.7 TiB  refused: has a LVM signature at',
      '                                              byte 512',
      '         Look what is on it, then clear it yourself.',
    ),
  )
  const all = [blank, drive]
  for (const called of [
    'nvme3n1',
    '/dev/nvme3n1',
    'AWS1A0123456789BCD04',
    'AWS1A0…BCD04',
    'AWS…04',
    'AWS...04',
  ])
    t.equal(drives.findDrive(all, called), drive, called)
  t.throws(() => drives.findDrive(all, 'nvme9n1'), { code: 'request.no-such-drive' })
  t.throws(() => drives.findDrive(all, 'AWS…'), {
    message: 'several drives are called AWS…: nvme1n1, nvme3n1',
  })
})

t.test('journal', async (t) => {
  const at = { apply: 'a', atMs: nowMs }
  const entries: readonly JournalEntry[] = [
    {
      ...at,
      kind: 'apply-started',
      request: { who: 'admin.sock (root)', allow: 'safe' },
      desired: 'd',
      instance: 'i',
    },
    { ...at, kind: 'step-started', key: 'uplinks.mtu', resource: 'uplinks', step },
    { ...at, kind: 'step-done', key: 'uplinks.mtu', outcomes: [], durationMs: 340 },
    {
      ...at,
      kind: 'step-failed',
      key: 'uplinks.mtu',
      outcomes: [{ kind: 'run', summary: 'x', durationMs: 1, exit: 1, stderrTail: 'first\nlast' }],
      durationMs: 340,
      code: 'action.failed',
      message: 'tool ended with 1',
    },
    { ...at, kind: 'apply-ended', outcome: 'failed', steps: 1, durationMs: 900 },
  ]
  t.equal(
    text(...entries.map((entry) => journal.render({ entry }, piped))),
    text(
      '2026-11-20 21:47:17  apply     for admin.sock (root), up to safe',
      '2026-11-20 21:47:17  begin     uplinks.mtu: set MTU of lni to 1500',
      '2026-11-20 21:47:17  done      uplinks.mtu in 0.3 s',
      '2026-11-20 21:47:17  failed    uplinks.mtu after 0.3 s: action.failed: tool',
      '                               ended with 1',
      '                               | first',
      '                               | last',
      '2026-11-20 21:47:17  ended     failed, 1 performed in 0.9 s',
    ),
  )
  t.equal(
    journal.render({ damaged: { file: '00000001.jsonl', line: 14, bytes: 212 } }, piped),
    'damaged   00000001.jsonl:14: 212 bytes cannot be read; nothing else is lost',
  )
  t.same(
    ['90s', '30m', '2h', '7d'].map((since) => nowMs - journal.sinceMs(since, nowMs)),
    [90_000, 1_800_000, 7_200_000, 604_800_000],
  )
  t.equal(journal.sinceMs('2026-11-20T21:00:00Z', nowMs), Date.UTC(2026, 10, 20, 21))
  for (const wrong of ['yesterday', '7', '-2h', '2026-13-01', ''])
    t.throws(() => journal.sinceMs(wrong, nowMs), { code: 'request.invalid' }, wrong)
})

t.test('why', async (t) => {
  t.equal(
    why.render(
      {
        subject: 'array',
        atMs: nowMs,
        reasons: [
          { text: 'array is drifted.' },
          { text: 'It is blocked: one.', remedy: 'Do this.' },
          { text: 'It is blocked: two.', remedy: 'Do this.' },
          { text: 'array.create was performed for root.', atMs: nowMs - 3 * 86_400_000 },
        ],
        next: [
          { command: 'garrison plan', does: 'every step' },
          { command: 'garrison apply', does: 'perform it' },
        ],
      },
      piped,
    ),
    text(
      'array is drifted.',
      'It is blocked: one.',
      'It is blocked: two.',
      '  Do this.',
      '3 days ago: array.create was performed for root.',
      'Next  garrison plan                   every step',
      '      garrison apply                  perform it',
    ),
  )
})

t.test('check', async (t) => {
  t.equal(
    check.render({ file: 'host.yaml', valid: true, mistakes: [], declared: ['array'] }, piped),
    'host.yaml: valid, asks for array',
  )
  const wrong = {
    file: 'host.yaml',
    valid: false,
    mistakes: [{ file: 'host.yaml', line: 3, column: 5, text: 'unknown key' }],
    declared: [],
  }
  t.equal(check.render(wrong, piped), text('1 mistake in host.yaml', '  host.yaml:3:5: unknown key'))
  t.equal(check.exitOf(wrong), 1)
})

t.test('nothing is wider than 80 columns, whatever the host is called', async (t) => {
  // Words of up to 30 columns, as serials and paths are; a longer single word may stand out.
  const random = (seed: number) => {
    let at = seed
    return (below: number) => {
      at = (at * 1_103_515_245 + 12_345) % 2_147_483_648
      return Math.floor((at / 2_147_483_648) * below)
    }
  }
  for (let seed = 1; seed <= 300; seed++) {
    const next = random(seed)
    const word = () => 'abcdefghijklmnopqrstuvwxyz0123'.slice(0, 1 + next(30))
    const words = (most: number) => Array.from({ length: 1 + next(most) }, word).join(' ')
    const key = `${word()}.${word()}`
    const problem = { ...denied, message: words(20), remedy: words(20) }
    const blocked = { code: 'drive.busy' as const, message: words(20), remedy: words(20) }
    const found = { ...finding, subject: word(), text: words(20), remedy: words(20) }
    const one: drives.JudgedDrive = {
      ...drive,
      name: word(),
      model: words(4),
      serial: word(),
      text: words(10),
      reasons: [{ code: 'drive.busy', text: words(9), remedy: words(9) }],
    }
    const planned = {
      ...step,
      key,
      resource: word(),
      waits: [word(), word()],
      summary: words(12),
      because: [{ path: word(), desired: [word(), word()], observed: null }],
      blocked,
    }
    const terminal = next(2) === 0 ? piped : coloured
    const done = { resource: word(), key, durationMs: next(1e7) }
    const pages = [
      status.render(
        {
          ...shown,
          host: word(),
          applying: { who: words(9), sinceMs: 0 },
          document: problem,
          resources: [
            { ...part, resource: word(), summary: words(12), findings: [found], problem },
            {
              ...part,
              standing: 'drifted',
              summary: words(12),
              steps: [{ key, summary: words(3), risk: 'safe', blocked }],
            },
          ],
        },
        terminal,
      ),
      plan.render(
        { host: '', atMs: 0, steps: [planned], unknown: [{ resource: word(), problem }] },
        terminal,
      ),
      drives.render({ host: '', atMs: 0, ageMs: 0, drives: [one, blank] }, terminal),
      why.render(
        {
          subject: '',
          atMs: 0,
          reasons: [{ text: words(30), remedy: words(30), atMs: 0 }],
          next: [{ command: words(2), does: words(9) }],
        },
        terminal,
      ),
      problemText(terminal, problem, words(9)),
      apply.render({ ...done, event: 'step-done', summary: words(12), actionsMs: 1 }, terminal) ?? '',
      apply.render({ ...done, event: 'step-failed', problem }, terminal) ?? '',
      apply.render(
        {
          event: 'finished',
          outcome: 'unknown',
          performed: 3,
          durationMs: 1e6,
          left: [{ resource: word(), key, reason: 'blocked', text: words(9), blocked }],
          problems: [problem],
          findings: [found],
        },
        terminal,
      ) ?? '',
      journal.render(
        { entry: { apply: '', atMs: 0, kind: 'step-started', key, resource: '', step: planned } },
        terminal,
      ),
      drivesShow.render(
        {
          atMs: 0,
          drive: {
            ...one,
            observed: {
              ...one,
              kind: 'disk',
              wwn: word(),
              transport: word(),
              readOnly: false,
              removable: false,
              zoned: null,
              system: [word()],
              partitions: [word(), word()],
              holders: [word()],
              arrays: [],
              mounts: [{ path: word(), pid: null }],
              swaps: [],
              named: [],
              vms: [{ kind: 'domain', name: word(), as: word() }],
              superblock: null,
              probe: null,
              smart: null,
              unread: [{ fact: word(), code: 'host.denied', why: words(9) }],
            },
          },
        },
        terminal,
      ),
    ]
    const wide = pages
      .flatMap((page) => page.split('\n'))
      .filter((line) => widthOf(line) > 80 && line.trim().includes(' '))
    t.same(wide, [], `seed ${seed}`)
  }
})
