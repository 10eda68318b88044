// The parts of sampling: what the kernel and libvirt print, how fast counters rise, and who is left alone for how long.

import t from 'tap'
import { counted } from '../../agent/report/counted.ts'
import { devicesOf, disksOf, isWhole, memoryOf } from '../../agent/report/domain-stats.ts'
import { fromOtherEnd, parseNetDev } from '../../agent/report/net-dev.ts'
import { readNow } from '../../agent/report/proc-files.ts'
import { pageBytesOf, parseIo, parseStat, readProcess } from '../../agent/report/process.ts'
import { SkipList } from '../../agent/report/skip-list.ts'
import { HostError } from '../../provisioning/problem.ts'

/** A stat with the fields that are read: the third of proc(5) and those after it. */
const statOf = (name: string, fields: Readonly<Record<number, number | string>>): string =>
  `4711 (${name}) ${Array.from({ length: 50 }, (_, at) => fields[at + 3] ?? 0).join(' ')}\n`

const whole = statOf('qemu-system-x86', {
  3: 'S',
  14: 1400,
  15: 900,
  20: 6,
  22: 1743543,
  23: 1559523328,
  24: 9432,
  43: 700,
})

t.test('/proc/PID/stat', async (t) => {
  const said = parseStat('/proc/4711/stat', whole)
  t.same(said, {
    letter: 'S',
    threads: 6,
    startTicks: 1743543,
    virtualBytes: 1559523328,
    residentPages: 9432,
    cpuMs: 23_000,
    guestCpuMs: 7000,
  })
  for (const name of ['a b', ') S 1 (', 'x) Z', '\n'])
    t.same(parseStat('', statOf(name, { 3: 'R', 14: 1 })).letter, 'R', JSON.stringify(name))
  for (const bad of [
    '',
    '4711 (qemu)',
    '4711 (qemu) S 1 2',
    whole.replace('1400', 'x'),
    whole.replace('1400', '-1'),
  ])
    t.throws(() => parseStat('/proc/4711/stat', bad), { code: 'host.unexpected-answer' }, JSON.stringify(bad))
})

t.test('how large a page is', async (t) => {
  const of = (virtualBytes: number, statm: string | null) =>
    pageBytesOf((path) =>
      path === '/proc/self/statm' ? statm : statOf('node', { 3: 'R', 23: virtualBytes }),
    )
  t.equal(of(1559523328, '380743 9511 5558 1431 0 287662 0\n'), 4096)
  t.equal(of(65_536_000, '1000 10 1 0 0 0 0\n'), 65_536)
  t.equal(of((1000 + 300) * 4096, '1000 10 1 0 0 0 0\n'), 4096, 'it grew in between')
  for (const bad of [null, '', '0 0 0 0 0 0 0\n'])
    t.throws(() => of(4096, bad), { code: 'host.unexpected-answer' }, String(bad))
})

const io =
  'rchar: 9\nwchar: 8\nsyscr: 7\nsyscw: 6\nread_bytes: 341504\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n'

t.test('/proc/PID/io', async (t) => {
  t.same(parseIo('', io), { readBytes: 341_504, writtenBytes: 4096 })
  t.throws(() => parseIo('', io.replace('read_bytes', 'red_bytes')), { code: 'host.unexpected-answer' })
})

t.test('a process', async (t) => {
  const files = (changes: Readonly<Record<string, string | null>> = {}) => {
    const texts: Readonly<Record<string, string | null>> = {
      stat: whole,
      io,
      ...changes,
    }
    return (path: string): string | null => {
      const text = texts[path.replace('/proc/4711/', '')] ?? null
      if (text === 'denied') throw new HostError('host.denied', path)
      return text
    }
  }
  const of = (changes?: Readonly<Record<string, string | null>>, withIo = true) =>
    readProcess(4711, { read: files(changes), pageBytes: 4096, withIo })
  t.same(of(), {
    pid: 4711,
    startTicks: 1743543,
    letter: 'S',
    threads: 6,
    residentBytes: 9432 * 4096,
    counters: { cpuMs: 23_000, guestCpuMs: 7000, readBytes: 341_504, writtenBytes: 4096 },
  })
  const unknown = { cpuMs: 23_000, guestCpuMs: 7000, readBytes: null, writtenBytes: null }
  t.same(of({ io: 'denied' })?.counters, unknown, 'who may not know is not told 0')
  t.same(of({}, false)?.counters, unknown)
  t.equal(of({ stat: null }), null)
  t.equal(of({ stat: statOf('qemu', { 3: 'Z' }) }), null, 'it has ended and waits to be buried')
  t.throws(() => of({ io: 'nonsense' }), { code: 'host.unexpected-answer' })
})

