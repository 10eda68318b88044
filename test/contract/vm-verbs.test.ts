// The verbs about VMs against a real libvirtd with libvirt's test driver, through real doors and the real command line.

import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { StreamModule } from '../../agent/api/context.ts'
import { visibleIn } from '../../agent/api/terminal.ts'
import { type VerbName, verbNames, verbOf } from '../../agent/api/verbs.ts'
import { connectOpen, VIR } from '../../agent/node-libvirt/index.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { element, printXml } from '../../provisioning/libvirt/xml.ts'
import { ended, linesOf, openDoors, start } from './doors.ts'
import { startLibvirtd } from './libvirtd.ts'

t.setTimeout(300_000)
const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())
const uri = 'test:///default'
const connection = await connectOpen(uri, { socketPath: libvirtd.socketPath })
const doors = await openDoors(libvirtd, uri)
t.teardown(async () => {
  connection.close()
  await doors.close()
})
const { garrison, json } = doors

/** A definition of a VM for the test driver. */
const xmlOf = (name: string, tags: Readonly<Record<string, string>> = {}): string =>
  printXml(
    element('domain', { type: 'test' }, [
      element('name', {}, [name]),
      element('memory', { unit: 'MiB' }, ['256']),
      element('vcpu', {}, ['2']),
      element('os', {}, [element('type', {}, ['hvm'])]),
      element('metadata', {}, [
        element(
          'garrison:vm',
          { 'xmlns:garrison': 'https://garrison.invalid/vm/1', digest: '' },
          Object.entries(tags).map(([key, value]) => element('garrison:tag', { key, value })),
        ),
      ]),
      element('devices', {}, [
        element('interface', { type: 'network' }, [element('source', { network: 'default' })]),
      ]),
    ]),
  )

const define = async (name: string, tags?: Readonly<Record<string, string>>) =>
  connection.domainDefineXML({ xml: xmlOf(name, tags) })

const powerOf = async (name: string): Promise<string> => {
  const { lines } = await json('read', 'vm', 'list')
  return lines[0].vms.find((vm: { name: string }) => vm.name === name)?.power
}

t.test('list', async (t) => {
  await define('web-1', { env: 'prod', tier: 'web' })
  await define('web-2', { env: 'prod' })
  await define('web-10', { env: 'test' })
  const { exit, lines } = await json('read', 'vm', 'list')
  t.equal(exit, 0)
  t.same(
    lines[0].vms.map(({ name }: { name: string }) => name),
    ['test', 'web-1', 'web-2', 'web-10'],
  )
  t.match(lines[0].vms[1], {
    power: 'off',
    persistent: true,
    autostart: false,
    saved: false,
    cpus: 2,
    memoryBytes: 256 * 2 ** 20,
    networks: ['default'],
    tags: { env: 'prod', tier: 'web' },
    problem: null,
  })
  const table = await garrison('read', 'vm', 'list')
  t.equal(
    table.stdout,
    [
      'name    power    cpus  memory   age  networks  tags',
      'test    running  2     8.0 GiB  -    default   -',
      'web-1   off      2     256 MiB  -    default   env=prod tier=web',
      'web-2   off      2     256 MiB  -    default   env=prod',
      'web-10  off      2     256 MiB  -    default   env=test',
      '',
    ].join('\n'),
  )
  const namesOf = async (...args: readonly string[]) => {
    const { stdout, stderr } = await garrison('read', 'vm', 'list', '--csv', '--columns', 'name', ...args)
    t.equal(stderr, '')
    return stdout.trim().split('\n').slice(1)
  }
  t.same(await namesOf('--power', 'running'), ['test'])
  t.same(await namesOf('web-[12]'), ['web-1', 'web-2'])
  t.same(await namesOf('--tag', 'env=prod', '--tag', 'tier'), ['web-1'])
  t.same(await namesOf('--network', 'default', '--sort', 'uuid', 'web-*').then((all) => all.sort()), [
    'web-1',
    'web-10',
    'web-2',
  ])
  t.same(await namesOf('--older', '1s'), [])
  const csv = await garrison('read', 'vm', 'list', 'web-1', '--csv', '--columns', 'name,memory,tags,id')
  t.equal(csv.stdout, 'name,memory,tags,id\nweb-1,268435456,env=prod tier=web,\n')
  const wrong = await garrison('read', 'vm', 'list', '--columns', 'nam')
  t.equal(wrong.exit, 1)
  t.match(wrong.stderr, /request\.invalid: --columns takes names/)
})

