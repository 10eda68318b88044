// Why a VM reaches the network or does not, in sentences, from the way of its traffic.

import { HostError } from '../../provisioning/problem.ts'
import type { Path } from '../../provisioning/vmnets/path.ts'
import { stopOf } from './network-show.ts'
import type { Reason } from './reasons.ts'

const modeText: Readonly<Record<string, string>> = {
  routed: 'The LAN sees it by its own address, at the MAC of the host, which answers for it',
  nat: 'It leaves with the address of the host, and is reached by forwarded ports alone',
  isolated: 'It reaches VMs of the same network, and no wire',
  bridge: 'It is on the wire with a MAC of its own',
  passthrough: 'It has the interface, and its MAC, for itself',
}

function pathReasons(path: Path): readonly Reason[] {
  const { vm, mac, to, mode, why, hops } = path
  const stop = stopOf(path)
  const place = `${vm} is on ${to}${mac === null ? '' : ` with ${mac}`}`
  const given = mode === null ? 'which is not declared, so nothing is done to it' : `mode ${mode}, ${why}`
  return [
    { text: `${place}: ${given}.${mode === null ? '' : ` ${modeText[mode]}.`}` },
    ...hops.flatMap(({ at, notes }) => (notes.length === 0 ? [] : [{ text: `${at}: ${notes.join('; ')}.` }])),
    stop === null
      ? { text: 'Nothing on this host stops its traffic.' }
      : { text: `Its traffic stops at ${hops.at(-1)?.at}: ${stop.text}.`, remedy: stop.remedy },
  ]
}

/** The reasons for each NIC of the VM. Throws `request.no-such-vm`. */
export function networkReasons(vm: string, paths: readonly Path[]): readonly Reason[] {
  if (paths.length === 0)
    throw new HostError('request.no-such-vm', `libvirt knows no VM ${vm} that has a NIC`)
  return paths.flatMap(pathReasons)
}
