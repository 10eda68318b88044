// How much memory is left, from /proc/meminfo, and whom the kernel ended for lack of it, from /proc/vmstat (proc(5)).

import { unexpected } from '../unexpected.ts'

/** The memory of the host. */
export interface HostMemory {
  readonly totalBytes: number
  /** What could be had without swapping. */
  readonly availableBytes: number
  readonly swapTotalBytes: number
  readonly swapFreeBytes: number
}

const path = '/proc/meminfo'

/** Reads /proc/meminfo. */
export function parseMemory(text: string): HostMemory {
  const bytes = (name: string): number => {
    const found = new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1]
    if (found === undefined) throw unexpected(path, text)
    return Number(found) * 1024
  }
  return {
    totalBytes: bytes('MemTotal'),
    availableBytes: bytes('MemAvailable'),
    swapTotalBytes: bytes('SwapTotal'),
    swapFreeBytes: bytes('SwapFree'),
  }
}

/** How many processes the kernel has ended since boot because there was no memory; null where it does not count them (before 4.13). */
export function parseOomKills(text: string): number | null {
  if (!/^pgfault \d+$/m.test(text)) throw unexpected('/proc/vmstat', text)
  const found = /^oom_kill (\d+)$/m.exec(text)?.[1]
  return found === undefined ? null : Number(found)
}
