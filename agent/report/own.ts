// What the daemon itself takes: getrusage(2) and /proc/self, as Node tells them.

import type { Clock } from './clock.ts'
import { unexpected } from './unexpected.ts'

/** What this process has taken. */
export interface OwnUse {
  readonly tickMs: number
  /** Anonymous memory. */
  readonly memoryBytes: number
  /** On any processor, since it began. */
  readonly cpuMs: number
  /** How much later than it should it came to this look. */
  readonly lagMs: number
  readonly files: number
}

/** What is needed to look at this process. */
export interface OwnUseOptions {
  readonly clock: Clock
  /** How often it is looked at. */
  readonly everyMs: number
  readonly memoryBytes: () => number
  readonly cpuMs: () => number
  /** Names in a folder; null when it is not there. */
  readonly list: (path: string) => readonly string[] | null
}

/**
 * The memory of a process that is its own, in bytes, from /proc/PID/status (proc(5)): the pages of its executable can be read again,
 * and how many of them are there is the kernel's choice. Throws `host.unexpected-answer`.
 */
export function anonymousBytes(text: string): number {
  const [, kibibytes] = /^RssAnon:\s+(\d+) kB$/m.exec(text) ?? []
  if (kibibytes === undefined) throw unexpected('/proc/self/status', text)
  return Number(kibibytes) * 1024
}

/** Looks at this process. */
export class OwnUseLooker {
  readonly #options: OwnUseOptions
  #lookedMs: number | null = null

  constructor(options: OwnUseOptions) {
    this.#options = options
  }

  /** Looks. */
  look(): OwnUse {
    const { clock, everyMs, memoryBytes, cpuMs, list } = this.#options
    const tickMs = clock.steadyMs()
    const lagMs = this.#lookedMs === null ? 0 : Math.max(0, tickMs - this.#lookedMs - everyMs)
    this.#lookedMs = tickMs
    const files = list('/proc/self/fd')?.length ?? 0
    return { tickMs, memoryBytes: memoryBytes(), cpuMs: cpuMs(), lagMs, files }
  }
}
