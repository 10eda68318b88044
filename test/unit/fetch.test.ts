// Fetching files from a real HTTP server on the loopback that misbehaves in every way that it can be told to.

import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type FetchOptions, type FetchProgress, fetchFile } from '../../agent/host/fetch.ts'

// Servers that stall, and tries that follow each other, take their time.
t.setTimeout(180_000)

const mib = 2 ** 20
const content = randomBytes(3 * mib + 123)
const other = randomBytes(content.length)
const sum = (bytes: Uint8Array, algorithm = 'sha256'): string =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`

type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => void

/** A server that answers as it is told, and what it was asked. */
async function serve(t: Test, answer: Answer) {
  const asked: IncomingMessage[] = []
  const server = createServer((request, response) => {
    asked.push(request)
    answer(request, response, asked.length)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/image.qcow2`,
    ranges: () => asked.map(({ headers }) => headers.range ?? 'all'),
    conditions: () => asked.map(({ headers }) => headers['if-range'] ?? 'none'),
    asked,
  }
}

/** The offset that a request asks to begin at; 0 when it asks for all. */
const offsetOf = ({ headers }: IncomingMessage): number =>
  Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0)

/** What a good server does. */
function good(request: IncomingMessage, response: ServerResponse, bytes = content, etag = '"one"'): void {
  const offset = offsetOf(request)
  const condition = request.headers['if-range']
  if (offset > bytes.length || (offset === bytes.length && offset > 0)) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    return
  }
  const isPart = offset > 0 && (condition === undefined || condition === etag)
  const rest = isPart ? bytes.subarray(offset) : bytes
  response.writeHead(isPart ? 206 : 200, {
    etag,
    'content-length': rest.length,
    ...(isPart && { 'content-range': `bytes ${offset}-${bytes.length - 1}/${bytes.length}` }),
  })
  response.end(rest)
}

const faithful: Answer = (request, response) => good(request, response)

/** Sends so many bytes of a body that promises more, and cuts the line. */
function cut(
  response: ServerResponse,
  headers: Record<string, string | number>,
  bytes: Uint8Array,
  status = 200,
): void {
  response.writeHead(status, headers)
  response.write(bytes, () => response.socket?.destroy())
}

const plenty = async () => 2 ** 40

interface Place {
  readonly folder: string
  readonly path: string
  names(): readonly string[]
  fetch(source: string, more?: object, options?: FetchOptions): Promise<void>
}

/** A folder to fetch into. Tries follow each other quickly. */
function place(t: Test): Place {
  const folder = t.testdir({})
  const path = join(folder, 'image.qcow2')
  return {
    folder,
    path,
    names: () =>
      readdirSync(folder)
        .filter((name) => name !== '.image.qcow2.origin.json')
        .sort(),
    fetch: (source, more = {}, options = {}) =>
      fetchFile(
        { source, path, checksum: sum(content), deadlineMs: 20_000, ...more },
        { stallMs: 500, pauseMs: 5, freeBytes: plenty, ...options },
      ),
  }
}

/** That the file is there and exact, and nothing else. */
function isWhole(t: Test, { path, names }: Place, bytes = content): void {
  t.ok(readFileSync(path).equals(bytes), 'exact')
  t.same(names(), ['image.qcow2'], 'and nothing beside it')
}

t.test('a file is fetched, and not again', async (t) => {
  const server = await serve(t, faithful)
  const at = place(t)
  const progress: FetchProgress[] = []
  await at.fetch(server.url, {}, { onProgress: (one) => progress.push(one) })
  isWhole(t, at)
  t.equal(statSync(at.path).mode & 0o777, 0o444, 'to be read by everybody and written by nobody')
  t.same(progress.at(-1), { doneBytes: content.length, totalBytes: content.length, resumedBytes: 0 })
  t.equal(server.asked[0]?.headers['accept-encoding'], 'identity')
  await at.fetch(server.url)
  t.equal(server.asked.length, 1)
  await at.fetch(server.url, { checksum: sum(content, 'sha512') })
  t.equal(server.asked.length, 1)
})

