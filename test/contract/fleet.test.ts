// A fleet of real processes on loopback: they join, tell each other how they are, are cut off, come back, get new certificates, and
// are put out.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { get } from 'node:https'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { makeRequest, signIssuer, usualLifetimes } from '../../agent/peers/authority.ts'
import { joinFleet } from '../../agent/peers/enrol.ts'
import { acceptIssuer, Issuing, invite, requestIssuer, revoke } from '../../agent/peers/issuing.ts'
import { readCredentials } from '../../agent/peers/keyring.ts'
import { type FleetHost, FleetWorld, until } from './fleet-world.ts'

t.setTimeout(200_000)

t.test('three hosts as a fleet', async (t) => {
  const world = new FleetWorld(t.testdir())
  t.teardown(() => world.end())
  await world.begin('h05')
  const h05 = await world.start('h05')
  await world.join('h06', h05, 'operate')
  const h06 = await world.start('h06')
  await world.join('h07', h05)
  const h07 = await world.start('h07')
  const all = [h05, h06, h07]

  await t.test('everyone finds everyone by what the first tells', async (t) => {
    for (const host of all)
      await until(
        `${host.name} is linked with both`,
        async () => (await host.hosts()).filter(({ link }) => link).length === 2,
      )
    t.equal((await h05.known('h06'))?.link?.role, 'operate')
    t.match(await h07.membership(), { host: 'h07', role: 'read', issuerUntilMs: null, renewProblem: null })
    t.equal((await h07.known('h05'))?.link?.over, 'lo')
    t.equal((await h07.known('h05'))?.link?.issues, true)
  })

  await t.test('reports arrive everywhere, whole at first and then what differs', async (t) => {
    const vms = Array.from({ length: 100 }, (_, at) => ({ name: `vm-${at}`, power: 'running', cpu: at / 7 }))
    const report = { health: 'ok', vms, 'a.b': { c: [1, { d: null }] } }
    await h06.publish(1, report)
    for (const host of [h05, h07])
      await until(`${host.name} has it`, async () => (await host.reportOf('h06'))?.generation === 1)
    t.same((await h07.reportOf('h06'))?.body, report)
    const before = (await h07.known('h06'))?.link?.receivedBytes ?? 0
    const changed = { ...report, health: 'high', vms: [{ ...vms[0], power: 'off' }, ...vms.slice(1, 99)] }
    await h06.publish(2, changed)
    await until('h07 has the next', async () => (await h07.reportOf('h06'))?.generation === 2)
    t.same((await h07.reportOf('h06'))?.body, changed)
    const bytes = ((await h07.known('h06'))?.link?.receivedBytes ?? 0) - before
    t.ok(bytes < 1000, `the difference took ${bytes} bytes`)
  })

  await t.test('events arrive everywhere at once', async (t) => {
    await h05.ask({ do: 'tell', event: { kind: 'ec2', notice: 'instance-retirement' } })
    for (const host of [h06, h07])
      await until(`${host.name} has heard`, () =>
        host.happened().some((one) => one.what === 'event' && one.host === 'h05'),
      )
    t.match(
      h06.happened().find(({ what }) => what === 'event'),
      { missed: 0, event: { notice: 'instance-retirement' } },
    )
  })

  await t.test('a host that goes silent is not seen, and others say when they saw it', async () => {
    h07.kill('SIGSTOP')
    await until(
      'both have lost it',
      async () => !(await h05.known('h07'))?.link && !(await h06.known('h07'))?.link,
    )
    await h06.ask({ do: 'ask' })
    await until('h06 knows who saw it last', async () => {
      const { seen, seenBy } = (await h06.known('h07')) ?? {}
      const times = [seen?.atMs ?? 0, seenBy?.atMs ?? 0]
      return Math.max(...times) > Date.now() - 30_000 && seen?.over === 'lo'
    })
    await h05.publish(9, { health: 'ok', text: 'said while h07 was away' })
    h07.kill('SIGCONT')
    await until('it is back', async () => Boolean((await h05.known('h07'))?.link))
    await until('it has what it missed', async () => (await h07.reportOf('h05'))?.generation === 9)
  })

  await t.test(
    'a host that starts again has its reports taken, and knows the others by itself',
    async (t) => {
      await h06.leave()
      await until('it is gone', async () => !(await h05.known('h06'))?.link)
      const again = await world.start('h06')
      await again.publish(1, { health: 'ok', again: true })
      await until('the newer one counts', async () => {
        const { body, generation } = (await h05.reportOf('h06')) ?? {}
        return generation === 1 && (body as { again?: boolean }).again === true
      })
      await until('it is linked', async () => Boolean((await again.known('h07'))?.link))
      t.equal((await again.reportOf('h05'))?.generation, 9)
    },
  )

  await t.test('a host that is put out is cut off everywhere at once, and stays out', async (t) => {
    await revoke(h05.folder, 'h07', Date.now())
    const h06again = world.hosts.get('h06') ?? h06
    await until('nobody is linked with it', async () => {
      const [a, b] = [await h05.known('h07'), await h06again.known('h07')]
      return !a?.link && !b?.link
    })
    await until('it is told why', async () => /revoked/.test((await h07.known('h05'))?.problem ?? ''))
    await sleep(1500)
    t.notOk(
      (await h07.hosts()).some(({ link }) => link),
      'and does not come back',
    )
    t.same(
      (await h06again.membership()).revoked.map(({ host }) => host),
      ['h07'],
      'the others know it',
    )
    const { fingerprint, port } = await h05.membership()
    const secret = await invite(
      h05.folder,
      { role: 'read', host: null, untilMs: Date.now() + 60_000 },
      Date.now(),
    )
    const folder = world.folder('h07-anew')
    await folder.enter()
    const addresses = [{ over: '-', host: '127.0.0.1', port }]
    const joined = await joinFleet(folder, { addresses, fingerprint, secret }, 'h07', Date.now())
    t.equal(joined.host, 'h07', 'with a new token it may')
  })
})

