// The resources of a host, in the order in which they are converged.

import type { Resource } from './resource.ts'

/** Every resource, earlier ones first. */
export const resources: readonly Resource[] = []
