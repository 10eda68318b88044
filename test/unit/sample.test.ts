// Sampling over a libvirtd, a kernel and a clock that do what the test says.

import t from 'tap'
import type { Clock } from '../../agent/report/clock.ts'
import type { DomainRecord, DomainRef, HintEvent, StatsConnection } from '../../agent/report/questions.ts'
import { type Sample, Sampler, type VmSample } from '../../agent/report/sample.ts'
import { HostError } from '../../provisioning/problem.ts'

/** Lets everything happen that waits for nothing. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A clock that stands until it is moved. */
class HeldClock implements Clock {
  nowMs = 5_000_000
  setMs = 1_700_000_000_000
  readonly #waiting = new Set<{ readonly untilMs: number; readonly end: () => void }>()
  epochMs() {
    return this.setMs + this.nowMs
  }
  steadyMs() {
    return this.nowMs
  }
  sleep(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const waiting = { untilMs: this.nowMs + ms, end: resolve }
    this.#waiting.add(waiting)
    const end = () => {
      this.#waiting.delete(waiting)
      resolve()
    }
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
    return promise
  }
  async pass(ms: number): Promise<void> {
    const endMs = this.nowMs + ms
    await settle()
    for (;;) {
      const [next] = [...this.#waiting].sort((a, b) => a.untilMs - b.untilMs)
      if (next === undefined || next.untilMs > endMs) break
      this.nowMs = next.untilMs
      this.#waiting.delete(next)
      next.end()
      await settle()
    }
    this.nowMs = endMs
  }
}

interface Guest extends DomainRef {
  id: number
  state: number
  pid: number
  startTicks: number
  cpuTicks: number
  devices: readonly string[]
  reads: number
  lastUpdate: number
  /** Its QEMU does not answer; `held` while a question to it is under way. */
  hangs: boolean
  held: boolean
}

/** A host: its libvirtd, what its kernel tells, and everything that was asked. */
class Host {
  readonly clock = new HeldClock()
  readonly guests = new Map<string, Guest>()
  readonly asked: { readonly names: readonly string[]; readonly stats: number }[] = []
  readonly connections: Connection[] = []
  readonly read: string[] = []
  /** Paths that may not be read, or say something else. */
  readonly texts = new Map<string, string | Error>()
  refuses: Error | null = null
  #stopped: PromiseWithResolvers<void> | null = null
  #released = Promise.withResolvers<void>()

  start(name: string, change: Partial<Guest> = {}): Guest {
    const number = this.guests.size + 1
    const guest: Guest = {
      name,
      uuid: `uuid-${name}`,
      id: number,
      state: 1,
      pid: 1000 + number,
      startTicks: 500 + number,
      cpuTicks: 100,
      devices: [`tap-${name}`],
      reads: 10,
      lastUpdate: 0,
      hangs: false,
      held: false,
      ...change,
    }
    this.guests.set(name, guest)
    return guest
  }

  guest(name: string): Guest {
    const found = this.guests.get(name)
    if (found === undefined) throw new Error(name)
    return found
  }

  /** libvirtd stands still, or goes on. */
  freeze(): void {
    this.#stopped = Promise.withResolvers<void>()
  }
  thaw(): void {
    this.#stopped?.resolve()
    this.#stopped = null
  }

  /** A guest answers again, and with it every question that it held up. */
  release(name: string): void {
    this.guest(name).hangs = false
    this.#released.resolve()
    this.#released = Promise.withResolvers<void>()
  }

  tell(event: HintEvent, name: string): void {
    const { uuid } = this.guest(name)
    for (const connection of this.connections) connection.listeners.get(event)?.({ dom: { name, uuid } })
  }

  readonly connect = async (): Promise<StatsConnection> => {
    if (this.refuses) throw this.refuses
    const connection = new Connection(this)
    this.connections.push(connection)
    return connection
  }

