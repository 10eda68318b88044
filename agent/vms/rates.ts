// What a VM uses a second, from two samples of libvirt's counters (virConnectGetAllDomainStats).

import type { TypedParams } from '../node-libvirt/index.ts'

/** Counters of one VM at one moment; null is what libvirt did not tell. Devices are told apart by their names. */
export interface Sample {
  readonly atMs: number
  readonly cpuNs: number | null
  readonly memoryBytes: number | null
  readonly residentBytes: number | null
  readonly nics: Readonly<Record<string, { readonly received: number; readonly sent: number }>>
  readonly disks: Readonly<
    Record<
      string,
      { readonly read: number; readonly written: number; readonly reads: number; readonly writes: number }
    >
  >
}

/** What is used a second; null where two samples do not tell. `cpuPercent`: 100 is one processor of the host, whole. */
export interface Rates {
  readonly cpuPercent: number | null
  readonly receivedPerSecond: number | null
  readonly sentPerSecond: number | null
  readonly readPerSecond: number | null
  readonly writtenPerSecond: number | null
  readonly readsPerSecond: number | null
  readonly writesPerSecond: number | null
}

/** No rate is known. */
export const noRates: Rates = {
  cpuPercent: null,
  receivedPerSecond: null,
  sentPerSecond: null,
  readPerSecond: null,
  writtenPerSecond: null,
  readsPerSecond: null,
  writesPerSecond: null,
}

const numberOf = (params: TypedParams, name: string): number | null => {
  const value = params[name]
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : null
}

/** The devices of a group (`net`, `block`), each by its name in `params`, or else its number. */
function devices<T>(
  params: TypedParams,
  group: string,
  read: (prefix: string) => T,
): Readonly<Record<string, T>> {
  // libvirt lists no more than this, and what says how many there are is only a number from outside.
  const count = Math.min(numberOf(params, `${group}.count`) ?? 0, 4096)
  const found: Record<string, T> = Object.create(null)
  for (let at = 0; at < count; at += 1) {
    const prefix = `${group}.${at}`
    found[String(params[`${prefix}.name`] ?? at)] = read(prefix)
  }
  return found
}

const kibibytes = (value: number | null): number | null => value && value * 1024

/** Reads a sample out of the statistics of one domain. */
export const sampleOf = (params: TypedParams, atMs: number): Sample => ({
  atMs,
  cpuNs: numberOf(params, 'cpu.time'),
  memoryBytes: kibibytes(numberOf(params, 'balloon.current')),
  residentBytes: kibibytes(numberOf(params, 'balloon.rss')),
  nics: devices(params, 'net', (prefix) => ({
    received: numberOf(params, `${prefix}.rx.bytes`) ?? 0,
    sent: numberOf(params, `${prefix}.tx.bytes`) ?? 0,
  })),
  disks: devices(params, 'block', (prefix) => ({
    read: numberOf(params, `${prefix}.rd.bytes`) ?? 0,
    written: numberOf(params, `${prefix}.wr.bytes`) ?? 0,
    reads: numberOf(params, `${prefix}.rd.reqs`) ?? 0,
    writes: numberOf(params, `${prefix}.wr.reqs`) ?? 0,
  })),
})

/** Whether libvirt could ask the guest's process: of one that is busy it tells next to nothing. */
export const isWhole = ({ cpuNs }: Sample): boolean => cpuNs !== null

/**
 * What was used between two samples of one VM. A counter that went back began anew, and a device that only one sample has was
 * plugged in or out meanwhile: neither tells anything.
 */
export function ratesOf(before: Sample, now: Sample): Rates {
  const seconds = (now.atMs - before.atMs) / 1000
  if (seconds <= 0) return noRates
  const since = (from: number | undefined, to: number | undefined): number | null =>
    from === undefined || to === undefined || to < from ? null : (to - from) / seconds
  const sum = <D>(
    was: Readonly<Record<string, D>>,
    is: Readonly<Record<string, D>>,
    counter: (device: D) => number,
  ): number | null => {
    const rates = Object.keys(is).flatMap((name) => {
      const [from, to] = [was[name], is[name]]
      if (from === undefined || to === undefined) return []
      return since(counter(from), counter(to)) ?? []
    })
    return rates.length === 0 ? null : rates.reduce((total, rate) => total + rate, 0)
  }
  const cpuNs = since(before.cpuNs ?? undefined, now.cpuNs ?? undefined)
  return {
    cpuPercent: cpuNs === null ? null : cpuNs / 1e7,
    receivedPerSecond: sum(before.nics, now.nics, ({ received }) => received),
    sentPerSecond: sum(before.nics, now.nics, ({ sent }) => sent),
    readPerSecond: sum(before.disks, now.disks, ({ read }) => read),
    writtenPerSecond: sum(before.disks, now.disks, ({ written }) => written),
    readsPerSecond: sum(before.disks, now.disks, ({ reads }) => reads),
    writesPerSecond: sum(before.disks, now.disks, ({ writes }) => writes),
  }
}
