// How fast counters rise between two looks.

/** What the values of counters are: whole numbers that rise, or null where one is not known. */
export type Counters<C> = { readonly [K in keyof C]: number | null }

/** Counters and how fast they rose since the look before; null where that cannot be told. */
export interface Counted<C> {
  readonly total: C
  readonly perSecond: Counters<C> | null
}

/** The look before: `life` is different when the counters began anew, as those of a VM that was restarted. */
export interface Before<C> {
  readonly total: C
  readonly life: string
  readonly tickMs: number
}

/**
 * Sets counters beside those of the look before, null when there was none. One that has gone back was reset, so nobody can
 * tell how fast it rose; no number is made up.
 */
export function counted<C extends Counters<C>>(
  before: Before<C> | null,
  { total, life, tickMs }: Before<C>,
): Counted<C> {
  const elapsedMs = before === null ? 0 : tickMs - before.tickMs
  if (before === null || before.life !== life || elapsedMs <= 0) return { total, perSecond: null }
  const rates = Object.entries<number | null>(total).map(([name, now]) => {
    const then = before.total[name as keyof C]
    const known = now !== null && then !== null && then !== undefined && now >= then
    return [name, known ? ((now - then) * 1000) / elapsedMs : null]
  })
  return { total, perSecond: Object.fromEntries(rates) }
}
