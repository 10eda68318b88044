// Speaks to the metrics of Amazon CloudWatch (PutMetricData, GetMetricData) through the AWS SDK, which is loaded when this is opened.

import { METRICS, type Unit } from '../../provisioning/metrics.ts'
import { Line, type LineOptions, problemOfAsking } from './aws-line.ts'
import { seriesOfKey } from './rollup.ts'
import type { Door, Outcome } from './sending.ts'
import type { Datum, Doubt } from './spool.ts'

/** Whose metrics they are. */
export interface MetricsOptions extends LineOptions {
  readonly namespace: string
  readonly host: string
  readonly instance: string
}

/** How CloudWatch calls a unit (StandardUnit). */
export const cloudWatchUnit = {
  percent: 'Percent',
  bytes: 'Bytes',
  'bytes-per-second': 'Bytes/Second',
  'per-second': 'Count/Second',
  count: 'Count',
  milliseconds: 'Milliseconds',
  seconds: 'Seconds',
} as const satisfies Readonly<Record<Unit, string>>

const minuteMs = 60_000
const hourMs = 3_600_000
/** How many metrics one question may name. */
const mostQueries = 500
/** Of a datum beside its names: numbers, timestamp, unit and the words around them. */
const aroundBytes = 330

/** A dimension's value holds no more, and nothing but printable ASCII. */
const dimensionValue = (text: string): string =>
  encodeURI(text.toWellFormed())
    .replaceAll('%20', ' ')
    .replaceAll('%25', '%')
    .replace(/^:/, '%3A')
    .slice(0, 1024) || '-'

/** The dimensions of a series, in the order that they are told in. */
export function dimensionsOf(
  key: string,
  { host, instance }: Pick<MetricsOptions, 'host' | 'instance'>,
): readonly { readonly Name: string; readonly Value: string }[] {
  const { part } = seriesOfKey(key)
  return [
    { Name: 'host', Value: dimensionValue(host) },
    { Name: 'instance', Value: dimensionValue(instance) },
    ...(part === null ? [] : [{ Name: part.scope, Value: dimensionValue(part.name) }]),
  ]
}

/**
 * How long after it was sent a batch is sure to be seen, if it arrived. CloudWatch shows the new within minutes, what was older than
 * three hours within two hours, and what was older than a day after two days.
 */
export function patienceOf({ sentMs, oldestMs }: Doubt): readonly [number, ...number[]] {
  const ageMs = sentMs - oldestMs
  if (ageMs < 3 * hourMs) return [3 * minuteMs, 15 * minuteMs]
  if (ageMs < 24 * hourMs) return [30 * minuteMs, 4 * hourMs]
  return [12 * hourMs, 72 * hourMs]
}

/** Opens the door to the metrics of one host. */
export async function openMetrics(options: MetricsOptions): Promise<Door<Datum> & { close(): void }> {
  const { CloudWatchClient, GetMetricDataCommand, PutMetricDataCommand } = await import(
    '@aws-sdk/client-cloudwatch'
  )
  const { namespace } = options
  const line = new Line('CloudWatch', options, (config) => new CloudWatchClient(config))
  const dimensions = new Map<string, ReturnType<typeof dimensionsOf>>()
  const metricOf = (key: string) => {
    const known = dimensions.get(key) ?? dimensionsOf(key, options)
    dimensions.set(key, known)
    return { MetricName: seriesOfKey(key).metric as string, Dimensions: [...known] }
  }
  return {
    limit: {
      ...{ rows: 1000, bytes: 900_000, spanMs: Number.POSITIVE_INFINITY },
      bytesOf: ({ series }) => aroundBytes + JSON.stringify(metricOf(series)).length,
    },
    async put(rows, nowMs): Promise<Outcome> {
      const command = new PutMetricDataCommand({
        Namespace: namespace,
        MetricData: rows.map(({ series, atMs, count, sum, low, high }) => ({
          ...metricOf(series),
          Timestamp: new Date(atMs),
          Unit: cloudWatchUnit[METRICS[seriesOfKey(series).metric].unit],
          StatisticValues: { SampleCount: count, Sum: sum, Minimum: low, Maximum: high },
        })),
      })
      const answer = await line.call((client, abortSignal) => client.send(command, { abortSignal }), nowMs)
      return answer.kind === 'answered'
        ? { kind: 'accepted', rejected: [], serverMs: answer.serverMs }
        : answer
    },
    async ask(rows, nowMs) {
      const all = [...new Set(rows.map(({ series }) => series))]
      const times = rows.map(({ atMs }) => atMs)
      const [from, to] = [Math.min(...times), Math.max(...times) + minuteMs]
      const counts = new Map<string, number>()
      for (let at = 0; at < all.length; at += mostQueries) {
        const some = all.slice(at, at + mostQueries)
        let next: string | undefined
        do {
          const command = new GetMetricDataCommand({
            StartTime: new Date(from),
            EndTime: new Date(to),
            MetricDataQueries: some.map((key, index) => ({
              Id: `q${index}`,
              MetricStat: {
                Metric: { Namespace: namespace, ...metricOf(key) },
                Period: minuteMs / 1000,
                Stat: 'SampleCount',
              },
            })),
            ...(next !== undefined && { NextToken: next }),
          })
          const answer = await line.call(
            (client, abortSignal) => client.send(command, { abortSignal }),
            nowMs,
          )
          if (answer.kind !== 'answered') throw problemOfAsking(answer)
          for (const { Id = '', Timestamps = [], Values = [] } of answer.value.MetricDataResults ?? [])
            for (const [index, time] of Timestamps.entries())
              counts.set(`${some[Number(Id.slice(1))]}\0${time.getTime()}`, Values[index] ?? 0)
          next = answer.value.NextToken
        } while (next !== undefined)
      }
      const isThere = ({ series, atMs, count }: Datum) => (counts.get(`${series}\0${atMs}`) ?? 0) >= count
      return new Set(rows.filter(isThere).map(({ id }) => id))
    },
    patience: patienceOf,
    close: () => line.close(),
  }
}
