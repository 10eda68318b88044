// Frames: wherever the bytes are split they are cut alike, and a length that no frame has is an error at once.

import t from 'tap'
import { encodeFrame, type Frame, FrameCutter, FrameError, frameBytesAtMost, headerBytes } from '../frame.ts'

const header = { program: 0x20008086, version: 1, procedure: 14, type: 1, serial: 7, status: 0 }

const lengthOnly = (length: number): Buffer => {
  const bytes = Buffer.alloc(headerBytes)
  bytes.writeUInt32BE(length)
  return bytes
}

const cutAll = (chunks: readonly Buffer[]): readonly Frame[] => {
  const cutter = new FrameCutter()
  return chunks.flatMap((chunk) => [...cutter.cut(chunk)])
}

const frames = [0, 1, 4, 37].map((size, index) =>
  encodeFrame({ ...header, serial: index + 1, procedure: -index }, Buffer.alloc(size, index + 65)),
)
const whole = Buffer.concat(frames)
const expected = cutAll([whole])

t.test('a frame is its header and its payload', async (t) => {
  const [frame] = cutAll([encodeFrame(header, Buffer.from('text'))])
  t.match(frame, header)
  t.equal(frame?.payload.toString(), 'text')
  t.same(
    expected.map(({ payload }) => payload.length),
    [0, 1, 4, 37],
  )
  t.same(
    expected.map(({ procedure }) => procedure),
    [-0, -1, -2, -3].map((one) => one + 0),
  )
})

t.test('every pair of split points', async (t) => {
  let tried = 0
  for (let first = 0; first <= whole.length; first++)
    for (let second = first; second <= whole.length; second++) {
      const parts = [whole.subarray(0, first), whole.subarray(first, second), whole.subarray(second)]
      const found = cutAll(parts)
      tried += 1
      const same =
        found.length === expected.length &&
        found.every(
          ({ payload, serial }, index) =>
            serial === expected[index]?.serial && payload.equals(expected[index].payload),
        )
      if (!same) t.fail(`split at ${first} and ${second}`)
    }
  t.equal(tried, ((whole.length + 1) * (whole.length + 2)) / 2)
  t.equal(cutAll([...whole].map((byte) => Buffer.from([byte]))).length, frames.length, 'byte by byte')
})

t.test('every truncation yields the frames before it and no more', async (t) => {
  const ends = frames.map((_, index) => Buffer.concat(frames.slice(0, index + 1)).length)
  for (let end = 0; end < whole.length; end++) {
    const found = cutAll([whole.subarray(0, end)]).length
    if (found !== ends.filter((one) => one <= end).length) t.fail(`${found} frames of ${end} bytes`)
  }
  t.ok(whole.length > 100)
})

t.test('a length that no frame has is refused before anything more is read', async (t) => {
  for (const length of [0, 1, 27, frameBytesAtMost + 1, 0x7fffffff, 0xffffffff])
    t.throws(() => cutAll([lengthOnly(length).subarray(0, 4)]), FrameError, `${length}`)
  t.same(cutAll([lengthOnly(frameBytesAtMost)]), [], 'the longest is waited for')
  t.equal(cutAll([lengthOnly(headerBytes)]).length, 1)
})

t.test('the frames before a wrong length are had', async (t) => {
  const cutter = new FrameCutter()
  const found: Frame[] = []
  t.throws(() => {
    for (const frame of cutter.cut(Buffer.concat([whole, lengthOnly(5)]))) found.push(frame)
  }, FrameError)
  t.equal(found.length, frames.length)
})

t.test('the longest frame in small chunks is put together without copying it each time', async (t) => {
  const chunk = Buffer.alloc(64 * 1024)
  const first = Buffer.concat([lengthOnly(frameBytesAtMost), chunk])
  const cutter = new FrameCutter()
  let left = frameBytesAtMost - first.length
  let found = [...cutter.cut(first)].length
  const startedMs = performance.now()
  for (; left > 0; left -= chunk.length) found += [...cutter.cut(chunk.subarray(0, left))].length
  t.equal(found, 1)
  t.ok(performance.now() - startedMs < 5000, 'in far less than copying 512 times would take')
})
