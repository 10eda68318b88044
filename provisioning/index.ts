// The resources of a host, in the order in which they are converged.

import type { Resource } from './resource.ts'
import { root } from './root/index.ts'

/** Every resource, earlier ones first. `root` has no needs and makes room for what `software` installs. */
export const resources: readonly Resource[] = [root as Resource]
