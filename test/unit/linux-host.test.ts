// The reader of this machine: absence, denial and failure told apart, drives looked at without being touched.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import t, { type Test } from 'tap'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import type { IoActivity, LockHolder, UnfinishedStep } from '../../provisioning/host.ts'
import { noCloud } from './no-cloud.ts'

const isRoot = process.getuid?.() === 0
const needsRoot = isRoot ? {} : { skip: 'loop devices and other users need root' }

const libvirt = () => Promise.reject(new Error('not asked'))

const hostWith = (
  claims: Set<string>,
  steps: readonly UnfinishedStep[] = [],
  holder: LockHolder | null = null,
) =>
  new LinuxHost({
    claims,
    unfinishedSteps: async () => steps,
    lockHolder: async () => holder,
    libvirt,
    ...noCloud,
  })

const host = hostWith(new Set())

/** A block device over a sparse file, gone after the test. */
const loopDevice = (t: Test, sizeBytes: number) => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  const image = `${folder}/image`
  writeFileSync(image, '')
  truncateSync(image, sizeBytes)
  const device = execFileSync('/usr/sbin/losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim()
  t.teardown(() => {
    execFileSync('/usr/sbin/losetup', ['--detach', device])
    rmSync(folder, { recursive: true })
  })
  const write = (offset: number, bytes: Uint8Array): void => {
    const file = openSync(device, 'r+')
    writeSync(file, bytes, 0, bytes.length, offset)
    closeSync(file)
  }
  return { device, image, write }
}

t.test('text, lists, links and facts; absence is null', async (t) => {
  const folder = t.testdir({ b: 'ünï', a: { inner: '' }, c: '' })
  symlinkSync('a', `${folder}/link`)
  symlinkSync('nowhere', `${folder}/dangling`)
  symlinkSync('loop', `${folder}/loop`)
  t.equal(await host.readText(`${folder}/b`), 'ünï')
  t.strictSame(await host.list(folder), ['a', 'b', 'c', 'dangling', 'link', 'loop'])
  t.equal(await host.resolve(`${folder}/link`), realpathSync(`${folder}/a`))
  t.match(await host.facts(`${folder}/b`), { kind: 'file', sizeBytes: 5, uid: process.getuid?.() })
  t.match(await host.facts(`${folder}/link`), { kind: 'folder' })
  t.match(await host.facts('/dev/null'), { kind: 'other' })
  t.equal(
    await host.head(`${folder}/b`, 3),
    Buffer.from((await host.readText(`${folder}/b`)) ?? '')
      .subarray(0, 3)
      .toString('base64'),
  )
  t.equal(await host.head('/dev/null', 512), '')
  t.equal(Buffer.from((await host.head('/dev/zero', 2 ** 20)) ?? '', 'base64').length, 2 ** 16)
  const capacity = await host.capacity(folder)
  t.ok(capacity && capacity.sizeBytes > capacity.freeBytes && capacity.freeBytes > 0)
  for (const absent of [`${folder}/no`, `${folder}/b/below`, `${folder}/dangling`, '/proc/4194305/stat']) {
    t.equal(await host.readText(absent), null)
    t.equal(await host.list(absent), null)
    t.equal(await host.resolve(absent), null)
    t.equal(await host.facts(absent), null)
    t.equal(await host.head(absent, 512), null)
    t.equal(await host.capacity(absent), null)
  }
  const unreadable = { code: 'host.unreadable', details: { errno: 'ELOOP' } }
  await t.rejects(host.readText(`${folder}/loop`), unreadable)
  await t.rejects(host.resolve(`${folder}/loop`), unreadable)
  await t.rejects(host.readText(folder), { code: 'host.unreadable', details: { errno: 'EISDIR' } })
})

t.test('reads files of /proc, whose size is not told, and refuses endless ones', async (t) => {
  t.match(await host.readText('/proc/self/mountinfo'), / \/ /)
  t.equal((await host.readText('/proc/cpuinfo'))?.length, readFileSync('/proc/cpuinfo', 'utf8').length)
  await t.rejects(host.readText('/dev/zero'), {
    code: 'host.unreadable',
    message: '/dev/zero is longer than 16 MiB',
  })
})

