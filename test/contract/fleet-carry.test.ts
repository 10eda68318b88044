// Verbs that a host asks a peer for, over the real port: one that is long in coming is waited for, one that streams goes on, and a peer that
// is stopped is given up.

import { once } from 'node:events'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ask } from '../../agent/api/client.ts'
import { Keyring, readCredentials } from '../../agent/peers/keyring.ts'
import { askPeer } from '../../agent/peers/relay.ts'
import { problemOf } from '../../provisioning/problem.ts'
import { FleetWorld } from './fleet-world.ts'

t.setTimeout(120_000)

const longMs = 26_000
const world = new FleetWorld(t.testdir())
t.teardown(() => world.end())

/** The door of the peers: what each verb does there. */
const doorPath = join(world.root, 'door.sock')
const asked: string[] = []
const door = createServer(async ({ url = '' }, response) => {
  asked.push(url)
  if (url === '/v1/streams') response.writeHead(200).write('{"line":1}\n')
  if (url === '/v1/never') return
  await sleep(longMs)
  response.end('{"line":2}\n')
})
door.listen(doorPath)
t.teardown(() => {
  door.closeAllConnections()
  door.close()
})

await world.begin('h05')
const h05 = await world.start('h05')
const sockets = { read: doorPath }
await world.join('h06', h05)
await world.join('h07', h05)
const peers = { h06: await world.start('h06', { sockets }), h07: await world.start('h07', { sockets }) }

const own = await readCredentials(h05.folder)
if (own === null) throw new Error('no keys')
const keyring = new Keyring(h05.folder, own, Date.now)

/** The door of the host that asks. */
const nearPath = join(world.root, 'near.sock')
const near = createServer(async ({ url = '', headers }, response) => {
  const host = headers['garrison-host'] as keyof typeof peers
  const { port } = await peers[host].membership()
  const addresses = [{ over: 'lo', host: '127.0.0.1', port }]
  try {
    await askPeer(keyring, host, addresses, { path: url, args: {}, caller: 'the test' }, response)
  } catch (error) {
    response.writeHead(502).end(JSON.stringify(problemOf(error)))
  }
})
near.listen(nearPath)
await once(near, 'listening')
t.teardown(() => {
  near.closeAllConnections()
  near.close()
})

const verb = async (host: keyof typeof peers, path: string) => {
  const beganMs = performance.now()
  const { ok, body } = await ask(nearPath, { path, args: {}, caller: 'the test', host, onLine: () => {} })
  return { ok, body, ms: performance.now() - beganMs }
}

t.test('what is long in coming is waited for, and a peer that is stopped is not', async (t) => {
  const slow = verb('h06', '/v1/slow')
  const streams = verb('h06', '/v1/streams')
  const never = verb('h07', '/v1/never')
  while (!asked.includes('/v1/never')) await sleep(20)
  peers.h07.kill('SIGSTOP')

  const { ok, body, ms } = await never
  t.notOk(ok)
  t.match(JSON.parse(body), { code: 'fleet.unreachable', message: /^h07 broke off: no answer in time$/ })
  t.ok(ms < longMs, `given up after ${Math.round(ms)} ms`)
  t.match(await slow, { ok: true, body: '{"line":2}\n' })
  t.match(await streams, { ok: true, body: '{"line":1}\n{"line":2}\n' })
})
