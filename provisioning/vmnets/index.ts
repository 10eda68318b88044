// The networks of VMs: libvirt's definitions, what the VMs' traffic may do, and what the wire is told of them.

import type { Resource } from '../resource.ts'
import { check, describe } from './check.ts'
import { type ObservedVmnets, observe } from './observe.ts'
import { plan } from './plan.ts'

/** The resource; it stands on libvirt and on the uplinks that its networks lead to. */
export const vmnets: Resource<ObservedVmnets> = {
  id: 'vmnets',
  needs: ['software', 'uplinks'],
  declared: (desired) => desired.vmnets !== undefined,
  observe,
  plan,
  check,
  describe,
}
