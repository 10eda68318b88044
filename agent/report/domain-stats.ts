// What libvirt's bulk statistics say of one VM, by the names of virConnectGetAllDomainStats.

import type { StatsParams } from './questions.ts'

/** What the balloon knows. What the guest itself tells is null when it has told nothing. */
export interface Memory {
  /** What the VM has now, and may have. */
  readonly currentBytes: number
  readonly maximumBytes: number
  /** When the guest last told, in epoch milliseconds by the clock of this host; null when it never did, or is not asked to. */
  readonly toldMs: number | null
  /** What the guest does not use at all, and what it could have without swapping. */
  readonly unusedBytes: number | null
  readonly usableBytes: number | null
  readonly swapInBytes: number | null
  readonly swapOutBytes: number | null
}

/** What a disk has done since its VM was started. */
export interface DiskCounters {
  readonly reads: number | null
  readonly readBytes: number | null
  /** How long reads took, all of them together. */
  readonly readMs: number | null
  readonly writes: number | null
  readonly writtenBytes: number | null
  readonly writeMs: number | null
  readonly flushes: number | null
  readonly flushMs: number | null
}

/** A disk. Sizes are null when nobody knows them. */
export interface Disk {
  /** Its name in the VM's definition, as `vda`. */
  readonly target: string
  /** Where it is; null when it is empty. */
  readonly source: string | null
  readonly capacityBytes: number | null
  readonly allocationBytes: number | null
  readonly counters: DiskCounters
}

/** A value as a number: beyond 2^53 the last digits are lost, which no rate shows. */
const numberOf = (params: StatsParams, field: string): number | null => {
  const value = params[field]
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : null
}

const scaled = (params: StatsParams, field: string, by: number): number | null => {
  const value = numberOf(params, field)
  return value === null ? null : value * by
}

const textOf = (params: StatsParams, field: string): string | null => {
  const value = params[field]
  return typeof value === 'string' ? value : null
}

const places = (params: StatsParams, group: string): readonly string[] =>
  Array.from({ length: numberOf(params, `${group}.count`) ?? 0 }, (_, at) => `${group}.${at}`)

/**
 * Whether QEMU was asked what it was to be. With NOWAIT libvirt leaves out what it would have had to wait for, and says nothing
 * of it: then no disk has a count, and no balloon the memory of its QEMU, which it has in every other case.
 */
export const isWhole = (params: StatsParams): boolean =>
  (params['balloon.current'] === undefined || params['balloon.rss'] !== undefined) &&
  (!params['block.count'] || places(params, 'block').some((disk) => params[`${disk}.rd.reqs`] !== undefined))

const kibibyte = 1024
const perNanosecond = 1e-6

/** The group `balloon`; null when it was not asked for. */
export function memoryOf(params: StatsParams): Memory | null {
  const size = (field: string) => scaled(params, `balloon.${field}`, kibibyte)
  const [currentBytes, maximumBytes] = [size('current'), size('maximum')]
  if (currentBytes === null || maximumBytes === null) return null
  return {
    currentBytes,
    maximumBytes,
    // 0 says that the guest has never told.
    toldMs: scaled(params, 'balloon.last-update', 1000) || null,
    unusedBytes: size('unused'),
    usableBytes: size('usable'),
    swapInBytes: size('swap_in'),
    swapOutBytes: size('swap_out'),
  }
}

/** The group `block`. */
export const disksOf = (params: StatsParams): readonly Disk[] =>
  places(params, 'block').map((disk) => ({
    target: textOf(params, `${disk}.name`) ?? '',
    source: textOf(params, `${disk}.path`),
    capacityBytes: numberOf(params, `${disk}.capacity`),
    allocationBytes: numberOf(params, `${disk}.allocation`),
    counters: {
      reads: numberOf(params, `${disk}.rd.reqs`),
      readBytes: numberOf(params, `${disk}.rd.bytes`),
      readMs: scaled(params, `${disk}.rd.times`, perNanosecond),
      writes: numberOf(params, `${disk}.wr.reqs`),
      writtenBytes: numberOf(params, `${disk}.wr.bytes`),
      writeMs: scaled(params, `${disk}.wr.times`, perNanosecond),
      flushes: numberOf(params, `${disk}.fl.reqs`),
      flushMs: scaled(params, `${disk}.fl.times`, perNanosecond),
    },
  }))

/** The devices of the host that the VM's NICs are, from the group `interface`; null when it was not asked for. */
export const devicesOf = (params: StatsParams): readonly string[] | null =>
  params['net.count'] === undefined
    ? null
    : places(params, 'net').flatMap((nic) => textOf(params, `${nic}.name`) ?? [])
