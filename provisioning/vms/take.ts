// The step by which this host takes a VM over from its present owner. Performed by `garrison vm take`, never by a plan.

import type { Desired } from '../desired.ts'
import type { Step } from '../resource.ts'
import { newUuid } from './names.ts'
import type { ObservedVms } from './observe.ts'
import { nextEpoch, type Owner, ownershipOf, recordActions } from './ownership.ts'
import { blockedBy, pathOf, step } from './steps.ts'

/** Who owns what has no record. */
export const nobody = 'nobody'

/**
 * The step that makes a declared VM this host's, if `from` is whose it is; none when it is this host's already. What is
 * recorded by nobody is taken from `nobody`.
 */
export function planTakeover(
  observed: ObservedVms,
  desired: Desired,
  name: string,
  from: string,
): readonly Step[] {
  const seen = observed.machines.find((one) => one.name === name)
  const machine = desired.vms?.machines[name]
  if (seen === undefined || machine === undefined) return []
  const { host } = observed
  const ownership = ownershipOf(seen.owners, host)
  const folders = Object.keys(seen.owners)
  const because = (owner: string) => [{ path: pathOf(name, 'host'), desired: host, observed: owner }]
  const refuse = (owner: string, code: 'vm.owned-elsewhere' | 'vm.owner-damaged', message: string) => [
    step('take', name, {
      summary: `from ${from}`,
      because: because(owner),
      ...blockedBy({ code, message }, { host: owner, vm: name }),
    }),
  ]
  if (ownership.kind === 'ours') return []
  if (ownership.kind === 'damaged')
    return refuse(
      'unknown',
      'vm.owner-damaged',
      `the record of whom ${name} belongs to, in ${ownership.folder}, cannot be read`,
    )
  const owner: Owner | null = ownership.kind === 'elsewhere' ? ownership.owner : null
  const present = owner?.host ?? nobody
  if (present !== from)
    return refuse(present, 'vm.owned-elsewhere', `${name} belongs to ${present}, not to ${from}`)
  const epoch = nextEpoch(owner)
  if (epoch === null) return refuse(present, 'vm.owner-damaged', `${name} has been taken over too often`)
  const uuid = owner?.uuid ?? machine.uuid ?? seen.domain?.uuid ?? newUuid(host, name)
  return [
    step('take', name, {
      summary: `from ${from}, epoch ${epoch}`,
      because: because(present),
      // Should the other host run it after all, both write to its disks.
      risk: 'destroys-data',
      actions: folders.flatMap((folder) => recordActions(folder, name, { epoch, host, uuid })),
    }),
  ]
}
