// The verb `vm nic attach`: attaches a NIC to a VM.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { attachNic } from '../vms/devices.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

const verb = 'vm nic attach'

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

const unicast = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/

/** Attaches the NIC. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm nic attach'>,
): AsyncGenerator<VmLine> {
  const { network, bridge, macvtap, model = 'virtio' } = args
  const mac = args.mac?.toLowerCase() ?? null
  if (mac !== null && !unicast.test(mac))
    throw invalid(`--mac takes a unicast MAC such as 52:54:00:12:34:56, not ${mac}`)
  const [source = { kind: 'network', at: 'default' }, another] = [
    { kind: 'network', at: network },
    { kind: 'bridge', at: bridge },
    { kind: 'macvtap', at: macvtap },
  ].flatMap(({ kind, at }) => (at === undefined ? [] : [{ kind, at }]))
  if (another !== undefined) throw invalid('a NIC is on one of --network, --bridge and --macvtap')
  yield* changeVms(context, args, {
    verb,
    risk: 'safe',
    parallel: 1,
    work: (hand) => attachNic(hand, { mac, source, model }),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
