// The one port of a host that other hosts can reach: HTTP/1.1 over mutual TLS 1.3, and WebSocket (RFC 6455) for the mesh.
//
// INVARIANTS
// - Who asks is known by the certificate of the connection alone. Without a good one there is an answer only while an invitation is
//   open, and then only to the two questions of joining.
// - Before a connection has shown a good certificate it costs little and does not last: see `limits`.
// - Whatever is refused is refused with a reason, to the peer where it listens and to the log once a second at most.

import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { type WebSocket, WebSocketServer } from 'ws'
import { HostError, type ProblemCode, problemOf } from '../../provisioning/problem.ts'
import { batchPath, mostBatchBytes } from './batch.ts'
import type { Keyring } from './keyring.ts'
import { socketOptions } from './link.ts'
import { Allowance } from './pace.ts'
import type { Identity } from './trust.ts'

/** What the port does with what comes. */
export interface Behind {
  /** Questions of those who have no certificate yet; null when there is nothing for them. */
  stranger(path: string, body: unknown): Promise<object> | null
  /** A question of a peer; answered by what it returns, or by itself when it returns null. */
  peer(
    peer: Identity,
    path: string,
    body: unknown,
    response: ServerResponse,
    caller: string,
  ): Promise<object | null>
  mesh(socket: WebSocket, peer: Identity, localAddress: string, remoteAddress: string): void
  /** A session that a peer asks for, until it ends. `isGood` throws once the peer is not to be trusted any more. */
  session(asked: AskedSession, isGood: () => void): Promise<void>
  /** Whether somebody without a certificate may ask now. */
  isOpen(): Promise<boolean>
}

/** A session that is asked for, with the connection that it is to be carried on. `caller` is who asks, as they say themselves. */
export interface AskedSession {
  readonly peer: Identity
  readonly path: string
  readonly request: IncomingMessage
  readonly caller: string
  readonly socket: TLSSocket
  readonly head: Buffer
}

/** What the port needs. `host`: the address to listen on; all of them when left out. */
export interface PortOptions {
  readonly port: number
  readonly host?: string | undefined
  readonly keyring: Keyring
  readonly behind: Behind
  readonly log: { info(what: object, text: string): void }
  readonly steadyMs: () => number
}

const limits = {
  /** Connections at one time: those of peers beside what their verbs need, and of those who are not known yet. */
  connections: 1024,
  unknown: 64,
  unknownOfOneAddress: 16,
  /** New connections: a whole fleet comes back within seconds, and a handshake costs a millisecond. */
  opened: { burst: 600, perSecond: 50 },
  handshakeMs: 5000,
  headersMs: 5000,
  requestMs: 10_000,
  headerBytes: 8192,
  bodyBytes: 65_536,
} as const

const keepAliveMs = 10_000

const httpStatus: Partial<Record<ProblemCode, number>> = {
  'request.invalid': 400,
  'request.unknown-verb': 404,
  'request.too-large': 413,
  'peer.refused': 403,
  'fleet.errand-refused': 403,
  'fleet.role-refused': 403,
  'shell.off': 403,
  'fleet.token-refused': 403,
  'fleet.name-taken': 409,
  'fleet.name-refused': 400,
  'fleet.request-refused': 400,
  'fleet.no-issuer': 404,
  'fleet.busy': 503,
}

/** Listens, and refuses what is to be refused. */
export class Port {
  readonly #options: PortOptions
  readonly #server: Server
  readonly #sockets = new WebSocketServer({ ...socketOptions, noServer: true, clientTracking: false })
  readonly #peers = new WeakMap<Duplex, Identity | HostError>()
  readonly #unknown = new Map<Socket, string>()
  readonly #opened: Allowance
  #loggedMs = 0
  #unlogged = 0

