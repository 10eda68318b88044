// XDR: what every codec of every call makes of right, cut off and random bytes, and which values cannot be sent at all.

import t from 'tap'
import { domainEvents, monitorEvent, networkEvents, storagePoolEvents } from '../events.ts'
import { flags, paramList, paramRecord, remoteError, string, typedParam } from '../shapes.ts'
import {
  type Codec,
  chars,
  count,
  double,
  hyper,
  int,
  list,
  opaque,
  optional,
  struct,
  text,
  uhyper,
  uint,
  uuid,
  XdrError,
  XdrReader,
  XdrWriter,
  yes,
} from '../xdr.ts'
import { type Chance, chance, fuzzCount } from './chance.ts'
import { encode, everyCall } from './fake-libvirtd.ts'

const seed = 20_260_101

const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

const paddedBytes = (dice: Chance, size: number, printable: boolean): Buffer => {
  const bytes = Buffer.alloc((size + 3) & ~3)
  for (let index = 0; index < size; index++) bytes[index] = printable ? 32 + dice.below(95) : dice.below(256)
  return bytes
}

/** Where the part that begins at `from` ends: the parenthesis that fits the one there. */
const closing = (shape: string, from: number): number => {
  let depth = 0
  for (let at = from; ; at++) {
    if (shape[at] === '(') depth += 1
    if (shape[at] === ')' && --depth === 0) return at
  }
}

/** Bytes that are right for a shape, at random. It knows the grammar of shapes and nothing of the codecs. */
function bytesOf(shape: string, dice: Chance): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < shape.length; ) {
    const rest = shape.slice(at)
    const [simple = '', name = '', bracket, cap = ''] =
      /^(typed|uint|int|uhyper|hyper|double|string|opaque|char)(?:([<[])(\d+)[>\]])?/.exec(rest) ?? []
    const most = Math.min(Number(cap), 40)
    if (rest[0] === ',') at += 1
    else if (rest[0] === '*' || rest[0] === '(') {
      const begin = at + (rest[0] === '*' ? 1 : 0)
      const end = closing(shape, begin)
      const of = shape.slice(begin + 1, end)
      const [whole = '', listCap = '1'] = /^<(\d+)>/.exec(shape.slice(end + 1)) ?? []
      const length = rest[0] === '*' ? dice.below(2) : dice.below(Math.min(Number(listCap), 3) + 1)
      parts.push(word(length))
      for (let index = 0; index < length; index++) parts.push(bytesOf(of, dice))
      at = end + 1 + (rest[0] === '*' ? 0 : whole.length)
    } else {
      at += simple.length
      if (name === 'int') parts.push(word(dice.below(2)))
      else if (name === 'uint') parts.push(word(dice.below(2 ** 32)))
      else if (name === 'uhyper' || name === 'hyper')
        parts.push(word(dice.below(2 ** 21)), word(dice.below(2 ** 32)))
      else if (name === 'double') parts.push(encode(double, dice.below(1000) / 8))
      else if (name === 'typed') {
        const tag = 1 + dice.below(7)
        const value = ['int', 'uint', 'hyper', 'uhyper', 'double', 'int', 'string<30>'][tag - 1] as string
        parts.push(word(tag), bytesOf(value, dice))
      } else if (name === 'char') {
        const length = bracket === '[' ? Number(cap) : dice.below(most + 1)
        if (bracket === '<') parts.push(word(length))
        for (let index = 0; index < length; index++) parts.push(word(65 + dice.below(26)))
      } else if (bracket === '[') parts.push(paddedBytes(dice, Number(cap), false))
      else {
        const size = dice.below(most + 1)
        parts.push(word(size), paddedBytes(dice, size, name === 'string'))
      }
    }
  }
  return Buffer.concat(parts)
}

const decodeWhole = (codec: Codec<unknown, never>, bytes: Buffer): unknown => {
  const reader = new XdrReader(bytes)
  const value = codec.decode(reader)
  if (reader.left > 0) throw new XdrError('left over')
  return value
}

/** Decodes; an XdrError is an answer too, anything else is a fault. */
const attempt = (codec: Codec<unknown, never>, bytes: Buffer): unknown => {
  try {
    return decodeWhole(codec, bytes)
  } catch (error) {
    if (error instanceof XdrError) return error
    throw error
  }
}

