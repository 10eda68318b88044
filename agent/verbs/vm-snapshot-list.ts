// The verb `vm snapshot list`: the snapshots of a VM.

import type { Context } from '../api/context.ts'
import { ago, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { readVms } from '../vms/facts.ts'
import { findVm } from '../vms/select.ts'
import { listSnapshots, type Snapshot } from '../vms/snapshots.ts'

/** The answer of `vm snapshot list`. */
export interface VmSnapshots {
  readonly atMs: number
  readonly vm: string
  readonly uuid: string
  readonly snapshots: readonly Snapshot[]
}

/** Reads the snapshots. Throws `request.no-such-vm`, `libvirt.unreachable`. */
export async function run(
  context: Context<Connection>,
  args: Args<'vm snapshot list'>,
): Promise<VmSnapshots> {
  const { clock, reader, libvirtFolders } = context
  const libvirt = await context.libvirt('monitor')
  const { name, uuid } = findVm(await readVms(libvirt, reader, libvirtFolders.run), args.vm)
  return { atMs: clock(), vm: name, uuid, snapshots: await listSnapshots(libvirt, { name, uuid }) }
}

const column = 26

/** The answer in words. */
export function render({ vm, snapshots }: VmSnapshots, terminal: Terminal): string {
  if (snapshots.length === 0) return `${vm} has no snapshot.`
  return snapshots
    .map(({ name, description, parent, madeMs, power, memory, current, files }) => {
      const facts = [
        ...(madeMs === null ? [] : [`${moment(madeMs)} (${ago(terminal.nowMs - madeMs)})`]),
        power === 'disk-snapshot' ? 'disks alone' : power,
        ...(memory ? ['with memory'] : []),
        ...(parent === null ? [] : [`after ${parent}`]),
        ...(files.length === 0 ? [] : [`in ${files.join(', ')}`]),
        ...(description === '' ? [] : [description]),
      ]
      return paragraph(
        paint(terminal, current ? 'good' : 'strong', name),
        `${facts.join(', ')}${current ? ' (current)' : ''}`,
        column,
      )
    })
    .join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
