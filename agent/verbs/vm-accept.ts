// The verb `vm accept`: writes into the document that what differs of VMs is left as it is until a day.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { DeclareLine } from './vm-declare.ts'
import {
  chooseDeclared,
  lookAtVms,
  onlyOf,
  planned,
  plannedText,
  readDropIn,
  surveyOf,
  wouldBe,
  writeDropIns,
} from './vm-drop-in.ts'

/** One line of the answer. */
export type AcceptLine =
  /** Nothing of it differs; where `paths` were named, nothing in those. */
  | { readonly event: 'as-declared'; readonly vm: string; readonly paths: readonly string[] }
  | Extract<DeclareLine, { event: 'planned' }>
  | {
      readonly event: 'accepted'
      readonly vm: string
      readonly file: string
      readonly until: string
      readonly why: string
      /** As `garrison plan` shows them. */
      readonly paths: readonly string[]
    }

const verb = 'vm accept'
const mostReason = 500

/** What a difference of a VM is called in the document. */
const documentPath = (vm: string, path: string): string => `vms.machines.${vm}.${path}`

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

/** Throws `request.invalid` for what is no day, or one that is over. */
async function wantDay(until: string, nowMs: number): Promise<void> {
  const { endMs } = await import('../../provisioning/vms/accepted.ts')
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(until) && new Date(until).toJSON()?.startsWith(until)
  if (!isDay) throw invalid(`--until takes a day such as 2027-01-31, not ${until}`)
  if (endMs({ until }) <= nowMs) throw invalid(`${until} is over (in UTC)`)
}

/**
 * Accepts it. Throws `request.invalid`, `request.no-such-vm`, `desired.missing`, `desired.invalid`, `file.exists`, `plan.changed`; before
 * the first is written all of them are found to be valid.
 */
export async function* run(
  context: Context,
  { names, until, path: only, reason, plan }: Args<'vm accept'>,
): AsyncGenerator<AcceptLine> {
  const [{ withValues }, { vms: resource }] = await Promise.all([
    import('../vms/declaration.ts'),
    import('../../provisioning/vms/index.ts'),
  ])
  await wantDay(until, context.clock())
  const on = new Date(context.clock()).toISOString().slice(0, 10)
  const why = reason ?? `Accepted on ${on}, for ${context.who}.`.slice(0, mostReason)
  if (why === '' || why.length > mostReason) throw invalid(`--reason takes up to ${mostReason} characters`)
  const seen = await lookAtVms(context)
  const writes = []
  const unmet = new Set(only)
  const differing = new Set<string>()
  for (const vm of await chooseDeclared(seen, names, verb)) {
    const found = await surveyOf(seen, vm)
    if (!found?.defined)
      throw new HostError('request.no-such-vm', `libvirt has no VM ${vm} that could differ`)
    const differences = [...found.differences, ...found.accepted.map(({ difference }) => difference)]
    const paths = [...new Set(differences.map(({ path }) => documentPath(vm, path)))].filter((path) => {
      differing.add(path)
      const met = only.filter((one) => one === path || documentPath(vm, one) === path)
      for (const one of met) unmet.delete(one)
      return only.length === 0 || met.length > 0
    })
    if (paths.length === 0) {
      yield { event: 'as-declared', vm, paths: only }
      continue
    }
    const dropIn = await readDropIn(context, vm)
    const sets = paths.map((path) => ({ path: ['vms', 'accepted', path], value: { until, why } }))
    const summary = `until ${until}, in ${dropIn.path}: ${paths.join(', ')}`
    writes.push({ ...dropIn, paths, text: withValues(dropIn.before ?? '', sets), summary })
  }
  if (unmet.size > 0)
    throw invalid(
      `nothing differs in ${[...unmet].join(', ')}; what does: ${[...differing].join(', ') || 'nothing'}`,
    )
  const then = await lookAtVms(
    context,
    writes.map(({ file, text }) => ({ path: file, text })),
  )
  for (const { paths } of writes)
    for (const path of paths) {
      const said = then.desired.vms?.accepted[path]
      if (said?.until !== until)
        throw invalid(`${then.desired.sources[`vms.accepted.${path}.until`]} says ${said?.until} of ${path}`)
    }
  if (plan) {
    for (const { vm, path: file, text } of writes) {
      const steps = onlyOf(resource, [vm]).plan(then.vms, then.desired)
      yield { event: 'planned', vm, file, text, steps: planned(steps) }
    }
    return
  }
  if (writes.length === 0) return
  const typed = [verb, ...names, '--until', until, ...only.flatMap((path) => ['--path', path])].join(' ')
  await writeDropIns(context, { typed, word: 'accept', writes })
  for (const { vm, path: file, paths } of writes) yield { event: 'accepted', vm, file, until, why, paths }
}

/** A line in words. */
export function render(line: AcceptLine, _terminal: Terminal): string {
  switch (line.event) {
    case 'as-declared':
      return `${[line.vm, 'is as it is declared', ...line.paths.flatMap((path, at) => [at === 0 ? 'in' : 'and', path])].join(' ')}.`
    case 'planned':
      return [
        ...wouldBe(line.file, line.text),
        line.steps.length === 0 ? 'Then nothing would be done.' : 'Then would be done:',
        ...plannedText(line.steps),
      ].join('\n')
    case 'accepted':
      return [
        paragraph('', `${line.vm} is left as it is until ${line.until}, says ${line.file}:`, 0),
        ...line.paths.map((path) => paragraph('', path, 2)),
      ].join('\n')
  }
}

/** Nothing is long in coming. */
export const live = (): null => null

/** 0. */
export const exitOf = (_line: AcceptLine): Exit => EXIT.done
