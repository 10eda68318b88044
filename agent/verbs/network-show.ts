// The verb `network show`: the way of VMs' traffic from their NICs to the wire, as it is, and the first place where it stops.

import { HostError } from '../../provisioning/problem.ts'
import { type Hop, type Path, pathsOf } from '../../provisioning/vmnets/path.ts'
import { type ObservedPaths, observePaths } from '../../provisioning/vmnets/path-facts.ts'
import type { Context } from '../api/context.ts'
import { bytes, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `network show`. */
export interface ShownPaths {
  readonly atMs: number
  readonly paths: readonly Path[]
}

/** What the ways of VMs are told from; without a document of this host that can be read, for one that declares nothing. */
export async function readPaths(context: Context): Promise<ObservedPaths> {
  const { desired } = await context.look({ fresh: false })
  return observePaths(context.reader, desired)
}

/** Looks at the host. Throws `request.no-such-vm`, and what kept it from looking. */
export async function run(context: Context, { vm }: Args<'network show'>): Promise<ShownPaths> {
  const paths = await readPaths(context)
  const shown = pathsOf(paths, vm)
  if (vm !== undefined && shown.length === 0)
    throw new HostError('request.no-such-vm', `libvirt knows no VM ${vm} that has a NIC`)
  return { atMs: context.clock(), paths: shown }
}

const column = 17

/** Where traffic stops and why, in one sentence; null where it does not. */
export const stopOf = ({ hops }: Path): Hop['stop'] => hops.at(-1)?.stop ?? null

function hopText({ at, text, counts, stop, notes }: Hop, terminal: Terminal): readonly string[] {
  const counted =
    counts === null
      ? ''
      : `; received ${counts.receivedPackets} packets (${bytes(counts.receivedBytes)}), sent ${counts.sentPackets} (${bytes(counts.sentBytes)})${counts.dropped === 0 ? '' : `, dropped ${counts.dropped}`}`
  return [
    paragraph(`  ${at} `, `${text}${counted}`, column),
    ...notes.map((note) => paragraph('', note, column)),
    ...(stop === null
      ? []
      : [
          paragraph(`  ${paint(terminal, 'bad', 'stops here')} `, stop.text, column),
          paragraph('', stop.remedy, column),
        ]),
  ]
}

/** The answer in words. */
export function render({ paths }: ShownPaths, terminal: Terminal): string {
  if (paths.length === 0) return 'No VM has a NIC.'
  return paths
    .flatMap((path) => {
      const { vm, to, mode, why, hops } = path
      return [
        `${paint(terminal, 'strong', vm)}  ${to}${mode === null ? ', which is not declared' : `, ${mode}`}`,
        ...(why === null || why === 'declared' ? [] : [paragraph('  mode ', why, column)]),
        ...hops.flatMap((hop) => hopText(hop, terminal)),
        ...(stopOf(path) === null ? [paragraph('  ', 'Nothing on this host stops it.', 2)] : []),
      ]
    })
    .join('\n')
}

/** 0: nothing stops it; 3: something does, on the way of one NIC that is shown at least. */
export const exitOf = ({ paths }: ShownPaths): Exit =>
  paths.some((path) => stopOf(path) !== null) ? EXIT.refused : EXIT.done
