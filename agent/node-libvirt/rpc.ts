// Calls over one connection: each reply goes to the call with its serial number, few are under way at once, all have a deadline.
//
// INVARIANTS
// - libvirtd stops reading from a client that has `max_client_requests` (5) calls under way, keepalive included, and then takes
//   it for dead. So at most four are sent at once, and a call that was given up keeps its place until its reply has come.
// - Every call is settled exactly once: by its reply, its deadline, its signal, or the end of the connection.
// - After the end nothing is sent, received or called back.

import type { Duplex } from 'node:stream'
import { LibvirtConnectionError, LibvirtError } from './errors.ts'
import {
  encodeFrame,
  type Frame,
  FrameCutter,
  FrameError,
  frameBytesAtMost,
  frameStatus,
  frameType,
  headerBytes,
  writeHeader,
} from './frame.ts'
import { type Procedure, program } from './procedure.ts'
import { remoteError } from './shapes.ts'
import { type Codec, XdrError, XdrReader, XdrWriter } from './xdr.ts'

/** How many calls may be under way on one connection. */
const underWayAtMost = 4

/** How many calls may wait for their turn, and how many bytes these may have, before more are refused. */
const waitingAtMost = 10_000
const waitingBytesAtMost = 64 * 1024 * 1024

/** How many bytes may wait to be read by the other side before keepalive adds no more to them. */
const unreadBytesAtMost = 1024 * 1024

/** How one call is to be made. */
export interface CallOptions {
  /** Milliseconds after which the call is given up. */
  readonly deadlineMs?: number | undefined
  /** Gives the call up when it fires. */
  readonly signal?: AbortSignal | undefined
  /**
   * Calls that wait take turns by lane, so that a crowd in one does not keep a call in another from being made. The name
   * of the call when left out.
   */
  readonly lane?: string | undefined
}

/** When a connection is taken for dead: after `count` questions, one every `intervalMs`, to which nothing came. */
export interface Keepalive {
  readonly intervalMs: number
  readonly count: number
}

/** What happens on a connection beside replies. */
export interface RpcListener {
  /** An event. */
  readonly onMessage: (frame: Frame) => void
  /** The connection has ended, and why; every waiter has been released. */
  readonly onEnd: (error: LibvirtConnectionError) => void
}

/** Who takes the packets of one stream. */
export interface StreamListener {
  /** The call that opens the stream has been made; its packets, which may come before its reply, have this serial number. */
  readonly onOpen: (serial: number) => void
  /** More bytes; none means that no more will come. Answers false when it can take no more for now. */
  readonly onBytes: (bytes: Buffer) => boolean
  /** The other side agrees that the stream has ended well. */
  readonly onFinish: () => void
  /** The stream has failed, or its connection has. */
  readonly onError: (error: LibvirtError | LibvirtConnectionError) => void
}

interface Waiter {
  readonly name: string
  readonly lane: string
  readonly procedure: Procedure<never, unknown>
  readonly frame: Buffer
  readonly serial: number
  /** Settles the call; null once that is done. */
  settle: ((error: Error | null, reply?: unknown) => void) | null
}

/** Decodes all of `bytes`: what is left over is as wrong as what is missing. */
function decodeWhole<Out>(codec: Codec<Out, never>, bytes: Buffer): Out {
  const reader = new XdrReader(bytes)
  const value = codec.decode(reader)
  if (reader.left > 0) throw new XdrError(`${reader.left} bytes after the end`)
  return value
}

/** One connection. It takes the socket over and ends when the socket does. */
export class Rpc {
  readonly #socket: Duplex
  readonly #listener: RpcListener
  readonly #cutter = new FrameCutter()
  readonly #sent = new Map<number, Waiter>()
  readonly #streams = new Map<
    number,
    StreamListener & { readonly name: string; readonly procedure: number }
  >()
  /** Calls that wait, by lane; the lane whose turn is next comes first. */
  readonly #lanes = new Map<string, Waiter[]>()
  #waiting = 0
  #waitingBytes = 0
  #serial = 0
  #ended: LibvirtConnectionError | null = null
  #keepaliveTimer: NodeJS.Timeout | null = null
  #unanswered = 0