t.test('I/O errors are told as such', async (t) => {
  // Reading another process's memory at address 0 is the I/O error that every machine has.
  await t.rejects(host.readText('/proc/self/mem'), { code: 'host.unreadable', details: { errno: 'EIO' } })
})

/** Runs a script as nobody, with `host` in it; gives what it printed as JSON. */
const asNobody = (script: string): unknown => {
  const source = `
    import { LinuxHost } from ${JSON.stringify(new URL('../../agent/host/linux-host.ts', import.meta.url).href)}
    process.setgid(65534); process.setuid(65534)
    const host = new LinuxHost({ claims: new Set(), unfinishedSteps: async () => [], lockHolder: async () => null })
    const told = (work) => work.then((answer) => ({ answer }), ({ code, message }) => ({ code, message }))
    console.log(JSON.stringify(await (async () => { ${script} })()))`
  return JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' }),
  )
}

t.test('without root what may not be read is denied, and nothing is guessed', needsRoot, async (t) => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(`${folder}/secret`, 'x')
  chmodSync(folder, 0o711)
  chmodSync(`${folder}/secret`, 0o600)
  const { device } = loopDevice(t, 2 ** 20)
  const told = asNobody(`return [
    await told(host.readText('${folder}/secret')),
    await told(host.list('${folder}')),
    await told(host.readText('${folder}/absent')),
    await told(host.mountTables()),
    await told(host.sample('${device}')),
    await told(host.exclusive('${device}')),
    await told(host.query(['/usr/sbin/wipefs', '--no-act', '${device}'])),
    await told(host.query(['/usr/bin/lsblk', '--json'])).then(({ answer }) => answer.exit),
  ]`)
  t.match(told, [
    { code: 'host.denied', message: `${folder}/secret could not be read (EACCES)` },
    { code: 'host.denied' },
    { answer: null },
    { code: 'host.denied', message: /ns\/mnt/ },
    { code: 'host.denied' },
    { code: 'host.denied' },
    { code: 'host.denied', message: /Permission denied/ },
    0,
  ])
})

t.test('queries: an exit is an answer, everything else an error', async (t) => {
  t.match(await host.query(['/usr/bin/lsblk', '--json', '--bytes']), { exit: 0, stdout: /blockdevices/ })
  t.match(await host.query(['/usr/bin/getent', 'passwd', 'no-such-user']), { exit: 2, stdout: '' })
  await t.rejects(host.query(['/usr/sbin/wipefs', '--all', '/dev/null']), {
    code: 'host.query-refused',
    details: { argv: ['/usr/sbin/wipefs', '--all', '/dev/null'] },
  })
  // Opening a pipe that nobody writes to hangs, as a dead drive does.
  const folder = mkdtempSync('/dev/shm/garrison-')
  t.teardown(() => rmSync(folder, { recursive: true }))
  execFileSync('/usr/bin/mkfifo', [`${folder}/pipe`])
  await t.rejects(host.query(['/usr/sbin/dumpe2fs', '-h', '--', `${folder}/pipe`], 200), {
    code: 'host.deadline',
    message: '/usr/sbin/dumpe2fs did not answer within 0.2 s',
  })
})

t.test('a query of a program that is not installed', async (t) => {
  const missing = ['/usr/sbin/smartctl', '/usr/sbin/nvme', '/usr/bin/dnf', '/usr/sbin/matchpathcon']
  const answers = await Promise.allSettled(
    missing.map((program) =>
      host.query([
        program,
        ...(program.endsWith('nvme') ? ['list'] : []),
        ...(program.endsWith('dnf') ? ['repoquery'] : []),
      ]),
    ),
  )
  const absent = []
  for (const [at, program] of missing.entries()) {
    if ((await host.facts(program)) !== null) continue
    absent.push(program)
    t.match(answers[at], {
      status: 'rejected',
      reason: { code: 'host.tool-missing', message: `${program} cannot be run (ENOENT)` },
    })
  }
  t.ok(absent.length > 0, 'one of them is not here')
})

