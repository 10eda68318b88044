// The verb `apply`: performs the plan one step at a time and tells each as it goes.

import type { Leftover, Outcome } from '../../provisioning/engine.ts'
import type { ProblemReport } from '../../provisioning/problem.ts'
import {
  type Assessment,
  type Blocked,
  type Change,
  type Finding,
  type Risk,
  type Standing,
  stepKey,
} from '../../provisioning/resource.ts'
import type { ApplyEvent, Context } from '../api/context.ts'
import { count, duration, paint, paragraph, type Terminal, withTail } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { applyCommand, findingText } from './wording.ts'

/** A step that was not performed, with what lets it be. */
interface Left extends Leftover {
  readonly blocked?: Blocked
  /** The command that would perform it. */
  readonly command?: string
}

/** One line of the answer. Durations in milliseconds. */
export type ApplyLine =
  | Extract<ApplyEvent, { event: 'started' | 'step-confirming' | 'step-done' | 'step-failed' }>
  | {
      readonly event: 'assessed'
      readonly steps: number
      readonly resources: readonly { readonly resource: string; readonly standing: Standing }[]
    }
  | {
      readonly event: 'step-started'
      readonly resource: string
      readonly key: string
      readonly summary: string
      readonly risk: Risk
      readonly because: readonly Change[]
    }
  | {
      readonly event: 'finished'
      readonly outcome: Outcome
      readonly performed: number
      readonly durationMs: number
      readonly left: readonly Left[]
      readonly problems: readonly ProblemReport[]
      readonly findings: readonly Finding[]
    }

/** The command that performs a step of this risk of this resource. */
type CommandFor = (risk: Risk, resource: string) => string

function leftOf(left: Leftover, assessments: readonly Assessment[], commandFor: CommandFor): Left {
  const step = assessments
    .find(({ resource }) => resource === left.resource)
    ?.steps.find((one) => stepKey(one) === left.key)
  return {
    ...left,
    ...(step?.blocked && { blocked: step.blocked }),
    ...(step && left.reason === 'risk' && { command: commandFor(step.risk, left.resource) }),
  }
}

function lineOf(event: ApplyEvent, commandFor: CommandFor): ApplyLine {
  switch (event.event) {
    case 'assessed':
      return {
        event: 'assessed',
        steps: event.assessments.reduce((sum, { steps }) => sum + steps.length, 0),
        resources: event.assessments.map(({ resource, standing }) => ({ resource, standing })),
      }
    case 'step-started': {
      const { resource, key, step } = event
      return {
        event: 'step-started',
        resource,
        key,
        summary: step.summary,
        risk: step.risk,
        because: step.because,
      }
    }
    case 'finished': {
      const { assessments, left, ...rest } = event
      return {
        ...rest,
        left: left.map((one) => leftOf(one, assessments, commandFor)),
        findings: assessments.flatMap(({ findings }) => findings),
      }
    }
    default:
      return event
  }
}

/** The events of an apply as lines of an answer. */
export async function* linesOf(
  events: AsyncIterable<ApplyEvent>,
  commandFor: CommandFor,
): AsyncGenerator<ApplyLine> {
  for await (const event of events) yield lineOf(event, commandFor)
}

/** Converges, and tells it line by line. */
export const run = (context: Context, { allow, only }: Args<'apply'>): AsyncGenerator<ApplyLine> =>
  linesOf(
    context.apply({ allow: allow ?? 'safe', only }),
    (risk, resource) => `${applyCommand(risk)} --only ${resource}`,
  )

const keyColumn = 16

const confirmingText =
  'changed; undone soon unless the host is seen to be reached. By hand: garrison network confirm'