  constructor(socket: Duplex, listener: RpcListener) {
    this.#socket = socket
    this.#listener = listener
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('error', (cause) =>
      this.#end(new LibvirtConnectionError('lost', `the connection broke: ${cause.message}`, { cause })),
    )
    for (const event of ['end', 'close'])
      socket.on(event, () => this.#end(new LibvirtConnectionError('lost', 'libvirt closed the connection')))
  }

  /** Why the connection has ended, or null while it stands. */
  get ended(): LibvirtConnectionError | null {
    return this.#ended
  }

  /** How many calls have been sent and not answered, those that were given up included. */
  get underWay(): number {
    return this.#sent.size
  }

  /**
   * Makes a call. Rejects with a LibvirtError when libvirt answers with one, with a LibvirtConnectionError when there is no
   * answer. `stream` receives the stream that the call opens.
   */
  call<Args, Reply>(
    name: string,
    procedure: Procedure<Args, Reply>,
    args: Args,
    options: CallOptions & { readonly deadlineMs: number },
    stream?: StreamListener,
  ): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>()
    const { deadlineMs, signal, lane = name } = options
    const refusal = this.#refusal(name, signal)
    if (refusal !== null) {
      reject(refusal)
      return promise
    }
    const serial = this.#nextSerial()
    let frame: Buffer
    try {
      frame = this.#encode(procedure, args, serial)
    } catch (cause) {
      reject(new LibvirtConnectionError('invalid', `${name}: ${(cause as Error).message}`, { cause }))
      return promise
    }
    const waiter: Waiter = {
      name,
      lane,
      procedure: procedure as Procedure<never, unknown>,
      frame,
      serial,
      settle: (error, reply) => {
        waiter.settle = null
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
        if (error !== null) {
          this.#streams.delete(serial)
          reject(error)
          return
        }
        resolve(reply as Reply)
      },
    }
    if (stream !== undefined) {
      // Before the reply, which libvirtd may send after the first packets of the stream.
      this.#streams.set(serial, { ...stream, name, procedure: procedure.number })
      stream.onOpen(serial)
    }
    const abort = () => this.#giveUp(waiter, 'aborted', `${name} was called off`, signal?.reason)
    const timer = setTimeout(() => {
      const queued = this.#sent.has(serial) ? '' : `, waiting for its turn behind ${this.#sent.size} others`
      this.#giveUp(waiter, 'deadline', `${name} has had no answer for ${deadlineMs} ms${queued}`)
    }, deadlineMs)
    signal?.addEventListener('abort', abort, { once: true })
    const queue = this.#lanes.get(lane)
    if (queue === undefined) this.#lanes.set(lane, [waiter])
    else queue.push(waiter)
    this.#waiting += 1
    this.#waitingBytes += frame.length
    this.#sendNext()
    return promise
  }

  /** Sends a packet of a stream; `sent` is called when the system has taken it, which is how a writer is slowed down. */
  sendStream(
    procedure: Procedure<never, unknown>,
    serial: number,
    status: number,
    bytes: Uint8Array,
    sent: (error?: Error | null) => void,
  ): void {
    if (this.#ended !== null) {
      sent(this.#ended)
      return
    }
    const header = { ...this.#header(procedure, serial), type: frameType.stream, status }
    this.#socket.write(encodeFrame(header, bytes), sent)
  }

  /** Lets packets come again after a stream could take no more. */
  resume(): void {
    this.#socket.resume()
  }

  /** Asks the other side from time to time whether it is there. */
  startKeepalive({ intervalMs, count }: Keepalive): void {
    this.#keepaliveTimer = setInterval(() => {
      if (this.#unanswered >= count) {
        const silentMs = this.#unanswered * intervalMs
        this.#end(new LibvirtConnectionError('silent', `libvirt has not answered for ${silentMs} ms`))
        return
      }
      this.#unanswered += 1
      this.#sendKeepalive(1)
    }, intervalMs)
    this.#keepaliveTimer.unref()
  }

  /** Ends the connection at once; whoever waits is released with `error`. */
  close(error = new LibvirtConnectionError('closed', 'the connection was closed')): void {
    this.#end(error)
  }

  #refusal(name: string, signal: AbortSignal | undefined): LibvirtConnectionError | null {
    const ended = this.#ended
    if (ended !== null)
      return new LibvirtConnectionError(ended.reason, `${name}: ${ended.message}`, { cause: ended })
    if (signal?.aborted)
      return new LibvirtConnectionError('aborted', `${name} was called off`, { cause: signal.reason })
    if (this.#waiting >= waitingAtMost || this.#waitingBytes >= waitingBytesAtMost)
      return new LibvirtConnectionError('overloaded', `${name}: ${this.#waiting} calls wait already`)
    return null
  }

