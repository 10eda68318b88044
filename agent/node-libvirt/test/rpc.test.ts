// Calls over one connection, against a server that is right, wrong, silent, gone or mad.

import { Duplex, duplexPair } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { domainCalls, domainStreams } from '../calls-domain.ts'
import { hostCalls } from '../calls-host.ts'
import { LibvirtConnectionError, LibvirtError } from '../errors.ts'
import { encodeFrame, type Frame, FrameCutter, frameBytesAtMost, frameStatus, frameType } from '../frame.ts'
import { program } from '../procedure.ts'
import { Rpc, type StreamListener } from '../rpc.ts'
import { string } from '../shapes.ts'
import { int } from '../xdr.ts'
import { chance, fuzzCount } from './chance.ts'
import {
  encode,
  errorPayload,
  errorTo,
  failure,
  keepaliveFrame,
  lifecycleFrame,
  replyTo,
} from './fake-libvirtd.ts'

const { connectGetHostname } = hostCalls
const { domainGetXMLDesc, domainGetState } = domainCalls
const dom = { name: 'a', uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f' }
const options = { deadlineMs: 5000 }

/** A connection whose other end is in the test's hand. */
class Bench {
  readonly far: Duplex
  readonly rpc: Rpc
  readonly received: Frame[] = []
  readonly messages: Frame[] = []
  readonly ends: LibvirtConnectionError[] = []
  onFrame: (frame: Frame) => void = () => {}

  constructor() {
    const [near, far] = duplexPair()
    this.far = far
    this.rpc = new Rpc(near, {
      onMessage: (frame) => this.messages.push(frame),
      onEnd: (error) => this.ends.push(error),
    })
    const cutter = new FrameCutter()
    far.on('error', () => far.destroy())
    far.on('data', (chunk: Buffer) => {
      for (const frame of cutter.cut(chunk)) {
        this.received.push(frame)
        this.onFrame(frame)
      }
    })
  }

  hostname(more: object = {}): Promise<string> {
    return this.rpc.call('connectGetHostname', connectGetHostname, {}, { ...options, ...more })
  }

  xml(more: object = {}): Promise<string> {
    return this.rpc.call('domainGetXMLDesc', domainGetXMLDesc, { dom }, { ...options, ...more })
  }
}

const text = (value: string): Buffer => encode(string, value)

t.test('replies find their calls in any order', async (t) => {
  const bench = new Bench()
  const both = Promise.all([bench.hostname(), bench.xml()])
  await sleep(10)
  const [first, second] = bench.received as [Frame, Frame]
  bench.far.write(replyTo(second, text('<domain/>')))
  bench.far.write(replyTo(first, text('host')))
  t.same(await both, ['host', '<domain/>'])
  t.equal(bench.rpc.underWay, 0)
  bench.rpc.close()
})

t.test('an error of libvirt has its numbers and their names', async (t) => {
  const bench = new Bench()
  bench.onFrame = (frame) => bench.far.write(errorTo(frame, 42, 'Domain not found'))
  const error = await failure(bench.xml())
  t.ok(LibvirtError.is(error, 'VIR_ERR_NO_DOMAIN'))
  t.match(error, {
    name: 'LibvirtError',
    code: 42,
    codeName: 'VIR_ERR_NO_DOMAIN',
    domain: 10,
    domainName: 'VIR_FROM_QEMU',
    level: 2,
    message: 'Domain not found',
    procedure: 'domainGetXMLDesc',
  })
  bench.onFrame = (frame) => bench.far.write(errorTo(frame, 4711, 'new'))
  t.match(await failure(bench.xml()), { codeName: 'VIR_ERR_4711' })
  bench.rpc.close()
})

t.test('four calls are under way and no more, a given up one among them', async (t) => {
  const bench = new Bench()
  const calls = Array.from({ length: 10 }, () => bench.hostname({ deadlineMs: 60 }))
  const errors = await Promise.all(calls.map(failure))
  t.equal(bench.received.length, 4, 'the places of those that were given up are not given away')
  t.equal(bench.rpc.underWay, 4)
  t.same(
    errors.map((error) => error instanceof LibvirtConnectionError && error.sent),
    [...Array(4).fill(true), ...Array(6).fill(false)],
  )
  t.match(errors[9], { reason: 'deadline', message: /waiting for its turn behind 4 others/ })
  bench.onFrame = (frame) => bench.far.write(replyTo(frame, text('late')))
  for (const frame of [...bench.received]) bench.far.write(replyTo(frame, text('late')))
  t.equal(await bench.hostname(), 'late', 'late replies free the places')
  t.equal(bench.received.length, 5)
  bench.rpc.close()
})

t.test('calls that wait take turns by lane', async (t) => {
  const bench = new Bench()
  const order: string[] = []
  const ask = (lane: string, label: string) =>
    bench.hostname({ lane }).then(() => {
      order.push(label)
    })
  const all = [
    ...Array.from({ length: 4 }, (_, index) => ask('first', `first ${index}`)),
    ...Array.from({ length: 20 }, (_, index) => ask('crowd', `crowd ${index}`)),
    ask('single', 'single'),
  ]
  await sleep(10)
  bench.onFrame = (frame) => bench.far.write(replyTo(frame, text('')))
  for (const frame of [...bench.received]) bench.far.write(replyTo(frame, text('')))
  await Promise.all(all)
  t.ok(order.indexOf('single') <= 6, `it was number ${order.indexOf('single')}`)
  t.same(
    order.filter((label) => label.startsWith('crowd')),
    Array.from({ length: 20 }, (_, index) => `crowd ${index}`),
    'in order within a lane',
  )
  bench.rpc.close()
})

t.test('a signal calls off what waits and what was sent', async (t) => {
  const bench = new Bench()
  const stop = new AbortController()
  const sent = Array.from({ length: 4 }, () => bench.hostname({ signal: stop.signal }))
  const queued = bench.hostname({ signal: stop.signal })
  const other = bench.xml()
  const reason = new Error('enough')
  setTimeout(() => stop.abort(reason), 20)
  for (const call of sent) t.match(await failure(call), { reason: 'aborted', sent: true, cause: reason })
  t.match(await failure(queued), { reason: 'aborted', sent: false })
  t.match(await failure(bench.hostname({ signal: stop.signal })), { reason: 'aborted', sent: false })
  bench.onFrame = (frame) => bench.far.write(replyTo(frame, text('<domain/>')))
  for (const frame of [...bench.received]) bench.far.write(replyTo(frame, text('')))
  t.equal(await other, '<domain/>', 'others go on')
  bench.rpc.close()
})

t.test('arguments that cannot be sent fail their call alone', async (t) => {
  const bench = new Bench()
  bench.onFrame = (frame) => bench.far.write(replyTo(frame, text('host')))
  const call = bench.rpc.call(
    'domainGetXMLDesc',
    domainGetXMLDesc,
    { dom: { ...dom, name: 'a\0b' } },
    options,
  )
  t.match(await failure(call), { reason: 'invalid', sent: false, message: /dom: name: .*NUL/ })
  t.equal(await bench.hostname(), 'host')
  bench.rpc.close()
})

t.test('a crowd beyond all measure is refused', async (t) => {
  const bench = new Bench()
  const calls = Array.from({ length: 10_010 }, () => bench.hostname().catch((error) => error.reason))
  const reasons = calls.slice(-6).map((call) => call)
  t.same(new Set(await Promise.all(reasons)), new Set(['overloaded']))
  bench.rpc.close()
  t.equal((await Promise.all(calls)).filter((reason) => reason === 'closed').length, 10_004)
})

t.test('the end releases everyone, with why and whether it was sent', async (t) => {
  for (const [how, reason] of [
    [(bench: Bench) => bench.far.end(), 'lost'],
    [(bench: Bench) => bench.far.destroy(), 'lost'],
    [(bench: Bench) => bench.rpc.close(), 'closed'],
  ] as const) {
    const bench = new Bench()
    const calls = Array.from({ length: 6 }, () => bench.hostname())
    setTimeout(() => how(bench), 10)
    const errors = await Promise.all(calls.map(failure))
    t.same(
      errors.map((error) => error instanceof LibvirtConnectionError && [error.reason, error.sent]),
      [...Array(4).fill([reason, true]), ...Array(2).fill([reason, false])],
    )
    t.equal(bench.ends.length, 1)
    t.match(await failure(bench.hostname()), { reason, sent: false }, 'a later call fails at once')
  }
})

t.test('keepalive is answered, asked, and its silence is death', async (t) => {
  const bench = new Bench()
  bench.far.write(keepaliveFrame(1))
  await sleep(10)
  t.match(bench.received[0], { program: program.keepalive, procedure: 2, type: frameType.message })
  bench.onFrame = (frame) => {
    if (frame.procedure === 1) bench.far.write(keepaliveFrame(2))
  }
  bench.rpc.startKeepalive({ intervalMs: 20, count: 3 })
  await sleep(200)
  t.equal(bench.rpc.ended, null)
  t.ok(bench.received.filter(({ procedure }) => procedure === 1).length >= 3)
  bench.onFrame = () => {}
  const startedMs = performance.now()
  t.match(await failure(bench.xml()), { reason: 'silent', sent: true })
  t.ok(performance.now() - startedMs < 2000)
})

t.test('what the other side does not read does not pile up', async (t) => {
  const written: number[] = []
  const socket = new Duplex({ read() {}, write() {} })
  const rpc = new Rpc(socket, { onMessage: () => {}, onEnd: () => {} })
  const many = Buffer.concat(Array.from({ length: 1000 }, () => keepaliveFrame(1)))
  for (let round = 0; round < 200; round++) {
    socket.emit('data', many)
    written.push(socket.writableLength)
  }
  t.ok(Math.max(...written) < 1_100_000, `${Math.max(...written)} bytes wait`)
  rpc.close()
})

t.test('what is not the protocol ends the connection, with everyone told', async (t) => {
  const right = { program: program.remote, version: 1, procedure: 59, type: 1, serial: 1, status: 0 }
  const wrong: Readonly<Record<string, Buffer>> = {
    'an unknown program': encodeFrame({ ...right, program: 0x20008085 }),
    'another version': encodeFrame({ ...right, version: 2 }),
    'a reply to no call': encodeFrame({ ...right, serial: 99 }),
    'a reply to another call': encodeFrame({ ...right, procedure: 60 }),
    'a reply of another program': encodeFrame({ ...right, program: program.qemu }),
    'an unknown type': encodeFrame({ ...right, type: 9 }),
    'a call': encodeFrame({ ...right, type: 0 }),
    'an unknown outcome': encodeFrame({ ...right, status: 9 }),
    'a packet of no stream': encodeFrame({ ...right, type: frameType.stream, status: frameStatus.continues }),
    'a hole': encodeFrame({ ...right, type: frameType.hole, status: frameStatus.continues }),
    'a keepalive call': encodeFrame({ ...right, program: program.keepalive, type: 0 }),
    'a message that failed': encodeFrame({ ...right, type: frameType.message, status: 1 }),
    'a length of nothing': Buffer.alloc(4),
    'an oversized frame': (() => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(frameBytesAtMost + 1)
      return bytes
    })(),
    text: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
  }
  for (const [what, bytes] of Object.entries(wrong)) {
    const bench = new Bench()
    const call = failure(bench.hostname())
    bench.far.write(bytes)
    t.match(await call, { reason: 'malformed', sent: true }, what)
    t.equal(bench.ends.length, 1)
  }
})

