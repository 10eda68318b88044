// Starting tools: what they are given, how every end is told, and that none is left behind.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type ExecuteOptions, execute, lastLines, processesStarted } from '../../agent/host/exec.ts'

const sh = (script: string, options: Partial<ExecuteOptions> = {}) =>
  execute(['/bin/sh', '-c', script], { deadlineMs: 20_000, keep: 'all', ...options })

/** Whether a process runs: neither gone nor waiting to be reaped. */
const runs = (pid: number): boolean => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

const gone = async (pid: number): Promise<boolean> => {
  for (let tries = 0; tries < 100; tries += 1) {
    if (!runs(pid)) return true
    await sleep(20)
  }
  return false
}

t.test('gives a small fixed environment, an empty input and the root folder', async (t) => {
  process.env.GARRISON_LEAK = 'yes'
  const { exit, stdout } = await sh('env -0; pwd; cat; umask', {
    environment: { DEBIAN_FRONTEND: 'noninteractive' },
  })
  delete process.env.GARRISON_LEAK
  t.equal(exit, 0)
  // tap adds variables of its own to every process that a test starts; the shell adds PWD, _ and SHLVL.
  const lines = stdout.trim().split('\0')
  t.strictSame(lines.filter((line) => !/^(_TAPJS_|NODE_OPTIONS=|PWD=|_=|SHLVL=)/.test(line)).sort(), [
    '/\n0022',
    'DEBIAN_FRONTEND=noninteractive',
    'HOME=/root',
    'LANG=C.UTF-8',
    'LC_ALL=C.UTF-8',
    'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
    'TZ=UTC',
  ])
})

t.test('passes arguments as they are and input whole', async (t) => {
  const hostile = '$(id) `id` ; "quoted" \\ * \n second line'
  const printed = await execute(['/usr/bin/printf', '%s', hostile], { deadlineMs: 5000, keep: 'all' })
  t.equal(printed.stdout, hostile)
  const input = 'x'.repeat(300_000)
  t.equal((await sh('cat', { stdin: input })).stdout, input)
  t.equal((await sh('head -c 1', { stdin: input })).stdout, 'x', 'a tool need not read its input')
})

t.test('tells each end apart', async (t) => {
  t.match(await sh('echo out; echo err >&2; exit 3'), {
    ended: 'exited',
    exit: 3,
    stdout: 'out\n',
    stderr: 'err\n',
  })
  t.match(await sh('kill -SEGV $$'), { ended: 'signal', exit: 139 })
  t.match(await sh('echo before; sleep 50', { deadlineMs: 300 }), { ended: 'deadline', stdout: 'before\n' })
  const endless = await sh('yes')
  t.equal(endless.ended, 'overflow')
  t.equal(endless.stdout.length, 16 * 2 ** 20)
  const tail = await sh('yes | head -c 50000000; echo last', { keep: 'tail' })
  t.match(tail, { ended: 'exited', exit: 0, stdout: /y\nlast\n$/ })
  t.equal(tail.stdout.length, 64 * 2 ** 10)
})

t.test('a program that is not there or may not run is an error', async (t) => {
  const options = { deadlineMs: 1000, keep: 'all' } as const
  const folder = t.testdir({ plain: 'not executable' })
  const before = processesStarted()
  await t.rejects(execute(['/usr/sbin/no-such-tool'], options), {
    code: 'host.tool-missing',
    details: { argv: ['/usr/sbin/no-such-tool'] },
  })
  await t.rejects(execute(['/etc/passwd/x'], options), { code: 'host.tool-missing' })
  await t.rejects(execute([`${folder}/plain`], options), { code: 'host.denied' })
  await t.rejects(execute(['sh', '-c', 'true'], options), TypeError)
  t.equal(processesStarted(), before)
  await sh('true')
  t.equal(processesStarted(), before + 1)
})

t.test('the deadline ends the whole process group, also what ignores SIGTERM', async (t) => {
  const polite = await sh('sleep 60 & echo $!; wait', { deadlineMs: 300 })
  t.equal(polite.ended, 'deadline')
  t.ok(await gone(Number(polite.stdout)), 'the child of the tool too')
  t.equal(polite.exit, 143, 'SIGTERM was enough')
  const stubborn = await sh('trap "" TERM; (trap "" TERM; sleep 60) & echo $!; sleep 60; sleep 60', {
    deadlineMs: 300,
  })
  t.equal(stubborn.ended, 'deadline')
  t.ok(await gone(Number(stubborn.stdout)))
})

t.test('a daemon that keeps the pipes open does not keep the answer', async (t) => {
  const { ended, exit, stdout, durationMs } = await sh('sleep 60 & echo $!; exit 4')
  t.match({ ended, exit }, { ended: 'exited', exit: 4 })
  t.ok(durationMs < 50_000)
  t.ok(runs(Number(stdout)), 'what a tool starts on purpose lives on')
  process.kill(Number(stdout), 'SIGKILL')
})

t.test('a tethered tool dies with the agent, even when that is killed', async (t) => {
  const script = `
    import { execute } from ${JSON.stringify(new URL('../../agent/host/exec.ts', import.meta.url).href)}
    console.log('ready')
    await execute(['/bin/sh', '-c', 'echo $$ > ' + process.argv[1] + '; exec sleep 60'], { deadlineMs: 60000, keep: 'tail', tethered: true })`
  const pidFile = `${t.testdir({})}/pid`
  const agent = spawn(process.execPath, ['--input-type=module', '-e', script, pidFile], { stdio: 'ignore' })
  let pid = Number.NaN
  for (let tries = 0; tries < 500 && !(pid > 0); tries += 1) {
    await sleep(20)
    try {
      pid = Number(readFileSync(pidFile, 'utf8'))
    } catch {
      pid = Number.NaN
    }
  }
  t.ok(runs(pid))
  agent.kill('SIGKILL')
  t.ok(await gone(pid))
})

t.test('last lines', async (t) => {
  t.equal(lastLines('a\nb\nc\n\n', 2), 'b\nc')
  t.equal(lastLines(''), '')
})
