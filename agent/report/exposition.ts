// What Prometheus scrapes (text exposition format 0.0.4), through prom-client, which is loaded at the first scrape.

import { type Datapoint, goneMs, METRICS, type MetricName, type Unit } from '../../provisioning/metrics.ts'
import type { Report } from './report-schema.ts'

/** A page of metrics. */
export interface MetricsPage {
  readonly type: string
  readonly text: string
}

/** How a unit is told: in base units, with the suffix that says so. */
const told: Readonly<Record<Unit, { readonly suffix: string; readonly times: number }>> = {
  percent: { suffix: '_ratio', times: 0.01 },
  bytes: { suffix: '_bytes', times: 1 },
  'bytes-per-second': { suffix: '_bytes_per_second', times: 1 },
  'per-second': { suffix: '_per_second', times: 1 },
  count: { suffix: '', times: 1 },
  milliseconds: { suffix: '_seconds', times: 0.001 },
  seconds: { suffix: '_seconds', times: 1 },
}

/** What Prometheus calls a metric: `cpu.busy` is garrison_cpu_busy_ratio. */
export const prometheusName = (metric: MetricName): string =>
  `garrison_${metric.replaceAll(/[.-]/g, '_')}${told[METRICS[metric].unit].suffix}`

/** Keeps the last value of each metric and part, and writes the page. */
export class Exposition {
  readonly #values = new Map<string, { readonly point: Datapoint; readonly tickMs: number }>()
  readonly #steadyMs: () => number

  /** `steadyMs`: a clock that nobody sets. */
  constructor(steadyMs: () => number) {
    this.#steadyMs = steadyMs
  }

  /** Takes the values of a round. */
  take(values: readonly Datapoint[]): void {
    const tickMs = this.#steadyMs()
    for (const point of values)
      this.#values.set([point.metric, ...Object.values(point.dimensions)].join('\0'), { point, tickMs })
  }

  /** The page as it is now. `waiting`: datapoints that wait for CloudWatch. */
  async page(report: Report | null, version: string, waiting: number): Promise<MetricsPage> {
    const { Gauge, Registry } = await import('prom-client')
    const registry = new Registry()
    const gauges = new Map<string, InstanceType<typeof Gauge<string>>>()
    const set = (name: string, help: string, labels: Readonly<Record<string, string>>, value: number) => {
      const known = gauges.get(name)
      const gauge = known ?? new Gauge({ name, help, labelNames: Object.keys(labels), registers: [registry] })
      if (known === undefined) gauges.set(name, gauge)
      gauge.set({ ...labels }, value)
    }
    const nowMs = this.#steadyMs()
    for (const [key, { point, tickMs }] of this.#values) {
      const { metric, value, dimensions } = point
      const { meaning, unit } = METRICS[metric]
      if (nowMs - tickMs > goneMs(metric)) this.#values.delete(key)
      else set(prometheusName(metric), meaning, dimensions, value * told[unit].times)
    }
    set('garrison_build_info', 'The version of the agent.', { version }, 1)
    set('garrison_cloudwatch_waiting', 'Datapoints that wait to be told to CloudWatch.', {}, waiting)
    if (report !== null) {
      const at = 'When the report last differed, seconds since 1970.'
      set('garrison_report_timestamp_seconds', at, {}, report.atMs / 1000)
      for (const { code, severity, subject = '' } of report.findings)
        set('garrison_finding', 'A finding that stands.', { code, severity, subject }, 1)
      for (const { name: vm, uuid, power } of report.vms)
        set('garrison_vm_running', 'Whether the VM runs.', { vm, uuid }, power === 'running' ? 1 : 0)
    }
    return { type: registry.contentType, text: await registry.metrics() }
  }
}