t.test('a reply that cannot be read fails its call alone', async (t) => {
  const bench = new Bench()
  const payloads = [Buffer.alloc(2), Buffer.alloc(8), Buffer.concat([text('x'), Buffer.alloc(4)])]
  bench.onFrame = (frame) => {
    const payload = payloads.shift()
    bench.far.write(replyTo(frame, payload ?? text('host')))
  }
  for (let index = 0; index < 3; index++)
    t.match(await failure(bench.hostname()), {
      reason: 'malformed',
      sent: true,
      message: /reply cannot be read/,
    })
  bench.onFrame = (frame) => {
    const { program: of, procedure, serial } = frame
    const header = { program: of, version: 1, procedure, serial, type: 1, status: frameStatus.error }
    bench.far.write(encodeFrame(header, errorPayload(1, 'x').subarray(4)))
  }
  t.match(await failure(bench.hostname()), { reason: 'malformed' }, 'an error that cannot be read')
  t.equal(bench.rpc.ended, null)
  bench.rpc.close()
})

/** All that a server says in one session, for four calls whose serial numbers are 1 to 4. */
const session = (): readonly Buffer[] => {
  const head = (serial: number, procedure: number) => ({
    program: program.remote,
    version: 1,
    procedure,
    serial,
    type: 1,
    status: 0,
  })
  return [
    replyTo(head(1, 59), text('host')),
    lifecycleFrame(3, 'web', 4),
    keepaliveFrame(1),
    replyTo(head(2, 14), text('<domain/>')),
    errorTo(head(3, 14), 42, 'no such domain'),
    keepaliveFrame(2),
    replyTo(head(4, 212), Buffer.concat([encode(int, 1), encode(int, 0)])),
  ]
}

