// libvirtd killed and stopped at random over real (emulated) guests that are killed too, while applies go on: all is known in the end.
// GARRISON_KILL_SECONDS=600 goes on for that long; GARRISON_SEED draws other numbers.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { chance } from '../../agent/node-libvirt/test/chance.ts'
import { names, vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { libvirtd, apply, emulators } = world

t.test('libvirtd killed and stopped at random while what was done is undone', async (t) => {
  await apply()
  const seconds = Number(process.env.GARRISON_KILL_SECONDS ?? 20)
  const { below, of } = chance(Number(process.env.GARRISON_SEED ?? 1))
  const endMs = Date.now() + seconds * 1000
  const counts = { kills: 0, stops: 0, applies: 0, settled: 0 }
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
  const troubled = trouble()
  try {
    while (Date.now() < endMs) {
      const name = of(names)
      // As a power cut of one guest: libvirtd is not asked, for it may not be there.
      for (const pid of below(2) === 0 ? emulators(name) : []) process.kill(pid, 'SIGKILL')
      const { exit, line } = await apply()
      counts.applies += 1
      if (exit === 0) counts.settled += 1
      const codes = line.problems.map(({ code }) => code)
      t.same(
        codes.filter((code) => !/^(libvirt|action|plan)\./.test(code)),
        [],
      )
      for (const one of names) t.ok(emulators(one).length <= 1, `${one} is never there twice`)
    }
  } finally {
    isOver = true
    await troubled
  }
  t.comment(JSON.stringify(counts))
  t.match(await apply(), { exit: 0, line: { outcome: 'settled' } })
  for (const name of names) t.equal(emulators(name).length, 1)
})
