// Backups and restores cut short: the agent, libvirtd and QEMU killed inside them, jobs cancelled and interrupted. What was there
// before is there after, and the next run ends what was begun or begins anew.

import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, watch, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { BackupLine } from '../../agent/verbs/vm-backup.ts'
import type { RestoreLine } from '../../agent/verbs/vm-restore.ts'
import { chainOf, type Manifest, parseManifest } from '../../agent/vms/backup/manifest.ts'
import { Qmp } from '../lab/qmp.ts'
import { backupWorld } from './backup-world.ts'
import type { Counted } from './counting-guest.ts'

t.setTimeout(600_000)
const world = await backupWorld()
t.teardown(() => world.stop())
const { ask, begin, place, diskOf, folderOf, counted, countsBeyond, define, verb } = world

/** One kill at every so manieth event; all of them in a full run. */
const stride = process.env.GARRISON_LAB_FULL === '1' ? 1 : 7

const askedBackup = (guest: string, flags: object = {}) => ({
  ...{ names: [guest], tag: [], all: false, to: place, init: true, full: false, freeze: false },
  ...flags,
})

const manifestOf = (guest: string): Manifest | null => {
  const path = join(place, guest, 'manifest.json')
  return existsSync(path) ? parseManifest(readFileSync(path, 'utf8'), path) : null
}

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

/** Every backup in the manifest is what it was when it was made, and stands on what is there. */
function wantSound(t: Test, guest: string): void {
  const manifest = manifestOf(guest)
  for (const { id, disks } of manifest?.backups ?? [])
    for (const { target, file, sha256: known } of disks) {
      const path = join(place, guest, file)
      t.equal(existsSync(path) && sha256(path), known, `${file} is sound`)
      t.ok(chainOf(manifest ?? { backups: [] }, id, target), `${file} stands on what is there`)
    }
}

/** Nothing is there but what the manifest names, and libvirt keeps one record at most. */
function wantTidy(t: Test, guest: string): void {
  const manifest = manifestOf(guest)
  const named = manifest?.backups.flatMap(({ disks }) => disks.map(({ file }) => file)) ?? []
  t.same(readdirSync(join(place, guest)).sort(), [...named, 'manifest.json'].sort())
  t.match(manifest, { begun: null, removing: [] })
  const newest = manifest?.backups.findLast(({ checkpoint }) => checkpoint !== null)?.checkpoint ?? ''
  t.equal(ask('checkpoint-list', guest, '--name').trim(), newest)
}

async function backUp(t: Test, guest: string, flags: object = {}): Promise<Counted> {
  const { lines, last } = await verb<BackupLine>('vm backup', askedBackup(guest, flags))
  t.equal(last.exit, 0, lines.map(({ text }) => text).join(' '))
  wantSound(t, guest)
  wantTidy(t, guest)
  const newest = manifestOf(guest)?.backups.at(-1)
  return counted(join(place, guest, newest?.disks.find(({ target }) => target === 'vda')?.file ?? ''))
}

/** Runs a verb in a process that is killed at the nth name that comes or goes in some folders; whether it came so far. */
async function killedAt(
  name: string,
  args: object,
  folders: readonly string[],
  nth: number,
): Promise<boolean> {
  let seen = 0
  let isKilled = false
  let kill = () => {}
  const watchers = folders.map((folder) =>
    watch(folder, { recursive: true }, (event) => {
      // Names that come, go and change; not each write.
      if (event === 'rename') seen += 1
      if (seen > nth && !isKilled) kill()
    }),
  )
  await begin(name, args, (_, agent) => {
    kill = () => {
      isKilled = agent.kill('SIGKILL')
    }
  })
  for (const watcher of watchers) watcher.close()
  return isKilled
}

t.test('the agent killed at every change that a backup makes', async (t) => {
  define('counts')
  ask('start', 'counts')
  await countsBeyond('counts', 20)
  let kills = 0
  const scenarios = [
    { name: 'whole', flags: { full: true }, isOff: false },
    { name: 'what has changed', flags: {}, isOff: false },
    { name: 'one removed', flags: { full: true, keep: '1' }, isOff: false },
    { name: 'off', flags: {}, isOff: true },
  ]
  for (const { name, flags, isOff } of scenarios) {
    if (isOff) ask('destroy', 'counts')
    for (let nth = kills % stride; ; nth += stride) {
      const wasKilled = await killedAt('vm backup', askedBackup('counts', flags), [place], nth)
      wantSound(t, 'counts')
      const copy = await backUp(t, 'counts', flags)
      t.ok(copy.isOneMoment, `${name}: the next one is whole after a kill at change ${nth}`)
      if (isOff) t.same(copy, counted(diskOf('counts')))
      if (!wasKilled) break
      kills += 1
    }
  }
  t.ok(kills > 3)
  t.comment(`${kills} kills`)
})

