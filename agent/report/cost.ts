// What CloudWatch asks for what it is told, by the month: from the list prices, or those that the desired document names.

import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'

/**
 * List prices in US dollars of N. Virginia, as aws.amazon.com/cloudwatch/pricing told them in February 2026; other Regions differ, and so
 * does a metric after the first ten thousand of an account.
 */
const listPrices = {
  metricMonth: 0.3,
  thousandCalls: 0.01,
  logGB: 0.5,
  alarmMonth: 0.1,
  dashboardMonth: 3,
} as const

/** When that was. */
export const pricesOf = '2026-02'

/** One line of the bill. `month`: US dollars. */
export interface CostLine {
  readonly what: string
  readonly number: number
  readonly of: 'series' | 'thousand requests' | 'GB' | 'alarms' | 'dashboards'
  readonly each: number
  readonly month: number
}

/** What the cost comes from. */
export interface CostBase {
  readonly settings: DesiredCloudWatch
  /** Series by metric. */
  readonly series: Readonly<Record<string, number>>
  /** The size of a report; null when there was none yet. */
  readonly reportBytes: number | null
  /** Bytes of changes a month, from what there was; null when that is too short to tell. */
  readonly changeBytesMonth: number | null
  readonly alarms: number
}

const monthHours = 730
/** What CloudWatch Logs counts for each event beside its text, and what is written around it. */
const aroundBytes = 126

/** The lines, dearest first. */
export function costOf(base: CostBase): readonly CostLine[] {
  const { settings, series, reportBytes, changeBytesMonth, alarms } = base
  const given = Object.entries(settings.prices ?? {}).filter(([, price]) => price !== undefined)
  const prices = { ...listPrices, ...(Object.fromEntries(given) as Partial<typeof listPrices>) }
  const line = (what: string, number: number, of: CostLine['of'], each: number): CostLine => ({
    ...{ what, number, of, each, month: number * each },
  })
  const all = Object.values(series).reduce((sum, one) => sum + one, 0)
  const beats = (monthHours * 3600) / settings.everySeconds
  const { logs } = settings
  const reports = logs === undefined || logs.reportMinutes === 0 ? 0 : (monthHours * 60) / logs.reportMinutes
  const gb = 1e9
  return [
    ...Object.entries(series).map(([metric, number]) => line(metric, number, 'series', prices.metricMonth)),
    line(
      'requests',
      (beats * Math.max(1, Math.ceil(all / 1000))) / 1000,
      'thousand requests',
      prices.thousandCalls,
    ),
    ...(reports > 0 && reportBytes !== null
      ? [line('whole reports', (reports * (reportBytes + aroundBytes)) / gb, 'GB', prices.logGB)]
      : []),
    ...(logs?.changes && changeBytesMonth !== null
      ? [line('changes', changeBytesMonth / gb, 'GB', prices.logGB)]
      : []),
    line('alarms, once set up', alarms, 'alarms', prices.alarmMonth),
    line('the dashboard, of all hosts together', 1, 'dashboards', prices.dashboardMonth),
  ].sort((a, b) => b.month - a.month)
}
