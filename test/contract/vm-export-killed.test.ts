// Exports and imports cut short: the agent killed inside them. An export is none until it is whole, and a VM is declared whole or not.

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, watch } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { exportWorld } from './export-world.ts'

const world = await exportWorld()
t.teardown(() => world.stop())
const { ask, pool, diskOf, counted, countsBeyond, define, out, exported, imported, documentIn, dropIn } =
  world

/** One kill at every so manieth event; all of them in a full run. */
const stride = process.env.GARRISON_LAB_FULL === '1' ? 1 : 13

/** Runs a verb in a process that is killed at the nth name that comes or goes in a folder; whether it came so far. */
async function killedAt(name: string, args: object, folder: string, nth: number): Promise<boolean> {
  let [seen, isKilled, kill] = [0, false, () => {}]
  const watcher = watch(folder, { recursive: true }, () => {
    seen += 1
    if (seen > nth && !isKilled) kill()
  })
  await world.begin(name, args, (_, agent) => {
    kill = () => {
      isKilled = agent.kill('SIGKILL')
    }
  })
  watcher.close()
  return isKilled
}

t.test(
  'killed anywhere, an export is no export until it is whole, and the same command ends it',
  async (t) => {
    define('runs')
    ask('start', 'runs')
    await countsBeyond('runs', 20)
    let kills = 0
    for (const isOn of [true, false]) {
      if (!isOn) ask('destroy', 'runs')
      for (let nth = kills % stride; ; nth += stride) {
        const dir = join(out, `killed-${isOn}-${nth}`)
        mkdirSync(dir)
        const asked = { vm: 'runs', dir, freeze: false }
        const wasKilled = await killedAt('vm export', asked, out, nth)
        if (existsSync(join(dir, 'vm.json'))) {
          const [disk] = documentIn(dir).disks
          const content = readFileSync(join(dir, disk?.file ?? ''))
          t.equal(createHash('sha256').update(content).digest('hex'), disk?.sha256)
        } else t.match((await imported(dir, { name: 'half', 'new-identity': true })).text, /holds no export/)
        if (readdirSync(dir).join() !== 'vda.qcow2,vm.json') {
          const ended = await exported('runs', dir)
          t.equal(ended.last.exit, 0, ended.text)
        }
        t.same(readdirSync(dir).sort(), ['vda.qcow2', 'vm.json'])
        const copy = counted(join(dir, 'vda.qcow2'))
        t.ok(copy.isOneMoment, `whole after a kill at change ${nth}`)
        if (!isOn) t.same(copy, counted(diskOf('runs')))
        if (!wasKilled) break
        kills += 1
      }
    }
    t.ok(kills > 2)
    t.comment(`${kills} kills`)
  },
)

t.test(
  'killed anywhere, an import declares the VM whole or not at all, and apply goes on with it',
  async (t) => {
    const dir = join(out, 'whole')
    t.equal((await exported('runs', dir)).last.exit, 0)
    const wanted = counted(join(dir, 'vda.qcow2'))
    let kills = 0
    for (let nth = 0; ; nth += Math.ceil(stride / 2)) {
      const name = `import-${nth}`
      const asked = { dir, name, 'new-identity': true, set: ['power=off'], plan: false, declare: false }
      let [told, isKilled] = [0, false]
      await world.begin('vm import', asked, (_, agent) => {
        if (told === nth) isKilled = agent.kill('SIGKILL')
        told += 1
      })
      if (existsSync(dropIn(name))) t.equal((await world.apply()).exit, 0)
      else t.equal((await imported(dir, asked)).last.exit, 0)
      t.same(counted(join(pool, name, 'root.qcow2')), wanted)
      t.same(readdirSync(join(pool, name)).sort(), ['owner-0000000001.json', 'root.qcow2'])
      ask('undefine', name)
      rmSync(dropIn(name))
      if (!isKilled || nth > 24) break
      kills += 1
    }
    t.ok(kills > 1)
  },
)
