// Samples the VMs of this host in two tiers: what the kernel counts of each QEMU, often, and what only QEMU can tell, through libvirt.
//
// INVARIANTS
// - A look at what the kernel counts asks libvirtd nothing and waits for nobody.
// - Everything that is known has the time when it was asked for, so that it is never older than it seems; what could not be read
//   stays as it was and ages. Nothing that is not known becomes zero or off.
// - An event is a hint: the VM is read again.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { type Power, powerOf } from '../../provisioning/vms/power.ts'
import type { Clock } from './clock.ts'
import { type Counted, counted } from './counted.ts'
import {
  type Disk,
  type DiskCounters,
  devicesOf,
  disksOf,
  isWhole,
  type Memory,
  memoryOf,
} from './domain-stats.ts'
import { fromOtherEnd, type NicCounters, parseNetDev } from './net-dev.ts'
import { type ProcessCounters, type ProcessUse, pageBytesOf, type ReadNow, readProcess } from './process.ts'
import {
  type DomainRecord,
  type DomainRef,
  GROUP,
  type HeardEvent,
  type Hint,
  Questions,
  type StatsConnection,
  Unanswered,
} from './questions.ts'
import { SkipList, type SkipOptions } from './skip-list.ts'

/** When something was read. Times are epoch milliseconds. */
export interface Age {
  readonly atMs: number
  readonly ageMs: number
  /** Whether it should have been read again long ago. */
  readonly stale: boolean
}

/** Something that is known, and since when. */
export interface Reading<T> extends Age {
  readonly value: T
}

/** The QEMU of a VM, as the kernel counts it. */
export type ProcessSample = Omit<ProcessUse, 'counters'> & { readonly counters: Counted<ProcessCounters> }

/** A NIC of a VM by the device of the host that it is, seen from the guest. `counters` is null when the host has no such device. */
export interface NicSample {
  readonly device: string
  readonly counters: Counted<NicCounters> | null
}

/** A disk of a VM. */
export type DiskSample = Omit<Disk, 'counters'> & { readonly counters: Counted<DiskCounters> }

/** One VM. What is null is not known: it was not told yet, or of a VM that runs no more it is over. */
export interface VmSample {
  readonly uuid: string
  readonly name: string
  /** What it does, in libvirt's words; `unknown` when its QEMU has ended and libvirt has not said so. */
  readonly power: Reading<{ readonly power: Power; readonly reason: string }> | null
  readonly process: Reading<ProcessSample> | null
  readonly nics: Reading<readonly NicSample[]> | null
  readonly memory: Reading<Memory> | null
  readonly disks: Reading<readonly DiskSample[]> | null
  /** Since when its QEMU does not answer libvirt and is only asked now and then; null when it does. */
  readonly stuckSinceMs: number | null
  /** Why the last look at what the kernel counts of it failed; null when it did not. */
  readonly problem: ProblemReport | null
}

/** All that is known of the VMs now. */
export interface Sample {
  readonly atMs: number
  /** When libvirt last told which VMs there are; null when it never has, and then nobody knows of any. */
  readonly listed: Age | null
  /** Why libvirt, or more guests than those that hang, could not be asked the last time; null when they could. */
  readonly silence: string | null
  /** In the order of their names. */
  readonly vms: readonly VmSample[]
}

/** How this host is sampled. */
export interface SamplerOptions {
  /** Opens a connection to libvirt that is the sampler's own; read-only will do. */
  readonly connect: () => Promise<StatsConnection>
  readonly read: ReadNow
  readonly clock: Clock
  /** Where libvirt writes down what runs: `/run/libvirt`. */
  readonly runFolder: string
  /** Where the kernel counts what goes through the host's network devices: `/proc/net/dev`. */
  readonly netDevPath: string
  /** How often the kernel is read, and how often QEMU is asked; 10 s and a minute when left out. */
  readonly everyMs?: { readonly look: number; readonly ask: number }
  /** How long an answer may take before whoever owes it is taken to hang; 3 s when left out. */
  readonly deadlineMs?: number
  /** How long a guest that hangs is left alone before it is asked again; from a minute up to a quarter of an hour when left out. */
  readonly skip?: SkipOptions
  /** Told of what libvirt tells, as soon as it does. */
  readonly heard?: (event: HeardEvent) => void
}