  #header(procedure: Procedure<never, unknown>, serial: number) {
    return { program: procedure.program, version: 1, procedure: procedure.number, serial }
  }

  #encode<Args>(procedure: Procedure<Args, unknown>, args: Args, serial: number): Buffer {
    const writer = new XdrWriter(frameBytesAtMost)
    writer.reserve(headerBytes)
    procedure.args.encode(writer, args)
    const frame = writer.finish()
    writeHeader(frame, {
      ...this.#header(procedure as Procedure<never, unknown>, serial),
      type: frameType.call,
      status: frameStatus.ok,
    })
    return frame
  }

  #nextSerial(): number {
    // Packets that belong to no call have the serial number 0.
    do this.#serial = this.#serial >= 0xffffffff ? 1 : this.#serial + 1
    while (this.#sent.has(this.#serial) || this.#streams.has(this.#serial))
    return this.#serial
  }

  #sendNext(): void {
    while (this.#sent.size < underWayAtMost && this.#waiting > 0 && this.#ended === null) {
      const [lane, queue] = this.#lanes.entries().next().value as [string, Waiter[]]
      const waiter = queue.shift() as Waiter
      this.#lanes.delete(lane)
      if (queue.length > 0) this.#lanes.set(lane, queue)
      this.#waiting -= 1
      this.#waitingBytes -= waiter.frame.length
      this.#sent.set(waiter.serial, waiter)
      this.#socket.write(waiter.frame)
    }
  }

  #giveUp(waiter: Waiter, reason: 'deadline' | 'aborted', message: string, cause?: unknown): void {
    const sent = this.#sent.has(waiter.serial)
    if (!sent) {
      const queue = this.#lanes.get(waiter.lane) ?? []
      queue.splice(queue.indexOf(waiter), 1)
      if (queue.length === 0) this.#lanes.delete(waiter.lane)
      this.#waiting -= 1
      this.#waitingBytes -= waiter.frame.length
    }
    waiter.settle?.(new LibvirtConnectionError(reason, message, { sent, cause }))
  }

  #receive(chunk: Buffer): void {
    this.#unanswered = 0
    try {
      for (const frame of this.#cutter.cut(chunk)) {
        if (this.#ended !== null) return
        this.#dispatch(frame)
      }
    } catch (cause) {
      if (!(cause instanceof FrameError || cause instanceof XdrError)) throw cause
      this.#end(
        new LibvirtConnectionError('malformed', `what came is not libvirt's: ${cause.message}`, { cause }),
      )
    }
  }

  #dispatch(frame: Frame): void {
    const known = frame.program === program.remote || frame.program === program.qemu
    if (frame.version !== 1 || (!known && frame.program !== program.keepalive))
      throw new FrameError(`a packet of program ${frame.program} in version ${frame.version}`)
    if (frame.program === program.keepalive) this.#answerKeepalive(frame)
    else if (frame.type === frameType.reply) this.#takeReply(frame)
    else if (frame.type === frameType.message && frame.status === frameStatus.ok)
      this.#listener.onMessage(frame)
    else if (frame.type === frameType.stream) this.#takeStream(frame)
    else throw new FrameError(`a packet of type ${frame.type} with status ${frame.status}`)
  }

  #sendKeepalive(procedure: number): void {
    // Who asks on and on and reads nothing is answered no more: what cannot be sent would pile up.
    if (this.#socket.writableLength > unreadBytesAtMost) return
    const header = { program: program.keepalive, version: 1, procedure, type: frameType.message, serial: 0 }
    this.#socket.write(encodeFrame({ ...header, status: frameStatus.ok }))
  }

  #answerKeepalive({ procedure, type, payload }: Frame): void {
    if (type !== frameType.message || (procedure !== 1 && procedure !== 2) || payload.length > 0)
      throw new FrameError(`a keepalive packet of type ${type} and procedure ${procedure}`)
    if (procedure === 1) this.#sendKeepalive(2)
  }

  #takeReply(frame: Frame): void {
    const waiter = this.#sent.get(frame.serial)
    if (
      waiter === undefined ||
      waiter.procedure.number !== frame.procedure ||
      waiter.procedure.program !== frame.program ||
      (frame.status !== frameStatus.ok && frame.status !== frameStatus.error)
    )
      throw new FrameError(`a reply to no call: procedure ${frame.procedure}, serial ${frame.serial}`)
    this.#sent.delete(frame.serial)
    try {
      if (frame.status === frameStatus.error)
        waiter.settle?.(new LibvirtError(waiter.name, decodeWhole(remoteError, frame.payload)))
      else waiter.settle?.(null, decodeWhole(waiter.procedure.reply, frame.payload))
    } catch (cause) {
      if (!(cause instanceof XdrError)) throw cause
      // The packets around it are whole, so that only this call has no answer.
      const message = `${waiter.name}: the reply cannot be read: ${cause.message}`
      waiter.settle?.(new LibvirtConnectionError('malformed', message, { cause, sent: true }))
    }
    this.#sendNext()
  }

  #takeStream(frame: Frame): void {
    const stream = this.#streams.get(frame.serial)
    if (stream === undefined || stream.procedure !== frame.procedure)
      throw new FrameError(`a packet of no stream: procedure ${frame.procedure}, serial ${frame.serial}`)
    if (frame.status === frameStatus.continues) {
      if (!stream.onBytes(frame.payload)) this.#socket.pause()
      return
    }
    this.#streams.delete(frame.serial)
    if (frame.status === frameStatus.ok) stream.onFinish()
    else stream.onError(new LibvirtError(stream.name, decodeWhole(remoteError, frame.payload)))
  }

  #end(error: LibvirtConnectionError): void {
    if (this.#ended !== null) return
    this.#ended = error
    if (this.#keepaliveTimer !== null) clearInterval(this.#keepaliveTimer)
    this.#socket.destroy()
    const release = (waiter: Waiter, sent: boolean) =>
      waiter.settle?.(
        new LibvirtConnectionError(error.reason, `${waiter.name}: ${error.message}`, { cause: error, sent }),
      )
    for (const waiter of this.#sent.values()) release(waiter, true)
    for (const queue of this.#lanes.values()) for (const waiter of queue) release(waiter, false)
    this.#sent.clear()
    this.#lanes.clear()
    this.#waiting = 0
    this.#waitingBytes = 0
    for (const stream of this.#streams.values()) stream.onError(error)
    this.#streams.clear()
    this.#listener.onEnd(error)
  }
}
