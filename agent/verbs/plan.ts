// The verb `plan`: the steps that apply would perform, and why.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { type Assessment, RISKS, type Step, stepKey } from '../../provisioning/resource.ts'
import { told } from '../../provisioning/told.ts'
import type { Context } from '../api/context.ts'
import { count, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { actionText, applyCommand, blockedText, changeText } from './wording.ts'

/** One step in the answer. `waits` names resources that must be settled first and are not. */
interface PlannedStep extends Omit<Step, 'claims'> {
  readonly resource: string
  readonly key: string
  readonly waits: readonly string[]
}

/** The answer of `plan`. */
export interface Plan {
  readonly host: string
  readonly atMs: number
  readonly steps: readonly PlannedStep[]
  readonly unknown: readonly { readonly resource: string; readonly problem: ProblemReport }[]
}

const waitsOf = ({ needs }: Assessment, all: readonly Assessment[]): readonly string[] =>
  needs.filter((need) =>
    all.some(({ resource, declared, standing }) => resource === need && declared && standing !== 'settled'),
  )

/** Plans from the host as it is now. Throws `desired.missing` or `desired.invalid`. */
export async function run(context: Context, { only, desired }: Args<'plan'>): Promise<Plan> {
  const { assessments, document, atMs } = await context.look({ fresh: true, file: desired })
  if (document) throw new HostError(document.code, document.message, document)
  const asked = assessments.filter(
    ({ declared, resource }) => declared && (only === undefined || resource === only),
  )
  return {
    host: context.hostname,
    atMs,
    steps: asked.flatMap((one) =>
      one.steps.map(({ claims: _, ...step }) => ({
        resource: one.resource,
        key: stepKey(step),
        waits: waitsOf(one, assessments),
        ...told(step),
      })),
    ),
    unknown: asked.flatMap(({ resource, problem }) => (problem ? [{ resource, problem }] : [])),
  }
}

const keyColumn = 16

function stepText(terminal: Terminal, step: PlannedStep): string {
  const { key, summary, because, actions, risk, after = [], waits, blocked } = step
  const row = (label: string, texts: readonly string[]) =>
    texts.map((text, at) => paragraph(at === 0 ? `    ${label}` : '', text, keyColumn))
  return [
    paragraph(`  ${paint(terminal, 'strong', key)}`, summary, keyColumn),
    ...row('because', because.map(changeText)),
    ...row('runs', actions.map(actionText)),
    ...row('after', after),
    ...row(
      'waits',
      waits.length > 0 ? [`until ${waits.join(' and ')} ${waits.length > 1 ? 'are' : 'is'} settled`] : [],
    ),
    ...(risk === 'safe' ? [] : row(paint(terminal, 'warn', 'risk'), [`${risk}: ${applyCommand(risk)}`])),
    ...(blocked ? [blockedText(blocked, `    ${paint(terminal, 'bad', 'blocked')}`, keyColumn)] : []),
  ].join('\n')
}

function headLine({ steps, unknown }: Plan): string {
  if (steps.length === 0) return unknown.length === 0 ? 'Nothing to do: settled.' : 'No step can be told.'
  const risks = RISKS.flatMap((risk) => {
    const number = steps.filter((step) => step.risk === risk && !step.blocked).length
    return number === 0 ? [] : number === steps.length ? risk : `${number} ${risk}`
  })
  const blocked = steps.filter((step) => step.blocked).length
  if (blocked > 0) risks.push(blocked === steps.length ? 'blocked' : `${blocked} blocked`)
  return `${count(steps.length, 'step')}, ${risks.join(', ')}`
}

/** The answer in words. */
export function render(plan: Plan, terminal: Terminal): string {
  return [
    headLine(plan),
    ...plan.steps.map((step) => stepText(terminal, step)),
    ...plan.unknown.flatMap(({ resource, problem }) => [
      paragraph(
        `  ${paint(terminal, 'bad', resource)}`,
        `unknown: ${problem.code}: ${problem.message}`,
        keyColumn,
      ),
      paragraph('', problem.remedy, keyColumn),
    ]),
  ].join('\n')
}

/** 3 when a step is blocked, 4 when a part could not be read, 2 when there is something to do, else 0. */
export function exitOf({ steps, unknown }: Plan): Exit {
  if (steps.some(({ blocked }) => blocked)) return EXIT.refused
  if (unknown.length > 0) return EXIT.unknown
  return steps.length > 0 ? EXIT.drift : EXIT.done
}
