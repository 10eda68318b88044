// What is said in a session of `garrison shell`: pieces of one byte for their kind, two for their length (big-endian), and that many more.

import { HostError } from '../../provisioning/problem.ts'

/** A terminal's size in characters. */
export interface Size {
  readonly columns: number
  readonly rows: number
}

/** One piece. `bytes`: what was typed, or what is to be seen. `beat`: its side is there. `end`: how the shell ended, its last word. */
export type Frame =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | ({ readonly kind: 'size' } & Size)
  | { readonly kind: 'beat' }
  | { readonly kind: 'end'; readonly exit: number }

/** Each side says a beat so often, and takes the other for gone that has said nothing for so long. */
export const beatMs = 5000
/** See `beatMs`. */
export const silentMs = 20_000

const headBytes = 3
const mostBytes = 0xffff
const mostLetters = 64
const kinds = ['bytes', 'size', 'beat', 'end'] as const

function piece(kind: Frame['kind'], body: Buffer): Buffer {
  const head = Buffer.alloc(headBytes)
  head.writeUInt8(kinds.indexOf(kind))
  head.writeUInt16BE(body.length, 1)
  return Buffer.concat([head, body])
}

/** A frame as it is sent; of many bytes, several. */
export function frameBytes(frame: Frame): Buffer {
  switch (frame.kind) {
    case 'bytes': {
      const pieces: Buffer[] = []
      for (let at = 0; at < frame.bytes.length; at += mostBytes)
        pieces.push(piece('bytes', frame.bytes.subarray(at, at + mostBytes)))
      return Buffer.concat(pieces)
    }
    case 'size': {
      const body = Buffer.alloc(4)
      body.writeUInt16BE(frame.columns)
      body.writeUInt16BE(frame.rows, 2)
      return piece('size', body)
    }
    case 'beat':
      return piece('beat', Buffer.alloc(0))
    case 'end':
      return piece('end', Buffer.from([frame.exit & 0xff]))
  }
}

const wrong = (why: string): HostError =>
  new HostError('request.invalid', `what the other side of the shell says is ${why}`, {
    details: { verb: 'shell' },
  })

function frameOf(kind: Frame['kind'] | undefined, body: Buffer): Frame {
  if (kind === 'bytes') return { kind, bytes: body }
  if (kind === 'beat' && body.length === 0) return { kind }
  if (kind === 'end' && body.length === 1) return { kind, exit: body.readUInt8() }
  if (kind === 'size' && body.length === 4) {
    const [columns, rows] = [body.readUInt16BE(), body.readUInt16BE(2)]
    if (columns > 0 && rows > 0) return { kind, columns, rows }
  }
  throw wrong('no frame')
}

/** Takes frames out of bytes that come cut anywhere, and keeps less than one frame of them. */
export class FrameReader {
  /** What of a frame is here: pieces, put together only when it can be whole, for they may be of one byte each. */
  #pieces: Buffer[] = []
  #held = 0
  #wanted = headBytes

  /** The frames that are whole now. Throws `request.invalid`; nothing can be read after that. */
  read(bytes: Buffer): readonly Frame[] {
    // A copy where it is kept: a part of a large piece would keep all of it.
    this.#held += bytes.length
    if (this.#held < this.#wanted) {
      this.#pieces.push(Buffer.from(bytes))
      return []
    }
    let rest = this.#pieces.length === 0 ? bytes : Buffer.concat([...this.#pieces, bytes])
    const frames: Frame[] = []
    this.#wanted = headBytes
    while (rest.length >= headBytes) {
      const kind = kinds[rest.readUInt8()]
      if (kind === undefined) throw wrong('of no known kind')
      const end = headBytes + rest.readUInt16BE(1)
      if (rest.length < end) {
        this.#wanted = end
        break
      }
      frames.push(frameOf(kind, rest.subarray(headBytes, end)))
      rest = rest.subarray(end)
    }
    this.#pieces = rest.length === 0 ? [] : [Buffer.from(rest)]
    this.#held = rest.length
    return frames
  }
}

/** The size that `80x24` means. Throws `request.invalid`. */
export function sizeIn(text: string): Size {
  const [, columns, rows] = /^([1-9]\d{0,3})x([1-9]\d{0,3})$/.exec(text) ?? []
  if (columns !== undefined && rows !== undefined) return { columns: Number(columns), rows: Number(rows) }
  throw new HostError('request.invalid', `--size is columns x rows, such as 80x24, and not ${text}`, {
    details: { verb: 'shell' },
  })
}

/** The name of a kind of terminal as terminfo has them. Throws `request.invalid`. */
export function termIn(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9+._-]*$/.test(text) && text.length <= mostLetters) return text
  throw new HostError('request.invalid', `--term is a kind of terminal such as xterm-256color, not ${text}`, {
    details: { verb: 'shell' },
  })
}
