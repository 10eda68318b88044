// The journal: nothing that was acknowledged is lost, what is damaged is named, and a host whose journal is unwritable is left alone.
import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type DamagedLine, Journal, type JournalQuery } from '../../agent/journal/journal.ts'
import type { JournalEntry } from '../../provisioning/host.ts'
import type { Step } from '../../provisioning/resource.ts'

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'mounting needs root' }

const step: Step = {
  id: 'array.create',
  summary: 'raid5 from A, B, C',
  risk: 'safe',
  because: [],
  actions: [],
}

const started = (key: string, atMs = 1, apply = 'a1'): JournalEntry => ({
  apply,
  atMs,
  kind: 'step-started',
  key,
  resource: 'array',
  step,
})
const done = (key: string, atMs = 2, apply = 'a1'): JournalEntry => ({
  apply,
  atMs,
  kind: 'step-done',
  key,
  outcomes: [
    { kind: 'run', summary: '/usr/sbin/mdadm --create', durationMs: 2300, exit: 0, stderrTail: 'ünï\n"x"' },
  ],
  durationMs: 2310,
})
const applyStarted = (apply: string, instance: string): JournalEntry => ({
  apply,
  atMs: 1,
  kind: 'apply-started',
  request: { who: 'root', allow: 'safe' },
  desired: 'd1',
  instance,
})

async function all(folder: string, query: JournalQuery = {}) {
  const entries: JournalEntry[] = []
  const damaged: DamagedLine[] = []
  for await (const record of new Journal(folder).read(query))
    if (record.kind === 'entry') entries.push(record.entry)
    else damaged.push(record.damaged)
  return { entries, damaged }
}

const keysOf = (entries: readonly JournalEntry[]): readonly string[] =>
  entries.map((entry) => ('key' in entry ? entry.key : entry.kind))

const fileOf = (folder: string, number = 1): string =>
  join(folder, `${String(number).padStart(8, '0')}.jsonl`)

async function write(folder: string, keys: readonly string[], limits = {}): Promise<void> {
  const journal = new Journal(folder, { reserveBytes: 0, ...limits })
  for (const key of keys) await journal.append(started(key))
}

const smallFilesystem = (t: Test, size: string): string => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  execFileSync('/usr/bin/mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'garrison-test', folder])
  t.teardown(() => {
    execFileSync('/usr/bin/umount', [folder])
    rmdirSync(folder)
  })
  return folder
}