/** Speaks to the QEMU of a guest, as one may at a time. */
async function talking<Answer>(guest: string, ask: (qmp: Qmp) => Promise<Answer>): Promise<Answer> {
  const qmp = await Qmp.connect(world.qmpOf(guest))
  return ask(qmp).finally(() => qmp.close())
}

const jobsOf = async (qmp: Qmp) => (await qmp.ask('query-jobs')) as { id: string; status: string }[]

/**
 * Has QEMU read the second disk of a guest through a node of its own that lets so many bytes pass in a second, and begins a backup;
 * resolves when that copies it and has ended with the first disk. `go` takes the node out again.
 */
async function slowed<T>(
  guest: string,
  work: () => Promise<T>,
  bytesPerSecond = 32 * 2 ** 10,
): Promise<{ readonly result: Promise<T>; go(): Promise<void> }> {
  const read = (qmp: Qmp, file: string) => {
    const options = [{ driver: 'raw', 'node-name': 'libvirt-1-format', file }]
    return qmp.ask('blockdev-reopen', { options })
  }
  await talking(guest, async (qmp) => {
    const nodes = (await qmp.ask('query-named-block-nodes')) as { 'node-name': string }[]
    if (!nodes.some((node) => node['node-name'] === 'slow')) {
      await qmp.ask('object-add', { 'qom-type': 'throttle-group', id: 'turtle' })
      const filter = { driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'turtle' }
      await qmp.ask('blockdev-add', { ...filter, file: 'libvirt-1-storage' })
    }
    const value = { 'bps-total': bytesPerSecond }
    await qmp.ask('qom-set', { path: '/objects/turtle', property: 'limits', value })
    await read(qmp, 'slow')
  })
  const result = work()
  const copiesAlone = async (qmp: Qmp) => {
    for (const end = Date.now() + 120_000; Date.now() < end; await sleep(50)) {
      const [job, ...others] = await jobsOf(qmp)
      if (job?.id.startsWith('backup-vdb-') && job.status === 'running' && others.length === 0)
        if (ask('blockjob', guest, 'vda').trim() === '')
          // QEMU has taken leave of the first disk's job before libvirtd has written down that it has ended.
          return
    }
    throw new Error(`no backup copies vdb alone: ${JSON.stringify(await jobsOf(qmp))}`)
  }
  await Promise.race([talking(guest, copiesAlone), result])
  return { result, go: () => talking(guest, (qmp) => read(qmp, 'libvirt-1-storage')).then(() => {}) }
}

