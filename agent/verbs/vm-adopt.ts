// The verb `vm adopt`: writes into the document what a VM is, where nobody declared it or a person has changed it.

import { join } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import type { Json, Resource } from '../../provisioning/resource.ts'
import type { WrittenDisk } from '../../provisioning/vms/adopted.ts'
import type { ObservedVms } from '../../provisioning/vms/observe.ts'
import type { Context } from '../api/context.ts'
import { isProgress } from '../api/progress.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { createFile, replaceFile } from '../host/files.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { DefinedVm } from '../vms/facts.ts'
import { type DeclareLine, onlyOf, render as renderDeclare } from './vm-declare.ts'

/** One line of the answer. */
export type AdoptLine =
  | { readonly event: 'unsaid'; readonly vm: string; readonly what: readonly string[] }
  | { readonly event: 'as-declared'; readonly vm: string }
  | DeclareLine

const verb = 'vm adopt'

/** A file of the document as it shall be (null: as it is), and what it cannot say; `before` is null for a new one. */
interface Adopting {
  readonly before: string | null
  readonly text: string | null
  readonly unsaid: readonly string[]
}

async function observed(context: Context<Connection>, dropIn?: { path: string; text: string }) {
  const { assessments, desired } = await context.look({ fresh: true, dropIn })
  const seen = assessments.find(({ resource }) => resource === 'vms')
  if (seen?.problem !== undefined)
    throw new HostError(seen.problem.code, seen.problem.message, { details: { ...seen.problem.details } })
  return { vms: seen?.observed as ObservedVms, desired }
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
  return { before: null, text: documentText(vm.name, declaration, heading), unsaid }
}

/** What differs from what is declared, written into the drop-in of the VM; null when nothing does. */
async function drifted(
  context: Context<Connection>,
  { name }: DefinedVm,
  path: string,
): Promise<Adopting | null> {
  const [{ adoptedDrift }, { survey }, { withValues }] = await Promise.all([
    import('../../provisioning/vms/adopted.ts'),
    import('../../provisioning/vms/survey.ts'),
    import('../vms/declaration.ts'),
  ])
  const { vms: seen, desired } = await observed(context)
  const machine = seen.machines.find((one) => one.name === name)
  const found = machine && desired.vms ? survey(seen, desired.vms, machine) : null
  if (found?.objection) throw new HostError(found.objection.code, found.objection.message)
  if (!found?.defined) return null
  const { sets, unsaid } = adoptedDrift(
    found.differences,
    found.defined.model,
    machine?.domain?.autostart ?? false,
  )
  if (sets.length === 0 && unsaid.length === 0) return null
  const before = await context.reader.readText(path)
  return { before, text: sets.length === 0 ? null : withValues(before ?? '', name, sets), unsaid }
}

/** Adopts it. Throws `request.no-such-vm`, `desired.missing`, `desired.invalid`, `vm.not-defined`, `file.exists`. */
export async function* run(
  context: Context<Connection>,
  { vm: called, plan }: Args<'vm adopt'>,
): AsyncGenerator<AdoptLine> {
  const [{ readVms }, { findVm }, { wantFitName }, { dropInOf }, { openChanges }, { vms: resource }] =
    await Promise.all([
      import('../vms/facts.ts'),
      import('../vms/select.ts'),
      import('../vms/site.ts'),
      import('../vms/declaration.ts'),
      import('../vms/changes.ts'),
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
  const file = dropInOf(name)
  const path = join(context.documentFolder, file)
  const isDeclared = vms?.machines[name] !== undefined
  const adopting = isDeclared ? await drifted(context, vm, path) : await declared(context, vm)
  if (adopting === null) {
    yield { event: 'as-declared', vm: name }
    return
  }
  const { before, text, unsaid } = adopting
  if (unsaid.length > 0) yield { event: 'unsaid', vm: name, what: unsaid }
  if (text === null) return
  const then = await observed(context, { path: file, text })
  const steps = onlyOf(resource as Resource<ObservedVms>, name).plan(then.vms, then.desired)
  if (plan) {
    yield {
      event: 'planned',
      vm: name,
      file: path,
      text,
      steps: steps.map(({ id, subject, summary, risk }) => ({
        ...{ id, summary, risk },
        ...(subject !== undefined && { subject }),
      })),
    }
    return
  }
  const changes = await openChanges(context, `${verb} ${name}`, 'safe')
  let outcome = 'failed'
  try {
    await changes.make({ word: 'adopt', vm: name, summary: `in ${path}`, risk: 'safe' }, async () => {
      if (before !== null) await replaceFile(path, text, 0o600)
      else if (!(await createFile(path, text, 0o600)))
        throw new HostError('file.exists', `${path} is there already`, {
          details: { path } as Record<string, Json>,
        })
    })
    outcome = 'done'
  } finally {
    await changes.end(outcome)
  }
  yield { event: 'declared', vm: name, file: path, goesOn: false }
}

/** A line in words. */
export function render(line: AdoptLine, terminal: Terminal): string | null {
  if (isProgress(line)) return null
  if (line.event === 'unsaid') return line.what.map((one) => paragraph('  not said', one, 14)).join('\n')
  if (line.event === 'as-declared') return `${line.vm} is as it is declared.`
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
