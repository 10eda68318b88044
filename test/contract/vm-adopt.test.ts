// What a VM is, written into the document, over a real libvirtd: one that nobody declared, and one that a person has changed.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import type { AdoptLine } from '../../agent/verbs/vm-adopt.ts'
import { backupWorld } from './backup-world.ts'

const world = await backupWorld()
t.teardown(() => world.stop())
const { ask, root, pool, diskOf, define, declare } = world

const adopt = async (vm: string, plan = false) => {
  const lines = await world.all<AdoptLine>('vm adopt', { vm, plan })
  return { last: lines.at(-1), text: lines.map(({ text }) => text).join('\n') }
}
const dropIn = (name: string) => join(root, 'etc/garrison/host.d', `vm-${name}.yaml`)
const said = (name: string) => parse(readFileSync(dropIn(name), 'utf8')).vms.machines[name]

t.test('a VM that nobody declared is declared as it is, and stays as it is', async (t) => {
  define('wild')
  ask('start', 'wild')
  const uuid = ask('domuuid', 'wild').trim()
  const planned = await adopt('wild', true)
  t.match(planned.last, { exit: 0, line: { event: 'planned', vm: 'wild' } })
  t.match(planned.text, /not said +nic0: a NIC of the kind user/)
  t.notOk(existsSync(dropIn('wild')))

  const done = await adopt('wild')
  t.match(done.last, { exit: 0, line: { event: 'declared', goesOn: false } }, done.text)
  t.match(said('wild'), {
    ...{ uuid, memory: '32MiB', firmware: 'bios', accelerator: 'tcg', autostart: false },
    disks: { root: { path: diskOf('wild'), format: 'qcow2', cache: 'writeback' } },
  })
  const [emulator] = world.emulators('wild')
  const applied = await world.apply({ allow: 'disruptive' })
  t.match(applied.line, { outcome: 'settled' }, applied.text ?? '')
  t.same(world.emulators('wild'), [emulator], 'it runs on')
  t.match(await adopt('wild'), { text: 'wild is as it is declared.' })
  t.match((await adopt('nobody')).text, /request\.no-such-vm/)
})

t.test('what a person has changed of a declared VM is written where the document asks for it', async (t) => {
  declare({ tags: { env: 'prod' } })
  t.match((await world.apply({ allow: 'disruptive' })).line, { outcome: 'settled' })
  ask('destroy', 'blank')
  ask('setmaxmem', 'blank', '96M', '--config')
  ask('setmem', 'blank', '96M', '--config')
  ask('setvcpus', 'blank', '2', '--maximum', '--config')
  ask('setvcpus', 'blank', '2', '--config')
  const more = join(pool, 'more.qcow2')
  ask('vol-create-as', 'images', 'more.qcow2', '8M', '--format', 'qcow2')
  ask('attach-disk', 'blank', more, 'vdb', '--subdriver', 'qcow2', '--config')
  const done = await adopt('blank')
  t.match(done.last, { exit: 0, line: { event: 'declared' } }, done.text)
  t.match(said('blank'), {
    ...{ memory: '96MiB', cpus: 2, power: 'off' },
    disks: { vdb: { path: more, format: 'qcow2' } },
  })
  t.notOk(said('blank').disks.root, 'what is as it is declared is not said again')
  t.match((await adopt('blank')).text, /blank is as it is declared/)
  const applied = await world.apply({ allow: 'disruptive' })
  t.match(applied.line, { outcome: 'settled' }, applied.text ?? '')
  t.match(ask('dumpxml', 'blank'), /more\.qcow2/)

  ask('setvcpus', 'blank', '1', '--config')
  t.match((await adopt('blank')).last, { exit: 0 })
  t.match(said('blank'), { cpus: 1, memory: '96MiB' }, 'and once more into the same file')
})