t.test('files of the kernel', async (t) => {
  t.match(readNow('/proc/self/stat'), /^\d+ \(/)
  const own = readProcess(process.pid, { read: readNow, pageBytes: pageBytesOf(readNow), withIo: true })
  t.ok(Math.abs((own?.residentBytes ?? 0) / process.memoryUsage.rss() - 1) < 0.2)
  t.equal(readNow('/proc/nobody/stat'), null)
  t.throws(() => readNow('/proc'), { code: 'host.unreadable' })
  t.ok(parseNetDev(readNow('/proc/net/dev') ?? '').has('lo'))
})

const netDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       5       4    0    0    0     0          0         0        5       4    0    0    0     0       0          0
 vnet0:      10      11   12   13   14    15         16        17       90       1    2    3    4     5       6          7
old-one:10 11 12 13 14 15 16 17 90 1 2 3 4 5 6 7
`

t.test('/proc/net/dev', async (t) => {
  const devices = parseNetDev(netDev)
  t.same([...devices.keys()], ['lo', 'vnet0', 'old-one'])
  const seen = {
    receivedBytes: 10,
    receivedPackets: 11,
    receiveErrors: 12,
    receiveDrops: 13,
    sentBytes: 90,
    sentPackets: 1,
    sendErrors: 2,
    sendDrops: 3,
  }
  t.same(devices.get('vnet0'), seen)
  t.same(devices.get('old-one'), seen, 'older kernels put no blank after the colon')
  t.same(fromOtherEnd(fromOtherEnd(seen)), seen)
  t.match(fromOtherEnd(seen), { receivedBytes: 90, sentBytes: 10, receiveDrops: 3, sendErrors: 12 })
  for (const bad of [
    '',
    'Inter-|\n face |bytes\n',
    netDev.replace('vnet0:', 'vnet0'),
    netDev.replace('90', 'x'),
  ])
    t.throws(() => parseNetDev(bad), { code: 'host.unexpected-answer' }, bad.slice(0, 20))
})

t.test('what libvirt tells of a VM', async (t) => {
  const params = {
    'state.state': 1,
    'balloon.current': 32768,
    'balloon.maximum': 65536,
    'balloon.last-update': 0,
    'balloon.rss': 37728,
    'net.count': 2,
    'net.0.name': 'vnet0',
    'block.count': 2,
    'block.0.name': 'vda',
    'block.0.path': '/images/a',
    'block.0.rd.reqs': 5,
    'block.0.rd.bytes': 2n ** 60n,
    'block.0.rd.times': 2_500_000,
    'block.0.capacity': 1048576,
    'block.1.name': 'hdc',
    'block.1.rd.reqs': 0,
  }
  t.ok(isWhole(params))
  const { 'balloon.rss': _, ...unasked } = params
  t.notOk(isWhole(unasked), 'the balloon was not asked')
  t.notOk(isWhole({ 'block.count': 1, 'block.0.name': 'vda' }), 'no disk was asked')
  t.ok(isWhole({ 'block.count': 0 }), 'there is nothing to ask')
  t.ok(isWhole({ 'block.count': 1, 'block.0.rd.reqs': 0 }))
  t.same(memoryOf(params), {
    currentBytes: 32768 * 1024,
    maximumBytes: 65536 * 1024,
    toldMs: null,
    unusedBytes: null,
    usableBytes: null,
    swapInBytes: null,
    swapOutBytes: null,
  })
  t.match(memoryOf({ ...params, 'balloon.last-update': 1_700_000_000, 'balloon.unused': 4 }), {
    toldMs: 1_700_000_000_000,
    unusedBytes: 4096,
  })
  t.equal(memoryOf({ 'block.count': 0 }), null)
  const [first, second] = disksOf(params)
  t.match(first, { target: 'vda', source: '/images/a', capacityBytes: 1048576, allocationBytes: null })
  t.match(first?.counters, { reads: 5, readBytes: 2 ** 60, readMs: 2.5, writes: null })
  t.match(second, { target: 'hdc', source: null, capacityBytes: null })
  t.same(devicesOf(params), ['vnet0'], 'a NIC without a device is none of the host')
  t.same(devicesOf({ 'net.count': 0 }), [])
  t.equal(devicesOf({}), null, 'not asked for is not none')
})

t.test('how fast counters rise', async (t) => {
  const at = (tickMs: number, total: { a: number; b: number | null }, life = '1') => ({ total, life, tickMs })
  const rate = (before: Parameters<typeof at>, now: Parameters<typeof at>) =>
    counted(at(...before), at(...now)).perSecond
  t.equal(counted(null, at(0, { a: 1, b: 2 })).perSecond, null, 'there was nothing before')
  t.same(rate([1000, { a: 10, b: 5 }], [3000, { a: 30, b: 5 }]), { a: 10, b: 0 })
  t.same(rate([0, { a: 10, b: 5 }], [1000, { a: 9, b: 6 }]), { a: null, b: 1 }, 'one was reset')
  t.same(rate([0, { a: 10, b: null }], [1000, { a: 11, b: 6 }]), { a: 1, b: null }, 'one was not known')
  t.same(rate([0, { a: 10, b: 6 }], [1000, { a: 11, b: null }]), { a: 1, b: null })
  t.equal(rate([0, { a: 10, b: 5 }], [1000, { a: 50, b: 5 }, '2']), null, 'another life, though it rose')
  t.equal(rate([7, { a: 10, b: 5 }], [7, { a: 50, b: 5 }]), null, 'no time has passed')
})

t.test('who does not answer is left alone for longer and longer', async (t) => {
  const list = new SkipList({ leastMs: 60, mostMs: 200 })
  t.equal(list.since('a'), null)
  list.add('a', 1000)
  list.add('b', 1010)
  t.equal(list.size, 2)
  t.same(list.due(1059), [])
  t.same(list.due(1060), ['a'])
  t.same(list.due(1070), ['a', 'b'], 'who waited longest comes first')
  list.add('a', 1070)
  t.same(list.due(1189), ['b'])
  t.same(list.due(1190), ['b', 'a'])
  list.add('a', 1200)
  t.same(list.due(1399), ['b'], 'never longer than the most')
  t.same(list.due(1400), ['b', 'a'])
  t.equal(list.since('a'), 1000, 'since it first did not')
  list.remove('a')
  t.equal(list.since('a'), null)
  list.add('a', 2000)
  t.same(list.due(2060), ['b', 'a'], 'who answered begins anew')
})
