// The verb `vm stats`: what VMs use, again and again.

import type { Context } from '../api/context.ts'
import { bytes, duration, paint, paragraph, shorten, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { hostClock } from '../report/clock.ts'
import { readNow } from '../report/proc-files.ts'
import { type Sample, Sampler, type VmSample } from '../report/sample.ts'
import { readVms } from '../vms/facts.ts'
import { type Choosable, chooseVms, durationMs } from '../vms/select.ts'

/** One line of the answer: what is known of the VMs that are meant. `again`: it is written over the one before. */
export interface StatsLine extends Sample {
  readonly event: 'stats'
  readonly again: boolean
}

const verb = 'vm stats'
const firstMs = 1000
const leastMs = 500
/** What comes later than that is shown the next time: those who answer are not held up by one who does not. */
const patienceMs = 500

/** Samples the VMs that are meant until the caller leaves; all that are not off when none was named. */
export async function* run(context: Context<Connection>, args: Args<'vm stats'>): AsyncGenerator<StatsLine> {
  const { signal, reader, libvirtFolders } = context
  const { names, tag, every = '2s', once } = args
  const everyMs = once ? firstMs : Math.max(leastMs, durationMs(every, 'every', verb))
  // A caller that leaves ends the wait.
  const pause = (ms: number): Promise<void> => hostClock.sleep(ms, signal)

  const tags = new Map<string, Choosable['tags']>()
  const meant = async ({ listed, vms }: Sample): Promise<readonly VmSample[]> => {
    // Nobody knows yet whether there is one of that name.
    if (listed === null) return []
    if (names.length === 0 && tag.length === 0) return vms.filter(({ power }) => power?.value.power !== 'off')
    if (tag.length > 0 && vms.some(({ uuid }) => !tags.has(uuid)))
      for (const vm of await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run))
        tags.set(vm.uuid, vm.tags)
    const choosable = vms.map((vm) => ({ vm, name: vm.name, uuid: vm.uuid, tags: tags.get(vm.uuid) ?? {} }))
    return chooseVms(choosable, { names, tag, all: false }, verb).map(({ vm }) => vm)
  }

  // Throws when there is no libvirt at all.
  await context.libvirt('monitor')
  const sampler = new Sampler({
    connect: context.ownLibvirt,
    read: readNow,
    clock: hostClock,
    runFolder: libvirtFolders.run,
    netDevPath: '/proc/net/dev',
    everyMs: { look: everyMs, ask: everyMs },
  })
  try {
    let asking: Promise<void> | null = null
    for (let round = 0; !signal.aborted; round += 1) {
      asking ??= sampler.ask().then(() => {
        asking = null
      })
      await (once ? asking : Promise.race([asking, pause(patienceMs)]))
      sampler.look()
      // How fast something rises takes two looks to tell.
      if (round > 0) {
        const sample = sampler.sample()
        yield { event: 'stats', again: round > 1, ...sample, vms: await meant(sample) }
        if (once) return
      }
      await pause(round === 0 ? firstMs : everyMs)
    }
  } finally {
    sampler.close()
  }
}

const clearScreen = '\u001b[H\u001b[2J'
const headings = ['name', 'cpu', 'memory', 'read', 'written', 'received', 'sent']
const nameColumns = 24
const cellColumns = 8

const size = (value: number | null | undefined): string =>
  value === null || value === undefined ? '-' : bytes(Math.round(value)).replace(' ', '')

/** All devices together; null when of none is known how fast it is. */
function sum(rates: readonly (number | null | undefined)[]): number | null {
  const known = rates.filter((rate) => typeof rate === 'number')
  return known.length === 0 ? null : known.reduce((total, rate) => total + rate, 0)
}

function cellsOf({ process, memory, disks, nics }: VmSample): readonly string[] {
  const cpuMs = process?.value.counters.perSecond?.cpuMs ?? null
  const percent = cpuMs === null ? null : cpuMs / 10
  const ofDisks = disks?.value.map(({ counters }) => counters.perSecond) ?? []
  const ofNics = nics?.value.map(({ counters }) => counters?.perSecond) ?? []
  return [
    percent === null ? '-' : `${percent.toFixed(percent < 10 ? 1 : 0)} %`,
    size(memory?.value.currentBytes),
    size(sum(ofDisks.map((rates) => rates?.readBytes))),
    size(sum(ofDisks.map((rates) => rates?.writtenBytes))),
    size(sum(ofNics.map((rates) => rates?.receivedBytes))),
    size(sum(ofNics.map((rates) => rates?.sentBytes))),
  ]
}

/** What is to be said of a VM beside its numbers: what it does, unless it runs, and which numbers are old or not there. */
function note(vm: VmSample): string {
  const power = vm.power?.value.power ?? 'unknown'
  const readings = [
    ['power', vm.power],
    ['cpu', vm.process],
    ['memory', vm.memory],
    ['disks', vm.disks],
    ['nics', vm.nics],
  ] as const
  const old = readings.flatMap(([name, reading]) =>
    reading?.stale ? `${name} ${duration(reading.ageMs)} old` : [],
  )
  const untold = readings.flatMap(([name, reading]) => (reading === null ? name : []))
  const parts = [
    ...(power === 'running' ? [] : [power]),
    ...(vm.stuckSinceMs === null ? [] : ['does not answer']),
    ...old,
    ...(power === 'off' || untold.length === 0 ? [] : [`not told: ${untold.join(' ')}`]),
    ...(vm.problem === null ? [] : [vm.problem.code]),
  ]
  return parts.length === 0 ? '' : `  ${parts.join(', ')}`
}

/** A round as a table; bytes are per second. */
export function render(line: StatsLine, terminal: Terminal): string {
  const width = Math.max(4, ...line.vms.map(({ name }) => Math.min(name.length, nameColumns)))
  const row = (name: string, cells: readonly string[]) =>
    [shorten(name, nameColumns).padEnd(width), ...cells.map((cell) => cell.padStart(cellColumns))].join(' ')
  const [first = '', ...rest] = headings
  const { silence, listed, vms } = line
  const silent = silence === null ? [] : [paragraph(paint(terminal, 'bad', 'libvirt is silent'), silence, 2)]
  const table =
    vms.length > 0
      ? [
          paint(terminal, 'dim', row(first, rest)),
          ...vms.map((vm) => row(vm.name, cellsOf(vm)) + paint(terminal, 'warn', note(vm))),
        ]
      : [listed === null ? 'Nobody knows yet which VMs there are.' : 'No VM runs.']
  const text = [...silent, ...table].join('\n')
  return line.again && terminal.live ? `${clearScreen}${text}` : text
}

/** 4 while libvirt does not tell all, or what a VM does is not known; or else 0. */
export const exitOf = ({ silence, listed, vms }: StatsLine): Exit =>
  silence !== null ||
  listed === null ||
  vms.some(({ power }) => (power?.value.power ?? 'unknown') === 'unknown')
    ? EXIT.unknown
    : EXIT.done
