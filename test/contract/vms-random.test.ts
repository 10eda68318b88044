// libvirtd killed and stopped at random over real (emulated) guests that are killed too, while applies and batches go on: no VM is
// lost or there twice, and all is known in the end.
//
// Ten minutes in a full run; GARRISON_KILL_SECONDS says otherwise, GARRISON_SEED draws other numbers.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { chance } from '../../agent/node-libvirt/test/chance.ts'
import { partsOf } from '../../agent/operate.ts'
import { vms } from '../../provisioning/vms/index.ts'
import { inContainer } from './container-host.ts'
import { serveParts } from './doors.ts'
import { names, vmsWorld } from './vms-world.ts'

const full = process.env.GARRISON_LAB_FULL === '1'
const seconds = Number(process.env.GARRISON_KILL_SECONDS ?? (full ? 600 : 40))
const seed = Number(process.env.GARRISON_SEED ?? Math.floor(Date.now() / 86_400_000))
t.setTimeout((seconds + 280) * 1000)

const world = await vmsWorld()
t.teardown(() => world.stop())
const { libvirtd, ask, apply, emulators, root } = world
mkdirSync(join(root, 'doors'))
const parts = partsOf(root)
const doors = await serveParts(join(root, 'doors'), {
  ...parts,
  reader: inContainer(parts.reader),
  resources: [vms],
})
t.teardown(async () => {
  await doors.close()
  for (const use of ['control', 'monitor'] as const) (await parts.libvirt(use)).close()
})

/** The VMs of the batch, which no document has. */
const batch = Array.from({ length: 6 }, (_, index) => `batch-${index}`)
for (const name of batch) {
  const disk = join(libvirtd.folder, `${name}.qcow2`)
  execFileSync('/usr/bin/qemu-img', ['create', '-q', '-f', 'qcow2', disk, '16M'])
  const path = join(libvirtd.folder, `${name}.xml`)
  writeFileSync(
    path,
    `<domain type='qemu'><name>${name}</name><memory unit='MiB'>32</memory>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/>
        <target dev='vda' bus='virtio'/></disk></devices></domain>`,
  )
  ask('define', path)
}
const everybody = [...names, ...batch]

/** What a batch may do, and what its VMs do when all of it was done. */
const transitions = [
  { words: ['vm', 'start'], power: 'running' },
  { words: ['vm', 'kill'], power: 'off' },
  { words: ['vm', 'restart', '--timeout', '1s', '--kill'], power: 'running' },
  { words: ['vm', 'suspend'], power: 'paused' },
  { words: ['vm', 'resume'], power: 'running' },
] as const

t.test('libvirtd killed and stopped at random under applies and batches', async (t) => {
  await apply()
  t.comment(`GARRISON_SEED=${seed} GARRISON_KILL_SECONDS=${seconds}`)
  const { below, of } = chance(seed)
  const endMs = Date.now() + seconds * 1000
  const counts = { kills: 0, stops: 0, applies: 0, settled: 0, batches: 0, done: 0, failed: 0, unknown: 0 }
  let isOver = false
  const trouble = async () => {
    while (!isOver) {
      await sleep(500 + below(3000))
      if (below(2) === 0) {
        await libvirtd.signal('SIGKILL')
        await sleep(below(1000))
        await libvirtd.start()
        counts.kills += 1
      } else {
        await libvirtd.signal('SIGSTOP')
        await sleep(below(4000))
        await libvirtd.signal('SIGCONT')
        counts.stops += 1
      }
    }
  }
  const wantOnce = () => {
    for (const one of everybody)
      if (emulators(one).length > 1) t.fail(`${one} is there ${emulators(one).length} times`)
  }
  const runBatch = async (words: readonly string[]) => {
    const { lines } = await doors.json('operate', ...words, 'batch-*', '--parallel', '3')
    counts.batches += 1
    const last = lines.at(-1)
    // A door that cannot ask libvirt which VMs there are says so, and has begun nothing.
    if (last?.event !== 'finished') {
      t.match(last, { code: /^libvirt\./ })
      return
    }
    t.equal(last.done + last.unchanged + last.failed + last.unknown, batch.length, words.join(' '))
    counts.done += last.done
    counts.failed += last.failed
    counts.unknown += last.unknown
  }
  const troubled = trouble()
  try {
    while (Date.now() < endMs) {
      const victim = of(everybody)
      // As a power cut of one guest: libvirtd is not asked, for it may not be there.
      for (const pid of below(2) === 0 ? emulators(victim) : []) process.kill(pid, 'SIGKILL')
      if (below(3) > 0) await runBatch(of(transitions).words)
      else {
        const { exit, line } = await apply()
        counts.applies += 1
        if (exit === 0) counts.settled += 1
        const codes = line.problems.map(({ code }) => code)
        t.same(
          codes.filter((code) => !/^(libvirt|action|plan)\./.test(code)),
          [],
        )
      }
      wantOnce()
    }
  } finally {
    isOver = true
    await troubled
  }
  t.comment(JSON.stringify(counts))

  // libvirtd 9 holds a VM for ever that it was about to start when it was killed; docs/usage/vms.md says what helps.
  const statusOf = (name: string) => join(libvirtd.folder, 'run/qemu', `${name}.xml`)
  const held = everybody.filter(
    (name) => existsSync(statusOf(name)) && / pid='0'>/.test(readFileSync(statusOf(name), 'utf8')),
  )
  t.comment(`held for ever by libvirtd: ${held.join(', ') || 'none'}`)
  if (held.length > 0) {
    await libvirtd.signal('SIGTERM')
    for (const name of held) {
      t.equal(emulators(name).length, 0, `nothing runs of ${name}`)
      rmSync(statusOf(name))
    }
    await libvirtd.start()
  }
  t.match(await apply(), { exit: 0, line: { outcome: 'settled' } })
  for (const name of names) t.equal(emulators(name).length, 1)
  const listed = ask('list', '--all', '--name').split('\n').filter(Boolean).sort()
  t.same(listed, everybody.toSorted(), 'no VM is lost')
  const [started, killed, , suspended, resumed] = transitions
  for (const { words, power: wanted } of [killed, started, suspended, resumed, killed]) {
    const { exit, lines } = await doors.json('operate', ...words, 'batch-*')
    t.equal(exit, 0, JSON.stringify(lines))
    const { lines: vmLines } = await doors.json('read', 'vm', 'list', 'batch-*')
    t.same(
      vmLines[0].vms.map(({ power }: { power: string }) => power),
      batch.map(() => wanted),
    )
    for (const name of batch) t.equal(emulators(name).length, wanted === 'off' ? 0 : 1, name)
  }
  const { lines } = await doors.json('read', 'journal')
  const kinds = lines.map(({ entry }) => entry?.kind)
  const count = (kind: string) => kinds.filter((one) => one === kind).length
  t.equal(
    count('step-started'),
    count('step-done') + count('step-failed'),
    'of each change the outcome is written',
  )
})
