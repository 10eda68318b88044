// Performing actions: what each kind does, what its outcome says, and that a device is held or refused.
import { execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import t, { type Test } from 'tap'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer, summaryOf } from '../../agent/host/perform.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { noCloud } from './no-cloud.ts'

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'loop devices and owners need root' }

const claims = new Set<string>()
const libvirt = () => Promise.reject(new Error('not asked'))
const reader = new LinuxHost({
  claims,
  unfinishedSteps: async () => [],
  lockHolder: async () => null,
  libvirt,
  ...noCloud,
})
const performer = new LinuxPerformer({ reader, claims, libvirt, ec2: noCloud.ec2 })

const sh = (script: string, more: Partial<Extract<Action, { kind: 'run' }>> = {}): Action => ({
  kind: 'run',
  argv: ['/bin/sh', '-c', script],
  deadlineMs: 20_000,
  ...more,
})

const loopDevice = (t: Test): string => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  writeFileSync(`${folder}/image`, '')
  truncateSync(`${folder}/image`, 16 * 2 ** 20)
  const device = execFileSync('/usr/sbin/losetup', ['--find', '--show', `${folder}/image`], {
    encoding: 'utf8',
  }).trim()
  t.teardown(() => {
    execFileSync('/usr/sbin/losetup', ['--detach', device])
    rmSync(folder, { recursive: true })
  })
  return device
}

t.test('runs a program and tells how it ended', async (t) => {
  const outcome = await performer.perform(sh('echo said; echo warned >&2'))
  t.match(outcome, {
    kind: 'run',
    summary: '/bin/sh -c echo said; echo warned >&2',
    exit: 0,
    stderrTail: 'warned',
  })
  t.type(outcome.durationMs, 'number')
  t.notOk(
    'stderrTail' in (await performer.perform(sh('echo fine'))),
    'what is said on success is no complaint',
  )
  t.match(await performer.perform(sh('exit 5', { exits: [0, 5] })), { exit: 5 })
  t.match(await performer.perform(sh('cat >&2; echo $X >&2', { stdin: 'in\n', environment: { X: 'x' } })), {
    stderrTail: 'in\nx',
  })
  const tail = (await performer.perform(sh('seq 1 100 >&2'))).stderrTail
  t.equal(tail, Array.from({ length: 20 }, (_, at) => 81 + at).join('\n'))
})

t.test(
  'another exit, a signal, a deadline and a missing program are failures that hold the outcome',
  async (t) => {
    await t.rejects(performer.perform(sh('echo one >&2; echo why >&2; exit 3')), {
      code: 'action.failed',
      message: '/bin/sh ended with 3: why',
      details: { outcome: { kind: 'run', exit: 3, stderrTail: 'one\nwhy' } },
    })
    await t.rejects(performer.perform(sh('echo on stdout; exit 1')), {
      message: '/bin/sh ended with 1: on stdout',
    })
    await t.rejects(performer.perform(sh('exit 0', { exits: [7] })), { code: 'action.failed' })
    await t.rejects(performer.perform(sh('kill -9 $$')), {
      code: 'action.failed',
      details: { outcome: { exit: 137 } },
    })
    await t.rejects(performer.perform(sh('echo begun >&2; sleep 60', { deadlineMs: 300 })), {
      code: 'action.deadline',
      message: '/bin/sh did not end within 0.3 s and was stopped',
      details: { outcome: { stderrTail: 'begun' } },
    })
    await t.rejects(performer.perform({ kind: 'run', argv: ['/usr/sbin/no-such-tool'], deadlineMs: 1000 }), {
      code: 'host.tool-missing',
      details: { outcome: { kind: 'run', summary: '/usr/sbin/no-such-tool' } },
    })
  },
)

t.test(
  'without systemd a unit is an ordinary run',
  { skip: existsSync('/run/systemd/system') && 'systemd runs here' },
  async (t) => {
    t.match(await performer.perform(sh('echo x >&2', { unit: true })), { exit: 0, stderrTail: 'x' })
  },
)

