// The daemon as a process: what the metadata announce, a history that cannot be opened, and how it ends and begins again.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Point } from '../../agent/report/history.ts'
import type { Report } from '../../agent/report/report-schema.ts'
import { runTool } from '../lab/processes.ts'
import { startFakeImds } from './fake-imds.ts'

const program = join(import.meta.dirname, '..', '..', 'agent', 'main.ts')

/** A root of its own, in which daemons run one after the other. */
async function hostOf(t: Test, environment: Readonly<Record<string, string>> = {}) {
  // A socket's path is at most 107 bytes long.
  const root = await mkdtemp(join(tmpdir(), 'gd-'))
  const running = new Set<ChildProcess>()
  t.teardown(async () => {
    for (const child of running) child.kill('SIGKILL')
    await rm(root, { recursive: true, maxRetries: 5 })
  })
  const socket = join(root, 'report.sock')
  const verb = (...args: readonly string[]) => [
    process.execPath,
    program,
    ...args,
    '--json',
    '--socket',
    socket,
  ]
  return {
    root,
    verb,
    start() {
      // One that was killed leaves its sockets behind; systemd's own are passed.
      for (const door of ['report', 'fleet']) rmSync(join(root, `${door}.sock`), { force: true })
      const child = spawn(process.execPath, [program, 'daemon', '--sockets', root, '--root', root], {
        stdio: ['ignore', 'ignore', 'inherit'],
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...environment },
      })
      running.add(child)
      const ended = once(child, 'exit').finally(() => running.delete(child))
      return {
        async end(signal: NodeJS.Signals) {
          child.kill(signal)
          const [code] = await ended
          return code as number | null
        },
      }
    },
    /** The report as soon as it is as wanted. */
    async report(what: string, isWanted: (report: Report) => boolean): Promise<Report> {
      for (const endMs = performance.now() + 60_000; performance.now() < endMs; await sleep(500)) {
        const { exit, stdout } = await runTool(verb('report'), { allowFailure: true })
        if (exit === 1 || stdout === '') continue
        const report: Report = JSON.parse(stdout)
        if (report.schema === 'garrison/report/1' && isWanted(report)) return report
      }
      throw new Error(`no such report: ${what}`)
    },
  }
}

const codes = ({ findings }: Report) => findings.map(({ code, subject }) => `${code} ${subject ?? ''}`.trim())

t.test(
  'what AWS announces is found, stays while the metadata are silent, and goes when it is cancelled',
  async (t) => {
    const imds = await startFakeImds()
    t.teardown(() => imds.close())
    const host = await hostOf(t, { AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.endpoint })
    const daemon = host.start()
    await host.report('the first', ({ metrics }) => metrics['cpu.busy'] !== undefined)
    const event = (State: string) =>
      JSON.stringify([
        {
          ...{ NotBefore: '21 Jan 2036 09:00:43 GMT', NotAfter: '', Code: 'instance-retirement', State },
          ...{ Description: 'The instance is running on degraded hardware', EventId: 'instance-event-1' },
        },
      ])
    imds.paths.set('events/maintenance/scheduled', event('active'))
    const found = 'ec2.retirement instance-event-1'
    const report = await host.report('with the notice', (one) => codes(one).includes(found))
    t.match(
      report.findings.find(({ code }) => code === 'ec2.retirement'),
      { severity: 'high', text: /at 2036-01-21 09:00 UTC, in \d+ days$/ },
    )
    imds.misanswer(
      'events/maintenance/scheduled',
      ...Array.from({ length: 8 }, () => ({ code: 500 }) as const),
    )
    await sleep(7000)
    t.ok(codes(await host.report('any', () => true)).includes(found), 'silence cancels nothing')
    imds.paths.set('events/maintenance/scheduled', event('canceled'))
    await host.report('without the notice', (one) => !codes(one).includes(found))
    t.equal(await daemon.end('SIGTERM'), 0)
  },
)

t.test('without a place for its history it watches all the same, and says so', async (t) => {
  const host = await hostOf(t)
  mkdirSync(join(host.root, 'var/lib/garrison'), { recursive: true })
  writeFileSync(join(host.root, 'var/lib/garrison/daemon'), '')
  const daemon = host.start()
  const report = await host.report('two rounds', ({ metrics }) => metrics['cpu.busy'] !== undefined)
  t.ok(codes(report).includes('agent.history-unwritable'))
  const { stdout } = await runTool(host.verb('history', 'memory.used'))
  t.ok(JSON.parse(stdout).points.length > 0)
  t.equal(await daemon.end('SIGTERM'), 0)
})

t.test('killed at any moment it begins again with what it had; stopped it keeps everything', async (t) => {
  const host = await hostOf(t)
  let generation = -1
  for (const ms of [0, 40, 300]) {
    const daemon = host.start()
    const report = await host.report('the first', () => true)
    t.ok(report.generation > generation, `${report.generation} after ${generation}`)
    generation = report.generation
    await sleep(ms)
    await daemon.end('SIGKILL')
  }
  const stopped = host.start()
  await host.report('two rounds', ({ metrics }) => metrics['cpu.busy'] !== undefined)
  const watcher = spawn(process.execPath, host.verb('report', '--watch').slice(1), {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const lines: string[] = []
  createInterface({ input: watcher.stdout }).on('line', (line) => lines.push(line))
  while (lines.length < 2) await sleep(100)
  const left = once(watcher, 'exit')
  t.equal(await stopped.end('SIGTERM'), 0)
  await left
  const [one, two] = lines.map((line): Report => JSON.parse(line))
  t.ok((two?.generation ?? 0) > (one?.generation ?? 0), 'who watches hears of each report')
  const last = host.start()
  const { atMs } = await host.report('the first', () => true)
  const { stdout } = await runTool(host.verb('history', 'cpu.busy', '--since', '10m'))
  const { points }: { readonly points: readonly Point[] } = JSON.parse(stdout)
  t.ok(
    points.some((point) => point.count > 0 && point.atMs < atMs),
    'what the one that was stopped had measured',
  )
  t.equal(await last.end('SIGTERM'), 0)
})
