// The resources of a host, in the order in which they are converged.

import type { Resource } from './resource.ts'
import { root } from './root/index.ts'
import { software } from './software/index.ts'

/** Every resource, earlier ones first. `root` needs nothing and makes room for what `software` installs. */
export const resources: readonly Resource[] = [root as Resource, software as Resource]
