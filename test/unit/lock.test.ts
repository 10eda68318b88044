// The lock of an apply: one holder however many ask at once, whatever died holding it.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { lockHolder, takeLock } from '../../agent/host/lock.ts'

// In memory, as /run is: the waits of a real disk would hide the races.
const folderOf = (t: Test): string => {
  const folder = mkdtempSync('/dev/shm/garrison-')
  t.teardown(() => rmSync(folder, { recursive: true }))
  return folder
}

const href = JSON.stringify(new URL('../../agent/host/lock.ts', import.meta.url).href)

/** A process that takes the lock, says so and waits for its input to end; `exit` releases first. */
const holder = async (path: string, who = 'child') => {
  const script = `
    import { takeLock } from ${href}
    const lock = await takeLock(process.argv[1], process.argv[2], 1000)
    process.stdout.write('held\\n')
    for await (const _ of process.stdin);
    await lock.release()`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, path, who], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return {
    pid: child.pid,
    release: () => {
      child.stdin.end()
      return ended
    },
    kill: () => {
      child.kill('SIGKILL')
      return ended
    },
  }
}

t.test('is held by one and given back', async (t) => {
  const path = join(folderOf(t), 'run/apply.lock')
  t.equal(await lockHolder(path), null)
  const lock = await takeLock(path, 'root over ssh', 1000)
  t.equal(await lockHolder(path), null, 'it is this process')
  await t.rejects(takeLock(path, 'timer', 2000), {
    code: 'apply.locked',
    message: `an apply is running for root over ssh (pid ${process.pid}) since 1970-01-01T00:00:01.000Z`,
    details: { pid: process.pid, who: 'root over ssh', sinceMs: 1000 },
    remedy: /garrison journal --follow/,
  })
  await lock.release()
  t.strictSame(readdirSync(join(path, '..')), [])
  await (await takeLock(path, 'timer', 2000)).release()
})

t.test('another process that holds it is named; when it is killed the lock is free', async (t) => {
  const path = join(folderOf(t), 'apply.lock')
  const first = await holder(path, 'timer')
  t.same(await lockHolder(path), { pid: first.pid, who: 'timer', sinceMs: 1000 })
  await t.rejects(takeLock(path, 'me', 1), { code: 'apply.locked', details: { pid: first.pid } })
  await first.kill()
  t.equal(await lockHolder(path), null)
  const second = await holder(path)
  await second.kill()
  const third = await holder(path)
  t.match(await lockHolder(path), { pid: third.pid })
  await third.release()
  t.strictSame(readdirSync(join(path, '..')), [], 'the records of the dead go with the next release')
})

t.test('a process that was killed and not yet reaped holds nothing', async (t) => {
  const path = join(folderOf(t), 'apply.lock')
  const script = `const { spawnSync, spawn } = require('node:child_process')
    const child = spawn(process.execPath, ['--input-type=module', '-e', process.argv[2], process.argv[1]], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.once('data', () => {
      process.kill(child.pid, 'SIGKILL')
      process.stdout.write(child.pid + '\\n')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60000)
    })`
  const taking = `import { takeLock } from ${href}
    await takeLock(process.argv[1], 'zombie', 1)
    process.stdout.write('held')
    setInterval(() => {}, 1000)`
  const parent = spawn(process.execPath, ['-e', script, path, taking], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => parent.kill('SIGKILL'))
  const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)))
  while (!/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')))
    await new Promise((resolve) => setTimeout(resolve, 10))
  t.equal(await lockHolder(path), null)
  await (await takeLock(path, 'me', 1)).release()
})

t.test('a pid alone proves nothing: other start time, other boot', async (t) => {
  const path = join(folderOf(t), 'apply.lock')
  const child = await holder(path)
  const record = JSON.parse(readFileSync(path, 'utf8'))
  t.match(record, { pid: child.pid, startTicks: /^\d+$/, boot: /^[0-9a-f-]{36}$/ })
  for (const change of [
    { startTicks: String(Number(record.startTicks) - 1) },
    { boot: 'ffffffff-0000-0000-0000-000000000000' },
    { pid: 2 ** 22 + 1 },
  ]) {
    writeFileSync(path, JSON.stringify({ ...record, ...change }))
    t.equal(await lockHolder(path), null)
    await (await takeLock(path, 'me', 1)).release()
    t.notOk(existsSync(path))
  }
  await child.kill()
})

t.test('a lock that nobody could have written is not guessed about', async (t) => {
  const path = join(folderOf(t), 'apply.lock')
  for (const text of [
    '',
    '4711',
    '{"pid":1}',
    '{"pid":',
    'null',
    JSON.stringify({ id: '../../x', pid: 1, who: '', sinceMs: 1, startTicks: '1', boot: '1' }),
  ]) {
    writeFileSync(path, text)
    await t.rejects(takeLock(path, 'me', 1), {
      code: 'apply.lock-damaged',
      message: `${path} is not a lock that Garrison wrote`,
    })
    await t.rejects(lockHolder(path), { code: 'apply.lock-damaged' })
    t.equal(readFileSync(path, 'utf8'), text)
  }
})

