// What the steps of one volume are made from, and how they are put together.

import type { VolumeGroup } from '../block/lvm.ts'
import type { Desired, DesiredLogical } from '../desired.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Change, type Json, type Step, stepKey } from '../resource.ts'
import type { Geometry, ObservedVolume } from './observe.ts'

/** Deadlines are given in minutes. */
export const minuteMs = 60_000

/** An action that runs a program, for at most two minutes unless told otherwise. */
export const run = (
  argv: readonly [string, ...string[]],
  deadlineMs = 2 * minuteMs,
  more: { readonly stdin?: string; readonly unit?: true } = {},
): Action => ({ kind: 'run', argv, deadlineMs, ...more })

/** Why a step cannot be performed, with the remedy of the problem table. */
export const blocked = (
  code: ProblemCode,
  message: string,
  details: { readonly [key: string]: Json } = {},
): Blocked => ({ code, message, remedy: remedyOf(code, details), details })

/** A change with where its wanted value was written. */
export const change = (desired: Desired, path: string, wanted: Json, observed: Json): Change => {
  const why = desired.sources[path]
  return { path, desired: wanted, observed, ...(why !== undefined && { why }) }
}

/** Names for people: the first ones, and how many more there are. */
export const listed = (names: readonly string[], most = 20): string =>
  names.length <= most
    ? names.join(', ')
    : `${names.slice(0, most).join(', ')} and ${names.length - most} more`

/** What the steps of one volume are made from. */
export interface Subject {
  readonly volume: ObservedVolume
  readonly want: DesiredLogical
  readonly desired: Desired
  readonly groupName: string
  readonly group: VolumeGroup | undefined
  readonly geometry: Geometry | null
  /** Keys of the steps that must be gone before LVM may change this volume. */
  readonly after: readonly string[]
  /** Extents that nobody has yet and no earlier volume of the document asks for. */
  readonly freeExtents: number
  /** The other volume that is to be mounted at the same path. */
  readonly rival: string | null
  /** Mount steps of volumes above this one's mount point. */
  readonly mountsAbove: readonly string[]
}

/** Where the document says a thing of this volume. */
export const pathOf = ({ volume }: Subject, field: string): string =>
  `volumes.logical.${volume.name}.${field}`

/** A step on this volume; safe unless it says otherwise. */
export const step = (
  { volume }: Subject,
  id: string,
  more: Pick<Step, 'summary' | 'because' | 'actions'> & Partial<Step>,
): Step => ({
  id: `volumes.${id}`,
  subject: volume.name,
  risk: 'safe',
  ...more,
})

/** The member `after`, left out when there is nothing to come after. */
export const after = (keys: readonly string[]): { readonly after?: readonly string[] } =>
  keys.length === 0 ? {} : { after: keys }

/** The key of a step on this volume. */
export const keyOf = ({ volume }: Subject, id: string): string =>
  stepKey({ id: `volumes.${id}`, subject: volume.name })

/** The name of the volume as LVM's tools take it. */
export const lvmName = ({ groupName, volume }: Subject): string => `${groupName}/${volume.name}`