/** Makes the four calls, has the other side say `chunks` and go, and answers what became of the calls. */
async function hear(chunks: readonly Buffer[]): Promise<{ outcomes: unknown[]; bench: Bench }> {
  const bench = new Bench()
  const calls = [
    bench.hostname(),
    bench.xml(),
    bench.xml(),
    bench.rpc.call('domainGetState', domainGetState, { dom }, options),
  ]
  const settled = Promise.all(calls.map((call) => call.catch((error: unknown) => error)))
  for (const chunk of chunks) if (chunk.length > 0) bench.far.write(chunk)
  bench.far.end()
  return { outcomes: await settled, bench }
}

t.test('a session split at every point', async (t) => {
  const whole = Buffer.concat(session())
  for (let at = 0; at <= whole.length; at++) {
    const { outcomes, bench } = await hear([whole.subarray(0, at), whole.subarray(at)])
    const [host, xml, error, facts] = outcomes
    const right =
      host === 'host' &&
      xml === '<domain/>' &&
      error instanceof LibvirtError &&
      error.code === 42 &&
      (facts as { state: number }).state === 1 &&
      bench.messages.length === 1
    if (!right) t.same(outcomes, [], `split at ${at}`)
  }
  t.ok(whole.length > 300)
})

t.test('a session cut off at every point', async (t) => {
  const whole = Buffer.concat(session())
  for (let at = 0; at < whole.length; at++) {
    const { outcomes, bench } = await hear([whole.subarray(0, at)])
    const lost = outcomes.filter(
      (one) => one instanceof LibvirtConnectionError && one.reason === 'lost' && one.sent,
    )
    const typed = outcomes.filter((one) => one instanceof LibvirtError || !(one instanceof Error))
    if (lost.length + typed.length !== 4 || lost.length === 0 || bench.ends.length !== 1)
      t.same(outcomes, [], `cut off at ${at}`)
  }
  t.ok(whole.length > 300)
})

