// The part of the daemon that tells CloudWatch, over a time that a test makes pass.

import { join } from 'node:path'
import type { Clock } from '../../agent/report/clock.ts'
import { CloudWatch, type CloudWatchOptions } from '../../agent/report/cloudwatch.ts'
import { openLogs } from '../../agent/report/logs-door.ts'
import { openMetrics } from '../../agent/report/metrics-door.ts'
import { Spool } from '../../agent/report/spool.ts'
import { cloudwatchSchema } from '../../provisioning/cloudwatch.ts'
import { type Datapoint, METRICS, type MetricName } from '../../provisioning/metrics.ts'

/** The settings of a document, after defaults. */
export const settingsOf = (written: object) => cloudwatchSchema.parse(written)

/** How it is made. `deadlineMs`: how long a request may take. */
export interface TellingOptions {
  readonly folder: string
  readonly clock: Clock
  readonly upMs: () => number
  readonly deadlineMs: number
  readonly jitter: number
  readonly settings: object
  /** Which host it is: `h07` when left out. */
  readonly host?: string
  readonly peers?: CloudWatchOptions['peers']
  readonly openMetrics?: CloudWatchOptions['openMetrics']
}

/** Opens the spool in a folder, and what sends from it. */
export async function openTelling({
  folder,
  clock,
  upMs,
  deadlineMs,
  jitter,
  settings,
  host = 'h07',
  peers = { offering: () => [], ask: () => Promise.reject(new Error('nobody was offered')) },
  openMetrics: open = openMetrics,
}: TellingOptions): Promise<{ readonly cloudwatch: CloudWatch; readonly spool: Spool }> {
  const { spool } = await Spool.open({
    path: join(folder, 'spool.sqlite'),
    uptime: { boot: 'boot-1', ms: upMs },
    epochMs: clock.epochMs,
  })
  const wanted = settingsOf(settings)
  spool.remember('settings', JSON.stringify(wanted))
  const cloudwatch = new CloudWatch({
    ...{ clock, spool, jitter, host, peers, instance: 'i-0123456789abcdef0' },
    settings: async () => wanted,
    region: async () => ['eu', 'west', '1'].join('-'),
    openMetrics: (options) => open({ ...options, deadlineMs, connectMs: deadlineMs }),
    openLogs: (options) => openLogs({ ...options, deadlineMs, connectMs: deadlineMs }),
  })
  return { cloudwatch, spool }
}

/** One value of a metric. */
export const point = (metric: MetricName, value: number, part?: string): Datapoint => ({
  metric,
  unit: METRICS[metric].unit,
  value,
  dimensions: part === undefined ? {} : { [METRICS[metric].per]: part },
  atMs: 0,
})