t.test('writes, makes folders, moves and removes', async (t) => {
  const folder = t.testdir({})
  t.match(await performer.perform({ kind: 'write', path: `${folder}/a/b`, content: 'x', mode: 0o600 }), {
    kind: 'write',
    summary: `write ${folder}/a/b`,
  })
  t.equal(readFileSync(`${folder}/a/b`, 'utf8'), 'x')
  await performer.perform({ kind: 'folder', path: `${folder}/c`, mode: 0o711 })
  t.equal(statSync(`${folder}/c`).mode & 0o777, 0o711)
  await performer.perform({ kind: 'move', from: `${folder}/a/b`, to: `${folder}/c/b` })
  await t.rejects(performer.perform({ kind: 'move', from: `${folder}/c`, to: `${folder}/a` }), {
    code: 'file.exists',
    details: { outcome: { kind: 'move', summary: `move ${folder}/c to ${folder}/a` } },
  })
  await performer.perform({ kind: 'remove', path: `${folder}/c/b` })
  t.notOk(existsSync(`${folder}/c/b`))
})

t.test('owners by name', needsRoot, async (t) => {
  const folder = t.testdir({})
  await performer.perform({
    kind: 'folder',
    path: `${folder}/x`,
    owner: 'nobody',
    group: 'daemon',
    mode: 0o2750,
  })
  const { uid, gid, mode } = statSync(`${folder}/x`)
  const idOf = (table: string, name: string) =>
    Number(execFileSync('/usr/bin/getent', [table, name], { encoding: 'utf8' }).split(':')[2])
  t.strictSame([uid, gid, mode & 0o7777], [idOf('passwd', 'nobody'), idOf('group', 'daemon'), 0o2750])
  await t.rejects(performer.perform({ kind: 'folder', path: `${folder}/y`, owner: 'no-such-user' }), {
    code: 'action.failed',
    message: 'there is no user no-such-user',
  })
  t.notOk(existsSync(`${folder}/y`))
})

const wait = (until: Extract<Action, { kind: 'wait' }>['until'], deadlineMs = 10_000): Action => ({
  kind: 'wait',
  until,
  deadlineMs,
  summary: 'it is so',
})

t.test('waits for a path', async (t) => {
  const folder = t.testdir({})
  setTimeout(() => mkdirSync(`${folder}/x`), 400)
  const { durationMs } = await performer.perform(wait({ kind: 'exists', path: `${folder}/x` }))
  t.ok(durationMs >= 300)
  await t.rejects(performer.perform(wait({ kind: 'exists', path: `${folder}/y` }, 300)), {
    code: 'wait.deadline',
    message: `waited 0.3 s until it is so: ${folder}/y is not there`,
    details: { outcome: { kind: 'wait', summary: 'wait: it is so' } },
  })
})

