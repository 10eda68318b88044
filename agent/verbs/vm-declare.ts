// What `vm create` and `vm import` share: a VM is declared in a drop-in of its own, checked and planned first, and then converged.

import { dirname } from 'node:path'
import type { Desired } from '../../provisioning/desired.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource, Step } from '../../provisioning/resource.ts'
import { diskPath } from '../../provisioning/vms/names.ts'
import type { DesiredVms } from '../../provisioning/vms/schema.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Declaration } from '../vms/declaration.ts'
import {
  type ApplyLine,
  exitOf as applyExitOf,
  live as applyLive,
  linesOf,
  render as renderApply,
} from './apply.ts'
import { watchImage } from './image-progress.ts'
import { progressText } from './job-progress.ts'
import {
  lookAtVms,
  onlyOf,
  type PlannedStep,
  planned,
  plannedText,
  readDropIn,
  wouldBe,
  writeDropIns,
} from './vm-drop-in.ts'
import { commandText } from './wording.ts'

/** One line of the answer. */
export type DeclareLine =
  | {
      readonly event: 'planned'
      readonly vm: string
      readonly file: string
      readonly text: string
      readonly steps: readonly PlannedStep[]
    }
  | { readonly event: 'declared'; readonly vm: string; readonly file: string; readonly goesOn: boolean }
  | Progress
  | ApplyLine

/** What is declared, and how far it goes. */
export interface Declaring {
  readonly verb: 'vm create' | 'vm import'
  readonly name: string
  readonly declaration: Declaration
  readonly heading: string
  /** `plan`: nothing is written. `declare`: it is written. `converge`: and done. */
  readonly until: 'plan' | 'declare' | 'converge'
  /** Disks that must be made, for what is there would be another one. */
  readonly made?: readonly string[]
}

/** Disks of a VM that are fetched as they are: by the key of the step that makes each, its path. */
function fetchedDisks(vms: DesiredVms | undefined, name: string): ReadonlyMap<string, string> {
  const machine = vms?.machines[name]
  if (vms === undefined || machine === undefined) return new Map()
  return new Map(
    Object.entries(machine.disks).flatMap(([disk, { image }]) => {
      const path = image?.copy === 'own' ? diskPath(vms, name, machine, disk) : null
      return path === null ? [] : [[`vms.disk ${name}.${disk}`, path] as const]
    }),
  )
}

/** Throws `file.exists` when a disk that must be made is there, `file.no-space` when those that are fetched as they are find no room. */
async function wantPlaces(
  reader: Context['reader'],
  { vms }: Desired,
  name: string,
  made: readonly string[],
  steps: readonly Step[],
): Promise<void> {
  const { disks = {} } = vms?.machines[name] ?? {}
  const there = made.find((disk) => !steps.some(({ subject }) => subject === `${name}.${disk}`))
  if (there !== undefined)
    throw new HostError('file.exists', `the disk ${there} of ${name} is there already`, {
      details: { vm: name, disk: there },
    })
  const wanted = new Map<string, number>()
  for (const [key, path] of fetchedDisks(vms, name)) {
    const disk = key.slice(key.lastIndexOf('.') + 1)
    const pool = dirname(dirname(path))
    wanted.set(pool, (wanted.get(pool) ?? 0) + (disks[disk]?.image?.sizeBytes ?? 0))
  }
  for (const [path, wantedBytes] of wanted) {
    const capacity = await reader.capacity(path)
    if (capacity !== null && capacity.freeBytes < wantedBytes)
      throw new HostError(
        'file.no-space',
        `the disks of ${name} take ${wantedBytes} bytes, and of ${path} ${capacity.freeBytes} are free`,
        { details: { path, wantedBytes, freeBytes: capacity.freeBytes } },
      )
  }
}

/** Declares a VM, and goes as far as is asked. Throws before anything is written when it cannot come about. */
export async function* declareVm(
  context: Context<Connection>,
  { verb, name, declaration, heading, until, made = [] }: Declaring,
): AsyncGenerator<DeclareLine> {
  const [{ documentText }, { wantFree }, { vms }] = await Promise.all([
    import('../vms/declaration.ts'),
    import('../vms/site.ts'),
    import('../../provisioning/vms/index.ts'),
  ])
  wantFree(name, await context.reader.domains(), verb)
  if (Object.hasOwn(await context.declaredMachines(), name))
    throw new HostError('vm.name-taken', `the document declares a VM ${name} already`, {
      details: { vm: name },
    })
  const dropIn = await readDropIn(context, name)
  const text = documentText(name, declaration, heading)
  const { file, path } = dropIn
  const only = onlyOf(vms, [name])
  const then = await lookAtVms(context, [{ path: file, text }])
  const { desired } = then
  const steps = only.plan(then.vms, desired)
  const blocked = steps.find((step) => step.blocked !== undefined)?.blocked
  if (blocked !== undefined)
    throw new HostError(blocked.code, blocked.message, { details: { ...(blocked.details as object) } })
  await wantPlaces(context.reader, desired, name, made, steps)
  if (until === 'plan') {
    yield { event: 'planned', vm: name, file: path, text, steps: planned(steps) }
    return
  }
  const write = { ...dropIn, before: null, text, summary: `in ${path}` }
  await writeDropIns(context, { typed: `${verb} ${name}`, word: 'declare', writes: [write] })
  yield { event: 'declared', vm: name, file: path, goesOn: until === 'converge' }
  if (until === 'declare') return
  const applied = linesOf(context.apply({ allow: 'safe', only: vms.id, instead: only as Resource }), (risk) =>
    commandText(['garrison', 'apply', '--only', vms.id, '--allow', risk]),
  )
  const fetched = fetchedDisks(desired.vms, name)
  yield* toldBy<DeclareLine>(async (tell) => {
    let unwatch = () => {}
    try {
      for await (const line of applied) {
        unwatch()
        tell(line)
        if (line.event !== 'step-started') continue
        const disk = fetched.get(line.key)
        const image = disk === undefined ? /^vms\.image (\/.*)$/.exec(line.key)?.[1] : `${disk}.new`
        if (image !== undefined) unwatch = watchImage(context.reader, image, tell)
      }
    } finally {
      unwatch()
    }
  })
}

/** A line in words. */
export function render(line: DeclareLine, terminal: Terminal): string | null {
  if (isProgress(line)) return null
  switch (line.event) {
    case 'planned':
      return [...wouldBe(line.file, line.text), 'Then would be done:', ...plannedText(line.steps)].join('\n')
    case 'declared':
      return paragraph(
        '',
        `${line.vm} is declared in ${line.file}.${line.goesOn ? '' : ' garrison plan shows what garrison apply will do.'}`,
        0,
      )
    default:
      return renderApply(line, terminal)
  }
}

/** What is going on until the next line. */
export const live = (line: DeclareLine): string | null => {
  if (isProgress(line)) return progressText(line)
  return line.event === 'planned' || line.event === 'declared' ? null : applyLive(line)
}

/** 0 when it is planned or declared, then as `apply`. */
export function exitOf(line: DeclareLine): Exit | null {
  if (isProgress(line)) return null
  return line.event === 'planned' || line.event === 'declared' ? EXIT.done : applyExitOf(line)
}
