// The array resource: one md array over the drives that are provably blank and free, and the verdict on every drive.

import type { Resource } from '../resource.ts'
import { check, describe } from './check.ts'
import { type ArrayObserved, observe } from './observe.ts'
import { plan } from './plan.ts'

export { selectDrives } from './drives.ts'
export type { ArrayObserved, Drive } from './observe.ts'
export { planReplacement } from './replace.ts'

/** md over the unused drives. */
export const array: Resource<ArrayObserved> = {
  id: 'array',
  needs: [],
  declared: (desired) => desired.array !== undefined,
  observe,
  plan,
  check,
  describe,
}
