// Which VMs are meant, how many are worked on at once, and what a list shows of them.

import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { visible } from '../../agent/api/terminal.ts'
import { vmColumns } from '../../agent/api/vm-verbs.ts'
import { type BatchEvent, inParallel } from '../../agent/vms/batch.ts'
import { cellText, columns, csvOf, sorted } from '../../agent/vms/columns.ts'
import { vmCommand } from '../../agent/vms/command.ts'
import type { Vm } from '../../agent/vms/facts.ts'
import { isPattern, matcherOf } from '../../agent/vms/pattern.ts'
import { chooseVms, durationMs, hasTag } from '../../agent/vms/select.ts'
import { bootSeconds, startedMs, startTicks } from '../../agent/vms/uptime.ts'
import { HostError } from '../../provisioning/problem.ts'
import { powerOf, powers } from '../../provisioning/vms/power.ts'

const vm = (name: string, more: Partial<Vm> = {}): Vm => ({
  name,
  uuid: `00000000-0000-4000-8000-${Buffer.from(name).toString('hex').slice(0, 12).padStart(12, '0')}`,
  id: null,
  power: 'off',
  reason: 'shutdown',
  persistent: true,
  autostart: false,
  saved: false,
  cpus: 1,
  memoryBytes: 2 ** 30,
  networks: [],
  tags: {},
  template: null,
  runningSinceMs: null,
  problem: null,
  ...more,
})

t.test('patterns are those of a shell', async (t) => {
  const names = [
    'web',
    'web-1',
    'web-10',
    'WEB-1',
    'a]b',
    'a-b',
    'a\\b',
    '*',
    '[x',
    '日本',
    '',
    'a.b',
    'a\nb',
  ]
  const patterns = [
    '*',
    'web*',
    'web-?',
    '*-1*',
    '[w]eb',
    '[!w]*',
    '[^w]*',
    '[a-v]*',
    'a[]]b',
    'a[-]b',
    'a\\\\b',
    '\\*',
    '[x',
    '??',
    'a?b',
    '**b',
    'a*b*',
    '',
  ]
  for (const pattern of patterns) {
    const matches = matcherOf(pattern)
    for (const name of names) {
      // The shell itself says what it takes for a match.
      const script = 'case "$1" in $2) exit 0;; *) exit 1;; esac'
      const { status } = spawnSync('/bin/bash', ['--norc', '-c', script, 'bash', name, pattern], {
        env: { LC_ALL: 'C.UTF-8' },
      })
      t.equal(matches(name), status === 0, `${JSON.stringify(name)} in ${pattern}`)
    }
  }
  t.ok(isPattern('a*') && isPattern('a?') && isPattern('[a'))
  t.notOk(isPattern('a]b'))
})

t.test('a pattern made to take for ever takes no time', async (t) => {
  const beganMs = performance.now()
  t.notOk(matcherOf('*a'.repeat(120))(`${'a'.repeat(119)}${'b'.repeat(136)}`))
  t.notOk(matcherOf(`${'*a'.repeat(2000)}`)('a'.repeat(255)))
  t.ok(performance.now() - beganMs < 1000)
})

t.test('VMs are chosen', async (t) => {
  const all = [
    vm('web-1', { tags: { env: 'prod' } }),
    vm('web-2', { tags: { env: 'test', tier: '' } }),
    vm('db', { tags: { env: 'prod' } }),
    vm('web-*'),
  ]
  const names = (choice: Partial<Parameters<typeof chooseVms>[1]>) =>
    chooseVms(all, { names: [], all: false, tag: [], ...choice }, 'vm start').map(({ name }) => name)
  t.same(names({ names: ['db', 'web-1'] }), ['web-1', 'db'], 'in the order of the list')
  t.same(names({ names: ['db', 'db', 'd*'] }), ['db'], 'each once')
  t.same(names({ names: ['web-*'] }), ['web-*'], 'what is a name is that name')
  t.same(names({ names: ['web-?'] }), ['web-1', 'web-2', 'web-*'])
  t.same(names({ names: [all[2]?.uuid ?? ''] }), ['db'])
  t.same(names({ all: true }).length, 4)
  t.same(names({ all: true, tag: ['env=prod'] }), ['web-1', 'db'])
  t.same(names({ names: ['web-?'], tag: ['env'] }), ['web-1', 'web-2'])
  t.same(names({ tag: ['tier='] }), ['web-2'])
  t.same(chooseVms([], { names: [], all: true, tag: [] }, 'vm start'), [])
  for (const choice of [
    { names: ['nothing'] },
    { names: ['z*'] },
    { tag: ['env=x'] },
    { names: ['db'], tag: ['tier'] },
  ])
    t.throws(() => names(choice), { code: 'request.no-such-vm' })
  for (const choice of [{}, { names: ['db'], all: true }])
    t.throws(() => names(choice), { code: 'request.invalid' })
  t.ok(hasTag({ tags: { a: 'b=c' } }, 'a=b=c'))
  t.notOk(hasTag({ tags: {} }, 'constructor'), 'what every object has is no tag')
  t.equal(durationMs('2h', 'older', 'vm list'), 7_200_000)
  t.throws(() => durationMs('2 weeks', 'older', 'vm list'), {
    code: 'request.invalid',
    message: /--older takes/,
  })
})