t.test('gives back what was written, in order', async (t) => {
  const folder = join(t.testdir({}), 'journal')
  t.strictSame(await all(folder), { entries: [], damaged: [] }, 'no journal yet')
  const entries = [applyStarted('a1', 'i-1'), started('array.create'), done('array.create')]
  const journal = new Journal(folder)
  await Promise.all(entries.map((entry) => journal.append(entry)))
  t.strictSame(await all(folder), { entries, damaged: [] })
  await new Journal(folder).append(started('next'))
  t.equal((await all(folder)).entries.length, 4)
  t.equal(statSync(fileOf(folder)).mode & 0o777, 0o640)
  for (const line of readFileSync(fileOf(folder), 'utf8').trimEnd().split('\n'))
    t.match(line, /^[0-9a-f]{16} \{"apply":/)
})

t.test('since', async (t) => {
  const folder = t.testdir({})
  const journal = new Journal(folder, { fileBytes: 400 })
  for (const atMs of [10, 20, 30, 40]) await journal.append(started(`s${atMs}`, atMs))
  t.strictSame(keysOf((await all(folder, { sinceMs: 25 })).entries), ['s30', 's40'])
  t.strictSame(keysOf((await all(folder, { sinceMs: 41 })).entries), [])
  utimesSync(fileOf(folder), 0.02, 0.02)
  t.strictSame(
    keysOf((await all(folder, { sinceMs: 25 })).entries),
    ['s30', 's40'],
    'a file of before is left out',
  )
})

t.test('a power cut at every byte of the last two lines', async (t) => {
  const folder = t.testdir({})
  await write(folder, ['one', 'two', 'three', 'four'])
  const whole = readFileSync(fileOf(folder))
  const ends = [...whole.keys()].filter((at) => whole[at] === 0x0a)
  const [, second = 0, third = 0, fourth = 0] = ends
  let tried = 0
  for (let length = second + 1; length <= whole.length; length += 1) {
    writeFileSync(fileOf(folder), whole)
    truncateSync(fileOf(folder), length)
    const left = ['one', 'two', ...(length >= third ? ['three'] : []), ...(length >= fourth ? ['four'] : [])]
    const lineStart = length > third ? third + 1 : second + 1
    // Without its line feed alone a line is whole.
    const torn = length > lineStart && length !== third && length !== fourth && length < whole.length
    const damage = torn
      ? [{ file: fileOf(folder), line: length > third ? 4 : 3, offset: lineStart, bytes: length - lineStart }]
      : []
    const found = await all(folder)
    const journal = new Journal(folder, { reserveBytes: 0 })
    await journal.append(started('after'))
    const foundAfter = await all(folder)
    const expected = JSON.stringify([left, damage, [...left, 'after'], damage])
    const got = JSON.stringify([
      keysOf(found.entries),
      found.damaged,
      keysOf(foundAfter.entries),
      foundAfter.damaged,
    ])
    if (got !== expected) t.equal(got, expected, `cut at ${length}`)
    tried += 1
  }
  t.equal(tried, whole.length - second)
})

t.test('every byte of a line changed in three ways: that line is named and no other lost', async (t) => {
  const folder = t.testdir({})
  await write(folder, ['one', 'two', 'three'])
  const whole = readFileSync(fileOf(folder))
  const from = whole.indexOf(0x0a) + 1
  const to = whole.indexOf(0x0a, from)
  for (let at = from; at <= to; at += 1)
    for (const mask of [0x01, 0x20, 0xff, (whole[at] ?? 0) ^ 0x0a]) {
      if (mask === 0) continue
      const changed = Buffer.from(whole)
      changed[at] = (changed[at] ?? 0) ^ mask
      writeFileSync(fileOf(folder), changed)
      const { entries, damaged } = await all(folder)
      const rightPlace = damaged.every(({ offset, bytes }) => offset >= from && offset + bytes <= to + 1)
      if (JSON.stringify(keysOf(entries)) !== '["one","three"]' || damaged.length === 0 || !rightPlace)
        t.fail(`byte ${at} ^ ${mask}: ${keysOf(entries)} ${JSON.stringify(damaged)}`)
    }
  t.pass(`${(to - from + 1) * 4} changes`)
})

t.test('noise, a hole and lines of another program cost nothing else', async (t) => {
  const folder = t.testdir({})
  await write(folder, ['one'])
  appendFileSync(fileOf(folder), Buffer.alloc(5000))
  appendFileSync(fileOf(folder), '\nhello\n\n{"kind":"step-done"}\n0123456789abcdef {"kind":"step-done"}\n')
  await write(folder, ['two'])
  writeFileSync(join(folder, 'README'), 'not of the journal')
  const { entries, damaged } = await all(folder)
  t.strictSame(keysOf(entries), ['one', 'two'])
  t.strictSame(
    damaged.map(({ line, bytes }) => [line, bytes]),
    [
      [2, 5000],
      [3, 5],
      [5, 20],
      [6, 37],
    ],
  )
})

t.test('a writer killed at any moment loses nothing that it acknowledged', async (t) => {
  const folder = t.testdir({})
  const script = `
    import { Journal } from ${JSON.stringify(new URL('../../agent/journal/journal.ts', import.meta.url).href)}
    const journal = new Journal(process.argv[1], { fileBytes: 20000, files: 100 })
    const entry = ${JSON.stringify(started('x'))}
    for (let n = 0; ; n += 1) {
      await journal.append({ ...entry, key: process.argv[2] + '-' + n })
      process.stdout.write(process.argv[2] + '-' + n + '\\n')
    }`
  const acknowledged: string[] = []
  for (let round = 0; round < 6; round += 1) {
    const writer = spawn(process.execPath, ['--input-type=module', '-e', script, folder, String(round)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const closed = new Promise((resolve) => writer.once('close', resolve))
    let lines = 0
    createInterface(writer.stdout).on('line', (line) => {
      acknowledged.push(line)
      lines += 1
      if (lines === 20 + round * 13) writer.kill('SIGKILL')
    })
    await closed
  }
  const { entries } = await all(folder)
  const keys = new Set(keysOf(entries))
  t.ok(acknowledged.length >= 6 * 20)
  t.strictSame(
    acknowledged.filter((key) => !keys.has(key)),
    [],
  )
  for (let round = 0; round < 6; round += 1) {
    const ofRound = keysOf(entries).filter((key) => key.startsWith(`${round}-`))
    t.strictSame(
      ofRound,
      [...ofRound.keys()].map((n) => `${round}-${n}`),
      'each once, in order, without a gap',
    )
  }
})

t.test('rotates by size and keeps a number of files', async (t) => {
  const folder = t.testdir({})
  const keys = Array.from({ length: 40 }, (_, at) => `step-${at}`)
  await write(folder, keys, { fileBytes: 1000, files: 3 })
  const names = readdirSync(folder).sort()
  t.equal(names.length, 3)
  t.notOk(existsSync(fileOf(folder)), 'the oldest is gone')
  for (const name of names) t.ok(statSync(join(folder, name)).size <= 1000)
  const { entries, damaged } = await all(folder)
  t.strictSame(keysOf(entries), keys.slice(-entries.length))
  t.ok(entries.length >= 8)
  t.strictSame(damaged, [])
  const big = new Journal(folder, { fileBytes: 1000, files: 3 })
  await big.append(started('x'.repeat(5000)))
  await big.append(started('small'))
  t.strictSame(
    keysOf((await all(folder)).entries).slice(-2),
    ['x'.repeat(5000), 'small'],
    'an entry larger than a file',
  )
})

const until = async (holds: () => boolean): Promise<void> => {
  for (let tries = 0; tries < 1000 && !holds(); tries += 1) await sleep(20)
}

t.test('follows across rotation, waits for whole lines, ends when told', async (t) => {
  const folder = t.testdir({})
  const leaving = new AbortController()
  const seen: string[] = []
  const following = (async () => {
    for await (const record of new Journal(folder).read({ follow: leaving.signal }))
      seen.push(record.kind === 'entry' ? keysOf([record.entry]).join() : `damaged ${record.damaged.line}`)
  })()
  const keys = Array.from({ length: 60 }, (_, at) => `step-${at}`)
  for (const [at, key] of keys.entries()) {
    await write(folder, [key], { fileBytes: 700, files: 50 })
    if (at % 20 === 0) await sleep(300)
  }
  await until(() => seen.length >= 60)
  t.strictSame(seen, keys)
  const last = fileOf(folder, readdirSync(folder).length)
  const line = readFileSync(last).subarray(0, readFileSync(last).indexOf(0x0a) + 1)
  appendFileSync(last, line.subarray(0, 50))
  await sleep(600)
  t.equal(seen.length, 60, 'half a line is nothing yet')
  appendFileSync(last, line.subarray(50))
  await until(() => seen.length >= 61)
  t.equal(seen.length, 61)
  appendFileSync(last, 'torn')
  await write(folder, ['end'])
  await until(() => seen.length >= 63)
  t.strictSame(
    seen.slice(61).map((one) => one.replace(/\d+/, 'N')),
    ['damaged N', 'end'],
  )
  leaving.abort()
  await following
})

t.test('following ends at once when it was told to before', async (t) => {
  const folder = t.testdir({})
  await write(folder, ['one'])
  t.strictSame(keysOf((await all(folder, { follow: AbortSignal.abort() })).entries), ['one'])
})

t.test('unfinished steps: started and neither done nor failed, newest apply first', async (t) => {
  const folder = t.testdir({})
  const journal = new Journal(folder)
  t.strictSame(await journal.unfinishedSteps(), [])
  const failed: JournalEntry = {
    apply: 'a1',
    atMs: 3,
    kind: 'step-failed',
    key: 'root.grow',
    outcomes: [],
    durationMs: 1,
    code: 'action.failed',
    message: 'm',
  }
  for (const entry of [
    applyStarted('a1', 'i-1'),
    started('root.grow'),
    failed,
    started('array.create'),
    started('volumes.group', 4),
    applyStarted('a2', 'i-2'),
    started('volumes.group', 5, 'a2'),
    done('volumes.group', 6, 'a2'),
    started('volumes.create images', 7, 'a2'),
    started('orphan', 8, 'a3'),
  ])
    await journal.append(entry)
  t.strictSame(
    (await journal.unfinishedSteps()).map(({ apply, key, instance }) => [apply, key, instance]),
    [
      ['a3', 'orphan', ''],
      ['a2', 'volumes.create images', 'i-2'],
      ['a1', 'array.create', 'i-1'],
    ],
  )
  t.strictSame((await journal.unfinishedSteps())[2]?.step, step)
  await journal.append(done('array.create'))
  t.equal((await journal.unfinishedSteps()).length, 2, 'the same step again, done')
  const ended = (apply: string, outcome: string): JournalEntry => ({
    apply,
    atMs: 9,
    kind: 'apply-ended',
    outcome,
    steps: 0,
    durationMs: 1,
  })
  const onlyRoot = { ...applyStarted('a4', 'i-2'), request: { who: 'root', allow: 'safe', only: 'root' } }
  for (const entry of [onlyRoot as JournalEntry, ended('a4', 'settled'), applyStarted('a5', 'i-2')])
    await journal.append(entry)
  t.equal((await journal.unfinishedSteps()).length, 2, 'an apply of one resource says nothing of the others')
  await journal.append(ended('a5', 'settled'))
  t.strictSame(await journal.unfinishedSteps(), [], 'nothing is unfinished on a host that was found settled')
})

const unwritable = (folder: string, cause: string) => ({
  code: 'journal.unwritable',
  message: new RegExp(`^the journal in ${folder} is not writable: .*`),
  details: { folder, cause: { code: cause } },
})

t.test('a full disk: refused, nothing torn, goes on when there is room', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '256k')
  const journal = new Journal(folder, { reserveBytes: 0 })
  await journal.append(started('one'))
  writeFileSync(join(folder, 'ballast'), Buffer.alloc(200_000))
  await t.rejects(journal.append(started('x'.repeat(100_000))), unwritable(folder, 'file.no-space'))
  t.strictSame(keysOf((await all(folder)).entries), ['one'])
  t.strictSame((await all(folder)).damaged, [])
  unlinkSync(join(folder, 'ballast'))
  await journal.append(started('two'))
  t.strictSame(keysOf((await all(folder)).entries), ['one', 'two'])
})

t.test('a step is not begun without room for its outcome, which may use it', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '256k')
  const journal = new Journal(folder, { reserveBytes: 100_000 })
  await journal.append(started('one'))
  writeFileSync(join(folder, 'ballast'), Buffer.alloc(180_000))
  await t.rejects(journal.append(started('two')), unwritable(folder, 'file.no-space'))
  await journal.append(done('one'))
  t.strictSame(keysOf((await all(folder)).entries), ['one', 'one'])
})

