// The often look at the host: what the kernel counts and anybody may read, at once and without waiting for anybody.

import { type MdstatArray, parseMdstat } from '../../../provisioning/array/mdstat.ts'
import type { Severity } from '../../../provisioning/resource.ts'
import type { Clock } from '../clock.ts'
import { type NicCounters, parseNetDev } from '../net-dev.ts'
import type { ReadNow } from '../process.ts'
import { type Seen, seen, seenValue } from '../seen.ts'
import { unexpected } from '../unexpected.ts'
import { type Load, type Processors, parseLoad, parseProcessors } from './cpu.ts'
import { type DriveCounters, parseDiskstats } from './drives.ts'
import { type Link, Links } from './links.ts'
import { type HostMemory, parseMemory, parseOomKills } from './memory.ts'
import { type Pressure, parsePressure } from './pressure.ts'
import { parseTaint } from './taint.ts'

/** What is short when tasks stand still. */
export const WANTS = ['cpu', 'memory', 'io'] as const

/** One of `WANTS`. */
export type Want = (typeof WANTS)[number]

/** What was seen in one look. What is null the kernel does not have. */
export interface HostLook {
  readonly atMs: number
  /** On the steady clock. */
  readonly tickMs: number
  readonly processors: Seen<Processors>
  readonly load: Seen<Load>
  readonly memory: Seen<HostMemory>
  readonly oomKills: Seen<number | null>
  readonly pressure: Readonly<Record<Want, Seen<Pressure | null>>>
  /** By the kernel's names; arrays among them. */
  readonly drives: Seen<ReadonlyMap<string, DriveCounters>>
  /** Of the NICs of the host. */
  readonly nics: Seen<ReadonlyMap<string, NicCounters>>
  readonly links: Seen<readonly Link[]>
  readonly arrays: Seen<readonly MdstatArray[]>
  readonly taint: Seen<readonly { readonly severity: Severity; readonly text: string }[]>
}

/** What the often look needs. */
export interface HostLookOptions {
  readonly read: ReadNow
  /** Names in a folder; null when it is not there. */
  readonly list: (path: string) => readonly string[] | null
  readonly exists: (path: string) => boolean
  readonly clock: Clock
}

/** Block devices that are no drives: what lies on drives, in memory, or comes and goes. */
const noDrive = /^(loop|ram|zram|sr|fd|nbd|dm-)/

/** Looks at this host. */
export class HostLooker {
  readonly #options: HostLookOptions
  readonly #links: Links

  constructor(options: HostLookOptions) {
    this.#options = options
    this.#links = new Links(options)
  }

  /** Looks once. */
  look(): HostLook {
    const { clock, list } = this.#options
    const drives = new Set(list('/sys/block')?.filter((name) => !noDrive.test(name)))
    const nics = seen(() => {
      const all = parseNetDev(this.#text('/proc/net/dev'))
      return new Map(
        this.#links.nicsOf(all.keys()).flatMap((name) => {
          const counters = all.get(name)
          return counters === undefined ? [] : [[name, counters] as const]
        }),
      )
    })
    return {
      atMs: clock.epochMs(),
      tickMs: clock.steadyMs(),
      processors: seen(() => parseProcessors(this.#text('/proc/stat'))),
      load: seen(() => parseLoad(this.#text('/proc/loadavg'))),
      memory: seen(() => parseMemory(this.#text('/proc/meminfo'))),
      oomKills: seen(() => parseOomKills(this.#text('/proc/vmstat'))),
      pressure: { cpu: this.#pressure('cpu'), memory: this.#pressure('memory'), io: this.#pressure('io') },
      drives: seen(() => parseDiskstats(this.#text('/proc/diskstats'), (name) => drives.has(name))),
      nics,
      links: seen(() => [...(seenValue(nics)?.keys() ?? [])].flatMap((name) => this.#links.look(name) ?? [])),
      arrays: seen(() => parseMdstat(this.#options.read('/proc/mdstat') ?? '')),
      taint: seen(() => parseTaint(this.#text('/proc/sys/kernel/tainted'))),
    }
  }

  #text(path: string): string {
    const text = this.#options.read(path)
    if (text === null) throw unexpected(path, 'nothing: it is not there')
    return text
  }

  /** A kernel may be built without it, or started with `psi=0`: then the files are not there, or cannot be read (EOPNOTSUPP). */
  #pressure(want: Want): Seen<Pressure | null> {
    const path = `/proc/pressure/${want}`
    return seen(() => {
      const text = this.#options.read(path)
      return text === null || text === '' ? null : parsePressure(path, text)
    })
  }
}
