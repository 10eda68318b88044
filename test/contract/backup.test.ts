// Backups and restores of guests that run, are paused and are off, over a real libvirtd and QEMU.

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { BackupLine, ShownBackup } from '../../agent/verbs/vm-backup.ts'
import type { BackupsLine } from '../../agent/verbs/vm-backups.ts'
import type { RestoreLine } from '../../agent/verbs/vm-restore.ts'
import { backupWorld } from './backup-world.ts'

const world = await backupWorld()
t.teardown(() => world.stop())
const { ask, place, diskOf, folderOf, counted, countsBeyond, define, verb } = world

/** Backs a guest up, which must succeed. */
async function backUp(guest: string, flags: object = {}): Promise<ShownBackup & { readonly text: string }> {
  const { lines, last } = await verb<BackupLine>('vm backup', {
    ...{ names: [guest], tag: [], all: false, to: place, init: true, full: false, freeze: false },
    ...flags,
  })
  const done = lines.map(({ line }) => line).find((line) => line.event === 'done')
  if (last.exit !== 0 || done === undefined) throw new Error(JSON.stringify(lines.map(({ line }) => line)))
  return { ...(done as unknown as { readonly backup: ShownBackup }).backup, text: done.text }
}

const restore = async (guest: string, flags: object = {}) =>
  (await verb<RestoreLine>('vm restore', { vm: guest, from: place, overwrite: false, ...flags })).last

const imageOf = (guest: string, { disks }: ShownBackup, target = 'vda') =>
  join(place, guest, disks.find((disk) => disk.target === target)?.file ?? '')

const checkpoints = (guest: string) => ask('checkpoint-list', guest, '--name').trim()

t.test('a guest that runs is copied as it is at one moment: whole, and then what has changed', async (t) => {
  define('runs')
  ask('start', 'runs')
  let last = await countsBeyond('runs', 50)
  const made: ShownBackup[] = []
  for (const kind of ['full', 'incremental', 'incremental'] as const) {
    const backup = await backUp('runs')
    const found = counted(imageOf('runs', backup))
    t.ok(found.isOneMoment, 'it was on the disk like this at once')
    t.ok(found.last >= last, 'and that was after the backup had begun')
    t.match(backup, {
      consistency: 'crash',
      disks: [{ target: 'vda', name: 'root', kind, on: made.at(-1)?.id ?? null, virtualBytes: 32 * 2 ** 20 }],
    })
    t.equal(checkpoints('runs'), backup.checkpoint, 'libvirt keeps the record since this one alone')
    made.push(backup)
    last = await countsBeyond('runs', found.last + 100)
  }
  for (const backup of made) t.ok(counted(imageOf('runs', backup)).isOneMoment, 'images are left as they are')
  t.equal(statSync(join(place, 'runs/manifest.json')).mode & 0o777, 0o600)
  t.equal(statSync(imageOf('runs', made[0] as ShownBackup)).mode & 0o777, 0o600)
})

t.test('a guest that is paused, and then off, is copied as its disk is', async (t) => {
  ask('suspend', 'runs')
  const paused = await backUp('runs')
  t.same(counted(imageOf('runs', paused)), counted(diskOf('runs')))
  ask('resume', 'runs')
  await countsBeyond('runs', counted(diskOf('runs')).last + 50)
  ask('destroy', 'runs')
  const off = await backUp('runs')
  t.match(off, { consistency: 'off', checkpoint: null, disks: [{ kind: 'incremental', on: paused.id }] })
  t.same(counted(imageOf('runs', off)), counted(diskOf('runs')))
  execFileSync('/usr/bin/qemu-img', ['compare', '-q', imageOf('runs', off), diskOf('runs')])

  ask('start', 'runs')
  const again = await backUp('runs', { full: true })
  t.match(again, { why: 'it was asked for', disks: [{ kind: 'full', on: null }] })
})

