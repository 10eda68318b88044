// VMs exported into a folder and imported from it, over a real libvirtd and QEMU: what was there is there again, and nothing else.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { ImportLine } from '../../agent/verbs/vm-import.ts'
import { exportWorld } from './export-world.ts'

const world = await exportWorld()
t.teardown(() => world.stop())
const { ask, pool, root, counted, countsBeyond, define, verb, out, exported, imported, documentIn, dropIn } =
  world

/** In this process: what is refused before the host is looked at. */
const refused = async (dir: string, flags: object = {}) => {
  const { lines } = await verb<ImportLine>('vm import', {
    ...{ dir, 'new-identity': false, set: [], plan: false, declare: false },
    ...flags,
  })
  return lines.map(({ text }) => text).join('\n')
}

t.test('a guest that runs is exported as it is at one moment, and imported beside the old one', async (t) => {
  define('runs')
  ask('start', 'runs')
  const last = await countsBeyond('runs', 50)
  const dir = join(out, 'runs')
  const first = await exported('runs', dir)
  t.equal(first.last.exit, 0, first.text)
  t.same(readdirSync(dir).sort(), ['vda.qcow2', 'vm.json'])
  const copy = counted(join(dir, 'vda.qcow2'))
  t.ok(copy.isOneMoment)
  t.ok(copy.last >= last)
  t.match(documentIn(dir), {
    name: 'runs',
    consistency: 'crash',
    from: 'definition',
    template: null,
    disks: [{ name: 'root', file: 'vda.qcow2', virtualBytes: 32 * 2 ** 20 }],
    machine: { memory: '32MiB', firmware: 'bios', machine: 'pc', accelerator: 'tcg' },
  })
  t.equal(ask('checkpoint-list', 'runs', '--name').trim(), '', 'libvirt keeps no record for it')

  t.match((await imported(dir)).text, /vm\.name-taken/)
  t.match((await imported(dir, { name: 'twin' })).text, /vm\.uuid-taken/)
  const beside = { name: 'twin', 'new-identity': true }
  const planned = await imported(dir, { ...beside, plan: true })
  t.match(planned.last, { exit: 0, line: { event: 'planned' } })
  t.match(planned.text, /^twin is runs of .*, exported .* while it ran, as after a power cut\./)
  t.match(planned.text, /left behind +nic0: a NIC of the kind user/)
  t.notOk(existsSync(dropIn('twin')))

  const made = await imported(dir, beside)
  t.match(made.last, { exit: 0, line: { outcome: 'settled' } }, made.text)
  t.ok(made.lines.some(({ line }) => line.event === 'progress' && line.doing === 'checking'))
  t.same(readdirSync(join(pool, 'twin')).sort(), ['owner-0000000001.json', 'root.qcow2'])
  t.equal(statSync(join(pool, 'twin/root.qcow2')).mode & 0o777, 0o600)
  t.same(readdirSync(pool), ['twin'], 'the pool keeps no image')
  t.equal(ask('domstate', 'twin').trim(), 'running')
  t.ok(counted(join(pool, 'twin/root.qcow2')).last >= copy.last, 'it goes on from there')
  t.match((await world.apply()).line, { outcome: 'settled' })
  ask('destroy', 'twin')
  ask('undefine', 'twin')

  rmSync(dropIn('twin'))
  t.match((await imported(dir, beside)).text, /file\.exists: the disk root of twin is there already/)
  t.notOk(existsSync(dropIn('twin')))
  t.match((await exported('runs', dir)).last.line, { failed: 1 })
  t.match((await exported('runs', dir)).text, /export\.in-the-way.*holds an export already/)
})

t.test('what is declared is exported as it is declared, without what is about the host', async (t) => {
  world.declare({
    tags: { env: 'prod' },
    cpus: 2,
    devices: {},
    xml: [{ set: '/domain/devices/memballoon/@model', value: 'none' }],
    disks: { root: { size: '16MiB', cache: 'writeback', bus: 'scsi' } },
  })
  const done = await world.apply({ allow: 'disruptive' })
  t.match(done.line, { outcome: 'settled' }, done.text ?? '')
  ask('destroy', 'blank')
  ask('destroy', 'clone')
  const dir = join(out, 'blank')
  t.equal((await exported('blank', dir)).last.exit, 0)
  const blank = documentIn(dir)
  t.match(blank, {
    ...{ from: 'document', consistency: 'off', left: [/xml/] },
    machine: { cpus: 2, tags: { env: 'prod' }, disks: { root: { cache: 'writeback', bus: 'scsi' } } },
  })
  t.notMatch(JSON.stringify(blank.machine), /pool|memballoon|owner|epoch/)
  t.equal((await exported('clone', join(out, 'clone'))).last.exit, 0)
  t.match(documentIn(join(out, 'clone')), {
    left: [/cloud-init/],
    disks: [{ name: 'root' }],
    machine: { cloudInit: { hostname: 'clone' } },
  })
  t.equal(
    documentIn(join(out, 'clone')).disks.length,
    1,
    'its seed is made anew, and its disk stands on nothing',
  )

  const again = await imported(join(out, 'clone'), {
    name: 'second',
    'new-identity': true,
    set: ['power=off'],
  })
  t.match(again.last, { exit: 0, line: { outcome: 'settled' } }, again.text)
  t.equal(ask('domstate', 'second').trim(), 'shut off')
  t.ok(existsSync(join(pool, 'second/seed.iso')))
  execFileSync('/usr/bin/qemu-img', [
    'compare',
    join(pool, 'second/root.qcow2'),
    join(pool, 'clone/root.qcow2'),
  ])
  t.match((await imported(join(out, 'clone'), { name: 'third', declare: true })).text, /vm\.uuid-taken/)
  const macs = { name: 'third', 'new-identity': true, set: ['nics={lan: {mac: "52:54:00:00:00:01"}}'] }
  t.match((await imported(join(out, 'clone'), macs)).text, /vm\.mac-taken.*runs/)
})

