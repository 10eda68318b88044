// The verb `vm nic detach`: detaches a NIC from a VM.

import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { detachNic } from '../vms/devices.ts'
import { durationMs } from '../vms/select.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

/** Detaches the NIC. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm nic detach'>,
): AsyncGenerator<VmLine> {
  const timeoutMs = durationMs(args.timeout ?? '20s', 'timeout', 'vm nic detach')
  yield* changeVms(context, args, {
    verb: 'vm nic detach',
    risk: 'disruptive',
    parallel: 1,
    work: (hand) => detachNic(hand, args.nic, timeoutMs),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