t.test('a file without length, in chunks, is fetched', async (t) => {
  const server = await serve(t, (_, response) => {
    response.writeHead(200)
    response.write(content.subarray(0, mib))
    response.end(content.subarray(mib))
  })
  const at = place(t)
  await at.fetch(server.url)
  isWhole(t, at)
})

t.test('what is there and is another is not touched', async (t) => {
  const server = await serve(t, faithful)
  const at = place(t)
  writeFileSync(at.path, 'mine')
  await t.rejects(at.fetch(server.url), { code: 'file.exists' })
  t.equal(readFileSync(at.path, 'utf8'), 'mine')
  t.equal(server.asked.length, 0)
})

t.test('a line that is cut is gone on with, as often as it brings something', async (t) => {
  const server = await serve(t, (request, response, count) => {
    const offset = offsetOf(request)
    if (count > 12) return good(request, response)
    const rest = content.subarray(offset)
    cut(
      response,
      {
        etag: '"one"',
        'content-length': rest.length,
        ...(offset > 0 && { 'content-range': `bytes ${offset}-${content.length - 1}/${content.length}` }),
      },
      rest.subarray(0, 200_000),
      offset > 0 ? 206 : 200,
    )
  })
  const at = place(t)
  await at.fetch(server.url)
  isWhole(t, at)
  t.equal(server.ranges()[0], 'all')
  t.ok(
    server
      .ranges()
      .slice(1)
      .every((range) => range !== 'all'),
    'each goes on where the last one ended',
  )
  t.same([...new Set(server.conditions().slice(1))], ['"one"'])
})

t.test('a server that only ever cuts is given up, and what has come is gone on with later', async (t) => {
  let works = false
  const server = await serve(t, (request, response) => {
    if (works) return good(request, response)
    if (offsetOf(request) > 0) return response.socket?.destroy()
    cut(response, { etag: '"one"', 'content-length': content.length }, content.subarray(0, mib))
  })
  const at = place(t)
  await t.rejects(at.fetch(server.url), {
    code: 'image.fetch-failed',
    message: /tried 5 times, \d+ bytes are kept$/,
  })
  t.same(at.names(), ['image.qcow2.part', 'image.qcow2.part.json'])
  t.equal(server.asked.length, 5)
  const kept = statSync(`${at.path}.part`).size
  t.ok(kept > 0)
  works = true
  const progress: FetchProgress[] = []
  await at.fetch(server.url, {}, { onProgress: (one) => progress.push(one) })
  isWhole(t, at)
  t.equal(server.ranges().at(-1), `bytes=${kept}-`)
  t.equal(progress.at(-1)?.resumedBytes, kept)
})

/** A program of its own that fetches. */
function programFor(fetching: object): string {
  const module = join(import.meta.dirname, '../../agent/host/fetch.ts')
  const options = `{ freeBytes: async () => 2 ** 40, syncBytes: ${mib} }`
  return `const { fetchFile } = await import(${JSON.stringify(module)}); await fetchFile(${JSON.stringify(fetching)}, ${options})`
}

/** Leaves the first MiB of a file beside its place, as a run that was killed does. */
async function leftBehind(
  t: Test,
  at: Place,
  url: string,
  etag: string | null = '"one"',
  checksum = sum(content),
) {
  t.notOk(existsSync(at.path))
  writeFileSync(`${at.path}.part`, content.subarray(0, mib))
  writeFileSync(
    `${at.path}.part.json`,
    JSON.stringify({ source: url, checksum, validator: etag, totalBytes: content.length, syncedBytes: mib }),
  )
}