t.test('show', async (t) => {
  const { exit, lines } = await json('read', 'vm', 'show', 'web-1')
  t.equal(exit, 0)
  t.same(Object.keys(lines[0]).sort(), Object.keys(verbOf('vm show').json).sort())
  t.equal(lines[0].vm.name, 'web-1')
  const byUuid = await garrison('read', 'vm', 'show', lines[0].vm.uuid)
  t.match(byUuid.stdout, /^web-1 {2}off/)
  t.match(byUuid.stdout, /^ {2}tags {8}env=prod, tier=web$/m)
  const none = await garrison('read', 'vm', 'show', 'web-11')
  t.equal(none.exit, 1)
  t.match(none.stderr.replace(/\s+/g, ' '), /request\.no-such-vm: unknown VM "web-11"; did you mean web-1/)
})

t.test('what changes a VM needs the operate door', async (t) => {
  for (const verb of ['start', 'stop', 'restart', 'kill', 'suspend', 'resume']) {
    const { exit, lines } = await json('read', 'vm', verb, 'web-1')
    t.equal(exit, null, verb)
    t.equal(lines[0].code, 'door.refused')
  }
  t.equal((await garrison('read', 'vm', 'kill', '--all')).exit, 3)
})

t.test('power', async (t) => {
  const started = await garrison('operate', 'vm', 'start', 'web-*')
  t.equal(started.exit, 0, started.stderr)
  t.match(
    started.stdout.replace(/\d+\.\d s/g, 'N s'),
    /^(web-\d+ +started +N s {2}done\n){3}3 done in N s\.\n$/,
  )
  t.equal(await powerOf('web-2'), 'running')
  const again = await json('operate', 'vm', 'start', '--tag', 'env=prod')
  t.equal(again.exit, 0)
  t.same(again.lines.flatMap(({ event, vm }) => (event === 'done' ? [vm] : [])).sort(), ['web-1', 'web-2'])
  t.match(again.lines.at(-1), { event: 'finished', done: 0, unchanged: 2, failed: 0 })
  for (const { event } of again.lines) t.ok(event in verbOf('vm start').json, event)

  t.equal((await json('operate', 'vm', 'suspend', 'web-1')).exit, 0)
  t.equal(await powerOf('web-1'), 'paused')
  const paused = await garrison('operate', 'vm', 'stop', 'web-1')
  t.equal(paused.exit, 1)
  t.match(paused.stdout, /vm\.wrong-power: web-1 is paused/)
  t.match(paused.stdout, /To go on: garrison vm resume web-1\./)
  t.equal((await json('operate', 'vm', 'resume', 'web-1')).exit, 0)
  t.equal((await json('operate', 'vm', 'restart', 'web-1')).exit, 0)
  t.equal(await powerOf('web-1'), 'running')
  t.equal((await json('operate', 'vm', 'suspend', 'web-1', '--to-disk')).exit, 0)
  t.equal(await powerOf('web-1'), 'off')
  t.match((await json('read', 'vm', 'list', 'web-1')).lines[0].vms[0], { saved: true })
  t.match((await garrison('operate', 'vm', 'resume', 'web-1')).stdout, /garrison vm start web-1/)
  t.equal((await json('operate', 'vm', 'start', 'web-1')).exit, 0)

  const stopped = await json('operate', 'vm', 'stop', 'web-1', 'web-2', 'web-10', 'test')
  t.equal(stopped.exit, 0)
  t.equal(stopped.lines.at(-1).done, 4)
  const all = await json('operate', 'vm', 'start', '--all')
  t.equal(all.exit, 1)
  t.match(
    all.lines.find(({ event }) => event === 'failed'),
    { vm: 'test', problem: { code: 'vm.disk-missing' } },
  )
  t.match(all.lines.at(-1), { done: 3, failed: 1 })
  t.equal((await json('operate', 'vm', 'kill', '--all', '--parallel', '1')).exit, 0)
  t.equal(await powerOf('test'), 'off')
})

