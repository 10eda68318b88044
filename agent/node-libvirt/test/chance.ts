// Chance that can be had again: the same seed gives the same numbers.

/** A source of numbers. */
export interface Chance {
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number
  /** One of the values. */
  of<T>(values: readonly T[]): T
}

/** A linear feedback of 32 bits (xorshift): enough to vary inputs. */
export function chance(seed: number): Chance {
  let bits = seed | 0 || 1
  const below = (limit: number) => {
    bits ^= bits << 13
    bits ^= bits >>> 17
    bits ^= bits << 5
    return (bits >>> 0) % limit
  }
  return { below, of: (values) => values[below(values.length)] as (typeof values)[number] }
}

/** How many inputs fuzzing tries: `LIBVIRT_FUZZ`, or as many as take a few seconds. */
export const fuzzCount = Number(process.env.LIBVIRT_FUZZ ?? 20_000)
