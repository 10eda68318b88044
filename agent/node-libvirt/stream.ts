// A libvirt stream as a Node stream: a console, or the bytes of a volume, each over a connection of its own.
//
// INVARIANTS
// - A stream that is not read must not hold up calls, and libvirtd stops reading from a client whose stream it cannot pass
//   on. So each has a connection of its own, on which nothing is asked by keepalive: silence there is not death.
// - Its first packets may come before the reply to the call that opens it, and are then read on: the reply is behind them.
// - The stream has ended well only when libvirt has said so. Everything else destroys it with an error.

import { Duplex } from 'node:stream'
import { LibvirtConnectionError } from './errors.ts'
import { frameStatus, streamBytesAtMost } from './frame.ts'
import type { Procedure } from './procedure.ts'
import type { Rpc, StreamListener } from './rpc.ts'

/** What is kept of a stream that nobody has yet because its reply has not come. */
const earlyBytesAtMost = 16 * 1024 * 1024

/** A way for bytes: from libvirt (`in`), to it (`out`), or both. */
export type StreamWay = 'in' | 'out' | 'both'

/**
 * Bytes from and to libvirt with back-pressure both ways. When all has been written, `end()` asks libvirt to finish, and
 * `finish` comes when libvirt has agreed, so after an upload that has `finish`ed all is in place. What is read `end`s in the
 * same way. `destroy()` aborts the stream.
 */
export class LibvirtStream<Reply = unknown> extends Duplex {
  /** What the call that opened the stream replied. */
  reply: Reply | undefined
  readonly #rpc: Rpc
  readonly #procedure: Procedure<never, unknown>
  #serial = 0
  #isOpen = false
  #asked = false
  #agreed = false
  #finish: ((error?: Error | null) => void) | null = null

  constructor(rpc: Rpc, procedure: Procedure<never, unknown>, way: StreamWay) {
    // The sides of a Duplex can be left out, which its types do not know.
    const sides = { readable: way !== 'out', writable: way !== 'in', allowHalfOpen: false }
    super(sides)
    this.#rpc = rpc
    this.#procedure = procedure
  }

  /** What the connection tells; to be given to the call that opens the stream. */
  get listener(): StreamListener {
    return {
      onOpen: (serial) => {
        this.#serial = serial
      },
      onBytes: (bytes) => this.#take(bytes),
      onFinish: () => this.#agree(),
      onError: (error) => this.#fail(error),
    }
  }

  /** The call that opened the stream has been replied to. */
  opened(reply: Reply): void {
    this.reply = reply
    this.#isOpen = true
  }

  override _read(): void {
    this.#rpc.resume()
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const send = (at: number) => {
      const end = Math.min(at + streamBytesAtMost, chunk.length)
      this.#rpc.sendStream(
        this.#procedure,
        this.#serial,
        frameStatus.continues,
        chunk.subarray(at, end),
        (error) => {
          if (error || end === chunk.length) done(error)
          else send(end)
        },
      )
    }
    // A packet without bytes would say that no more will come.
    if (chunk.length === 0) done()
    else send(0)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#finish = done
    if (this.#agreed) done()
    else this.#askToFinish()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#rpc.close()
    done(error)
  }

  #fail(error: Error): void {
    // What comes with the reply comes before the caller has the stream and can listen for its error.
    setImmediate(() => this.destroy(error))
  }

  #askToFinish(): void {
    if (this.#asked) return
    this.#asked = true
    this.#rpc.sendStream(this.#procedure, this.#serial, frameStatus.ok, new Uint8Array(0), (error) => {
      if (error) this.destroy(error)
    })
  }

  #take(bytes: Buffer): boolean {
    if (bytes.length > 0) return this.push(bytes) || (!this.#isOpen && this.readableLength < earlyBytesAtMost)
    // The other side has no more and waits until this one asks to finish.
    this.#askToFinish()
    return true
  }

  #agree(): void {
    if (!this.#asked) {
      this.#fail(new LibvirtConnectionError('malformed', 'a stream ended that nobody had asked to end'))
      return
    }
    this.#agreed = true
    if (this.readable) this.push(null)
    this.#finish?.()
  }
}
