// Instance metadata on loopback or in a namespace: tokens as IMDSv2 has them, a table of paths, and whatever a test wants to go wrong.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** One answer that is not what the table says: `raw` bytes on the socket, a code, no answer, or a connection that is cut. */
export type Misanswer =
  | { readonly raw: string | Buffer }
  | { readonly code: number; readonly body?: string; readonly headers?: Readonly<Record<string, string>> }
  | 'silence'
  | 'reset'

/** The metadata. `paths` are below /latest/meta-data/; what is not there is 404. */
export interface FakeImds {
  readonly endpoint: string
  readonly paths: Map<string, string>
  /** Every request so far: `PUT /latest/api/token`. */
  readonly asked: string[]
  /** How many connections there have been. */
  opened(): number
  /** Ends the connections that there are, as a service does that has heard nothing on them for long. */
  hangUp(): void
  /** What the next requests whose path ends so are answered with, in their order. */
  misanswer(path: string, ...answers: readonly Misanswer[]): void
  /** As if the token had run out, or the instance had been stopped and started. */
  forgetTokens(): void
  close(): Promise<void>
}

/** What an instance with two interfaces on an Outposts server is told; the second was attached later. */
export const usualPaths: Readonly<Record<string, string>> = {
  'instance-id': 'i-0123456789abcdef0',
  'placement/region': 'xx-test-1',
  'placement/availability-zone': 'xx-test-1a',
  'services/partition': 'aws',
  'outpost-arn': [
    'arn',
    'aws',
    'outposts',
    'xx-test-1',
    '1234'.repeat(3),
    'outpost/op-0123456789abcdef0',
  ].join(':'),
  mac: '02:00:00:00:00:10',
  'network/interfaces/macs/': '02:00:00:00:00:10/\n02:00:00:00:00:11/',
  'network/interfaces/macs/02:00:00:00:00:10/device-number': '0',
  'network/interfaces/macs/02:00:00:00:00:10/interface-id': 'eni-0123456789abcdef0',
  'network/interfaces/macs/02:00:00:00:00:10/subnet-id': 'subnet-0123456789abcdef0',
  'network/interfaces/macs/02:00:00:00:00:11/device-number': '1',
  'network/interfaces/macs/02:00:00:00:00:11/interface-id': 'eni-1123456789abcdef0',
  'network/interfaces/macs/02:00:00:00:00:11/subnet-id': 'subnet-0123456789abcdef0',
}

/** Serves metadata until closed. */
export async function startFakeImds(
  paths: Readonly<Record<string, string>> = usualPaths,
  at = { host: '127.0.0.1', port: 0 },
): Promise<FakeImds> {
  const table = new Map(Object.entries(paths))
  const asked: string[] = []
  const wrong = new Map<string, Misanswer[]>()
  const sockets = new Set<Socket>()
  let opened = 0
  let tokens = new Set<string>()
  let given = 0

  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const { method = '', url = '', headers } = request
    asked.push(`${method} ${url}`)
    for (const [path, answers] of wrong) {
      const next = url.endsWith(path) ? answers.shift() : undefined
      if (next === 'silence') return
      if (next === 'reset') {
        request.socket.resetAndDestroy()
        return
      }
      if (next !== undefined && 'raw' in next) {
        request.socket.end(next.raw)
        return
      }
      if (next !== undefined) {
        response.writeHead(next.code, next.headers).end(next.body)
        return
      }
    }
    if (url === '/latest/api/token') {
      const seconds = Number(headers['x-aws-ec2-metadata-token-ttl-seconds'])
      if (method !== 'PUT') response.writeHead(405).end()
      else if (!(seconds >= 1 && seconds <= 21_600)) response.writeHead(400).end()
      else {
        given += 1
        const token = `AQAEA-token-${given}==`
        tokens.add(token)
        response.end(token)
      }
      return
    }
    if (!tokens.has(String(headers['x-aws-ec2-metadata-token']))) {
      response.writeHead(401).end()
      return
    }
    const body = table.get(url.replace('/latest/meta-data/', ''))
    if (body === undefined)
      // The real ones are XHTML.
      response.writeHead(404, { 'content-type': 'text/html' }).end('<?xml version="1.0"?><html></html>')
    else response.end(body)
  }

  const server = createServer(answer)
  server.on('connection', (socket) => {
    opened += 1
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(at.port, at.host, resolve))
  const { port } = server.address() as AddressInfo
  return {
    endpoint: `http://${at.host}:${port}`,
    paths: table,
    asked,
    opened: () => opened,
    hangUp() {
      for (const socket of sockets) socket.destroy()
    },
    misanswer: (path, ...answers) => void wrong.set(path, [...answers]),
    forgetTokens() {
      tokens = new Set()
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A program that serves the usual metadata; the maintenance that they tell is what a file says. */
export const imdsProgram = (
  noticePath: string,
  at: { readonly host: string; readonly port: number },
): string => `
  import { existsSync, readFileSync } from 'node:fs'
  import { startFakeImds, usualPaths } from ${JSON.stringify(import.meta.filename)}
  const imds = await startFakeImds(usualPaths, ${JSON.stringify(at)})
  const path = ${JSON.stringify(noticePath)}
  setInterval(() => {
    if (existsSync(path)) imds.paths.set('events/maintenance/scheduled', readFileSync(path, 'utf8'))
  }, 20)
  console.log('ready')`

// As a program: node fake-imds.ts PATHS, at the address where EC2 has it.
if (process.argv[1] === import.meta.filename) {
  await startFakeImds(JSON.parse(process.argv[2] ?? '{}'), { host: '169.254.169.254', port: 80 })
  console.log('ready')
}
