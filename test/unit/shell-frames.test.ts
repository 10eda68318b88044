// What is said in a session of a shell: taken apart as it was put together, however it is cut, and nothing else is taken.

import { randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { type Frame, FrameReader, frameBytes, sizeIn, termIn } from '../../agent/api/shell-frames.ts'
import { HostError } from '../../provisioning/problem.ts'

const chance = (): Frame => {
  switch (randomInt(4)) {
    case 0:
      return { kind: 'size', columns: randomInt(1, 0x10000), rows: randomInt(1, 0x10000) }
    case 1:
      return { kind: 'beat' }
    case 2:
      return { kind: 'end', exit: randomInt(256) }
    default:
      return { kind: 'bytes', bytes: randomBytes(randomInt(1, randomInt(2) === 0 ? 100 : 70_000)) }
  }
}

/** Frames with their bytes put together, as they were before they were cut. */
function joined(frames: readonly Frame[]): readonly unknown[] {
  const all: unknown[] = []
  for (const frame of frames) {
    const last = all.at(-1)
    if (frame.kind !== 'bytes') all.push(frame)
    else if (typeof last === 'string') all[all.length - 1] = last + frame.bytes.toString('hex')
    else all.push(frame.bytes.toString('hex'))
  }
  return all
}

t.test('what is put together is taken apart, however it was cut', async (t) => {
  for (let round = 0; round < 200; round += 1) {
    const said = Array.from({ length: randomInt(1, 6) }, chance)
    const bytes = Buffer.concat(said.map(frameBytes))
    const reader = new FrameReader()
    const heard: Frame[] = []
    const most = randomInt(2) === 0 ? 5 : 40_000
    for (let at = 0; at < bytes.length; ) {
      const end = at + randomInt(1, most)
      heard.push(...reader.read(bytes.subarray(at, end)))
      at = end
    }
    t.strictSame(joined(heard), joined(said))
  }
})

t.test('anything else is refused, and nothing is kept but less than one frame', async (t) => {
  for (const wrong of [
    '04',
    '040000',
    '010000',
    '0100020101',
    '01000400000018',
    '01000400500000',
    '0200010a',
  ])
    t.throws(() => new FrameReader().read(Buffer.from(wrong.padEnd(6, '0'), 'hex')), {
      code: 'request.invalid',
    })
  t.throws(() => new FrameReader().read(Buffer.from('030000', 'hex')), { code: 'request.invalid' })
  let refused = 0
  for (let round = 0; round < 20_000; round += 1) {
    const reader = new FrameReader()
    try {
      for (let piece = 0; piece < 4; piece += 1)
        for (const frame of reader.read(randomBytes(randomInt(1, 64))))
          t.ok(['bytes', 'size', 'beat', 'end'].includes(frame.kind))
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      refused += 1
    }
  }
  t.ok(refused > 10_000, `${refused} of 20000`)
})

t.test('sizes and kinds of terminals are what they must be', async (t) => {
  t.strictSame(sizeIn('132x43'), { columns: 132, rows: 43 })
  t.equal(termIn('xterm-256color'), 'xterm-256color')
  for (const text of ['', '80', '80x', '0x24', '80x0', '80x24x1', '-1x24', '10000x1', '80x24 ', '８0x24'])
    t.throws(() => sizeIn(text), { code: 'request.invalid' })
  for (const text of ['', '-x', 'a b', 'a;b', '$(x)', '../x', 'x\n', 'é', 'x'.repeat(65)])
    t.throws(() => termIn(text), { code: 'request.invalid' })
})