t.test('a file that has changed meanwhile is fetched from its beginning', async (t) => {
  for (const [name, answer] of [
    ['it answers with all of it', (request, response) => good(request, response, content, '"two"')],
    [
      'it answers with the rest of another',
      (request, response, count) =>
        count === 1
          ? response
              .writeHead(206, {
                etag: '"two"',
                'content-range': `bytes ${mib}-${content.length - 1}/${content.length}`,
                'content-length': content.length - mib,
              })
              .end(other.subarray(mib))
          : good(request, response, content, '"two"'),
    ],
    [
      'it says nothing of versions, and the rest is of another',
      (request, response, count) =>
        count === 1
          ? response
              .writeHead(206, {
                'content-range': `bytes ${mib}-${content.length - 1}/${content.length}`,
                'content-length': content.length - mib,
              })
              .end(other.subarray(mib))
          : good(request, response, content, '"two"'),
    ],
    [
      'it has another length now',
      (request, response, count) =>
        count === 1
          ? response
              .writeHead(206, { etag: '"one"', 'content-range': `bytes ${mib}-${2 * mib - 1}/${2 * mib}` })
              .end(other.subarray(mib, 2 * mib))
          : good(request, response),
    ],
    [
      'it is shorter than what is there',
      (request, response, count) =>
        count === 1
          ? response.writeHead(416, { 'content-range': 'bytes */1000' }).end()
          : good(request, response, content, '"two"'),
    ],
  ] satisfies readonly (readonly [string, Answer])[]) {
    await t.test(name, async (t) => {
      const server = await serve(t, answer)
      const at = place(t)
      await leftBehind(t, at, server.url)
      await at.fetch(server.url)
      isWhole(t, at)
      t.equal(server.ranges()[0], `bytes=${mib}-`)
    })
  }
})

t.test('answers to a range that are not that range', async (t) => {
  const ranged =
    (range: string | undefined, body: Uint8Array): Answer =>
    (request, response, count) => {
      if (count > 1) return good(request, response)
      response.writeHead(206, { etag: '"one"', ...(range !== undefined && { 'content-range': range }) })
      response.end(body)
    }
  const end = content.length - 1
  for (const [name, answer] of [
    [
      'ignored',
      (_, response) =>
        response.writeHead(200, { etag: '"one"', 'content-length': content.length }).end(content),
    ],
    ['from elsewhere', ranged(`bytes ${mib + 1}-${end}/${content.length}`, content.subarray(mib + 1))],
    ['from the beginning', ranged(`bytes 0-${end}/${content.length}`, content)],
    ['only some of it', ranged(`bytes ${mib}-${mib + 9}/${content.length}`, content.subarray(mib, mib + 10))],
    ['without saying which', ranged(undefined, content.subarray(mib))],
    ['in words', ranged('bytes all', content.subarray(mib))],
    [
      'in several parts',
      (request, response, count) => {
        if (count > 1) return good(request, response)
        response.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=x' }).end('--x\r\n')
      },
    ],
    [
      'with a length that does not fit',
      (request, response, count) => {
        if (count > 1) return good(request, response)
        response
          .writeHead(206, { 'content-range': `bytes ${mib}-${end}/${content.length}`, 'content-length': 10 })
          .end(content.subarray(mib, mib + 10))
      },
    ],
  ] satisfies readonly (readonly [string, Answer])[]) {
    await t.test(name, async (t) => {
      const server = await serve(t, answer)
      const at = place(t)
      await leftBehind(t, at, server.url)
      await at.fetch(server.url)
      isWhole(t, at)
    })
  }
  await t.test('all was there already', async (t) => {
    const server = await serve(t, faithful)
    const at = place(t)
    await leftBehind(t, at, server.url)
    writeFileSync(`${at.path}.part`, content)
    writeFileSync(
      `${at.path}.part.json`,
      JSON.stringify({
        source: server.url,
        checksum: sum(content),
        validator: null,
        totalBytes: null,
        syncedBytes: content.length,
      }),
    )
    await at.fetch(server.url)
    isWhole(t, at)
    t.same(server.ranges(), [`bytes=${content.length}-`])
  })
  await t.test('416 for ever', async (t) => {
    const server = await serve(t, (_, response) => response.writeHead(416).end())
    const at = place(t)
    await leftBehind(t, at, server.url)
    await t.rejects(at.fetch(server.url), { code: 'image.not-offered', message: /answers 416/ })
    t.same(at.names(), [])
  })
  await t.test('a part for all', async (t) => {
    const server = await serve(t, (_, response) =>
      response.writeHead(206, { 'content-range': 'bytes 0-9/10' }).end(content.subarray(0, 10)),
    )
    const at = place(t)
    await t.rejects(at.fetch(server.url), { code: 'image.not-offered' })
    t.same(at.names(), [])
  })
})

