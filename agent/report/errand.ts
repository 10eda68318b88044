// What travels when a host that cannot reach the Region has a peer speak to CloudWatch for it: an errand, and what came of it.

import { METRICS } from '../../provisioning/metrics.ts'
import { HostError, type ProblemCode, problems } from '../../provisioning/problem.ts'
import { type Check, isCount, isEither, isList, isNull, isShaped, isText } from '../../provisioning/shape.ts'
import { seriesOfKey } from './rollup.ts'
import type { Outcome } from './sending.ts'
import type { Datum, Row, SpooledEvent } from './spool.ts'

/** Where the rows belong. The peer holds all of it against what it is told itself, and against what it knows of the host that asks. */
export interface Place {
  readonly region: string
  readonly host: string
  readonly instance: string
  /** The namespace of datapoints, or the log group of events. */
  readonly into: string
}

/** What a host asks of a peer: to send rows (`put`), or to ask whether they have arrived (`ask`). */
export type Errand = {
  readonly do: 'put' | 'ask'
  readonly place: Place
  /** The true time as the host that asks knows it: what is sent is signed with it. */
  readonly nowMs: number
} & (
  | { readonly queue: 'datums'; readonly rows: readonly Datum[] }
  | { readonly queue: 'events'; readonly rows: readonly SpooledEvent[] }
)

const isTextUpTo =
  (most: number): Check =>
  (value) =>
    typeof value === 'string' && value.length <= most
/** An event begins with its id, by which it is found again. */
const isBody: Check = (value) => isTextUpTo(400_000)(value) && String(value).startsWith('{"id":"')
const isNumber: Check = (value) => typeof value === 'number' && Number.isFinite(value)
const isSeries: Check = (value) => {
  if (typeof value !== 'string' || value.length > 2048) return false
  const { metric, part } = seriesOfKey(value)
  return Object.hasOwn(METRICS, metric) && (part === null || part.scope === METRICS[metric].per)
}
const isDatum = isShaped({
  ...{ id: isCount, atMs: isNumber, series: isSeries, count: isCount, sum: isNumber },
  ...{ low: isNumber, high: isNumber },
})
const isEvent = isShaped({
  ...{
    id: isCount,
    atMs: isNumber,
    key: isText(/^[0-9a-f-]{1,40}$/),
    body: isBody,
  },
})
const shared = {
  do: (value: unknown) => value === 'put' || value === 'ask',
  place: isShaped({
    ...{
      region: isText(/^[a-z0-9-]{1,40}$/),
      host: isTextUpTo(255),
      instance: isTextUpTo(255),
    },
    into: isTextUpTo(512),
  }),
  nowMs: isNumber,
}

/** Whether something that a peer asks for is a whole errand. */
export const isErrand: Check = isEither(
  isShaped({ ...shared, queue: (value) => value === 'datums', rows: isList(1000, isDatum) }),
  isShaped({ ...shared, queue: (value) => value === 'events', rows: isList(5000, isEvent) }),
)

const isTime = isEither(isNull, isNumber)
const problem = { code: isText(/^cloudwatch\.[a-z-]+$/), message: isTextUpTo(2000) }
const isOutcome = (kind: string, shape: Readonly<Record<string, Check>>): Check =>
  isShaped({ kind: (value) => value === kind, serverMs: isTime, ...shape })
const isAnswer = isEither(
  isOutcome('accepted', { rejected: isList(5000, isCount) }),
  isOutcome('refused', { why: isTextUpTo(2000) }),
  isOutcome('failed', problem),
  isOutcome('unanswered', problem),
)

/** An outcome as it travels. */
export function outcomeTold(outcome: Outcome): object {
  if (!('problem' in outcome)) return outcome
  const { kind, serverMs, problem: why } = outcome
  return { kind, serverMs, code: why.code, message: why.message }
}

/** The outcome that a peer tells of rows; null when it is none, so that nobody can tell what became of them. */
export function outcomeIn(told: unknown, rows: readonly Row[]): Outcome | null {
  if (!isAnswer(told)) return null
  const { kind } = told as Outcome
  if (kind === 'accepted') {
    const ids = new Set(rows.map(({ id }) => id))
    const accepted = told as Extract<Outcome, { kind: 'accepted' }>
    return accepted.rejected.every((id) => ids.has(id)) ? accepted : null
  }
  if (kind === 'refused') return told as Outcome
  const { code, message, serverMs } = told as {
    readonly code: string
    readonly message: string
    readonly serverMs: number | null
  }
  if (!Object.hasOwn(problems(), code)) return null
  return { kind, serverMs, problem: new HostError(code as ProblemCode, message) }
}

/** Which of the rows are there, as a peer tells; null when that is no answer. */
export function thereIn(told: unknown, rows: readonly Row[]): ReadonlySet<number> | null {
  if (!isShaped({ there: isList(5000, isCount) })(told)) return null
  const there = new Set((told as { readonly there: readonly number[] }).there)
  return new Set(rows.map(({ id }) => id).filter((id) => there.has(id)))
}
