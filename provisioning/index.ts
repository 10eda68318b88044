// The resources of a host, in the order in which they are converged.

import { array } from './array/index.ts'
import { firewall } from './firewall/index.ts'
import type { Resource } from './resource.ts'
import { root } from './root/index.ts'
import { software } from './software/index.ts'
import { uplinks } from './uplinks/index.ts'
import { vmnets } from './vmnets/index.ts'
import { vms } from './vms/index.ts'
import { volumes } from './volumes/index.ts'

/** Every resource, earlier ones first. `root` needs nothing and makes room for what `software` installs. */
export const resources: readonly Resource[] = [root, software, firewall, array, volumes, uplinks, vmnets, vms]
