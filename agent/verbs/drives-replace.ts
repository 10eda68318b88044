// The verb `drives replace`: puts a new drive in the place of a member of the array, as an apply of that alone.

import type { ArrayObserved } from '../../provisioning/array/index.ts'
import type { Resource } from '../../provisioning/resource.ts'
import type { Context } from '../api/context.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import type { Args } from '../api/verbs.ts'
import { type ApplyLine, linesOf, render as renderApply } from './apply.ts'
import { findDrive, observedDrives } from './drives.ts'

/** Replaces OLD by NEW; ends while the kernel copies. Throws `request.no-such-drive` when NEW is not there. */
export async function* run(
  context: Context,
  { old, new: newer, allow }: Args<'drives replace'>,
): AsyncGenerator<ApplyLine> {
  const { array, planReplacement } = await import('../../provisioning/array/index.ts')
  const { identityOf } = await import('../../provisioning/array/drives.ts')
  const { drives } = observedDrives(await context.look({ fresh: true }))
  // A member that is gone is on no list: it is known by the serial that mdadm.conf remembers.
  const isThere = drives.some(
    ({ name, path, serial }) => [name, path, serial].includes(old) || old.includes('…'),
  )
  const oldSerial = isThere ? identityOf(findDrive(drives, old)) : old
  const newSerial = identityOf(findDrive(drives, newer))
  const replacing: Resource<ArrayObserved> = {
    ...array,
    plan: (observed, desired) => planReplacement(observed, desired, oldSerial, newSerial),
  }
  yield* linesOf(
    context.apply({ allow: allow ?? 'safe', only: array.id, instead: replacing as Resource }),
    (risk) => `garrison drives replace ${oldSerial} ${newSerial} --allow ${risk}`,
  )
}

/** A line in words, as `apply` says it. */
export function render(line: ApplyLine, terminal: Terminal): string | null {
  const text = renderApply(line, terminal)
  const copies = line.event === 'finished' && line.findings.some(({ code }) => code === 'array.resyncing')
  return copies
    ? `${text}\n${paragraph('', 'When the copy is whole, the same command takes the old drive out, if it is still in.', 0)}`
    : text
}

export { exitOf, live } from './apply.ts'