t.test('a slip of the pen does nothing to any', async (t) => {
  for (const [args, message] of [
    [['web-1', 'wbe-2'], /unknown VM "wbe-2"; did you mean web-2/],
    [['web-1', 'x*'], /no VM has a name like "x\*"/],
    [['--tag', 'env=prd'], /no VM has the tag "env=prd"/],
    [[], /needs VMs: names/],
    [['web-1', '--all'], /takes names or --all, not both/],
    [['web-1', '--parallel', '0'], /--parallel takes a number/],
  ] as const) {
    const { exit, stderr } = await garrison('operate', 'vm', 'start', ...args)
    t.equal(exit, 1, args.join(' '))
    t.match(stderr.replace(/\s+/g, ' '), message)
  }
  t.equal(await powerOf('web-1'), 'off')
})

t.test('one that fails hinders no other, and is told', async (t) => {
  await json('operate', 'vm', 'start', 'web-2')
  await json('operate', 'vm', 'suspend', 'web-2')
  const { exit, lines } = await json('operate', 'vm', 'start', 'web-*')
  t.equal(exit, 1)
  t.match(lines.at(-1), { done: 2, failed: 1 })
  t.match(
    lines.find(({ event }) => event === 'failed'),
    { vm: 'web-2', problem: { code: 'vm.wrong-power' } },
  )
  await json('operate', 'vm', 'kill', '--all')
})

t.test('the journal has who, what and the outcome', async (t) => {
  await json('operate', 'vm', 'start', 'web-1')
  const { stdout } = await garrison('read', 'journal')
  t.match(stdout, /asked {5}vm start web-1, for operate\.sock, says alice/)
  t.match(stdout, /begin {5}vms\.start web-1: start it/)
  t.match(stdout, /done {6}vms\.start web-1 in/)
  const { lines } = await json('read', 'journal')
  const entries = lines.map(({ entry }) => entry)
  const begun = entries.filter(({ kind }) => kind === 'step-started')
  const settled = entries.filter(({ kind }) => kind === 'step-done' || kind === 'step-failed')
  t.equal(begun.length, settled.length)
  t.ok(begun.length > 10)
  t.equal(
    new Set(entries.filter(({ kind }) => kind === 'apply-started').map(({ apply }) => apply)).size,
    entries.filter(({ kind }) => kind === 'apply-ended').length,
  )
  const why = await garrison('read', 'why', 'vm', 'web-1')
  t.match(
    why.stdout.replace(/\s+/g, ' '),
    /vms\.start web-1 \(start it\) was performed for operate\.sock, says alice/,
  )
  await json('operate', 'vm', 'kill', 'web-1')
})

t.test('set', async (t) => {
  const { exit, lines } = await json(
    ...(['operate', 'vm', 'set', 'web-2', '--cpus', '3', '--memory', '512MiB'] as const),
    ...(['--add-tag', 'tier=db', '--remove-tag', 'env', '--autostart', 'on'] as const),
  )
  t.equal(exit, 0)
  t.match(lines[2], {
    event: 'done',
    changed: true,
    text: /^3 processors; memory 512 MiB; tag tier=db, no tag env; autostart on$/,
  })
  t.match((await json('read', 'vm', 'list', 'web-2')).lines[0].vms[0], {
    cpus: 3,
    memoryBytes: 512 * 2 ** 20,
    tags: { tier: 'db' },
    autostart: true,
  })
  const again = await json('operate', 'vm', 'set', 'web-2', '--cpus', '3', '--add-tag', 'tier=db')
  t.match(again.lines[2], { event: 'done', changed: false })
  await json(
    'operate',
    'vm',
    'set',
    'web-2',
    '--add-tag',
    'env=prod',
    '--remove-tag',
    'tier',
    '--autostart',
    'off',
  )
  for (const wrong of [['--cpus', '0'], ['--memory', '8GB'], ['--add-tag', 'Env=x'], ['--add-tag', 'x'], []])
    t.match(
      (await json('operate', 'vm', 'set', 'web-2', ...wrong)).lines[0],
      { code: 'request.invalid' },
      wrong.join(' '),
    )
})