t.test('a disk that is full to the last block while a file is begun', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '256k')
  const limits = { reserveBytes: 0, fileBytes: 4000, files: 8 }
  const journal = new Journal(folder, limits)
  const ballast = join(folder, 'ballast')
  let written = 0
  try {
    for (; ; written += 1) {
      await journal.append(started(`step-${written}`))
      if (written === 30) {
        const room = Number(execFileSync('/usr/bin/stat', ['-f', '-c', '%a', folder])) * 4096
        writeFileSync(ballast, Buffer.alloc(room - 4096))
      }
    }
  } catch (error) {
    t.match(error, unwritable(folder, 'file.no-space'))
  }
  t.ok(written > 30)
  const { entries, damaged } = await all(folder)
  t.equal(entries.length, written)
  t.strictSame(damaged, [])
  rmSync(ballast)
  await new Journal(folder, limits).append(started('again'))
  t.equal((await all(folder)).entries.length, written + 1)
})

t.test('a filesystem that has become read-only', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '1m')
  const journal = new Journal(folder, { reserveBytes: 0 })
  await journal.append(started('one'))
  execFileSync('/usr/bin/mount', ['-o', 'remount,ro', folder])
  await t.rejects(journal.append(started('two')), unwritable(folder, 'file.read-only'))
  t.strictSame(keysOf((await all(folder)).entries), ['one'])
  execFileSync('/usr/bin/mount', ['-o', 'remount,rw', folder])
  await journal.append(started('three'))
  t.strictSame(keysOf((await all(folder)).entries), ['one', 'three'])
})