  readonly readNow = (path: string): string | null => {
    this.read.push(path)
    const changed = this.texts.get(path)
    if (changed instanceof Error) throw changed
    if (changed !== undefined) return changed
    const [, , pid, file] = path.split('/')
    if (path === '/proc/self/stat') return `1 (node) R ${'0 '.repeat(19)}${1024 * 4096} ${'0 '.repeat(29)}\n`
    if (path === '/proc/self/statm') return '1024 9 9 0 0 0 0\n'
    if (path === '/proc/net/dev') return this.#netDev()
    if (path.startsWith('/sys/class/net/tap-')) return '0x1002\n'
    const named = [...this.guests.values()].find((one) => path === `/run/libvirt/qemu/${one.name}.pid`)
    if (named) return named.id === -1 ? null : `${named.pid}\n`
    const guest = [...this.guests.values()].find((one) => String(one.pid) === pid && one.id !== -1)
    if (guest === undefined) return null
    const fields = Array.from({ length: 50 }, () => 0)
    fields[11] = guest.cpuTicks
    fields[17] = 4
    fields[19] = guest.startTicks
    fields[21] = 50
    if (file === 'stat') return `${pid} (qemu) S ${fields.slice(1).join(' ')}\n`
    if (file === 'io') return 'read_bytes: 7\nwrite_bytes: 9\n'
    return null
  }

  #netDev(): string {
    const titles = 'bytes packets errs drop fifo frame compressed multicast'
    const names = [...this.guests.values()].filter(({ id }) => id !== -1).flatMap(({ devices }) => devices)
    const lines = names.map((name) => `${name}: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0`)
    return [`Inter-|x|y`, ` face |${titles}|${titles}`, ...lines, ''].join('\n')
  }

  async answer(doms: readonly DomainRef[], stats: number): Promise<readonly DomainRecord[]> {
    this.asked.push({ names: doms.map(({ name }) => name), stats })
    await this.#stopped?.promise
    const all = [...this.guests.values()]
    const wanted = doms.length === 0 ? all : all.filter((one) => doms.some(({ uuid }) => uuid === one.uuid))
    const records: DomainRecord[] = []
    for (const guest of wanted) {
      const { name, uuid, id } = guest
      const toGuests = (stats & 36) !== 0 && id !== -1
      const passedBy = toGuests && guest.held
      if (toGuests && guest.hangs && !passedBy) {
        guest.held = true
        while (guest.hangs) await this.#released.promise
        guest.held = false
      }
      records.push({
        dom: { name, uuid, id },
        params: {
          ...(stats & 1 && { 'state.state': guest.state, 'state.reason': 1 }),
          ...(stats & 16 && {
            'net.count': guest.devices.length,
            ...Object.fromEntries(guest.devices.map((device, at) => [`net.${at}.name`, device])),
          }),
          ...(stats & 4 && { 'balloon.current': 1024, 'balloon.maximum': 1024 }),
          ...(stats & 4 && !passedBy && { 'balloon.rss': 7, 'balloon.last-update': guest.lastUpdate }),
          ...(stats & 32 && { 'block.count': 1, 'block.0.name': 'vda' }),
          ...(stats & 32 && !passedBy && { 'block.0.rd.reqs': guest.reads }),
        },
      })
    }
    return records
  }
}

class Connection implements StatsConnection {
  readonly listeners = new Map<string, (event: { readonly dom: DomainRef }) => void>()
  readonly #host: Host
  closed = false
  /** What breaks when the connection does. */
  broken = Promise.withResolvers<never>()
  readAgain = () => {}