/** Runs a script in a PID namespace of its own, so that /proc holds nothing that this machine hides even from root. */
const inOwnProc = (script: string): unknown => {
  const source = `
    import { spawn } from 'node:child_process'
    import { LinuxHost } from ${JSON.stringify(new URL('../../agent/host/linux-host.ts', import.meta.url).href)}
    const host = new LinuxHost({ claims: new Set(), unfinishedSteps: async () => [], lockHolder: async () => null })
    const answer = await (async () => { ${script} })()
    process.stdout.write(JSON.stringify(answer), () => process.exit())`
  const unshare = ['--pid', '--fork', '--kill-child', '--mount', '--mount-proc']
  const argv = [...unshare, process.execPath, '--input-type=module', '-e', source]
  return JSON.parse(execFileSync('/usr/bin/unshare', argv, { encoding: 'utf8' }))
}

t.test('mount tables: one for each namespace, the own one first', needsRoot, async (t) => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  t.teardown(() => rmSync(folder, { recursive: true }))
  const [pids, tables] = inOwnProc(`
    const pids = []
    for (const name of ['first', 'second']) {
      const script = 'mount -t tmpfs hidden-' + name + ' ${folder} && echo ready && sleep 60 & wait'
      const other = spawn('/usr/bin/unshare', ['--mount', '/bin/sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
      await new Promise((resolve) => other.stdout.once('data', resolve))
      pids.push(other.pid)
    }
    return [pids, await host.mountTables()]`) as [
    number[],
    { pid: number; own: boolean; mountinfo: string }[],
  ]
  t.strictSame(
    tables.map(({ pid, own, mountinfo }) => [pid, own, /hidden-(\w+)/.exec(mountinfo)?.[1]]),
    [
      [1, true, undefined],
      [pids[0], false, 'first'],
      [pids[1], false, 'second'],
    ],
  )
})

t.test('mount tables while processes come and go', needsRoot, async (t) => {
  const [most, wrong] = inOwnProc(`
    spawn('/bin/sh', ['-c', 'while :; do unshare --mount true & unshare --mount true; done'], { stdio: 'ignore' })
    let [most, wrong] = [0, 0]
    const endMs = performance.now() + 20_000
    // On a busy machine it takes a while until one is met that is alive.
    for (let round = 0; round < 200 || (most < 2 && performance.now() < endMs); round += 1) {
      const tables = await host.mountTables()
      most = Math.max(most, tables.length)
      if (tables[0]?.own !== true || tables.some(({ mountinfo }) => mountinfo === '')) wrong += 1
    }
    return [most, wrong]`) as number[]
  t.equal(wrong, 0)
  t.ok(most && most > 1, 'others were seen')
})

const edge = 16 * 2 ** 20

t.test('samples a drive: edges whole, random blocks between', needsRoot, async (t) => {
  const sizeBytes = 256 * 2 ** 20
  const { device, write } = loopDevice(t, sizeBytes)
  t.same(await host.sample(device), { sampledBytes: 2 * edge + 256 * 4096, nonZeroAt: null })
  for (const offset of [0, 1, 510, 4096, edge - 1, sizeBytes - edge, sizeBytes - 512, sizeBytes - 1]) {
    write(offset, Buffer.from([1]))
    t.equal((await host.sample(device)).nonZeroAt, offset)
    write(offset, Buffer.from([0]))
  }
  write(100 * 2 ** 20, Buffer.alloc(64 * 2 ** 20, 7))
  const middle = await host.sample(device)
  t.ok(
    middle.nonZeroAt !== null && middle.nonZeroAt >= 100 * 2 ** 20 && middle.nonZeroAt < 164 * 2 ** 20,
    'a quarter of the drive is found by 256 blocks',
  )
  t.ok(middle.sampledBytes < 2 * edge + 256 * 4096, 'and then it stops')
})

