// VMs that are not asked for a while, since the last question to them was not answered: each longer than before, until they answer.

/** How long one is left alone: `leastMs` at first, doubled each time up to `mostMs`. */
export interface SkipOptions {
  readonly leastMs: number
  readonly mostMs: number
}

interface Skipped {
  readonly sinceMs: number
  readonly waitMs: number
  readonly dueMs: number
}

/** Who is skipped, by their ids. Times are those of any clock that does not go back. */
export class SkipList {
  readonly #options: SkipOptions
  readonly #skipped = new Map<string, Skipped>()

  constructor(options: SkipOptions) {
    this.#options = options
  }

  /** How many are skipped. */
  get size(): number {
    return this.#skipped.size
  }

  /** It has not answered, for the first time or again. */
  add(id: string, nowMs: number): void {
    const { leastMs, mostMs } = this.#options
    const before = this.#skipped.get(id)
    const waitMs = before === undefined ? leastMs : Math.min(before.waitMs * 2, mostMs)
    this.#skipped.set(id, { sinceMs: before?.sinceMs ?? nowMs, waitMs, dueMs: nowMs + waitMs })
  }

  /** It has answered, or is another one now, or is gone. */
  remove(id: string): void {
    this.#skipped.delete(id)
  }

  /** Since when it is skipped; null when it is not. */
  since(id: string): number | null {
    return this.#skipped.get(id)?.sinceMs ?? null
  }

  /** Those that may be asked again, who waited longest first. */
  due(nowMs: number): readonly string[] {
    return [...this.#skipped]
      .filter(([, { dueMs }]) => dueMs <= nowMs)
      .sort(([, a], [, b]) => a.dueMs - b.dueMs)
      .map(([id]) => id)
  }
}