t.test('a batch', async (t) => {
  const told = async (items: readonly number[], parallel: number, signal = new AbortController().signal) => {
    let [now, most] = [0, 0]
    const events: BatchEvent<number, number>[] = []
    const work = async (item: number) => {
      now += 1
      most = Math.max(most, now)
      await sleep(item)
      now -= 1
      if (item === 13) throw new HostError('vm.wrong-power', 'no luck')
      return item * 2
    }
    for await (const event of inParallel({ items, parallel, signal, clock: () => 0, work }))
      events.push(event)
    return { events, most }
  }
  const { events, most } = await told([400, 13, 5, 1], 2)
  t.equal(most, 2)
  t.same(
    events.map(({ kind, item }) => `${kind} ${item}`),
    ['begun 400', 'begun 13', 'failed 13', 'begun 5', 'done 5', 'begun 1', 'done 1', 'done 400'],
    'is told as it happens',
  )
  t.match(
    events.find(({ kind }) => kind === 'failed'),
    { problem: { code: 'vm.wrong-power' } },
  )
  t.same((await told([], 4)).events, [])
  const left = new AbortController()
  setTimeout(() => left.abort(), 10)
  const cut = await told([200, 200, 200, 200], 2, left.signal)
  t.same(
    cut.events.map(({ kind }) => kind),
    ['begun', 'begun', 'done', 'done'],
    'when the caller leaves, those in hand end and no further is begun',
  )
})

t.test('columns', async (t) => {
  t.same(Object.keys(columns), [...vmColumns], 'are those of the table of verbs')
  const words = { bytes: (size: number) => `${size} B`, duration: (ms: number) => `${ms} ms` }
  const young = vm('b', { runningSinceMs: 900, power: 'running', tags: { a: '1', b: '' } })
  const old = vm('a', { runningSinceMs: 100, power: 'running', cpus: 12 })
  const off = vm('c', { cpus: 2 })
  t.equal(cellText('age', young, 1000, words), '100 ms')
  t.equal(cellText('age', off, 1000, words), '-')
  t.equal(cellText('autostart', off, 0, words), 'no')
  t.equal(cellText('tags', young, 0, words), 'a=1 b=')
  const namesBy = (by: keyof typeof columns) => sorted([off, young, old], by, 1000).map(({ name }) => name)
  t.same(namesBy('age'), ['b', 'a', 'c'], 'unknown last')
  t.same(namesBy('cpus'), ['b', 'c', 'a'], 'numbers as numbers')
  t.same(
    sorted(
      ['web-10', 'web-9'].map((name) => vm(name)),
      'name',
      0,
    ).map(({ name }) => name),
    ['web-9', 'web-10'],
  )
  t.equal(
    csvOf(
      [vm('a,b'), vm('say "x"'), vm('=1+1'), vm('-2'), vm('+3'), vm('@x'), vm(' y')],
      ['name', 'id', 'cpus'],
      0,
    ),
    'name,id,cpus\n"a,b",,1\n"say ""x""",,1\n\'=1+1,,1\n\'-2,,1\n\'+3,,1\n\'@x,,1\n" y",,1',
  )
})

t.test('commands survive being shown and pasted', async (t) => {
  for (const name of [
    'web-1',
    "it's",
    '$(id)',
    '`id`',
    'a\u001b[2Jb',
    '\u202egnp',
    'x\ty',
    '--all',
    '🐚 ö',
    '\\',
    "\u0007'\\",
  ]) {
    const text = visible(vmCommand('stop', name))
    t.equal(text, vmCommand('stop', name), 'nothing in it needs to be made visible')
    const script = `garrison() { printf '%s\\n' "$@"; }; ${text}`
    const { stdout } = spawnSync('/bin/bash', ['--norc', '-c', script], {
      encoding: 'utf8',
      env: { LC_ALL: 'C.UTF-8' },
    })
    t.equal(stdout.split('\n').at(-2), name.split('\n').at(-1), text)
  }
})

t.test('power', async (t) => {
  t.same(powerOf({ state: 1, reason: 1 }), { power: 'running', reason: 'booted' })
  t.same(powerOf({ state: 5, reason: 2 }), { power: 'off', reason: 'destroyed' })
  t.same(powerOf({ state: 0, reason: 0 }).power, 'unknown', 'no state is not off')
  t.same(powerOf({ state: 99, reason: 0 }).power, 'unknown')
  t.same(powerOf({ state: 3, reason: 99 }), { power: 'paused', reason: 'reason 99' })
  t.equal(powers.length, 8)
})

t.test('since when a VM runs', async (t) => {
  const stat = '4711 (qemu) S) R 1 4711 4711 0 -1 138412416 1 0 0 0 12 7 0 0 20 0 4 0 360000 1 1 1'
  t.equal(startTicks(stat), 360_000, 'a name may hold anything')
  t.equal(startTicks(''), null)
  t.equal(bootSeconds('cpu 1\nbtime 1700000000\nprocesses 2\n'), 1_700_000_000)
  const files: Readonly<Record<string, string>> = {
    '/run/qemu/web.pid': '4711\n',
    '/proc/4711/stat': stat,
    '/proc/stat': 'btime 1700000000\n',
    '/run/qemu/odd.pid': '../1',
  }
  const reader = { readText: async (path: string) => files[path] ?? null }
  t.equal(await startedMs(reader, '/run', 'web'), 1_700_003_600_000)
  t.equal(await startedMs(reader, '/run', 'none'), null)
  t.equal(await startedMs(reader, '/run', 'odd'), null)
  t.equal(await startedMs(reader, '/run', '../qemu/web'), null)
  const denied = { readText: () => Promise.reject(new HostError('host.denied', 'no')) }
  t.equal(await startedMs(denied, '/run', 'web'), null)
})
