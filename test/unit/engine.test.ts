// The engine against the simulated host: order, risk, needs, unknown, claims, livelock, and power cuts everywhere.

import t from 'tap'
import {
  assessAll,
  type Convergence,
  converge,
  type EngineEvent,
  onceEach,
} from '../../provisioning/engine.ts'
import type { HostReader, JournalEntry } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource, Risk } from '../../provisioning/resource.ts'
import {
  desired,
  filesResource,
  journalOf,
  PowerCut,
  performerOf,
  readerOf,
  seeded,
  type World,
  write,
} from './simulated-host.ts'

const emptyWorld = (): World => ({ files: new Map(), journal: [] })

const convergence = (
  world: World,
  resources: readonly Resource[],
  more: Partial<Convergence> = {},
): Convergence => ({
  resources,
  reader: readerOf(world),
  performer: performerOf(world),
  journal: journalOf(world),
  desired,
  request: { who: 'test', allow: 'safe' },
  apply: 'a1',
  instance: 'i-1',
  desiredDigest: 'd',
  clock: () => 0,
  signal: new AbortController().signal,
  ...more,
})

async function run(options: Convergence): Promise<EngineEvent[]> {
  const events: EngineEvent[] = []
  for await (const event of converge(options)) events.push(event)
  return events
}

const finished = (events: readonly EngineEvent[]) => {
  const last = events.at(-1)
  if (last?.event !== 'finished') throw new Error('the apply did not finish')
  return last
}

const keys = (events: readonly EngineEvent[]) =>
  events.flatMap((e) => (e.event === 'step-done' ? [e.key] : []))

const storage = [
  filesResource('software', { '/s1': 'x', '/s2': 'y' }),
  filesResource('array', { '/a1': 'x' }, { needs: ['software'], claims: ['/dev/a'] }),
  filesResource('volumes', { '/v1': 'x', '/v2': 'y', '/v3': 'z' }, { needs: ['array'] }),
  filesResource('other', { '/o1': 'x' }),
]

t.test('a bare host is settled in order, and a second apply does nothing', async (t) => {
  const world = emptyWorld()
  const events = await run(convergence(world, storage))
  t.strictSame(keys(events), [
    'software.write /s1',
    'software.write /s2',
    'array.write /a1',
    'volumes.write /v1',
    'volumes.write /v2',
    'volumes.write /v3',
    'other.write /o1',
  ])
  t.match(finished(events), { outcome: 'settled', performed: 7, left: [] })
  const again = await run(convergence(world, storage))
  t.match(finished(again), { outcome: 'settled', performed: 0 })
})

t.test('what could not be read is unknown, stops those that need it, and hides no other', async (t) => {
  const world = emptyWorld()
  const reader = readerOf(world, new Set(['/a1']))
  const events = await run(convergence(world, storage, { reader }))
  t.strictSame(keys(events), ['software.write /s1', 'software.write /s2', 'other.write /o1'])
  const end = finished(events)
  t.equal(end.outcome, 'unknown')
  t.match(end.problems, [{ code: 'host.unreadable' }])
  t.equal(end.assessments[1]?.standing, 'unknown')
  t.match(end.left[0], { resource: 'volumes', reason: 'needs' })
  t.equal(world.files.has('/v1'), false)
})

t.test('what was seen is told even where no plan can be made of it', async (t) => {
  const finding = { code: 'a.worn', severity: 'warning', text: 'worn', remedy: 'look' } as const
  const blind: Resource = {
    id: 'a',
    needs: [],
    declared: () => true,
    observe: async () => ({ seen: true }),
    plan: () => {
      throw new HostError('host.denied', 'the rest needs root')
    },
    check: () => [finding],
    describe: () => 'a thing',
  }
  const [one] = await assessAll({
    resources: [blind],
    reader: readerOf(emptyWorld()),
    desired,
    clock: () => 0,
  })
  t.match(one, {
    standing: 'unknown',
    problem: { code: 'host.denied' },
    findings: [finding],
    observed: { seen: true },
  })
})

t.test('a step above the allowed risk is left, with the words that allow it', async (t) => {
  for (const [risk, allow, outcome] of [
    ['disruptive', 'safe', 'blocked'],
    ['destroys-data', 'disruptive', 'blocked'],
    ['disruptive', 'destroys-data', 'settled'],
  ] as const satisfies readonly (readonly [Risk, Risk, string])[]) {
    const world = emptyWorld()
    const resources = [
      filesResource('a', { '/a': 'x' }, { risk }),
      filesResource('b', { '/b': 'x' }, { needs: ['a'] }),
    ]
    const end = finished(await run(convergence(world, resources, { request: { who: 'test', allow } })))
    t.equal(end.outcome, outcome)
    if (outcome === 'settled') continue
    t.match(end.left, [{ reason: 'risk', text: `--allow ${risk}` }, { reason: 'needs' }])
    t.equal(world.files.size, 0)
  }
})