  constructor(host: Host) {
    this.#host = host
    this.broken.promise.catch(() => {
      // Whoever asks is told.
    })
  }
  connectGetAllDomainStats({ doms, stats }: { readonly doms: readonly DomainRef[]; readonly stats: number }) {
    return Promise.race([this.#host.answer(doms, stats), this.broken.promise])
  }
  async connectDomainEventRegisterAny(
    event: HintEvent,
    listener: (event: { readonly dom: DomainRef }) => void,
  ) {
    this.listeners.set(event, listener)
  }
  on(_: 'readAgain', listener: () => void) {
    this.readAgain = listener
  }
  close() {
    this.closed = true
    this.broken.reject(lost())
  }
}

/** As the client says that there is no connection. */
const lost = () => Object.assign(new Error('the connection broke'), { name: 'LibvirtConnectionError' })

function sampling(names: readonly string[] = ['a', 'b', 'c']) {
  const host = new Host()
  for (const name of names) host.start(name)
  const sampler = new Sampler({
    connect: host.connect,
    read: host.readNow,
    clock: host.clock,
    runFolder: '/run/libvirt',
    netDevPath: '/proc/net/dev',
    deadlineMs: 3000,
  })
  const vm = (name: string): VmSample => {
    const found = sampler.sample().vms.find((one) => one.name === name)
    if (found === undefined) throw new Error(`${name} is not known`)
    return found
  }
  /** Asks while the clock goes on for `ms`. */
  const ask = async (ms = 100) => {
    await Promise.all([sampler.ask(), host.clock.pass(ms)])
  }
  return { host, clock: host.clock, sampler, vm, ask }
}

const toGuests = ({ stats }: { readonly stats: number }): boolean => (stats & 36) !== 0

t.test('everything once, and how fast it rises the second time', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  t.match(sampler.sample(), { listed: null, vms: [] }, 'nobody knows of any VM')
  await ask()
  sampler.look()
  const { power, process: qemu, nics, disks, memory } = vm('b')
  t.match(power?.value, { power: 'running', reason: 'booted' })
  t.match(qemu?.value, { pid: 1002, residentBytes: 50 * 4096, counters: { perSecond: null } })
  t.match(nics?.value, [{ device: 'tap-b', counters: { total: { receivedBytes: 20, sentBytes: 10 } } }])
  t.match(disks?.value, [{ target: 'vda', counters: { total: { reads: 10 }, perSecond: null } }])
  t.equal(memory?.value.currentBytes, 2 ** 20)
  t.ok(
    host.asked.filter(toGuests).every(({ names }) => names.length === 1),
    'shared among four questions',
  )
  host.guest('b').cpuTicks += 150
  host.guest('b').reads += 600
  await clock.pass(10_000)
  sampler.look()
  await clock.pass(49_900)
  await ask()
  t.equal(vm('b').process?.value.counters.perSecond?.cpuMs, 150)
  t.equal(vm('b').disks?.value[0]?.counters.perSecond?.reads, 10)
  t.equal(vm('a').process?.value.counters.perSecond?.cpuMs, 0)
})

t.test('a look asks libvirtd nothing, and what is seen has its age', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  await ask(0)
  const before = host.asked.length
  for (let round = 0; round < 20; round++) {
    await clock.pass(10_000)
    sampler.look()
  }
  t.equal(host.asked.length, before)
  t.match(vm('a'), { process: { ageMs: 0, stale: false }, nics: { ageMs: 0, stale: false } })
  t.match(vm('a'), { disks: { ageMs: 200_000, stale: true }, power: { ageMs: 200_000, stale: true } })
  t.match(sampler.sample().listed, { ageMs: 200_000, stale: true })
  clock.setMs -= 3_600_000
  t.equal(vm('a').disks?.ageMs, 200_000, 'though somebody has set the clock back by an hour')
  t.equal(vm('a').disks?.atMs, clock.epochMs() - 200_000)
})

t.test('what events hint at is read again, all of it in one question', async (t) => {
  const { host, sampler, vm, ask } = sampling()
  await ask()
  host.asked.length = 0
  await sampler.follow()
  t.same(host.asked, [], 'nothing happened')
  host.guest('a').state = 3
  host.guest('b').devices = ['tap-b', 'tap-new']
  host.start('d')
  for (const name of ['a', 'a', 'd']) host.tell('lifecycle', name)
  host.tell('deviceAdded', 'b')
  t.equal(vm('a').power?.value.power, 'running', 'an event is not believed')
  await sampler.follow()
  t.same(host.asked, [{ names: ['a', 'd', 'b'], stats: 17 }])
  sampler.look()
  t.equal(vm('a').power?.value.power, 'paused')
  t.same(
    vm('b').nics?.value.map(({ device }) => device),
    ['tap-b', 'tap-new'],
  )
  t.equal(vm('d').process?.value.pid, 1004)
  host.guests.delete('c')
  host.asked.length = 0
  for (const connection of host.connections) connection.readAgain()
  await sampler.follow()
  t.same(host.asked[0], { names: [], stats: 1 }, 'events were missed: everything')
  t.same(
    sampler.sample().vms.map(({ name }) => name),
    ['a', 'b', 'd'],
  )
})

