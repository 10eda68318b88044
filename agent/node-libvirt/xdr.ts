// XDR (RFC 4506) in typed pieces that combine: each codec encodes, decodes and can say its wire shape.

/** What bytes from the other side, or values from this one, cannot be; `message` says where and why. */
export class XdrError extends Error {
  override readonly name = 'XdrError'
}

/** A 64-bit integer: a `number` while that is exact, a `bigint` beyond it. */
export type Integer = number | bigint

/** Encodes into memory that grows as needed, up to `limit` bytes. */
export class XdrWriter {
  #bytes = Buffer.allocUnsafe(256)
  #length = 0
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Where the next `size` bytes go; what lies there before is undefined. */
  reserve(size: number): { readonly bytes: Buffer; readonly at: number } {
    const at = this.#length
    const end = at + size
    if (end > this.#limit) throw new XdrError(`a message of more than ${this.#limit} bytes`)
    if (end > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.min(Math.max(end, this.#bytes.length * 2), this.#limit))
      this.#bytes.copy(grown, 0, 0, at)
      this.#bytes = grown
    }
    this.#length = end
    return { bytes: this.#bytes, at }
  }

  /** All that was encoded, without a copy. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }
}

/** Decodes from one message, from its begin to its end. */
export class XdrReader {
  readonly bytes: Buffer
  #at: number

  constructor(bytes: Buffer, at = 0) {
    this.bytes = bytes
    this.#at = at
  }

  /** The offset of `size` bytes, which are then passed over. */
  take(size: number): number {
    const at = this.#at
    if (size > this.bytes.length - at) throw new XdrError(`${size} bytes wanted where ${this.left} are left`)
    this.#at = at + size
    return at
  }

  /** How many bytes have not been read. */
  get left(): number {
    return this.bytes.length - this.#at
  }
}

/**
 * How values of one kind go over the wire. `shape` names the wire format, so that a table of codecs can be held against
 * libvirt's own; two codecs with the same shape are the same to the other side.
 */
export interface Codec<Out, In = Out> {
  readonly shape: string
  encode(writer: XdrWriter, value: In): void
  decode(reader: XdrReader): Out
}

/** A codec whose value may be left out of an object. */
export interface Defaulted<Out, In = Out> extends Codec<Out, In> {
  /** What is sent where the caller leaves the value out of an object. */
  readonly absent: { readonly value: In }
}

/** What a codec yields. */
export type Decoded<C> = C extends Codec<infer Out, never> ? Out : never

/** What a codec takes. */
export type Encoded<C> = C extends Codec<unknown, infer In> ? In : never

const whole = (value: number, least: number, most: number): number => {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new XdrError(`${value} is no whole number from ${least} to ${most}`)
  return value
}

/** A signed 32-bit number. */
export const int: Codec<number> = {
  shape: 'int',
  encode: (writer, value) => {
    const { bytes, at } = writer.reserve(4)
    bytes.writeInt32BE(whole(value, -0x80000000, 0x7fffffff), at)
  },
  decode: (reader) => reader.bytes.readInt32BE(reader.take(4)),
}

/** An unsigned 32-bit number. */
export const uint: Codec<number> = {
  shape: 'uint',
  encode: (writer, value) => {
    const { bytes, at } = writer.reserve(4)
    bytes.writeUInt32BE(whole(value, 0, 0xffffffff), at)
  },
  decode: (reader) => reader.bytes.readUInt32BE(reader.take(4)),
}

const exact = (value: bigint): Integer =>
  value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value

const big = (value: Integer, least: bigint, most: bigint): bigint => {
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new XdrError(`${value} is no whole number that is exact: give a bigint`)
  const wide = BigInt(value)
  if (wide < least || wide > most) throw new XdrError(`${value} is not from ${least} to ${most}`)
  return wide
}

/** A signed 64-bit number. */
export const hyper: Codec<Integer> = {
  shape: 'hyper',
  encode: (writer, value) => {
    const wide = big(value, -(2n ** 63n), 2n ** 63n - 1n)
    const { bytes, at } = writer.reserve(8)
    bytes.writeBigInt64BE(wide, at)
  },
  decode: (reader) => exact(reader.bytes.readBigInt64BE(reader.take(8))),
}

/** An unsigned 64-bit number. */
export const uhyper: Codec<Integer> = {
  shape: 'uhyper',
  encode: (writer, value) => {
    const wide = big(value, 0n, 2n ** 64n - 1n)
    const { bytes, at } = writer.reserve(8)
    bytes.writeBigUInt64BE(wide, at)
  },
  decode: (reader) => {
    const at = reader.take(8)
    const high = reader.bytes.readUInt32BE(at)
    const low = reader.bytes.readUInt32BE(at + 4)
    return high < 0x200000 ? high * 0x100000000 + low : (BigInt(high) << 32n) | BigInt(low)
  },
}

/** An unsigned 64-bit number of a thing that cannot come near 2^53, as memory in KiB or a version. */
export const count: Codec<number> = {
  shape: 'uhyper',
  encode: uhyper.encode,
  decode: (reader) => {
    const value = uhyper.decode(reader)
    if (typeof value === 'bigint') throw new XdrError(`${value} is more than a number holds`)
    return value
  },
}

/** A floating-point number of 64 bits. */
export const double: Codec<number> = {
  shape: 'double',
  encode: (writer, value) => {
    const { bytes, at } = writer.reserve(8)
    bytes.writeDoubleBE(value, at)
  },
  decode: (reader) => reader.bytes.readDoubleBE(reader.take(8)),
}

/** Yes or no as libvirt sends it: an `int` that is not 0 is yes. */
export const yes: Codec<boolean> = {
  shape: 'int',
  encode: (writer, value) => int.encode(writer, value ? 1 : 0),
  decode: (reader) => int.decode(reader) !== 0,
}

const padded = (size: number): number => (size + 3) & ~3

const encodeOpaque = (writer: XdrWriter, value: Uint8Array): void => {
  const { bytes, at } = writer.reserve(padded(value.length))
  bytes.set(value, at)
  bytes.fill(0, at + value.length, at + padded(value.length))
}

const decodeLength = (reader: XdrReader, cap: number): number => {
  const length = uint.decode(reader)
  if (length > cap) throw new XdrError(`${length} of something of which there are at most ${cap}`)
  return length
}

const checkCap = (length: number, cap: number): number => {
  if (length > cap) throw new XdrError(`${length} of something of which at most ${cap} can be sent`)
  return length
}

/** At most `cap` bytes. What is decoded is a copy. */
export const opaque = (cap: number): Codec<Buffer, Uint8Array> => ({
  shape: `opaque<${cap}>`,
  encode: (writer, value) => {
    uint.encode(writer, checkCap(value.length, cap))
    encodeOpaque(writer, value)
  },
  decode: (reader) => {
    const length = decodeLength(reader, cap)
    const at = reader.take(padded(length))
    return Buffer.from(reader.bytes.subarray(at, at + length))
  },
})

/**
 * Text of at most `cap` bytes of UTF-8. The other side has it as a C string, so a text with a NUL in it, which would
 * arrive cut off, is refused, and so is one with half a surrogate pair, which would arrive as another. What is received
 * and is no UTF-8 has U+FFFD in those places: one odd file name must not hide the list that it is in.
 */
export const text = (cap: number): Codec<string> => ({
  shape: `string<${cap}>`,
  encode: (writer, value) => {
    if (value.includes('\0')) throw new XdrError('a text with a NUL in it')
    if (!value.isWellFormed()) throw new XdrError('a text with half a surrogate pair in it')
    const size = checkCap(Buffer.byteLength(value), cap)
    uint.encode(writer, size)
    const { bytes, at } = writer.reserve(padded(size))
    bytes.write(value, at)
    bytes.fill(0, at + size, at + padded(size))
  },
  decode: (reader) => {
    const length = decodeLength(reader, cap)
    const at = reader.take(padded(length))
    const value = reader.bytes.toString('utf8', at, at + length)
    if (value.includes('\0')) throw new XdrError('a text with a NUL in it')
    return value
  },
})

/** A value or null, where null is also what is sent when nothing is given. */
export const optional = <Out, In>(of: Codec<Out, In>): Defaulted<Out | null, In | null> => ({
  shape: `*(${of.shape})`,
  absent: { value: null },
  encode: (writer, value) => {
    uint.encode(writer, value === null ? 0 : 1)
    if (value !== null) of.encode(writer, value)
  },
  decode: (reader) => {
    const present = uint.decode(reader)
    if (present > 1) throw new XdrError(`${present} for whether a value follows`)
    return present === 1 ? of.decode(reader) : null
  },
})

/** A list of at most `cap` values. */
export const list = <Out, In>(of: Codec<Out, In>, cap: number): Codec<readonly Out[], readonly In[]> => ({
  shape: `(${of.shape})<${cap}>`,
  encode: (writer, values) => {
    uint.encode(writer, checkCap(values.length, cap))
    for (const value of values) of.encode(writer, value)
  },
  decode: (reader) => {
    const length = decodeLength(reader, cap)
    const values: Out[] = []
    for (let index = 0; index < length; index++) values.push(of.decode(reader))
    return values
  },
})

/** Text in a fixed or counted array of C `char`, each of which XDR makes four bytes; ends at the first NUL. */
export const chars = (size: number, form: 'fixed' | 'counted'): Codec<string> => ({
  shape: form === 'fixed' ? `char[${size}]` : `char<${size}>`,
  encode: (writer, value) => {
    const bytes = Buffer.from(value)
    checkCap(bytes.length, size)
    if (form === 'counted') uint.encode(writer, bytes.length)
    for (let index = 0; index < (form === 'fixed' ? size : bytes.length); index++)
      int.encode(writer, ((bytes[index] ?? 0) << 24) >> 24)
  },
  decode: (reader) => {
    const length = form === 'fixed' ? size : decodeLength(reader, size)
    const bytes = Buffer.alloc(length)
    for (let index = 0; index < length; index++) bytes[index] = int.decode(reader) & 0xff
    const end = bytes.indexOf(0)
    return bytes.toString('utf8', 0, end < 0 ? length : end)
  },
})

const uuidText = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** A UUID: 16 bytes on the wire, text in lower case with its four dashes here. */
export const uuid: Codec<string> = {
  shape: 'opaque[16]',
  encode: (writer, value) => {
    if (!uuidText.test(value)) throw new XdrError(`${JSON.stringify(value)} is no UUID`)
    const { bytes, at } = writer.reserve(16)
    bytes.write(value.replaceAll('-', ''), at, 'hex')
  },
  decode: (reader) => {
    const at = reader.take(16)
    const hex = reader.bytes.toString('hex', at, at + 16)
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
  },
}

// biome-ignore lint/suspicious/noExplicitAny: a member's codec is of whatever types it is, and they are inferred from it.
type AnyCodec = Codec<any, any>

/** The codecs of an object's members, in the order of the wire. */
export type Members = Readonly<Record<string, AnyCodec>>

type Optionals<M extends Members> = {
  [K in keyof M]: M[K] extends Defaulted<infer _, infer __> ? K : never
}[keyof M]

/** The object that members decode to. */
export type DecodedMembers<M extends Members> = { readonly [K in keyof M]: Decoded<M[K]> }

/** The object that members encode: those with a default may be left out. */
export type EncodedMembers<M extends Members> = {
  readonly [K in Exclude<keyof M, Optionals<M>>]: Encoded<M[K]>
} & { readonly [K in Optionals<M>]?: Encoded<M[K]> | undefined }

/** An object with members. What cannot be encoded is named by the path to it. */
export function struct<const M extends Members>(members: M): Codec<DecodedMembers<M>, EncodedMembers<M>> {
  const entries = Object.entries<Codec<unknown> | Defaulted<unknown>>(members)
  return {
    shape: entries
      .map(([, of]) => of.shape)
      .filter((shape) => shape !== '')
      .join(),
    encode: (writer, value) => {
      const given = value as Readonly<Record<string, unknown>>
      for (const [name, of] of entries) {
        const one = given[name] ?? ('absent' in of ? of.absent.value : undefined)
        if (one === undefined) throw new XdrError(`${name} is not given`)
        try {
          of.encode(writer, one)
        } catch (error) {
          if (!(error instanceof XdrError)) throw new XdrError(`${name}: ${String(error)}`, { cause: error })
          throw new XdrError(`${name}: ${error.message}`)
        }
      }
    },
    decode: (reader) => {
      const value: Record<string, unknown> = {}
      for (const [name, of] of entries) value[name] = of.decode(reader)
      return value as DecodedMembers<M>
    },
  }
}

/** The same wire format with a value that may be left out. */
export const defaulted = <Out, In>(of: Codec<Out, In>, value: In): Defaulted<Out, In> => ({
  ...of,
  absent: { value },
})

/** The same wire format with its value seen otherwise when it is received. */
export const seenAs = <Out, In, Seen>(of: Codec<Out, In>, see: (value: Out) => Seen): Codec<Seen, In> => ({
  shape: of.shape,
  encode: of.encode,
  decode: (reader) => see(of.decode(reader)),
})

/** Nothing at all: the arguments of a call that has none, or its reply. */
export const nothing: Codec<void> = { shape: '', encode: () => {}, decode: () => {} }