/** Something that is known, and when it was asked for on the steady clock. */
interface Taken<T> {
  readonly value: T
  readonly tickMs: number
}

/** What is known of one VM. */
interface Known {
  name: string
  readonly uuid: string
  /** The how manieth it was: whose turn it is goes by that. */
  readonly turn: number
  /** libvirt's number of it, which is another one each time that it is started; null unless it is known to run. */
  id: number | null
  power: Taken<{ readonly power: Power; readonly reason: string }>
  process: Taken<ProcessSample> | null
  mayReadIo: boolean
  /** The devices that its NICs are; null until libvirt has told. `isTap` says that the guest is at the other end of it. */
  devices: readonly { readonly name: string; readonly isTap: boolean }[] | null
  nics: Taken<readonly NicSample[]> | null
  memory: Taken<Memory> | null
  /** Whether libvirt has told that its memory was changed since. */
  hasNewMemory: boolean
  disks: Taken<readonly DiskSample[]> | null
  /** How often its disks were read since it began to do what it does. */
  diskReads: number
  problem: ProblemReport | null
}

/** libvirt works through one question's VMs in turn, so they are shared among as many questions. */
const shards = 4
/** A reading is stale when two of its kind have been missed. */
const staleAfter = 2.5
/**
 * Each group costs QEMU two questions, half a millisecond each, so only what the kernel does not count is asked for. A guest
 * that does not tell how it uses its memory has nothing new there until libvirt tells of a change, and is asked each tenth time:
 * a tenth of them each time. Nor has a guest that is paused anything new on its disks once they were read twice, which tells
 * that nothing goes to them any more; and where it was paused because its storage fails, each question may hang on that.
 */
const quietEach = 10
const diskReadsUntilQuiet = 2

const isExpected = (error: unknown): error is Error =>
  error instanceof Unanswered ||
  error instanceof HostError ||
  (error instanceof Error && (error.name === 'LibvirtError' || error.name === 'LibvirtConnectionError'))

const hangs = (failure: Error): boolean => failure instanceof Unanswered && failure.asked

const isQuiet = ({ power, diskReads }: Known): boolean =>
  power.value.power === 'paused' && diskReads >= diskReadsUntilQuiet

/** Taken in turns: what stands together in a list is often slow together. */
const partsOf = (vms: readonly Known[]): readonly (readonly Known[])[] =>
  Array.from({ length: shards }, (_, shard) => vms.filter((_, index) => index % shards === shard))

const order = new Intl.Collator('en', { numeric: true })

/** Samples until it is closed. One alone looks once: `ask()`, then `look()`. */
export class Sampler {
  readonly #options: SamplerOptions
  readonly #clock: Clock
  readonly #questions: Questions
  readonly #everyMs: { readonly look: number; readonly ask: number }
  readonly #vms = new Map<string, Known>()
  /** In the order of their names; null when one has come, gone or got another name since. */
  #ordered: readonly Known[] | null = null
  readonly #skipped: SkipList
  #hints = new Map<string, DomainRef>()
  #hintsAll = false
  #following: Promise<void> | null = null
  #listing: Promise<boolean> | null = null
  #listedMs: number | null = null
  #pageBytes: number | null = null
  #begun = 0
  #rounds = 0
  #libvirtdSilence: string | null = null
  #guestsSilence: string | null = null

