// The client's side of a session: an HTTP upgrade by hand, over a door's socket or a connection with a peer, and then the socket itself.

import { connect, type Socket } from 'node:net'
import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { sessionProtocol } from './session.ts'

/** A session that was opened, or why not. */
export type Opened = { readonly socket: Socket } | { readonly problem: ProblemReport }

const mostHeadBytes = 64 * 2 ** 10

/** Asks for a session at a door. Rejects as `openSessionOn` does, and with the system's error when it cannot be connected to. */
export const openSession = (
  socketPath: string,
  path: string,
  args: unknown,
  caller: string,
): Promise<Opened> => openSessionOn(connect(socketPath), socketPath, path, args, caller)

/**
 * Asks for a session over one socket, which is that of `name`. Rejects with `door.lost` when it closes before it has answered. What comes
 * after the answer stays in the socket, which is paused.
 */
export function openSessionOn(
  socket: Socket,
  name: string,
  path: string,
  args: unknown,
  caller: string,
): Promise<Opened> {
  const { promise, resolve, reject } = Promise.withResolvers<Opened>()
  let answer: Buffer = Buffer.alloc(0)
  let connected = !socket.connecting
  const lost = () => reject(new HostError('door.lost', `${name} closed before its answer was complete`))
  const failed = (error: Error) =>
    connected
      ? reject(new HostError('door.lost', `the connection broke: ${error.message}`, { cause: error }))
      : reject(error)
  const settle = (opened: Opened, rest: Buffer) => {
    socket.off('data', take)
    socket.off('close', lost)
    socket.off('error', failed)
    socket.pause()
    if (rest.length > 0) socket.unshift(rest)
    resolve(opened)
  }
  const take = (bytes: Buffer) => {
    answer = Buffer.concat([answer, bytes])
    const end = answer.indexOf('\r\n\r\n')
    if (end === -1) {
      if (answer.length > mostHeadBytes) lost()
      return
    }
    const text = answer.toString('latin1', 0, end)
    const rest = answer.subarray(end + 4)
    if (text.startsWith('HTTP/1.1 101')) {
      settle({ socket }, rest)
      return
    }
    const length = Number(/^content-length: *(\d+)$/im.exec(text)?.[1] ?? 0)
    if (rest.length < length) return
    try {
      const problem: ProblemReport = JSON.parse(rest.toString('utf8', 0, length))
      socket.on('error', () => socket.destroy())
      settle({ problem }, Buffer.alloc(0))
      socket.destroy()
    } catch (cause) {
      reject(new HostError('door.lost', `${name} answered what is no answer`, { cause }))
    }
  }
  socket.on('connect', () => {
    connected = true
  })
  socket.on('data', take)
  socket.on('close', lost)
  socket.on('error', failed)
  socket.write(
    `GET ${path}?args=${encodeURIComponent(JSON.stringify(args))} HTTP/1.1\r\nhost: garrison\r\n` +
      `connection: Upgrade\r\nupgrade: ${sessionProtocol}\r\ngarrison-caller: ${caller}\r\n\r\n`,
  )
  return promise
}