t.test(
  'a drive that fails only when it is flushed: refused, and what was written before is whole',
  needsRoot,
  async (t) => {
    // A filesystem on a sparse image whose own filesystem is full: a write succeeds, and its fsync does not.
    const [outer, folder] = [smallFilesystem(t, '8m'), mkdtempSync(`${tmpdir()}/garrison-`)]
    const image = join(outer, 'image')
    writeFileSync(image, '')
    truncateSync(image, 64 * 2 ** 20)
    execFileSync('/usr/sbin/mkfs.ext4', [
      '-q',
      '-E',
      'lazy_itable_init=1,lazy_journal_init=1',
      '-J',
      'size=4',
      image,
    ])
    execFileSync('/usr/bin/mount', ['-o', 'loop', image, folder])
    const journal = new Journal(folder, { reserveBytes: 0 })
    await journal.append(started('one'))
    const free = Number(execFileSync('/usr/bin/stat', ['-f', '-c', '%a', outer])) * 4096
    writeFileSync(join(outer, 'ballast'), Buffer.alloc(free))
    const refused = await journal.append(started('x'.repeat(3_000_000))).then(
      () => null,
      (error: unknown) => error,
    )
    t.match(refused, { code: 'journal.unwritable', message: /\((ENOSPC|EIO|EROFS)\)/ })
    t.equal(keysOf((await all(folder)).entries)[0], 'one')
    rmSync(join(outer, 'ballast'))
    execFileSync('/usr/bin/umount', [folder])
    execFileSync('/usr/bin/mount', ['-o', 'loop', image, folder])
    await new Journal(folder, { reserveBytes: 0 }).append(started('after'))
    const { entries } = await all(folder)
    t.strictSame(
      keysOf(entries).filter((key) => key.length < 10),
      ['one', 'after'],
    )
    execFileSync('/usr/bin/umount', [folder])
    rmdirSync(folder)
  },
)

t.test('a folder that cannot be made, a file in its place', async (t) => {
  const folder = t.testdir({ file: '' })
  await t.rejects(
    new Journal(join(folder, 'file')).append(started('x')),
    unwritable(join(folder, 'file'), 'host.unreadable'),
  )
  mkdirSync(fileOf(folder))
  await t.rejects(new Journal(folder).append(started('x')), unwritable(folder, 'file.unwritable'))
})