  constructor(options: SamplerOptions) {
    const { connect, clock, deadlineMs = 3000, everyMs = { look: 10_000, ask: 60_000 } } = options
    this.#options = options
    this.#skipped = new SkipList(options.skip ?? { leastMs: 60_000, mostMs: 900_000 })
    this.#clock = clock
    this.#everyMs = everyMs
    this.#questions = new Questions({
      connect,
      clock,
      deadlineMs,
      hint: (hint) => this.#hear(hint),
    })
  }

  /** Samples until the signal aborts, and tells each time what is known. Rejects only when there is a defect. */
  async run(signal: AbortSignal, tell: (sample: Sample) => void): Promise<void> {
    const stopped = new AbortController()
    const both = AbortSignal.any([signal, stopped.signal])
    // Whoever waits for libvirt then waits no longer.
    both.addEventListener('abort', () => this.close())
    try {
      // Without a list there is nothing to look at.
      await this.#list()
      await Promise.all([
        this.#each(this.#everyMs.look, both, () => {
          this.look()
          tell(this.sample())
        }),
        // Each by itself, so that a look never waits for libvirt.
        this.#each(this.#everyMs.look, both, () => this.follow()),
        this.#each(this.#everyMs.ask, both, () => this.ask()),
      ])
    } finally {
      stopped.abort()
      this.close()
    }
  }

  /** Looks at what the kernel counts, at once. */
  look(): void {
    const all = [...this.#vms.values()].filter(({ id }) => id !== null)
    const devices = this.#devices(all.some((vm) => (vm.devices?.length ?? 0) > 0))
    for (const vm of all) {
      vm.problem = null
      try {
        this.#lookAtProcess(vm)
        if (devices instanceof HostError) throw devices
        this.#lookAtNics(vm, devices)
      } catch (error) {
        if (!(error instanceof HostError)) throw error
        vm.problem = error.report()
      }
    }
  }

  /** Reads again what events have hinted at, if any, in one question for all; asks no guest. */
  follow(): Promise<void> {
    this.#following ??= this.#follow().finally(() => {
      this.#following = null
    })
    return this.#following
  }

  /** Asks libvirt which VMs there are, and of those that run what only their QEMU can tell. */
  async ask(): Promise<void> {
    if (!(await this.#list())) return
    await this.follow()
    const running = [...this.#vms.values()].filter(({ id }) => id !== null)
    this.#rounds += 1
    const asked = running.filter((vm) => this.#skipped.since(vm.uuid) === null && this.#areDisksDue(vm))
    const isBalloonDue = (vm: Known) => this.#isBalloonDue(vm)
    const due = new Set(this.#skipped.due(this.#clock.steadyMs()))
    const failures = await Promise.all([
      ...partsOf(asked.filter(isBalloonDue)).map((part) => this.#askPart(part, true)),
      ...partsOf(asked.filter((vm) => !isBalloonDue(vm))).map((part) => this.#askPart(part, false)),
      this.#askAlone(running.filter(({ uuid }) => due.has(uuid))),
    ])
    this.#guestsSilence = failures.find((failure) => failure !== null) ?? null
  }

  /** What is known now. */
  sample(): Sample {
    const { look, ask } = this.#everyMs
    this.#ordered ??= [...this.#vms.values()].sort((a, b) => order.compare(a.name, b.name))
    return {
      atMs: this.#clock.epochMs(),
      listed: this.#listedMs === null ? null : this.#ageOf(this.#listedMs, ask),
      silence: this.#libvirtdSilence ?? this.#guestsSilence,
      vms: this.#ordered.map((vm) => {
        const stuckTick = this.#skipped.since(vm.uuid)
        return {
          uuid: vm.uuid,
          name: vm.name,
          power: this.#told(vm.power, ask),
          process: this.#told(vm.process, look),
          nics: this.#told(vm.nics, look),
          memory: this.#told(vm.memory, this.#balloonEveryMs(vm)),
          disks: this.#told(vm.disks, ask * (isQuiet(vm) ? quietEach : 1)),
          stuckSinceMs: stuckTick === null ? null : this.#epochOf(stuckTick),
          problem: vm.problem,
        }
      }),
    }
  }

  /** Ends the connections to libvirt. */
  close(): void {
    this.#questions.close()
  }

  /** The time of a tick by the clock of now: an age is true even when the clock was set meanwhile. */
  #epochOf(tickMs: number): number {
    return Math.round(this.#clock.epochMs() - (this.#clock.steadyMs() - tickMs))
  }

  #ageOf(tickMs: number, everyMs: number): Age {
    const ageMs = Math.round(this.#clock.steadyMs() - tickMs)
    return { atMs: this.#epochOf(tickMs), ageMs, stale: ageMs > everyMs * staleAfter }
  }

  #told<T>(taken: Taken<T> | null, everyMs: number): Reading<T> | null {
    return taken === null ? null : { value: taken.value, ...this.#ageOf(taken.tickMs, everyMs) }
  }

  /** Does it at once and then at fixed times; one that takes too long leaves out those that it has missed. */
  async #each(everyMs: number, signal: AbortSignal, work: () => void | Promise<void>): Promise<void> {
    const beganMs = this.#clock.steadyMs()
    while (!signal.aborted) {
      await work()
      const sinceMs = this.#clock.steadyMs() - beganMs
      await this.#clock.sleep(everyMs - (sinceMs % everyMs), signal)
    }
  }

  #devices(wanted: boolean): ReadonlyMap<string, NicCounters> | HostError {
    if (!wanted) return new Map()
    const { read, netDevPath } = this.#options
    try {
      const text = read(netDevPath)
      if (text !== null) return parseNetDev(text)
      return new HostError('host.unreadable', `${netDevPath} is not there`, { details: { path: netDevPath } })
    } catch (error) {
      if (error instanceof HostError) return error
      throw error
    }
  }

  #lookAtProcess(vm: Known): void {
    const before = vm.process
    const pid = before?.value.pid ?? this.#pidOf(vm)
    if (pid === null) return
    const tickMs = this.#clock.steadyMs()
    const { read } = this.#options
    this.#pageBytes ??= pageBytesOf(read)
    const use = readProcess(pid, { read, pageBytes: this.#pageBytes, withIo: vm.mayReadIo })
    if (use === null && before === null) return
    if (use === null || (before !== null && use.startTicks !== before.value.startTicks)) {
      this.#end(vm, { power: 'unknown', reason: 'its process has ended' }, tickMs)
      this.#hints.set(vm.uuid, { name: vm.name, uuid: vm.uuid })
      return
    }
    vm.mayReadIo = use.counters.readBytes !== null
    const life = String(use.startTicks)
    const then = before && { total: before.value.counters.total, life, tickMs: before.tickMs }
    vm.process = {
      value: { ...use, counters: counted(then, { total: use.counters, life, tickMs }) },
      tickMs,
    }
  }

  /** The PID that libvirt wrote down; only read when libvirt says that the VM runs, for it stays there when the host crashes. */
  #pidOf({ name }: Known): number | null {
    // libvirt lets no VM of QEMU have such a name; those of other drivers have no process.
    if (name.includes('/')) return null
    const text = this.#options.read(`${this.#options.runFolder}/qemu/${name}.pid`)?.trim() ?? ''
    return /^[1-9]\d{0,9}$/.test(text) ? Number(text) : null
  }

  #lookAtNics(vm: Known, devices: ReadonlyMap<string, NicCounters>): void {
    if (vm.id === null || vm.devices === null) return
    const tickMs = this.#clock.steadyMs()
    const life = String(vm.id)
    const before = new Map(vm.nics?.value.map(({ device, counters }) => [device, counters]))
    const value = vm.devices.map(({ name, isTap }): NicSample => {
      const seen = devices.get(name)
      if (seen === undefined) return { device: name, counters: null }
      const last = before.get(name) ?? null
      const then = last && { total: last.total, life, tickMs: vm.nics?.tickMs ?? 0 }
      const total = isTap ? fromOtherEnd(seen) : seen
      return { device: name, counters: counted(then, { total, life, tickMs }) }
    })
    vm.nics = { value, tickMs }
  }

  /** It runs no more as far as is known: what was counted of it is over. */
  #end(vm: Known, doing: { readonly power: Power; readonly reason: string }, tickMs: number): void {
    vm.id = null
    vm.power = { value: doing, tickMs }
    vm.process = null
    vm.mayReadIo = true
    vm.devices = null
    vm.nics = null
    vm.memory = null
    vm.hasNewMemory = false
    vm.disks = null
    vm.diskReads = 0
    vm.problem = null
    this.#skipped.remove(vm.uuid)
  }

  async #follow(): Promise<void> {
    if (this.#hintsAll && !(await this.#list())) return
    const hints = this.#hints
    if (hints.size === 0) return
    this.#hints = new Map()
    const tickMs = this.#clock.steadyMs()
    const doms = [...hints.values()]
    const records = await this.#askLibvirtd(doms, GROUP.power | GROUP.nics)
    if (records === null) this.#hints = new Map([...hints, ...this.#hints])
    else this.#take(doms, records, tickMs)
  }

  /** Asks which VMs there are and what they do; false when nobody answers. */
  #list(): Promise<boolean> {
    this.#listing ??= this.#askForList().finally(() => {
      this.#listing = null
    })
    return this.#listing
  }

  async #askForList(): Promise<boolean> {
    const tickMs = this.#clock.steadyMs()
    this.#hintsAll = false
    const records = await this.#askLibvirtd([], GROUP.power)
    if (records === null) {
      this.#hintsAll = true
      return false
    }
    this.#take([...this.#vms.values()], records, tickMs)
    this.#listedMs = tickMs
    return true
  }

  async #askLibvirtd(doms: readonly DomainRef[], groups: number): Promise<readonly DomainRecord[] | null> {
    try {
      const records = await this.#questions.askLibvirtd(doms, groups)
      this.#libvirtdSilence = null
      return records
    } catch (error) {
      if (!isExpected(error)) throw error
      this.#libvirtdSilence = error.message
      return null
    }
  }

  /** Takes over what libvirtd knows by itself of those that were asked for; who is not among the records has gone. */
  #take(asked: readonly DomainRef[], records: readonly DomainRecord[], tickMs: number): void {
    const there = new Set(records.map(({ dom }) => dom.uuid))
    for (const { uuid } of asked) {
      const vm = this.#vms.get(uuid)
      if (vm === undefined || there.has(uuid) || vm.power.tickMs > tickMs) continue
      this.#vms.delete(uuid)
      this.#ordered = null
      this.#skipped.remove(uuid)
    }
    for (const record of records) this.#takeOne(record, tickMs)
  }

  #takeOne({ dom, params }: DomainRecord, tickMs: number): void {
    const { uuid, name } = dom
    const [state, reason] = [params['state.state'], params['state.reason']].map(Number)
    const value = powerOf({ state: state ?? 0, reason: reason ?? 0 })
    const id = dom.id === -1 ? null : dom.id
    const vm = this.#vms.get(uuid) ?? this.#begin(dom, { value, tickMs })
    if (vm.power.tickMs > tickMs) return
    if (id !== vm.id) this.#end(vm, value, tickMs)
    vm.id = id
    if (vm.name !== name) this.#ordered = null
    vm.name = name
    if (vm.power.value.power !== value.power) vm.diskReads = 0
    vm.power = { value, tickMs }
    const devices = devicesOf(params)
    if (devices !== null) vm.devices = devices.map((device) => ({ name: device, isTap: this.#isTap(device) }))
    else if (id !== null && vm.devices === null) this.#hints.set(uuid, { uuid, name })
  }

  #begin({ uuid, name }: DomainRef, power: Known['power']): Known {
    this.#begun += 1
    const vm: Known = {
      uuid,
      name,
      turn: this.#begun,
      id: null,
      power,
      process: null,
      mayReadIo: true,
      devices: null,
      nics: null,
      memory: null,
      hasNewMemory: false,
      disks: null,
      diskReads: 0,
      problem: null,
    }
    this.#vms.set(uuid, vm)
    this.#ordered = null
    return vm
  }

  #hear(hint: Hint): void {
    if (hint === 'all') {
      this.#hintsAll = true
      return
    }
    this.#options.heard?.(hint)
    const { event, dom } = hint
    const vm = this.#vms.get(dom.uuid)
    if (event !== 'balloonChange') this.#hints.set(dom.uuid, dom)
    else if (vm !== undefined) vm.hasNewMemory = true
  }

  #balloonEveryMs({ memory }: Known): number {
    return this.#everyMs.ask * (memory === null || memory.value.toldMs === null ? quietEach : 1)
  }

  #isBalloonDue(vm: Known): boolean {
    if (vm.memory === null || vm.hasNewMemory || vm.memory.value.toldMs !== null) return true
    return this.#isTurnOf(vm)
  }

  #areDisksDue(vm: Known): boolean {
    return !isQuiet(vm) || vm.hasNewMemory || this.#isTurnOf(vm)
  }

  #isTurnOf({ turn }: Known): boolean {
    return (this.#rounds + turn) % quietEach === 0
  }

  /** What a tap device receives its guest has sent; with a macvtap, which has no such file, the two see the same. */
  #isTap(device: string): boolean {
    return !device.includes('/') && this.#options.read(`/sys/class/net/${device}/tun_flags`) !== null
  }

  /**
   * Asks the guests of one part; says why that was given up. One that hangs is passed by when the others are asked again, since
   * the question that it owes an answer to holds it.
   */
  async #askPart(part: readonly Known[], withBalloon: boolean): Promise<string | null> {
    if (part.length === 0) return null
    for (let hasHung = false; ; hasHung = true) {
      const failure = await this.#askGuests(part, withBalloon, hasHung)
      if (failure === null) return null
      // It may be that libvirtd hangs and not a guest, and then nobody is to blame.
      if (!hangs(failure) || !(await this.#list())) return failure.message
    }
  }

  /** Asks those again who hung, one after the other; says why one could not be asked. */
  async #askAlone(due: readonly Known[]): Promise<string | null> {
    for (const vm of due) {
      const failure = await this.#askGuests([vm], true, true)
      if (failure === null) continue
      if (!hangs(failure) || !(await this.#list())) return failure.message
      this.#skipped.add(vm.uuid, this.#clock.steadyMs())
    }
    return null
  }

  /** Asks guests and takes over what they tell; returns what kept them from being asked. */
  async #askGuests(vms: readonly Known[], withBalloon: boolean, suspects: boolean): Promise<Error | null> {
    const tickMs = this.#clock.steadyMs()
    try {
      const doms = vms.map(({ uuid, name }) => ({ uuid, name }))
      const groups = withBalloon ? GROUP.disks | GROUP.balloon : GROUP.disks
      const records = await this.#questions.askGuests(doms, groups)
      for (const record of records) this.#takeGuest(record, tickMs, suspects)
      return null
    } catch (error) {
      if (!isExpected(error)) throw error
      return error
    }
  }

  #takeGuest({ dom, params }: DomainRecord, tickMs: number, suspects: boolean): void {
    const vm = this.#vms.get(dom.uuid)
    // It was stopped or started meanwhile: these numbers are of a life that is over.
    if (vm === undefined || vm.id !== dom.id) return
    if (!isWhole(params)) {
      if (suspects) this.#skipped.add(vm.uuid, tickMs)
      return
    }
    this.#skipped.remove(vm.uuid)
    const memory = memoryOf(params)
    if (memory !== null) {
      vm.memory = { value: memory, tickMs }
      vm.hasNewMemory = false
    }
    const life = String(vm.id)
    const before = new Map(vm.disks?.value.map(({ target, counters }) => [target, counters.total]))
    const disks = disksOf(params).map((disk): DiskSample => {
      const total = before.get(disk.target) ?? null
      const then = total && { total, life, tickMs: vm.disks?.tickMs ?? 0 }
      return { ...disk, counters: counted(then, { total: disk.counters, life, tickMs }) }
    })
    vm.disks = { value: disks, tickMs }
    vm.diskReads += 1
  }
}