t.test('what an earlier run left is taken only as far as it is certain', async (t) => {
  for (const [name, harm, range] of [
    ['longer than was synced', (part: string) => appendFileSync(part, randomBytes(5000)), `bytes=${mib}-`],
    ['shorter than was synced', (part: string) => truncateSync(part, 1000), 'bytes=1000-'],
    ['with other bytes', (part: string) => writeFileSync(part, other.subarray(0, mib)), `bytes=${mib}-`],
    [
      'zeros, as after a power cut',
      (part: string) => writeFileSync(part, Buffer.alloc(mib)),
      `bytes=${mib}-`,
    ],
    ['empty', (part: string) => truncateSync(part, 0), 'all'],
    ['no record', (part: string) => writeFileSync(`${part}.json`, ''), 'all'],
    ['half a record', (part: string) => truncateSync(`${part}.json`, 20), 'all'],
    [
      'another record',
      (part: string) => writeFileSync(`${part}.json`, '{"source":1,"syncedBytes":-1}'),
      'all',
    ],
  ] as const) {
    await t.test(name, async (t) => {
      const server = await serve(t, faithful)
      const at = place(t)
      await leftBehind(t, at, server.url)
      harm(`${at.path}.part`)
      await at.fetch(server.url)
      isWhole(t, at)
      t.equal(server.ranges()[0], range)
    })
  }
  await t.test('of another source, or for another checksum', async (t) => {
    const server = await serve(t, faithful)
    for (const [url, checksum] of [
      [`${server.url}?other`, sum(content)],
      [server.url, sum(other)],
    ] as const) {
      const at = place(t)
      await leftBehind(t, at, url, '"one"', checksum)
      await at.fetch(server.url)
      isWhole(t, at)
      t.equal(server.ranges().at(-1), 'all')
    }
  })
})

t.test('a weak ETag tells no versions apart, a date does', async (t) => {
  for (const [headers, condition] of [
    [{ etag: 'W/"one"' }, 'none'],
    [{ 'last-modified': 'Sat, 21 Nov 2026 00:00:00 GMT' }, 'Sat, 21 Nov 2026 00:00:00 GMT'],
    [{ etag: '"strong"', 'last-modified': 'Sat, 21 Nov 2026 00:00:00 GMT' }, '"strong"'],
  ] as const) {
    const server = await serve(t, (request, response, count) => {
      if (count > 1) return good(request, response, content, condition)
      cut(response, { ...headers, 'content-length': content.length }, content.subarray(0, mib))
    })
    const at = place(t)
    await at.fetch(server.url)
    isWhole(t, at)
    t.equal(server.conditions()[1], condition)
  }
})

t.test('a wrong checksum leaves nothing', async (t) => {
  for (const algorithm of ['sha256', 'sha512']) {
    const server = await serve(t, (request, response) => good(request, response, other))
    const at = place(t)
    await t.rejects(at.fetch(server.url, { checksum: sum(content, algorithm) }), {
      code: 'image.checksum-wrong',
      message: new RegExp(`${sum(other, algorithm)}, not ${sum(content, algorithm)}$`),
    })
    t.same(at.names(), [])
    t.equal(server.asked.length, 1, 'it was whole, so it is not asked again')
  }
})

t.test('lengths that lie', async (t) => {
  await t.test('more than there is', async (t) => {
    const server = await serve(t, (_, response) => {
      response.writeHead(200, { 'content-length': content.length + 10 })
      response.write(content, () => response.socket?.end())
    })
    const at = place(t)
    await t.rejects(at.fetch(server.url), { code: 'image.fetch-failed', message: /bytes are kept/ })
    t.notOk(existsSync(at.path))
  })
  await t.test('less than there is', async (t) => {
    const raw = createTcpServer((socket: Socket) => {
      socket.on('error', () => socket.destroy())
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n')
        socket.end(content)
      })
    })
    await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve))
    t.teardown(() => raw.close())
    const at = place(t)
    const url = `http://127.0.0.1:${(raw.address() as AddressInfo).port}/x`
    await t.rejects(at.fetch(url), { code: /^image\.(checksum-wrong|fetch-failed)$/ })
    t.notOk(existsSync(at.path))
  })
  await t.test('another than is declared', async (t) => {
    const server = await serve(t, faithful)
    const at = place(t)
    await t.rejects(at.fetch(server.url, { sizeBytes: content.length - 1 }), {
      code: 'image.size-differs',
      message: `it has ${content.length} bytes, not ${content.length - 1}`,
    })
    t.same(at.names(), [])
    await at.fetch(server.url, { sizeBytes: content.length })
    isWhole(t, at)
  })
  await t.test('without a length, more than is declared', async (t) => {
    const server = await serve(t, (_, response) => {
      response.writeHead(200)
      const more = (error?: Error | null) => {
        if (!error && !response.destroyed) response.write(content, more)
      }
      more()
    })
    const at = place(t)
    await t.rejects(at.fetch(server.url, { sizeBytes: content.length }), { code: 'image.size-differs' })
    t.same(at.names(), [])
  })
})