t.test(
  'fuzzed frames: every call is settled with a value or a typed error',
  { timeout: 600_000 },
  async (t) => {
    const dice = chance(20_260_102)
    const frames = session()
    const tally = { value: 0, libvirt: 0, connection: 0 }
    const damage: readonly ((bytes: Buffer) => Buffer)[] = [
      (bytes) => {
        const copy = Buffer.from(bytes)
        copy[dice.below(copy.length)] = dice.below(256)
        return copy
      },
      (bytes) => {
        const copy = Buffer.from(bytes)
        copy.writeUInt32BE(
          dice.of([0, 1, 2, 3, 6, 9, 28, 0xffffffff]),
          4 * dice.below(Math.floor(copy.length / 4)),
        )
        return copy
      },
      (bytes) => bytes.subarray(0, dice.below(bytes.length)),
      (bytes) => Buffer.concat([bytes, bytes]),
      (bytes) => Buffer.concat([bytes, Buffer.from([dice.below(256)])]),
      (bytes) => {
        const copy = Buffer.from(bytes.subarray(0, 28 + dice.below(bytes.length)))
        if (copy.length >= 4) copy.writeUInt32BE(copy.length)
        return copy
      },
    ]
    let sent = 0
    while (sent < fuzzCount) {
      const damaged = frames.map((frame) => (dice.below(7) === 0 ? dice.of(damage)(frame) : frame))
      if (dice.below(4) === 0) damaged.sort(() => dice.below(3) - 1)
      const whole = Buffer.concat(damaged)
      const at = dice.below(whole.length + 1)
      const { outcomes, bench } = await hear([whole.subarray(0, at), whole.subarray(at)])
      sent += frames.length
      for (const one of outcomes)
        if (one instanceof LibvirtError) tally.libvirt += 1
        else if (one instanceof LibvirtConnectionError) tally.connection += 1
        else if (one instanceof Error) throw one
        else tally.value += 1
      if (bench.ends.length !== 1) t.fail('it did not end')
    }
    t.ok(
      Object.values(tally).every((count) => count > sent / 50),
      `${sent} frames: ${JSON.stringify(tally)}`,
    )
  },
)

