// Why parts of the host are as they are now, in sentences: from what was assessed, and from nothing else.

import { type Assessment, type Step, stepKey } from '../../provisioning/resource.ts'
import { count } from '../api/terminal.ts'
import { applyCommand, changeText } from './wording.ts'

/** One sentence or two of the answer. `atMs`: when it happened, for what the journal tells. */
export interface Reason {
  readonly text: string
  readonly remedy?: string
  readonly atMs?: number
}

function stepReasons(step: Step, one: Assessment, all: readonly Assessment[]): readonly Reason[] {
  const because = step.because.map(changeText).join('; ')
  const needed: Reason = { text: `${stepKey(step)} is needed: ${step.summary}. ${because}` }
  const { blocked, risk, after = [] } = step
  if (blocked) return [needed, { text: `It is blocked: ${blocked.message}.`, remedy: blocked.remedy }]
  const waits = one.needs.filter((need) =>
    all.some(({ resource, declared, standing }) => resource === need && declared && standing !== 'settled'),
  )
  if (waits.length > 0) return [needed, { text: `It waits until ${waits.join(' and ')} is settled.` }]
  if (after.length > 0) return [needed, { text: `It comes after ${after.join(' and ')}.` }]
  if (risk !== 'safe')
    return [needed, { text: `It is ${risk} and performed only when that is allowed: ${applyCommand(risk)}.` }]
  return [needed, { text: 'Nothing stands in its way: garrison apply performs it.' }]
}

function standingReason({ resource, declared, standing, summary, steps, problem }: Assessment): Reason {
  if (problem)
    return { text: `${resource} is unknown: ${problem.code}: ${problem.message}.`, remedy: problem.remedy }
  if (!declared)
    return { text: `${resource} is not asked for by the desired document. There is: ${summary}.` }
  if (standing === 'settled') return { text: `${resource} is settled: ${summary}.` }
  return {
    text: `${resource} is drifted, ${count(steps.length, 'step')} from settled. There is: ${summary}.`,
  }
}

/** How a part stands now: its standing, the steps that are needed and what stands in their way, and what is unhealthy. */
export function nowReasons(
  one: Assessment,
  all: readonly Assessment[],
  about: (subject: string | undefined) => boolean,
): readonly Reason[] {
  return [
    standingReason(one),
    ...one.steps.filter(({ subject }) => about(subject)).flatMap((step) => stepReasons(step, one, all)),
    ...one.findings
      .filter(({ subject }) => about(subject))
      .map(({ severity, code, subject, text, remedy }) => ({
        text: `${severity}: ${code}: ${subject === undefined ? '' : `${subject}: `}${text}`,
        remedy,
      })),
  ]
}
