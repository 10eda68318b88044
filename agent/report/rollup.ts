// Which series a value belongs to: that of the host, into which all its parts are rolled up, and that of its part where that is wanted.

import { type Datapoint, METRICS, type MetricName, partOf, type Scope } from '../../provisioning/metrics.ts'

/** What is wanted. */
export interface Wanted {
  readonly metrics: readonly MetricName[]
  readonly parts: readonly MetricName[]
  readonly vms: readonly MetricName[]
}

/** One line in CloudWatch: a metric of the host, or of one part of it. */
export interface Series {
  readonly metric: MetricName
  readonly part: { readonly scope: Exclude<Scope, 'host'>; readonly name: string } | null
}

/** A series in one word, and back. */
export const seriesKey = ({ metric, part }: Series): string =>
  part === null ? metric : `${metric}\0${part.scope}\0${part.name}`

/** The series of a key that `seriesKey` made. */
export function seriesOfKey(key: string): Series {
  const [metric = '', scope, ...name] = key.split('\0')
  return {
    metric: metric as MetricName,
    part: scope === undefined ? null : { scope: scope as Exclude<Scope, 'host'>, name: name.join('\0') },
  }
}

/** Sorts values into the series that are wanted. */
export class Rollup {
  readonly #host: ReadonlySet<string>
  readonly #parts: ReadonlySet<string>

  constructor({ metrics, parts, vms }: Wanted) {
    this.#host = new Set(metrics)
    this.#parts = new Set([...parts, ...vms])
  }

  /** The keys of the series that a value goes to; none when nobody wants it. */
  keysOf(point: Datapoint): readonly string[] {
    const { metric } = point
    const keys: string[] = []
    if (this.#host.has(metric)) keys.push(seriesKey({ metric, part: null }))
    const { per } = METRICS[metric]
    const name = partOf(point)
    if (per !== 'host' && name !== undefined && this.#parts.has(metric))
      keys.push(seriesKey({ metric, part: { scope: per, name } }))
    return keys
  }
}
