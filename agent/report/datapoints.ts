// Turns what was seen into values of the metrics: what is not known has no value, and a counter that went back gives no rate.

import { type Datapoint, METRICS, type MetricName } from '../../provisioning/metrics.ts'
import type { Severity, Standing } from '../../provisioning/resource.ts'
import type { HostLook } from './host/look.ts'
import type { SlowLook } from './host/slow-look.ts'
import type { SeenNotices } from './notices.ts'
import type { OwnUse } from './own.ts'
import type { Report } from './report-schema.ts'
import type { Sample, VmSample } from './sample.ts'
import { seenValue } from './seen.ts'

/** All that was seen in one round. */
export interface Round {
  readonly host: HostLook
  readonly slow: SlowLook
  /** Null before the first answer. */
  readonly notices: SeenNotices | null
  readonly vms: Sample
  readonly own: OwnUse
}

const percent = (part: number, whole: number): number => (100 * part) / whole

/** Two values of one counter as what it rose by; null when either is not known or it has gone back. */
const rise = (before: number | null | undefined, now: number | null | undefined): number | null =>
  before === null || before === undefined || now === null || now === undefined || now < before
    ? null
    : now - before

/** Collects values; nothing is told of what is null or no number. */
class Collector {
  readonly points: Datapoint[] = []

  add(
    metric: MetricName,
    value: number | null,
    atMs: number,
    dimensions: Readonly<Record<string, string>> = {},
  ): void {
    if (value === null || !Number.isFinite(value)) return
    const { unit } = METRICS[metric]
    this.points.push({ metric, unit, value, dimensions, atMs })
  }
}

/** The values of a round. Those of slower looks are told once, in the round in which they are new. */
export function datapointsOf(before: Round | null, now: Round): readonly Datapoint[] {
  const all = new Collector()
  hostValues(all, before?.host ?? null, now.host)
  slowValues(all, before?.slow ?? null, now.slow)
  vmValues(all, before?.vms ?? null, now.vms)
  ownValues(all, before?.own ?? null, now)
  return all.points
}

function hostValues(all: Collector, before: HostLook | null, now: HostLook): void {
  const { atMs } = now
  const add = (metric: MetricName, value: number | null) => all.add(metric, value, atMs)
  const then = before && seenValue(before.processors)?.ticks
  const ticks = seenValue(now.processors)?.ticks
  const total = rise(then?.total, ticks?.total)
  for (const [metric, part] of [
    ['cpu.busy', 'busy'],
    ['cpu.steal', 'steal'],
    ['cpu.io-wait', 'ioWait'],
  ] as const) {
    const risen = rise(then?.[part], ticks?.[part])
    // The kernel's ticks of idle and of waiting are known to go back a little.
    add(metric, risen === null || !total ? null : Math.min(100, percent(risen, total)))
  }
  const load = seenValue(now.load)
  add('load.one', load?.one ?? null)
  const processors = seenValue(now.processors)?.processors ?? null
  add('load.per-processor', load === null || processors === null ? null : load.fifteen / processors)
  const memory = seenValue(now.memory)
  if (memory !== null) {
    const { totalBytes, availableBytes, swapTotalBytes, swapFreeBytes } = memory
    add('memory.available', availableBytes)
    add('memory.used', percent(totalBytes - availableBytes, totalBytes))
    add('memory.swap-used', swapTotalBytes - swapFreeBytes)
  }
  add('memory.oom-kills', rise(before && seenValue(before.oomKills), seenValue(now.oomKills)))
  const elapsedMs = before === null ? null : now.tickMs - before.tickMs
  if (before !== null && elapsedMs !== null && elapsedMs > 0) {
    const stalled = (want: 'cpu' | 'memory' | 'io', kind: 'someUs' | 'fullUs'): number | null => {
      const risen = rise(seenValue(before.pressure[want])?.[kind], seenValue(now.pressure[want])?.[kind])
      return risen === null ? null : Math.min(100, percent(risen / 1000, elapsedMs))
    }
    add('pressure.cpu', stalled('cpu', 'someUs'))
    add('pressure.memory', stalled('memory', 'someUs'))
    add('pressure.memory-full', stalled('memory', 'fullUs'))
    add('pressure.io', stalled('io', 'someUs'))
    add('pressure.io-full', stalled('io', 'fullUs'))
    driveValues(all, before, now, elapsedMs)
    nicValues(all, before, now, elapsedMs)
  }
  for (const { kernelName, active, wantedDevices, workingDevices } of seenValue(now.arrays) ?? [])
    if (active && wantedDevices !== null && workingDevices !== null)
      all.add('array.lacking', wantedDevices - workingDevices, atMs, { array: kernelName })
}