t.test('samples all of a small drive', needsRoot, async (t) => {
  for (const sizeBytes of [512, 2 ** 20 + 512, 2 * edge, 2 * edge + 512]) {
    const { device, write } = loopDevice(t, sizeBytes)
    const { sampledBytes, nonZeroAt } = await host.sample(device)
    t.equal(nonZeroAt, null)
    t.equal(sampledBytes, Math.min(sizeBytes, 2 * edge))
    write(sizeBytes - 1, Buffer.from([1]))
    t.equal((await host.sample(device)).nonZeroAt, sizeBytes - 1)
  }
})

t.test('a drive that ends before its size cannot be called zero', needsRoot, async (t) => {
  const { device, image } = loopDevice(t, 64 * 2 ** 20)
  truncateSync(image, 8 * 2 ** 20)
  await t.rejects(host.sample(device), { code: 'host.unreadable' })
})

t.test('sampling and exclusive opens are for block devices alone', async (t) => {
  const folder = t.testdir({ file: 'x' })
  for (const path of [`${folder}/file`, folder, '/dev/zero']) {
    await t.rejects(host.sample(path), { code: 'host.unreadable' })
    await t.rejects(host.exclusive(path), { code: 'host.unreadable', message: /is not a block device/ })
  }
  await t.rejects(host.sample(`${folder}/absent`), {
    code: 'host.unreadable',
    message: `${folder}/absent is not there`,
  })
  await t.rejects(host.exclusive(`${folder}/absent`), { code: 'host.unreadable' })
})

t.test(
  'exclusive: free, busy while somebody holds it, free when it is this process',
  needsRoot,
  async (t) => {
    const { device } = loopDevice(t, 2 ** 20)
    const link = `${t.testdir({})}/by-id`
    symlinkSync(device, link)
    t.equal(await host.exclusive(device), 'free')
    t.equal(await host.exclusive(link), 'free')
    const held = openSync(device, constants.O_RDONLY | constants.O_EXCL)
    t.equal(await host.exclusive(device), 'busy')
    t.equal(await host.exclusive(link), 'busy')
    t.equal(await hostWith(new Set([device])).exclusive(link), 'free')
    closeSync(held)
    t.equal(await host.exclusive(device), 'free', 'asking leaves nothing open')
  },
)

t.test('I/O that somebody does is seen', needsRoot, async (t) => {
  const { device, write } = loopDevice(t, 64 * 2 ** 20)
  const name = device.slice(5)
  /** Others on a busy machine may look at the device too, or the write come too late: watched again until it fits. */
  const watched = async (during: () => void, fits: (seen: IoActivity) => boolean): Promise<boolean> => {
    for (let tries = 0; tries < 40; tries += 1) {
      const watching = host.ioActivity([name])
      await new Promise((resolve) => setTimeout(resolve, 50))
      during()
      const { [name]: seen } = await watching
      if (seen && fits(seen)) return true
    }
    return false
  }
  t.ok(
    await watched(
      () => undefined,
      ({ readSectors, writtenSectors, inFlight }) => readSectors + writtenSectors + inFlight === 0,
    ),
  )
  const writing = () => {
    write(0, Buffer.alloc(2 ** 20, 1))
    execFileSync('/usr/bin/sync', [device])
  }
  t.ok(await watched(writing, ({ writtenSectors }) => writtenSectors >= 2048))
  t.same(await host.ioActivity([]), {})
  await t.rejects(host.ioActivity(['no-such-device']), { code: 'host.unreadable' })
})

t.test('what lies outside of the host comes from the composition root', async (t) => {
  const holder = { pid: 1, who: 'timer', sinceMs: 5 }
  const other = hostWith(new Set(), [], holder)
  t.same(await other.lockHolder(), holder)
  t.same(await other.unfinishedSteps(), [])
})
