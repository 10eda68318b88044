// Attacks on the port of a host, by strangers and by a peer with a good certificate: each is ended with a reason, while a lawful peer
// stays linked and the process keeps its size.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type TLSSocket } from 'node:tls'
import t from 'tap'
import { WebSocket } from 'ws'
import { makeRequest, signHost } from '../../agent/peers/authority.ts'
import { reach } from '../../agent/peers/dial.ts'
import { Keyring, readCredentials } from '../../agent/peers/keyring.ts'
import { usualPace } from '../../agent/peers/pace.ts'
import { fleetOf, type Role } from '../../agent/peers/trust.ts'
import { FleetWorld, until } from './fleet-world.ts'

t.setTimeout(200_000)

interface Shown {
  readonly ca: string
  readonly cert?: string
  readonly key?: string
}

const world = new FleetWorld(t.testdir(), { pace: usualPace })
t.teardown(() => world.end())
await world.begin('h05')
const doorPath = join(world.root, 'door.sock')
const doors: Socket[] = []
/** A door behind the port that says what it hears, until it is told to read no more. */
const door = createServer((socket) => {
  doors.push(socket)
  socket.on('error', () => socket.destroy())
  socket.on('data', (bytes) => {
    if (bytes.includes('deaf')) socket.pause()
    else socket.write(bytes)
  })
})
door.listen(doorPath)
t.teardown(() => {
  for (const socket of doors) socket.destroy()
  door.close()
})
const h05 = await world.start('h05', { sockets: { admin: doorPath } })
await world.join('h06', h05)
const h06 = await world.start('h06')
await until('they are linked', async () => Boolean((await h05.known('h06'))?.link), 30_000)
const { port } = await h05.membership()
const own = await readCredentials(h05.folder)
if (own === null) throw new Error('no keys')
const { ca } = own.tls

/** Keys as an issuer of a fleet makes them for a host. */
async function keysOf(
  host: string,
  lifetimeMs = 60_000,
  nowMs = Date.now(),
  of = world,
  role: Role = 'read',
): Promise<Shown> {
  const folder = of.folder('h05')
  const [issuer, authority] = [await folder.readIssuer(), await readCredentials(folder)]
  if (issuer === null || authority === null) throw new Error('no issuer')
  const { key, request: asked } = await makeRequest(host)
  const fleet = fleetOf(authority.authority)
  const identity = { fleet, role, host, enrolment: randomBytes(8).toString('hex') }
  const signed = await signHost(issuer, asked, identity, lifetimeMs, nowMs)
  return { ca, key, cert: signed + issuer.certificate }
}

