// The verb `drives show`: everything that is known of one drive.

import type { Drive } from '../../provisioning/array/index.ts'
import type { Context } from '../api/context.ts'
import { bytes, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { findDrive, type JudgedDrive, judgedDrives, observedDrives, verdictStyle } from './drives.ts'

/** The answer of `drives show`. */
export interface ShownDrive {
  readonly atMs: number
  readonly drive: JudgedDrive & { readonly observed: Drive }
}

/** Looks at the drives, or into the last look while it is young. Throws `request.no-such-drive`. */
export async function run(context: Context, { drive: called }: Args<'drives show'>): Promise<ShownDrive> {
  const view = await context.look({ fresh: false })
  const judged = findDrive(await judgedDrives(view), called)
  const observed = observedDrives(view).drives.find(({ name }) => name === judged.name) as Drive
  return { atMs: view.atMs, drive: { ...judged, observed } }
}

const column = 14

/** The answer in words. */
export function render({ drive }: ShownDrive, terminal: Terminal): string {
  const { name, path, model, serial, sizeBytes, verdict, text, reasons, observed } = drive
  const { wwn, transport, system, partitions, holders, arrays, mounts, swaps, vms, unread } = observed
  const row = (label: string, values: readonly (string | null)[]) => {
    const known = values.filter((value) => value !== null && value !== '')
    return known.length === 0 ? [] : [paragraph(`  ${label}`, known.join(', '), column)]
  }
  return [
    `${paint(terminal, 'strong', name)}  ${paint(terminal, verdictStyle[verdict], verdict)}`,
    ...(verdict === 'refused' ? [] : row('verdict', [text])),
    ...reasons.flatMap(({ code, text: why, remedy }) => [
      paragraph(`  ${paint(terminal, verdictStyle.refused, 'refused')}`, `${code}: ${why}`, column),
      paragraph('', remedy, column),
    ]),
    ...row('path', [path]),
    ...row('model', [model]),
    ...row('serial', [serial]),
    ...row('wwn', [wwn]),
    ...row('size', [`${bytes(sizeBytes)} (${sizeBytes} bytes)`]),
    ...row('transport', [transport]),
    ...row('holds', system),
    ...row('partitions', partitions),
    ...row('held by', holders),
    ...row('arrays', arrays),
    ...row('mounted', [...new Set(mounts.map(({ path: at }) => at))]),
    ...row('swap', swaps),
    ...row(
      'used by',
      vms.map(({ kind, name: who }) => `${kind} ${who}`),
    ),
    ...unread.map(({ fact, why }) => paragraph('  unread', `${fact}: ${why}`, column)),
  ].join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
