// The client of the instance metadata against metadata that answer as the real ones do, and against everything else that may answer.

import t, { type Test } from 'tap'
import { Imds, type ImdsOptions, parseMoment } from '../../agent/host/imds.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type FakeImds, type Misanswer, startFakeImds, usualPaths } from '../contract/fake-imds.ts'
import { seeded } from './simulated-host.ts'

const imdsOf = async (
  t: Test,
  more: ImdsOptions = {},
): Promise<{ fake: FakeImds; imds: Imds; tick(ms: number): void }> => {
  const fake = await startFakeImds()
  t.teardown(() => fake.close())
  let nowMs = 1_000_000
  const imds = new Imds({
    endpoints: [fake.endpoint],
    isInstance: async () => true,
    clock: () => nowMs,
    requestMs: 300,
    pauseMs: 1,
    ...more,
  })
  const tick = (ms: number) => {
    nowMs += ms
  }
  return { fake, imds, tick }
}

const codeOf = async (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    (answer) => answer,
    (error) => (error instanceof HostError ? error.code : error),
  )

t.test('what it tells of an instance', async (t) => {
  const { fake, imds } = await imdsOf(t)
  const facts = await imds.instance()
  t.match(facts, {
    instanceId: 'i-0123456789abcdef0',
    region: 'xx-test-1',
    zone: 'xx-test-1a',
    partition: 'aws',
    mac: '02:00:00:00:00:10',
  })
  t.match(facts?.outpostArn, /outpost\/op-/)
  t.same(
    facts?.interfaces.map(({ mac, deviceNumber }) => [mac, deviceNumber]),
    [
      ['02:00:00:00:00:10', 0],
      ['02:00:00:00:00:11', 1],
    ],
  )
  t.equal(fake.asked[0], 'PUT /latest/api/token', 'a token first')
  t.equal(fake.asked.filter((line) => line.startsWith('PUT')).length, 1, 'one token for all')
})

t.test('answers are kept as long as they hold', async (t) => {
  const { fake, imds, tick } = await imdsOf(t)
  await Promise.all([imds.instance(), imds.instance()])
  const first = fake.asked.length
  await imds.instance()
  t.equal(fake.asked.length, first, 'not asked again within seconds')
  tick(6000)
  await imds.instance()
  t.ok(
    fake.asked.slice(first).every((line) => line.includes('interfaces')),
    'only what may have changed',
  )
  t.ok(fake.asked.length > first)
  tick(21_600_000)
  await imds.instance()
  t.equal(
    fake.asked.filter((line) => line.startsWith('PUT')).length,
    2,
    'a new token before the old one ends',
  )
})

t.test('a look needs one connection, and the next one none', async (t) => {
  const { fake, imds } = await imdsOf(t)
  await imds.events()
  t.ok(fake.asked.length > 4)
  t.equal(fake.opened(), 1)
  await imds.instance()
  await imds.events()
  t.equal(fake.opened(), 1)
  for (const before of [1, 2]) {
    fake.hangUp()
    t.match(await imds.events(), { maintenance: [] }, 'a connection that has ended is no failure')
    t.equal(fake.opened(), before + 1)
  }
})

t.test('a token that is refused is taken anew, once', async (t) => {
  const { fake, imds, tick } = await imdsOf(t)
  await imds.instance()
  fake.forgetTokens()
  tick(6000)
  t.match(await imds.instance(), { instanceId: 'i-0123456789abcdef0' })
  tick(6000)
  fake.misanswer('macs/', { code: 401 }, { code: 401 }, { code: 401 })
  t.equal(await codeOf(imds.instance()), 'imds.refused')
})

t.test('an interface that says 0 too early has no index yet', async (t) => {
  const { fake, imds } = await imdsOf(t)
  fake.paths.set('network/interfaces/macs/02:00:00:00:00:11/device-number', '0')
  t.same(
    (await imds.instance())?.interfaces.map(({ deviceNumber }) => deviceNumber),
    [0, null],
  )
})