async function secured(shown: Shown): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, ...shown, checkServerIdentity: () => undefined })
  socket.on('error', () => socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

/** What a request is answered with: the HTTP code and the body, or an errno. */
async function answered(shown: Shown, path: string, headers: Record<string, string>, body = '{}') {
  const socket = await secured(shown)
  const asked = request({ method: 'POST', path, headers, createConnection: () => socket })
  asked.end(body)
  const { promise, resolve } = Promise.withResolvers<string>()
  asked.once('error', (error: NodeJS.ErrnoException) => resolve(String(error.code)))
  asked.once('upgrade', () => resolve('upgraded'))
  asked.once('response', (response) => {
    let text = `${response.statusCode} `
    response.on('data', (chunk: Buffer) => {
      text += chunk
    })
    response.on('close', () => resolve(text))
  })
  const answer = await promise
  socket.destroy()
  return answer
}

const upgrade = {
  ...{ connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
  'sec-websocket-key': Buffer.alloc(16).toString('base64'),
}
const askMesh = (shown: Shown, more: Record<string, string> = {}) =>
  answered(shown, '/v1/mesh', { ...upgrade, ...more })

const good = await keysOf('h07')
const hello = {
  ...{ kind: 'hello', version: 1, incarnation: '0'.repeat(16), addresses: [], have: null, issues: false },
  revoked: '0'.repeat(64),
}

/** A peer with good keys, as far as the mesh. */
async function member(shown = good): Promise<{ socket: WebSocket; raw: TLSSocket; ended: Promise<string> }> {
  const raw = await secured(shown)
  const socket = new WebSocket('ws://h05/v1/mesh', { perMessageDeflate: false, createConnection: () => raw })
  const { promise: ended, resolve } = Promise.withResolvers<string>()
  socket.on('error', () => {})
  socket.once('close', (code, reason) => resolve(`${code} ${reason}`))
  await once(socket, 'open')
  return { socket, raw, ended }
}

/** Says something after its hello; answers how the connection ends. */
async function said(...texts: readonly (string | Buffer)[]): Promise<string> {
  const { socket, ended } = await member()
  socket.send(JSON.stringify(hello))
  for (const text of texts) socket.send(text)
  return ended
}

const sizeBefore = (await h05.ask<{ rssBytes: number }>({ do: 'memory' })).rssBytes

await t.test('who shows no good certificate hears why, and nothing else', async (t) => {
  t.match(await askMesh({ ca }), /^403 .*shows no certificate/)
  t.match(await answered({ ca }, '/v1/authority', {}), /^403/, 'no invitation is open')
  t.match(await answered({ ca }, '/v1/join', {}), /^403/)
  t.match(await answered({ ca }, '/v1/verbs/v1/status', {}), /^403/)
  const expired = await keysOf('h07', 1000, Date.now() - 60_000)
  t.match(await askMesh(expired), /^403 .*expired at .*h07/)
  const foreign = new FleetWorld(t.testdir())
  await foreign.begin('h05')
  t.match(await askMesh(await keysOf('h07', 60_000, Date.now(), foreign)), /^403 .*not to be trusted/)
  t.match(
    await askMesh({ ...good, cert: good.cert?.slice(0, good.cert.indexOf('-----END') + 26) ?? '' }),
    /^403/,
  )
})

await t.test('a good certificate is of one host', async (t) => {
  const folder = world.folder('h09')
  await folder.enter()
  await folder.writeHostKey({ key: good.key ?? '', chain: good.cert ?? '' })
  await folder.writeAuthority(ca)
  const credentials = await readCredentials(folder)
  if (credentials === null) throw new Error('no keys')
  const keyring = new Keyring(folder, credentials, Date.now)
  await t.rejects(
    reach(keyring, 'h06', [{ over: '-', host: '127.0.0.1', port }]),
    { code: 'fleet.unreachable', message: /it is h05, and not h06/ },
    'who dials looks at it too',
  )
  const twin = await member(await keysOf('h05'))
  twin.socket.send(JSON.stringify(hello))
  t.match(await twin.ended, /^4003 it has the name of this host/)
  const event = { kind: 'event', host: 'h06', atMs: 1, missed: 0, event: {} }
  t.match(await said(JSON.stringify(event)), /^1008 it speaks for another host/)
})

await t.test('a browser is refused, whatever it has', async (t) => {
  t.match(await askMesh(good, { origin: 'https://h05' }), /^403 .*browser/)
  t.match(await answered(good, '/v1/verbs/v1/status', { origin: 'null' }), /^403 .*browser/)
})

await t.test('requests that are too much', async (t) => {
  t.match(await askMesh(good, { filler: 'x'.repeat(20_000) }), /^(431|400|EPIPE|ECONNRESET)/)
  const many = Object.fromEntries(Array.from({ length: 2000 }, (_, at) => [`x-${at}`, '1']))
  t.match(await askMesh(good, many), /^(431|400|EPIPE|ECONNRESET)/)
  t.match(await answered(good, '/v1/renew', {}, 'x'.repeat(200_000)), /^(413|EPIPE|ECONNRESET)/)
  t.match(await answered(good, '/v1/renew', {}, '{"request":"x"}'), /^400 .*request-refused/)
  t.match(await answered(good, '/v1/verbs/v1/no-such-verb', {}), /^(404|403|500|503)/)
})

await t.test('what is said in the mesh is checked whole', async (t) => {
  const report = (body: string) =>
    `{"kind":"report","host":"h07","incarnation":"${'0'.repeat(16)}","generation":1,"atMs":1,"base":null,"body":${body}}`
  t.match(await said(report('{"__proto__":{"a":1}}')), /^1008 a message is a forbidden key/)
  t.match(await said(report('['.repeat(5000) + ']'.repeat(5000))), /^1008 .*nested deeper/)
  t.match(await said(report('1e999')), /^1008 .*a number out of range/)
  t.match(await said(report('"\\ud800"')), /^1008 .*lone surrogate/)
  t.match(await said(report(JSON.stringify('x'.repeat(100_000)))), /^1008 .*longer than/)
  t.match(await said('{"kind":"shutdown"}'), /^1008 .*no known kind/)
  t.match(await said('not JSON'), /^1008 .*not JSON/)
  t.match(await said(Buffer.from('{"kind":"again"}')), /^1008 .*binary/)
  t.match(await said(JSON.stringify(hello)), /^1008 it says hello twice/)
  const { socket, ended } = await member()
  socket.send('{"kind":"again"}')
  t.match(await ended, /^1008 it says no hello/)
  const quiet = await member()
  t.match(await quiet.ended, /^(1008 no hello in time|1006 )/)
})

await t.test('floods of frames', async (t) => {
  t.match(await said('x'.repeat(2 ** 20 + 1)), /^(1009|1006) /, 'a frame too large')
  const fragments = await member()
  for (let at = 0; at < 200; at += 1) fragments.socket.send('x', { fin: false })
  t.match(await fragments.ended, /^(1008|1009|1006) /, 'a message in too many pieces')
  const pings = await member()
  pings.socket.send(JSON.stringify(hello))
  for (let at = 0; at < 20_000; at += 1) pings.socket.ping()
  t.match(await pings.ended, /^(1008 it says more than a peer may|1006 )/, 'pings')
  const asks = await member()
  asks.socket.send(JSON.stringify(hello))
  for (let at = 0; at < 20_000; at += 1) asks.socket.send('{"kind":"asking","hosts":["h06"]}')
  t.match(await asks.ended, /^(1008 it says more than a peer may|1006 )/, 'questions')
})

const sessionHeaders = { connection: 'upgrade', upgrade: 'garrison-session' }
const admin = () => keysOf('h08', 60_000, Date.now(), world, 'admin')
const shell = '/v1/verbs/v1/shell?args=%7B%7D'

/** A session that was asked for: its connection, and what it was answered with. */
async function session(shown: Shown): Promise<{ socket: TLSSocket; answer: string }> {
  const socket = await secured(shown)
  socket.write(
    `GET ${shell} HTTP/1.1\r\nhost: h05\r\nconnection: upgrade\r\nupgrade: garrison-session\r\n\r\n`,
  )
  const [bytes] = (await once(socket, 'data')) as [Buffer]
  return { socket, answer: bytes.toString() }
}

await t.test('a session is for the role admin, of one kind, and only so many', async (t) => {
  t.match(await answered({ ca }, shell, sessionHeaders), /^403 .*shows no certificate/)
  const expired = await keysOf('h08', 1000, Date.now() - 60_000, world, 'admin')
  t.match(await answered(expired, shell, sessionHeaders), /^403 .*expired at/)
  for (const role of ['read', 'operate'] as const)
    t.match(
      await answered(await keysOf('h08', 60_000, Date.now(), world, role), shell, sessionHeaders),
      /^403 .*fleet\.role-refused/,
    )
  const shown = await admin()
  t.match(await answered(shown, shell, { ...sessionHeaders, origin: 'https://h05' }), /^403 .*browser/)
  t.match(await answered(shown, '/v1/verbs/v1/vm/console', sessionHeaders), /^404 .*unknown-verb/)
  t.match(await answered(shown, '/v1/verbs/', sessionHeaders), /^404 .*unknown-verb/)
  t.match(await answered(shown, '/v1/shell', sessionHeaders), /^404 .*unknown-verb/)
  t.equal(doors.length, 0, 'nobody came as far as the door')
  const many = await Promise.all(Array.from({ length: 16 }, () => session(shown)))
  t.ok(many.every(({ answer }) => answer.startsWith('HTTP/1.1 101')))
  t.match((await session(shown)).answer, /^HTTP\/1\.1 503 .*fleet\.busy/s)
  for (const { socket } of many) socket.destroy()
  await until('the doors are closed too', () => doors.every(({ closed }) => closed))
})

await t.test(
  'a session says what it hears, holds up whom nobody reads, and ends with its certificate',
  async (t) => {
    const { socket, answer } = await session(await admin())
    t.match(answer, /^HTTP\/1\.1 101/)
    socket.write('hello')
    t.equal(String((await once(socket, 'data'))[0]), 'hello')
    socket.write('deaf')
    await sleep(500)
    const before = (await h05.ask<{ rssBytes: number }>({ do: 'memory' })).rssBytes
    const piece = Buffer.alloc(2 ** 20)
    for (let sent = 0; sent < 256; sent += 1) socket.write(piece)
    await sleep(3000)
    const { rssBytes } = await h05.ask<{ rssBytes: number }>({ do: 'memory' })
    t.ok(rssBytes - before < 60e6, `${(rssBytes - before) / 1e6} MB more with 256 MiB on their way`)
    t.ok(socket.writableLength > 200 * 2 ** 20, `${socket.writableLength} bytes wait here`)
    socket.destroy()
    // What reads nothing hears of no end either.
    for (const one of doors) one.resume()
    const brief = await session(await keysOf('h08', 4000, Date.now(), world, 'admin'))
    t.match(brief.answer, /^HTTP\/1\.1 101/)
    const beganMs = performance.now()
    await once(brief.socket, 'close')
    t.ok(performance.now() - beganMs < 10_000, 'past its time it is cut off')
    await until('the doors are closed too', () => doors.every(({ closed }) => closed))
  },
)

await t.test('those who come and say nothing', async (t) => {
  const lengths: number[] = []
  const silent = (socket: Socket) => {
    const sinceMs = performance.now()
    socket.on('error', () => socket.destroy())
    socket.once('close', () => lengths.push(performance.now() - sinceMs))
  }
  const tcp = Array.from({ length: 100 }, () => connectTcp({ host: '127.0.0.1', port }))
  for (const socket of tcp) silent(socket)
  await until('all of them were ended', () => lengths.length === 100, 20_000)
  t.ok(lengths.filter((ms) => ms < 2000).length >= 80, 'most at once: there are sixteen from one address')
  lengths.length = 0
  // One byte of a header a second, and then with a good certificate.
  for (const shown of [{ ca }, good]) {
    const slow = await secured(shown)
    silent(slow)
    slow.write('POST /v1/mesh HTTP/1.1\r\n')
    const drip = setInterval(() => slow.write('x'), 500)
    slow.once('close', () => clearInterval(drip))
  }
  await until('the slow ones were ended', () => lengths.length === 2, 20_000)
})

await t.test('after all of it', async (t) => {
  await sleep(1000)
  const { rssBytes } = await h05.ask<{ rssBytes: number }>({ do: 'memory' })
  t.comment(`${(sizeBefore / 1e6).toFixed(0)} MB before, ${(rssBytes / 1e6).toFixed(0)} MB after`)
  t.ok(rssBytes - sizeBefore < 80e6, 'it has not grown much')
  t.ok((await h05.known('h06'))?.link, 'the lawful peer is linked')
  t.notOk(
    h06.happened().some(({ what }) => what === 'lost'),
    'and always was',
  )
  await h05.publish(1, { health: 'ok' })
  await until('it hears of it', async () => (await h06.reportOf('h05'))?.generation === 1)
  t.equal(h05.printed.filter(({ failed }) => failed).length, 0, 'nothing failed')
  const told = h05.printed.filter(({ log }) => log === 'refused on the fleet port')
  t.ok(told.length > 3 && told.length < 100, `${told.length} lines told of it`)
})