t.test('certificates are renewed in time, and no report is dropped for it', async (t) => {
  const world = new FleetWorld(t.testdir())
  t.teardown(() => world.end())
  await world.begin('a', { hostMs: 12_000, issuerMs: 40_000, authorityMs: 600_000 })
  const a = await world.start('a')
  await world.join('b', a)
  const b = await world.start('b')
  await until('they are linked', async () => Boolean((await a.known('b'))?.link))
  const first = (await b.membership()).untilMs
  let generation = 0
  const renewals = (host: FleetHost) => host.printed.filter(({ log }) => log === 'new certificate').length
  const endMs = performance.now() + 120_000
  while (Math.min(renewals(a), renewals(b)) < 3 && performance.now() < endMs) {
    generation += 1
    await Promise.all([a.publish(generation, { generation }), b.publish(generation, { generation })])
    await sleep(100)
  }
  await until('all of them arrived', async () => (await a.reportOf('b'))?.generation === generation)
  await until('all of them arrived', async () => (await b.reportOf('a'))?.generation === generation)
  for (const [host, of] of [
    [a, 'b'],
    [b, 'a'],
  ] as const) {
    const generations = host
      .happened()
      .flatMap((one) => (one.what === 'report' && one.host === of ? [one.generation] : []))
    const gaps = generations.slice(1).filter((one, at) => one !== (generations[at] ?? 0) + 1)
    t.same(gaps, [], `${host.name} was told of every generation`)
    t.ok(renewals(host) >= 3, 'with several certificates')
    t.same(
      host.happened().filter(({ what }) => what === 'lost'),
      [],
      'and never lost the other',
    )
  }
  t.ok((await b.membership()).untilMs > first + 12_000, 'past the time of the first')
})

t.test('another host becomes an issuer by the key of the authority, when the first is gone', async (t) => {
  const world = new FleetWorld(t.testdir())
  t.teardown(() => world.end())
  await world.begin('a')
  const a = await world.start('a')
  await world.join('b', a)
  const authority = await a.folder.readAuthorityKey()
  await a.leave()
  if (authority === null) throw new Error('the key of the authority is not there')
  const b = world.folder('b')
  await t.rejects(invite(b, { role: 'read', host: null, untilMs: 0 }, 0), { code: 'fleet.no-issuer' })
  const request = await requestIssuer(b)
  t.equal(await requestIssuer(b), request, 'an open request is told again')
  const foreign = await makeRequest('issuer')
  await t.rejects(acceptIssuer(b, await signIssuer(authority, foreign.request, 1e9, Date.now())), {
    code: 'fleet.request-refused',
  })
  await t.rejects(acceptIssuer(b, 'nothing'), { code: 'fleet.request-refused' })
  await acceptIssuer(b, await signIssuer(authority, request, usualLifetimes.issuerMs, Date.now()))
  const issuer = await world.start('b')
  await world.join('c', issuer)
  const c = await world.start('c')
  await until('the new one finds b', async () => Boolean((await c.known('b'))?.link))
  t.match(await issuer.membership(), { host: 'b', role: 'read' })
  t.not((await issuer.membership()).issuerUntilMs, null)
})