t.test('redirects', async (t) => {
  const leads =
    (location: (count: number) => string | undefined, status = 302): Answer =>
    (request, response, count) => {
      const to = location(count)
      if (request.url === '/end') return good(request, response)
      response.writeHead(status, to === undefined ? {} : { location: to }).end('see there')
    }
  for (const status of [301, 302, 303, 307, 308]) {
    const server = await serve(
      t,
      leads(() => '/end', status),
    )
    const at = place(t)
    await at.fetch(server.url)
    isWhole(t, at)
  }
  const five = await serve(
    t,
    leads((count) => (count < 5 ? `/${count}` : '/end')),
  )
  const at = place(t)
  await at.fetch(five.url)
  isWhole(t, at)
  for (const [to, why] of [
    ['file:///etc/passwd', 'a file: URL'],
    ['ftp://192.0.2.1/x', 'a ftp: URL'],
    ['data:text/plain,x', 'a data: URL'],
    ['gopher://192.0.2.1/', 'a gopher: URL'],
    ['http://user:secret@127.0.0.1/', 'a URL with a user or a password'],
    ['http://[', 'no URL at all'],
    [undefined, 'no URL at all'],
  ] as const) {
    const server = await serve(
      t,
      leads(() => to),
    )
    const nowhere = place(t)
    await t.rejects(
      nowhere.fetch(`${server.url}?secret=1`),
      { code: 'image.redirect-refused', message: `${server.url} leads to ${why}` },
      String(to),
    )
    t.same(nowhere.names(), [])
    t.equal(server.asked.length, 1)
  }
  const loop = await serve(
    t,
    leads((count) => `/${count}`),
  )
  const never = place(t)
  await t.rejects(never.fetch(loop.url), { code: 'image.redirect-refused', message: /more than 5 times/ })
  t.equal(loop.asked.length, 6)
})

t.test('answers that offer nothing', async (t) => {
  for (const status of [400, 401, 403, 404, 410, 204, 304]) {
    const server = await serve(t, (_, response) => response.writeHead(status).end())
    const at = place(t)
    await t.rejects(at.fetch(server.url), {
      code: 'image.not-offered',
      message: new RegExp(`answers ${status}`),
    })
    t.same(at.names(), [])
    t.equal(server.asked.length, 1)
  }
  const packed = await serve(t, (_, response) =>
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(content),
  )
  await t.rejects(place(t).fetch(packed.url), { code: 'image.not-offered', message: /sent encoded \(gzip\)/ })
})

t.test('servers that are busy are asked again', async (t) => {
  for (const status of [408, 429, 500, 502, 503, 504]) {
    const server = await serve(t, (request, response, count) =>
      count < 4 ? response.writeHead(status).end() : good(request, response),
    )
    const at = place(t)
    await at.fetch(server.url)
    isWhole(t, at)
  }
  const patient = await serve(t, (request, response, count) =>
    count === 1 ? response.writeHead(503, { 'retry-after': '1' }).end() : good(request, response),
  )
  const beganMs = performance.now()
  await place(t).fetch(patient.url)
  t.ok(performance.now() - beganMs >= 950, 'and not before they say')
  const never = await serve(t, (_, response) => response.writeHead(500).end())
  const at = place(t)
  await t.rejects(at.fetch(never.url), { code: 'image.fetch-failed', message: /answers 500.*tried 5 times/ })
  t.same(at.names(), [])
})

