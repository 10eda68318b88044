// What the processors have done since boot, from /proc/stat, and how long the queue to them is, from /proc/loadavg (proc(5)).

import { unexpected } from '../unexpected.ts'

/** Clock ticks since boot, all processors together. Time of guests is within `busy`. */
export interface CpuTicks {
  readonly total: number
  /** All but idle and waiting for drives. */
  readonly busy: number
  /** What the hypervisor gave to others while somebody here wanted to run. */
  readonly steal: number
  /** Nothing to do but wait for drives. */
  readonly ioWait: number
}

/** /proc/stat as far as it is read. */
export interface Processors {
  readonly ticks: CpuTicks
  readonly processors: number
  /** Epoch milliseconds, by the clock as it is set now. */
  readonly bootedMs: number
}

const path = '/proc/stat'

/** Reads /proc/stat. */
export function parseProcessors(text: string): Processors {
  const [, ...fields] = /^cpu +(.*)$/m.exec(text)?.[0].split(/\s+/) ?? []
  const booted = Number(/^btime (\d+)$/m.exec(text)?.[1])
  // Guest time, the ninth and tenth, is counted in user and nice already.
  const numbers = fields.slice(0, 8).map(Number)
  const [user, nice, system, idle, ioWait, irq, softIrq, steal] = numbers
  if (
    user === undefined ||
    nice === undefined ||
    system === undefined ||
    idle === undefined ||
    ioWait === undefined ||
    irq === undefined ||
    softIrq === undefined ||
    steal === undefined ||
    numbers.some((number) => !(number >= 0)) ||
    !(booted >= 0)
  )
    throw unexpected(path, text)
  const busy = user + nice + system + irq + softIrq
  return {
    ticks: { total: busy + idle + ioWait + steal, busy, steal, ioWait },
    processors: text.match(/^cpu\d+ /gm)?.length ?? 1,
    bootedMs: booted * 1000,
  }
}

/** How many tasks run or wait, averaged over one and fifteen minutes. */
export interface Load {
  readonly one: number
  readonly fifteen: number
}

/** Reads /proc/loadavg. */
export function parseLoad(text: string): Load {
  const [one = Number.NaN, , fifteen = Number.NaN] = text.split(' ').map(Number)
  if (!(one >= 0) || !(fifteen >= 0)) throw unexpected('/proc/loadavg', text)
  return { one, fifteen }
}