t.test('what is absent is null', async (t) => {
  const { fake, imds } = await imdsOf(t)
  fake.paths.delete('outpost-arn')
  fake.paths.delete('services/partition')
  fake.paths.delete('network/interfaces/macs/02:00:00:00:00:11/device-number')
  fake.paths.delete('network/interfaces/macs/02:00:00:00:00:11/subnet-id')
  const facts = await imds.instance()
  t.equal(facts?.outpostArn, null)
  t.equal(facts?.partition, 'aws')
  t.match(facts?.interfaces[1], { deviceNumber: null, subnetId: null })
  t.same(await imds.events(), { spot: null, rebalance: null, maintenance: [], lifecycle: null })
})

t.test('events', async (t) => {
  const { fake, imds } = await imdsOf(t)
  fake.paths.set('spot/instance-action', '{"action":"terminate","time":"2026-11-21T08:22:00Z"}')
  fake.paths.set('events/recommendations/rebalance', '{"noticeTime":"2026-11-21T08:22:00Z"}')
  fake.paths.set('autoscaling/target-lifecycle-state', 'InService')
  const event = (more: object) => ({
    NotBefore: '21 Jan 2019 09:00:43 GMT',
    Code: 'system-reboot',
    Description: 'scheduled reboot',
    EventId: 'instance-event-1',
    NotAfter: '21 Jan 2019 09:17:23 GMT',
    State: 'active',
    ...more,
  })
  fake.paths.set(
    'events/maintenance/scheduled',
    JSON.stringify([
      event({}),
      event({ Code: 'instance-retirement', NotAfter: '', NotBefore: '1 Feb 2019 09:00:43 GMT' }),
      event({ Description: '[Canceled] scheduled reboot' }),
      event({ State: 'completed', NotBefore: 'tomorrow', NotAfter: 7 }),
    ]),
  )
  const events = await imds.events()
  t.match(events, {
    spot: { action: 'terminate', atMs: Date.UTC(2026, 10, 21, 8, 22) },
    rebalance: { noticedMs: Date.UTC(2026, 10, 21, 8, 22) },
    lifecycle: 'InService',
  })
  t.same(
    events?.maintenance.map(({ code, active, notBeforeMs, notAfterMs }) => [
      code,
      active,
      notBeforeMs,
      notAfterMs,
    ]),
    [
      ['system-reboot', true, Date.UTC(2019, 0, 21, 9, 0, 43), Date.UTC(2019, 0, 21, 9, 17, 23)],
      ['instance-retirement', true, Date.UTC(2019, 1, 1, 9, 0, 43), null],
      ['system-reboot', false, Date.UTC(2019, 0, 21, 9, 0, 43), Date.UTC(2019, 0, 21, 9, 17, 23)],
      ['system-reboot', false, null, null],
    ],
  )
  for (const wrong of ['{}', '7', '[[]]', '[null]', 'x', JSON.stringify(Array(101).fill({}))]) {
    fake.paths.set('events/maintenance/scheduled', wrong)
    t.equal(await codeOf(new Imds({ endpoints: [fake.endpoint] }).events()), 'imds.unexpected-answer', wrong)
  }
})

t.test('moments', async (t) => {
  t.equal(parseMoment('1 Jan 2026 00:00:00 GMT'), Date.UTC(2026, 0, 1))
  for (const text of [
    '',
    '31 Feb 2026 00:00:00 GMT',
    '1 Jam 2026 00:00:00 GMT',
    '2026-13-01T00:00:00Z',
    'now',
    null,
    7,
    {},
  ])
    t.equal(parseMoment(text), null, JSON.stringify(text))
})

t.test('what passes by itself is asked again', async (t) => {
  const { fake, imds } = await imdsOf(t)
  fake.misanswer('instance-id', { code: 429 }, { code: 503 }, 'reset')
  fake.misanswer('api/token', { code: 500 })
  t.match(await imds.instance(), { instanceId: 'i-0123456789abcdef0' })
})

t.test('silence on an instance is an error, and is left alone for a while', async (t) => {
  const { fake, imds, tick } = await imdsOf(t, { requestMs: 30 })
  fake.misanswer('api/token', ...Array<Misanswer>(8).fill('silence'))
  t.equal(await codeOf(imds.instance()), 'imds.unreachable')
  const asked = fake.asked.length
  t.equal(asked, 4, 'tried some times')
  t.equal(await codeOf(imds.instance()), 'imds.unreachable')
  t.equal(fake.asked.length, asked, 'not asked while resting')
  tick(2001)
  t.equal(await codeOf(imds.instance()), 'imds.unreachable')
  tick(2001)
  t.equal(await codeOf(imds.instance()), 'imds.unreachable')
  t.equal(fake.asked.length, asked + 4, 'rests longer after the second')
  tick(4001)
  t.match(await imds.instance(), { region: 'xx-test-1' }, 'and is back')
})

