// Jobs over real sockets and the real command line: begun, left, followed again, cancelled, and what they do to the root side's end.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { contextsOf, type StreamModule } from '../../agent/api/context.ts'
import type { JobFacts } from '../../agent/api/jobs.ts'
import { type Served, serve } from '../../agent/api/server.ts'
import type { VerbName } from '../../agent/api/verbs.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { exitOf, render } from '../../agent/verbs/vm-backup.ts'
import { fakeParts, writeWorld } from './fake-host.ts'

const main = join(import.meta.dirname, '../../agent/main.ts')

interface Host {
  readonly served: Served
  socket(door: string): string
  /** Lets the work of the job go on to its end. */
  go(): void
  jobs(): Promise<readonly JobFacts[]>
}

/** A root side whose backups take until they are let go. */
async function hostOf(t: Test, idleMs = 60_000): Promise<Host> {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-jobs-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeWorld(folder, {})
  const gone = Promise.withResolvers<void>()
  const parts = fakeParts(folder)
  const backup: StreamModule<VerbName> = {
    async *run({ signal }) {
      const stop = once(signal, 'abort')
      yield { event: 'begun', vm: 'web-1', uuid: '1' }
      yield { event: 'progress', subject: 'web-1', doing: 'copying', doneBytes: 1, totalBytes: 4 }
      await Promise.race([gone.promise, stop])
      if (signal.aborted) return
      yield { event: 'done', vm: 'web-1', uuid: '1', changed: true, text: 'whole', durationMs: 5 }
      yield { event: 'finished', done: 1, unchanged: 0, failed: 0, unknown: 0, left: 0, durationMs: 5 }
    },
    render: render as StreamModule<VerbName>['render'],
    exitOf: exitOf as StreamModule<VerbName>['exitOf'],
  }
  const socket = (door: string) => join(folder, `${door}.sock`)
  const served = await serve({
    doorways: (['read', 'operate', 'admin'] as const).map((door) => ({ door, path: socket(door) })),
    contextFor: contextsOf(parts),
    load: async (verb) => (verb === 'vm backup' ? backup : loadServed(verb)),
    log: pino({ level: 'silent' }),
    idleMs,
  })
  t.teardown(async () => {
    served.stop()
    await served.left
  })
  return { served, socket, go: gone.resolve, jobs: () => parts.jobs.list() }
}

interface Ended {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

function garrison(host: Host, door: string, ...args: readonly string[]) {
  const child = spawn(process.execPath, [main, ...args, '--socket', host.socket(door)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, TZ: 'UTC', USER: 'alice' },
  })
  const said = { stdout: '', stderr: '' }
  child.stdout.on('data', (bytes) => {
    said.stdout += bytes
  })
  child.stderr.on('data', (bytes) => {
    said.stderr += bytes
  })
  const ended: Promise<Ended> = once(child, 'close').then(([exit]) => ({ exit, ...said }))
  return { child, ended, said }
}

const backup = ['vm', 'backup', 'web-1', '--to', '/srv/backup']

/** Waits until the command has said something. */
async function until({ said }: { readonly said: { readonly stdout: string } }, what: RegExp): Promise<void> {
  for (const end = Date.now() + 10_000; !what.test(said.stdout); await sleep(10))
    if (Date.now() > end) throw new Error(`it says ${said.stdout}`)
}

const kill = async (child: ChildProcess, signal: NodeJS.Signals) => {
  child.kill(signal)
  await once(child, 'close')
}

t.test('a job goes on without its terminal, is followed again, and ends as it would have', async (t) => {
  const host = await hostOf(t)
  const lost = garrison(host, 'operate', ...backup)
  await until(lost, /Job [0-9a-f]{6}/)
  await kill(lost.child, 'SIGKILL')
  const [job] = await host.jobs()
  t.match(job, { outcome: 'running', verb: 'vm backup', typed: 'vm backup web-1 --to /srv/backup' })
  t.match(job?.who, /^operate\.sock, says alice/)

  const list = await garrison(host, 'read', 'jobs').ended
  t.match(list.stdout, new RegExp(`^${job?.id}  running +vm backup web-1 --to /srv/backup`))
  t.match(list.stdout, /web-1: copying 1 B of 4 B/)
  const following = garrison(host, 'read', 'jobs', 'follow')
  await sleep(500)
  host.go()
  t.match(await following.ended, { exit: 0, stdout: /web-1 +whole.*\n1 done/ })
  t.match(await host.jobs(), [{ outcome: 'done', exit: 0 }])
  const again = await garrison(host, 'read', 'jobs', 'follow', job?.id ?? '', '--json').ended
  t.match(
    again.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event),
    ['begun', 'done', 'finished'],
  )
  t.match(JSON.parse(again.stdout.split('\n')[0] ?? ''), { schema: 'garrison/vm-backup/1' })
})

t.test('a job is left alone when that is asked for, or by Ctrl-C, and cancelled by who may', async (t) => {
  const host = await hostOf(t)
  const detached = await garrison(host, 'operate', ...backup, '--detach').ended
  t.match(detached, { exit: 0, stdout: /^Job [0-9a-f]{6}: garrison jobs follow, garrison jobs cancel/ })
  const left = garrison(host, 'operate', ...backup)
  await until(left, /Job/)
  left.child.kill('SIGINT')
  t.match(await left.ended, { exit: 1, stderr: /goes on by itself/ })
  const running = await host.jobs()
  t.same(
    running.map(({ outcome }) => outcome),
    ['running', 'running'],
  )
  const [first, second] = running.map(({ id }) => id)
  t.match(await garrison(host, 'read', 'jobs', 'cancel', first ?? '').ended, {
    exit: 3,
    stderr: /door\.refused/,
  })
  const following = garrison(host, 'read', 'jobs', 'follow', first ?? '')
  await sleep(300)
  t.match(await garrison(host, 'operate', 'jobs', 'cancel', first ?? '').ended, { exit: 0 })
  t.match(await following.ended, { exit: 1, stderr: /job\.cancelled/ })
  t.match(
    (await host.jobs()).map(({ id, outcome }) => [id, outcome]),
    [
      [first, 'cancelled'],
      [second, 'running'],
    ],
  )
  t.match(await garrison(host, 'operate', 'jobs', 'cancel', 'ffffff').ended, {
    exit: 1,
    stderr: /job\.unknown/,
  })
  t.match(await garrison(host, 'operate', ...backup, '--init').ended, {
    exit: 3,
    stderr: /--init needs admin\.sock/,
  })
})

t.test('the root side stays for a job, and interrupts it when it must go', async (t) => {
  const host = await hostOf(t, 1000)
  await garrison(host, 'operate', ...backup, '--detach').ended
  let isGone = false
  void host.served.left.then(() => {
    isGone = true
  })
  await sleep(1500)
  t.notOk(isGone, 'it has not left, though nobody is connected')
  host.go()
  await host.served.left
  t.match(await host.jobs(), [{ outcome: 'done' }])

  const other = await hostOf(t)
  await garrison(other, 'operate', ...backup, '--detach').ended
  other.served.stop()
  await other.served.left
  t.match(await other.jobs(), [{ outcome: 'interrupted' }])
})
