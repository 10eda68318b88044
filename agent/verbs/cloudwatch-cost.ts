// The verb `cloudwatch cost`: what CloudWatch asks a month for what it is told of this host, dearest first.

import { HostError } from '../../provisioning/problem.ts'
import { paragraph, type Terminal, withTail } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import { alarmsOf } from '../report/boards.ts'
import { type CostLine, costOf, pricesOf } from '../report/cost.ts'
import type { DaemonContext } from './daemon-context.ts'

/** The answer of `cloudwatch cost`. Amounts are US dollars. */
export interface CostAnswer {
  readonly month: number
  /** What of it is for this host alone. */
  readonly ofHost: number
  readonly lines: readonly CostLine[]
  /** Of which month the list prices are, where the document names none. */
  readonly pricesOf: string
  readonly ownPrices: readonly string[]
}

const monthMs = 730 * 3_600_000
/** Changes are worked out over a month only from a day of them. */
const leastSpanMs = 86_400_000

/** Works it out. Throws `cloudwatch.not-told` where nothing is told. */
export async function run({
  cloudwatch,
  reports,
}: Pick<DaemonContext, 'cloudwatch' | 'reports'>): Promise<CostAnswer> {
  const { told: settings, series, made, region } = cloudwatch.overview()
  if (settings === null)
    throw new HostError('cloudwatch.not-told', 'the desired document says nothing of CloudWatch')
  const { latest } = reports
  const { spanMs, changeBytes } = made
  const lines = costOf({
    ...{ settings, series },
    reportBytes: latest === null ? null : Buffer.byteLength(JSON.stringify(latest)),
    changeBytesMonth: spanMs < leastSpanMs ? null : (changeBytes * monthMs) / spanMs,
    alarms: alarmsOf(settings, { host: 'h', instance: 'i', region: region ?? '', topic: null }).length,
  })
  const sum = (some: readonly CostLine[]) => some.reduce((total, { month }) => total + month, 0)
  return {
    month: sum(lines),
    ofHost: sum(lines.filter(({ of }) => of !== 'dashboards')),
    lines,
    pricesOf,
    ownPrices: Object.keys(settings.prices ?? {}),
  }
}

const dollars = (amount: number): string => `$${amount.toFixed(2)}`
const numberText = (value: number): string => (Number.isInteger(value) ? String(value) : value.toPrecision(2))

/** The lines, and what they come to. */
export function render({ ofHost, month, lines, ownPrices, pricesOf: of }: CostAnswer, _: Terminal): string {
  return [
    paragraph(
      '',
      `${dollars(ofHost)} a month for this host; ${dollars(month)} with the dashboard that all hosts share`,
      0,
    ),
    ...lines.map(({ what, number, of: unit, each, month: sum }) =>
      withTail(`  ${dollars(sum).padStart(8)}  ${what}`, `${numberText(number)} ${unit} at ${dollars(each)}`),
    ),
    paragraph(
      '',
      `Without tax and free tier, by the list prices of N. Virginia of ${of}${ownPrices.length === 0 ? '; other Regions differ: cloudwatch.prices in the document names yours.' : ` but for what the document names (${ownPrices.join(', ')}).`}`,
      0,
    ),
  ].join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
