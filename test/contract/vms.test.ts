// VMs by the engine over a real libvirtd and real (emulated) guests: from nothing to running, drift, silence, refusals.

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import type { Plan } from '../../agent/verbs/plan.ts'
import type { Status } from '../../agent/verbs/status.ts'
import { names, vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { libvirtd, pool, root, ask, all, answer, apply, emulators } = world

t.test('from nothing to running, and then nothing more', async (t) => {
  const planned = await answer<Plan>('plan')
  t.equal(planned.exit, 2)
  t.match(planned.text, /define VM blank/)
  const done = await apply()
  t.match(done.line, { outcome: 'settled', performed: planned.line.steps.length, problems: [] })
  t.equal(done.exit, 0)
  for (const name of names) {
    t.equal(ask('domstate', name).trim(), 'running')
    t.equal(emulators(name).length, 1)
    t.match(ask('dominfo', name), /Persistent: +yes[\s\S]*Autostart: +enable/)
  }
  const clone = execFileSync(
    '/usr/bin/qemu-img',
    ['info', '-U', '--output=json', join(pool, 'clone/root.qcow2')],
    {
      encoding: 'utf8',
    },
  )
  t.match(JSON.parse(clone), {
    'virtual-size': 32 * 2 ** 20,
    'backing-filename-format': 'qcow2',
    'full-backing-filename': new RegExp(`^${pool}/base-[0-9a-f]{16}.qcow2$`),
  })
  t.match(ask('domblklist', 'clone'), /seed\.iso/)
  t.match(await apply(), { exit: 0, line: { outcome: 'settled', performed: 0 } })
  const status = await answer<Status>('status', { fresh: true })
  t.match(status.line, { standing: 'settled', resources: [{ resource: 'vms', summary: '2 of 2 running' }] })
})

t.test('what a person changes is told field by field, and put back', async (t) => {
  const xml = join(root, 'blank.xml')
  const changed = ask('dumpxml', '--inactive', 'blank')
    .replace(/<memory [^>]*>\d+</, "<memory unit='KiB'>131072<")
    .replace(/<currentMemory [^>]*>\d+</, "<currentMemory unit='KiB'>131072<")
    .replace(/>1<\/vcpu>/, '>2</vcpu>')
    .replace("discard='unmap'", "discard='ignore'")
  writeFileSync(xml, changed)
  ask('define', xml)
  ask('autostart', '--disable', 'blank')
  ask('destroy', 'clone')
  const { line, text, exit } = await answer<Plan>('plan')
  t.equal(exit, 2)
  const changes = line.steps.flatMap(({ because }) => because)
  const seen = Object.fromEntries(changes.map(({ path, desired, observed }) => [path, [desired, observed]]))
  t.match(seen, {
    'vms.machines.blank.memory': ['64MiB', '128MiB'],
    'vms.machines.blank.cpus': [1, 2],
    'vms.machines.blank.disks.root.discard': ['unmap', 'ignore'],
    'vms.machines.blank.autostart': [true, false],
    'vms.machines.clone.power': ['running', 'off'],
  })
  t.equal(Object.keys(seen).length, 5, text ?? '')
  const why = await answer('why', { subject: 'vm', name: 'blank' })
  t.match(why.text, /^blank is running \(booted\)\.[\s\S]*vms\.redefine blank[\s\S]*64MiB[\s\S]*128MiB/)
  t.match(await apply(), { line: { outcome: 'settled' } })
  t.match(ask('dumpxml', '--inactive', 'blank'), /<memory unit='KiB'>65536</)
  t.equal(ask('domstate', 'clone').trim(), 'running')
})

t.test('a libvirtd that does not answer leaves VMs unknown, which is not off', async (t) => {
  await libvirtd.signal('SIGKILL')
  const gone = await answer<Status>('status', { fresh: true })
  t.equal(gone.exit, 4)
  t.match(gone.line, {
    standing: 'unknown',
    resources: [{ standing: 'unknown', steps: [], problem: { code: 'libvirt.unreachable' } }],
  })
  t.match(await apply(), { exit: 4, line: { outcome: 'unknown', performed: 0 } })
  await libvirtd.start()
  await libvirtd.signal('SIGSTOP')
  const began = Date.now()
  const stopped = await answer<Status>('status', { fresh: true })
  t.ok(Date.now() - began < 15_000, `${Date.now() - began} ms`)
  t.match(stopped, { exit: 4, line: { resources: [{ standing: 'unknown' }] } })
  await libvirtd.signal('SIGCONT')
  t.match(await answer('status', { fresh: true }), { exit: 0, line: { standing: 'settled' } })
  for (const name of names) t.equal(emulators(name).length, 1)
})

t.test('a VM that belongs to another host is not started', async (t) => {
  ask('destroy', 'blank')
  const record = join(pool, 'blank/owner-0000000002.json')
  const [first = ''] = readdirSync(join(pool, 'blank')).filter((name) => /^owner-\d+\.json$/.test(name))
  const owner = JSON.parse(readFileSync(join(pool, 'blank', first), 'utf8'))
  writeFileSync(record, JSON.stringify({ ...owner, epoch: 2, host: 'i-other' }))
  const done = await apply()
  t.match(done, {
    exit: 3,
    line: { outcome: 'blocked', left: [{ blocked: { code: 'vm.owned-elsewhere' } }] },
  })
  t.equal(ask('domstate', 'blank').trim(), 'shut off')
  t.match(await answer('why', { subject: 'vms', name: 'blank' }), {
    text: /belongs to i-other since epoch 2/,
  })
  t.test('until it is taken over, from whom it belongs to and in a new epoch', async (t) => {
    const take = (args: object) => all<ApplyLine>('vm take', { vm: 'blank', ...args })
    const last = async (args: object) => (await take(args)).at(-1)
    t.match(await last({ from: 'i-third', allow: 'destroys-data' }), {
      exit: 3,
      line: { left: [{ blocked: { message: 'blank belongs to i-other, not to i-third' } }] },
    })
    t.match(await last({ from: 'i-other' }), {
      exit: 3,
      text: /garrison vm take blank --from i-other --allow destroys-data/,
    })
    t.match(await last({ from: 'i-other', allow: 'destroys-data' }), {
      exit: 0,
      line: { outcome: 'settled', performed: 1 },
    })
    const taken = JSON.parse(readFileSync(join(pool, 'blank/owner-0000000003.json'), 'utf8'))
    t.same(taken, { ...owner, epoch: 3 })
    t.match(await last({ from: 'i-other', allow: 'destroys-data' }), { exit: 0, line: { performed: 0 } })
    t.match(await apply(), { exit: 0 })
    t.equal(ask('domstate', 'blank').trim(), 'running')
  })
  t.test('and disks that came without a record, from nobody', async (t) => {
    ask('destroy', 'blank')
    ask('undefine', 'blank')
    for (const name of readdirSync(join(pool, 'blank')))
      if (name.startsWith('owner-')) unlinkSync(join(pool, 'blank', name))
    t.match(await apply(), {
      exit: 3,
      line: { left: [{ blocked: { code: 'vm.disk-unowned', remedy: /vm take blank --from nobody/ } }] },
    })
    await all('vm take', { vm: 'blank', from: 'nobody', allow: 'destroys-data' })
    t.match(await apply(), { exit: 0, line: { outcome: 'settled' } })
    t.equal(emulators('blank').length, 1)
  })
  t.match(await answer('vm take', { vm: 'blakn', from: 'nobody' }), { line: { code: 'request.no-such-vm' } })
})

t.test('a VM whose disk is missing is not started', async (t) => {
  ask('destroy', 'blank')
  const disk = join(pool, 'blank/root.qcow2')
  const kept = readFileSync(disk)
  unlinkSync(disk)
  const done = await apply()
  t.match(done, { exit: 3, line: { outcome: 'blocked' } })
  t.equal(ask('domstate', 'blank').trim(), 'shut off')
  t.notOk(existsSync(disk), 'and no blank one is put in its place')
  writeFileSync(disk, kept)
  t.match(await apply(), { exit: 0 })
})

t.test('a VM whose network is not there is not started, and then is', async (t) => {
  ask('destroy', 'blank')
  world.declare({ nics: { lan: { network: 'lan' } } })
  t.match(await apply({ allow: 'disruptive' }), {
    exit: 3,
    line: { outcome: 'blocked', left: [{ key: 'vms.start blank', blocked: { code: 'vm.network-missing' } }] },
  })
  const xml = join(root, 'lan.xml')
  writeFileSync(xml, "<network><name>lan</name><bridge name='vb-lan'/></network>")
  ask('net-define', xml)
  t.match(await apply(), { exit: 3 }, 'defined is not active')
  ask('net-start', 'lan')
  t.match(await apply(), { exit: 0, line: { outcome: 'settled', performed: 1 } })
  t.match(ask('domiflist', 'blank'), /vnet\d+ +network +lan +virtio +52(:[0-9a-f]{2}){5}/)
  t.match(await apply(), { exit: 0, line: { performed: 0 } })
})
