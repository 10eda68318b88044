// A change that undoes itself, on real files: who decides what becomes of it, and a kill at each system call that writes.
import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { begin, performUndo, type UndoParts } from '../../agent/host/undo.ts'
import { keepChange, readArmed, readEnded, restore } from '../../agent/host/undo-saved.ts'
import type { UndoTimer } from '../../agent/host/undo-timer.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { runTool } from '../lab/processes.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { sample, seed } from '../lab/sample.ts'
import { readerOf } from '../unit/simulated-host.ts'
import { changeOf, endlessTimer, restoreArgv, undoPerformer } from './undo-host.ts'

await ensureRequirements((line) => t.comment(line), [{ package: 'strace', path: '/usr/bin/strace' }])

/** A host's files before the change, in a folder of their own. */
function hostFolder(t: Test): string {
  const base = mkdtempSync(join(tmpdir(), 'garrison-undo-'))
  const etc = join(base, 'etc')
  mkdirSync(etc)
  for (const name of ['changed', 'removed', 'behind', 'moved'])
    writeFileSync(join(etc, name), `old ${name}\n`)
  chmodSync(join(etc, 'changed'), 0o4640)
  symlinkSync('behind', join(etc, 'link'))
  t.teardown(() => rmSync(base, { recursive: true }))
  return base
}

/** Everything below etc, with what is in it and its mode. */
function shapeOf(base: string): Record<string, string> {
  const etc = join(base, 'etc')
  return Object.fromEntries(
    readdirSync(etc, { recursive: true, encoding: 'utf8' })
      .sort()
      .flatMap((name) => {
        const path = join(etc, name)
        const facts = lstatSync(path)
        if (facts.isDirectory()) return []
        const content = facts.isSymbolicLink() ? readlinkSync(path) : readFileSync(path, 'utf8')
        return [[name, `${facts.mode.toString(8)} ${content}`]]
      }),
  )
}

const actionsOf = (base: string, deadlineMs: number) =>
  changeOf(join(base, 'etc'), deadlineMs, join(base, 'reloaded')).actions

async function change(base: string, deadlineMs: number, timer?: UndoTimer): Promise<void> {
  const performer = undoPerformer(join(base, 'undo'), timer)
  for (const action of actionsOf(base, deadlineMs).slice(0, -1)) await performer.perform(action)
}

const changeThenEnd = (base: string): Promise<void> => change(base, 60_000, endlessTimer)

const ended = (base: string) => readEnded(join(base, 'undo'))

t.test('at the deadline all is as it was, and what was armed cannot be read by others', async (t) => {
  const base = hostFolder(t)
  const before = shapeOf(base)
  await change(base, 1500)
  t.not(JSON.stringify(shapeOf(base)), JSON.stringify(before))
  t.equal(lstatSync(join(base, 'undo/armed.json')).mode & 0o777, 0o600)
  const armedAtMs = (await readArmed(join(base, 'undo')))?.armedAtMs ?? 0
  while ((await ended(base)) === null) await sleep(20)
  const lateMs = Date.now() - armedAtMs - 1500
  t.comment(`back ${lateMs} ms after the deadline, the start of the program included`)
  t.strictSame(shapeOf(base), before)
  t.match(await ended(base), { outcome: 'undone', by: 'deadline', summary: 'change it all', problems: [] })
  t.ok(existsSync(join(base, 'reloaded')))
})

t.test('what takes longer than its deadline to be made goes no further', async (t) => {
  const base = hostFolder(t)
  const before = shapeOf(base)
  const performer = undoPerformer(join(base, 'undo'))
  const actions = actionsOf(base, 2000)
  for (const action of actions.slice(0, 2)) await performer.perform(action)
  t.not(JSON.stringify(shapeOf(base)), JSON.stringify(before))
  while ((await ended(base)) === null) await sleep(20)
  for (const action of actions.slice(2, 5))
    await t.rejects(performer.perform(action), { code: 'undo.undone', message: /longer than its deadline/ })
  t.strictSame(shapeOf(base), before)
})

t.test('nothing is changed any more just before the deadline', async (t) => {
  const base = hostFolder(t)
  const before = shapeOf(base)
  const performer = undoPerformer(join(base, 'undo'), endlessTimer)
  const actions = actionsOf(base, 400)
  await performer.perform(actions[0] as Action)
  await t.rejects(performer.perform(actions[1] as Action), { code: 'undo.undone' })
  t.strictSame(shapeOf(base), before)
})

