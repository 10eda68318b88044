// The verb `history`: how a metric went, as a chart.

import { METRICS, type MetricName, type Scope, type Unit } from '../../provisioning/metrics.ts'
import { HostError } from '../../provisioning/problem.ts'
import { columns, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { amount } from '../report/amounts.ts'
import type { Point } from '../report/history.ts'
import { chartRows, niceTop } from './chart.ts'
import type { DaemonContext } from './daemon-context.ts'
import { sinceMs as momentOf } from './journal.ts'

/** One metric that there is. */
interface Listed {
  readonly metric: string
  readonly unit: Unit
  readonly per: Scope
  readonly meaning: string
}

/** The answer of `history`. */
export type HistoryAnswer =
  | { readonly metric: null; readonly metrics: readonly Listed[] }
  | {
      readonly metric: MetricName
      readonly part: string | null
      readonly unit: Unit
      readonly sinceMs: number
      readonly untilMs: number
      readonly everyMs: number
      readonly points: readonly Point[]
    }

const verb = 'history'
const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

/** The part that is meant: the named one, or the only one that there is. */
function partOf(
  metric: MetricName,
  of: string | undefined,
  { history }: Pick<DaemonContext, 'history'>,
): string | null {
  const { per } = METRICS[metric]
  if (per === 'host') {
    if (of === undefined) return null
    throw invalid(`${metric} is of the host as a whole and takes no --of`)
  }
  const parts = history.partsOf(metric)
  if (of !== undefined && parts.includes(of)) return of
  const [only] = parts
  if (of === undefined && only !== undefined && parts.length === 1) return only
  const known = parts.length === 0 ? 'none is known yet' : `one of ${parts.slice(0, 20).join(', ')}`
  throw invalid(
    of === undefined ? `${metric} needs --of with a ${per}: ${known}` : `there is no ${per} ${of}: ${known}`,
  )
}

/** Reads what was measured. */
export async function run(
  context: Pick<DaemonContext, 'clock' | 'history'>,
  { metric, of, since }: Args<'history'>,
): Promise<HistoryAnswer> {
  if (metric === undefined) {
    const metrics = Object.entries(METRICS).map(([name, { unit, per, meaning }]) => ({
      ...{ metric: name, unit, per, meaning },
    }))
    return { metric: null, metrics }
  }
  if (!Object.hasOwn(METRICS, metric))
    throw invalid(`there is no metric ${metric}; garrison history names them all`)
  const name = metric as MetricName
  const part = partOf(name, of, context)
  const untilMs = context.clock()
  const query = { metric: name, part: part ?? undefined, sinceMs: momentOf(since ?? '6h', untilMs, verb) }
  return {
    metric: name,
    part,
    unit: METRICS[name].unit,
    sinceMs: query.sinceMs,
    untilMs,
    everyMs: context.history.everyMs(query, untilMs),
    points: context.history.read(query, untilMs),
  }
}

const chartHeight = 8

function chart(answer: Extract<HistoryAnswer, { points: unknown }>, terminal: Terminal): string {
  const { metric, part, unit, sinceMs, untilMs, everyMs, points } = answer
  const title = paint(terminal, 'strong', part === null ? metric : `${metric} of ${part}`)
  const last = points.at(-1)
  if (last === undefined) return paragraph('', `${title}: nothing was measured since ${moment(sinceMs)}.`, 0)
  const low = Math.min(...points.map((one) => one.low))
  const high = Math.max(...points.map((one) => one.high))
  const all = points.reduce((sum, { count }) => sum + count, 0)
  const mean = points.reduce((sum, { mean: value, count }) => sum + value * count, 0) / all
  const top =
    unit === 'percent' && high > 50
      ? Math.max(100, high)
      : niceTop(high, unit.startsWith('bytes') ? 1024 : 10)
  const labels = [amount(unit, top), amount(unit, top / 2), amount(unit, 0)]
  const width = Math.max(...labels.map((label) => label.length))
  const spanMs = untilMs - sinceMs
  // What is measured every five minutes is no gap of four.
  const holdsMs = Math.max(everyMs, METRICS[metric].everySeconds * 1000)
  const rows = chartRows(
    points.map(({ atMs, mean: value }) => ({
      ...{ from: (atMs - sinceMs) / spanMs, to: (atMs + holdsMs - sinceMs) / spanMs, value },
    })),
    { columns: columns - width - 2, rows: chartHeight, top },
  )
  const labelAt: Readonly<Record<number, string | undefined>> = {
    0: labels[0],
    [chartHeight / 2]: labels[1],
    [chartHeight - 1]: labels[2],
  }
  const [from, to] = [moment(sinceMs), moment(untilMs)]
  return [
    paragraph(
      '',
      `${title}: now ${amount(unit, last.mean)}, mean ${amount(unit, mean)}, from ${amount(unit, low)} to ${amount(unit, high)}`,
      0,
    ),
    ...rows.map((row, at) => `${(labelAt[at] ?? '').padStart(width)} │${row}`.trimEnd()),
    `${' '.repeat(width + 2)}${from}${to.padStart(columns - width - 2 - from.length)}`,
  ].join('\n')
}

/** The chart, or the list of metrics. */
export function render(answer: HistoryAnswer, terminal: Terminal): string {
  if (answer.metric !== null) return chart(answer, terminal)
  const width = Math.max(...answer.metrics.map(({ metric }) => metric.length)) + 2
  return answer.metrics
    .map(({ metric, per, meaning }) =>
      paragraph(metric, per === 'host' ? meaning : `of each ${per}: ${meaning}`, width),
    )
    .join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
