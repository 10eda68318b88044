// The part of the desired document about CloudWatch: what it is told of this host, and how often.

import { z } from 'zod'
import { METRICS, type MetricName } from './metrics.ts'

const names = Object.keys(METRICS) as [MetricName, ...MetricName[]]
const named = (isMeant: (per: string) => boolean) =>
  names.filter((name) => isMeant(METRICS[name].per)) as [MetricName, ...MetricName[]]

/** Few on purpose: each is a metric that is paid for every month. */
const usualMetrics: MetricName[] = [
  'findings.high',
  'findings.warning',
  'resources.drifted',
  'cpu.busy',
  'memory.used',
  'memory.oom-kills',
  'pressure.io-full',
  'filesystem.used',
  'drive.busy',
  'drive.latency',
  'array.lacking',
  'vms.running',
  'vms.stuck',
  'vm.cpu',
]

const price = (what: string) => z.number().min(0).max(10_000).optional().describe(what)

/** What CloudWatch is told; without it, nothing is sent. */
export const cloudwatchSchema = z
  .strictObject({
    namespace: z
      .string()
      .regex(/^(?!AWS\/)[A-Za-z0-9][A-Za-z0-9._/#-]{0,254}$/, 'must be a namespace that is not of AWS')
      .default('Garrison')
      .describe('The namespace of the metrics.'),
    region: z
      .string()
      .regex(/^[a-z0-9-]{4,40}$/, 'must be the name of a Region')
      .optional()
      .describe('The Region that is told. Default: the one of this instance, as its metadata say.'),
    everySeconds: z
      .union([z.literal(60), z.literal(300)])
      .default(60)
      .describe('How long each datapoint is, and how often they are sent.'),
    metrics: z
      .array(z.enum(names))
      .default(usualMetrics)
      .describe(
        'Metrics of the host, by their names in garrison history. Those of drives, filesystems, NICs, arrays and VMs are rolled up into one for the host: its maximum is that of the worst part.',
      ),
    parts: z
      .array(z.enum(named((per) => per !== 'host' && per !== 'vm')))
      .default([])
      .describe(
        'Metrics told of each drive, filesystem, NIC and array by itself; each part is paid for separately.',
      ),
    vms: z
      .array(z.enum(named((per) => per === 'vm')))
      .default([])
      .describe('Metrics told of each VM by itself; each VM is paid for separately.'),
    spoolMiB: z
      .int()
      .min(8)
      .max(4096)
      .default(64)
      .describe(
        'How much may wait on the disk. Beyond it old datapoints become coarser, and only then is the oldest dropped.',
      ),
    logs: z
      .strictObject({
        group: z
          .string()
          .regex(/^[.\-_/#A-Za-z0-9]{1,512}$/, 'must be the name of a log group')
          .default('/garrison/hosts')
          .describe('The log group; it is made if it is missing. The stream is named after the host.'),
        retentionDays: z
          .union([1, 3, 5, 7, 14, 30, 60, 90, 180, 365].map((days) => z.literal(days)))
          .default(30)
          .describe('How long CloudWatch keeps them, when Garrison makes the group.'),
        changes: z
          .boolean()
          .default(true)
          .describe('One event for each finding that appears or ends, and for each change of drift.'),
        reportMinutes: z
          .union([z.literal(0), z.int().min(5).max(1440)])
          .default(60)
          .describe('How often the whole report is told; 0: never.'),
      })
      .optional()
      .describe('Structured events for CloudWatch Logs; without it, none are sent.'),
    relay: z
      .strictObject({
        ask: z
          .boolean()
          .default(false)
          .describe(
            'While the Region cannot be reached from here, have a peer of the fleet send for this host. Its certificate must have the role operate.',
          ),
        offer: z
          .boolean()
          .default(false)
          .describe(
            'Send for peers that cannot reach the Region, under the credentials of this host, to the same namespace and log group.',
          ),
      })
      .optional()
      .describe(
        'CloudWatch through peers of the fleet, while the Region cannot be reached; without it, never.',
      ),
    prices: z
      .strictObject({
        metricMonth: price('US dollars for one metric for a month.'),
        thousandCalls: price('US dollars for a thousand requests.'),
        logGB: price('US dollars for a gigabyte of log events.'),
        alarmMonth: price('US dollars for one alarm for a month.'),
        dashboardMonth: price('US dollars for one dashboard for a month.'),
      })
      .optional()
      .describe(
        'What your Region asks, for garrison cloudwatch cost. Default: the list prices of N. Virginia in February 2026.',
      ),
  })
  .describe('What CloudWatch is told of this host. Without this part nothing is sent there.')

/** What CloudWatch is told, after defaults. */
export type DesiredCloudWatch = z.output<typeof cloudwatchSchema>
