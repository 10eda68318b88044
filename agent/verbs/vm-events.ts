// The verb `vm events`: what happens to VMs, as it happens.

import type { Context } from '../api/context.ts'
import { moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { type VmEvent, vmEvents } from '../vms/events.ts'
import { isPattern, matcherOf } from '../vms/pattern.ts'

/** Tells what happens until the caller leaves. A name may be that of a VM that is still to come. */
export async function* run(
  context: Context<Connection>,
  { names }: Args<'vm events'>,
): AsyncGenerator<VmEvent> {
  const patterns = names.filter(isPattern).map(matcherOf)
  const isMeant = ({ name, uuid }: { readonly name: string; readonly uuid: string }): boolean =>
    names.length === 0 ||
    names.includes(name) ||
    names.includes(uuid) ||
    patterns.some((matches) => matches(name))
  yield* vmEvents(await context.libvirt('monitor'), isMeant, context.clock, context.signal)
}

const textColumn = 40

/** A line in words. */
export function render(line: VmEvent, terminal: Terminal): string {
  const at = paint(terminal, 'dim', moment(line.atMs))
  if (!('vm' in line))
    return paragraph(
      `${at}  ${paint(terminal, 'bad', 'missed')}`,
      `some may have been missed: ${line.why}`,
      textColumn,
    )
  return paragraph(
    `${at}  ${line.vm}`,
    line.detail === '' ? line.what : `${line.what} (${line.detail})`,
    textColumn,
  )
}

/** Whatever happens to VMs, listening ends well. */
export const exitOf = (): null => null