t.test('a stream by hand: bytes, the end, an error, and bytes that come with the reply', async (t) => {
  const bench = new Bench()
  const heard: string[] = []
  const listener: StreamListener = {
    onOpen: (serial) => heard.push(`open ${serial}`),
    onBytes: (bytes) => {
      heard.push(bytes.toString())
      return true
    },
    onFinish: () => heard.push('finish'),
    onError: (error) => heard.push(`${error.name}: ${error.message}`),
  }
  const packet = (serial: number, status: number, bytes: Buffer = Buffer.alloc(0)) =>
    encodeFrame({ program: program.remote, version: 1, procedure: 201, type: 3, serial, status }, bytes)
  bench.onFrame = (frame) =>
    bench.far.write(
      Buffer.concat([replyTo(frame, Buffer.alloc(0)), packet(frame.serial, 2, Buffer.from('at once'))]),
    )
  await bench.rpc.call('domainOpenConsole', domainStreams.domainOpenConsole, { dom }, options, listener)
  bench.far.write(packet(1, frameStatus.ok))
  await sleep(10)
  t.same(heard.splice(0), ['open 1', 'at once', 'finish'])
  await bench.rpc.call('domainOpenConsole', domainStreams.domainOpenConsole, { dom }, options, listener)
  bench.far.write(packet(2, frameStatus.error, errorPayload(38, 'no more')))
  await sleep(10)
  t.same(heard.splice(0), ['open 2', 'at once', 'LibvirtError: no more'])
  await bench.rpc.call('domainOpenConsole', domainStreams.domainOpenConsole, { dom }, options, listener)
  t.same(heard.splice(0), ['open 3', 'at once'])
  bench.onFrame = (frame) => {
    const early = packet(frame.serial, 2, Buffer.from('before the reply'))
    bench.far.write(Buffer.concat([early, replyTo(frame, Buffer.alloc(0))]))
  }
  await bench.rpc.call('domainOpenConsole', domainStreams.domainOpenConsole, { dom }, options, listener)
  t.same(heard.splice(0), ['open 4', 'before the reply'])
  bench.far.destroy()
  await sleep(10)
  t.match(heard[0], /^LibvirtConnectionError: libvirt closed/)
  t.equal(heard.length, 2, 'both streams are told')
})
