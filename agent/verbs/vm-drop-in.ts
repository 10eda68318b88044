// What verbs share that write into the drop-in of a VM: a look at the VMs as they would be asked for, and the write with its line in the journal.

import { join } from 'node:path'
import type { Desired } from '../../provisioning/desired.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource, Step } from '../../provisioning/resource.ts'
import { homePool } from '../../provisioning/vms/names.ts'
import type { ObservedVms } from '../../provisioning/vms/observe.ts'
import type { Survey } from '../../provisioning/vms/survey.ts'
import type { DocumentFile } from '../../provisioning/written.ts'
import type { Context } from '../api/context.ts'
import { paragraph } from '../api/terminal.ts'
import { createFile, removeFile, replaceFile } from '../host/files.ts'

/** A step as a verb shows it beforehand. */
export type PlannedStep = Pick<Step, 'id' | 'subject' | 'summary' | 'risk'>

/** The VMs as they are, and the document as it is or would be with other drop-ins. */
export interface SeenVms {
  readonly vms: ObservedVms
  readonly desired: Desired
}

/** Looks at the VMs now. Throws what keeps them from being read, `desired.missing`, `desired.invalid`. */
export async function lookAtVms(context: Context, dropIns?: readonly DocumentFile[]): Promise<SeenVms> {
  const { assessments, desired, document } = await context.look({ fresh: true, dropIns })
  if (document) throw new HostError(document.code, document.message, document)
  const seen = assessments.find(({ resource }) => resource === 'vms')
  if (seen?.problem !== undefined)
    throw new HostError(seen.problem.code, seen.problem.message, { details: { ...seen.problem.details } })
  return { vms: seen?.observed as ObservedVms, desired }
}

/** What is known of a declared VM; null when there is none of that name. Throws what keeps that from being told. */
export async function surveyOf({ vms, desired }: SeenVms, name: string): Promise<Survey | null> {
  const { survey } = await import('../../provisioning/vms/survey.ts')
  const machine = vms.machines.find((one) => one.name === name)
  const found = machine && desired.vms ? survey(vms, desired.vms, machine) : null
  if (found?.objection) throw new HostError(found.objection.code, found.objection.message)
  return found
}

/** The names of declared VMs that are meant, by name, UUID or pattern. Throws `request.no-such-vm`. */
export async function chooseDeclared(
  { vms, desired }: SeenVms,
  names: readonly string[],
  verb: string,
): Promise<readonly string[]> {
  const { chooseVms } = await import('../vms/select.ts')
  const undeclared = vms.undeclared.find(({ name, uuid }) => names.includes(name) || names.includes(uuid))
  if (undeclared !== undefined)
    throw new HostError(
      'request.no-such-vm',
      `the document does not declare ${undeclared.name}: garrison vm adopt does`,
    )
  const declared = Object.entries(desired.vms?.machines ?? {}).map(([name, { uuid, tags }]) => ({
    ...{ name, tags },
    uuid: uuid ?? vms.machines.find((one) => one.name === name)?.domain?.uuid ?? '',
  }))
  return chooseVms(declared, { names, all: false, tag: [] }, verb).map(({ name }) => name)
}

/** The resource with nothing to do but for some VMs and the pools that they have files in. */
export const onlyOf = (vms: Resource<ObservedVms>, names: readonly string[]): Resource<ObservedVms> => ({
  ...vms,
  plan(observed, desired) {
    const used = names.flatMap((name) => {
      const machine = desired.vms?.machines[name]
      return desired.vms === undefined || machine === undefined
        ? []
        : [homePool(desired.vms, machine), ...Object.values(machine.disks).map(({ pool }) => pool)]
    })
    return vms.plan(
      {
        ...observed,
        machines: observed.machines.filter((one) => names.includes(one.name)),
        pools: observed.pools.filter((pool) => used.includes(pool.name)),
      },
      desired,
    )
  },
})

/** Steps as they are shown beforehand. */
export const planned = (steps: readonly Step[]): readonly PlannedStep[] =>
  steps.map(({ id, subject, summary, risk }) => ({
    ...{ id, summary, risk },
    ...(subject !== undefined && { subject }),
  }))

/** The same in words. */
export const plannedText = (steps: readonly PlannedStep[]): readonly string[] =>
  steps.map(({ id, subject, summary }) =>
    paragraph(`  ${[id, subject].filter(Boolean).join(' ')}`, summary, 16),
  )

/** The text of a file that would be, in words. */
export const wouldBe = (path: string, text: string): readonly string[] => [
  `${path} would be:`,
  ...text
    .trimEnd()
    .split('\n')
    .map((line) => `  ${line}`),
]

/** What was accepted is so no more, or would not be (with `plan`); `paths` as `garrison plan` shows them. */
export interface TakenBack {
  readonly event: 'taken-back'
  readonly vm: string
  readonly file: string
  readonly plan: boolean
  readonly paths: readonly string[]
}

/** The same in words. */
export const takenBackText = ({ file, plan, paths }: TakenBack): string =>
  [
    paragraph('', `${file} ${plan ? 'would accept' : 'accepts'} no more:`, 0),
    ...paths.map((path) => paragraph('', path, 2)),
  ].join('\n')

/** The drop-in of a VM: `file` as the document names it, and what is in it, null when it is not there. */
export interface DropIn {
  readonly vm: string
  readonly file: string
  readonly path: string
  readonly before: string | null
}

/** Reads the drop-in of a VM. */
export async function readDropIn({ documentFolder, reader }: Context, vm: string): Promise<DropIn> {
  const { dropInOf } = await import('../vms/declaration.ts')
  const file = dropInOf(vm)
  const path = join(documentFolder, file)
  return { vm, file, path, before: await reader.readText(path) }
}

/** What is written into drop-ins: `word` and `summary` are for the journal. With null a file is taken away. */
export interface Writing {
  /** The verb, as it was typed. */
  readonly typed: string
  readonly word: string
  readonly writes: readonly (DropIn & { readonly text: string | null; readonly summary: string })[]
}

/**
 * Writes drop-ins. What is in them may be for root alone, so the journal names the file. Throws `file.exists` when a new one has come
 * meanwhile, `plan.changed` when one has changed, `journal.unwritable`.
 */
export async function writeDropIns(context: Context, { typed, word, writes }: Writing): Promise<void> {
  const { openChanges } = await import('../vms/changes.ts')
  const changes = await openChanges(context, typed, 'safe')
  let outcome = 'failed'
  try {
    for (const { vm, path, before, text, summary } of writes)
      await changes.make({ word, vm, summary, risk: 'safe' }, async () => {
        if (before !== null && (await context.reader.readText(path)) !== before)
          throw new HostError('plan.changed', `${path} was written anew since it was read`, {
            details: { path },
          })
        if (text === null) await removeFile(path)
        else if (before !== null) await replaceFile(path, text, 0o600)
        else if (!(await createFile(path, text, 0o600)))
          throw new HostError('file.exists', `${path} is there already`, { details: { path } })
      })
    outcome = 'done'
  } finally {
    await changes.end(outcome)
  }
}
