// Jobs: long work that outlives whoever asked for it, over real files and real locks.

import { appendFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { jobIds, readJob } from '../../agent/api/job-file.ts'
import { isJob, typedAs } from '../../agent/api/job-lines.ts'
import { Jobs, type JobWork } from '../../agent/api/jobs.ts'
import { Rate } from '../../agent/api/progress.ts'
import { lockHolder, takeHold, takeLock } from '../../agent/host/lock.ts'
import { HostError } from '../../provisioning/problem.ts'

const placeOf = (folder: string) => ({
  folder,
  clock: Date.now,
  lock: (path: string, who: string) => takeLock(path, who, Date.now()),
  holder: lockHolder,
})

const jobsOf = (t: Test) => {
  const folder = join(t.testdir(), 'jobs')
  return { folder, jobs: new Jobs(placeOf(folder)) }
}

const asked = { verb: 'vm backup', typed: 'vm backup web-1 --to /srv/backup', who: 'operate.sock' }

interface Line {
  readonly event: string
}

/** Work whose lines are given to it as the test goes on. */
function scripted() {
  const lines: (object | Error | null)[] = []
  let more = Promise.withResolvers<void>()
  const work: JobWork = {
    async *lines(signal) {
      const stop = Promise.withResolvers<'stop'>()
      signal.addEventListener('abort', () => stop.resolve('stop'))
      for (;;) {
        const next = lines.shift()
        if (next === null) return
        if (next instanceof Error) throw next
        if (next !== undefined) yield next
        else if ((await Promise.race([more.promise, stop.promise])) === 'stop') return
        else more = Promise.withResolvers()
      }
    },
    exitOf: (line) => ('exit' in line ? (line.exit as number) : null),
  }
  const say = (...all: (object | Error | null)[]) => {
    lines.push(...all)
    more.resolve()
  }
  return { work, say }
}

const forever = new AbortController().signal

async function linesOf(lines: AsyncIterable<object>, onLine = () => {}): Promise<readonly string[]> {
  const all: string[] = []
  for await (const line of lines) {
    all.push((line as Line).event)
    onLine()
  }
  return all
}

const progress = (doneBytes: number, totalBytes: number | null = 100) => ({
  event: 'progress' as const,
  subject: 'web-1',
  doing: 'copying',
  doneBytes,
  totalBytes,
})

t.test(
  'a job goes on when whoever followed it has left, and is followed again from its first line',
  async (t) => {
    const { jobs, folder } = jobsOf(t)
    const { work, say } = scripted()
    const job = await jobs.begin(asked, work)
    const leaving = new AbortController()
    const { promise: heard, resolve: hear } = Promise.withResolvers<void>()
    const first = linesOf(jobs.follow(job.id, leaving.signal), hear)
    say({ event: 'selected' })
    await heard
    leaving.abort()
    t.same(await first, ['selected'])
    say({ event: 'begun' }, progress(10))
    await sleep(20)
    t.match(await jobs.list(), [
      { id: job.id, outcome: 'running', progress: { doneBytes: 10 }, who: asked.who },
    ])
    const second = linesOf(jobs.follow(job.id, forever))
    await sleep(20)
    say({ event: 'finished', exit: 0 }, null)
    t.same(await second, ['selected', 'begun', 'progress', 'finished'])
    await job.ended
    t.match(await jobs.list(), [{ outcome: 'done', exit: 0, progress: null, problem: null }])
    t.same(await linesOf(jobs.follow(job.id, forever)), ['selected', 'begun', 'finished'], 'from its file')
    t.same(
      readdirSync(folder).filter((name) => name.includes('.lock')),
      [],
    )
  },
)

t.test('how a job ended is told to whoever follows it, then or later', async (t) => {
  const { jobs } = jobsOf(t)
  const { work, say } = scripted()
  const job = await jobs.begin(asked, work)
  say(new HostError('backup.damaged', 'root is damaged', { details: { file: 'x' } }))
  const problem = { code: 'backup.damaged', message: 'root is damaged', details: { file: 'x' } }
  await t.rejects(linesOf(jobs.follow(job.id, forever)), problem)
  await job.ended
  await t.rejects(linesOf(jobs.follow(job.id, forever)), problem)
  t.match(await jobs.list(), [{ outcome: 'failed', problem }])
  await t.rejects(jobs.cancel(job.id), { code: 'job.ended' })
  await t.rejects(jobs.cancel('../../x'), { code: 'job.unknown' })
  await t.rejects(linesOf(jobs.follow('../../x', forever)), { code: 'job.unknown' })

  const bad = scripted()
  const failed = await jobs.begin(asked, bad.work)
  bad.say({ event: 'finished', exit: 1 }, null)
  await failed.ended
  t.match(
    (await jobs.list()).find(({ id }) => id === failed.id),
    { outcome: 'failed', exit: 1, problem: null },
  )
})

t.test('a job is cancelled by whoever may, and interrupted by the end of its process', async (t) => {
  const { jobs } = jobsOf(t)
  const cancelled = await jobs.begin(asked, scripted().work)
  const following = linesOf(jobs.follow(cancelled.id, forever))
  t.match(await jobs.cancel(cancelled.id), { id: cancelled.id, outcome: 'running' })
  await t.rejects(following, { code: 'job.cancelled' })
  await cancelled.ended
  const interrupted = await jobs.begin(asked, scripted().work)
  interrupted.stop('interrupted')
  await interrupted.ended
  await t.rejects(linesOf(jobs.follow(interrupted.id, forever)), { code: 'job.interrupted' })
  const outcomes = new Map((await jobs.list()).map(({ id, outcome }) => [id, outcome]))
  t.same([outcomes.get(cancelled.id), outcomes.get(interrupted.id)], ['cancelled', 'interrupted'])
})

t.test(
  'a job whose process was killed is interrupted, and what of its file is torn is left out',
  async (t) => {
    const { jobs, folder } = jobsOf(t)
    mkdirSync(folder)
    const begun = { kind: 'begun', id: 'abc123', ...asked, beganMs: 5 }
    writeFileSync(join(folder, 'abc123.jsonl'), `${JSON.stringify(begun)}\n`)
    appendFileSync(
      join(folder, 'abc123.jsonl'),
      '{"kind":"told","line":{"event":"begun"}}\n{"kind":"told","li',
    )
    writeFileSync(join(folder, 'ffffff.jsonl'), '{"kind":"beg')
    writeFileSync(join(folder, 'other.txt'), 'not ours')
    t.match(await jobs.list(), [{ id: 'abc123', outcome: 'interrupted', endedMs: null }])
    await t.rejects(linesOf(jobs.follow('abc123', forever)), { code: 'job.interrupted' })
    t.match(await readJob(folder, 'abc123'), { lines: [{ event: 'begun' }], ended: null })
    t.equal(await readJob(folder, 'ffffff'), null)
  },
)

t.test('fifty jobs are kept after they have ended', async (t) => {
  const { folder } = jobsOf(t)
  let now = 0
  const jobs = new Jobs({ ...placeOf(folder), clock: () => now })
  for (let count = 0; count < 53; count += 1) {
    now = count
    const { work, say } = scripted()
    say(null)
    await (await jobs.begin(asked, work)).ended
  }
  const kept = await jobs.list()
  t.equal(kept.length, 50)
  t.equal(kept.at(-1)?.beganMs, 3)
  t.equal((await jobIds(folder)).length, 50)
})

t.test('rate and time left are told when they can be known', (t) => {
  const rate = new Rate()
  t.match(rate.told(progress(0), 0), { bytesPerSecond: null, leftMs: null })
  t.match(rate.told(progress(5), 500), { bytesPerSecond: null })
  t.match(rate.told(progress(20), 2000), { bytesPerSecond: 10, leftMs: 8000 })
  t.match(rate.told(progress(20, null), 3000), { leftMs: null })
  for (let second = 3; second <= 12; second += 1) rate.told(progress(20), second * 1000)
  t.match(rate.told(progress(20), 13_000), { bytesPerSecond: 0, leftMs: null }, 'of the last while alone')
  t.match(rate.told(progress(0), 14_000), { bytesPerSecond: null }, 'begun anew')
  t.match(rate.told({ ...progress(1), subject: 'web-2' }, 20_000), { bytesPerSecond: null }, 'something else')
  t.end()
})

t.test('what is held by a job is held by no other', async (t) => {
  const folder = join(t.testdir(), 'held')
  const held = await takeHold(folder, '/srv/backup/web-1', 'operate.sock, says ann', 0)
  await t.rejects(takeHold(folder, '/srv/backup/web-1', 'ben', 0), {
    code: 'job.busy',
    message: /^\/srv\/backup\/web-1 is in the hands of a job of operate\.sock, says ann since 1970-01-01T/,
  })
  await (await takeHold(folder, '/srv/backup/web-2', 'ben', 0)).release()
  await held.release()
  await (await takeHold(folder, '/srv/backup/web-1', 'ben', 0)).release()
})

t.test('a job shows what was typed', (t) => {
  const create = {
    ...{ name: 'web-1', template: 'small', with: ['key=x=y'], set: ['cloudInit.userData=secret'] },
    ...{ plan: false, declare: false, detach: false },
  }
  t.equal(
    typedAs('vm create', create),
    'vm create web-1 --template small --with key=(not told) --set cloudInit.userData=(not told)',
  )
  t.ok(isJob('vm create', create))
  t.notOk(isJob('vm create', { ...create, plan: true }), 'what only shows what it would do is none')
  t.equal(typedAs('jobs follow', { job: 'abc123' }), 'jobs follow abc123')
  t.equal(
    typedAs('vm stop', {
      names: ['web-1', 'web-2'],
      tag: ['a=b'],
      all: false,
      parallel: undefined,
      timeout: '5m',
      kill: true,
    }),
    'vm stop web-1 web-2 --tag a=b --timeout 5m --kill',
  )
  t.end()
})
