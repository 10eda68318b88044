// Carries a verb to a peer and its answer back, and the verbs of peers to the doors of this host: HTTP/1.1 on both ends, bodies as
// they come.

import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { HostError } from '../../provisioning/problem.ts'
import { errnoOf } from '../host/files.ts'
import type { Address } from './address.ts'
import { reach } from './dial.ts'
import type { Keyring } from './keyring.ts'
import type { AskedSession } from './port.ts'
import { type Identity, includes, type Role } from './trust.ts'

/** A verb on its way. `caller` is who asks, as they say themselves. */
export interface Carried {
  readonly path: string
  readonly args: unknown
  readonly caller: string
}

/** The door that a verb with its arguments needs, and its socket. Throws `request.unknown-verb`, `request.invalid`. */
export type DoorFor = (
  path: string,
  args: unknown,
) => { readonly door: 'local' | 'read' | 'operate' | 'admin'; readonly socket: string }

/** The door of this host for sessions of peers. */
export interface SessionDoor {
  /** Throws `request.unknown-verb`, `request.invalid`, `door.closed`, and why the door does not open one. */
  open(path: string, request: IncomingMessage, caller: string): Promise<Duplex>
  /** Says that it is open, and carries bytes both ways until either side ends or `signal` aborts. */
  carry(socket: Duplex, head: Buffer, far: Duplex, signal: AbortSignal): Promise<void>
}

const answered = ['content-type', 'garrison-exit'] as const
const verbsAtOnce = 16
const mostCaller = 128
const judgeEveryMs = 1000
/** Until it answers, a host says so often that it is at work (102, RFC 2518), and has gone or stands when it says nothing for so long. */
const workingEveryMs = 5000
const silentMs = 20_000
/** Once it answers, however slowly: is the host still there? Its kernel tells. */
const keepAliveMs = 10_000

/** Sends a request and pipes what is answered; ends the request when the caller has gone. */
async function carry(outgoing: ClientRequest, body: string, response: ServerResponse): Promise<void> {
  const left = () => outgoing.destroy()
  response.once('close', left)
  try {
    outgoing.end(body)
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
    // Once the answer has begun nobody else hears it, and an error that nobody hears ends the process.
    outgoing.on('error', (error) => incoming.destroy(error))
    const headers = answered.flatMap((name) => {
      const value = incoming.headers[name]
      return value === undefined ? [] : [[name, value] as const]
    })
    response.writeHead(incoming.statusCode ?? 500, Object.fromEntries(headers))
    await pipeline(incoming, response)
  } catch (error) {
    // A caller who has gone needs no answer; half an answer is broken off, so that it is not taken for a whole one.
    if (response.destroyed) return
    if (!response.headersSent) throw error
    response.destroy()
  } finally {
    response.off('close', left)
    outgoing.destroy()
  }
}

/** Who asks, as the door is told: the host is known, and stands there whole whatever the rest says. */
function callerFrom({ host }: Identity, caller: string): string {
  const where = ` on peer ${host}`
  return (caller || 'somebody').slice(0, mostCaller - where.length) + where
}

/**
 * Asks a peer for a verb, which may take as long as it takes while the peer is at work. Throws `fleet.unreachable`; when the peer had been
 * reached, nobody can tell what was done.
 */
export async function askPeer(
  keyring: Keyring,
  host: string,
  addresses: readonly Address[],
  { path, args, caller }: Carried,
  response: ServerResponse,
): Promise<void> {
  const { socket } = await reach(keyring, host, addresses)
  const body = JSON.stringify(args)
  const outgoing = request({
    method: 'POST',
    path: `/v1/verbs${path}`,
    createConnection: () => socket,
    headers: {
      host,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'garrison-caller': caller,
    },
  })
  socket.setKeepAlive(true, keepAliveMs)
  const silent = setTimeout(() => outgoing.destroy(new Error('no answer in time')), silentMs)
  outgoing.on('information', () => silent.refresh())
  outgoing.once('response', () => clearTimeout(silent))
  try {
    await carry(outgoing, body, response)
  } catch (cause) {
    throw new HostError('fleet.unreachable', `${host} broke off: ${(cause as Error).message}`, {
      details: { host },
      cause,
    })
  } finally {
    clearTimeout(silent)
    socket.destroy()
  }
}

