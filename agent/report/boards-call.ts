// Speaks to the dashboards and alarms of Amazon CloudWatch through the AWS SDK, and changes only what is not as it should be.

import type { MetricAlarm } from '@aws-sdk/client-cloudwatch'
import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Answer, Line, problemOfAsking } from './aws-line.ts'
import { type Alarm, alarmPrefix, alarmsOf, dashboardBody, dashboardName, type Watched } from './boards.ts'

/** What was done with one of them. */
export interface Made {
  readonly kind: 'dashboard' | 'alarm'
  readonly name: string
  readonly change: 'made' | 'changed' | 'removed' | 'as it was'
}

/** Whether an alarm is as it should be: what CloudWatch adds of its own is not looked at. */
function isSo(alarm: Alarm, found: MetricAlarm): boolean {
  const sorted = (value: unknown): unknown =>
    Array.isArray(value) ? [...value].map((one) => JSON.stringify(one)).sort() : value
  return Object.entries(alarm).every(
    ([key, value]) =>
      JSON.stringify(sorted(value)) === JSON.stringify(sorted(found[key as keyof MetricAlarm] ?? [])) ||
      value === found[key as keyof MetricAlarm],
  )
}

const sameJson = (a: string, b: string): boolean => {
  try {
    return JSON.stringify(JSON.parse(a)) === JSON.stringify(JSON.parse(b))
  } catch (error) {
    // What is there and is no JSON is something else.
    if (error instanceof SyntaxError) return false
    throw error
  }
}

/** Brings dashboard and alarms of one host to what they should be. Throws `cloudwatch.…`; doing it again goes on where it ended. */
export async function setUp(settings: DesiredCloudWatch, watched: Watched): Promise<readonly Made[]> {
  const sdk = await import('@aws-sdk/client-cloudwatch')
  const line = new Line('CloudWatch', watched, (config) => new sdk.CloudWatchClient(config))
  const done = <T>(answer: Answer<T>): T => {
    if (answer.kind === 'answered') return answer.value
    throw answer.kind === 'unanswered'
      ? new HostError('cloudwatch.unanswered', answer.problem.message)
      : problemOfAsking(answer)
  }
  const made: Made[] = []
  try {
    const DashboardName = dashboardName(settings)
    const DashboardBody = dashboardBody(settings, watched.region)
    const there = await line.call(
      (client, abortSignal) => client.send(new sdk.GetDashboardCommand({ DashboardName }), { abortSignal }),
      Date.now(),
    )
    const isAbsent = there.kind !== 'answered' && /^(ResourceNotFound|DashboardNotFound)/.test(there.name)
    const body = isAbsent ? null : (done(there).DashboardBody ?? '')
    const isDashboardSo = body !== null && sameJson(body, DashboardBody)
    if (!isDashboardSo)
      done(
        await line.call(
          (client, abortSignal) =>
            client.send(new sdk.PutDashboardCommand({ DashboardName, DashboardBody }), { abortSignal }),
          Date.now(),
        ),
      )
    made.push({
      ...{ kind: 'dashboard', name: DashboardName },
      change: isDashboardSo ? 'as it was' : body === null ? 'made' : 'changed',
    })
    const AlarmNamePrefix = alarmPrefix(watched)
    const { MetricAlarms = [] } = done(
      await line.call(
        (client, abortSignal) =>
          client.send(new sdk.DescribeAlarmsCommand({ AlarmNamePrefix, MaxRecords: 100 }), { abortSignal }),
        Date.now(),
      ),
    )
    const wanted = alarmsOf(settings, watched)
    for (const alarm of wanted) {
      const found = MetricAlarms.find(({ AlarmName }) => AlarmName === alarm.AlarmName)
      const name = alarm.AlarmName
      if (found !== undefined && isSo(alarm, found)) {
        made.push({ kind: 'alarm', name, change: 'as it was' })
        continue
      }
      done(
        await line.call(
          (client, abortSignal) => client.send(new sdk.PutMetricAlarmCommand(alarm), { abortSignal }),
          Date.now(),
        ),
      )
      made.push({ kind: 'alarm', name, change: found === undefined ? 'made' : 'changed' })
    }
    const names = new Set(wanted.map(({ AlarmName }) => AlarmName))
    const left = MetricAlarms.flatMap(({ AlarmName = '' }) => (names.has(AlarmName) ? [] : [AlarmName]))
    if (left.length > 0)
      done(
        await line.call(
          (client, abortSignal) =>
            client.send(new sdk.DeleteAlarmsCommand({ AlarmNames: left }), { abortSignal }),
          Date.now(),
        ),
      )
    return [...made, ...left.map((name): Made => ({ kind: 'alarm', name, change: 'removed' }))]
  } finally {
    line.close()
  }
}
