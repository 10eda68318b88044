// The verb `vm revert`: makes VMs again what the document declares, what was accepted of them too, as an apply of them alone.

import type { Resource } from '../../provisioning/resource.ts'
import type { Context } from '../api/context.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import {
  type ApplyLine,
  exitOf as applyExitOf,
  live as applyLive,
  linesOf,
  render as renderApply,
} from './apply.ts'
import {
  chooseDeclared,
  lookAtVms,
  onlyOf,
  type PlannedStep,
  planned,
  plannedText,
  readDropIn,
  surveyOf,
  type TakenBack,
  takenBackText,
  writeDropIns,
} from './vm-drop-in.ts'
import { commandText } from './wording.ts'

/** One line of the answer. */
export type RevertLine =
  | { readonly event: 'planned'; readonly vm: string; readonly steps: readonly PlannedStep[] }
  | TakenBack
  /** What stays accepted, by another file. */
  | {
      readonly event: 'still-accepted'
      readonly vm: string
      readonly accepted: readonly {
        readonly path: string
        readonly until: string
        readonly where: string | null
      }[]
    }
  | ApplyLine

const verb = 'vm revert'

/** Reverts them. Throws `request.no-such-vm`, `desired.missing`, `desired.invalid`, `plan.changed`, `apply.locked`. */
export async function* run(
  context: Context,
  { names, allow = 'safe', plan }: Args<'vm revert'>,
): AsyncGenerator<RevertLine> {
  const [{ withoutAccepted }, { vms: resource }] = await Promise.all([
    import('../vms/declaration.ts'),
    import('../../provisioning/vms/index.ts'),
  ])
  const vms = await chooseDeclared(await lookAtVms(context), names, verb)
  const writes = []
  for (const vm of vms) {
    const dropIn = await readDropIn(context, vm)
    if (dropIn.before === null) continue
    const { paths, text } = withoutAccepted(dropIn.before, vm)
    if (paths.length > 0)
      writes.push({ ...dropIn, paths, text, summary: `take out of ${dropIn.path}: ${paths.join(', ')}` })
  }
  const then = await lookAtVms(
    context,
    writes.map(({ file, text }) => ({ path: file, text: text ?? '' })),
  )
  const typed = ['garrison', ...verb.split(' '), ...names]
  if (!plan && writes.length > 0)
    await writeDropIns(context, { typed: typed.slice(1).join(' '), word: 'revert', writes })
  for (const { vm, path: file, paths } of writes) yield { event: 'taken-back', vm, file, plan, paths }
  for (const vm of vms) {
    const accepted = (await surveyOf(then, vm))?.accepted ?? []
    if (accepted.length > 0)
      yield {
        event: 'still-accepted',
        vm,
        accepted: accepted.map(({ difference, acceptance: { path, until } }) => ({
          path: `vms.machines.${vm}.${difference.path}`,
          until,
          where: then.desired.sources[`vms.accepted.${path}`] ?? null,
        })),
      }
  }
  if (plan) {
    for (const vm of vms)
      yield { event: 'planned', vm, steps: planned(onlyOf(resource, [vm]).plan(then.vms, then.desired)) }
    return
  }
  yield* linesOf(
    context.apply({ allow, only: resource.id, instead: onlyOf(resource, vms) as Resource }),
    (risk) => commandText([...typed, '--allow', risk]),
  )
}

/** A line in words. */
export function render(line: RevertLine, terminal: Terminal): string | null {
  switch (line.event) {
    case 'planned':
      return line.steps.length === 0
        ? `${line.vm}: nothing would be done.`
        : [`${line.vm}: would be done:`, ...plannedText(line.steps)].join('\n')
    case 'taken-back':
      return takenBackText(line)
    case 'still-accepted':
      return line.accepted
        .map(({ path, until, where }) =>
          paragraph(
            '  still accepted',
            `${path} until ${until}${where === null ? '' : `, says ${where}`}`,
            18,
          ),
        )
        .join('\n')
    default:
      return renderApply(line, terminal)
  }
}

/** What is going on until the next line. */
export function live(line: RevertLine): string | null {
  switch (line.event) {
    case 'planned':
    case 'taken-back':
    case 'still-accepted':
      return null
    default:
      return applyLive(line)
  }
}

/** As for `apply`; of a plan 2 when there is something to do. */
export function exitOf(line: RevertLine): Exit | null {
  switch (line.event) {
    case 'planned':
      return line.steps.length > 0 ? EXIT.drift : null
    case 'taken-back':
    case 'still-accepted':
      return null
    default:
      return applyExitOf(line)
  }
}