t.test('what the firmware keeps goes with a VM: exported, imported, renamed and deleted', async (t) => {
  const variablesOf = (name: string) => join(root, 'var/lib/libvirt/qemu/nvram', `${name}_VARS.fd`)
  const made = await world.all('vm create', {
    ...{ name: 'uefi', with: [], plan: false, declare: false, detach: false },
    set: ['accelerator=tcg', 'firmware=uefi', 'memory=64MiB', 'disks.root.size=16MiB'],
  })
  t.equal(made.at(-1)?.exit, 0, made.map(({ text }) => text).join(' '))
  ask('destroy', 'uefi')
  const content = readFileSync(variablesOf('uefi'))
  content.write('what this VM boots', content.length - 64)
  writeFileSync(variablesOf('uefi'), content)
  const dir = join(out, 'uefi')
  const { last, text } = await exported('uefi', dir)
  t.equal(last.exit, 0, text)
  t.same(readdirSync(dir).sort(), ['firmware.fd', 'vda.qcow2', 'vm.json'])
  t.match(documentIn(dir), { firmware: { file: 'firmware.fd', fileBytes: content.length } })

  writeFileSync(variablesOf('moved'), 'of a VM that is gone')
  const asked = { name: 'moved', 'new-identity': true }
  t.match((await imported(dir, asked)).last, { exit: 0, line: { outcome: 'settled' } })
  t.equal(ask('domstate', 'moved').trim(), 'running')
  ask('destroy', 'moved')
  t.match(readFileSync(variablesOf('moved')).toString('latin1'), /what this VM boots/)
  t.equal(statSync(variablesOf('moved')).size, content.length)

  rmSync(dropIn('moved'))
  t.equal((await world.all('vm rename', { vm: 'moved', name: 'renamed' })).at(-1)?.exit, 0)
  t.notOk(existsSync(variablesOf('moved')))
  t.match(readFileSync(variablesOf('renamed')).toString('latin1'), /what this VM boots/)
  const deleting = { names: ['renamed'], tag: [], disks: true }
  t.equal((await world.all('vm delete', deleting)).at(-1)?.exit, 0)
  t.notOk(existsSync(variablesOf('renamed')))
})

/** An export that was changed by hand. */
function changed(
  from: string,
  to: string,
  change: (vm: Record<string, unknown>) => void,
  sign = true,
): string {
  const dir = join(out, to)
  rmSync(dir, { recursive: true, force: true })
  cpSync(join(out, from), dir, { recursive: true })
  const path = join(dir, 'vm.json')
  const document = JSON.parse(readFileSync(path, 'utf8'))
  change(document.vm)
  if (sign) document.sha256 = createHash('sha256').update(JSON.stringify(document.vm)).digest('hex')
  writeFileSync(path, JSON.stringify(document))
  return dir
}

