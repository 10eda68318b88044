// The client's HTTP by hand, against a server that sends its bytes as awkwardly as the protocol allows.

import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { ask } from '../../agent/api/client.ts'

/** Listens in a folder of the test; `serve` is given the socket and the request's text once it is whole. */
async function serverOf(
  t: Test,
  serve: (socket: Socket, request: string) => void | Promise<void>,
): Promise<string> {
  // Not t.testdir: a socket's path has at most 107 bytes, and a checkout may lie deep.
  const folder = mkdtempSync(join(tmpdir(), 'garrison-client-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'a.sock')
  const server = createServer((socket) => {
    let text = ''
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      text += bytes.toString()
      if (text.endsWith('}')) serve(socket, text)
    })
  })
  server.listen(path)
  t.teardown(() => server.close())
  return path
}

const asking = (lines: string[] = []) => ({
  path: '/v1/status',
  args: { fresh: true },
  caller: 'alice',
  onLine: (line: string) => {
    lines.push(line)
  },
})

const head = (more: string): string => `HTTP/1.1 200 OK\r\n${more}\r\n\r\n`

t.test('sends one whole request', async (t) => {
  let said = ''
  const path = await serverOf(t, (socket, request) => {
    said = request
    socket.end(`${head('Content-Type: application/json\r\nContent-Length: 2\r\ngarrison-exit: 4')}{}`)
  })
  t.same(await ask(path, asking()), { ok: true, exit: 4, body: '{}' })
  t.equal(
    said,
    'POST /v1/status HTTP/1.1\r\nhost: garrison\r\nconnection: close\r\ngarrison-caller: alice\r\n' +
      'content-type: application/json\r\ncontent-length: 14\r\n\r\n{"fresh":true}',
  )
})

t.test('puts an answer together from single bytes', async (t) => {
  const answer = Buffer.from(`${head('content-length: 10\r\ngarrison-exit: 0')}{"a":"é"}`)
  const path = await serverOf(t, async (socket) => {
    for (const byte of answer) {
      socket.write(Buffer.of(byte))
      await delay(1)
    }
    socket.end()
  })
  t.same(await ask(path, asking()), { ok: true, exit: 0, body: '{"a":"é"}' })
})

t.test('takes lines out of chunks, wherever they are cut', async (t) => {
  const lines = ['{"n":1,"text":"é…𝄞"}', '{"n":2}', `{"n":3,"long":"${'x'.repeat(100_000)}"}`]
  const content = Buffer.from(lines.map((line) => `${line}\n`).join(''))
  for (const size of [1, 3, 7, 1000, 65_536, content.length]) {
    const chunks: Buffer[] = [
      Buffer.from(head('transfer-encoding: chunked\r\ncontent-type: application/x-ndjson')),
    ]
    const most = size < 100 ? 200 : content.length
    for (let at = 0; at < most; at += size) {
      const part = content.subarray(at, Math.min(at + size, most))
      chunks.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'))
    }
    if (most < content.length) {
      const part = content.subarray(most)
      chunks.push(Buffer.from(`${part.length.toString(16)};ext=1\r\n`), part, Buffer.from('\r\n'))
    }
    chunks.push(Buffer.from('0\r\n\r\n'))
    const seen: string[] = []
    const path = await serverOf(t, (socket) => {
      const whole = Buffer.concat(chunks)
      for (let at = 0; at < whole.length; at += 8191) socket.write(whole.subarray(at, at + 8191))
    })
    const { ok, body } = await ask(path, asking(seen))
    t.equal(ok, true)
    t.equal(body, '')
    t.same(seen, lines, `chunks of ${size}`)
  }
})

t.test('a problem is not ok, and whole', async (t) => {
  const path = await serverOf(t, (socket) => {
    socket.end(
      'HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"a":1}\n',
    )
  })
  t.same(await ask(path, asking()), { ok: false, exit: null, body: '{"a":1}\n' })
})

t.test('an answer that ends too early is lost, not short', async (t) => {
  for (const torn of [
    '',
    'HTTP/1.1 200 OK\r\ncontent-le',
    `${head('content-length: 10')}{"a"`,
    `${head('transfer-encoding: chunked\r\ncontent-type: application/x-ndjson')}8\r\n{"a":1}\n\r\n`,
    `${head('transfer-encoding: chunked')}8\r\n{"a"`,
  ]) {
    const path = await serverOf(t, (socket) => void socket.end(torn))
    await t.rejects(ask(path, asking()), { code: 'door.lost' }, JSON.stringify(torn))
  }
})

t.test('a door that is not there is the system’s error', async (t) => {
  await t.rejects(ask('/nonexistent/read.sock', asking()), { code: 'ENOENT' })
  const path = await serverOf(t, (socket) => void socket.destroy())
  await t.rejects(ask(path, asking()), { code: 'door.lost' })
})
