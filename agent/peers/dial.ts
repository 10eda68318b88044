// Connects to a peer by mutual TLS 1.3, over all of its addresses side by side (RFC 8305): the first that answers as that host wins.

import { setTimeout as sleep } from 'node:timers/promises'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { WebSocket } from 'ws'
import { HostError } from '../../provisioning/problem.ts'
import { errnoOf } from '../host/files.ts'
import { type Address, addressText } from './address.ts'
import type { Keyring } from './keyring.ts'
import { socketOptions } from './link.ts'
import type { Dialled } from './mesh.ts'
import type { Identity } from './trust.ts'

const staggerMs = 250
const deadlineMs = 8000
const mostAnswerBytes = 4096

/** A connection on which both sides know each other. */
export interface Reached {
  readonly socket: TLSSocket
  readonly peer: Identity
  readonly address: Address
}

/** Connects to one address. Rejects with the reason as a text for a person; the signal ends the try. */
export function connectTo(
  { host, port }: Address,
  options: ConnectionOptions,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
  const socket = connect({ ...options, host, port, ALPNProtocols: ['http/1.1'] })
  const left = () => socket.destroy(new Error('no answer in time'))
  const settled = () => signal.removeEventListener('abort', left)
  signal.addEventListener('abort', left)
  if (signal.aborted) left()
  socket.setNoDelay(true)
  socket.once('secureConnect', () => {
    settled()
    socket.off('error', failed)
    resolve(socket)
  })
  const failed = (error: Error): void => {
    settled()
    reject(error)
  }
  socket.once('error', failed)
  return promise
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens',
  ECONNRESET: 'it hung up',
  EHOSTUNREACH: 'no way there',
  ENETUNREACH: 'no way there',
  ETIMEDOUT: 'no answer in time',
  ENOTFOUND: 'no such name',
  EAI_AGAIN: 'the name could not be looked up',
}

/** Why a connection failed, in words. */
export const reasonOf = (error: unknown): string =>
  reasons[errnoOf(error) ?? ''] ?? (error instanceof Error ? error.message : String(error))

/**
 * Tries the addresses in their order, each a moment after the one before or as soon as that failed. `open` makes a connection of one;
 * what was opened beside the winner is destroyed. Rejects with `fleet.unreachable`, every reason named.
 */
export async function firstOf(
  host: string,
  addresses: readonly Address[],
  open: (address: Address, signal: AbortSignal) => Promise<TLSSocket>,
): Promise<{ readonly socket: TLSSocket; readonly address: Address }> {
  const over = new AbortController()
  const signal = AbortSignal.any([over.signal, AbortSignal.timeout(deadlineMs)])
  const problems: string[] = []
  let won = false
  const failures = addresses.map(() => Promise.withResolvers<void>())
  const tries = addresses.map(async (address, at) => {
    const before = failures[at - 1]?.promise
    if (before) await Promise.race([sleep(staggerMs * at, undefined, { ref: false }), before])
    try {
      if (won) throw new Error('not tried')
      const socket = await open(address, signal)
      if (won) {
        socket.destroy()
        throw new Error('another was faster')
      }
      won = true
      return { socket, address }
    } catch (error) {
      problems.push(`${addressText(address)}: ${reasonOf(error)}`)
      throw error
    } finally {
      failures[at]?.resolve()
    }
  })
  try {
    return await Promise.any(tries)
  } catch (cause) {
    const why = addresses.length === 0 ? 'no address of it is known' : problems.join('; ')
    throw new HostError('fleet.unreachable', `${host} could not be reached: ${why}`, {
      details: { host },
      cause,
    })
  } finally {
    over.abort()
  }
}

/** Connects to a host of the fleet. Throws `fleet.unreachable`; a certificate of another host is named as the reason. */
export async function reach(keyring: Keyring, host: string, addresses: readonly Address[]): Promise<Reached> {
  const { tls: material } = keyring.credentials
  const { socket, address } = await firstOf(host, addresses, async (one, signal) => {
    const tls = await connectTo(
      one,
      // Who it is is looked at below, by more than its name.
      { ...material, servername: host, minVersion: 'TLSv1.3', checkServerIdentity: () => undefined },
      signal,
    )
    try {
      const { host: is } = keyring.peerOf(tls)
      if (is !== host) throw new HostError('peer.refused', `it is ${is}, and not ${host}`)
    } catch (error) {
      tls.destroy()
      throw error
    }
    return tls
  })
  return { socket, address, peer: keyring.peerOf(socket) }
}

/** Connects to the mesh of a host. Throws `fleet.unreachable` with the reason that the host gives. */
export async function dialMesh(
  keyring: Keyring,
  host: string,
  addresses: readonly Address[],
): Promise<Dialled> {
  const { socket: tls, peer, address } = await reach(keyring, host, addresses)
  const { promise, resolve, reject } = Promise.withResolvers<Dialled>()
  const refused = (why: string) =>
    reject(new HostError('fleet.unreachable', `${addressText(address)}: ${why}`, { details: { host } }))
  const socket = new WebSocket(`ws://${host}/v1/mesh`, {
    ...socketOptions,
    handshakeTimeout: deadlineMs,
    createConnection: () => tls,
  })
  socket.on('unexpected-response', (_, response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', (part: string) => {
      text += part
      if (text.length > mostAnswerBytes) response.destroy()
    })
    response.on('close', () => {
      tls.destroy()
      refused(messageIn(text) ?? `it answered with ${response.statusCode}`)
    })
  })
  const failed = (error: Error) => refused(reasonOf(error))
  socket.once('error', failed)
  socket.once('open', () => {
    socket.off('error', failed)
    // Until somebody listens: the peer may have said something with its answer.
    socket.pause()
    resolve({ socket, peer, address })
  })
  return promise
}

/** The message of a problem that a port answered with, or null. */
export function messageIn(text: string): string | null {
  try {
    const { message } = JSON.parse(text)
    return typeof message === 'string' ? message.slice(0, 300) : null
  } catch {
    // An answer that is no problem of ours says nothing that could be shown.
    return null
  }
}
