// What each drive has done since boot: /proc/diskstats (Documentation/admin-guide/iostats.rst).

import { unexpected } from '../unexpected.ts'

/** Counters of one drive or array; its partitions are left out. */
export interface DriveCounters {
  readonly reads: number
  readonly readBytes: number
  readonly readMs: number
  readonly writes: number
  readonly writtenBytes: number
  readonly writeMs: number
  /** How long at least one request was under way. */
  readonly busyMs: number
}

const sectorBytes = 512

/** Reads /proc/diskstats: everything that `isDrive` says is one, by its kernel name. */
export function parseDiskstats(
  text: string,
  isDrive: (name: string) => boolean,
): ReadonlyMap<string, DriveCounters> {
  const drives = new Map<string, DriveCounters>()
  for (const line of text.trimEnd().split('\n')) {
    if (line === '') continue
    const [, , name = '', ...rest] = line.trim().split(/\s+/)
    const [reads, , readSectors, readMs, writes, , writtenSectors, writeMs, , busyMs] = rest.map(Number)
    if (
      reads === undefined ||
      readSectors === undefined ||
      readMs === undefined ||
      writes === undefined ||
      writtenSectors === undefined ||
      writeMs === undefined ||
      busyMs === undefined ||
      rest.slice(0, 10).some((field) => !(Number(field) >= 0))
    )
      throw unexpected('/proc/diskstats', line)
    if (!isDrive(name)) continue
    drives.set(name, {
      reads,
      readBytes: readSectors * sectorBytes,
      readMs,
      writes,
      writtenBytes: writtenSectors * sectorBytes,
      writeMs,
      busyMs,
    })
  }
  return drives
}