  constructor(options: PortOptions) {
    this.#options = options
    this.#opened = new Allowance(limits.opened.burst, limits.opened.perSecond, options.steadyMs())
    this.#server = createServer(
      {
        ...this.#tls(),
        requestCert: true,
        // Judged in `#know`, so that a peer is told why it is refused.
        rejectUnauthorized: false,
        handshakeTimeout: limits.handshakeMs,
        ALPNProtocols: ['http/1.1'],
        headersTimeout: limits.headersMs,
        requestTimeout: limits.requestMs,
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: 1,
        maxHeaderSize: limits.headerBytes,
        noDelay: true,
      },
      (request, response) => void this.#answer(request, response),
    )
    this.#server.maxConnections = limits.connections
    this.#server.maxHeadersCount = 64
    this.#server.on('connection', (socket) => this.#admit(socket))
    this.#server.on('drop', () => this.#tellRefused({ why: 'too many connections' }))
    this.#server.on('secureConnection', (socket) => this.#know(socket))
    this.#server.on('tlsClientError', (error, socket) => {
      this.#tellRefused({ from: socket.remoteAddress, why: error.message })
      socket.destroy()
    })
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      this.#tellRefused({ why: error.code ?? error.message })
      if (socket.writable && error.code !== 'ECONNRESET')
        // Not only this side of it: one who goes on byte by byte would keep the other open.
        socket.end(`HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n`, () => socket.destroy())
      else socket.destroy()
    })
    this.#server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head))
  }

  /** Starts to listen. Throws `fleet.port-taken`; answers the port. */
  async listen(): Promise<number> {
    const { port, host } = this.#options
    this.#server.listen({ port, host })
    try {
      await once(this.#server, 'listening')
    } catch (cause) {
      throw new HostError(
        'fleet.port-taken',
        `port ${port} cannot be listened on: ${(cause as Error).message}`,
        {
          details: { port },
          cause,
        },
      )
    }
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : port
  }

  /** New connections are shown the new certificate; those that stand stay as they are. */
  renewed(): void {
    this.#server.setSecureContext(this.#tls())
  }

  #tls() {
    return { ...this.#options.keyring.credentials.tls, minVersion: 'TLSv1.3' as const }
  }

  /** Ends everything at once. */
  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
    for (const socket of this.#unknown.keys()) socket.destroy()
  }

  /** Before TLS: a connection costs a handshake, so there are only so many in a second, and so many that are not known. */
  #admit(socket: Socket): void {
    const from = socket.remoteAddress ?? ''
    const ofFrom = [...this.#unknown.values()].filter((one) => one === from).length
    const why = !this.#opened.take(1, this.#options.steadyMs())
      ? 'too many new connections in a second'
      : this.#unknown.size >= limits.unknown || ofFrom >= limits.unknownOfOneAddress
        ? 'too many connections without a certificate'
        : null
    if (why !== null) {
      this.#tellRefused({ from, why })
      socket.destroy()
      return
    }
    this.#unknown.set(socket, from)
    socket.once('close', () => this.#unknown.delete(socket))
  }

  #know(socket: TLSSocket): void {
    // Resets of a connection that is on its way out: whoever uses it is told by its close.
    socket.on('error', () => socket.destroy())
    try {
      this.#peers.set(socket, this.#options.keyring.peerOf(socket))
      for (const raw of this.#unknown.keys())
        if (raw.remotePort === socket.remotePort && raw.remoteAddress === socket.remoteAddress)
          this.#unknown.delete(raw)
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#peers.set(socket, error)
    }
  }

  /** A flood of refusals is one line a second. */
  #tellRefused(what: object): void {
    const nowMs = this.#options.steadyMs()
    this.#unlogged += 1
    if (nowMs - this.#loggedMs < 1000) return
    this.#options.log.info({ ...what, refused: this.#unlogged }, 'refused on the fleet port')
    this.#loggedMs = nowMs
    this.#unlogged = 0
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('connection', 'close')
    // Once the request was broken off it has no socket.
    const from = request.socket.remoteAddress
    try {
      const answer = await this.#answerOf(request, response)
      if (answer !== null) send(response, 200, answer)
    } catch (error) {
      const problem = problemOf(error)
      this.#tellRefused({ from, url: request.url, why: problem.message })
      if (response.headersSent) response.destroy()
      else send(response, httpStatus[problem.code] ?? 500, problem)
    }
  }

  async #answerOf(request: IncomingMessage, response: ServerResponse): Promise<object | null> {
    const { behind } = this.#options
    const [path = '/'] = request.url?.split('?') ?? []
    refuseBrowsers(request)
    const peer = this.#peers.get(request.socket)
    if (peer instanceof HostError || peer === undefined) {
      const answer =
        (await behind.isOpen()) && (await bodyOf(request).then((body) => behind.stranger(path, body)))
      if (answer) return answer
      throw peer ?? new HostError('peer.refused', 'the connection is not known')
    }
    const mostBytes = path === batchPath ? mostBatchBytes : limits.bodyBytes
    return behind.peer(peer, path, await bodyOf(request, mostBytes), response, callerOf(request))
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    try {
      const { url = '' } = request
      refuseBrowsers(request)
      const peer = this.#peers.get(socket)
      if (peer === undefined || peer instanceof HostError)
        throw peer ?? new HostError('peer.refused', 'the connection is not known')
      const { behind, keyring } = this.#options
      if (url.startsWith('/v1/verbs/')) {
        const tls = socket as TLSSocket
        // Nobody may hold it who is no longer there.
        tls.setKeepAlive(true, keepAliveMs)
        const [path = ''] = url.slice('/v1/verbs'.length).split('?')
        const asked = { peer, path, request, caller: callerOf(request), socket: tls, head }
        await behind.session(asked, () => keyring.peerOf(tls))
        return
      }
      if (url !== '/v1/mesh')
        throw new HostError('request.unknown-verb', 'there is nothing to upgrade to here')
      const { localAddress = '', remoteAddress = '' } = request.socket
      this.#sockets.handleUpgrade(request, socket, head, (opened) =>
        behind.mesh(opened, peer, plain(localAddress), plain(remoteAddress)),
      )
    } catch (error) {
      const problem = problemOf(error)
      this.#tellRefused({ from: request.socket.remoteAddress, url: request.url, why: problem.message })
      const body = `${JSON.stringify(problem)}\n`
      socket.end(
        `HTTP/1.1 ${httpStatus[problem.code] ?? 500} Refused\r\nconnection: close\r\ncontent-type: application/json\r\n` +
          `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
        () => socket.destroy(),
      )
    }
  }
}

/** An IPv4 address that came in on an IPv6 socket, as everybody writes it. */
const plain = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/, '')

/** Who asks on a peer, as they say themselves; empty when they say nothing that can be shown. */
function callerOf({ headers }: IncomingMessage): string {
  const caller = headers['garrison-caller']
  return typeof caller === 'string' && /^[\x20-\x7e]{1,128}$/.test(caller) ? caller : ''
}

/** A page in somebody's browser may have their certificate, and never a question for this port. */
function refuseBrowsers({ headers }: IncomingMessage): void {
  if (headers.origin !== undefined)
    throw new HostError('peer.refused', 'a request of a browser (it has an Origin) is not answered')
}

async function bodyOf(request: IncomingMessage, mostBytes: number = limits.bodyBytes): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > mostBytes)
      throw new HostError('request.too-large', `the request is larger than ${mostBytes} bytes`)
    chunks.push(chunk)
  }
  try {
    return size === 0 ? {} : JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch (cause) {
    throw new HostError('request.invalid', 'the request is not JSON', { details: { verb: '' }, cause })
  }
}

function send(response: ServerResponse, status: number, value: object): void {
  const body = `${JSON.stringify(value)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}