function stepFailedText(
  terminal: Terminal,
  { key, problem, durationMs }: Extract<ApplyLine, { event: 'step-failed' }>,
) {
  const { code, message, remedy, details } = problem
  const said = (details?.outcome as { stderrTail?: unknown } | undefined)?.stderrTail
  return [
    withTail(
      paragraph(key, `${code}: ${message}`, keyColumn),
      `${duration(durationMs)}  ${paint(terminal, 'bad', 'failed')}`,
    ),
    ...(typeof said === 'string' ? said.split('\n').map((line) => paragraph('  |', line, 4)) : []),
    paragraph('', remedy, 2),
  ].join('\n')
}

const outcomeText: Readonly<Record<Outcome, string>> = {
  settled: 'Settled.',
  blocked: 'Not settled: what is left may not be performed.',
  unknown: 'A part could not be read, so it is not known whether the host is settled.',
  failed: 'A step failed; what it did until then is in garrison journal.',
  stopped: 'Stopped after the step in hand; the host is sound. garrison apply goes on from here.',
  drifted: 'Not settled.',
}

function leftText(terminal: Terminal, { key, text, reason, blocked, command }: Left): readonly string[] {
  const label = `  ${paint(terminal, reason === 'blocked' ? 'bad' : 'dim', key)}`
  if (blocked)
    return [
      paragraph(label, `blocked: ${blocked.message}`, keyColumn),
      paragraph('', blocked.remedy, keyColumn),
    ]
  if (command === undefined) return [paragraph(label, text, keyColumn)]
  // On a line of its own, to be copied.
  return [paragraph(label, 'not allowed yet; to perform it:', keyColumn), paragraph('', command, keyColumn)]
}

function finishedText(terminal: Terminal, line: Extract<ApplyLine, { event: 'finished' }>): string {
  const { performed, durationMs, outcome, left, problems, findings } = line
  const done = performed === 0 ? 'Nothing was done' : `${count(performed, 'step')} performed`
  const unread = outcome === 'unknown' ? problems : []
  return [
    paragraph('', `${done} in ${duration(durationMs)}. ${outcomeText[outcome]}`, 0),
    ...left.filter(({ reason }) => reason !== 'not-asked').flatMap((one) => leftText(terminal, one)),
    ...unread.flatMap(({ code, message, remedy }) => [
      paragraph(`  ${paint(terminal, 'bad', code)}`, message, keyColumn),
      paragraph('', remedy, keyColumn),
    ]),
    ...findings
      .filter(({ severity }) => severity !== 'notice')
      .map((finding) => findingText(terminal, finding)),
  ].join('\n')
}

/** A line in words; where a line can be written over, the start of a step is shown by `live` alone. */
export function render(line: ApplyLine, terminal: Terminal): string | null {
  switch (line.event) {
    case 'started':
      return null
    case 'assessed':
      return null
    case 'step-started':
      return terminal.live ? null : paragraph(line.key, line.summary, keyColumn)
    case 'step-confirming':
      return paragraph(line.key, confirmingText, keyColumn)
    case 'step-done': {
      const took = `${duration(line.durationMs)}  ${paint(terminal, 'good', 'done')}`
      return withTail(paragraph(line.key, terminal.live ? line.summary : '', keyColumn), took)
    }
    case 'step-failed':
      return stepFailedText(terminal, line)
    case 'finished':
      return finishedText(terminal, line)
  }
}

/** What is going on until the next line. */
export function live(line: ApplyLine): string | null {
  if (line.event === 'started') return 'looking at the host'
  if (line.event === 'finished') return null
  if (line.event === 'step-confirming') return `${line.key}  waiting for a witness`
  return line.event === 'step-started' ? `${line.key}  ${line.summary}` : 'looking at the host again'
}

const exits: Readonly<Record<Outcome, Exit>> = {
  settled: EXIT.done,
  blocked: EXIT.refused,
  unknown: EXIT.unknown,
  failed: EXIT.error,
  stopped: EXIT.drift,
  drifted: EXIT.drift,
}

/** 0 settled, 1 a step failed, 2 stopped before the end, 3 blocked or not allowed, 4 unknown. */
export const exitOf = (line: ApplyLine): Exit | null =>
  line.event === 'finished' ? exits[line.outcome] : null
