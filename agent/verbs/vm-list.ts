// The verb `vm list`: the VMs of this host, once or again and again.

import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import {
  bytes,
  duration,
  moment,
  paint,
  paragraph,
  type Style,
  shorten,
  type Terminal,
} from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { hostClock } from '../report/clock.ts'
import { type ColumnName, cellText, columns, csvOf, sorted } from '../vms/columns.ts'
import { type DefinedVm, readVms, type Vm } from '../vms/facts.ts'
import { chooseVms, durationMs, hasTag } from '../vms/select.ts'

/** How the list is to be shown. */
interface Shape {
  readonly columns: readonly ColumnName[]
  readonly csv: boolean
  /** Whether it is written over the one before. */
  readonly again: boolean
}

/** One line of the answer: the list, or that it cannot be had. */
export type VmsLine =
  | { readonly event: 'vms'; readonly atMs: number; readonly vms: readonly Vm[]; readonly shape: Shape }
  | { readonly event: 'unknown'; readonly atMs: number; readonly problem: ProblemReport }

const verb = 'vm list'
const watchMs = 2000
const usual: readonly ColumnName[] = ['name', 'power', 'cpus', 'memory', 'age', 'networks', 'tags']

const isColumn = (name: string): name is ColumnName => Object.hasOwn(columns, name)

function columnsOf(text: string | undefined): readonly ColumnName[] {
  if (text === undefined) return usual
  return text.split(',').map((name) => {
    if (isColumn(name)) return name
    throw new HostError(
      'request.invalid',
      `--columns takes names of columns with commas between: ${Object.keys(columns).join(', ')}; not ${name}`,
      { details: { verb } },
    )
  })
}

/** Which of the VMs the flags let through. */
function filterOf({ names, power, tag, network, older, younger }: Args<'vm list'>, nowMs: number) {
  const [longest, shortest] = [
    younger === undefined ? Number.POSITIVE_INFINITY : durationMs(younger, 'younger', verb),
    older === undefined ? 0 : durationMs(older, 'older', verb),
  ]
  return (all: readonly DefinedVm[]): readonly DefinedVm[] =>
    (names.length === 0 ? all : chooseVms(all, { names, all: false, tag: [] }, verb)).filter((vm) => {
      if (power !== undefined && vm.power !== power) return false
      if (network !== undefined && !vm.networks.includes(network)) return false
      if (!tag.every((one) => hasTag(vm, one))) return false
      if (older === undefined && younger === undefined) return true
      if (vm.runningSinceMs === null) return false
      const ageMs = nowMs - vm.runningSinceMs
      return ageMs >= shortest && ageMs <= longest
    })
}

const shownOf = ({ model: _, ...vm }: DefinedVm): Vm => vm

/** The list, and with --watch the list again every two seconds until the caller leaves. */
export async function* run(context: Context<Connection>, args: Args<'vm list'>): AsyncGenerator<VmsLine> {
  const { clock, reader, libvirtFolders, signal } = context
  const { sort = 'name', csv, watch } = args
  const names = columnsOf(args.columns)
  for (let again = false; ; again = true) {
    const atMs = clock()
    const filter = filterOf(args, atMs)
    try {
      const vms = filter(await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run))
      const shape = { columns: names, csv, again }
      yield { event: 'vms', atMs, vms: sorted(vms, sort, atMs).map(shownOf), shape }
    } catch (error) {
      const problem = problemOf(error)
      if (!watch || problem.code !== 'libvirt.unreachable') throw error
      yield { event: 'unknown', atMs, problem }
    }
    if (!watch || signal.aborted) return
    // A caller that leaves ends the wait.
    await hostClock.sleep(watchMs, signal)
    if (signal.aborted) return
  }
}

const powerStyle: Readonly<Record<string, Style>> = {
  running: 'good',
  off: 'dim',
  unknown: 'bad',
  crashed: 'bad',
}

/** The most columns that one takes in a table; the last one shown takes what it needs. */
const mostColumns: { readonly [N in ColumnName]?: number } = {
  name: 32,
  networks: 20,
  template: 24,
  reason: 20,
}

const clearScreen = '\u001b[H\u001b[2J'

function tableText({ vms, shape, atMs }: Extract<VmsLine, { event: 'vms' }>, terminal: Terminal): string {
  const words = { bytes, duration }
  const cells = vms.map((vm) =>
    shape.columns.map((name, at) => {
      const text = cellText(name, vm, atMs, words)
      return at === shape.columns.length - 1 ? text : shorten(text, mostColumns[name] ?? 40)
    }),
  )
  const widths = shape.columns.map((name, at) =>
    Math.max(name.length, ...cells.map((row) => row[at]?.length ?? 0)),
  )
  const lineOf = (row: readonly string[], style: (text: string, at: number) => string) =>
    row
      .map((text, at) => style(at === row.length - 1 ? text : text.padEnd(widths[at] ?? 0), at))
      .join('  ')
      .trimEnd()
  const power = shape.columns.indexOf('power')
  const rows = cells.map((row) =>
    lineOf(row, (text, at) =>
      at === power ? paint(terminal, powerStyle[text.trim()] ?? 'warn', text) : text,
    ),
  )
  const unread = vms.flatMap(({ name, problem }) =>
    problem === null
      ? []
      : [paragraph(paint(terminal, 'bad', name), `${problem.code}: ${problem.message}`, 2)],
  )
  return [lineOf(shape.columns, (text) => paint(terminal, 'dim', text)), ...rows, ...unread].join('\n')
}

/** The list as a table or CSV. */
export function render(line: VmsLine, terminal: Terminal): string {
  if (line.event === 'unknown') {
    const { code, message } = line.problem
    return paragraph(paint(terminal, 'bad', `${moment(line.atMs)} unknown`), `${code}: ${message}`, 2)
  }
  const { vms, shape, atMs } = line
  if (shape.csv) return csvOf(vms, shape.columns, atMs)
  const text = vms.length === 0 ? 'No VMs.' : tableText(line, terminal)
  return shape.again && terminal.live ? `${clearScreen}${text}` : text
}

/** 0, or 4 when of one of the VMs it is not known what it does. */
export function exitOf(line: VmsLine): Exit {
  if (line.event === 'unknown') return EXIT.unknown
  return line.vms.some(({ power, problem }) => power === 'unknown' || problem !== null)
    ? EXIT.unknown
    : EXIT.done
}
