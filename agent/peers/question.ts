// One question to a host over a connection that was made for it: a POST of JSON, answered by JSON (HTTP/1.1).

import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { HostError, type ProblemCode, type ProblemReport, problems } from '../../provisioning/problem.ts'

const mostAnswerBytes = 2 ** 18

/**
 * Asks it, and ends the connection. Throws what the other side refused it with; `fleet.unreachable` when that is no problem that is
 * known here, or no answer came: then nobody can tell what was done. `deadlineMs`: by when the answer must be whole. `stop` gives it up.
 */
export async function asked(
  socket: TLSSocket,
  who: string,
  path: string,
  question: object,
  deadlineMs = 30_000,
  stop?: AbortSignal,
): Promise<unknown> {
  const body = JSON.stringify(question)
  // The request's own timeout does not see a socket that was connected before.
  const late = AbortSignal.timeout(deadlineMs)
  const outgoing = request({
    signal: stop ? AbortSignal.any([late, stop]) : late,
    method: 'POST',
    path,
    createConnection: () => socket,
    headers: {
      host: 'garrison',
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    },
  })
  try {
    outgoing.end(body)
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
    let text = ''
    incoming.setEncoding('utf8')
    for await (const part of incoming) {
      text += part
      if (text.length > mostAnswerBytes) throw new Error('the answer is too long')
    }
    const answer: unknown = JSON.parse(text)
    if (incoming.statusCode === 200) return answer
    const { code, message, details } = answer as ProblemReport
    throw new HostError(
      Object.hasOwn(problems(), code) ? (code as ProblemCode) : 'fleet.unreachable',
      String(message).slice(0, 300),
      { details: details ?? {} },
    )
  } catch (cause) {
    if (cause instanceof HostError) throw cause
    const why = late.aborted ? 'no answer in time' : (cause as Error).message
    throw new HostError('fleet.unreachable', `${who} broke off: ${why}`, {
      details: { host: who },
      cause,
    })
  } finally {
    socket.destroy()
  }
}