t.test('one that stops is off and its numbers are over; a number of another life is no rate', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  await ask()
  sampler.look()
  Object.assign(host.guest('a'), { id: -1, state: 5 })
  host.tell('lifecycle', 'a')
  await sampler.follow()
  t.match(vm('a'), { power: { value: { power: 'off', reason: 'shutdown' } }, process: null, nics: null })
  t.match(vm('a'), { disks: null, memory: null, stuckSinceMs: null })
  Object.assign(host.guest('a'), { id: 9, state: 1, pid: 2000, startTicks: 900, cpuTicks: 5000, reads: 5000 })
  host.tell('lifecycle', 'a')
  await clock.pass(1000)
  await sampler.follow()
  sampler.look()
  await ask()
  t.match(vm('a').process?.value, { pid: 2000, counters: { total: { cpuMs: 50_000 }, perSecond: null } })
  t.equal(vm('a').disks?.value[0]?.counters.perSecond, null)
})

t.test(
  'a QEMU that has ended, or whose PID is another process now, is unknown until libvirt speaks',
  async (t) => {
    const { host, sampler, vm, ask } = sampling(['a', 'b'])
    await ask()
    sampler.look()
    host.texts.set('/proc/1001/stat', host.readNow('/proc/1001/stat')?.replace(' S ', ' Z ') ?? '')
    host.guest('b').startTicks = 77
    sampler.look()
    for (const name of ['a', 'b']) {
      t.match(vm(name).power?.value, { power: 'unknown', reason: 'its process has ended' }, name)
      t.match(vm(name), { process: null, nics: null, disks: null, memory: null })
    }
    sampler.look()
    t.equal(
      vm('b').process,
      null,
      'a PID that was written down is only believed after libvirt says that it runs',
    )
    host.texts.clear()
    await host.clock.pass(1)
    await sampler.follow()
    sampler.look()
    t.match(vm('b'), { power: { value: { power: 'running' } }, process: { value: { startTicks: 77 } } })
  },
)

t.test('what the kernel does not let us know, or says in a way that is not known', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  host.texts.set('/proc/1001/io', new HostError('host.denied', 'no'))
  await ask()
  sampler.look()
  t.match(vm('a').process?.value.counters.total, { cpuMs: 1000, readBytes: null, writtenBytes: null })
  t.equal(vm('a').problem, null)
  host.read.length = 0
  sampler.look()
  t.notOk(host.read.includes('/proc/1001/io'), 'who was denied does not ask again')
  t.ok(host.read.includes('/proc/1002/io'))
  await clock.pass(30_000)
  host.texts.set('/proc/1002/stat', 'nonsense')
  sampler.look()
  t.match(vm('b'), { problem: { code: 'host.unexpected-answer' }, process: { ageMs: 30_000, stale: true } })
  t.match(vm('c'), { problem: null, process: { ageMs: 0 } })
  host.texts.set('/proc/net/dev', 'nonsense')
  await clock.pass(30_000)
  sampler.look()
  t.match(vm('c'), {
    problem: { code: 'host.unexpected-answer' },
    nics: { ageMs: 30_000 },
    process: { ageMs: 0 },
  })
  host.texts.clear()
  sampler.look()
  t.match(vm('b'), { problem: null, process: { ageMs: 0 }, nics: { ageMs: 0 } })
})