t.test(
  'many processes at once, some of which die holding it: never two, and all get their turn',
  async (t) => {
    const folder = folderOf(t)
    const path = join(folder, 'apply.lock')
    // The one inside makes a file that nobody else may find there, unless who made it was killed.
    const script = `
    import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
    import { setTimeout as sleep } from 'node:timers/promises'
    import { takeLock } from ${href}
    const [path, inside, turns] = process.argv.slice(1)
    const mine = String(process.pid)
    for (let turn = 0; turn < Number(turns); ) {
      let lock
      try {
        lock = await takeLock(path, mine, Date.now())
      } catch (error) {
        if (error.code !== 'apply.locked') throw error
        await sleep(Math.random() * 4)
        continue
      }
      turn += 1
      try {
        const other = readFileSync(inside, 'utf8')
        let alive = false
        try { alive = !/^State:\\s+[ZX]/m.test(readFileSync('/proc/' + other + '/status', 'utf8')) } catch {}
        if (alive) console.log('TWO ' + mine + ' and ' + other)
        rmSync(inside)
      } catch (error) {
        if (error.code !== 'ENOENT') throw error
      }
      const file = openSync(inside, 'wx')
      writeSync(file, mine)
      closeSync(file)
      await sleep(Math.random() * 3)
      if (Math.random() < 0.2) { console.log('turn'); await sleep(1); process.kill(process.pid, 'SIGKILL') }
      if (readFileSync(inside, 'utf8') !== mine) console.log('TWO: not ' + mine)
      rmSync(inside)
      console.log('turn')
      await lock.release()
    }
    console.log('end')`
    const [processes, turns] = [10, 8]
    let [taken, two, ended, errors] = [0, [] as string[], 0, 0]
    const run = async (): Promise<void> => {
      const child = spawn(
        process.execPath,
        ['--input-type=module', '-e', script, path, join(folder, 'inside'), String(turns)],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      )
      createInterface(child.stdout).on('line', (line) => {
        if (line === 'turn') taken += 1
        else if (line === 'end') ended += 1
        else two.push(line)
      })
      const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
        child.once('close', (...end) => resolve(end)),
      )
      if (code !== 0 && signal !== 'SIGKILL') errors += 1
    }
    for (let wave = 0; wave < 2; wave += 1) await Promise.all(Array.from({ length: processes }, run))
    t.strictSame(two, [])
    t.equal(errors, 0)
    t.ok(
      taken >= 2 * processes,
      `${taken} turns, ${ended} of ${2 * processes} processes to their end, the others killed`,
    )
    await (await takeLock(path, 'last', 1)).release()
    t.notOk(existsSync(path))
  },
)

t.test('two takers of one stale lock, many times: exactly one wins', async (t) => {
  const folder = folderOf(t)
  const script = `
    import { takeLock } from ${href}
    process.stdout.write('ready\\n')
    for await (const chunk of process.stdin) {
      const path = String(chunk).trim()
      try {
        await takeLock(path, 'taker', 1)
        process.stdout.write('won\\n')
      } catch (error) {
        process.stdout.write(error.code + '\\n')
      }
    }`
  const takers = Array.from({ length: 4 }, () => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() }
  })
  for (const { lines } of takers) await lines.next()
  const boot = 'ffffffff-0000-0000-0000-000000000000'
  const outcomes: string[] = []
  for (let round = 0; round < 200; round += 1) {
    const path = join(folder, `lock-${round}`)
    writeFileSync(
      path,
      JSON.stringify({ id: '0123456789abcdef', pid: 1, who: 'dead', sinceMs: 1, startTicks: '1', boot }),
    )
    for (const { child } of takers) child.stdin.write(`${path}\n`)
    const answers = await Promise.all(takers.map(async ({ lines }) => String((await lines.next()).value)))
    outcomes.push(answers.sort().join(' '))
  }
  for (const { child } of takers) child.kill()
  t.strictSame([...new Set(outcomes)], ['apply.locked apply.locked apply.locked won'])
})

t.test(
  'an unprivileged user can see who holds it',
  { skip: process.getuid?.() !== 0 && 'needs root to become another' },
  async (t) => {
    const folder = folderOf(t)
    execFileSync('/usr/bin/chmod', ['755', folder])
    const path = join(folder, 'apply.lock')
    const lock = await takeLock(path, 'root', 5)
    const script = `import { lockHolder } from ${href}
    process.setgid(65534); process.setuid(65534)
    process.stdout.write(JSON.stringify(await lockHolder(${JSON.stringify(path)})))`
    const seen = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    t.same(JSON.parse(seen), { pid: process.pid, who: 'root', sinceMs: 5 })
    await lock.release()
  },
)