t.test('waits for a lock and names who has it', async (t) => {
  const path = `${t.testdir({ lock: '', other: '' })}/lock`
  await performer.perform(wait({ kind: 'unlocked', path: `${path}-absent` }))
  const holder = spawn('/usr/bin/flock', ['--no-fork', path, '/bin/sh', '-c', 'echo held; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => holder.stdout.once('data', resolve))
  const waiter = spawn('/usr/bin/flock', ['--no-fork', path, '/bin/true'], { stdio: 'ignore' })
  await performer.perform(wait({ kind: 'unlocked', path: path.replace('lock', 'other') }))
  await t.rejects(performer.perform(wait({ kind: 'unlocked', path }, 600)), {
    code: 'wait.deadline',
    message: `waited 0.6 s until it is so: ${path} is locked by pid ${holder.pid} (sleep)`,
  })
  setTimeout(() => holder.kill('SIGKILL'), 300)
  await performer.perform(wait({ kind: 'unlocked', path }))
  waiter.kill('SIGKILL')
})

t.test('waits for an answer', async (t) => {
  await performer.perform(
    wait({ kind: 'answer', argv: ['/usr/bin/getent', 'passwd', 'root'], pattern: '^root:' }),
  )
  await t.rejects(
    performer.perform(
      wait({ kind: 'answer', argv: ['/usr/bin/getent', 'passwd', 'root'], pattern: 'toor' }, 300),
    ),
    { code: 'wait.deadline', message: /getent passwd root answers 0: root:/ },
  )
  await t.rejects(
    performer.perform(wait({ kind: 'answer', argv: ['/usr/bin/systemctl', 'reboot'], pattern: '' }, 300)),
    {
      code: 'host.query-refused',
    },
  )
})

t.test('claims devices, and gives them back however the work ends', needsRoot, async (t) => {
  const [one, two] = [loopDevice(t), loopDevice(t)]
  const link = `${t.testdir({})}/by-id`
  symlinkSync(one, link)
  const isFree = (device: string): boolean => {
    try {
      closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL))
      return true
    } catch {
      return false
    }
  }
  const answer = await performer.claim([link, two], async () => {
    t.strictSame([isFree(one), isFree(two)], [false, false], 'held against everybody else')
    t.equal(await reader.exclusive(one), 'free', 'and free to this process')
    t.same(await reader.sample(two), { sampledBytes: 16 * 2 ** 20, nonZeroAt: null })
    return 'done'
  })
  t.equal(answer, 'done')
  t.strictSame([isFree(one), isFree(two), claims.size], [true, true, 0])
  await t.rejects(
    performer.claim([one], () => Promise.reject(new HostError('plan.changed', 'x'))),
    { code: 'plan.changed' },
  )
  t.strictSame([isFree(one), claims.size], [true, 0])
})

t.test('does not do the work when one device is in use, and names it and its user', needsRoot, async (t) => {
  const [one, two] = [loopDevice(t), loopDevice(t)]
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  execFileSync('/usr/sbin/mkfs.ext4', ['-q', two])
  execFileSync('/usr/bin/mount', [two, folder])
  const work = async () => t.fail('it was done')
  await t.rejects(performer.claim([one, two], work), {
    code: 'drive.busy',
    message: `${two} could not be opened exclusively (EBUSY, used by mount ${folder})`,
    details: { device: two, errno: 'EBUSY', users: [`mount ${folder}`] },
  })
  execFileSync('/usr/bin/umount', [folder])
  const before = execFileSync('/usr/bin/sha256sum', [two], { encoding: 'utf8' })
  await t.rejects(performer.claim([two, '/dev/no-such-device'], work), {
    code: 'drive.busy',
    message: /ENOENT/,
  })
  await t.rejects(performer.claim([`${folder}`], work), { code: 'drive.busy', message: /not a block device/ })
  t.equal(claims.size, 0)
  await performer.claim([one, two], async () => undefined)
  t.equal(execFileSync('/usr/bin/sha256sum', [two], { encoding: 'utf8' }), before, 'nothing was written')
  rmSync(folder, { recursive: true })
})

t.test('every kind has a summary', async (t) => {
  const actions: readonly Action[] = [
    { kind: 'run', argv: ['/usr/bin/a', 'b'], deadlineMs: 1 },
    { kind: 'write', path: '/a', content: '', mode: 0o644 },
    { kind: 'remove', path: '/a' },
    { kind: 'folder', path: '/a' },
    { kind: 'move', from: '/a', to: '/b' },
    wait({ kind: 'exists', path: '/a' }),
    { kind: 'reboot' },
  ]
  t.strictSame(actions.map(summaryOf), [
    '/usr/bin/a b',
    'write /a',
    'remove /a',
    'folder /a',
    'move /a to /b',
    'wait: it is so',
    'reboot',
  ])
})