t.test('the ends of a NIC', async (t) => {
  const { host, sampler, vm, ask } = sampling([])
  host.start('a', { devices: ['tap-a', 'direct0', 'elsewhere', '../etc'] })
  host.texts.set(
    '/proc/net/dev',
    `x\n face |bytes packets errs drop|bytes packets errs drop\ntap-a: 1 0 0 0 2 0 0 0\ndirect0: 1 0 0 0 2 0 0 0\n`,
  )
  await ask()
  sampler.look()
  const seen = (vm('a').nics?.value ?? []).map(({ device, counters }) => [
    device,
    counters?.total.receivedBytes ?? null,
  ])
  t.same(seen, [
    ['tap-a', 2],
    ['direct0', 1],
    ['elsewhere', null],
    ['../etc', null],
  ])
  t.notOk(host.read.some((path) => path.includes('..')))
})

t.test('guests that hang delay nobody, are left alone, and come back', async (t) => {
  const names = Array.from({ length: 12 }, (_, at) => `g${at}`)
  const { host, clock, sampler, vm, ask } = sampling(names)
  await ask()
  // Two of the same part: the second is found when the first has been passed by.
  host.guest('g1').hangs = true
  host.guest('g5').hangs = true
  await clock.pass(59_900)
  const asking = sampler.ask()
  await clock.pass(100)
  t.equal(vm('g0').disks?.ageMs, 100, 'other parts have their answer')
  await clock.pass(6500)
  await asking
  for (const name of names.filter((one) => one !== 'g1' && one !== 'g5'))
    t.ok((vm(name).disks?.ageMs ?? Number.NaN) <= 6600, name)
  t.ok((vm('g1').disks?.ageMs ?? 0) >= 60_000)
  t.type(vm('g1').stuckSinceMs, 'number')
  t.type(vm('g5').stuckSinceMs, 'number')
  t.equal(vm('g9').stuckSinceMs, null)
  t.equal(sampler.sample().silence, null, 'that is no silence of libvirt')
  host.asked.length = 0
  await clock.pass(30_000)
  await ask()
  t.notOk(
    host.asked.filter(toGuests).some(({ names: of }) => of.includes('g1')),
    'left alone for a minute',
  )
  t.equal(vm('g9').disks?.ageMs, 100)
  await clock.pass(60_000)
  host.asked.length = 0
  await ask()
  t.same(
    host.asked.filter(({ names: of }) => of.includes('g1') || of.includes('g5')).map(({ names: of }) => of),
    [['g1'], ['g5']],
    'then asked by themselves',
  )
  await clock.pass(60_000)
  host.asked.length = 0
  await ask()
  t.notOk(
    host.asked.filter(toGuests).some(({ names: of }) => of.includes('g1')),
    'left alone for longer',
  )
  host.release('g1')
  await clock.pass(90_000)
  await ask()
  t.equal(vm('g1').stuckSinceMs, null)
  t.equal(vm('g1').disks?.ageMs, 100)
  t.type(vm('g5').stuckSinceMs, 'number')
  // A guest that is started anew is another one.
  Object.assign(host.guest('g5'), { id: 99, hangs: false, held: false })
  host.tell('lifecycle', 'g5')
  await clock.pass(1000)
  await sampler.follow()
  t.equal(vm('g5').stuckSinceMs, null)
  await ask()
  t.equal(vm('g5').disks?.ageMs, 100)
})

t.test(
  'however many guests hang, libvirtd keeps workers for others, and connections are left when nothing hangs there',
  async (t) => {
    const names = Array.from({ length: 40 }, (_, at) => `g${at}`)
    const { host, clock, sampler, vm, ask } = sampling(names)
    await ask()
    for (const name of names.slice(0, 20)) host.guest(name).hangs = true
    await clock.pass(60_000)
    for (let round = 0; round < 5; round++) {
      await ask(40_000)
      await clock.pass(20_000)
    }
    const held = names.filter((name) => host.guest(name).held)
    t.ok(held.length >= 6 && held.length <= 9, `${held.length} hang`)
    t.match(sampler.sample(), { silence: /\d questions to guests hang already/ })
    t.equal(vm('g39').power?.ageMs, 60_000, 'what needs no guest is asked as ever')
    const open = () => host.connections.filter(({ closed }) => !closed).length
    t.ok(open() > 1)
    for (const name of names) host.release(name)
    await clock.pass(1)
    t.equal(open(), 1)
    await clock.pass(1_000_000)
    await ask(1000)
    t.equal(sampler.sample().silence, null)
    t.ok(
      sampler.sample().vms.every(({ disks, stuckSinceMs }) => disks?.ageMs === 1000 && stuckSinceMs === null),
    )
    sampler.close()
    t.equal(open(), 0)
  },
)