t.test(
  'a backup is restored as another VM, over the disks of one that is off, and as the VM that was lost',
  async (t) => {
    ask('suspend', 'runs')
    await backUp('runs')
    const then = counted(diskOf('runs'))
    ask('resume', 'runs')
    await countsBeyond('runs', then.last + 100)

    t.match(await restore('runs', { as: 'twin' }), { exit: 0, line: { defined: true, vm: 'twin' } })
    t.same(counted(diskOf('twin')), then)
    const [xml, twin] = [ask('dumpxml', 'runs'), ask('dumpxml', 'twin')]
    const uuidOf = (text: string) => /<uuid>(.*)<\/uuid>/.exec(text)?.[1]
    t.not(uuidOf(twin), uuidOf(xml))
    t.notMatch(twin, /52:54:00:00:00:01/)
    ask('start', 'twin')
    await countsBeyond('twin', then.last)
    t.match(await restore('runs', { as: 'twin' }), { line: { code: 'backup.in-the-way' } })

    t.match(await restore('runs', { overwrite: true }), { line: { code: 'vm.wrong-power' } })
    ask('destroy', 'runs')
    const before = counted(diskOf('runs'))
    t.match(await restore('runs'), { line: { code: 'backup.in-the-way' } })
    t.same(counted(diskOf('runs')), before)
    t.match(await restore('runs', { overwrite: true }), { exit: 0, line: { defined: false } })
    t.same(counted(diskOf('runs')), then)
    t.same(readdirSync(folderOf('runs')), ['root.qcow2'])
    t.equal(checkpoints('runs'), '')
    ask('start', 'runs')
    t.match(await backUp('runs'), {
      why: 'nobody kept a record of what has changed since the last one',
      disks: [{ kind: 'full' }],
    })

    ask('destroy', 'runs')
    ask('undefine', 'runs', '--checkpoints-metadata')
    rmSync(folderOf('runs'), { recursive: true })
    t.match(await restore('runs'), { exit: 0, line: { defined: true } })
    t.equal(uuidOf(ask('dumpxml', 'runs')), uuidOf(xml))
    ask('start', 'runs')
    await countsBeyond('runs', then.last)
  },
)

t.test('raw disks are copied whole, seeds with them, and installers not at all', async (t) => {
  const iso = join(world.libvirtd.folder, 'installer.iso')
  writeFileSync(iso, Buffer.alloc(2 ** 20, 1))
  const cdrom = (file: string, target: string) =>
    `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${file}'/><target dev='${target}' bus='sata'/><readonly/></disk>`
  const seed = join(folderOf('raw'), 'seed.iso')
  define('raw', { format: 'raw', more: `<controller type='sata'/>${cdrom(seed, 'sda')}${cdrom(iso, 'sdb')}` })
  writeFileSync(seed, Buffer.alloc(64 * 1024, 2))
  ask('start', 'raw')
  await countsBeyond('raw', 20)
  for (const why of ['it is the first', 'it is raw, which keeps no record of what changes']) {
    const backup = await backUp('raw')
    t.match(backup, {
      why,
      checkpoint: null,
      disks: [
        { target: 'vda', kind: 'full' },
        { target: 'sda', name: null, virtualBytes: 64 * 1024 },
      ],
      leftOut: [{ target: 'sdb', source: iso }],
    })
    t.ok(counted(imageOf('raw', backup)).isOneMoment)
  }
  ask('destroy', 'raw')
  const off = await backUp('raw')
  t.match(
    off,
    { disks: [{ kind: 'incremental' }, { kind: 'incremental' }] },
    'what differs is found by reading both',
  )
  const then = counted(join(folderOf('raw'), 'root.raw'), 'raw')
  t.match(await restore('raw', { as: 'raw-2' }), { exit: 0 })
  t.same(counted(join(folderOf('raw-2'), 'root.raw'), 'raw'), then)
  t.same(readFileSync(join(folderOf('raw-2'), 'sda.raw')), readFileSync(seed))
  t.match(ask('dumpxml', 'raw-2'), iso)
})

t.test('the variables of the firmware come back with the VM, and beside it with another', async (t) => {
  const variables = join(folderOf('uefi'), 'uefi_VARS.fd')
  define('uefi', {
    os: `<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram>${variables}</nvram>`,
  })
  const content = Buffer.alloc(540_672, 7)
  writeFileSync(variables, content)
  t.match(await backUp('uefi'), { firmware: { path: variables, fileBytes: content.length } })
  t.match(await restore('uefi', { as: 'uefi-2' }), { exit: 0 })
  const twin = join(folderOf('uefi'), 'uefi-2_VARS.fd')
  t.same(readFileSync(twin), content)
  t.match(ask('dumpxml', 'uefi-2'), new RegExp(`<nvram>${twin}</nvram>`))
  ask('undefine', '--keep-nvram', 'uefi')
  rmSync(folderOf('uefi'), { recursive: true })
  t.match(await restore('uefi'), { exit: 0 })
  t.same(readFileSync(variables), content)
})

t.test('when the record of what changed is lost, all is copied, and why is said', async (t) => {
  await backUp('runs')
  const [pid] = world.emulators('runs')
  process.kill(pid ?? 0, 'SIGKILL')
  while (ask('domstate', 'runs').trim() !== 'shut off') execFileSync('/usr/bin/sleep', ['0.1'])
  ask('start', 'runs')
  const backup = await backUp('runs')
  t.match(backup, { why: /missing or broken bitmap/, disks: [{ kind: 'full' }] })
  t.equal(checkpoints('runs'), backup.checkpoint)
  t.match(await backUp('runs'), { disks: [{ kind: 'incremental', on: backup.id }] })
})