const codecs: readonly (readonly [string, Codec<unknown, never>])[] = [
  ...Object.entries(everyCall).flatMap(
    ([name, { args, reply }]) =>
      [
        [`arguments of ${name}`, args],
        [`reply of ${name}`, reply],
      ] as const,
  ),
  ...Object.entries({ ...domainEvents, ...networkEvents, ...storagePoolEvents, monitorEvent }).map(
    ([name, { body }]) => [`event ${name}`, body] as const,
  ),
  ['an error', remoteError],
]

/** Codecs that do not keep all that is on the wire: parameters by field, the length after a list, what is always sent as it is. */
const keepsAll = (name: string, { shape }: Codec<unknown, never>) =>
  !/typed|char|\)<\d+>,u?int$/.test(shape) &&
  !/^arguments of .*(ListAll|Get|ListCaps|Stats|Leases|DiskErrors)/.test(name)

t.test('right bytes of every shape are read whole and written the same', async (t) => {
  const dice = chance(seed)
  const rounds = Math.max(3, Math.ceil(fuzzCount / codecs.length / 4))
  let compared = 0
  for (const [name, codec] of codecs)
    for (let round = 0; round < rounds; round++) {
      const bytes = bytesOf(codec.shape, dice)
      const value = decodeWhole(codec, bytes)
      if (!keepsAll(name, codec)) continue
      compared += 1
      const again = encode(codec as Codec<unknown, unknown>, value)
      if (!again.equals(bytes)) t.same(again.toString('hex'), bytes.toString('hex'), name)
    }
  t.ok(compared > rounds * 300, `${compared} of ${codecs.length * rounds} were written again`)
})

t.test('bytes that are cut off anywhere are an XdrError', async (t) => {
  const dice = chance(seed + 1)
  for (const [name, codec] of codecs) {
    const bytes = bytesOf(codec.shape, dice)
    for (let end = 0; end < bytes.length; end++)
      if (!(attempt(codec, bytes.subarray(0, end)) instanceof XdrError)) t.fail(`${name} cut off at ${end}`)
  }
  t.ok(codecs.length > 500)
})

t.test('random and damaged bytes are a value or an XdrError and nothing else', async (t) => {
  const dice = chance(seed + 2)
  let refused = 0
  for (let round = 0; round < fuzzCount; round++) {
    const [, codec] = dice.of(codecs)
    const bytes = round % 3 === 0 ? paddedBytes(dice, dice.below(200), false) : bytesOf(codec.shape, dice)
    for (let damage = dice.below(4); damage > 0 && bytes.length > 0; damage--)
      bytes[dice.below(bytes.length)] = dice.below(256)
    if (attempt(codec, bytes) instanceof XdrError) refused += 1
  }
  t.ok(refused > fuzzCount / 10, `${refused} of ${fuzzCount} were refused`)
})

const roundTrip = <Out, In>(codec: Codec<Out, In>, value: In): Out => {
  const bytes = encode(codec, value)
  if (bytes.length % 4 !== 0) throw new Error(`${bytes.length} bytes are no whole words`)
  return decodeWhole(codec as Codec<unknown, never>, bytes) as Out
}

t.test('values', async (t) => {
  for (const value of [0, 1, -1, 2 ** 31 - 1, -(2 ** 31)]) t.equal(roundTrip(int, value), value)
  for (const value of [0, 2 ** 32 - 1]) t.equal(roundTrip(uint, value), value)
  for (const value of [0, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2n ** 63n - 1n, -(2n ** 63n)])
    t.equal(roundTrip(hyper, value), value)
  for (const value of [0, 2 ** 32, Number.MAX_SAFE_INTEGER, 2n ** 53n, 2n ** 64n - 1n])
    t.equal(roundTrip(uhyper, value), value)
  t.equal(roundTrip(uhyper, 7n), 7, 'a small bigint comes back as a number')
  for (const value of [0, -1.5, Number.MAX_VALUE, Number.NEGATIVE_INFINITY])
    t.equal(roundTrip(double, value), value)
  t.ok(Number.isNaN(roundTrip(double, Number.NaN)))
  t.same([roundTrip(yes, true), roundTrip(yes, false)], [true, false])
  for (const value of ['', 'a', 'abcd', 'ä€𝄞', ']]>&<"\'\n\u001b[31m', '../../x', 'x'.repeat(1024 * 1024)])
    t.equal(roundTrip(string, value), value)
  for (const size of [0, 1, 2, 3, 4, 5])
    t.same(roundTrip(opaque(8), Buffer.alloc(size, 7)), Buffer.alloc(size, 7), `${size} bytes`)
  t.same(roundTrip(list(int, 3), [1, 2, 3]), [1, 2, 3])
  t.same([roundTrip(optional(int), null), roundTrip(optional(int), 3)], [null, 3])
  t.equal(roundTrip(chars(8, 'fixed'), 'model'), 'model')
  t.equal(roundTrip(chars(8, 'counted'), 'ä'), 'ä')
  const id = '6695eb01-f6a4-8304-79aa-97f2502e193f'
  t.equal(roundTrip(uuid, id.toUpperCase()), id)
  t.equal(roundTrip(flags, 0x80000000 | 1), 0x80000001, 'flags that | made negative')
})

