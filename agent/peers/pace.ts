// How fast things go between peers, and how much of anything there may be.

/** Intervals and deadlines of the mesh, in milliseconds. */
export interface Pace {
  /** How often links are looked after. */
  readonly tickMs: number
  /** A peer that is silent for so long is pinged, and taken for gone at `silentMs`. */
  readonly pingMs: number
  readonly silentMs: number
  /** A peer that leaves `stalledBytes` unread for so long is cut off. */
  readonly stalledMs: number
  /** A new connection must say hello by then, and a report be taken by then. */
  readonly helloMs: number
  readonly takenMs: number
  /** Of the two that could dial, the one whose name is higher waits so long first. */
  readonly courtesyMs: number
  /** Between two tries: a random time up to a limit that doubles from the least to the most. */
  readonly leastRedialMs: number
  readonly mostRedialMs: number
  /** How often it is asked when a missing host was seen. */
  readonly askMs: number
}

/** What hosts use. */
export const usualPace: Pace = {
  tickMs: 1000,
  pingMs: 10_000,
  silentMs: 25_000,
  stalledMs: 10_000,
  helloMs: 5000,
  takenMs: 30_000,
  courtesyMs: 1000,
  leastRedialMs: 1000,
  mostRedialMs: 60_000,
  askMs: 30_000,
}

/** What may wait unsent for one peer before nothing is added that can wait. */
export const stalledBytes = 65_536
/** What may wait unsent for one peer before it is cut off at once. */
export const mostUnsentBytes = 4 * 2 ** 20

/** A measure that fills up again at `perSecond` to at most `burst`. */
export class Allowance {
  readonly #burst: number
  readonly #perSecond: number
  #left: number
  #atMs: number

  constructor(burst: number, perSecond: number, nowMs: number) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#left = burst
    this.#atMs = nowMs
  }

  /** Takes `amount` if it is there; answers whether it was. Time is steady milliseconds. */
  take(amount: number, nowMs: number): boolean {
    this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#atMs) / 1000) * this.#perSecond)
    this.#atMs = nowMs
    if (this.#left < amount) return false
    this.#left -= amount
    return true
  }
}

/** How many messages one peer may say: more than `eventsSent` allows the other side, and reports beside them. */
export const messagesTaken = { burst: 4000, perSecond: 400 } as const
/** How many bytes one peer may say. */
export const bytesTaken = { burst: 16 * 2 ** 20, perSecond: 2 ** 20 } as const
/** What is told of events to one peer; what is above it is counted and not told: an event is a hint, the next report says it all. */
export const eventsSent = { burst: 1000, perSecond: 200 } as const
