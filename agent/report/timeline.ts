// Time for what waits on the disk: one axis for each boot, which nobody sets, and what has to be added to it to get the true time.
//
// INVARIANTS
// - Ticks of one boot never go back and never repeat, however the clock is set and however often the daemon is started.
// - The true time is that of the clock while it agrees with the server; a server that disagrees is believed.

/** The time since the boot, the same for every process; another `boot` each time that the machine starts. */
export interface Uptime {
  readonly boot: string
  ms(): number
}

/** A clock that is this far off gets no less right by the server's date, which tells seconds and was under way. */
const toleranceMs = 10_000

/** The axis of one boot. */
export class Timeline {
  readonly #uptime: Uptime
  readonly #epochMs: () => number
  /** What the clock told when the axis was begun, less the uptime then. */
  readonly #beganMs: number
  /** The server's time less the tick, as it was last heard. */
  #serverMs: number | null = null
  #offsetMs: number

  /** `beganMs` and `offsetMs`: as they were before this process, or null for a boot that is seen for the first time. */
  constructor(
    uptime: Uptime,
    epochMs: () => number,
    before: { readonly beganMs: number; readonly offsetMs: number } | null,
  ) {
    this.#uptime = uptime
    this.#epochMs = epochMs
    this.#beganMs = before?.beganMs ?? Math.round(epochMs() - uptime.ms())
    this.#offsetMs = before?.offsetMs ?? 0
  }

  get beganMs(): number {
    return this.#beganMs
  }

  /** Milliseconds on the axis. It began as the clock did, so that the two mostly agree. */
  tick(): number {
    return this.#beganMs + this.#uptime.ms()
  }

  /** What makes a tick the true time. It changes only by what matters, so that two spans do not fall into one. */
  get offsetMs(): number {
    const local = this.#epochMs() - this.tick()
    const truly =
      this.#serverMs !== null && Math.abs(this.#serverMs - local) > toleranceMs ? this.#serverMs : local
    if (Math.abs(truly - this.#offsetMs) > toleranceMs) this.#offsetMs = Math.round(truly)
    return this.#offsetMs
  }

  /** The true time as it is best known, epoch milliseconds. */
  nowMs(): number {
    return this.tick() + this.offsetMs
  }

  /** How far the clock is from the server's; 0 while that is within what can be told. */
  get skewMs(): number {
    const skew = this.#epochMs() - this.nowMs()
    return Math.abs(skew) > toleranceMs ? skew : 0
  }

  /** Takes over what a server said that the time is (epoch milliseconds), in answer to what was asked at a tick. */
  hear(serverMs: number, askedTick: number): void {
    const tick = this.tick()
    // It was said at some moment in between, and that may be long.
    const isSo = (offsetMs: number): boolean =>
      offsetMs >= serverMs - tick - toleranceMs && offsetMs <= serverMs - askedTick + toleranceMs
    const local = this.#epochMs() - tick
    // Kept to the millisecond, so that a clock that is set wrong after this is known at once.
    if (isSo(local)) this.#serverMs = local
    else if (this.#serverMs === null || !isSo(this.#serverMs))
      this.#serverMs = serverMs - (askedTick + tick) / 2
  }
}