t.test('nobody listens, and what is no HTTP', async (t) => {
  const raw = createTcpServer((socket: Socket) => {
    socket.on('error', () => socket.destroy())
    socket.resume().end('SSH-2.0-OpenSSH_9.2\r\n')
  })
  await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(raw.address() as AddressInfo).port}/x`
  const at = place(t)
  await t.rejects(at.fetch(url), { code: 'image.fetch-failed', message: /HPE_/ })
  await t.rejects(at.fetch(url.replace('http:', 'https:')), { code: 'image.fetch-failed' })
  await new Promise((resolve) => raw.close(resolve))
  await t.rejects(at.fetch(url), { code: 'image.fetch-failed', message: /ECONNREFUSED/ })
  t.same(at.names(), [])
})

t.test('a certificate is only accepted from whom this host trusts', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-fetch-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
  execFileSync(
    '/usr/bin/openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=127.0.0.1',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-keyout',
      key,
      '-out',
      certificate,
    ],
    { stdio: 'ignore' },
  )
  const server = createSecureServer(
    { key: readFileSync(key), cert: readFileSync(certificate) },
    faithful as never,
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/x`
  const at = place(t)
  await t.rejects(at.fetch(url), {
    code: 'image.fetch-failed',
    message: /its certificate is not accepted \(DEPTH_ZERO_SELF_SIGNED_CERT\)$/,
  })
  t.same(at.names(), [])
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      programFor({ source: url, path: at.path, checksum: sum(content), deadlineMs: 20_000 }),
    ],
    {
      stdio: 'inherit',
      env: { SSL_CERT_FILE: certificate },
    },
  )
  await new Promise((resolve) => child.once('close', resolve))
  isWhole(t, at)
})

t.test('a server that stops talking is given up, and gone on with', async (t) => {
  await t.test('before its answer', async (t) => {
    const server = await serve(t, (request, response, count) => {
      if (count > 1) good(request, response)
    })
    const at = place(t)
    await at.fetch(server.url)
    isWhole(t, at)
  })
  await t.test('in the middle', async (t) => {
    const server = await serve(t, (request, response, count) => {
      if (count > 1) return good(request, response)
      response.writeHead(200, { etag: '"one"', 'content-length': content.length })
      response.write(content.subarray(0, mib))
    })
    const at = place(t)
    await at.fetch(server.url)
    isWhole(t, at)
    t.match(server.ranges()[1], /^bytes=\d+-$/)
  })
  await t.test('for ever', async (t) => {
    const server = await serve(t, () => {})
    const at = place(t)
    await t.rejects(at.fetch(server.url, {}, { stallMs: 50 }), {
      code: 'image.fetch-failed',
      message: /nothing came for 0\.05 s; tried 5 times/,
    })
  })
})

t.test('a server that trickles is stopped at the deadline, and what came is kept', async (t) => {
  const server = await serve(t, (request, response, count) => {
    if (count > 1) return good(request, response)
    response.writeHead(200, { etag: '"one"', 'content-length': content.length })
    const timer = setInterval(() => response.write(content.subarray(0, 1)), 20)
    response.on('close', () => clearInterval(timer))
  })
  const at = place(t)
  await t.rejects(at.fetch(server.url, { deadlineMs: 400 }), {
    code: 'action.deadline',
    message: /was not fetched within 0\.4 s; \d+ bytes are kept$/,
  })
  t.same(at.names(), ['image.qcow2.part', 'image.qcow2.part.json'])
  await at.fetch(server.url)
  isWhole(t, at)
})

t.test('room is looked for before the first byte', async (t) => {
  const server = await serve(t, faithful)
  const at = place(t)
  const free = async () => 256 * mib + content.length - 1
  await t.rejects(at.fetch(server.url, {}, { freeBytes: free }), {
    code: 'file.no-space',
    message: /are left alone/,
  })
  t.same(at.names(), [])
  await at.fetch(server.url, {}, { freeBytes: async () => 256 * mib + content.length })
  isWhole(t, at)
  const endless = await serve(t, (_, response) => {
    response.writeHead(200)
    const chunk = Buffer.alloc(8 * mib)
    const more = (error?: Error | null) => {
      if (!error && !response.destroyed) response.write(chunk, more)
    }
    more()
  })
  const full = place(t)
  let left = 400 * mib
  const shrinking = async () => {
    left -= 80 * mib
    return left
  }
  await t.rejects(full.fetch(endless.url, {}, { freeBytes: shrinking, stallMs: 20_000 }), {
    code: 'file.no-space',
  })
})