function driveValues(all: Collector, before: HostLook, now: HostLook, elapsedMs: number): void {
  const then = seenValue(before.drives)
  for (const [drive, counters] of seenValue(now.drives) ?? []) {
    const last = then?.get(drive)
    const risen = (name: keyof typeof counters) => rise(last?.[name], counters[name])
    const add = (metric: MetricName, value: number | null) => all.add(metric, value, now.atMs, { drive })
    const rate = (value: number | null) => (value === null ? null : (value * 1000) / elapsedMs)
    add('drive.read', rate(risen('readBytes')))
    add('drive.written', rate(risen('writtenBytes')))
    const busy = risen('busyMs')
    add('drive.busy', busy === null ? null : Math.min(100, percent(busy, elapsedMs)))
    const [reads, writes, readMs, writeMs] = [
      risen('reads'),
      risen('writes'),
      risen('readMs'),
      risen('writeMs'),
    ]
    const requests = reads === null || writes === null ? 0 : reads + writes
    if (requests > 0 && readMs !== null && writeMs !== null)
      add('drive.latency', (readMs + writeMs) / requests)
  }
}

function nicValues(all: Collector, before: HostLook, now: HostLook, elapsedMs: number): void {
  const then = seenValue(before.nics)
  for (const [nic, counters] of seenValue(now.nics) ?? []) {
    const last = then?.get(nic)
    const rate = (name: keyof typeof counters) => {
      const risen = rise(last?.[name], counters[name])
      return risen === null ? null : (risen * 1000) / elapsedMs
    }
    const add = (metric: MetricName, value: number | null) => all.add(metric, value, now.atMs, { nic })
    add('nic.received', rate('receivedBytes'))
    add('nic.sent', rate('sentBytes'))
    const lost = [rate('receiveErrors'), rate('receiveDrops'), rate('sendErrors'), rate('sendDrops')]
    add(
      'nic.errors',
      lost.reduce((sum, one) => (sum === null || one === null ? null : sum + one), 0),
    )
  }
}

function slowValues(all: Collector, before: SlowLook | null, now: SlowLook): void {
  const { filesystems, failedUnits, clock } = now
  if (filesystems !== null && filesystems.atMs !== before?.filesystems?.atMs)
    for (const { mountpoint, capacity } of seenValue(filesystems) ?? []) {
      if (capacity === null) continue
      const { sizeBytes, freeBytes, inodes, freeInodes } = capacity
      const add = (metric: MetricName, value: number | null) =>
        all.add(metric, value, filesystems.atMs, { filesystem: mountpoint })
      add('filesystem.free', freeBytes)
      add('filesystem.used', sizeBytes > 0 ? percent(sizeBytes - freeBytes, sizeBytes) : null)
      add('filesystem.inodes-used', inodes > 0 ? percent(inodes - freeInodes, inodes) : null)
    }
  if (failedUnits !== null && failedUnits.atMs !== before?.failedUnits?.atMs)
    all.add('units.failed', seenValue(failedUnits)?.length ?? null, failedUnits.atMs)
  if (clock !== null && clock.atMs !== before?.clock?.atMs) {
    const offsetMs = seenValue(clock)?.offsetMs ?? null
    all.add('clock.offset', offsetMs === null ? null : Math.abs(offsetMs), clock.atMs)
  }
}

