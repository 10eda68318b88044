// What is made in CloudWatch to be looked at: one dashboard for all hosts, and the alarms of one, as the API and CloudFormation have them.

import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'
import { METRICS, type MetricName } from '../../provisioning/metrics.ts'
import { dimensionsOf } from './metrics-door.ts'

/** Whose alarms they are, and who is told. */
export interface Watched {
  readonly host: string
  readonly instance: string
  readonly region: string
  /** The ARN of an SNS topic; null: nobody is told. */
  readonly topic: string | null
}

/** An alarm, by the names that the API has (PutMetricAlarm). */
export interface Alarm {
  readonly AlarmName: string
  readonly AlarmDescription: string
  readonly Namespace: string
  readonly MetricName: string
  readonly Dimensions: { Name: string; Value: string }[]
  readonly Statistic: 'Maximum' | 'Minimum' | 'SampleCount'
  readonly Period: number
  readonly EvaluationPeriods: number
  readonly DatapointsToAlarm: number
  readonly Threshold: number
  readonly ComparisonOperator: 'GreaterThanThreshold' | 'LessThanThreshold'
  readonly TreatMissingData: 'breaching' | 'notBreaching' | 'missing'
  readonly AlarmActions: string[]
  readonly OKActions: string[]
}

interface Watch {
  readonly name: string
  readonly metric: MetricName
  readonly above?: number
  readonly minutes: number
  readonly says: string
}

/** What a host is watched for. Each is made when its metric is told. */
const watches: readonly Watch[] = [
  {
    ...{ name: 'findings', metric: 'findings.high', above: 0, minutes: 5 },
    says: 'Findings of severity high stand; garrison report on the host tells which.',
  },
  {
    ...{ name: 'array', metric: 'array.lacking', above: 0, minutes: 5 },
    says: 'An array lacks members; see garrison drives on the host.',
  },
  {
    ...{ name: 'space', metric: 'filesystem.used', above: 95, minutes: 10 },
    says: 'The fullest filesystem has hardly any space left; VMs on it pause when it is full.',
  },
  {
    ...{ name: 'memory', metric: 'memory.used', above: 98, minutes: 10 },
    says: 'There is hardly any memory left; the kernel ends processes next, VMs among them.',
  },
]

/** What says that a host tells anything at all: the first of these that is told. */
const signsOfLife: readonly MetricName[] = ['cpu.busy', 'findings.high', 'memory.used', 'vms.running']

/** How the name of each alarm of a host begins. */
export const alarmPrefix = ({ host, instance }: Pick<Watched, 'host' | 'instance'>): string =>
  `garrison ${host} ${instance} `

/** The alarms of a host. */
export function alarmsOf(settings: DesiredCloudWatch, watched: Watched): readonly Alarm[] {
  const { namespace, metrics, everySeconds } = settings
  const actions = watched.topic === null ? [] : [watched.topic]
  const alarm = (
    { name, metric, minutes, says }: Watch,
    rest: Pick<Alarm, 'Statistic' | 'Threshold' | 'ComparisonOperator' | 'TreatMissingData'>,
  ): Alarm => {
    const periods = Math.max(1, Math.round((minutes * 60) / everySeconds))
    return {
      ...{ AlarmName: `${alarmPrefix(watched)}${name}`, AlarmDescription: says },
      ...{ Namespace: namespace, MetricName: metric },
      Dimensions: dimensionsOf(metric, watched).map((one) => ({ ...one })),
      ...{ Period: everySeconds, EvaluationPeriods: periods, DatapointsToAlarm: periods },
      ...rest,
      ...{ AlarmActions: actions, OKActions: actions },
    }
  }
  const sign = signsOfLife.find((one) => metrics.includes(one))
  return [
    ...(sign === undefined
      ? []
      : [
          alarm(
            {
              ...{ name: 'silent', metric: sign, minutes: 15 },
              says: 'The host has told nothing for a quarter of an hour. That does not mean that it is down: see garrison fleet status on another host.',
            },
            {
              ...{ Statistic: 'SampleCount', Threshold: 1, ComparisonOperator: 'LessThanThreshold' },
              TreatMissingData: 'breaching',
            },
          ),
        ]),
    ...watches
      .filter(({ metric }) => metrics.includes(metric))
      .map((watch) =>
        alarm(watch, {
          ...{ Statistic: 'Maximum', Threshold: watch.above ?? 0 },
          ...{ ComparisonOperator: 'GreaterThanThreshold', TreatMissingData: 'notBreaching' },
        }),
      ),
  ]
}

const columns = 24
const widgetHeight = 6

/** The name of the dashboard of all hosts that tell one namespace. */
export const dashboardName = ({ namespace }: Pick<DesiredCloudWatch, 'namespace'>): string =>
  namespace.replaceAll(/[^A-Za-z0-9_-]/g, '-')

/**
 * The dashboard: each metric of each host that tells it, found by search, so that a new host is on it by itself. It is the same
 * whichever host makes it.
 */
export function dashboardBody(settings: DesiredCloudWatch, region: string): string {
  const { namespace, metrics, everySeconds } = settings
  const width = columns / 3
  const widgets = metrics.map((metric, at) => {
    const { unit, per } = METRICS[metric]
    // Of what is rolled up over parts the worst one is shown.
    const statistic = per === 'host' ? 'Average' : 'Maximum'
    const search = `SEARCH('{"${namespace}",host,instance} MetricName="${metric}"', '${statistic}', ${everySeconds})`
    return {
      ...{ type: 'metric', width, height: widgetHeight },
      ...{ x: (at % 3) * width, y: Math.floor(at / 3) * widgetHeight },
      properties: {
        ...{ title: per === 'host' ? metric : `${metric} (highest ${per})`, region, view: 'timeSeries' },
        metrics: [[{ expression: search, id: 'e1' }]],
        yAxis: { left: { label: unit === 'count' ? '' : unit, showUnits: false, min: 0 } },
        period: everySeconds,
      },
    }
  })
  return JSON.stringify({ start: '-PT6H', periodOverride: 'inherit', widgets })
}

/** The same as a template of CloudFormation (JSON). */
export function template(settings: DesiredCloudWatch, watched: Watched): object {
  const logicalId = (name: string) =>
    name.replaceAll(/[^A-Za-z0-9]+(.)?/g, (_, next: string | undefined) => (next ?? '').toUpperCase())
  const alarms = alarmsOf(settings, watched).map((alarm) => [
    `Alarm${logicalId(` ${alarm.AlarmName}`)}`,
    { Type: 'AWS::CloudWatch::Alarm', Properties: alarm },
  ])
  return {
    AWSTemplateFormatVersion: '2010-09-09',
    Description: `What garrison cloudwatch setup makes for ${watched.host}`,
    Resources: {
      Dashboard: {
        Type: 'AWS::CloudWatch::Dashboard',
        Properties: {
          DashboardName: dashboardName(settings),
          DashboardBody: dashboardBody(settings, watched.region),
        },
      },
      ...Object.fromEntries(alarms),
    },
  }
}