/** Throws `fleet.role-refused` unless the certificate of a peer allows what needs a role. */
export function wantRole({ host, role }: Identity, needed: Role): void {
  if (includes(role, needed)) return
  throw new HostError(
    'fleet.role-refused',
    `the certificate of ${host} has the role ${role}, and this needs ${needed}`,
    { details: { role } },
  )
}

/** Lets the verbs of peers in at the doors of this host, as far as the role in their certificate goes. */
export class VerbsOfPeers {
  readonly #doorFor: DoorFor
  readonly #under = new Map<string, number>()

  constructor(doorFor: DoorFor) {
    this.#doorFor = doorFor
  }

  /** Throws `fleet.role-refused`, `fleet.busy`, `door.closed`, and what `doorFor` throws. */
  async answer(
    peer: Identity,
    path: string,
    args: unknown,
    caller: string,
    response: ServerResponse,
  ): Promise<void> {
    const { door, socket } = this.#doorFor(path, args)
    if (door === 'local' || door === 'admin')
      throw new HostError(
        'fleet.role-refused',
        door === 'admin'
          ? 'what destroys data is done by root on the host itself, never over the fleet'
          : 'that runs in the client, and is asked of no other host',
        { details: { role: peer.role } },
      )
    wantRole(peer, door)
    const ended = this.#begin(peer)
    const atWork = () => {
      if (!response.headersSent && !response.destroyed) response.writeProcessing()
    }
    atWork()
    const telling = setInterval(atWork, workingEveryMs)
    try {
      const body = JSON.stringify(args)
      const outgoing = request({
        method: 'POST',
        socketPath: socket,
        path,
        headers: {
          host: 'garrison',
          connection: 'close',
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
          'garrison-caller': callerFrom(peer, caller),
        },
      })
      await carry(outgoing, body, response)
    } catch (cause) {
      const errno = errnoOf(cause)
      if (errno === undefined) throw cause
      throw new HostError('door.closed', `the ${door} door of this host does not open (${errno})`, { cause })
    } finally {
      clearInterval(telling)
      ended()
    }
  }

  /** Counts one more that is under way for a peer; answers how to end that. Throws `fleet.busy`. */
  #begin(peer: Identity): () => void {
    const under = this.#under.get(peer.host) ?? 0
    if (under >= verbsAtOnce)
      throw new HostError('fleet.busy', `${peer.host} has ${under} verbs under way here already`)
    this.#under.set(peer.host, under + 1)
    return () => this.#under.set(peer.host, (this.#under.get(peer.host) ?? 1) - 1)
  }

  /**
   * Carries a session of a peer with the role admin until it ends, `signal` aborts, or the peer is not to be trusted any more. Throws
   * `fleet.role-refused`, `fleet.busy`, and what the door throws, before anything was said.
   */
  async session(
    { peer, path, request, caller, socket, head }: AskedSession,
    isGood: () => void,
    door: SessionDoor,
    signal: AbortSignal,
  ) {
    wantRole(peer, 'admin')
    const ended = this.#begin(peer)
    const left = new AbortController()
    const watching = setInterval(() => {
      try {
        isGood()
      } catch {
        // Revoked, or past its time: whatever the reason, it is cut off.
        left.abort()
      }
    }, judgeEveryMs)
    const gone = () => left.abort()
    socket.once('close', gone)
    try {
      const far = await door.open(path, request, callerFrom(peer, caller))
      await door.carry(socket, head, far, AbortSignal.any([signal, left.signal]))
    } finally {
      clearInterval(watching)
      socket.off('close', gone)
      ended()
    }
  }
}