t.test('a libvirtd that hangs is asked once, and again when it has answered', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  await ask()
  sampler.look()
  host.freeze()
  host.asked.length = 0
  host.tell('lifecycle', 'a')
  for (let round = 0; round < 10; round++) {
    const asking = [sampler.follow(), sampler.ask()]
    await clock.pass(10_000)
    sampler.look()
    await Promise.all(asking)
  }
  t.equal(host.asked.length, 2, 'by an event and by the list')
  t.match(sampler.sample(), { silence: /libvirtd still owes an answer/, listed: { stale: false } })
  t.match(vm('a'), {
    power: { value: { power: 'running' }, ageMs: 100_100 },
    process: { ageMs: 0 },
    stuckSinceMs: null,
  })
  host.thaw()
  await clock.pass(1)
  await ask()
  t.match(sampler.sample(), { silence: null, listed: { ageMs: 100 } })
  t.equal(vm('a').disks?.ageMs, 100)
})

t.test('libvirtd begins to hang among the questions to guests: no guest is to blame', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling(['a', 'b', 'c', 'd', 'e'])
  await ask()
  const { answer } = host
  host.answer = (doms, stats) => {
    if (toGuests({ stats })) host.freeze()
    return answer.call(host, doms, stats)
  }
  await clock.pass(60_000)
  const asking = sampler.ask()
  await clock.pass(20_000)
  await asking
  t.ok(sampler.sample().vms.every(({ stuckSinceMs }) => stuckSinceMs === null))
  t.type(sampler.sample().silence, 'string')
  t.equal(vm('b').power?.value.power, 'running')
})

t.test('a connection that breaks, or is not had', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  host.refuses = lost()
  await ask()
  t.match(sampler.sample(), { listed: null, silence: 'the connection broke', vms: [] })
  host.refuses = null
  await ask()
  t.equal(vm('a').power?.value.power, 'running')
  host.connections[0]?.broken.reject(lost())
  await clock.pass(1000)
  await ask()
  t.match(sampler.sample(), { silence: 'the connection broke', listed: { ageMs: 1200 } })
  t.equal(vm('a').power?.value.power, 'running', 'not being told is not off')
})

t.test('a guest that somebody else holds is no guest that hangs', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  await ask()
  await clock.pass(60_000)
  Object.assign(host.guest('a'), { held: true })
  await ask()
  t.match(vm('a'), { stuckSinceMs: null, disks: { ageMs: 60_200 } })
  t.match(vm('b'), { disks: { ageMs: 100 } })
  t.equal(sampler.sample().silence, null)
  Object.assign(host.guest('a'), { held: false })
  await ask()
  t.match(vm('a'), { disks: { ageMs: 100 } })
})

t.test('guests that do not tell how they use their memory are asked for it now and then', async (t) => {
  const { host, clock, vm, ask } = sampling(['silent', 'telling'])
  host.guest('telling').lastUpdate = 1_700_000_000
  const balloons = async () => {
    host.asked.length = 0
    await ask(0)
    return host.asked.flatMap(({ names, stats }) => (stats & 4 ? names : []))
  }
  t.same(await balloons(), ['silent', 'telling'])
  const rounds: number[] = []
  for (let round = 1; round <= 20; round++) {
    await clock.pass(60_000)
    if ((await balloons()).includes('silent')) rounds.push(round)
    t.equal(vm('telling').memory?.ageMs, 0)
    t.equal(vm('silent').disks?.ageMs, 0)
  }
  t.equal(rounds.length, 2)
  t.equal((rounds[1] ?? 0) - (rounds[0] ?? 0), 10)
  t.equal(vm('silent').memory?.stale, false)
  await clock.pass(60_000)
  host.tell('balloonChange', 'silent')
  t.same(await balloons(), ['silent', 'telling'], 'or when libvirt tells of a change')
  await clock.pass(60_000)
  t.same(await balloons(), ['telling'])
  for (let number = 0; number < 30; number++) host.start(`g${number}`)
  await balloons()
  for (let round = 0; round < 10; round++) {
    const asked = (await balloons()).filter((name) => name.startsWith('g'))
    t.equal(asked.length, 3, 'a tenth of them each time')
  }
})

