// A libvirtd that says what a test wants it to: it listens on an abstract socket, decodes calls by the client's own tables, and
// sends replies, errors, events, or any bytes at all.

import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { domainCalls, domainStreams } from '../calls-domain.ts'
import { authList, authPolkit, hostCalls, open } from '../calls-host.ts'
import { networkCalls } from '../calls-network.ts'
import { storageCalls, storageStreams } from '../calls-storage.ts'
import { LibvirtConnectionError, LibvirtError } from '../errors.ts'
import { domainEvents, monitorRegistration, registrations } from '../events.ts'
import { encodeFrame, type Frame, FrameCutter, frameStatus, frameType } from '../frame.ts'
import { type Procedure, program } from '../procedure.ts'
import { remoteError } from '../shapes.ts'
import { type Codec, int, XdrReader, XdrWriter } from '../xdr.ts'

/** Every call that the client knows, by name. */
export const everyCall: Readonly<Record<string, Procedure<never, unknown>>> = {
  authList,
  authPolkit,
  connectOpen: open,
  ...hostCalls,
  ...networkCalls,
  ...storageCalls,
  ...storageStreams,
  ...domainCalls,
  ...domainStreams,
  ...Object.fromEntries(
    Object.entries({ ...registrations, monitor: monitorRegistration }).flatMap(([kind, pair]) => [
      [`${kind} register`, pair.register],
      [`${kind} deregister`, pair.deregister],
    ]),
  ),
}

const byNumber = new Map(
  Object.entries(everyCall).map(([name, one]) => [`${one.program}.${one.number}`, { name, one }]),
)

/** What `value` is on the wire. */
export function encode<In>(codec: Codec<unknown, In>, value: In): Buffer {
  const writer = new XdrWriter(64 * 1024 * 1024)
  codec.encode(writer, value)
  return writer.finish()
}

/** The frame of a reply. */
export const replyTo = (
  { program: of, procedure, serial }: Omit<Frame, 'payload'>,
  payload: Buffer,
): Buffer =>
  encodeFrame(
    { program: of, version: 1, procedure, type: frameType.reply, serial, status: frameStatus.ok },
    payload,
  )

/** The payload of an error as libvirt sends it. */
export const errorPayload = (code: number, message: string): Buffer =>
  encode(remoteError, {
    code,
    domain: 10,
    message,
    level: 2,
    str1: message,
    int1: -1,
    int2: -1,
  })

/** The frame of an error in place of a reply. */
export const errorTo = (
  { program: of, procedure, serial }: Omit<Frame, 'payload'>,
  code: number,
  message: string,
) =>
  encodeFrame(
    { program: of, version: 1, procedure, type: frameType.reply, serial, status: frameStatus.error },
    errorPayload(code, message),
  )

/** The frame of a domain's lifecycle event. */
export const lifecycleFrame = (callbackID: number, name: string, event: number): Buffer => {
  const { procedure, body } = domainEvents.lifecycle
  const dom = { name, uuid: '00000000-0000-0000-0000-000000000001', id: 1 }
  const shape = body as Codec<unknown, unknown>
  const payload = Buffer.concat([encode(int, callbackID), encode(shape, { dom, event, detail: 0 })])
  const header = { program: program.remote, version: 1, procedure, type: frameType.message, serial: 0 }
  return encodeFrame({ ...header, status: frameStatus.ok }, payload)
}

/** A keepalive packet: 1 asks, 2 answers. */
export const keepaliveFrame = (procedure: number): Buffer =>
  encodeFrame({
    program: program.keepalive,
    version: 1,
    procedure,
    type: frameType.message,
    serial: 0,
    status: frameStatus.ok,
  })

/** One packet that a client sent. `name` is that of the call, or null for keepalive. */
export interface Received {
  readonly name: string | null
  readonly frame: Frame
  readonly args: unknown
  readonly socket: Socket
}

/** Answers a call: bytes to send, or null to send nothing. */
export type Answer = (received: Received) => Buffer | null

/** Answers a call with a value. */
export const answer =
  (value: unknown): Answer =>
  ({ name, frame }) =>
    replyTo(frame, encode(everyCall[name ?? '']?.reply as Codec<unknown, unknown>, value))

/** The error of the client's own that a call fails with; any other, and none, is thrown. */
export async function failure(promise: Promise<unknown>): Promise<LibvirtConnectionError | LibvirtError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof LibvirtConnectionError || error instanceof LibvirtError) return error
    throw error
  }
  throw new Error('it did not fail')
}

let sockets = 0

/** A server for one test. Calls without an answer of their own are answered so that a connection opens. */
export class FakeLibvirtd {
  readonly path = `\0node-libvirt-test-${process.pid}-${++sockets}`
  readonly received: Received[] = []
  readonly clients = new Set<Socket>()
  readonly answers: Record<string, Answer> = {
    authList: answer([0]),
    connectOpen: answer(undefined),
    connectSupportsFeature: answer(true),
  }
  #server: Server | null = null

  /** Listens. */
  async start(): Promise<this> {
    const server = createServer((socket) => this.#serve(socket))
    this.#server = server
    server.listen(this.path)
    await once(server, 'listening')
    return this
  }

  /** Listens no more and drops every client. */
  async stop(): Promise<void> {
    const server = this.#server
    if (server === null) return
    this.#server = null
    const closed = once(server, 'close')
    server.close()
    this.drop()
    await closed
  }

  /** Drops every client. */
  drop(): void {
    for (const client of this.clients) client.destroy()
  }

  /** Sends the same bytes to every client. */
  send(bytes: Uint8Array): void {
    for (const client of this.clients) client.write(bytes)
  }

  /** How often a call was made. */
  count(name: string): number {
    return this.received.filter((one) => one.name === name).length
  }

  #serve(socket: Socket): void {
    const cutter = new FrameCutter()
    this.clients.add(socket)
    socket.on('close', () => this.clients.delete(socket))
    // A client that is gone is what many tests are about.
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      for (const frame of cutter.cut(chunk)) this.#take(frame, socket)
    })
  }

  #take(frame: Frame, socket: Socket): void {
    if (frame.program === program.keepalive) {
      this.received.push({ name: null, frame, args: null, socket })
      if (frame.procedure === 1) {
        const pong = this.answers.keepalive
        const bytes = pong === undefined ? keepaliveFrame(2) : pong({ name: null, frame, args: null, socket })
        if (bytes !== null) socket.write(bytes)
      }
      return
    }
    const { name, one } = byNumber.get(`${frame.program}.${frame.procedure}`) ?? {
      name: 'unknown',
      one: null,
    }
    const isCall = frame.type === frameType.call
    const args = isCall && one !== null ? one.args.decode(new XdrReader(frame.payload)) : null
    const received = { name, frame, args, socket }
    this.received.push(received)
    const reply = (isCall ? this.answers[name] : this.answers[`${name} stream`])?.(received)
    if (reply) socket.write(reply)
  }
}