t.test('an image is judged before it gets its name', async (t) => {
  const qcow2 = Buffer.alloc(65_536)
  qcow2.write('QFI\xfb', 'latin1')
  qcow2.writeUInt32BE(3, 4)
  qcow2.writeBigUInt64BE(512n, 8)
  qcow2.writeUInt32BE(11, 16)
  qcow2.write('/etc/passwd', 512)
  qcow2.writeBigUInt64BE(1_048_576n, 24)
  const server = await serve(t, (request, response) => good(request, response, qcow2))
  const at = place(t)
  await t.rejects(at.fetch(server.url, { checksum: sum(qcow2), format: 'qcow2' }), {
    code: 'image.leads-elsewhere',
    message: /a backing file, "\/etc\/passwd"$/,
  })
  t.same(at.names(), [])
  await t.rejects(at.fetch(server.url, { checksum: sum(qcow2), format: 'raw' }), {
    code: 'image.format-differs',
  })
  qcow2.writeBigUInt64BE(0n, 8)
  await at.fetch(server.url, { checksum: sum(qcow2), format: 'qcow2' })
  isWhole(t, at, qcow2)
})

t.test('a path of this host is copied in the same way', async (t) => {
  const source = join(t.testdir({}), 'source.img')
  writeFileSync(source, content)
  const folder = join(source, '..', 'pool')
  mkdirSync(folder)
  const path = join(folder, 'image.raw')
  const copy = (more: object = {}) =>
    fetchFile({ source, path, deadlineMs: 20_000, ...more }, { freeBytes: plenty })
  await t.rejects(copy({ checksum: sum(other) }), { code: 'image.checksum-wrong' })
  await t.rejects(copy({ sizeBytes: 1 }), { code: 'image.size-differs' })
  await t.rejects(copy({ source: join(folder, 'absent') }), {
    code: 'image.not-offered',
    message: /^there is no /,
  })
  await t.rejects(copy({ source: folder }), { code: 'image.not-offered', message: /is no file$/ })
  t.same(readdirSync(folder), [])
  await copy({ checksum: sum(content), format: 'raw', sizeBytes: content.length })
  t.ok(readFileSync(path).equals(content))
  t.same(readdirSync(folder), ['.image.raw.origin.json', 'image.raw'])
  await copy()
})

t.test('an S3 object is asked for by a signed URL, wherever its bucket is', async (t) => {
  const server = await serve(t, (request, response, count) => {
    const url = new URL(request.url ?? '', 'http://127.0.0.1')
    const scope = url.searchParams.get('X-Amz-Credential') ?? ''
    t.equal(url.pathname, '/my-bucket/images/a%20b%2B%C3%A9.qcow2')
    t.match(url.searchParams.get('X-Amz-Signature'), /^[0-9a-f]{64}$/)
    if (scope.includes('/here/'))
      return response
        .writeHead(301, { 'x-amz-bucket-region': 'there', 'content-type': 'application/xml' })
        .end('<Error/>')
    t.match(scope, /^AKIDEXAMPLE\/\d{8}\/there\/s3\/aws4_request$/)
    if (count > 2) return good(request, response)
    cut(response, { etag: '"one"', 'content-length': content.length }, content.subarray(0, mib))
  })
  const source = 's3://my-bucket/images/a b+é.qcow2'
  const environment = {
    AWS_ENDPOINT_URL_S3: new URL(server.url).origin,
    AWS_REGION: 'here',
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_EC2_METADATA_SERVICE_ENDPOINT: 'http://127.0.0.1:9',
    AWS_SHARED_CREDENTIALS_FILE: '/nonexistent',
    AWS_CONFIG_FILE: '/nonexistent',
  }
  const before = { ...process.env }
  t.teardown(() => {
    process.env = before
  })
  Object.assign(process.env, environment)
  const at = place(t)
  await at.fetch(source)
  isWhole(t, at)
  t.equal(server.asked.length, 3)
  t.match(server.ranges()[2], /^bytes=\d+-$/)

  const none = place(t)
  delete process.env.AWS_ACCESS_KEY_ID
  await t.rejects(none.fetch(source), { code: 'image.no-credentials', message: /no AWS credentials/ })
  delete process.env.AWS_REGION
  await t.rejects(none.fetch(source), {
    code: 'image.no-credentials',
    message: /the region of this host is not known/,
  })
  t.same(none.names(), [])
})