t.test('snapshots', async (t) => {
  t.equal((await json('operate', 'vm', 'start', 'web-1')).exit, 0)
  const made = await garrison(
    'operate',
    'vm',
    'snapshot',
    'create',
    'web-1',
    'web-2',
    '--name',
    'monday',
    '--description',
    'before all',
  )
  t.equal(made.exit, 0, made.stderr)
  t.equal((await json('operate', 'vm', 'snapshot', 'create', 'web-1', '--name', 'tuesday')).exit, 0)
  const { lines } = await json('read', 'vm', 'snapshot', 'list', 'web-1')
  t.same(Object.keys(lines[0]).sort(), Object.keys(verbOf('vm snapshot list').json).sort())
  t.match(lines[0].snapshots, [
    { name: 'monday', description: 'before all', parent: null, power: 'running', current: false },
    { name: 'tuesday', parent: 'monday', power: 'running', current: true },
  ])
  t.match(
    (await garrison('read', 'vm', 'snapshot', 'list', 'web-1')).stdout,
    /^monday +20.* with memory,\s+before all$/m,
  )
  t.match((await garrison('read', 'vm', 'show', 'web-1')).stdout, /snapshots {3}monday, tuesday/)
  await json('operate', 'vm', 'kill', 'web-1')
  const low = await json('operate', 'vm', 'snapshot', 'revert', 'web-1', 'monday')
  t.equal(low.lines[0].code, 'door.refused', 'what is lost by it is root’s to lose')
  t.equal((await json('admin', 'vm', 'snapshot', 'revert', 'web-1', 'monday')).exit, 0)
  t.equal(await powerOf('web-1'), 'running')
  const wrong = await json('admin', 'vm', 'snapshot', 'revert', 'web-1', 'munday')
  t.equal(wrong.exit, 1)
  t.match(wrong.lines[2].problem, { code: 'request.no-such-part', message: /did you mean monday/ })
  t.equal((await json('operate', 'vm', 'snapshot', 'delete', 'web-1', 'monday', '--children')).exit, 0)
  t.same((await json('read', 'vm', 'snapshot', 'list', 'web-1')).lines[0].snapshots, [])
  await json('operate', 'vm', 'kill', 'web-1')
  await json('operate', 'vm', 'snapshot', 'delete', 'web-2', 'monday')
})

t.test('rename, clone and delete', async (t) => {
  t.equal((await json('operate', 'vm', 'clone', 'web-1', 'web-3')).exit, 0)
  t.equal((await json('operate', 'vm', 'rename', 'web-3', 'web-4')).exit, 0)
  const { vms } = (await json('read', 'vm', 'list')).lines[0]
  const [first, fourth] = ['web-1', 'web-4'].map((name) =>
    vms.find((vm: { name: string }) => vm.name === name),
  )
  t.same({ ...fourth, name: 0, uuid: 0, reason: 0 }, { ...first, name: 0, uuid: 0, reason: 0 })
  t.not(fourth.uuid, first.uuid)
  const macOf = async (name: string) => (await json('read', 'vm', 'show', name)).lines[0].model.nics[0].mac
  t.not(await macOf('web-4'), await macOf('web-1'))
  for (const [args, code] of [
    [['rename', 'web-4', 'web-1'], 'vm.name-taken'],
    [['rename', 'web-4', '../x'], 'request.invalid'],
    [['rename', 'web-4', '$(id)'], 'request.invalid'],
    [['clone', 'web-4', '-x'], 'request.invalid'],
    [['clone', 'web-4', 'web-1'], 'vm.name-taken'],
  ] as const) {
    const [verb, vm, name] = args
    const { lines } = await json('operate', 'vm', verb, '--', vm, name)
    t.equal(lines[2].problem.code, code, args.join(' '))
  }
  await json('operate', 'vm', 'start', 'web-4')
  const up = await json('operate', 'vm', 'delete', 'web-4')
  t.match(up.lines[2].problem, { code: 'vm.wrong-power', remedy: /garrison vm stop web-4/ })
  await json('operate', 'vm', 'kill', 'web-4')
  t.equal((await json('operate', 'vm', 'delete', 'web-4', '--disks')).lines[0].code, 'door.refused')
  t.equal((await garrison('operate', 'vm', 'delete', 'web-4')).exit, 0)
  t.equal(await powerOf('web-4'), undefined)
})

