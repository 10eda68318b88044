// The verb `vm adopt`: writes into the document what a VM is, where nobody declared it or a person has changed it.

import { HostError } from '../../provisioning/problem.ts'
import type { WrittenDisk } from '../../provisioning/vms/adopted.ts'
import type { Accepted } from '../../provisioning/vms/survey.ts'
import type { Context } from '../api/context.ts'
import { isProgress } from '../api/progress.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { DefinedVm } from '../vms/facts.ts'
import { type DeclareLine, render as renderDeclare } from './vm-declare.ts'
import {
  lookAtVms,
  onlyOf,
  planned,
  readDropIn,
  surveyOf,
  type TakenBack,
  takenBackText,
  writeDropIns,
} from './vm-drop-in.ts'

/** One line of the answer. */
export type AdoptLine =
  | { readonly event: 'unsaid'; readonly vm: string; readonly what: readonly string[] }
  | { readonly event: 'as-declared'; readonly vm: string }
  | TakenBack
  | DeclareLine

const verb = 'vm adopt'

/** A file of the document as it shall be (null: as it is), what that accepts no more, and what it cannot say. */
interface Adopting {
  readonly text: string | null
  readonly ended: readonly string[]
  readonly unsaid: readonly string[]
}

/** A VM that nobody declared, as its definition says. Its disks are taken as they are, where they are. */
async function declared(context: Context<Connection>, vm: DefinedVm): Promise<Adopting> {
  const [{ adopted, adoptedDisk, partNameOf }, { readModel }, { VIR }, { documentText }] = await Promise.all([
    import('../../provisioning/vms/adopted.ts'),
    import('../vms/facts.ts'),
    import('../node-libvirt/index.ts'),
    import('../vms/declaration.ts'),
  ])
  const model = await readModel(await context.libvirt('control'), vm, VIR.DOMAIN_XML_INACTIVE)
  const { machine, unsaid: some } = adopted(model, { isOn: vm.power !== 'off', autostart: vm.autostart })
  const unsaid = [...some]
  const disks = model.disks.flatMap((disk): readonly (readonly [string, WrittenDisk])[] => {
    const { source, format, target } = disk
    const isHere = source?.kind === 'file' || source?.kind === 'block'
    if (source === null || !isHere || (format !== 'qcow2' && format !== 'raw')) {
      unsaid.push(
        `${target}: a disk that is ${source === null ? 'empty' : `${source.kind} ${source.at}, ${format}`}`,
      )
      return []
    }
    const name = partNameOf(disk.name, target)
    return [[name, { path: source.at, format, ...adoptedDisk(disk, name, unsaid) }]]
  })
  const on = new Date(context.clock()).toISOString().slice(0, 10)
  const heading = `As garrison vm adopt found it on ${on}, for ${context.who}.`
  const declaration = { ...machine, disks: Object.fromEntries(disks) }
  return { text: documentText(vm.name, declaration, heading), ended: [], unsaid }
}

/**
 * What differs from what is declared, what was accepted of it too, written into the drop-in of the VM; null when nothing does. What is
 * declared needs no acceptance: left there it would let the next change of it pass in silence.
 */
async function drifted(
  context: Context<Connection>,
  { name }: DefinedVm,
  before: string | null,
): Promise<Adopting | null> {
  const [{ adoptedDrift }, { withoutAccepted, withValues }] = await Promise.all([
    import('../../provisioning/vms/adopted.ts'),
    import('../vms/declaration.ts'),
  ])
  const found = await surveyOf(await lookAtVms(context), name)
  if (!found?.defined) return null
  const { differences, accepted, overdue, defined, seen } = found
  const { sets, said, unsaid } = adoptedDrift(
    [...differences, ...accepted.map(({ difference }) => difference)],
    defined.model,
    seen.domain?.autostart ?? false,
  )
  if (sets.length === 0) return unsaid.length === 0 ? null : { text: null, ended: [], unsaid }
  const stays = ({ difference }: Accepted): boolean => !said.includes(difference.path)
  const known = [...accepted, ...overdue]
  const needed = known.filter(stays).map(({ acceptance }) => acceptance.path)
  const over = known.map(({ acceptance }) => acceptance.path).filter((path) => !needed.includes(path))
  const whole = sets.map(({ path, value }) => ({ path: ['vms', 'machines', name, ...path], value }))
  const { paths, text } = withoutAccepted(withValues(before ?? '', whole), name, over)
  return { text, ended: paths, unsaid }
}

/** Adopts it. Throws `request.no-such-vm`, `desired.missing`, `desired.invalid`, `vm.not-defined`, `file.exists`, `plan.changed`. */
export async function* run(
  context: Context<Connection>,
  { vm: called, plan }: Args<'vm adopt'>,
): AsyncGenerator<AdoptLine> {
  const [{ readVms }, { findVm }, { wantFitName }, { vms: resource }] = await Promise.all([
    import('../vms/facts.ts'),
    import('../vms/select.ts'),
    import('../vms/site.ts'),
    import('../../provisioning/vms/index.ts'),
  ])
  const { reader, libvirtFolders } = context
  const { vms } = await context.desired()
  const vm = findVm(await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run), called)
  const { name } = vm
  wantFitName(name, verb)
  if (!vm.persistent)
    throw new HostError('vm.not-defined', `${name} has no definition, only a running guest`, {
      details: { vm: name },
    })
  const dropIn = await readDropIn(context, name)
  const { file, path } = dropIn
  const isDeclared = vms?.machines[name] !== undefined
  const adopting = isDeclared ? await drifted(context, vm, dropIn.before) : await declared(context, vm)
  if (adopting === null) {
    yield { event: 'as-declared', vm: name }
    return
  }
  const { text, ended, unsaid } = adopting
  if (unsaid.length > 0) yield { event: 'unsaid', vm: name, what: unsaid }
  if (text === null) return
  const then = await lookAtVms(context, [{ path: file, text }])
  const takenBack: readonly TakenBack[] =
    ended.length === 0 ? [] : [{ event: 'taken-back', vm: name, file: path, plan, paths: ended }]
  if (plan) {
    yield* takenBack
    const steps = onlyOf(resource, [name]).plan(then.vms, then.desired)
    yield { event: 'planned', vm: name, file: path, text, steps: planned(steps) }
    return
  }
  const before = isDeclared ? dropIn.before : null
  const write = { ...dropIn, before, text, summary: `in ${path}` }
  await writeDropIns(context, { typed: `${verb} ${name}`, word: 'adopt', writes: [write] })
  yield* takenBack
  yield { event: 'declared', vm: name, file: path, goesOn: false }
}

/** A line in words. */
export function render(line: AdoptLine, terminal: Terminal): string | null {
  if (isProgress(line)) return null
  if (line.event === 'unsaid') return line.what.map((one) => paragraph('  not said', one, 14)).join('\n')
  if (line.event === 'as-declared') return `${line.vm} is as it is declared.`
  if (line.event === 'taken-back') return takenBackText(line)
  return renderDeclare(line, terminal)
}

/** 0 when the document says it; 2 when there is nothing that it can say. */
export function exitOf(line: AdoptLine): Exit | null {
  if (isProgress(line)) return null
  if (line.event === 'unsaid') return EXIT.drift
  return line.event === 'as-declared' || line.event === 'planned' || line.event === 'declared'
    ? EXIT.done
    : null
}
