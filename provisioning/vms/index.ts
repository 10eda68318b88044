// VMs: storage pools, disks, definitions in libvirt, and whether they run.

import type { Resource } from '../resource.ts'
import { check, describe } from './check.ts'
import { type ObservedVms, observe } from './observe.ts'
import { plan } from './plan.ts'

/** The resource; it stands on libvirt and on the volumes that its pools are on. */
export const vms: Resource<ObservedVms> = {
  id: 'vms',
  needs: ['software', 'volumes'],
  declared: (desired) => desired.vms !== undefined,
  observe,
  plan,
  check,
  describe,
}