t.test('what was damaged, or leads elsewhere, is refused before anything is written', async (t) => {
  type Vm = { [key: string]: unknown; machine: Record<string, unknown>; disks: Record<string, unknown>[] }
  const hostile: readonly (readonly [(vm: Vm) => void, RegExp])[] = [
    [(vm) => Object.assign(vm, { name: '../../etc' }), /a VM is called by.*etc/],
    [(vm) => Object.assign(vm, { name: '__proto__' }), /a VM is called by.*__proto__/],
    [(vm) => Object.assign(vm, { more: 1 }), /no export says/],
    [(vm) => Object.assign(vm.disks[0] ?? {}, { file: '../runs/vda.qcow2' }), /disks\.0\.file/],
    [(vm) => Object.assign(vm.disks[0] ?? {}, { file: '/etc/shadow' }), /disks\.0\.file/],
    [(vm) => Object.assign(vm.disks[0] ?? {}, { name: '../x' }), /export\.damaged/],
    [(vm) => vm.disks.push({ ...vm.disks[0], name: 'other' }), /names a file twice/],
    [(vm) => Object.assign(vm.machine, { disks: {} }), /declares the disks/],
    [(vm) => Object.assign(vm.machine, { disks: { root: { path: '/etc/shadow' } } }), /disks\.root\.path/],
    [
      (vm) => Object.assign(vm.machine, { disks: { root: { image: { source: '/etc/shadow' } } } }),
      /disks\.root\.image/,
    ],
    [
      (vm) => Object.assign(vm.machine, { xml: [{ set: '/domain/devices/emulator', value: '/bin/sh' }] }),
      /a host alone: xml/,
    ],
    [
      (vm) => Object.assign(vm.machine, { devices: { gpu: { pci: '0000:3b:00.0' } } }),
      /a host alone: devices/,
    ],
    [(vm) => Object.assign(vm.machine, { pool: 'images' }), /a host alone: pool/],
    [(vm) => Object.assign(vm.machine, { emulator: '/bin/sh' }), /cannot be declared/],
    [(vm) => Object.assign(vm.machine, { nics: { lan: { bridge: 'a/../b' } } }), /nics\.lan\.bridge/],
    [(vm) => Object.assign(vm, { host: 'a\nvms: {}' }), /control characters/],
    [(vm) => Object.assign(vm, { architecture: 'sparc' }), /export\.other-architecture/],
  ]
  const all = { name: 'hostile', 'new-identity': true }
  for (const [change, text] of hostile) {
    const dir = changed('blank', 'hostile', change as (vm: Record<string, unknown>) => void)
    t.match(await refused(dir, text.source.includes('called by') ? {} : all), text)
  }
  const unsigned = changed('blank', 'hostile', (vm) => Object.assign(vm, { atMs: 1 }), false)
  t.match(await refused(unsigned, all), /is not as it was written/)

  const spoil = async (spoiled: (dir: string) => void, text: RegExp) => {
    const dir = changed('blank', 'hostile', () => undefined)
    spoiled(dir)
    t.match(await refused(dir, all), text)
    return dir
  }
  const disk = (dir: string) => join(dir, 'sda.qcow2')
  await spoil((dir) => rmSync(disk(dir)), /is not there/)
  await spoil((dir) => appendFileSync(disk(dir), 'x'), /bytes, and was written with/)
  await spoil((dir) => {
    rmSync(disk(dir))
    symlinkSync(join(out, 'blank/sda.qcow2'), disk(dir))
  }, /is no file/)
  await spoil((dir) => chmodSync(dir, 0o777), /backup\.not-trusted/)
  await spoil((dir) => chmodSync(disk(dir), 0o666), /backup\.not-trusted/)
  await spoil((dir) => writeFileSync(join(dir, 'vm.json'), '{"schema":'), /is torn/)
  await spoil((dir) => writeFileSync(join(dir, 'vm.json'), 'x'.repeat(2 ** 21)), /is longer/)
  await spoil((dir) => rmSync(join(dir, 'vm.json')), /holds no export/)

  const flipped = changed('blank', 'hostile', () => undefined)
  const content = readFileSync(disk(flipped))
  content[content.length - 1] = (content.at(-1) ?? 0) ^ 1
  writeFileSync(disk(flipped), content)
  t.match((await imported(flipped, all)).text, /export\.damaged.*is not as it was written/)

  // Whole by its checksum, and leading to a file of the host all the same.
  const leads = changed('blank', 'hostile', (vm) => {
    const path = join(out, 'hostile/sda.qcow2')
    execFileSync('/usr/bin/qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-F',
      'raw',
      '-b',
      '/etc/shadow',
      path,
      '16M',
    ])
    const image = readFileSync(path)
    const [held] = vm.disks as Record<string, unknown>[]
    Object.assign(held ?? {}, {
      fileBytes: image.length,
      sha256: createHash('sha256').update(image).digest('hex'),
    })
  })
  t.match((await imported(leads, all)).text, /export\.damaged.*stands on \/etc\/shadow/)
  t.notOk(existsSync(dropIn('hostile')))
  t.notOk(existsSync(join(pool, 'hostile')))
})

t.test('a VM with a name that no document takes is exported, and imported under another', async (t) => {
  define('größe 1')
  const dir = join(out, 'named')
  t.equal((await exported('größe 1', dir)).last.exit, 0)
  t.match(await refused(dir), /request\.invalid: a VM is called by/)
  const named = { name: 'size-1', 'new-identity': true, plan: true }
  t.match((await imported(dir, named)).last, { exit: 0, line: { event: 'planned', vm: 'size-1' } })
})

t.test('what cannot be exported into is refused, and what is there is left alone', async (t) => {
  const full = join(out, 'full')
  mkdirSync(full)
  writeFileSync(join(full, 'notes'), '')
  t.match((await exported('blank', full)).text, /export\.in-the-way.*is not empty/)
  t.same(readdirSync(full), ['notes'])
  t.match((await exported('blank', join(full, 'notes'))).text, /export\.in-the-way.*is no folder/)
  t.match((await exported('blank', join(out, 'not/mounted'))).text, /request\.invalid.*mount or make it/)
  t.match((await exported('blank', 'relative')).text, /request\.invalid/)
  const open = join(out, 'open')
  mkdirSync(open)
  chmodSync(open, 0o777)
  t.match((await exported('blank', open)).text, /backup\.not-trusted/)
})
