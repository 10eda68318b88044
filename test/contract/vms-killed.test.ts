// The agent and libvirtd killed and stopped inside every step over real (emulated) guests: all is found again, nothing is there twice.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import type { Plan } from '../../agent/verbs/plan.ts'
import { names, vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { libvirtd, ask, begin, answer, apply, emulators, clear } = world

t.test('the agent killed between and inside all steps', async (t) => {
  clear()
  const { line } = await answer<Plan>('plan')
  const wanted = line.steps.map(({ key }) => key)
  /** Milliseconds after its first line at which a step is cut short; the last is after its end. */
  const moments = [0, 20, 'done'] as const
  const cut = new Map<string, number>()
  /** Steps that were through before the signal arrived. */
  const passed = new Set<string>()
  let kills = 0
  for (let settled = false; !settled; ) {
    settled = true
    let dying = false
    await begin<ApplyLine>('apply', {}, ({ line: now }, agent) => {
      if (now.event !== 'step-started' && now.event !== 'step-done') return
      if (dying) passed.add(now.key)
      if (dying) return
      const moment = moments[cut.get(now.key) ?? 0]
      if (moment === undefined || (moment === 'done') !== (now.event === 'step-done')) return
      dying = true
      settled = false
      kills += 1
      cut.set(now.key, (cut.get(now.key) ?? 0) + 1)
      if (moment === 0 || moment === 'done') agent.kill('SIGKILL')
      else setTimeout(() => agent.kill('SIGKILL'), moment)
    })
    for (const name of names) t.ok(emulators(name).length <= 1, `${name} is never there twice`)
  }
  t.same(
    wanted.filter((key) => !cut.has(key) && !passed.has(key)),
    [],
    'every step was cut short',
  )
  t.comment(`${kills} kills over ${wanted.length} steps`)
  t.match(await apply(), { exit: 0, line: { outcome: 'settled', performed: 0 } })
  for (const name of names) t.equal(emulators(name).length, 1)
})

t.test('libvirtd killed inside its steps', async (t) => {
  clear()
  const killed = new Set<string>()
  for (let settled = false; !settled; ) {
    settled = true
    let killing: Promise<void> | null = null
    const lines: ApplyLine[] = []
    await begin<ApplyLine>('apply', {}, ({ line }) => {
      lines.push(line)
      if (line.event !== 'step-started' || killed.has(line.key)) return
      if (killing !== null || !/^vms\.(pool|define|autostart|start)/.test(line.key)) return
      killed.add(line.key)
      killing = libvirtd.signal('SIGKILL')
    })
    if (killing !== null) {
      settled = false
      await killing
      t.match(lines.at(-1), { event: 'finished', outcome: /failed|unknown/ })
      t.match(JSON.stringify(lines), /libvirt\.unreachable/)
      await libvirtd.start()
    }
    for (const name of names) t.ok(emulators(name).length <= 1, `${name} is never there twice`)
  }
  t.equal(killed.size, 7)
  t.match(await answer('status', { fresh: true }), { exit: 0 })
})

t.test('libvirtd stopped inside a start', async (t) => {
  ask('destroy', 'blank')
  let stopping: Promise<void> | null = null
  const lines: ApplyLine[] = []
  await begin<ApplyLine>('apply', {}, ({ line }) => {
    lines.push(line)
    if (line.event === 'step-started') stopping = libvirtd.signal('SIGSTOP')
  })
  await stopping
  t.match(JSON.stringify(lines), /libvirt\.unreachable/)
  await libvirtd.signal('SIGCONT')
  await sleep(2000)
  t.match(await apply(), { exit: 0, line: { outcome: 'settled' } })
  t.equal(emulators('blank').length, 1)
})

t.test('what a libvirtd that was killed had only begun to start is ended, and started', async (t) => {
  const [pid = 0] = emulators('blank')
  await libvirtd.signal('SIGKILL')
  process.kill(pid, 'SIGKILL')
  // As it is written before QEMU is there; libvirtd 9 then never finds out by itself.
  const status = join(libvirtd.folder, 'run/qemu/blank.xml')
  const begun = "<domstatus state='paused' reason='starting up' pid='0'>"
  writeFileSync(status, readFileSync(status, 'utf8').replace(/<domstatus[^>]*>/, begun))
  rmSync(join(libvirtd.folder, 'run/qemu/blank.pid'))
  await libvirtd.start()
  t.match(await apply(), { exit: 3, line: { left: [{ blocked: { code: 'vm.busy' } }] } })
  const lines = await world.all('vm start', { names: ['blank'], tag: [], all: false, paused: false })
  t.match(lines.at(-1), { exit: 0 })
  t.match(await apply(), { exit: 0, line: { outcome: 'settled' } })
  t.equal(emulators('blank').length, 1)
})