t.test('a host that is no instance is told so at once', async (t) => {
  const off = (endpoint: string) =>
    new Imds({ endpoints: [endpoint], isInstance: async () => false, requestMs: 100 })
  const fake = await startFakeImds()
  const startedMs = performance.now()
  fake.misanswer('api/token', 'silence')
  t.equal(await off(fake.endpoint).instance(), null)
  t.equal(fake.asked.length, 1, 'one try')
  t.ok(performance.now() - startedMs < 1000)
  // What other clouds and captive portals have there.
  for (const answer of [
    { code: 404 },
    { code: 405 },
    { code: 403 },
    { code: 400 },
    { code: 302, headers: { location: 'http://127.0.0.1:1/' } },
    { code: 200, body: '<html>log in</html>' },
    { raw: 'SSH-2.0-x\r\n' },
    'reset',
  ] satisfies Misanswer[]) {
    fake.misanswer('api/token', ...Array<Misanswer>(4).fill(answer))
    const imds = off(fake.endpoint)
    t.equal(await imds.instance(), null, JSON.stringify(answer))
    t.equal(await imds.events(), null)
  }
  await fake.close()
  t.equal(await off(fake.endpoint).instance(), null, 'nobody listens')
})

t.test('hostile answers of any shape are one typed error', async (t) => {
  const long = 'x'.repeat(100_000)
  const shapes: readonly Misanswer[] = [
    { code: 200, body: '' },
    { code: 200, body: long },
    { code: 200, body: '\u001b[31mi-0123456789abcdef0' },
    { code: 200, body: 'i-0123456789abcdef0\nExecStart=/bin/x' },
    { code: 200, body: '../../etc/passwd' },
    { code: 200, body: '{"a":1}' },
    { code: 204 },
    { code: 302, headers: { location: 'http://127.0.0.1:1/x' } },
    { code: 418 },
    { raw: `HTTP/1.1 200 OK\r\nX: ${long}\r\n\r\n` },
    { raw: Buffer.from([0, 255, 1, 2, 3]) },
    { raw: 'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n' },
    { raw: 'HTTP/1.1 999999 OK\r\n\r\n' },
  ]
  for (const path of Object.keys(usualPaths))
    for (const shape of shapes) {
      const { fake, imds } = await imdsOf(t)
      fake.misanswer(path, ...Array<Misanswer>(9).fill(shape))
      const code = await codeOf(imds.instance())
      const isList =
        path.endsWith('macs/') && typeof shape === 'object' && 'body' in shape && shape.body === ''
      if (isList) t.match(code, { interfaces: [] }, `${path} is an empty list`)
      else t.equal(code, 'imds.unexpected-answer', `${path} ${JSON.stringify(shape).slice(0, 60)}`)
      await fake.close()
    }
})

t.test('torn and random answers end in an answer or a typed error, soon', async (t) => {
  const chance = seeded(20261121)
  const whole = 'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\ni-0123456789abcdef0'
  for (let round = 0; round < 150; round += 1) {
    const { fake, imds } = await imdsOf(t, { requestMs: 50 })
    const raw = Buffer.from(whole)
    if (chance() < 0.5)
      for (let at = 0; at < 3; at += 1) raw[Math.floor(chance() * raw.length)] = Math.floor(chance() * 256)
    const cut = raw.subarray(0, Math.floor(chance() * (raw.length + 1)))
    fake.misanswer('instance-id', ...Array<Misanswer>(4).fill({ raw: cut }))
    const code = await codeOf(imds.instance())
    t.ok(
      ['imds.unexpected-answer', 'imds.unreachable', 'imds.refused'].includes(String(code)) ||
        typeof code === 'object',
      `${JSON.stringify(cut.toString('latin1'))}: ${code}`,
    )
    t.notOk(code instanceof Error, String(code))
    await fake.close()
  }
})