t.test('confirmed by hand it stays, and the wait for witnesses ends', async (t) => {
  const base = hostFolder(t)
  const performer = undoPerformer(join(base, 'undo'), endlessTimer)
  const actions = actionsOf(base, 20_000)
  for (const action of actions.slice(0, -1)) await performer.perform(action)
  const after = shapeOf(base)
  const confirming = performer.perform(actions.at(-1) as (typeof actions)[number])
  await sleep(400)
  t.equal(await keepChange(join(base, 'undo'), 'anna', 1), true)
  t.equal(await keepChange(join(base, 'undo'), 'bert', 1), false)
  t.match(await confirming, { stderrTail: 'confirmed by anna' })
  t.equal(await restore(join(base, 'undo'), Date.now), null)
  t.strictSame(shapeOf(base), after)
})

t.test('confirmed by hand while it is still being made, it is not told as undone', async (t) => {
  const base = hostFolder(t)
  const performer = undoPerformer(join(base, 'undo'), endlessTimer)
  const actions = actionsOf(base, 20_000)
  for (const action of actions.slice(0, -2)) await performer.perform(action)
  t.equal(await keepChange(join(base, 'undo'), 'anna', 1), true)
  const [mark, confirm] = actions.slice(-2) as [Action, Action]
  await performer.perform(mark)
  t.match(await performer.perform(confirm), { stderrTail: 'confirmed by anna' })
})

const arm = { kind: 'undo', operation: 'arm', summary: 'change', deadlineMs: 60_000 } as const
const witnesses = [{ kind: 'neighbour', device: 'lni', address: '192.0.2.1' }] as const

t.test('an apply that is ended waits for no witness, also while one is being asked', async (t) => {
  const base = hostFolder(t)
  const { promise: never } = Promise.withResolvers<void>()
  const parts: UndoParts = {
    ...{ folder: join(base, 'undo'), timer: endlessTimer, run: () => never },
    reader: {
      ...readerOf({ files: new Map(), journal: [] }),
      now: async () => 1,
      query: async () => ({ exit: 0, stdout: '', stderr: '' }),
    },
  }
  await begin(parts, { ...arm, files: [join(base, 'etc/changed')], reload: [] })
  const confirm = { kind: 'undo', operation: 'confirm', witnesses } as const
  const controller = new AbortController()
  const confirming = performUndo(parts, confirm, controller.signal)
  await sleep(300)
  const endedMs = performance.now()
  controller.abort()
  await t.rejects(confirming, { code: 'undo.undone' })
  t.ok(performance.now() - endedMs < 3000)
})

/** Confirms a change by a neighbour that answers ARP; who is asked what, with the routes of the host at each look. */
async function confirmedBy(
  t: Test,
  { failures = [], routes }: { readonly failures?: string[]; readonly routes: (look: number) => object[] },
) {
  const base = hostFolder(t)
  const asked: string[] = []
  let looks = 0
  const answerTo = (argv: readonly string[]): string => {
    if (argv.includes('neighbour'))
      return JSON.stringify([{ dst: '192.0.2.1', dev: 'lni', state: ['REACHABLE'] }])
    return argv.includes('route') ? JSON.stringify(routes(looks++)) : ''
  }
  const parts: UndoParts = {
    ...{ folder: join(base, 'undo'), timer: endlessTimer },
    reader: {
      ...readerOf({ files: new Map(), journal: [] }),
      now: async () => 1,
      query: async (argv) => ({ exit: 0, stdout: answerTo(argv), stderr: '' }),
    },
    run: async ({ argv }) => {
      const verb = argv[2] ?? ''
      asked.push(verb)
      if (failures[0] !== verb) return
      failures.shift()
      throw new HostError('action.deadline', 'systemd-run did not end in time')
    },
  }
  await begin(parts, { ...arm, files: [join(base, 'etc/changed')], reload: [] })
  t.equal(
    await performUndo(parts, { kind: 'undo', operation: 'confirm', witnesses }),
    'confirmed by 192.0.2.1 on lni',
  )
  return asked
}
const near = { dst: '192.0.2.0/24', dev: 'lni', protocol: '2' }
const byDefault = { dst: 'default', gateway: '192.0.2.1', dev: 'lni' }

t.test('what a host with much to do cannot ask in time is asked again, not held against it', async (t) => {
  const asked = await confirmedBy(t, { failures: ['flush', 'replace', 'replace'], routes: () => [near] })
  t.strictSame(asked, ['flush', 'flush', 'replace', 'replace', 'replace'], 'forgotten once')
})