t.test('a backup that takes long', async (t) => {
  const data = join(folderOf('slow'), 'data.raw')
  define('slow', {
    more: `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${data}'/><target dev='vdb' bus='virtio'/></disk>`,
  })
  writeFileSync(data, Buffer.alloc(96 * 2 ** 20, 1))
  ask('start', 'slow')
  await countsBeyond('slow', 20)
  await backUp(t, 'slow')
  const problemOf = (lines: readonly { readonly line: BackupLine }[]) =>
    lines.flatMap(({ line }) => (line.event === 'failed' ? line.problem.code : []))

  t.test('is cancelled, and leaves nothing', async (t) => {
    const cancelling = new AbortController()
    const work = () => verb<BackupLine>('vm backup', askedBackup('slow'), { signal: cancelling.signal })
    // QEMU ends none before what is being read has come: up to 64 requests of 1 MiB each.
    const { result, go } = await slowed('slow', work, 6 * 2 ** 20)
    cancelling.abort('cancelled')
    const { lines } = await result
    await go()
    t.same(problemOf(lines), ['job.cancelled'])
    wantSound(t, 'slow')
    wantTidy(t, 'slow')
  })

  t.test('is interrupted, and gone on with', async (t) => {
    const interrupting = new AbortController()
    const first = await slowed('slow', () =>
      verb<BackupLine>('vm backup', askedBackup('slow'), { signal: interrupting.signal }),
    )
    interrupting.abort('interrupted')
    t.same(problemOf((await first.result).lines), ['job.interrupted'])
    const begun = manifestOf('slow')?.begun
    t.ok(begun)
    const follows = Promise.withResolvers<void>()
    const second = verb<BackupLine>('vm backup', askedBackup('slow'), {
      hear: (line) => line.event === 'progress' && line.doing === 'copying' && follows.resolve(),
    })
    await Promise.race([follows.promise, second])
    await first.go()
    const { lines } = await second
    t.match(
      lines.map(({ line }) => line).find(({ event }) => event === 'done'),
      {
        resumed: true,
        backup: { id: begun?.id },
      },
    )
    t.ok(lines.some(({ line }) => line.event === 'progress' && line.doing === 'copying'))
    wantSound(t, 'slow')
    wantTidy(t, 'slow')
  })

  t.test('ended while nobody looked, and is found whole', async (t) => {
    const interrupting = new AbortController()
    const first = await slowed('slow', () =>
      verb<BackupLine>('vm backup', askedBackup('slow'), { signal: interrupting.signal }),
    )
    interrupting.abort('interrupted')
    await first.result
    await first.go()
    while (!/None/.test(ask('domjobinfo', 'slow'))) await sleep(50)
    const { lines } = await verb<BackupLine>('vm backup', askedBackup('slow'))
    t.match(
      lines.map(({ line }) => line).find(({ event }) => event === 'done'),
      { resumed: true },
    )
    wantSound(t, 'slow')
    wantTidy(t, 'slow')
  })

  t.test('goes on when libvirtd is killed', async (t) => {
    const copies = Promise.withResolvers<void>()
    const hear = (line: BackupLine) =>
      line.event === 'progress' && line.doing === 'copying' && copies.resolve()
    const { result, go } = await slowed('slow', () =>
      verb<BackupLine>('vm backup', askedBackup('slow'), { hear }),
    )
    // Killed before it has begun the whole of a backup, libvirtd 9 forgets which one it was, and holds the VM for it until that stops.
    await Promise.race([copies.promise, result])
    await world.libvirtd.signal('SIGKILL')
    await world.libvirtd.start()
    // libvirtd 9 may miss for ever what ends while it connects to QEMU again.
    while (!/Operation: +Backup/.test(ask('domjobinfo', 'slow'))) await sleep(50)
    await go()
    const { lines, last } = await result
    t.equal(last.exit, 0, lines.map(({ text }) => text).join(' '))
    wantSound(t, 'slow')
    wantTidy(t, 'slow')
  })

  t.test('fails when libvirtd is killed before it knows of its end, and the next one is whole', async (t) => {
    const { result, go } = await slowed('slow', () => verb<BackupLine>('vm backup', askedBackup('slow')))
    await world.libvirtd.signal('SIGSTOP')
    await go()
    // As libvirtd does in the moment before it writes that down: begun again it waits for this job for ever.
    await talking('slow', async (qmp) => {
      for (;;) {
        const [job] = await jobsOf(qmp)
        if (job?.status === 'concluded') return qmp.ask('job-dismiss', { id: job.id })
        await sleep(50)
      }
    })
    await world.libvirtd.signal('SIGKILL')
    await world.libvirtd.start()
    t.same(problemOf((await result).lines), ['backup.copy-failed'])
    wantSound(t, 'slow')
    wantTidy(t, 'slow')
    await backUp(t, 'slow')
  })

  t.test('fails with its VM, and the next one is whole', async (t) => {
    const { result } = await slowed('slow', () => verb<BackupLine>('vm backup', askedBackup('slow')))
    process.kill(world.emulators('slow')[0] ?? 0, 'SIGKILL')
    t.same(problemOf((await result).lines), ['backup.copy-failed'])
    wantSound(t, 'slow')
    t.equal(manifestOf('slow')?.begun, null)
    while (ask('domstate', 'slow').trim() !== 'shut off') await sleep(50)
    ask('start', 'slow')
    await backUp(t, 'slow')
  })
})

t.test('the agent killed at every change that a restore makes', async (t) => {
  const target = diskOf('counts')
  const wanted = manifestOf('counts')?.backups.at(-1)
  const asked = { vm: 'counts', from: place, overwrite: true }
  const restoreAgain = async () => (await verb<RestoreLine>('vm restore', asked)).last
  t.match(await restoreAgain(), { exit: 0 })
  const then = counted(target)
  ask('start', 'counts')
  await countsBeyond('counts', then.last + 20)
  ask('destroy', 'counts')
  let kills = 0
  for (let nth = 0; ; nth += stride) {
    const before = counted(target)
    const folders = [folderOf('counts'), join(world.root, 'var/lib/garrison')]
    const wasKilled = await killedAt('vm restore', asked, folders, nth)
    if (existsSync(target)) {
      const found = counted(target)
      t.ok(found.last === before.last || found.last === then.last, 'the old disk, or the new one')
    } else t.throws(() => ask('start', 'counts'), 'without its disk it cannot be started')
    t.match(await restoreAgain(), { exit: 0, line: { backup: wanted?.id } })
    t.same(counted(target), then)
    t.same(readdirSync(folderOf('counts')), [basename(target)])
    t.same(readdirSync(join(world.root, 'var/lib/garrison/restores')), [])
    if (!wasKilled) break
    kills += 1
  }
  t.ok(kills > 0)
  t.comment(`${kills} kills`)
})