t.test('a VM whose changes are recorded cannot be reverted, until that is forgotten', async (t) => {
  const untrack = async () => {
    const { lines } = await verb<BackupLine>('vm untrack', { names: ['runs'], tag: [], all: false })
    return lines.map(({ line }) => line).find(({ event }) => event === 'done')
  }
  ask('snapshot-create-as', 'runs', 'before')
  t.throws(() => ask('snapshot-revert', 'runs', 'before'), /dirty bitmaps/)
  t.match(await untrack(), { changed: true, text: '1 record forgotten' })
  t.match(await untrack(), { changed: false })
  ask('snapshot-revert', 'runs', 'before')
  ask('snapshot-delete', 'runs', 'before')
  await backUp('runs')
  ask('destroy', 'runs')
  t.match(await untrack(), { changed: true })
  t.notMatch(execFileSync('/usr/bin/qemu-img', ['info', diskOf('runs')], { encoding: 'utf8' }), /bitmaps/)
  ask('snapshot-create-as', 'runs', 'off')
  ask('snapshot-delete', 'runs', 'off')
  ask('start', 'runs')
})

t.test('what was damaged is found, is not restored from, and is not stood on', async (t) => {
  const full = await backUp('runs', { full: true })
  const changes = await backUp('runs')
  const file = openSync(imageOf('runs', full), 'r+')
  writeSync(file, Buffer.from('x'), 0, 1, 600_000)
  closeSync(file)
  t.match(await restore('runs', { as: 'bad' }), {
    line: { code: 'backup.damaged', message: /full\.qcow2 is not as it was written/ },
  })
  t.notOk(existsSync(folderOf('bad')))
  const verified = await verb<BackupsLine>('vm verify', { dir: place, vm: 'runs' })
  t.match(verified.last, { exit: 1, line: { damaged: 1, unreadable: 0 } })
  t.match(await restore('runs', { as: 'bad', at: full.id }), { line: { code: 'backup.damaged' } })
  const next = await backUp('runs')
  t.match(next, { disks: [{ kind: 'full' }] }, `not on ${changes.id}, which stands on what is damaged`)
  t.match((await verb<BackupsLine>('vm backups', { dir: place, vm: 'runs' })).last, {
    exit: 1,
    line: { damaged: 1 },
  })

  rmSync(imageOf('runs', next))
  t.match(await restore('runs', { as: 'bad', at: next.id }), { line: { code: 'backup.damaged' } })
  t.match(await backUp('runs'), { why: /is not there as it was/, disks: [{ kind: 'full' }] })
})

t.test('a manifest that is torn is not taken for an empty one', async (t) => {
  const path = join(place, 'raw/manifest.json')
  const text = readFileSync(path, 'utf8')
  const before = readdirSync(join(place, 'raw'))
  for (const torn of [text.slice(0, -100), '', text.replace('"crash"', '"off"'), 'x\n{}\n']) {
    writeFileSync(path, torn)
    const { lines, last } = await verb<BackupLine>('vm backup', {
      ...{ names: ['raw'], tag: [], all: false, to: place, init: false, full: false, freeze: false },
    })
    t.match(lines.at(-2), { line: { event: 'failed', problem: { code: 'backup.manifest-damaged' } } })
    t.equal(last.exit, 1)
    t.match((await verb<BackupsLine>('vm backups', { dir: place, vm: undefined })).last, {
      exit: 1,
      line: { unreadable: 1 },
    })
  }
  t.same(readdirSync(join(place, 'raw')), before)
  writeFileSync(path, text)
})

t.test('retention keeps what is stood on, and ends what it had begun to remove', async (t) => {
  rmSync(join(place, 'raw'), { recursive: true })
  ask('start', 'raw')
  const first = await backUp('raw')
  const second = await backUp('raw', { keep: '1' })
  t.match(second.text, /1 older one removed/)
  t.notOk(existsSync(imageOf('raw', first)))
  ask('destroy', 'raw')
  const third = await backUp('raw', { keep: '1' })
  t.match(third, { disks: [{ on: second.id }] })
  t.ok(existsSync(imageOf('raw', second)), 'the last one stands on it')
})

t.test('a folder is used only when it bears the mark, and belongs to nobody else', async (t) => {
  const other = join(world.libvirtd.folder, 'other')
  const asked = { names: ['raw'], tag: [], all: false, full: false, freeze: false }
  const to = async (path: string, init: boolean) =>
    (await verb<BackupLine>('vm backup', { ...asked, to: path, init })).last
  t.match(await to(other, true), { line: { code: 'backup.no-place' } })
  execFileSync('/usr/bin/mkdir', [other])
  t.match(await to(other, false), { line: { code: 'backup.no-place' } })
  execFileSync('/usr/bin/chmod', ['0777', other])
  t.match(await to(other, true), { line: { code: 'backup.not-trusted' } })
  t.match(await to('relative', true), { line: { code: 'request.invalid' } })
  t.match((await verb('vm backups', { dir: place, vm: 'nobody' })).last, { line: { code: 'backup.none' } })
  t.match(await restore('nobody'), { line: { code: 'backup.none' } })
  t.match(await restore('raw', { at: '20000101T000000Z' }), { line: { code: 'backup.none' } })
})
