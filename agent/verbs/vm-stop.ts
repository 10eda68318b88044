// The verb `vm stop`: shuts VMs down and waits until they are off.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { durationMs } from '../vms/select.ts'
import { type Stopping, stop } from '../vms/transitions.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** How many are waited for at once: that costs nothing but the wait. */
export const waitedFor = 32

/** How the flags say that a VM is stopped. Throws `request.invalid`. */
export const stoppingOf = (
  { timeout = '3m', kill }: { readonly timeout?: string | undefined; readonly kill: boolean },
  verb: string,
): Stopping => ({ timeoutMs: durationMs(timeout, 'timeout', verb), kill })

/** Stops every VM that is meant. */
export function run(context: Context<Connection>, args: Args<'vm stop'>): AsyncGenerator<VmLine> {
  const stopping = stoppingOf(args, 'vm stop')
  return changeVms(context, args, {
    verb: 'vm stop',
    risk: 'disruptive',
    parallel: waitedFor,
    work: (hand) => stop(hand, stopping),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
