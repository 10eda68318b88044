// The verb `cloudwatch`: what CloudWatch is told of this host, whether it arrives, and what waits.

import { ago, bytes, count, duration, paint, paragraph, problemText, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import type { CloudWatchOverview, QueueOverview } from '../report/cloudwatch.ts'
import type { DaemonContext } from './daemon-context.ts'

/** The answer of `cloudwatch`. */
export type CloudWatchAnswer = CloudWatchOverview & { readonly atMs: number }

/** Reads it. */
export async function run({ cloudwatch, clock }: DaemonContext): Promise<CloudWatchAnswer> {
  return { atMs: clock(), ...cloudwatch.overview() }
}

const indent = 11

function queueText(
  one: string,
  { waiting, doubtful, waitingSinceMs, acceptedMs }: QueueOverview,
  nowMs: number,
) {
  const last =
    acceptedMs === null ? 'none taken since the daemon began' : `last taken ${ago(nowMs - acceptedMs)}`
  const since =
    waitingSinceMs === null || waiting === 0 ? '' : `, the oldest of ${ago(nowMs - waitingSinceMs)}`
  const doubt = doubtful === 0 ? '' : `; ${doubtful} in doubt`
  return `${last}; ${waiting === 0 ? 'none waits' : `${count(waiting, one)} wait${since}`}${doubt}`
}

/** What is told, and how it goes. */
export function render(answer: CloudWatchAnswer, terminal: Terminal): string {
  const { told, region, metrics, events, counts, spoolBytes, skewMs, series, relayed, relayedFor } = answer
  if (told === null)
    return paragraph(
      '',
      'The desired document says nothing of CloudWatch, so nothing is sent. Write "cloudwatch: {}" into it to begin.',
      0,
    )
  const { nowMs } = terminal
  const names = Object.keys(series).length
  const all = Object.values(series).reduce((sum, number) => sum + number, 0)
  const given = [
    [counts.dropped, 'for want of room'],
    [counts.expired, 'too old'],
    [counts.refused, 'refused'],
    [counts.unwritten, 'not written'],
  ] as const
  const lost = given.flatMap(([number, why]) => (number === 0 ? [] : [`${number} ${why}`]))
  const folded = counts.folded === 0 ? '' : `; ${counts.folded} folded into longer spans`
  return [
    paragraph(
      'told',
      `${count(all, 'series').replace('seriess', 'series')} of ${count(names, 'metric')} in ${told.namespace}, ${region ?? 'no Region known'}, every ${told.everySeconds} s`,
      indent,
    ),
    paragraph('metrics', queueText('datapoint', metrics, nowMs), indent),
    ...(events === null || told.logs === undefined
      ? []
      : [paragraph('events', `to ${told.logs.group}: ${queueText('event', events, nowMs)}`, indent)]),
    paragraph(
      'spool',
      `${bytes(spoolBytes)} of ${told.spoolMiB} MiB; ${counts.sent} sent so far, ${lost.length === 0 ? 'none dropped' : `dropped: ${lost.join(', ')}`}${folded}`,
      indent,
    ),
    ...(relayed === null
      ? []
      : [
          paragraph(
            'relay',
            `${relayed.by} sends for this host, which has not reached the Region for ${duration(nowMs - relayed.sinceMs)}`,
            indent,
          ),
        ]),
    ...Object.entries(relayedFor).map(([host, { rows, requests, atMs }]) =>
      paragraph(
        'sent for',
        `${host}: ${rows} in ${count(requests, 'request')}, the last ${ago(nowMs - atMs)}`,
        indent,
      ),
    ),
    ...(skewMs === 0
      ? []
      : [
          paragraph(
            'clock',
            `${duration(Math.abs(skewMs))} ${skewMs > 0 ? 'ahead of' : 'behind'} the server’s; what is sent is corrected by it`,
            indent,
          ),
        ]),
    ...[metrics, ...(events === null ? [] : [events])].flatMap(({ problem, askProblem, refused }) => [
      ...(problem === null ? [] : [problemText(terminal, problem)]),
      ...(askProblem === null ? [] : [problemText(terminal, askProblem)]),
      ...(refused === null
        ? []
        : [paragraph(paint(terminal, 'warn', 'refused'), `${refused.row}: ${refused.why}`, indent)]),
    ]),
  ].join('\n')
}

/** Always 0: findings are told by `report`. */
export const exitOf = (): Exit => EXIT.done