t.test('a router that answers ARP is no witness where nothing is sent to it', async (t) => {
  const elsewhere = [
    { ...near, dev: 'eni' },
    { ...byDefault, gateway: '192.0.2.2' },
    { ...near, type: '6' },
  ]
  const asked = await confirmedBy(t, { routes: (look) => (look < 2 ? elsewhere : [byDefault]) })
  t.strictSame(asked, ['flush', 'replace', 'replace', 'replace'])
})

t.test(
  'while one is pending no other is armed, and a wait for witnesses tells that it was undone',
  async (t) => {
    const base = hostFolder(t)
    const before = shapeOf(base)
    const performer = undoPerformer(join(base, 'undo'))
    const actions = actionsOf(base, 2500)
    for (const action of actions.slice(0, -1)) await performer.perform(action)
    await t.rejects(performer.perform(actions[0] as (typeof actions)[number]), {
      code: 'undo.pending',
      message: /change it all/,
    })
    await t.rejects(performer.perform(actions.at(-1) as (typeof actions)[number]), {
      code: 'undo.undone',
      message: /nobody could testify/,
    })
    t.strictSame(shapeOf(base), before)
  },
)

t.test('after a power cut the files alone come back: no network is there to be told', async (t) => {
  const base = hostFolder(t)
  const before = shapeOf(base)
  await changeThenEnd(base)
  const armed = JSON.parse(readFileSync(join(base, 'undo/armed.json'), 'utf8'))
  writeFileSync(join(base, 'undo/armed.json'), JSON.stringify({ ...armed, bootId: 'another' }))
  await runTool(restoreArgv(join(base, 'undo')))
  t.strictSame(shapeOf(base), before)
  t.match(await ended(base), { outcome: 'undone', by: 'boot' })
  t.notOk(existsSync(join(base, 'reloaded')))
})

t.test('what is damaged is told, not guessed', async (t) => {
  const base = hostFolder(t)
  await changeThenEnd(base)
  const after = shapeOf(base)
  writeFileSync(join(base, 'undo/armed.json'), '{"files":[')
  await t.rejects(restore(join(base, 'undo'), Date.now), { code: 'undo.damaged', message: /restoring\.json/ })
  t.strictSame(shapeOf(base), after)
})

/** The calls with which a program changes files; a kill before each of them is a crash at each step. */
const calls = 'rename,renameat,renameat2,unlink,fsync,fdatasync,fchmod,fchown,symlink,link,rmdir,mkdir'

/** Runs it under strace; with `at` it gets SIGKILL at its call of that number. Answers how many calls it made. */
function traced(argv: readonly string[], at?: number): number {
  const inject = at === undefined ? [] : [`--inject=${calls}:signal=SIGKILL:when=${at}`]
  const log = join(tmpdir(), `garrison-strace-${process.pid}-${randomInt(2 ** 32)}`)
  spawnSync('/usr/bin/strace', ['-f', '-q', '-o', log, `--trace=${calls}`, ...inject, '--', ...argv])
  const made = readFileSync(log, 'utf8').match(/^\d+ +[a-z0-9]+\(/gm)?.length ?? 0
  rmSync(log)
  return made
}

const points = (count: number) =>
  sample(
    [...Array(count).keys()].map((at) => at + 1),
    8,
  )

t.test('killed at any call, the undoing goes on from there', async (t) => {
  const whole = hostFolder(t)
  await changeThenEnd(whole)
  const count = traced(restoreArgv(join(whole, 'undo')))
  t.ok(count > 20, `${count} calls`)
  t.comment(`${count} calls, seed ${seed}`)
  for (const at of points(count)) {
    const base = hostFolder(t)
    const before = shapeOf(base)
    await changeThenEnd(base)
    traced(restoreArgv(join(base, 'undo')), at)
    await runTool(restoreArgv(join(base, 'undo')))
    t.strictSame(shapeOf(base), before, `killed at call ${at}`)
    t.match(await ended(base), { outcome: 'undone' })
  }
})

t.test('an agent killed at any call of a change leaves a host that comes back', async (t) => {
  const argv = (base: string) => [process.execPath, join(import.meta.dirname, 'undo-host.ts'), base, '600000']
  const whole = hostFolder(t)
  const count = traced(argv(whole))
  t.ok(count > 20, `${count} calls`)
  for (const at of points(count)) {
    const base = hostFolder(t)
    const before = shapeOf(base)
    traced(argv(base), at)
    await runTool(restoreArgv(join(base, 'undo')))
    t.strictSame(shapeOf(base), before, `killed at call ${at}`)
  }
})
