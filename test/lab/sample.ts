// Long enumerations: whole in a full run, else a few cases of each, drawn by a seed that is the day's unless it is given.
import { seeded } from '../unit/simulated-host.ts'

const full = process.env.GARRISON_LAB_FULL !== undefined

/** What the cases of this run are drawn by; `GARRISON_LAB_SEED` repeats those of another day. */
export const seed = Number(process.env.GARRISON_LAB_SEED ?? Math.floor(Date.now() / 86_400_000))

/** Numbers from 0 to 1, the same for the same seed. */
export const random = seeded(seed)

/** All cases in a full run, else `count` of them, in their order. */
export function sample<Case>(cases: readonly Case[], count: number): readonly Case[] {
  if (full) return cases
  const drawn = new Set(
    cases
      .map((one) => [random(), one] as const)
      .sort(([a], [b]) => a - b)
      .slice(0, count)
      .map(([, one]) => one),
  )
  return cases.filter((one) => drawn.has(one))
}
