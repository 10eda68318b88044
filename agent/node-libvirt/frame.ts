// The packets of libvirt's RPC: a length and a header of six words, 28 bytes in all, before the payload. Cuts a byte stream into them.

/** The bytes of a frame before its payload: the length, which counts itself, and the header. */
export const headerBytes = 28

/** The most that a frame may have, its length word included: what libvirt itself accepts and sends. */
export const frameBytesAtMost = 33_554_432 + 4

/** The most payload that libvirt puts in one packet of a stream, and that servers of any age accept. */
export const streamBytesAtMost = 262_120

/** The kinds of packets. Those that pass file descriptors (4 and 5) are not spoken. */
export const frameType = { call: 0, reply: 1, message: 2, stream: 3, hole: 6 } as const

/** What a packet says of its outcome: all is well, an error follows, or a stream goes on. */
export const frameStatus = { ok: 0, error: 1, continues: 2 } as const

/** The header of a packet. `type` and `status` are those of the two tables above when a peer speaks the protocol. */
export interface Header {
  readonly program: number
  readonly version: number
  readonly procedure: number
  readonly type: number
  readonly serial: number
  readonly status: number
}

/** One packet. `payload` shares memory with what was received. */
export interface Frame extends Header {
  readonly payload: Buffer
}

/** A byte stream that cannot be cut into packets; nothing after it can be understood either. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

/** Writes the length and the header into the first 28 bytes of `bytes`, which is the whole frame. */
export function writeHeader(bytes: Buffer, header: Header): void {
  bytes.writeUInt32BE(bytes.length, 0)
  bytes.writeUInt32BE(header.program, 4)
  bytes.writeUInt32BE(header.version, 8)
  bytes.writeInt32BE(header.procedure, 12)
  bytes.writeUInt32BE(header.type, 16)
  bytes.writeUInt32BE(header.serial, 20)
  bytes.writeUInt32BE(header.status, 24)
}

/** A whole frame with a copy of `payload`. */
export function encodeFrame(header: Header, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.allocUnsafe(headerBytes + payload.length)
  bytes.set(payload, headerBytes)
  writeHeader(bytes, header)
  return bytes
}

const decodeFrame = (bytes: Buffer): Frame => ({
  program: bytes.readUInt32BE(4),
  version: bytes.readUInt32BE(8),
  procedure: bytes.readInt32BE(12),
  type: bytes.readUInt32BE(16),
  serial: bytes.readUInt32BE(20),
  status: bytes.readUInt32BE(24),
  payload: bytes.subarray(headerBytes),
})

/**
 * Cuts what is received into frames, wherever it was split. Holds at most one frame that is not complete; a chunk is copied
 * only when a frame spans several.
 */
export class FrameCutter {
  #chunks: Buffer[] = []
  #held = 0
  #wanted = 4;

  /** The frames that `chunk` completes. Throws a FrameError when a length is none that a frame can have. */
  *cut(chunk: Buffer): Generator<Frame> {
    this.#chunks.push(chunk)
    this.#held += chunk.length
    while (this.#held >= this.#wanted) {
      const bytes =
        this.#chunks.length === 1 && this.#chunks[0] ? this.#chunks[0] : Buffer.concat(this.#chunks)
      this.#chunks = [bytes]
      const length = bytes.readUInt32BE(0)
      if (length < headerBytes || length > frameBytesAtMost)
        throw new FrameError(`a frame of ${length} bytes; it can have ${headerBytes} to ${frameBytesAtMost}`)
      if (bytes.length < length) {
        this.#wanted = length
        return
      }
      const rest = bytes.subarray(length)
      this.#chunks = rest.length === 0 ? [] : [rest]
      this.#held = rest.length
      this.#wanted = 4
      yield decodeFrame(bytes.subarray(0, length))
    }
  }
}