t.test('files that are torn cost what was in them, and say so', async (t) => {
  const world = new FleetWorld(t.testdir())
  t.teardown(() => world.end())
  await world.begin('h05')
  const h05 = await world.start('h05')
  await world.join('h06', h05)
  const h06 = await world.start('h06')
  await until('they are linked', async () => Boolean((await h06.known('h05'))?.link))
  await h06.leave()
  const torn = ['known.json', `revoked/${'0'.repeat(16)}.json`].map((name) => join(h06.folder.path, name))
  const [knownPath = '', revokedPath = ''] = torn
  writeFileSync(knownPath, readFileSync(knownPath, 'utf8').slice(0, -9))
  writeFileSync(revokedPath, '{"host":"h09"}')
  const { port } = await h05.membership()
  const again = await world.start('h06', {
    desired: { port: 0, peers: { h05: { lo: `127.0.0.1:${port}` } } },
  })
  t.same(
    (await again.conditions()).map(({ code, subject }) => [code, subject]),
    torn.map((path) => ['fleet.file-damaged', path]),
  )
  t.match(
    again.printed.filter(({ failed }) => failed).map(({ err }) => err),
    [revokedPath, knownPath].map((path) => ({
      code: 'fleet.file-damaged',
      remedy: /Remove the file/,
      details: { path },
    })),
  )
  await until('it is linked all the same', async () => Boolean((await again.known('h05'))?.link))
  rmSync(revokedPath)
  await until('what was removed is told no more', async () => (await again.conditions()).length === 1)
  await again.leave()
  t.match(JSON.parse(readFileSync(knownPath, 'utf8')), [{ host: 'h05' }], 'and written anew')

  await h05.leave()
  const issuerPath = join(h05.folder.path, 'issuer.pem')
  const whole = readFileSync(issuerPath, 'utf8')
  writeFileSync(issuerPath, whole.replace(/\nM.{40}/, '\n'))
  const issuer = await world.start('h05')
  t.match(await issuer.conditions(), [{ code: 'fleet.file-damaged', subject: issuerPath }])
  t.match(await issuer.membership(), { host: 'h05', issuerUntilMs: null })
  await t.rejects(invite(h05.folder, { role: 'read', host: null, untilMs: 0 }, 0), {
    code: 'fleet.file-damaged',
  })
  writeFileSync(issuerPath, whole)

  const lifetimesPath = join(h05.folder.path, 'lifetimes.json')
  writeFileSync(lifetimesPath, '')
  await until('what issuing takes is told at once', async () =>
    (await issuer.conditions()).some(({ subject }) => subject === lifetimesPath),
  )
  t.match(await issuer.membership(), { issuerUntilMs: null }, 'and nobody asks it in vain')
  rmSync(lifetimesPath)
  await until(
    'without it there are the usual ones',
    async () => (await issuer.membership()).issuerUntilMs !== null,
  )
  t.same(await issuer.conditions(), [])

  const { enrolment } = (await h05.folder.readEnrolment('h06')) ?? {}
  writeFileSync(join(h05.folder.path, 'enrolled/h06.json'), '')
  const asked = { fleet: (await issuer.membership()).fleet, host: 'h06', role: 'read', expiresMs: 0 } as const
  const { request } = await makeRequest('h06')
  await new Issuing(h05.folder, Date.now).renew({ ...asked, enrolment: enrolment ?? '' }, request)
  t.match(await h05.folder.readEnrolment('h06'), { enrolment }, 'a host that is renewed can be revoked again')
})

t.test('the fleet port tells Prometheus the metrics, by choice and to members alone', async (t) => {
  const world = new FleetWorld(t.testdir())
  t.teardown(() => world.end())
  await world.begin('h05')
  const h05 = await world.start('h05', { desired: { port: 0, peers: {}, metrics: true } })
  await world.join('h06', h05)
  const h06 = await world.start('h06')
  const member = (await readCredentials(world.folder('h06')))?.tls ?? {}
  const scrape = async (host: FleetHost, tls: object) => {
    const { port } = await host.membership()
    const options = { ...{ host: '127.0.0.1', port, path: '/metrics', rejectUnauthorized: false }, ...tls }
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    get(options, resolve).on('error', reject)
    const response = await promise
    return [response.statusCode, await text(response)]
  }
  t.same(await scrape(h05, member), [200, 'garrison_build_info 1\n'])
  t.equal((await scrape(h05, {}))[0], 403, 'a stranger')
  t.equal((await scrape(h06, member))[0], 404, 'where it is not wanted')
})