t.test('the disks of a guest that is paused are read until nothing goes to them any more', async (t) => {
  const { host, clock, vm, ask } = sampling(['paused', 'running'])
  const disks = async () => {
    await clock.pass(60_000)
    host.asked.length = 0
    await ask(0)
    return host.asked.flatMap(({ names, stats }) => (stats & 32 ? names : []))
  }
  await disks()
  t.same(await disks(), ['paused', 'running'])
  host.guest('paused').state = 3
  host.guest('paused').reads += 600
  t.same(await disks(), ['paused', 'running'])
  t.match(vm('paused').disks?.value, [{ counters: { perSecond: { reads: 10 } } }])
  t.same(await disks(), ['paused', 'running'])
  t.match(vm('paused').disks?.value, [{ counters: { perSecond: { reads: 0 } } }])
  const rounds: number[] = []
  for (let round = 1; round <= 20; round++) {
    if ((await disks()).includes('paused')) rounds.push(round)
    t.equal(vm('paused').disks?.stale, false)
    t.equal(vm('running').disks?.ageMs, 0)
  }
  t.equal(rounds.length, 2)
  t.equal((rounds[1] ?? 0) - (rounds[0] ?? 0), 10)
  host.guest('paused').state = 1
  t.same(await disks(), ['paused', 'running'], 'and again when it runs')
  t.same(await disks(), ['paused', 'running'])
})

t.test('an answer that was late does not undo what is known since', async (t) => {
  const { host, clock, sampler, vm, ask } = sampling()
  await ask()
  const { answer } = host
  const late = Promise.withResolvers<void>()
  host.answer = async (doms, stats) => {
    const records = await answer.call(host, doms, stats)
    if (doms.length === 0) await late.promise
    return records
  }
  const asking = sampler.ask()
  await clock.pass(10)
  Object.assign(host.guest('a'), { state: 3 })
  host.start('new')
  host.tell('lifecycle', 'a')
  host.tell('lifecycle', 'new')
  await sampler.follow()
  t.equal(vm('a').power?.value.power, 'paused')
  late.resolve()
  await clock.pass(10)
  await asking
  t.equal(vm('a').power?.value.power, 'paused')
  t.equal(vm('new').power?.value.power, 'running', 'nor is what has come since then gone')
})

t.test('sampling on and on', async (t) => {
  const { host, clock, sampler } = sampling()
  const told: Sample[] = []
  const stop = new AbortController()
  const running = sampler.run(stop.signal, (sample) => told.push(sample))
  await clock.pass(60_500)
  t.equal(told.length, 7)
  t.equal(
    host.asked.filter(({ names }) => names.length === 0).length,
    3,
    'a list before all, and each minute',
  )
  t.ok(told.slice(1).every(({ vms }) => vms.length === 3 && vms.every((vm) => vm.process?.ageMs === 0)))
  host.freeze()
  await clock.pass(60_000)
  t.equal(told.length, 13)
  t.ok(told.at(-1)?.vms.every(({ process: qemu }) => qemu?.ageMs === 0))
  stop.abort()
  await running
  t.ok(host.connections.every(({ closed }) => closed))
})

t.test('a defect is not taken for silence', async (t) => {
  const { host, clock, sampler, ask } = sampling()
  host.refuses = new TypeError('x is not a function')
  await t.rejects(ask(), { name: 'TypeError' })
  const running = sampler.run(new AbortController().signal, () => {})
  const outcome = t.rejects(running, { name: 'TypeError' })
  await clock.pass(10)
  await outcome
  const other = sampling()
  await other.ask()
  other.host.texts.set('/proc/1001/stat', new TypeError('x is not a function'))
  t.throws(() => other.sampler.look(), { name: 'TypeError' })
})