t.test('events are told as they happen', async (t) => {
  await define('db')
  const child = start(['vm', 'events', 'web-*', '--json', '--socket', doors.socket('read')])
  const done = ended(child)
  let said = ''
  child.stdout?.on('data', (bytes) => {
    said += bytes
  })
  const words = ['started', 'paused', 'resumed', 'off']
  // A child needs its time to listen, and may begin to in the middle of a round.
  for (let count = 0; count < 40 && !words.every((what) => said.includes(`"${what}"`)); count += 1) {
    await json('operate', 'vm', 'start', 'web-1')
    await json('operate', 'vm', 'suspend', 'web-1')
    await json('operate', 'vm', 'resume', 'web-1')
    await json('operate', 'vm', 'start', 'db')
    await json('operate', 'vm', 'kill', 'web-1', 'db')
  }
  child.kill('SIGINT')
  t.equal((await done).exit, 0)
  const events = linesOf(said)
  t.ok(
    events.every(({ vm }) => vm === 'web-1'),
    'of those that are meant alone',
  )
  for (const what of words)
    t.ok(
      events.some((one) => one.what === what),
      what,
    )
  t.ok(events.some(({ what, detail }) => what === 'started' && detail === 'booted'))
})

t.test('watch, stats and logs', async (t) => {
  const child = start(['vm', 'list', '--watch', '--json', '--socket', doors.socket('read')])
  const done = ended(child)
  let said = ''
  child.stdout?.on('data', (bytes) => {
    said += bytes
  })
  const until = Date.now() + 30_000
  while (linesOf(said.slice(0, said.lastIndexOf('\n') + 1)).length < 2 && Date.now() < until) await sleep(100)
  child.kill('SIGINT')
  t.equal((await done).exit, 0)
  t.ok(linesOf(said).length >= 2)
  await json('operate', 'vm', 'start', 'db')
  const stats = await json('read', 'vm', 'stats', '--once')
  t.match(stats.lines[0], {
    event: 'stats',
    vms: [{ name: 'db', power: { value: { power: 'running' } }, process: null }],
  })
  await json('operate', 'vm', 'kill', 'db')
  t.equal((await json('read', 'vm', 'logs', 'test')).lines[0].code, 'vm.no-log')
  t.equal((await json('read', 'vm', 'logs', '../../etc/passwd')).lines[0].code, 'request.no-such-vm')
})

t.test('a change that cannot be written down is not made', async (t) => {
  const file = join(doors.folder, 'journal')
  const { rmSync } = await import('node:fs')
  rmSync(file, { recursive: true })
  writeFileSync(file, 'in the way')
  const { exit, stderr } = await garrison('operate', 'vm', 'start', 'web-1')
  t.equal(exit, 1)
  t.match(stderr, /journal\.unwritable/)
  t.equal(await powerOf('web-1'), 'off')
  rmSync(file)
})

/** Names that libvirt takes and that want to drive a terminal, a shell, a spreadsheet or a path. */
const hostile = [
  '\u009b31m\u0085owned',
  '$(touch owned); `id`',
  "'; rm -rf . #",
  '"><script>alert(1)<',
  '=HYPERLINK("x","y")',
  '..',
  '--all',
  '-x',
  'safe\u202egnp.exe',
  '日本語 und Ümläute 🐚',
  '[a-z]*?',
  ' a blank before',
  'a\tb\rc',
  'x'.repeat(255),
]

/** Characters that drive a terminal. */
const driving = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/
const terminal = { colour: false, live: false, nowMs: 0 }