const sum = (values: readonly (number | null | undefined)[]): number | null =>
  values.length === 0
    ? null
    : values.reduce<number | null>(
        (total, one) => (total === null || one === null || one === undefined ? null : total + one),
        0,
      )

/** What one VM uses now; null where nobody knows. */
export function useOf(vm: VmSample) {
  const cpuMs = vm.process?.value.counters.perSecond?.cpuMs ?? null
  const nics = vm.nics?.value ?? []
  const disks = vm.disks?.value ?? []
  return {
    cpuPercent: cpuMs === null ? null : cpuMs / 10,
    memoryBytes: vm.process?.value.residentBytes ?? null,
    readPerSecond: sum(disks.map(({ counters }) => counters.perSecond?.readBytes)),
    writtenPerSecond: sum(disks.map(({ counters }) => counters.perSecond?.writtenBytes)),
    receivedPerSecond: sum(nics.map(({ counters }) => counters?.perSecond?.receivedBytes)),
    sentPerSecond: sum(nics.map(({ counters }) => counters?.perSecond?.sentBytes)),
  }
}

function vmValues(all: Collector, before: Sample | null, now: Sample): void {
  const add = (metric: MetricName, value: number | null) => all.add(metric, value, now.atMs)
  if (now.listed !== null && !now.listed.stale) {
    add('vms.all', now.vms.length)
    add('vms.running', now.vms.filter(({ power }) => power?.value.power === 'running').length)
    add('vms.stuck', now.vms.filter(({ stuckSinceMs }) => stuckSinceMs !== null).length)
  }
  const last = new Map(before?.vms.map((vm) => [vm.uuid, vm]))
  for (const vm of now.vms) {
    const then = last.get(vm.uuid)
    const dimensions = { vm: vm.name, uuid: vm.uuid }
    const use = useOf(vm)
    const tell = (
      part: 'process' | 'nics' | 'disks',
      values: readonly (readonly [MetricName, number | null])[],
    ) => {
      const reading = vm[part]
      // The time of a reading is worked out from its age and may differ by rounding alone.
      if (reading === null || Math.abs(reading.atMs - (then?.[part]?.atMs ?? 0)) < 500) return
      for (const [metric, value] of values) all.add(metric, value, reading.atMs, dimensions)
    }
    tell('process', [
      ['vm.cpu', use.cpuPercent],
      ['vm.memory', use.memoryBytes],
    ])
    tell('nics', [
      ['vm.received', use.receivedPerSecond],
      ['vm.sent', use.sentPerSecond],
    ])
    tell('disks', [
      ['vm.read', use.readPerSecond],
      ['vm.written', use.writtenPerSecond],
    ])
  }
}

/** What a report says in numbers: what stands, and what the root side plans. */
export function reportValues(report: Report | null, atMs: number): readonly Datapoint[] {
  if (report === null) return []
  const all = new Collector()
  const { findings, drift } = report
  const found = (severity: Severity) => findings.filter((one) => one.severity === severity).length
  all.add('findings.high', found('high'), atMs)
  all.add('findings.warning', found('warning'), atMs)
  const standing = (wanted: Standing) =>
    drift?.resources.filter((one) => one.standing === wanted).length ?? null
  all.add('resources.drifted', standing('drifted'), atMs)
  all.add('resources.unknown', standing('unknown'), atMs)
  return all.points
}

function ownValues(all: Collector, before: OwnUse | null, { own, host: { atMs } }: Round): void {
  all.add('agent.memory', own.memoryBytes, atMs)
  all.add('agent.lag', own.lagMs, atMs)
  all.add('agent.files', own.files, atMs)
  const elapsedMs = before === null ? 0 : own.tickMs - before.tickMs
  if (before !== null && elapsedMs > 0)
    all.add('agent.cpu', percent(own.cpuMs - before.cpuMs, elapsedMs), atMs)
}