t.test('a blocked step holds back what comes after it and nothing else', async (t) => {
  const world = emptyWorld()
  const inner = filesResource('a', { '/1': 'x', '/2': 'x' })
  const blocked: Resource<Readonly<Record<string, string | null>>> = {
    ...inner,
    plan: (observed, wanted) => [
      ...inner.plan(observed, wanted).map((step) =>
        step.subject === '/1'
          ? {
              ...step,
              blocked: { code: 'drive.busy' as const, message: 'in the way', remedy: 'move it' },
            }
          : step,
      ),
      ...(observed['/3'] === 'x' ? [] : [write('a.free', '/3', 'x')]),
    ],
    observe: async (reader) => ({ '/3': await reader.readText('/3'), '/1': null, '/2': null }),
  }
  const end = finished(
    await run(convergence(world, [blocked, filesResource('b', { '/b': 'x' }, { needs: ['a'] })])),
  )
  t.strictSame([...world.files.keys()], ['/3'])
  t.strictSame(
    end.left.map(({ reason }) => reason),
    ['blocked', 'after', 'needs'],
  )
  t.equal(end.outcome, 'blocked')
})

t.test('the same step for the same reason three times is stuck, and others go on', async (t) => {
  const world = emptyWorld()
  const futile: Resource = {
    ...filesResource('a', { '/a': 'x' }),
    observe: async () => ({ '/a': null }),
  }
  const end = finished(await run(convergence(world, [futile, filesResource('b', { '/b': 'x' })])))
  t.equal(end.outcome, 'failed')
  t.match(end.problems, [{ code: 'plan.stuck', remedy: /garrison why/ }])
  t.equal(world.journal.filter((e) => e.kind === 'step-started' && e.key === 'a.write /a').length, 3)
  t.equal(world.files.get('/b'), 'x')
})

t.test('under the claim the plan must still be the same, else nothing is written', async (t) => {
  for (const [name, change, code] of [
    ['settled by somebody else', (w: World) => w.files.set('/a1', 'x'), 'plan.changed'],
    ['another reason', (w: World) => w.files.set('/a1', 'foreign'), 'plan.changed'],
  ] as const) {
    const world = emptyWorld()
    const claimed: string[] = []
    const performer = performerOf(
      world,
      () => {},
      (devices) => {
        claimed.push(...devices)
        change(world)
      },
    )
    const before = await run(convergence(world, storage.slice(1, 2), { performer }))
    t.strictSame(claimed, ['/dev/a'], name)
    t.match(finished(before), { outcome: 'blocked', problems: [{ code }] }, name)
    t.equal(world.journal.filter((e) => e.kind === 'step-started').length, 0, 'never begun')
    t.not(world.files.get('/a1'), 'torn')
  }
})

t.test('a claim that cannot be had leaves the step undone and names why', async (t) => {
  const world = emptyWorld()
  const performer = performerOf(
    world,
    () => {},
    () => {
      throw new HostError('drive.busy', '/dev/a is in use')
    },
  )
  const end = finished(await run(convergence(world, storage, { performer })))
  t.match(end, { outcome: 'blocked', problems: [{ code: 'drive.busy', message: '/dev/a is in use' }] })
  t.equal(world.files.has('/a1'), false)
})

t.test('a journal that cannot be written ends the apply before the host is touched', async (t) => {
  const world = emptyWorld()
  for (const allowed of [0, 1]) {
    let lines = 0
    const journal = {
      append: async () => {
        if (lines++ >= allowed) throw new HostError('host.unreadable', 'no space left')
      },
    }
    await t.rejects(run(convergence(world, storage, { journal })), { code: 'host.unreadable' })
    t.equal(world.files.size, 0)
  }
})

t.test('each line is on the disk before what it announces', async (t) => {
  const world = emptyWorld()
  const order: string[] = []
  const journal = { append: async (entry: JournalEntry) => void order.push(entry.kind) }
  const performer = performerOf(world, (point) => void order.push(point))
  await run(convergence(world, [filesResource('a', { '/a': 'x' })], { journal, performer }))
  t.strictSame(order, [
    'apply-started',
    'step-started',
    'before the action',
    'inside the action',
    'after the action',
    'step-done',
    'apply-ended',
  ])
})

