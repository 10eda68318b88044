// The verb `status`: how the host stands, part by part.

import { type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import { type Assessment, SEVERITIES, stepKey } from '../../provisioning/resource.ts'
import type { Context } from '../api/context.ts'
import { ago, paint, paragraph, type Terminal, withTail } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { RootResource, RootStatus } from '../report/root-view.ts'
import {
  findingIndent,
  findingText,
  type Health,
  healthOf,
  healthText,
  standingOf,
  standingStyle,
} from './wording.ts'

/** The answer of `status`, of which the daemon reads a part. */
export interface Status extends RootStatus {
  readonly host: string
  readonly version: string
  readonly ageMs: number
  readonly health: Health
  readonly applying:
    | { readonly who: string; readonly sinceMs: number }
    | { readonly problem: ProblemReport }
    | null
}

const partOf = ({
  resource,
  declared,
  standing,
  summary,
  steps,
  findings,
  problem,
}: Assessment): RootResource => ({
  resource,
  declared,
  standing,
  summary,
  steps: steps.map((step) => ({
    key: stepKey(step),
    summary: step.summary,
    risk: step.risk,
    ...(step.blocked && { blocked: step.blocked }),
  })),
  findings,
  ...(problem && { problem }),
})

/** Looks at the host, or shows the last look while it is young. */
export async function run(context: Context, { fresh }: Args<'status'>): Promise<Status> {
  const [view, applying] = await Promise.all([
    context.look({ fresh }),
    context.applying().catch((error: unknown) => ({ problem: problemOf(error) })),
  ])
  const { assessments, atMs, document } = view
  // Without a document nothing is asked for, and what is there is all that there is to say.
  const counted = document === null ? assessments.filter(({ declared }) => declared) : assessments
  return {
    host: context.hostname,
    version: context.version,
    atMs,
    ageMs: Math.max(0, context.clock() - atMs),
    standing: standingOf(counted),
    health: healthOf(counted),
    applying,
    document,
    resources: assessments.map(partOf),
  }
}

const firstColumn = 13
const secondColumn = 24

function nextOf({ resource, standing, steps }: RootResource): string {
  if (standing === 'unknown') return `garrison why ${resource}`
  if (steps.length === 0) return ''
  return steps.some(({ blocked }) => blocked) ? 'blocked: garrison plan' : 'garrison plan'
}

function partText(terminal: Terminal, part: RootResource): string {
  const { resource, declared, standing, summary } = part
  const word =
    declared || standing === 'unknown'
      ? paint(terminal, standingStyle[standing], standing)
      : paint(terminal, 'dim', 'not asked')
  const text = paragraph(`${`  ${resource}`.padEnd(firstColumn)}${word}`, summary, secondColumn)
  const next = nextOf(part)
  return next === '' ? text : withTail(text, next)
}

function headLine(result: Status, terminal: Terminal): string {
  const { host, standing, resources, ageMs } = result
  const findings = resources.flatMap((part) => part.findings)
  const anyAsked = resources.some(({ declared }) => declared)
  const word = standing === 'settled' && !anyAsked ? 'nothing asked' : standing
  const head = [
    paint(terminal, 'strong', host),
    paint(terminal, standingStyle[standing], word),
    healthText(terminal, result.health, findings),
  ].join('    ')
  return withTail(head, `seen ${ago(ageMs)}`)
}

/** Parts that could not be read, those that want the same remedy together. */
function unreadTexts({ resources }: Status, terminal: Terminal): readonly string[] {
  const unread = resources.flatMap(({ resource, problem }) => (problem ? [{ resource, ...problem }] : []))
  const together = Map.groupBy(unread, ({ code, remedy }) => `${code}: ${remedy}`)
  return [...together.values()].flatMap((parts) => {
    const names = parts.map(({ resource }) => resource).join(', ')
    return parts
      .slice(0, 1)
      .flatMap(({ code, remedy }) => [
        paragraph(
          `  ${paint(terminal, 'bad', 'UNKNOWN')}`,
          `${code}: ${names} could not be read`,
          findingIndent,
        ),
        paragraph('', remedy, findingIndent),
      ])
  })
}

/** The answer in words. */
export function render(result: Status, terminal: Terminal): string {
  const { resources, applying, document } = result
  const unknown = paint(terminal, 'bad', 'UNKNOWN')
  const findings = resources
    .flatMap((part) => part.findings)
    .sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity))
  const since = (sinceMs: number) => ago(terminal.nowMs - sinceMs)
  return [
    headLine(result, terminal),
    ...(applying && 'who' in applying
      ? [paragraph('  applying', `for ${applying.who}, begun ${since(applying.sinceMs)}`, firstColumn)]
      : []),
    ...resources.map((part) => partText(terminal, part)),
    ...findings.map((finding) => findingText(terminal, finding)),
    ...unreadTexts(result, terminal),
    ...(applying && 'problem' in applying
      ? [paragraph(`  ${unknown}`, `whether an apply runs: ${applying.problem.message}`, findingIndent)]
      : []),
    ...(document
      ? [
          paragraph('  DOCUMENT', `${document.code}: ${document.message}`, findingIndent),
          paragraph('', document.remedy, findingIndent),
        ]
      : []),
  ].join('\n')
}

/** 4 when a part could not be read, 2 when the host drifted or its document is broken, else 0. */
export function exitOf({ standing, document }: Status): Exit {
  if (standing === 'unknown') return EXIT.unknown
  if (standing === 'drifted') return EXIT.drift
  return document !== null && document.code !== 'desired.missing' ? EXIT.error : EXIT.done
}
