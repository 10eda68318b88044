// The verb `vm take`: makes a VM this host's that another one owned, as an apply of that alone.

import { HostError } from '../../provisioning/problem.ts'
import type { Resource } from '../../provisioning/resource.ts'
import type { ObservedVms } from '../../provisioning/vms/observe.ts'
import type { Context } from '../api/context.ts'
import { paragraph, type Terminal } from '../api/terminal.ts'
import type { Args } from '../api/verbs.ts'
import { type ApplyLine, linesOf, render as renderApply } from './apply.ts'
import { commandText } from './wording.ts'

/** Takes it over. Throws `request.no-such-vm` when the document does not declare it. */
export async function* run(
  context: Context,
  { vm, from, allow }: Args<'vm take'>,
): AsyncGenerator<ApplyLine> {
  const { vms } = await import('../../provisioning/vms/index.ts')
  const { planTakeover } = await import('../../provisioning/vms/take.ts')
  const { desired } = await context.look({ fresh: false })
  if (desired.vms?.machines[vm] === undefined)
    throw new HostError('request.no-such-vm', `the document declares no VM ${vm}`)
  const taking: Resource<ObservedVms> = {
    ...vms,
    plan: (observed, wanted) => planTakeover(observed, wanted, vm, from),
  }
  yield* linesOf(
    context.apply({ allow: allow ?? 'safe', only: vms.id, instead: taking as Resource }),
    (risk) => commandText(['garrison', 'vm', 'take', vm, '--from', from, '--allow', risk]),
  )
}

/** A line in words, as `apply` says it. */
export function render(line: ApplyLine, terminal: Terminal): string | null {
  const text = renderApply(line, terminal)
  return line.event === 'finished' && line.outcome === 'settled' && line.performed > 0
    ? `${text}\n${paragraph('', 'It is this host’s now; garrison apply defines and starts it.', 0)}`
    : text
}

export { exitOf, live } from './apply.ts'
