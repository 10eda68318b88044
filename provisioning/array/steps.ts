// The pieces that the steps of the array are made of.

import { HostError, type ProblemCode, remedyOf } from '../problem.ts'
import type { Action, Json, Step } from '../resource.ts'
import type { ArrayObserved, Drive, MdArray } from './observe.ts'
import { isToolMissing } from './refusals.ts'

/** The program that makes and changes arrays. */
export const mdadm = '/usr/sbin/mdadm'

/** Runs a tool that needs at most two minutes. */
export const run = (argv: readonly [string, ...string[]], more: { stdin?: string } = {}): Action => ({
  kind: 'run',
  argv,
  deadlineMs: 120_000,
  ...more,
})

/** A blocked step: it has no actions, only its reason. */
export const blocked = (
  step: Pick<Step, 'id' | 'summary' | 'because'> & { readonly subject?: string },
  code: ProblemCode,
  message: string,
  details: Readonly<Record<string, Json>> = {},
): Step => ({
  ...step,
  risk: 'safe',
  actions: [],
  blocked: {
    code,
    message,
    remedy: remedyOf(code, details),
    ...(Object.keys(details).length > 0 && { details }),
  },
})

/** What tells a drive from any other, for the reasons of a step. */
export const memberFacts = ({ serial, wwn, model, sizeBytes }: Drive): Json => ({
  serial: serial ?? wwn,
  model,
  sizeBytes,
})

/** Fails before anything is written as long as the tool that reads the health of these drives is not installed. */
export const healthGuard = (drives: readonly Drive[]): readonly Action[] =>
  drives.some(({ unread }) => unread.some(isToolMissing)) ? [run(['/usr/sbin/nvme', 'version'])] : []

/** Whether a member still does its part. */
export const isWorking = ({ condition }: MdArray['members'][number]): boolean => condition !== 'faulty'

/** What could not be read, as the error that makes the whole resource unknown. */
export function demandRead({ unread }: ArrayObserved): void {
  const [first, ...more] = unread
  if (first === undefined) return
  const others = more.length > 0 ? ` (nor ${more.map(({ fact }) => fact).join(', ')})` : ''
  throw new HostError(first.code, `could not read ${first.fact}${others}: ${first.why}`, {
    details: { unread: unread.map(({ fact, why }) => ({ fact, why })) },
  })
}
