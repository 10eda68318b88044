// How the verbs that change VMs are run and told: chosen, a few at a time, a line for each, and a summary.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import type { Risk } from '../../provisioning/resource.ts'
import type { Context } from '../api/context.ts'
import { duration, paint, paragraph, shorten, type Terminal, withTail } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { KnownInHand } from '../vms/devices.ts'
import type { DefinedVm } from '../vms/facts.ts'
import { type Choice, chooseVms, findVm } from '../vms/select.ts'
import type { Became } from '../vms/transitions.ts'

/** One line of the answer. Durations in milliseconds. */
export type VmLine =
  | { readonly event: 'selected'; readonly vms: readonly string[] }
  | { readonly event: 'begun'; readonly vm: string; readonly uuid: string }
  | ({
      readonly event: 'done'
      readonly vm: string
      readonly uuid: string
      readonly durationMs: number
    } & Became)
  | {
      readonly event: 'failed'
      readonly vm: string
      readonly uuid: string
      readonly durationMs: number
      readonly problem: ProblemReport
    }
  | {
      readonly event: 'finished'
      readonly done: number
      readonly unchanged: number
      readonly failed: number
      readonly unknown: number
      readonly left: number
      readonly durationMs: number
    }

/** What is done to each VM that was chosen. `risk` is the most that it may cost; `all` are the VMs of this host. */
export interface VmWork {
  readonly verb: string
  readonly risk: Risk
  readonly parallel: number
  work(hand: KnownInHand, all: readonly DefinedVm[]): Promise<Became>
}

/** How VMs are chosen on the command line; verbs that know no --all leave it out, those for one VM name it. */
export type Asked =
  | (Omit<Choice, 'all'> & { readonly all?: boolean; readonly parallel?: string | undefined })
  | { readonly vm: string }

const mostParallel = 64

function parallelOf(text: string | undefined, usual: number, verb: string): number {
  if (text === undefined) return usual
  const number = Number(text)
  if (/^\d{1,2}$/.test(text) && number >= 1 && number <= mostParallel) return number
  throw new HostError('request.invalid', `--parallel takes a number from 1 to ${mostParallel}, not ${text}`, {
    details: { verb },
  })
}

const outcomeOf = ({ failed, unknown, left }: Extract<VmLine, { event: 'finished' }>): string =>
  unknown > 0 ? 'unknown' : failed > 0 ? 'failed' : left > 0 ? 'stopped' : 'done'

const typedOf = (verb: string, asked: Asked): string =>
  'vm' in asked
    ? `${verb} ${asked.vm}`
    : [verb, ...(asked.all ? ['--all'] : []), ...asked.tag.map((one) => `--tag ${one}`), ...asked.names].join(
        ' ',
      )

/** Does something to every VM that is meant, and tells it. Throws before the first line when nothing can be begun. */
export async function* changeVms(
  context: Context<Connection>,
  asked: Asked,
  { verb, risk, parallel: usual, work }: VmWork,
): AsyncGenerator<VmLine> {
  const { clock, reader, libvirtFolders, signal } = context
  const parallel = 'vm' in asked ? 1 : parallelOf(asked.parallel, usual, verb)
  const [{ readModel, readVms }, { openChanges }, { inParallel }, { mayStart }, { VIR }] = await Promise.all([
    import('../vms/facts.ts'),
    import('../vms/changes.ts'),
    import('../vms/batch.ts'),
    import('../vms/may-start.ts'),
    import('../node-libvirt/index.ts'),
  ])
  const beganMs = clock()
  const vms = await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run)
  const items = 'vm' in asked ? [findVm(vms, asked.vm)] : chooseVms(vms, { all: false, ...asked }, verb)
  yield { event: 'selected', vms: items.map(({ name }) => name) }
  const ended = { done: 0, unchanged: 0, failed: 0, unknown: 0 }
  const finished = () => ({
    event: 'finished' as const,
    ...ended,
    left: items.length - ended.done - ended.unchanged - ended.failed - ended.unknown,
    durationMs: clock() - beganMs,
  })
  if (items.length > 0) {
    const changes = await openChanges(context, typedOf(verb, asked), risk)
    const to = () => context.libvirt('control')
    const handOf = (vm: DefinedVm) => ({
      to,
      vm,
      changes,
      mayStart: async () => {
        const model = await readModel(await to(), vm, VIR.DOMAIN_XML_INACTIVE)
        await mayStart(reader, vm.name, model)
      },
    })
    const events = inParallel({ items, parallel, signal, clock, work: (vm) => work(handOf(vm), vms) })
    for await (const one of events) {
      const { name: vm, uuid } = one.item
      if (one.kind === 'begun') yield { event: 'begun', vm, uuid }
      else if (one.kind === 'done') {
        ended[one.result.changed ? 'done' : 'unchanged'] += 1
        yield { event: 'done', vm, uuid, ...one.result, durationMs: one.durationMs }
      } else {
        ended[one.problem.code === 'libvirt.unreachable' ? 'unknown' : 'failed'] += 1
        yield { event: 'failed', vm, uuid, problem: one.problem, durationMs: one.durationMs }
      }
    }
    await changes.end(outcomeOf(finished()))
  }
  yield finished()
}

const nameColumn = 20
const mostNameColumns = 40

const label = (vm: string): string => shorten(vm, mostNameColumns)

const some = (count: number, what: string): readonly string[] => (count === 0 ? [] : [`${count} ${what}`])

/** A line in words. */
export function render(line: VmLine, terminal: Terminal): string | null {
  switch (line.event) {
    case 'selected':
    case 'begun':
      return null
    case 'done': {
      const word = line.changed ? paint(terminal, 'good', 'done') : paint(terminal, 'dim', 'as it was')
      return withTail(
        paragraph(label(line.vm), line.text, nameColumn),
        `${line.changed ? `${duration(line.durationMs)}  ` : ''}${word}`,
      )
    }
    case 'failed': {
      const { code, message, remedy } = line.problem
      const word = code === 'libvirt.unreachable' ? 'unknown' : 'failed'
      return [
        withTail(
          paragraph(label(line.vm), `${code}: ${message}`, nameColumn),
          `${duration(line.durationMs)}  ${paint(terminal, 'bad', word)}`,
        ),
        paragraph('', remedy, 2),
      ].join('\n')
    }
    case 'finished': {
      const counts = [
        ...some(line.done, 'done'),
        ...some(line.unchanged, 'as they were'),
        ...some(line.failed, 'failed'),
        ...some(line.unknown, 'unknown'),
        ...some(line.left, 'not begun'),
      ]
      const what = counts.length === 0 ? 'There is no VM' : counts.join(', ')
      return `${what} in ${duration(line.durationMs)}.`
    }
  }
}

/** What is going on until the next line. */
export const live = (line: VmLine): string | null => {
  if (line.event === 'selected') return 'looking at the VMs'
  return line.event === 'finished' ? null : `${line.vm} …`
}

/** 0 when all is done, 4 when nobody can tell of one, 1 when one failed or was not begun. */
export function exitOf(line: VmLine): Exit | null {
  if (line.event !== 'finished') return null
  if (line.unknown > 0) return EXIT.unknown
  return line.failed + line.left > 0 ? EXIT.error : EXIT.done
}
