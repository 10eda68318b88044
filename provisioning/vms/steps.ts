// How the steps of VMs are put together.

import type { Desired } from '../desired.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import type { Blocked, Change, Json, Step } from '../resource.ts'
import type { Difference } from './differences.ts'
import type { Survey } from './survey.ts'

/** Deadlines are given in minutes. */
export const minuteMs = 60_000

/** Why something cannot be done, before it is put into the words of a step. */
export interface Objection {
  readonly code: ProblemCode
  readonly message: string
}

/** An objection with the remedy of the problem table. */
export const blockedBy = (
  { code, message }: Objection,
  details: { readonly [key: string]: Json } = {},
): Pick<Step, 'blocked' | 'actions'> & { readonly blocked: Blocked } => ({
  actions: [],
  blocked: { code, message, remedy: remedyOf(code, details), details },
})

/** Where the document says a thing of a VM. */
export const pathOf = (name: string, field?: string): string =>
  `vms.machines.${name}${field === undefined ? '' : `.${field}`}`

/** A change with where its wanted value was written. */
export function change(desired: Desired, path: string, wanted: Json, observed: Json): Change {
  const why = desired.sources[path]
  return { path, desired: wanted, observed, ...(why !== undefined && { why }) }
}

/** Differences of one VM as changes. */
export const changesOf = (
  desired: Desired,
  { name }: Survey,
  differences: readonly Difference[],
): readonly Change[] =>
  differences.map((one) => change(desired, pathOf(name, one.path), one.desired, one.observed))

/** A step on one VM or, with `part`, on one of its disks. Safe unless it says otherwise. */
export const step = (
  id: string,
  subject: string,
  more: Pick<Step, 'summary' | 'because' | 'actions'> & Partial<Step>,
): Step => ({ id: `vms.${id}`, subject, risk: 'safe', ...more })

/** The member `after` with those keys that belong to steps of this plan, left out when there are none. */
export const after = (keys: readonly (string | null)[]): { readonly after?: readonly string[] } => {
  const there = [...new Set(keys.filter((key) => key !== null))]
  return there.length === 0 ? {} : { after: there }
}
