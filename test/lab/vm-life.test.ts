// The life of a VM on the array's volumes of an installed host, from its image to its deletion; the agent killed in every verb.
//
// The VM is a boot sector that counts on its disk and at its console: an emulated guest within an emulated guest has no time to boot
// a system, and this one tells which moment a copy of its disk is of.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { parseManifest } from '../../agent/vms/backup/manifest.ts'
import { type Counted, counted, makeCountingDisk } from '../contract/counting-guest.ts'
import { domains, emulators } from './domains.ts'
import {
  answerOf,
  documentOf,
  garrison,
  installGarrison,
  settle,
  type VerbAnswer,
  writeDocument,
} from './garrison.ts'
import { bootGuest, defaultDrives, type Guest } from './guest.ts'
import { random, sample, seed } from './sample.ts'

t.setTimeout(0)
const pool = '/var/lib/libvirt/images'
const place = '/srv/backup'
/** A pipe in the guest that says nothing and does not end. */
const silence = '/run/silence'
const source = '/var/tmp/counting.qcow2'
const killAgent = ['systemctl', 'kill', '--kill-whom=main', '--signal=KILL', 'garrison-operate.service']
/** Kills the agent so many seconds after the first line of what is asked: in the guest, for an answer may take less than a login. */
const askAndKill = `set -o pipefail
after=$1
shift
"$@" | { IFS= read -r first; echo "$first"; sleep "$after"; ${killAgent.join(' ')}; cat; }`

const document = documentOf({
  volumes: {
    group: 'garrison',
    logical: {
      images: { share: 50, mount: pool },
      // QEMU itself writes there, and what is kept free of a place for backups is more than half of this.
      backup: { size: '448MiB', filesystem: 'ext4', mount: place, mode: '0711' },
    },
  },
  vms: { pools: { images: { path: pool } } },
})

const template = `name: counting
version: 1.0.0
description: Counts on its disk and at its console
parameters:
  checksum:
    type: string
    description: What the image is known by
    example: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    maxLength: 135
vm:
  accelerator: tcg
  firmware: bios
  memory: 64MiB
  disks:
    root: { image: { source: ${source}, checksum: '\${checksum}' } }
  cloudInit: { userData: {} }
`

/** What a life holds between its beginning and its end: one of them, or in a full run both. The host is rebooted in the first. */
const parts = sample(['snapshots', 'backups'] as const, 1)
/** What the agent is killed in, in which part, and within how long of its first line: about what it takes on a quiet machine. */
const cuts = {
  always: {
    'images fetch': 2000,
    'vm create': 12_000,
    'vm console': 1000,
    'vm kill': 150,
    'vm delete': 200,
  },
  snapshots: { 'vm snapshot create': 800, 'vm snapshot revert': 3000, 'vm snapshot delete': 100 },
  backups: { 'vm backup': 8000, 'vm verify': 3000, 'vm restore': 3000, 'vm start': 4000 },
} as const
type Cut = { [part in keyof typeof cuts]: keyof (typeof cuts)[part] }[keyof typeof cuts]
/** Some of them, or in a full run all. */
const drawn: ReadonlyMap<string, number> = new Map(
  sample(
    (['always', ...parts] as const).flatMap((part) => Object.entries(cuts[part])),
    4,
  ),
)
/** In which quarter of that time: in each of its lives the VM loses the agent in another one. */
const lives = sample([0, 1, 2, 3], 1)

t.test('the life of a VM', async (t) => {
  t.comment(`seed ${seed}: the agent is killed in ${[...drawn.keys()].join(', ')}`)
  await using guest = await bootGuest({
    prepared: true,
    memoryMiB: 3072,
    // Small, so that the first resync is soon through.
    drives: defaultDrives.map((drive) => ({ ...drive, sizeBytes: 2 ** 30 })),
  })
  await installGarrison(guest)
  await writeDocument(guest, document)
  await guest.writeFile('/etc/garrison/templates/counting.yaml', template)
  await settle(guest)
  t.testdir({})
  const image = join(t.testdirName, 'counting.qcow2')
  makeCountingDisk(image)
  const checksum = `sha256:${createHash('sha256').update(readFileSync(image)).digest('hex')}`
  await guest.copyIn(image, source)
  await guest.run(['mkfifo', silence])
  for (const quarter of lives)
    await t.test(`the agent killed in quarter ${quarter + 1} of what it does`, (t) =>
      live(t, guest, checksum, quarter),
    )
})

