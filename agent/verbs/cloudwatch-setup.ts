// The verb `cloudwatch setup`: makes the dashboard of all hosts and the alarms of this one, or prints them for CloudFormation.

import { HostError } from '../../provisioning/problem.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { template } from '../report/boards.ts'
import { type Made, setUp } from '../report/boards-call.ts'
import type { Here } from './fleet-here.ts'

/** The answer of `cloudwatch setup`. */
export interface SetUpAnswer {
  readonly region: string
  readonly made: readonly Made[]
  /** Null unless it was to be printed. */
  readonly template: object | null
}

/**
 * Makes what is missing and changes what differs. Throws `cloudwatch.…`, `desired.…`, `imds.…`, and `cloudwatch.not-told` where the
 * document says nothing of CloudWatch.
 */
export async function run({ print, topic }: Args<'cloudwatch setup'>, here: Here): Promise<SetUpAnswer> {
  const parts = await here.parts()
  const { cloudwatch: settings } = (await parts.document()).desired
  if (settings === undefined)
    throw new HostError('cloudwatch.not-told', 'the desired document says nothing of CloudWatch')
  if (topic !== undefined && !/^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:\S+$/.test(topic))
    throw new HostError('request.invalid', `${topic} is not the ARN of an SNS topic`, {
      details: { verb: 'cloudwatch setup' },
    })
  const region = settings.region ?? (await parts.reader.instance())?.region ?? process.env.AWS_REGION ?? null
  if (region === null)
    throw new HostError(
      'cloudwatch.no-region',
      'this host is no EC2 instance, and the document names no Region',
    )
  const watched = {
    ...{ host: parts.hostname, instance: await parts.instance(), region },
    topic: topic ?? null,
  }
  if (print) return { region, made: [], template: template(settings, watched) }
  return { region, made: await setUp(settings, watched), template: null }
}

/** What was done, or the template as it is. */
export function render({ region, made, template: printed }: SetUpAnswer, _: Terminal): string {
  if (printed !== null) return JSON.stringify(printed, null, 2)
  const width = Math.max(...made.map(({ change }) => change.length)) + 2
  return [
    ...made.map(({ kind, name, change }) => paragraph(change, `${kind} ${name}`, width)),
    paragraph('', `in ${region}`, 0),
  ].join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
