// The same done to many, a few at a time, told as it happens.

import { type ProblemReport, problemOf } from '../../provisioning/problem.ts'

/** What is told of each one. Durations in milliseconds. */
export type BatchEvent<Item, Result> =
  | { readonly kind: 'begun'; readonly item: Item }
  | { readonly kind: 'done'; readonly item: Item; readonly result: Result; readonly durationMs: number }
  | {
      readonly kind: 'failed'
      readonly item: Item
      readonly problem: ProblemReport
      readonly durationMs: number
    }

/** How a batch is done. When `signal` aborts, those in hand go on to their end and no further is begun. */
export interface Batch<Item, Result> {
  readonly items: readonly Item[]
  readonly parallel: number
  readonly signal: AbortSignal
  readonly clock: () => number
  readonly work: (item: Item) => Promise<Result>
}

/** Works on all items, at most `parallel` at once, begun in their order. What fails is told and hinders no other. */
export async function* inParallel<Item, Result>({
  items,
  parallel,
  signal,
  clock,
  work,
}: Batch<Item, Result>): AsyncGenerator<BatchEvent<Item, Result>> {
  const told: BatchEvent<Item, Result>[] = []
  let more = Promise.withResolvers<void>()
  let next = 0
  let atWork = Math.min(parallel, items.length)
  const tell = (event: BatchEvent<Item, Result>) => {
    told.push(event)
    more.resolve()
  }
  const workOn = async () => {
    while (next < items.length && !signal.aborted) {
      const item = items[next] as Item
      next += 1
      const beganMs = clock()
      tell({ kind: 'begun', item })
      try {
        const result = await work(item)
        tell({ kind: 'done', item, result, durationMs: clock() - beganMs })
      } catch (error) {
        tell({ kind: 'failed', item, problem: problemOf(error), durationMs: clock() - beganMs })
      }
    }
    atWork -= 1
    more.resolve()
  }
  for (let count = atWork; count > 0; count -= 1) void workOn()
  while (atWork > 0 || told.length > 0) {
    const event = told.shift()
    if (event !== undefined) yield event
    else {
      await more.promise
      more = Promise.withResolvers<void>()
    }
  }
}