t.test('a process of its own fetches what it is told on standard input', async (t) => {
  const server = await serve(t, faithful)
  const at = place(t)
  const ask = async (action: object) => {
    const main = join(import.meta.dirname, '../../agent/main.ts')
    const child = spawn(process.execPath, [main, 'fetch', '--json', '--', at.path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    child.stdin.end(JSON.stringify({ kind: 'fetch', path: '/elsewhere', deadlineMs: 20_000, ...action }))
    const said = child.stdout.setEncoding('utf8').toArray()
    const [exit] = (await once(child, 'close')) as [number]
    return { exit, answer: JSON.parse((await said).join('')) as unknown }
  }
  t.match(await ask({ source: server.url, checksum: sum(other) }), {
    exit: 1,
    answer: { schema: 'garrison/problem/1', code: 'image.checksum-wrong' },
  })
  t.same(at.names(), [])
  t.same(await ask({ source: server.url, checksum: sum(content) }), {
    exit: 0,
    answer: { schema: 'garrison/fetch/1', path: at.path },
  })
  isWhole(t, at)
})

t.test('memory does not grow with the file', async (t) => {
  const chunk = randomBytes(mib)
  const hash = createHash('sha256')
  const chunks = 160
  for (let at = 0; at < chunks; at += 1) hash.update(chunk)
  const server = await serve(t, async (_, response) => {
    response.writeHead(200, { 'content-length': chunks * mib })
    for (let at = 0; at < chunks && !response.destroyed; at += 1)
      if (!response.write(chunk)) await new Promise((resolve) => response.once('drain', resolve))
    response.end()
  })
  const at = place(t)
  let most = 0
  const before = process.memoryUsage().rss
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before)
  }, 10)
  await at.fetch(server.url, { checksum: `sha256:${hash.digest('hex')}` })
  clearInterval(timer)
  t.equal(statSync(at.path).size, chunks * mib)
  t.ok(most < 80 * mib, `${Math.round(most / mib)} MiB for ${chunks} MiB, server and all`)
})

t.test('killed at any moment, it goes on and ends exact', async (t) => {
  const large = randomBytes(24 * mib)
  const server = await serve(t, (request, response) => {
    const offset = offsetOf(request)
    response.writeHead(offset > 0 ? 206 : 200, {
      etag: '"one"',
      'content-length': large.length - offset,
      ...(offset > 0 && { 'content-range': `bytes ${offset}-${large.length - 1}/${large.length}` }),
    })
    let at = offset
    const more = () => {
      if (response.destroyed) return
      const chunk = large.subarray(at, at + 256 * 1024)
      at += chunk.length
      if (chunk.length === 0) response.end()
      else response.write(chunk, () => setTimeout(more, 2))
    }
    more()
  })
  const at = place(t)
  const program = programFor({ source: server.url, path: at.path, checksum: sum(large), deadlineMs: 60_000 })
  for (const atBytes of [3, 9, 15]) {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: 'inherit' })
    const part = `${at.path}.part`
    while (!existsSync(part) || statSync(part).size < atBytes * mib) await sleep(5)
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('close', resolve))
    t.notOk(existsSync(at.path), 'what is not whole has no name')
  }
  await at.fetch(server.url, { checksum: sum(large) }, { stallMs: 20_000 })
  isWhole(t, at, large)
  t.match(server.ranges().at(-1), /^bytes=[1-9]\d{6,}-$/, 'it went on with what there was')
})
