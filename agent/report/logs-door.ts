// Speaks to Amazon CloudWatch Logs (PutLogEvents, GetLogEvents) through the AWS SDK, which is loaded when this is opened.

import { HostError } from '../../provisioning/problem.ts'
import { type Answer, Line, type LineOptions, problemOfAsking } from './aws-line.ts'
import type { Door, Outcome } from './sending.ts'
import type { SpooledEvent } from './spool.ts'

/** Where the events go. */
export interface LogsOptions extends LineOptions {
  readonly group: string
  readonly stream: string
  readonly retentionDays: number
}

/** The stream of a host in the log group: a name that CloudWatch Logs takes. */
export const streamOf = (host: string, instance: string): string =>
  `${host}/${instance}`.replaceAll(/[:*]/g, '-')

const minuteMs = 60_000
/** What CloudWatch Logs counts for each event beside its text. */
const aroundBytes = 26

/** Opens the door to the log stream of one host. */
export async function openLogs(options: LogsOptions): Promise<Door<SpooledEvent> & { close(): void }> {
  const sdk = await import('@aws-sdk/client-cloudwatch-logs')
  const line = new Line('CloudWatch Logs', options, (config) => new sdk.CloudWatchLogsClient(config))
  const { group: logGroupName, stream: logStreamName, retentionDays: retentionInDays } = options

  /** Makes group and stream where they are missing; null when they are there now, else what stood in the way. */
  async function make(nowMs: number): Promise<Exclude<Answer<never>, { kind: 'answered' }> | null> {
    const isThere = (answer: Answer<unknown>): boolean =>
      answer.kind === 'answered' || answer.name === 'ResourceAlreadyExistsException'
    const group = await line.call(
      (client, abortSignal) => client.send(new sdk.CreateLogGroupCommand({ logGroupName }), { abortSignal }),
      nowMs,
    )
    if (group.kind === 'answered') {
      const kept = await line.call(
        (client, abortSignal) =>
          client.send(new sdk.PutRetentionPolicyCommand({ logGroupName, retentionInDays }), { abortSignal }),
        nowMs,
      )
      if (kept.kind !== 'answered') return kept
    }
    const stream = await line.call(
      (client, abortSignal) =>
        client.send(new sdk.CreateLogStreamCommand({ logGroupName, logStreamName }), { abortSignal }),
      nowMs,
    )
    // A group that may not be made can have been made by somebody else.
    return stream.kind === 'answered' || isThere(stream)
      ? null
      : group.kind === 'answered' || isThere(group)
        ? stream
        : group
  }

  return {
    limit: {
      // One of them spans a day at most.
      ...{ rows: 5000, bytes: 1_000_000, spanMs: 23 * 60 * minuteMs },
      bytesOf: ({ body }) => Buffer.byteLength(body) + aroundBytes,
    },
    async put(rows, nowMs): Promise<Outcome> {
      const sorted = [...rows].sort((a, b) => a.atMs - b.atMs)
      const logEvents = sorted.map(({ atMs, body }) => ({ timestamp: Math.round(atMs), message: body }))
      const put = () =>
        line.call(
          (client, abortSignal) =>
            client.send(new sdk.PutLogEventsCommand({ logGroupName, logStreamName, logEvents }), {
              abortSignal,
            }),
          nowMs,
        )
      let answer = await put()
      if (answer.kind === 'failed' && answer.name === 'ResourceNotFoundException') {
        const obstacle = await make(nowMs)
        if (obstacle !== null)
          return obstacle.kind === 'refused'
            ? {
                kind: 'failed',
                serverMs: obstacle.serverMs,
                problem: new HostError('cloudwatch.refused', `CloudWatch Logs: ${obstacle.why}`),
              }
            : // Nothing of the events has been sent.
              { kind: 'failed', serverMs: obstacle.serverMs, problem: obstacle.problem }
        answer = await put()
      }
      if (answer.kind !== 'answered') return answer
      const {
        tooOldLogEventEndIndex: tooOld = 0,
        expiredLogEventEndIndex: expired = 0,
        tooNewLogEventStartIndex: tooNew = sorted.length,
      } = answer.value.rejectedLogEventsInfo ?? {}
      const isRejected = (index: number) => index < Math.max(tooOld, expired) || index >= tooNew
      return {
        kind: 'accepted',
        rejected: sorted.filter((_, index) => isRejected(index)).map(({ id }) => id),
        serverMs: answer.serverMs,
      }
    },
    async ask(rows, nowMs) {
      const times = rows.map(({ atMs }) => Math.round(atMs))
      const seen = new Set<string>()
      let token: string | undefined
      for (;;) {
        const command = new sdk.GetLogEventsCommand({
          ...{ logGroupName, logStreamName, startFromHead: true },
          startTime: Math.min(...times),
          endTime: Math.max(...times) + 1,
          ...(token !== undefined && { nextToken: token }),
        })
        const answer = await line.call((client, abortSignal) => client.send(command, { abortSignal }), nowMs)
        // Nothing arrived where there is no place for it.
        if (answer.kind === 'failed' && answer.name === 'ResourceNotFoundException') break
        if (answer.kind !== 'answered') throw problemOfAsking(answer)
        for (const { message = '' } of answer.value.events ?? []) {
          const [, key] = /^\{"id":"([^"]+)"/.exec(message) ?? []
          if (key !== undefined) seen.add(key)
        }
        // The end is where the token stays the same.
        if (answer.value.nextForwardToken === undefined || answer.value.nextForwardToken === token) break
        token = answer.value.nextForwardToken
      }
      return new Set(rows.filter(({ key }) => seen.has(key)).map(({ id }) => id))
    },
    patience: () => [2 * minuteMs, 15 * minuteMs],
    close: () => line.close(),
  }
}