t.test('typed parameters', async (t) => {
  const params = [
    { field: 'a', type: 'int', value: -1 },
    { field: 'b', type: 'uint', value: 1 },
    { field: 'c', type: 'llong', value: -(2n ** 60n) },
    { field: 'd', type: 'ullong', value: 2n ** 64n - 1n },
    { field: 'e', type: 'double', value: 0.5 },
    { field: 'f', type: 'boolean', value: true },
    { field: '__proto__', type: 'string', value: 'x' },
  ] as const
  t.same(roundTrip(paramList(16), params), params)
  const record = roundTrip(paramRecord(16), params)
  t.equal(Object.getPrototypeOf(record), null)
  t.same(
    Object.entries(record),
    params.map(({ field, value }) => [field, value]),
  )
  t.throws(() => decodeWhole(typedParam, Buffer.concat([encode(string, 'x'), word(8), word(0)])), XdrError)
  t.throws(() => roundTrip(paramList(1), params), XdrError, 'more than can be sent')
})

t.test('what cannot be sent is refused with the place where it is', async (t) => {
  const refused = <In>(codec: Codec<unknown, In>, value: In, message: RegExp) =>
    t.throws(() => encode(codec, value), { name: 'XdrError', message })
  refused(int, 2 ** 31, /2147483648/)
  refused(int, 0.5, /0\.5/)
  refused(uint, -1, /-1/)
  refused(hyper, 2 ** 53, /exact/)
  refused(uhyper, -1, /-1/)
  refused(uhyper, 2n ** 64n, /18446744073709551616/)
  refused(string, 'a\0b', /NUL/)
  refused(string, '\ud800', /surrogate/)
  refused(text(3), 'ää', /at most 3/)
  refused(opaque(2), Buffer.alloc(3), /at most 2/)
  refused(list(int, 1), [1, 2], /at most 1/)
  refused(uuid, 'x', /UUID/)
  const nested = struct({ dom: struct({ name: string, uuid }) })
  refused(nested, { dom: { name: 'x', uuid: 'y' } }, /^dom: uuid: "y" is no UUID/)
  refused(nested as Codec<unknown, unknown>, { dom: {} }, /^dom: name is not given/)
  refused(nested as Codec<unknown, unknown>, { dom: { name: 7 } }, /^dom: name: /)
  t.throws(() => string.encode(new XdrWriter(16), 'x'.repeat(17)), { name: 'XdrError', message: /16 bytes/ })
})

t.test('what cannot have been sent is refused', async (t) => {
  const refused = (codec: Codec<unknown, never>, bytes: Buffer, message: RegExp) =>
    t.throws(() => decodeWhole(codec, bytes), { name: 'XdrError', message })
  refused(text(4), word(5), /5 of something/)
  refused(string, word(0xffffffff), /at most 4194304/)
  refused(string, Buffer.concat([word(4), Buffer.from('a\0b\0')]), /NUL/)
  refused(string, Buffer.concat([word(3), Buffer.from('abc')]), /wanted/)
  refused(list(int, 2), word(3), /at most 2/)
  refused(list(int, 2 ** 30), word(2 ** 30), /wanted/)
  refused(optional(int), word(2), /whether/)
  refused(count, word(0xffffffff), /wanted/)
  refused(count, Buffer.concat([word(0x200000), word(0)]), /more than a number holds/)
  t.equal(decodeWhole(string, Buffer.concat([word(2), Buffer.from([0xff, 65, 0, 0])])), '\ufffdA')
})
