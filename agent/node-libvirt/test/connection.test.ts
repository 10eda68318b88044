// The life of a connection: opened, refused, lost, made again with its subscriptions, closed; and streams over ones of their own.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { text as textOf } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { ReadAgain } from '../connection.ts'
import { type Connection, connectOpen, connectOpenReadOnly } from '../connection.ts'
import { LibvirtConnectionError, LibvirtError } from '../errors.ts'
import { encodeFrame, frameStatus, frameType } from '../frame.ts'
import { program } from '../procedure.ts'
import {
  type Answer,
  answer,
  errorPayload,
  errorTo,
  FakeLibvirtd,
  failure,
  lifecycleFrame,
  type Received,
} from './fake-libvirtd.ts'

const dom = { name: 'web', uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f' }
const reconnect = { leastMs: 5, mostMs: 40 }

interface Bench {
  readonly server: FakeLibvirtd
  open(options?: object): Promise<Connection>
}

/** Runs a test with a server, and ends all that it opened. */
const withServer = (name: string, body: (t: Test, bench: Bench) => Promise<void>) =>
  t.test(name, async (t) => {
    const server = await new FakeLibvirtd().start()
    const opened: Connection[] = []
    try {
      await body(t, {
        server,
        open: async (options = {}) => {
          const connection = await connectOpen('qemu:///system', {
            socketPath: server.path,
            reconnect,
            ...options,
          })
          opened.push(connection)
          return connection
        },
      })
    } finally {
      for (const connection of opened) connection.close()
      await server.stop()
    }
  })
const streamPacket = ({ frame }: Received, status: number, bytes: Uint8Array = new Uint8Array(0)): Buffer =>
  encodeFrame(
    {
      program: program.remote,
      version: 1,
      procedure: frame.procedure,
      type: frameType.stream,
      serial: frame.serial,
      status,
    },
    bytes,
  )

withServer('a connection opens in libvirt’s order', async (t, { server, open }) => {
  const connection = await open()
  t.same(
    server.received.map(({ name }) => name),
    ['authList', 'connectOpen', 'connectSupportsFeature'],
  )
  t.same(server.received[1]?.args, { name: 'qemu:///system', flags: 0 })
  t.ok(connection.connected)
  await connection.whenConnected()
  server.answers.connectGetHostname = answer('host')
  t.equal(await connection.connectGetHostname(), 'host')
  t.equal(await connection.call('connectGetHostname', {}), 'host')
  const reader = await connectOpenReadOnly('qemu:///system', { socketPath: server.path })
  t.same(server.received.findLast(({ name }) => name === 'connectOpen')?.args, {
    name: 'qemu:///system',
    flags: 1,
  })
  reader[Symbol.dispose]()
  t.notOk(reader.connected)
})

withServer('what keeps a connection from being opened is said', async (t, { server, open }) => {
  server.answers.authList = answer([1])
  t.match(await failure(open()), { reason: 'denied', message: /authentication 1/ })
  server.answers.authList = answer([2])
  server.answers.authPolkit = answer(false)
  t.match(await failure(open()), { reason: 'denied' })
  server.answers.authPolkit = answer(true)
  t.ok((await open()).connected, 'polkit agrees')
  server.answers.authList = answer([0])
  server.answers.connectOpen = ({ frame }) => errorTo(frame, 5, 'no connection driver available')
  t.ok(LibvirtError.is(await open().catch((error) => error), 'VIR_ERR_NO_CONNECT'))
  server.answers.connectOpen = () => null
  t.match(await failure(open({ connectDeadlineMs: 50 })), { reason: 'deadline', message: /within 50 ms/ })
  server.answers.connectOpen = ({ socket }) => {
    socket.destroy()
    return null
  }
  t.match(await failure(open()), { reason: 'lost' })
  await server.stop()
  t.match(await failure(open()), { reason: 'no-socket', sent: false })
  await sleep(20)
  t.equal(server.clients.size, 0, 'nothing is left behind')
})

withServer('lost and made again', async (t, { server, open }) => {
  const heard: unknown[] = []
  const connection = await open()
  server.answers['domain register'] = answer(7)
  server.answers.domainGetXMLDesc = () => null
  await connection.connectDomainEventRegisterAny('lifecycle', (event) => heard.push(event), { dom })
  server.send(lifecycleFrame(7, 'before', 2))
  const call = connection.domainGetXMLDesc({ dom }).catch((error) => error)
  await sleep(20)
  t.match(heard.splice(0), [{ dom: { name: 'before' }, event: 2 }])

  const lost = once(connection, 'disconnected')
  const again = once(connection, 'readAgain')
  server.answers['domain register'] = answer(9)
  server.drop()
  t.match(await call, { reason: 'lost', sent: true })
  t.match(await lost, [{ reason: 'lost' }])
  t.notOk(connection.connected)
  t.match(await failure(connection.domainGetXMLDesc({ dom })), {
    reason: 'lost',
    sent: false,
    message: /^domainGetXMLDesc: there is no connection/,
  })
  t.same(await again, [{ because: 'reconnected' }])
  t.ok(connection.connected)
  t.equal(server.count('domain register'), 2)
  t.match(server.received.findLast(({ name }) => name === 'domain register')?.args, {
    eventID: 0,
    object: { name: 'web' },
  })
  server.send(lifecycleFrame(7, 'of the old number', 2))
  server.send(lifecycleFrame(9, 'after', 5))
  await sleep(20)
  t.match(heard, [{ dom: { name: 'after' }, event: 5 }])
})

withServer('it is tried until it works, and said meanwhile why not', async (t, { server, open }) => {
  const connection = await open()
  const attempts = () => server.count('authList')
  server.answers.connectOpen = ({ frame }) => errorTo(frame, 38, 'not yet')
  server.drop()
  await once(connection, 'disconnected')
  await sleep(150)
  const tried = attempts()
  t.ok(tried > 3 && tried < 40, `${tried} attempts, further and further apart`)
  t.match(await failure(connection.connectGetHostname()), {
    reason: 'denied',
    message: /not yet/,
  })
  const waiting = connection.whenConnected({ deadlineMs: 5000 })
  t.match(await failure(connection.whenConnected({ deadlineMs: 10 })), { reason: 'deadline' })
  t.match(await failure(connection.whenConnected({ signal: AbortSignal.abort() })), {
    reason: 'aborted',
  })
  server.answers.connectOpen = answer(undefined)
  await waiting
  t.ok(connection.connected)
})

withServer('subscriptions that libvirt refuses when asked anew are told', async (t, { server, open }) => {
  const connection = await open()
  server.answers['network register'] = answer(1)
  await connection.connectNetworkEventRegisterAny('lifecycle', () => {})
  server.answers['network register'] = ({ frame }) => errorTo(frame, 3, 'not supported')
  const told = once(connection, 'subscriptionLost')
  server.drop()
  t.match(await told, ['network lifecycle', { codeName: 'VIR_ERR_NO_SUPPORT' }])
  await connection.whenConnected()
  server.drop()
  await once(connection, 'readAgain')
  t.equal(server.count('network register'), 2, 'and not asked for again')
})

withServer('registering and deregistering', async (t, { server, open }) => {
  const connection = await open()
  const heard: string[] = []
  server.answers['domain register'] = answer(1)
  server.answers['domain deregister'] = answer(undefined)
  server.answers['monitor register'] = ({ frame }) => errorTo(frame, 3, 'not supported')
  const subscription = await connection.connectDomainEventRegisterAny('lifecycle', ({ dom: { name } }) => {
    heard.push(name)
  })
  t.match(await failure(connection.qemuConnectDomainMonitorEventRegister(() => {}, { event: 'STOP' })), {
    codeName: 'VIR_ERR_NO_SUPPORT',
  })
  server.send(lifecycleFrame(1, 'one', 2))
  await sleep(20)
  await subscription.deregister()
  await subscription.deregister()
  server.send(lifecycleFrame(1, 'two', 2))
  await sleep(20)
  t.same(heard, ['one'])
  t.equal(server.count('domain deregister'), 1)
  t.same(server.received.findLast(({ name }) => name === 'domain deregister')?.args, { callbackID: 1 })
})

withServer('an event that cannot be read means reading again', async (t, { server, open }) => {
  const connection = await open()
  const told: ReadAgain[] = []
  connection.on('readAgain', (why) => told.push(why))
  server.answers['domain register'] = answer(1)
  await connection.connectDomainEventRegisterAny('lifecycle', () => {})
  const right = lifecycleFrame(1, 'x', 2)
  const cut = Buffer.from(right.subarray(0, right.length - 4))
  cut.writeUInt32BE(cut.length)
  server.send(cut)
  await sleep(20)
  t.match(told, [{ because: 'unreadable-event' }])
  t.ok(connection.connected)
})

withServer('a fault of a listener is not one of the connection', async (t, { server, open }) => {
  const connection = await open()
  server.answers['domain register'] = answer(1)
  server.answers.connectGetHostname = answer('host')
  await connection.connectDomainEventRegisterAny('lifecycle', () => {
    throw new Error('of the listener')
  })
  const { promise, resolve } = Promise.withResolvers<Error>()
  process.setUncaughtExceptionCaptureCallback((error) => resolve(error as Error))
  server.send(lifecycleFrame(1, 'x', 2))
  t.match(await promise, { message: 'of the listener' })
  process.setUncaughtExceptionCaptureCallback(null)
  t.equal(await connection.connectGetHostname(), 'host')
})

withServer('closing releases everyone and dials no more', async (t, { server, open }) => {
  const connection = await open()
  server.answers.connectGetHostname = () => null
  const calls = Array.from({ length: 6 }, () => connection.connectGetHostname().catch((error) => error))
  await sleep(20)
  connection.close()
  connection.close()
  for (const error of await Promise.all(calls)) t.match(error, { reason: 'closed' })
  t.match(await failure(connection.connectGetHostname()), { reason: 'closed' })
  t.match(await failure(connection.whenConnected()), { reason: 'closed' })
  await sleep(50)
  t.equal(server.clients.size, 0)
  t.equal(server.count('authList'), 1)

  const lost = await open()
  await server.stop()
  lost.close()
  t.match(await failure(lost.connectGetHostname()), { reason: 'closed' })

  const restarted = await new FakeLibvirtd().start()
  const single = await connectOpen('qemu:///system', { socketPath: restarted.path, reconnect: false })
  restarted.drop()
  await once(single, 'disconnected')
  await sleep(30)
  t.notOk(single.connected, 'without reconnect it stays lost')
  t.match(await failure(single.whenConnected()), { reason: 'lost' })
  await restarted.stop()
})

withServer('silence is noticed and overcome', async (t, { server, open }) => {
  const connection = await open({ keepalive: { intervalMs: 20, count: 2 } })
  await sleep(150)
  t.ok(connection.connected, 'while keepalive is answered')
  server.answers.keepalive = () => null
  const [error] = await once(connection, 'disconnected')
  t.match(error, { reason: 'silent' })
  delete server.answers.keepalive
  await connection.whenConnected({ deadlineMs: 2000 })
})

withServer(
  'deadlines: those of the connection by the pace of the call, or its own',
  async (t, { server, open }) => {
    const connection = await open({ deadlineMs: 30, slowDeadlineMs: 90 })
    server.answers.domainIsActive = () => null
    server.answers.domainCreate = () => null
    const took = async (call: Promise<unknown>) => {
      const startedMs = performance.now()
      t.match(await call.catch((error) => error), { reason: 'deadline', sent: true })
      return performance.now() - startedMs
    }
    t.ok((await took(connection.domainIsActive({ dom }))) < 85)
    t.ok((await took(connection.domainCreate({ dom }))) >= 85)
    t.ok((await took(connection.domainCreate({ dom }, { deadlineMs: 10 }))) < 85)
  },
)

withServer('a download ends when libvirt has agreed', async (t, { server, open }) => {
  const connection = await open()
  const parts = ['one ', 'two ', 'three']
  server.answers.storageVolDownload = (received) => {
    const reply = answer(undefined)(received) as Buffer
    return Buffer.concat([
      reply,
      ...parts.map((part) => streamPacket(received, frameStatus.continues, Buffer.from(part))),
      streamPacket(received, frameStatus.continues),
    ])
  }
  server.answers['storageVolDownload stream'] = (received) => {
    t.equal(received.frame.status, frameStatus.ok, 'this side asks to finish')
    return streamPacket(received, frameStatus.ok)
  }
  const vol = { pool: 'p', name: 'v', key: 'k' }
  const stream = await connection.storageVolDownload({ vol })
  t.equal(await textOf(stream), 'one two three')
  server.answers['storageVolDownload stream'] = (received) =>
    streamPacket(received, frameStatus.error, errorPayload(38, 'disk gone'))
  t.match(await failure(textOf(await connection.storageVolDownload({ vol }))), {
    name: 'LibvirtError',
    message: 'disk gone',
  })
  server.answers['storageVolDownload stream'] = ({ socket }) => {
    socket.destroy()
    return null
  }
  t.match(await failure(textOf(await connection.storageVolDownload({ vol }))), { reason: 'lost' })
  server.answers.storageVolDownload = ({ frame }) => errorTo(frame, 50, 'no such volume')
  t.match(await failure(connection.storageVolDownload({ vol })), { codeName: 'VIR_ERR_NO_STORAGE_VOL' })
  await sleep(20)
  t.equal(server.clients.size, 1, 'the connections of streams are gone')
})

withServer(
  'an upload is cut into packets and finishes when libvirt has agreed',
  async (t, { server, open }) => {
    const connection = await open()
    const taken: Buffer[] = []
    server.answers.storageVolUpload = answer(undefined)
    server.answers['storageVolUpload stream'] = (received) => {
      if (received.frame.status === frameStatus.ok) return streamPacket(received, frameStatus.ok)
      taken.push(received.frame.payload)
      return null
    }
    const vol = { pool: 'p', name: 'v', key: 'k' }
    const bytes = Buffer.alloc(1_000_000, 'abcdefg')
    await pipeline(
      Readable.from([bytes, Buffer.alloc(0), Buffer.from('end')]),
      await connection.storageVolUpload({ vol }),
    )
    t.ok(Buffer.concat(taken).equals(Buffer.concat([bytes, Buffer.from('end')])))
    t.ok(taken.every(({ length }) => length > 0 && length <= 262_120))
    server.answers['storageVolUpload stream'] = (received) =>
      received.frame.status === frameStatus.ok
        ? streamPacket(received, frameStatus.error, errorPayload(38, 'no space'))
        : null
    t.match(await failure(pipeline(Readable.from([bytes]), await connection.storageVolUpload({ vol }))), {
      message: 'no space',
    })
  },
)

withServer('a console both ways', async (t, { server, open }) => {
  const connection = await open()
  server.answers.domainOpenConsole = answer(undefined)
  const echo: Answer = (received) =>
    received.frame.status === frameStatus.ok
      ? streamPacket(received, frameStatus.ok)
      : streamPacket(received, frameStatus.continues, received.frame.payload)
  server.answers['domainOpenConsole stream'] = echo
  const console1 = await connection.domainOpenConsole({ dom })
  console1.write('login: ')
  t.equal(String((await once(console1, 'data'))[0]), 'login: ')
  console1.end()
  await finished(console1)

  const guestOff = await connection.domainOpenConsole({ dom })
  const opening = server.received.findLast(
    ({ name, frame }) => name === 'domainOpenConsole' && frame.type === 0,
  )
  opening?.socket.write(streamPacket(opening, frameStatus.continues))
  guestOff.resume()
  await finished(guestOff)

  const closed = await connection.domainOpenConsole({ dom })
  const error = once(closed, 'error')
  connection.close()
  t.match(await error, [{ reason: 'closed' }])
  t.ok(closed.destroyed)
})

withServer('a stream that is not read holds the other side up, and no call', async (t, { server, open }) => {
  const connection = await open()
  server.answers.connectGetHostname = answer('host')
  let written = 0
  server.answers.domainOpenConsole = (received) => {
    received.socket.write(answer(undefined)(received) as Buffer)
    const bytes = Buffer.alloc(200_000, 65)
    const pour = () => {
      while (written < 100_000_000) {
        written += bytes.length
        if (received.socket.write(streamPacket(received, frameStatus.continues, bytes))) continue
        received.socket.once('drain', pour)
        return
      }
    }
    pour()
    return null
  }
  const stream = await connection.domainOpenConsole({ dom })
  await sleep(200)
  t.ok(written < 5_000_000, `${written} bytes were taken`)
  t.equal(await connection.connectGetHostname(), 'host')
  let read = 0
  for await (const chunk of stream) {
    read += chunk.length
    if (read > 20_000_000) break
  }
  t.ok(read > 20_000_000, 'it goes on when it is read')
  t.ok(stream.destroyed)
})

withServer('what comes before the reply does not keep it away', async (t, { server, open }) => {
  const connection = await open()
  const early = Buffer.alloc(200_000, 65)
  server.answers.domainOpenConsole = (received) => {
    received.socket.write(streamPacket(received, frameStatus.continues, early))
    // Apart from it, or both would come at once.
    void sleep(50).then(() => received.socket.write(answer(undefined)(received) as Buffer))
    return null
  }
  const stream = await connection.domainOpenConsole({ dom }, { deadlineMs: 1000 })
  const { value } = await stream[Symbol.asyncIterator]().next()
  t.ok(early.equals(value), 'and is not lost')
})

withServer('a stream that ends without being asked is none of libvirt’s', async (t, { server, open }) => {
  const connection = await open()
  server.answers.domainScreenshot = (received) =>
    Buffer.concat([
      answer('image/x-portable-pixmap')(received) as Buffer,
      streamPacket(received, frameStatus.ok),
    ])
  const stream = await connection.domainScreenshot({ dom })
  t.equal(stream.reply, 'image/x-portable-pixmap')
  const error = await finished(stream).catch((cause: unknown) => cause)
  t.ok(error instanceof LibvirtConnectionError && error.reason === 'malformed')
})