t.test('a failed step ends its resource, not the others, and is in the journal', async (t) => {
  const world = emptyWorld()
  const performer = {
    ...performerOf(world),
    perform: async (action: Parameters<ReturnType<typeof performerOf>['perform']>[0]) => {
      if (action.kind === 'write' && action.path === '/s2')
        throw new HostError('action.failed', 'mkdir ended with 1', { details: { exit: 1 } })
      return performerOf(world).perform(action)
    },
  }
  const end = finished(await run(convergence(world, storage, { performer })))
  t.equal(end.outcome, 'failed')
  t.strictSame([...world.files.keys()], ['/s1', '/o1'])
  t.match(
    world.journal.find((e) => e.kind === 'step-failed'),
    { key: 'software.write /s2', code: 'action.failed' },
  )
})

t.test('an abort ends the apply after the step in hand', async (t) => {
  const world = emptyWorld()
  const stop = new AbortController()
  const performer = performerOf(world, (point) => point === 'inside the action' && stop.abort())
  const end = finished(await run(convergence(world, storage, { performer, signal: stop.signal })))
  t.strictSame(Object.fromEntries(world.files), { '/s1': 'x' })
  t.match(end, { outcome: 'stopped', performed: 1 })
  t.equal(world.journal.at(-1)?.kind, 'apply-ended')
})

t.test('only one resource is converged when only one is asked for', async (t) => {
  const world = emptyWorld()
  const request = { who: 'test', allow: 'safe', only: 'other' } as const
  const end = finished(await run(convergence(world, storage, { request })))
  t.strictSame([...world.files.keys()], ['/o1'])
  t.equal(end.outcome, 'settled')
})

t.test('a document for another host is refused before anything is written', async (t) => {
  const world = emptyWorld()
  const wanted = { ...desired, host: { instance: 'i-2' } }
  await t.rejects(run(convergence(world, storage, { desired: wanted })), {
    code: 'plan.other-instance',
    remedy: /i-1/,
  })
  t.strictSame(world, emptyWorld())
})

t.test('one round reads each thing once; the next round reads again', async (t) => {
  const world = emptyWorld()
  let reads = 0
  const counting: HostReader = {
    ...readerOf(world),
    readText: async (path) => {
      reads += 1
      return world.files.get(path) ?? null
    },
  }
  const twice = [filesResource('a', { '/same': 'x' }), filesResource('b', { '/same': 'x' })]
  await assessAll({ resources: twice, reader: counting, desired, clock: () => 0 })
  t.equal(reads, 1)
  await assessAll({ resources: twice, reader: counting, desired, clock: () => 0 })
  t.equal(reads, 2)
  const round = onceEach(counting)
  await Promise.all([round.readText('/p'), round.readText('/p'), round.readText('/q')])
  t.equal(reads, 4)
})

t.test(
  'a power cut before and inside every action, and around every journal line, in seeded order',
  async (t) => {
    const settled = { '/s1': 'x', '/s2': 'y', '/a1': 'x', '/v1': 'x', '/v2': 'y', '/v3': 'z', '/o1': 'x' }
    const pointsSeen = new Set<string>()
    let cuts = 0
    for (let seed = 1; seed <= 500; seed++) {
      const random = seeded(seed)
      const world = emptyWorld()
      let powered = false
      for (let life = 0; life < 60 && !powered; life++) {
        const cut = (point: string): void => {
          if (random() > 0.15) return
          pointsSeen.add(point)
          cuts += 1
          throw new PowerCut(point)
        }
        // A power cut ends the process: what the performer threw reaches nobody, and no further line is written.
        let dead = false
        const mortal = (point: string): void => {
          if (dead) throw new PowerCut('already dead')
          try {
            cut(point)
          } catch (error) {
            dead = true
            throw error
          }
        }
        const options = convergence(world, storage, {
          performer: performerOf(world, mortal),
          journal: journalOf(world, mortal),
        })
        try {
          const events = await run(options)
          powered = !dead && finished(events).outcome === 'settled'
        } catch (error) {
          if (!(error instanceof PowerCut)) throw error
        }
      }
      const started = world.journal.flatMap((e) => (e.kind === 'step-started' ? [e.key] : []))
      for (const [path] of world.files)
        if (!started.some((key) => key.endsWith(` ${path}`)))
          t.fail(`seed ${seed}: ${path} written without a line`)
      if (JSON.stringify(Object.entries(settled).sort()) !== JSON.stringify([...world.files].sort()))
        t.fail(`seed ${seed}: another end: ${JSON.stringify([...world.files])}`)
    }
    t.ok(cuts > 2000, `${cuts} cuts`)
    t.strictSame([...pointsSeen].sort(), [
      'after the action',
      'after the line',
      'before the action',
      'before the line',
      'inside the action',
    ])
  },
)
