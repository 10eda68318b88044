// Sessions on the root side's doors: an HTTP upgrade (RFC 9110, 7.8), and then bytes both ways with back-pressure.
//
// INVARIANTS
// - Nothing is opened before the request was judged by its door, as every other.
// - When either side ends, both are closed.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { HostError } from '../../provisioning/problem.ts'

/** What both sides call the protocol in the Upgrade header. */
export const sessionProtocol = 'garrison-session'

/** The arguments of a request for a session: JSON in its query. Throws `request.invalid`. */
export function sessionArgs(url: string): unknown {
  const text = new URLSearchParams(url.split('?')[1] ?? '').get('args') ?? '{}'
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new HostError('request.invalid', 'the arguments of a session are JSON', {
      details: { verb: url.split('?')[0] },
      cause,
    })
  }
}

/** Throws `request.invalid` unless it asks for a session as it must be asked for. */
export function wantSession({ method, headers, url }: IncomingMessage): void {
  if (method !== 'GET' || headers.upgrade !== sessionProtocol)
    throw new HostError('request.invalid', `a session is asked for by GET with Upgrade: ${sessionProtocol}`, {
      details: { verb: url?.split('?')[0] },
    })
}

/** Answers instead of opening the session. */
export function refuseSession(socket: Duplex, status: number, body: string): void {
  socket.end(
    `HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}

/** Carries bytes both ways until one side ends, or `signal` aborts. What was read with the request comes first. */
export async function carrySession(
  socket: Duplex,
  head: Buffer,
  far: Duplex,
  signal: AbortSignal,
): Promise<void> {
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ${sessionProtocol}\r\n\r\n`,
  )
  if (head.length > 0) socket.unshift(head)
  const ended = new AbortController()
  const options = { signal: AbortSignal.any([signal, ended.signal]) }
  // How a session ends is for its two ends to say: to the one that is left, it is closed.
  await Promise.allSettled(
    [pipeline(far, socket, options), pipeline(socket, far, options)].map((way) =>
      way.finally(() => ended.abort()),
    ),
  )
  far.destroy()
  socket.destroy()
}
