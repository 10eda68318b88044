// What a host does for its peers at CloudWatch, and what it refuses; and what is made of the answers of a peer.

import t from 'tap'
import { Relaying } from '../../agent/report/relaying.ts'
import type { Door, Outcome } from '../../agent/report/sending.ts'
import type { Datum, Row, SpooledEvent } from '../../agent/report/spool.ts'
import { type PeerAnswer, Ways } from '../../agent/report/ways.ts'
import { cloudwatchSchema } from '../../provisioning/cloudwatch.ts'
import { HostError } from '../../provisioning/problem.ts'

const asker = { peer: 'h07', host: 'h07.example', instance: 'i-07' }
const place = { region: 'rg-1', host: asker.host, instance: asker.instance, into: 'Garrison' }
const datum: Datum = { id: 1, atMs: 60_000, series: 'cpu.busy', count: 6, sum: 6, low: 1, high: 1 }
const errand = { do: 'put', queue: 'datums', place, nowMs: 70_000, rows: [datum] }

function relaying(settings: object) {
  const seen: { options: object; rows: readonly unknown[]; nowMs: number }[] = []
  let closed = 0
  const door = <One extends Row>(options: object): Door<One> & { close(): void } => ({
    limit: { rows: 1, bytes: 1, spanMs: 1, bytesOf: () => 1 },
    async put(rows, nowMs) {
      seen.push({ options, rows, nowMs })
      return { kind: 'accepted', rejected: [], serverMs: 5 }
    },
    ask: async (rows) => new Set(rows.map(({ id }) => id)),
    patience: () => [1],
    close() {
      closed += 1
    },
  })
  const relay = new Relaying({
    own: () => ({ settings: cloudwatchSchema.parse(settings), region: 'rg-1' }),
    openMetrics: async (options) => door<Datum>(options),
    openLogs: async (options) => door<SpooledEvent>(options),
    epochMs: () => 1000,
  })
  return { relay, seen, closed: () => closed }
}

t.test('an errand is done in the name of who asks, signed with its time', async (t) => {
  const { relay, seen, closed } = relaying({ relay: { offer: true }, logs: {} })
  t.same(await relay.answer(asker, errand), { kind: 'accepted', rejected: [], serverMs: 5 })
  t.match(seen, [
    { options: { host: asker.host, instance: asker.instance, namespace: 'Garrison' }, nowMs: 70_000 },
  ])
  t.same(await relay.answer(asker, { ...errand, do: 'ask' }), { there: [1] })
  const event = { id: 3, atMs: 1, key: 'ab-3', body: '{"id":"ab-3"}' }
  const events = { ...errand, queue: 'events', place: { ...place, into: '/garrison/hosts' }, rows: [event] }
  t.match(await relay.answer(asker, events), { kind: 'accepted' })
  t.match(seen[1]?.options, { group: '/garrison/hosts', stream: 'h07.example/i-07' })
  t.equal(closed(), 3)
  t.same([...relay.done], [['h07', { rows: 2, requests: 2, atMs: 1000 }]])
})

t.test('what is not offered, not its own or not whole is refused before anything is sent', async (t) => {
  const offering = { relay: { offer: true } }
  for (const [settings, who, asked, code] of [
    [{}, asker, errand, 'fleet.errand-refused'],
    [{ relay: { ask: true } }, asker, errand, 'fleet.errand-refused'],
    [offering, null, errand, 'fleet.errand-refused'],
    [offering, { ...asker, host: 'h06' }, errand, 'fleet.errand-refused'],
    [offering, { ...asker, instance: 'i-06' }, errand, 'fleet.errand-refused'],
    [offering, asker, { ...errand, place: { ...place, region: 'rg-2' } }, 'fleet.errand-refused'],
    [offering, asker, { ...errand, place: { ...place, into: 'Other' } }, 'fleet.errand-refused'],
    [offering, asker, { ...errand, queue: 'events', rows: [] }, 'fleet.errand-refused'],
    [offering, asker, { ...errand, rows: [{ ...datum, series: 'no.such' }] }, 'request.invalid'],
    [offering, asker, { ...errand, rows: [{ ...datum, series: 'cpu.busy\0vm\0x' }] }, 'request.invalid'],
    [offering, asker, { ...errand, rows: [{ ...datum, sum: null }] }, 'request.invalid'],
    [offering, asker, { ...errand, rows: Array(1001).fill(datum) }, 'request.invalid'],
    [offering, asker, { ...errand, more: 1 }, 'request.invalid'],
    [offering, asker, { ...errand, nowMs: '1' }, 'request.invalid'],
    [offering, asker, null, 'request.invalid'],
  ] as const) {
    const { relay, seen } = relaying(settings)
    await t.rejects(relay.answer(who, asked), { code })
    t.equal(seen.length, 0)
  }
})

