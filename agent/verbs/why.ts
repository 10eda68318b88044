// The verb `why`: answers in plain words from the journal, the current plan and the findings.

import type { JournalEntry } from '../../provisioning/host.ts'
import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import { type Assessment, type Step, stepKey } from '../../provisioning/resource.ts'
import { pathsOf } from '../../provisioning/vmnets/path.ts'
import type { Context } from '../api/context.ts'
import { ago, duration, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { findDrive, type JudgedDrive, judgedDrives } from './drives.ts'
import { readPaths } from './network-show.ts'
import { nowReasons, type Reason } from './reasons.ts'
import { networkReasons } from './why-network.ts'
import { isAboutVm, vmReasons } from './why-vm.ts'
import { applyCommand, changeText } from './wording.ts'

/** The answer of `why`. */
export interface Why {
  readonly subject: string
  readonly atMs: number
  readonly reasons: readonly Reason[]
  readonly next: readonly { readonly command: string; readonly does: string }[]
}

const mostPast = 5

/** A step as the journal shows it, from its start to its end if that is written. */
interface Past {
  readonly atMs: number
  readonly who: string
  readonly step: Step
  readonly resource: string
  readonly end: Extract<JournalEntry, { kind: 'step-done' | 'step-failed' }> | null
}

async function pastOf(context: Context): Promise<readonly Past[]> {
  const who = new Map<string, string>()
  const past = new Map<string, Past>()
  for await (const record of context.journal.read({})) {
    if (record.kind === 'damaged') continue
    const { entry } = record
    if (entry.kind === 'apply-started') who.set(entry.apply, entry.request.who)
    if (entry.kind === 'step-started') {
      const { atMs, step, resource, apply } = entry
      past.set(`${apply} ${entry.key} ${atMs}`, {
        atMs,
        step,
        resource,
        who: who.get(apply) ?? 'somebody',
        end: null,
      })
    }
    if (entry.kind === 'step-done' || entry.kind === 'step-failed') {
      const begun = [...past].findLast(
        ([key, { end }]) => end === null && key.startsWith(`${entry.apply} ${entry.key} `),
      )
      if (begun) past.set(begun[0], { ...begun[1], end: entry })
    }
  }
  return [...past.values()]
}

function pastReason({ atMs, who, step, end }: Past): Reason {
  const what = `${stepKey(step)} (${step.summary})`
  const because = step.because.length === 0 ? '' : ` Because ${step.because.map(changeText).join('; ')}.`
  if (end === null)
    return {
      atMs,
      text: `${what} was begun for ${who}, and no end of it is written: the agent or the host went down in it, or it still runs.${because}`,
    }
  if (end.kind === 'step-done')
    return { atMs, text: `${what} was performed for ${who} in ${duration(end.durationMs)}.${because}` }
  const said = end.outcomes.at(-1)?.stderrTail
  return {
    atMs,
    text: `${what} was tried for ${who} and failed: ${end.code}: ${end.message}.${said === undefined ? '' : ` It said: ${said}`}${because}`,
  }
}

function nextOf(assessments: readonly Pick<Assessment, 'steps'>[]): Why['next'] {
  const steps = assessments.flatMap((one) => one.steps)
  const next = []
  if (steps.length > 0) next.push({ command: 'garrison plan', does: 'every step with what would run' })
  if (steps.some(({ blocked }) => blocked?.code.startsWith('array.') || blocked?.code.startsWith('drive.')))
    next.push({ command: 'garrison drives', does: 'every drive: chosen or refused, and why' })
  const risk = steps.find((step) => !step.blocked)?.risk
  if (risk !== undefined)
    next.push({ command: applyCommand(risk), does: 'perform what nothing stands in the way of' })
  return next
}

const driveReasons = ({ name, model, serial, verdict, text, reasons }: JudgedDrive): readonly Reason[] => {
  const known = [model, serial && `serial ${serial}`].filter(Boolean).join(', ')
  const drive = known === '' ? name : `${name} (${known})`
  if (verdict !== 'refused') return [{ text: `${drive} is ${verdict}: ${text}.` }]
  return reasons.map(({ code, text: why, remedy }, at) => ({
    text: `${at === 0 ? `${drive} is refused, for it` : 'It also'} ${why} (${code}).`,
    remedy,
  }))
}

const documentReasons = (document: ProblemReport | null): readonly Reason[] =>
  document === null ? [] : [{ text: `${document.code}: ${document.message}.`, remedy: document.remedy }]

/** Looks at the host and into the journal. Throws `request.no-such-drive`, `request.no-such-vm`. */
export async function run(context: Context, { subject, name, part }: Args<'why'>): Promise<Why> {
  if (part !== undefined) {
    if (subject !== 'vm' || name === undefined)
      throw new HostError('request.invalid', `${part} is a part of a VM: why vm NAME ${part}`, {
        details: { verb: 'why' },
      })
    const paths = pathsOf(await readPaths(context), name)
    return {
      subject: `vm ${name} ${part}`,
      atMs: context.clock(),
      reasons: networkReasons(name, paths),
      next: [{ command: `garrison network show ${name}`, does: 'every place that it passes, with counters' }],
    }
  }
  const view = await context.look({ fresh: false })
  const { assessments, document, atMs } = view
  if (subject === 'drive') {
    if (name === undefined)
      throw new HostError('request.invalid', 'why drive needs NAME: the serial or name of the drive', {
        details: { verb: 'why' },
      })
    const drive = findDrive(await judgedDrives(view), name)
    return {
      subject: `drive ${drive.name}`,
      atMs,
      reasons: driveReasons(drive),
      next: [{ command: 'garrison drives', does: 'every drive: chosen or refused, and why' }],
    }
  }
  if (subject === undefined) {
    const troubled = assessments.filter(
      ({ declared, standing, findings, problem }) =>
        (declared && standing !== 'settled') ||
        problem ||
        findings.some(({ severity }) => severity !== 'notice'),
    )
    const reasons = [
      ...documentReasons(document),
      ...troubled.flatMap((one) => nowReasons(one, assessments, () => true)),
    ]
    const fine = { text: 'Every part that is asked for is settled, and nothing is unhealthy.' }
    return {
      subject: context.hostname,
      atMs,
      reasons: reasons.length === 0 ? [fine] : reasons,
      next: nextOf(troubled),
    }
  }
  const id = subject === 'vm' ? 'vms' : subject
  const one = assessments.find(({ resource }) => resource === id)
  const about =
    name === undefined ? () => true : id === 'vms' ? isAboutVm(name) : (part?: string) => part === name
  const now =
    one === undefined
      ? []
      : id === 'vms' && name !== undefined
        ? vmReasons(one, assessments, name)
        : nowReasons(one, assessments, about)
  const past = await pastOf(context).then(
    (all) =>
      all
        .filter(({ resource, step }) => resource === id && about(step.subject))
        .slice(-mostPast)
        .map(pastReason),
    (error: unknown): readonly Reason[] => {
      const { code, message, remedy } = problemOf(error)
      return [{ text: `What was done before is not known: ${code}: ${message}.`, remedy }]
    },
  )
  return {
    subject: name === undefined ? subject : `${subject} ${name}`,
    atMs,
    reasons: [...documentReasons(document), ...now, ...past],
    next: one ? nextOf([{ steps: one.steps.filter((step) => about(step.subject)) }]) : [],
  }
}

const commandColumn = 38

/** The answer in words. */
export function render({ reasons, next }: Why, terminal: Terminal): string {
  return [
    ...reasons.flatMap(({ text, remedy, atMs }, at) => [
      paragraph('', atMs === undefined ? text : `${ago(terminal.nowMs - atMs)}: ${text}`, 0),
      // The same advice for several reasons is given once, after the last of them.
      ...(remedy === undefined || remedy === reasons[at + 1]?.remedy ? [] : [paragraph('', remedy, 2)]),
    ]),
    ...next.map(({ command, does }, at) =>
      paragraph(
        `${at === 0 ? paint(terminal, 'strong', 'Next') : '    '}  ${command}  `,
        does,
        commandColumn,
      ),
    ),
  ].join('\n')
}

/** Always 0: an explanation was given. */
export const exitOf = (): Exit => EXIT.done
