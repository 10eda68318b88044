// Volumes: the LVM volume group on the array, its logical volumes, their filesystems and mounts.

import type { Resource } from '../resource.ts'
import { check, describe } from './check.ts'
import { type ObservedVolumes, observe } from './observe.ts'
import { plan } from './plan.ts'

/** The resource; it stands on the array. */
export const volumes: Resource<ObservedVolumes> = {
  id: 'volumes',
  needs: ['array'],
  declared: (desired) => desired.volumes !== undefined,
  observe,
  plan,
  check,
  describe,
}
