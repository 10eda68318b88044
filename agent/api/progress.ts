// How far long work has come: its rate over the last while, and what is left at that rate.

/** How far something is. `totalBytes` is null where nobody can tell; so are the rate and the time left. */
export interface Progress {
  readonly event: 'progress'
  /** What it is about: a VM, a disk of it, a file. */
  readonly subject: string
  /** What is done: `copying`, `reading back`, … */
  readonly doing: string
  readonly doneBytes: number
  readonly totalBytes: number | null
  readonly bytesPerSecond?: number | null
  readonly leftMs?: number | null
}

/** Whether a line of a stream says how far something is. */
export const isProgress = (line: object): line is Progress => 'event' in line && line.event === 'progress'

const windowMs = 10_000
/** A rate over less than this says nothing. */
const leastMs = 1000

/** Keeps what was told within the last ten seconds, and adds rate and time left to what is told next. */
export class Rate {
  #of = ''
  #marks: { readonly atMs: number; readonly bytes: number }[] = []

  /** The same with its rate and the time left. `atMs` is any clock that only goes forward. */
  told(progress: Progress, atMs: number): Progress {
    const { subject, doing, doneBytes, totalBytes } = progress
    const of = `${subject}\0${doing}`
    const last = this.#marks.at(-1)
    // Something else, or the same from its beginning.
    if (of !== this.#of || (last !== undefined && doneBytes < last.bytes)) this.#marks = []
    this.#of = of
    this.#marks.push({ atMs, bytes: doneBytes })
    while (this.#marks.length > 2 && atMs - (this.#marks[1]?.atMs ?? 0) >= windowMs) this.#marks.shift()
    const [first] = this.#marks
    const passedMs = first === undefined ? 0 : atMs - first.atMs
    const bytesPerSecond =
      first === undefined || passedMs < leastMs ? null : ((doneBytes - first.bytes) * 1000) / passedMs
    const leftMs =
      bytesPerSecond === null || bytesPerSecond <= 0 || totalBytes === null
        ? null
        : (Math.max(0, totalBytes - doneBytes) * 1000) / bytesPerSecond
    return {
      ...progress,
      bytesPerSecond: bytesPerSecond === null ? null : Math.round(bytesPerSecond),
      leftMs: leftMs === null ? null : Math.round(leftMs),
    }
  }
}
