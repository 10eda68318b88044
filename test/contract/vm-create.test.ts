// VMs declared from a template or from words, checked, planned and made, over a real libvirtd.

import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import type { DeclareLine } from '../../agent/verbs/vm-declare.ts'
import { vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { root, pool, image, ask } = world

const network = join(world.libvirtd.folder, 'default.xml')
writeFileSync(network, "<network><name>default</name><bridge name='virbr0'/></network>")
ask('net-define', network)
ask('net-start', 'default')

const dropIn = (name: string) => join(root, 'etc/garrison/host.d', `vm-${name}.yaml`)

const asked = { with: [], set: [], plan: false, declare: false, detach: false }

const create = (name: string, more: object = {}) =>
  world.all<DeclareLine>('vm create', { ...asked, name, ...more })

const tiny = ['accelerator=tcg', 'firmware=bios', 'memory=64MiB', 'disks.root.size=16MiB']

t.test('a VM is planned, declared and made from words', async (t) => {
  const planned = await create('one', { set: tiny, plan: true })
  t.match(planned, [{ exit: 0, line: { event: 'planned', vm: 'one', file: dropIn('one') } }])
  t.match(planned[0]?.text, /disks:\n +root:\n +size: 16MiB[\s\S]*vms\.start +one/)
  t.notOk(existsSync(dropIn('one')))
  t.throws(() => ask('domstate', 'one'))

  const made = await create('one', { set: [...tiny, 'tags.env=prod', 'nics={lan: {}}', 'autostart=false'] })
  t.match(made.at(-1), { exit: 0, line: { event: 'finished', outcome: 'settled' } })
  t.equal(statSync(dropIn('one')).mode & 0o777, 0o600)
  t.match(parse(readFileSync(dropIn('one'), 'utf8')), {
    vms: { machines: { one: { tags: { env: 'prod' }, nics: { lan: {} }, autostart: false } } },
  })
  t.match(
    readFileSync(dropIn('one'), 'utf8'),
    /^# Made by garrison vm create on \d{4}-\d\d-\d\d, for the test\.\n/,
  )
  t.equal(ask('domstate', 'one').trim(), 'running')
  t.ok(existsSync(join(pool, 'one/root.qcow2')))
  t.throws(() => ask('domstate', 'blank'), 'and no other that is declared')
  t.match((await create('one', { set: tiny })).at(-1), { line: { code: 'vm.name-taken' } })
})

t.test('a VM is made from a template, in two steps', async (t) => {
  mkdirSync(join(root, 'etc/garrison/templates'))
  writeFileSync(
    join(root, 'etc/garrison/templates/small.yaml'),
    `name: small
version: 1.0.0
description: Small
parameters:
  image: {type: string, description: The image, example: /x.qcow2}
vm:
  accelerator: tcg
  firmware: bios
  memory: 64MiB
  disks:
    root:
      image: {source: "\${image}"}
`,
  )
  const small = { template: 'small', with: [`image=${image}`] }
  t.match(await create('two', { ...small, declare: true }), [
    { exit: 0, line: { event: 'declared', goesOn: false } },
  ])
  t.throws(() => ask('domstate', 'two'))
  t.match(parse(readFileSync(dropIn('two'), 'utf8')).vms.machines.two, {
    template: { name: 'small', parameters: { image } },
  })
  t.match((await world.apply()).line, { outcome: 'settled' })
  t.equal(ask('domstate', 'two').trim(), 'running')
})

t.test('what cannot come about is refused, and nothing is written', async (t) => {
  const refusals: readonly (readonly [object, RegExp])[] = [
    [{ set: [...tiny, 'cpu=4'] }, /desired\.invalid.*(cpus|unknown|not known)/s],
    [{ set: [...tiny, 'cpus=four'] }, /desired\.invalid/],
    [{ set: [...tiny, 'cpus'] }, /request\.invalid.*KEY=VALUE/],
    [{ set: [...tiny, '__proto__.x=1'] }, /request\.invalid/],
    [{ set: [...tiny, 'memory.x=1'] }, /request\.invalid.*memory is no map/],
    [{ set: [...tiny, 'tags={a'] }, /request\.invalid.*no YAML/],
    [{ set: [...tiny, 'pool=nowhere'] }, /desired\.invalid.*nowhere/s],
    [{ set: [...tiny, 'nics.lan.network=nowhere'] }, /vm\.network-missing/],
    [
      { set: ['accelerator=tcg', `disks.root.path=${join(pool, 'absent.qcow2')}`, 'firmware=bios'] },
      /vm\.disk-missing/,
    ],
    [{ template: 'nowhere' }, /desired\.invalid.*nowhere/s],
    [{ with: ['a=b'], set: tiny }, /request\.invalid/],
    [{ plan: true, declare: true, set: tiny }, /request\.invalid/],
  ]
  for (const [more, text] of refusals) {
    const last = (await create('three', more)).at(-1)
    t.match(last?.text, text)
    t.equal(last?.exit, 1)
  }
  for (const name of ['../x', 'a b', '-x', '', 'x'.repeat(70)])
    t.match((await create(name, { set: tiny })).at(-1)?.text, /request\.invalid/)
  t.notOk(existsSync(dropIn('three')))
})

t.test('killed anywhere, a VM is declared whole or not at all, and apply goes on with it', async (t) => {
  // One kill at every so manieth line; at all of them in a full run.
  for (let nth = 0; ; nth += process.env.GARRISON_LAB_FULL === '1' ? 1 : 5) {
    const name = `killed-${nth}`
    let isKilled = false
    let told = 0
    await world.begin('vm create', { ...asked, name, set: tiny }, (_, agent) => {
      if (told === nth) isKilled = agent.kill('SIGKILL')
      told += 1
    })
    if (existsSync(dropIn(name))) {
      t.match((await world.apply()).line, { outcome: 'settled' })
      t.match((await create(name, { set: tiny })).at(-1), { line: { code: 'vm.name-taken' } })
    } else t.match((await create(name, { set: tiny })).at(-1), { line: { outcome: 'settled' } })
    t.equal(world.emulators(name).length, 1)
    ask('destroy', name)
    ask('undefine', name)
    rmSync(dropIn(name))
    if (!isKilled || nth > 12) break
  }
})
