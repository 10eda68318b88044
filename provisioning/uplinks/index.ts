// Uplinks: the host's interfaces to the networks outside, their addresses, VLANs and routes, by networkd or NetworkManager.

import type { Resource } from '../resource.ts'
import { check, describe } from './check.ts'
import { type ObservedUplinks, observe } from './observe.ts'
import { plan } from './plan.ts'

/** The resource; it needs no other, for what installs software may need the network. */
export const uplinks: Resource<ObservedUplinks> = {
  id: 'uplinks',
  needs: [],
  declared: (desired) => desired.uplinks !== undefined,
  observe,
  plan,
  check,
  describe,
}