t.test('hostile names', async (t) => {
  const made = await Promise.all(hostile.map((name) => define(name, { '\u202ekey': '`id`,"\u202e' })))
  // libvirt takes the blanks away.
  const known = made.map(({ name }) => name)
  for (const name of known) {
    const { exit, lines } = await json('operate', 'vm', 'start', '--', name)
    t.equal(exit, 0, JSON.stringify(name))
    t.same(lines[0].vms, [name], 'it alone is meant')
    await json('operate', 'vm', 'suspend', '--', name)
  }
  const told = await garrison('operate', 'vm', 'stop', '--', ...known)
  t.equal(told.exit, 1, told.stderr)
  t.match(told.stdout, /To go on: garrison vm resume -- --all\./, 'a name that looks like a flag')
  t.match(told.stdout.replace(/\s+/g, ' '), /garrison vm resume '\$\(touch owned\); `id`'\./)
  t.match(told.stdout, /\$'\\u0000009b31m/i, 'a name that cannot be shown can still be typed')
  const { lines } = await json('read', 'vm', 'list')
  const uuids = made.map(({ uuid }) => lines[0].vms.find((vm: { uuid: string }) => vm.uuid === uuid)?.uuid)
  t.same(
    uuids,
    made.map(({ uuid }) => uuid),
  )
  const csv = await garrison('read', 'vm', 'list', '--csv')
  t.notMatch(csv.stdout, /^"?[=+@-]/m)
  const all = [told, csv, await garrison('read', 'vm', 'list'), await garrison('read', 'journal')]
  for (const uuid of uuids.slice(0, 3)) all.push(await garrison('read', 'vm', 'show', uuid))
  for (const { stdout } of all) t.notMatch(stdout, driving)
  t.equal((await json('operate', 'vm', 'kill', ...uuids)).exit, 0)
  for (const dom of made) await connection.domainUndefine({ dom })
})

t.test('hostile names through every verb', async (t) => {
  const clear = async () => {
    const flags = VIR.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    for (const dom of await connection.connectListAllDomains()) {
      if (await connection.domainIsActive({ dom })) await connection.domainDestroyFlags({ dom })
      if (dom.name !== 'test') await connection.domainUndefineFlags({ dom, flags })
    }
  }
  const place = join(doors.folder, 'one/two')
  mkdirSync(place, { recursive: true })
  /** What there is of a VM with such a name, and of everything else that it may be taken for, ends by itself. */
  const soon: Readonly<Record<string, readonly string[]>> = {
    'vm stats': ['--once'],
    'vm stop': ['--timeout', '1s'],
    'vm restart': ['--timeout', '1s'],
  }
  // A session and a stream without an end take their VM as the others do.
  const verbs = verbNames
    .map((verb) => [verb, verbOf(verb)] as const)
    .filter(
      ([verb, { operands }]) =>
        Object.values(operands).some(({ kind }) => kind === 'vm') &&
        !['vm console', 'vm events'].includes(verb),
    )
  let asked = 0
  for (const [verb, { operands, flags, streams }] of verbs) {
    const module = await loadServed(verb)
    // libvirt's test driver takes a carriage return in a name once, and does not let go of it.
    for (const wish of hostile.filter((one) => !one.includes('\r'))) {
      await clear()
      const { name } = await define(wish)
      const given = ({ kind }: { readonly kind: string }) => (kind === 'path' ? place : name)
      const needed = Object.entries(flags).flatMap(([flag, one]) =>
        'required' in one && one.required ? [`--${flag}=${given(one)}`] : [],
      )
      const words = [...verb.split(' '), ...(soon[verb] ?? []), ...needed]
      const { exit, lines } = await json('admin', ...words, '--', ...Object.values(operands).map(given))
      asked += 1
      const what = `${verb} ${JSON.stringify(name.slice(0, 30))}`
      if (lines.length === 0) t.fail(`${what} said nothing`)
      for (const line of lines) {
        if ((line.problem ?? line).code === 'agent.defect') t.fail(`${what}: ${JSON.stringify(line)}`)
        const text = exit === null ? '' : (module as StreamModule<VerbName>).render(visibleIn(line), terminal)
        if (driving.test(text ?? '')) t.fail(`${what} drives the terminal: ${JSON.stringify(text)}`)
      }
      if (!streams && lines.length !== 1) t.fail(`${what} said more than one thing`)
    }
  }
  t.comment(`${verbs.length} verbs, ${asked} times asked`)
  t.same(
    readdirSync(doors.folder).filter((name) => /owned|^x{9}|^\.\.$/.test(name)),
    [],
  )
  t.same(readdirSync(join(doors.folder, 'one')), ['two'], 'nothing was made above the folder that was named')
  await clear()
})