async function live(t: Test, guest: Guest, checksum: string, quarter: number): Promise<void> {
  const began = performance.now()
  const told = (what: string) =>
    t.comment(`${what} after ${Math.round((performance.now() - began) / 1000)} s`)
  let inTime = 0

  /** When the agent is killed in it, in milliseconds; null when it is not its turn. */
  const momentOf = (cut: Cut): number | null => {
    const withinMs = drawn.get(cut)
    return withinMs === undefined ? null : Math.round(((quarter + random()) / 4) * withinMs)
  }

  /** Asks for something and kills the agent in it, when that is its turn; its answer when it was done before. */
  async function cut(verb: Cut, words: readonly string[]): Promise<VerbAnswer | null> {
    const moment = momentOf(verb)
    if (moment === null) return null
    const argv = ['bash', '-c', askAndKill, 'bash', String(moment / 1000), 'garrison', ...words, '--json']
    const outcome = await guest.run(argv, { deadlineMs: 1_800_000, allowFailure: true })
    t.comment(`${words.join(' ')}: killed ${moment} ms after its first line, exit ${outcome.exit}`)
    if (outcome.exit === 0) return answerOf(words, outcome)
    inTime += 1
    return null
  }

  /** Asks until it is done: libvirt may be busy for a while with what a killed agent had asked for. */
  async function done(words: readonly string[], isThere = async () => false): Promise<VerbAnswer> {
    for (let left = 3; ; left -= 1) {
      const answer = await garrison(guest, words)
      if (answer.exit === 0 || (await isThere())) return answer
      const said = `${words.join(' ')}: exit ${answer.exit}: ${answer.stderr} ${JSON.stringify(answer.lines)}`
      if (left === 0) throw new Error(said)
      t.comment(said)
    }
  }

  /** Kills the agent in a verb when that is its turn, and asks until it is done; what it then says of it. */
  async function act(verb: Cut, words: readonly string[], isThere?: () => Promise<boolean>) {
    const { lines } = (await cut(verb, words)) ?? (await done(words, isThere))
    return lines.find(({ event }) => event === 'done')
  }

  /** What is in a folder and below, without what mkfs made. */
  const content = async (folder: string): Promise<readonly string[]> =>
    (await guest.run(['find', folder, '-mindepth', '1', '-printf', '%P\\n'])).stdout
      .split('\n')
      .filter((path) => path !== '' && path !== 'lost+found')
      .sort()

  /** What a disk holds of a VM that stands still. */
  async function onDisk(vm: string): Promise<Counted> {
    const copy = '/var/tmp/copy.qcow2'
    const disk = `${pool}/${vm}/root.qcow2`
    await guest.run(['qemu-img', 'convert', '-U', '-c', '-f', 'qcow2', '-O', 'qcow2', disk, copy])
    const here = join(t.testdirName, 'copy.qcow2')
    await guest.copyOut(copy, here)
    return counted(here)
  }

  const sit = (vm: string) =>
    guest.start(['sh', '-c', 'exec garrison vm console "$1" <>"$2"', 'sh', vm, silence])
  const number = /^[0-9A-F]{8}\s*$/

  /** A number that is heard at the console. */
  async function hear(vm: string): Promise<number> {
    const seat = await sit(vm)
    const line = await seat.waitForLine(number)
    await seat.kill('TERM')
    await seat.ended
    return Number.parseInt(line, 16)
  }

  const isOnce = async (what: string, ...vms: readonly string[]) => {
    t.strictSame(await domains(guest), Object.fromEntries(vms.map((vm) => [vm, 'running'])), what)
    for (const vm of vms) t.equal(await emulators(guest, vm), 1, `${what}: ${vm} runs once`)
  }
  const record = 'owner-0000000001.json'
  const own = [record, 'root.qcow2', 'seed.iso', 'seed.iso.instance-id']
  /** A disk that is of one moment, after a number was heard and before a later disk. */
  const wantMoment = (disk: Counted, heard: number, later: Counted) => {
    t.ok(disk.isOneMoment, 'it is of one moment')
    t.ok(heard <= disk.last && disk.last < later.last, `${heard} <= ${disk.last} < ${later.last}`)
  }

  const snapshots = async (): Promise<readonly { readonly name: string }[]> =>
    (await garrison(guest, ['vm', 'snapshot', 'list', 'life'])).lines[0].snapshots
  const [hasSnapshots, hasBackups] = [parts.includes('snapshots'), parts.includes('backups')]
  const vms = hasBackups ? ['life', 'twin'] : ['life']

  t.testdir({})
  await act('images fetch', ['images', 'fetch', source, '--checksum', checksum])
  const [fetched] = (await garrison(guest, ['images', 'list'])).lines
  t.match(fetched.images, [{ pool: 'images', origin: { source, checksum } }])
  t.strictSame([fetched.images.length, fetched.unfinished], [1, []])
  const create = ['vm', 'create', 'life', '--template', 'counting', '--with', `checksum=${checksum}`]
  await cut('vm create', create)
  const isDeclared = (await content('/etc/garrison')).includes('host.d/vm-life.yaml')
  await done(isDeclared ? ['apply', '--only', 'vms'] : create)
  await isOnce('created', 'life')
  t.strictSame(await content(`${pool}/life`), own)
  t.equal((await garrison(guest, ['plan'])).exit, 0, 'and settled')
  told('created')

  const first = await hear('life')
  const atConsole = momentOf('vm console')
  if (atConsole !== null) {
    const seat = await sit('life')
    await seat.waitForLine(number)
    await pause(atConsole)
    await guest.run(killAgent)
    t.match((await seat.ended).stderr, /The console of life has ended/, 'who sat there is told')
    inTime += 1
  }
  const second = await hear('life')
  t.ok(second > first, `${second} after ${first}: it counts`)
  told('heard')

  if (hasSnapshots) {
    const before = await hear('life')
    const isThere = async () => (await snapshots()).length > 0
    await act('vm snapshot create', ['vm', 'snapshot', 'create', 'life', '--name', 'before'], isThere)
    t.match(await snapshots(), [{ name: 'before', power: 'running', memory: true }])
    t.equal((await snapshots()).length, 1, 'made once')
    await hear('life')
    await done(['vm', 'suspend', 'life'])
    const lost = await onDisk('life')
    await act('vm snapshot revert', ['vm', 'snapshot', 'revert', 'life', 'before', '--power', 'paused'])
    wantMoment(await onDisk('life'), before, lost)
    await done(['vm', 'resume', 'life'])
    await hear('life')
    const isGone = async () => (await snapshots()).length === 0
    await act('vm snapshot delete', ['vm', 'snapshot', 'delete', 'life', 'before'], isGone)
    t.ok(await isGone())
    await isOnce('back at the snapshot', 'life')
    t.strictSame(await content(`${pool}/life`), own)
    told('back at the snapshot')
  }

  const backup = ['vm', 'backup', 'life', '--to', place]
  if (hasBackups) {
    const whole = await act('vm backup', [...backup, '--init', '--full'])
    t.match(whole.backup.disks[0], { target: 'vda', kind: 'full' })
    told('backed up')
  }
  await act('vm kill', ['vm', 'kill', 'life'])
  t.strictSame(await domains(guest), { life: 'shut off' })
  if (hasSnapshots) {
    await guest.reboot()
    await guest.run(['mkfifo', silence])
  } else await done(['vm', 'start', 'life'])
  await isOnce('once more', 'life')
  told('running once more')

  if (hasBackups) {
    const beforeBackup = await hear('life')
    const { backup: change } = await act('vm backup', backup)
    t.match(change.disks[0], { target: 'vda', kind: 'incremental' })
    await act('vm verify', ['vm', 'verify', place])
    const { lines } = await garrison(guest, ['vm', 'backups', place])
    t.match(lines, [
      { vm: 'life', begun: null },
      { event: 'finished', damaged: 0, unreadable: 0 },
    ])
    const { stdout } = await guest.run(['cat', `${place}/life/manifest.json`])
    const { backups } = parseManifest(stdout, place)
    const files = backups.flatMap(({ disks }) => disks.map(({ file }) => file))
    t.strictSame(await content(`${place}/life`), [...new Set(files), 'manifest.json'].sort(), 'and no more')
    told('backed up again')

    await hear('life')
    await done(['vm', 'stop', 'life', '--timeout', '1s', '--kill'])
    const overwritten = await onDisk('life')
    const restore = ['vm', 'restore', 'life', '--from', place]
    t.match(await act('vm restore', [...restore, '--overwrite']), { backup: change.id })
    const then = await onDisk('life')
    wantMoment(then, beforeBackup, overwritten)
    t.strictSame(await content(`${pool}/life`), own.slice(0, 3), 'the seed is that of the backup')
    told('restored')
    const isMade = async () =>
      'twin' in (await domains(guest)) && (await content('/var/lib/garrison/restores')).length === 0
    await act('vm restore', [...restore, '--as', 'twin'], isMade)
    t.strictSame(await onDisk('twin'), then)
    t.strictSame(await content('/var/lib/garrison/restores'), [])
    await act('vm start', ['vm', 'start', 'life', 'twin'])
    await isOnce('restored', 'life', 'twin')
    await settle(guest, ['--only', 'vms'])
    t.strictSame(await content(`${pool}/life`), own, 'and again that of its declaration')
    for (const vm of vms) t.ok((await hear(vm)) > then.last, `${vm} goes on from there`)
    told('started')
  }

  await done(['vm', 'kill', ...vms])
  await guest.run(['rm', '/etc/garrison/host.d/vm-life.yaml'])
  for (const vm of vms)
    await act('vm delete', ['vm', 'delete', vm, '--disks'], async () => !(vm in (await domains(guest))))
  t.strictSame(await domains(guest), {})
  for (const { path } of fetched.images) await done(['images', 'remove', path.slice(pool.length + 1)])
  t.strictSame(
    await content(pool),
    [...vms, `life/${record}`].sort(),
    'who it belonged to, where it was declared',
  )
  t.equal((await garrison(guest, ['plan'])).exit, 0)
  told('deleted')
  t.ok(inTime > 0, `${inTime} kills were in time`)
  await guest.run(['rm', '-r', ...vms.map((vm) => `${pool}/${vm}`), ...(hasBackups ? [`${place}/life`] : [])])
}
