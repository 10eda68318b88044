// The client's side of a door: one HTTP/1.1 request over a unix socket by hand, for node:http alone would cost 10 ms a start.

import { connect } from 'node:net'
import { HostError } from '../../provisioning/problem.ts'

/** One request. `caller` is who the person at the terminal is by their own environment; the door marks it as said. */
export interface Asking {
  readonly path: string
  readonly args: unknown
  readonly caller: string
  /** The host of the fleet that is to answer; the daemon asks it. */
  readonly host?: string | undefined
  /** Called with each line of a streamed answer as it comes. */
  readonly onLine: (line: string) => void
}

/** What came back. `body` is whole unless it was streamed to `onLine`; `exit` is what the verb ends with, where told. */
export interface Reply {
  readonly ok: boolean
  readonly exit: number | null
  readonly body: string
}

const crlf = Buffer.from('\r\n')
const newline = 0x0a

/** Takes chunks (RFC 9112, 7.1) out of `bytes`; answers what is not yet complete, and whether the last chunk was seen. */
function dechunk(
  bytes: Buffer,
  sink: (content: Buffer) => void,
): { readonly rest: Buffer; readonly ended: boolean } {
  let rest = bytes
  for (;;) {
    const lineEnd = rest.indexOf(crlf)
    if (lineEnd < 0) return { rest, ended: false }
    const size = Number.parseInt(rest.toString('latin1', 0, lineEnd), 16)
    const end = lineEnd + 2 + size
    if (rest.length < end + 2) return { rest, ended: false }
    if (size === 0) return { rest: rest.subarray(end + 2), ended: true }
    sink(rest.subarray(lineEnd + 2, end))
    rest = rest.subarray(end + 2)
  }
}

/**
 * Asks over one socket. Rejects with the system's error when it cannot be connected to, and with `door.lost` when the
 * answer ends before it is complete.
 */
export function ask(socketPath: string, { path, args, caller, host, onLine }: Asking): Promise<Reply> {
  const { promise, resolve, reject } = Promise.withResolvers<Reply>()
  const body = JSON.stringify(args)
  const socket = connect(socketPath)
  let connected = false
  let head: { ok: boolean; chunked: boolean; length: number; exit: number | null; lines: boolean } | null =
    null
  let pending: Buffer = Buffer.alloc(0)
  let content: Buffer[] = []
  let received = 0
  let ended = false

  const take = (bytes: Buffer) => {
    received += bytes.length
    if (!head?.lines) {
      content.push(bytes)
      return
    }
    let from = 0
    for (let at = bytes.indexOf(newline); at >= 0; at = bytes.indexOf(newline, from)) {
      onLine(Buffer.concat([...content, bytes.subarray(from, at)]).toString('utf8'))
      content = []
      from = at + 1
    }
    if (from < bytes.length) content.push(bytes.subarray(from))
  }

  socket.on('connect', () => {
    connected = true
  })
  // Written at once: it is sent as soon as the connection stands.
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: garrison\r\nconnection: close\r\ngarrison-caller: ${caller}\r\n` +
      `${host === undefined ? '' : `garrison-host: ${host}\r\n`}` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  socket.on('data', (bytes: Buffer) => {
    pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes])
    if (head === null) {
      const end = pending.indexOf('\r\n\r\n')
      if (end < 0) return
      const [first = '', ...lines] = pending.toString('latin1', 0, end).split('\r\n')
      const fields = new Map(
        lines.map((line) => {
          const colon = line.indexOf(':')
          return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
        }),
      )
      const ok = first.startsWith('HTTP/1.1 200')
      const exit = fields.get('garrison-exit')
      head = {
        ok,
        chunked: fields.get('transfer-encoding') === 'chunked',
        length: Number(fields.get('content-length') ?? 0),
        exit: exit === undefined ? null : Number(exit),
        lines: ok && fields.get('content-type') === 'application/x-ndjson',
      }
      pending = pending.subarray(end + 4)
    }
    if (head.chunked) {
      const { rest, ended: last } = dechunk(pending, take)
      pending = rest
      ended = last
    } else {
      take(pending)
      pending = Buffer.alloc(0)
      ended = received >= head.length
    }
    if (!ended) return
    resolve({ ok: head.ok, exit: head.exit, body: Buffer.concat(content).toString('utf8') })
    // Whoever waits for the answer goes first: a process that ends with it closes the connection sooner than this would.
    setImmediate(() => socket.destroy())
  })
  socket.on('error', (error) =>
    reject(
      connected
        ? new HostError('door.lost', `the connection broke: ${error.message}`, { cause: error })
        : error,
    ),
  )
  socket.on('close', () => {
    if (!ended) reject(new HostError('door.lost', `${socketPath} closed before its answer was complete`))
  })
  return promise
}
