// When something that shrinks will be used up, by the straight line through what was measured.

/** One value and when it was so, epoch milliseconds. */
export interface Measured {
  readonly atMs: number
  readonly value: number
}

const leastSpanMs = 6 * 3_600_000
const leastPoints = 12
/** How much of what is measured the line must explain: space that goes up and down by the hour has no trend. */
const leastFit = 0.7

/**
 * How long after the last value it will be zero, in milliseconds, by least squares. Null where there is too little to tell (less than six
 * hours, a dozen values), where it does not shrink, or where no line fits.
 */
export function timeLeft(values: readonly Measured[]): number | null {
  const [first, last] = [values[0], values.at(-1)]
  if (first === undefined || last === undefined || values.length < leastPoints) return null
  if (last.atMs - first.atMs < leastSpanMs) return null
  const count = values.length
  const meanAt = values.reduce((sum, { atMs }) => sum + (atMs - first.atMs), 0) / count
  const meanValue = values.reduce((sum, { value }) => sum + value, 0) / count
  let [across, together, along] = [0, 0, 0]
  for (const { atMs, value } of values) {
    const [at, off] = [atMs - first.atMs - meanAt, value - meanValue]
    across += at * at
    together += at * off
    along += off * off
  }
  const slope = together / across
  if (!(slope < 0) || together ** 2 / (across * along) < leastFit) return null
  return last.value <= 0 ? 0 : last.value / -slope
}
