// The verb `vm stats`: what VMs use, again and again.

import { setTimeout as sleep } from 'node:timers/promises'
import { type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { bytes, duration, moment, paint, paragraph, shorten, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { readVms } from '../vms/facts.ts'
import { chooseVms, durationMs } from '../vms/select.ts'
import { Sampler, type Usage } from '../vms/usage.ts'

/** One line of the answer: what each VM uses, or that libvirt does not tell. `again`: it is written over the one before. */
export type StatsLine =
  | {
      readonly event: 'stats'
      readonly atMs: number
      readonly again: boolean
      readonly vms: readonly Usage[]
    }
  | { readonly event: 'unknown'; readonly atMs: number; readonly problem: ProblemReport }

const verb = 'vm stats'
const firstMs = 1000
const leastMs = 500

/** Samples the running VMs that are meant, until the caller leaves. */
export async function* run(context: Context<Connection>, args: Args<'vm stats'>): AsyncGenerator<StatsLine> {
  const { clock, signal, reader, libvirtFolders } = context
  const { names, tag, every = '2s', once } = args
  const everyMs = Math.max(leastMs, durationMs(every, 'every', verb))
  const sampler = new Sampler(clock)
  const sample = async () => {
    const libvirt = await context.libvirt('monitor')
    const all = await readVms(libvirt, reader, libvirtFolders.run)
    const isAll = names.length === 0 && tag.length === 0
    const meant = chooseVms(all, { names, tag, all: isAll }, verb)
    // One that is off uses nothing; it is only shown when it was named.
    return sampler.sample(libvirt, isAll ? meant.filter(({ power }) => power !== 'off') : meant)
  }
  const pause = async (ms: number): Promise<void> => {
    // A caller that leaves ends the wait.
    await sleep(ms, undefined, { signal }).catch(() => undefined)
  }
  await sample()
  await pause(firstMs)
  for (let again = false; !signal.aborted; again = true) {
    const atMs = clock()
    try {
      yield { event: 'stats', atMs, again, vms: await sample() }
    } catch (error) {
      const problem = problemOf(error)
      if (once || problem.code !== 'libvirt.unreachable') throw error
      yield { event: 'unknown', atMs, problem }
    }
    if (once) return
    await pause(everyMs)
  }
}

const clearScreen = '\u001b[H\u001b[2J'
const headings = ['name', 'cpu', 'memory', 'read', 'written', 'received', 'sent']
const nameColumns = 24
const cellColumns = 8

const perSecond = (rate: number | null): string =>
  rate === null ? '-' : bytes(Math.round(rate)).replace(' ', '')

const cellsOf = (vm: Usage): readonly string[] => [
  vm.cpuPercent === null ? '-' : `${vm.cpuPercent.toFixed(vm.cpuPercent < 10 ? 1 : 0)} %`,
  vm.memoryBytes === null ? '-' : bytes(vm.memoryBytes).replace(' ', ''),
  perSecond(vm.readPerSecond),
  perSecond(vm.writtenPerSecond),
  perSecond(vm.receivedPerSecond),
  perSecond(vm.sentPerSecond),
]

/** How old numbers may be before that is said. */
const freshMs = 1000

function note({ power, ageMs }: Usage): string {
  if (power !== 'running') return `  ${power}`
  if (ageMs === null) return '  nothing known'
  return ageMs > freshMs ? `  ${duration(ageMs)} old` : ''
}

/** A round as a table; bytes are per second. */
export function render(line: StatsLine, terminal: Terminal): string {
  if (line.event === 'unknown') {
    const { code, message } = line.problem
    return paragraph(paint(terminal, 'bad', `${moment(line.atMs)} unknown`), `${code}: ${message}`, 2)
  }
  const width = Math.max(4, ...line.vms.map(({ name }) => Math.min(name.length, nameColumns)))
  const row = (name: string, cells: readonly string[]) =>
    [shorten(name, nameColumns).padEnd(width), ...cells.map((cell) => cell.padStart(cellColumns))].join(' ')
  const [first = '', ...rest] = headings
  const table =
    line.vms.length === 0
      ? 'No VM runs.'
      : [
          paint(terminal, 'dim', row(first, rest)),
          ...line.vms.map((vm) => row(vm.name, cellsOf(vm)) + paint(terminal, 'warn', note(vm))),
        ].join('\n')
  return line.again && terminal.live ? `${clearScreen}${table}` : table
}

/** 4 while libvirt does not tell, or else 0. */
export const exitOf = (line: StatsLine): Exit => (line.event === 'unknown' ? EXIT.unknown : EXIT.done)