/** A direct door whose outcome is set, over peers that answer what is set; times are those of the tick. */
function ways() {
  const on = {
    tick: 0,
    direct: { kind: 'accepted', rejected: [], serverMs: null } as Outcome,
    answers: {} as Record<string, PeerAnswer>,
    tried: 0,
    asked: [] as string[],
  }
  const all = new Ways(
    {
      offering: () => Object.keys(on.answers),
      async ask(host) {
        on.asked.push(host)
        return on.answers[host] as PeerAnswer
      },
    },
    () => on.tick,
  )
  const door = all.through<Datum>(
    {
      limit: { rows: 1000, bytes: 900_000, spanMs: 1, bytesOf: () => 400 },
      put: async () => {
        on.tried += 1
        return on.direct
      },
      ask: async () => new Set<number>(),
      patience: () => [3, 15],
    },
    'datums',
    place,
  )
  return { on, all, door }
}

const unreached: Outcome = {
  ...{ kind: 'failed', serverMs: null },
  problem: new HostError('cloudwatch.unreachable', 'no way there'),
}
const answered = (value: unknown): PeerAnswer => ({ kind: 'answered', value })
const accepted = answered({ kind: 'accepted', rejected: [], serverMs: 9 })
const refused: PeerAnswer = { kind: 'refused', problem: new HostError('fleet.busy', 'busy') }

t.test('a peer is asked only when nothing has left, and the Region tried again each minute', async (t) => {
  const { on, all, door } = ways()
  on.answers = { h05: accepted }
  t.match(await door.put([datum], 1), { kind: 'accepted', serverMs: null })
  on.direct = { kind: 'unanswered', serverMs: null, problem: new HostError('cloudwatch.unanswered', '') }
  t.match(await door.put([datum], 1), { kind: 'unanswered' })
  t.same(on.asked, [])
  on.direct = unreached
  t.equal(door.limit.bytes, 900_000)
  t.match(await door.put([datum], 1), { kind: 'failed' }, 'the next one is small enough')
  t.equal(door.limit.bytes, 250_000)
  t.equal(all.detour, null)
  t.match(await door.put([datum], 1), { kind: 'accepted', serverMs: 9 })
  t.same(all.detour, { sinceTick: 0, by: 'h05' })
  t.same([on.tried, on.asked], [3, ['h05']])
  on.tick = 60_000
  await door.put([datum], 1)
  t.equal(on.tried, 4)
  on.tick = 120_000
  on.direct = { kind: 'accepted', rejected: [], serverMs: null }
  t.match(await door.put([datum], 1), { kind: 'accepted', serverMs: null })
  t.same([all.detour, all.isDirect, on.asked.length], [null, true, 2])
  t.same(door.patience({ id: 1, sentMs: 0, askMs: null, oldestMs: 0 }), [3, 600_015])
})

t.test('another peer is asked only when the one before did nothing', async (t) => {
  const lost: PeerAnswer = { kind: 'unanswered', problem: new HostError('fleet.unreachable', 'it broke off') }
  const told = (value: object) => answered({ serverMs: null, ...value })
  for (const [answer, outcome] of [
    [lost, { kind: 'unanswered' }],
    [answered(null), { kind: 'unanswered' }],
    [told({ kind: 'accepted', rejected: [7] }), { kind: 'unanswered' }],
    [told({ kind: 'failed', code: 'cloudwatch.no-such', message: '' }), { kind: 'unanswered' }],
    [told({ kind: 'unanswered', code: 'cloudwatch.unanswered', message: 'x' }), { kind: 'unanswered' }],
    [
      told({ kind: 'failed', code: 'cloudwatch.denied', message: 'x' }),
      { kind: 'failed', problem: { code: 'cloudwatch.denied' } },
    ],
    [told({ kind: 'refused', why: 'bad' }), { kind: 'refused', why: 'bad' }],
    [refused, { kind: 'failed', problem: { code: 'cloudwatch.unreachable', message: 'through h05: busy' } }],
  ] as const) {
    const { on, door } = ways()
    on.direct = unreached
    await door.put([datum], 1)
    on.answers = { h05: answer }
    t.match(await door.put([datum], 1), outcome)
  }
  const { on, door } = ways()
  on.direct = unreached
  await door.put([datum], 1)
  on.answers = {
    h04: refused,
    h05: told({ kind: 'failed', code: 'cloudwatch.unreachable', message: '' }),
    h06: accepted,
  }
  t.match(await door.put([datum], 1), { kind: 'accepted' })
  t.equal(on.asked.at(-1), 'h06')
})
