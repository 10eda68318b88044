// The verb `images remove`: takes away an image that nothing stands on, as an apply of that alone.

import { basename } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource } from '../../provisioning/resource.ts'
import type { ObservedImages } from '../../provisioning/vms/images.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import { type ApplyLine, linesOf } from './apply.ts'
import { commandText } from './wording.ts'

/** Removes it. Throws `request.no-such-part`, `request.invalid` when several pools have one of that name, `job.busy`. */
export async function* run(
  context: Context,
  { image, pool }: Args<'images remove'>,
): AsyncGenerator<ApplyLine> {
  const [{ observeImages, planRemoval }, { vms }] = await Promise.all([
    import('../../provisioning/vms/images.ts'),
    import('../../provisioning/vms/index.ts'),
  ])
  const { images, unfinished } = await observeImages(context.reader, await context.desired())
  const found = [
    ...new Map(
      [...images, ...unfinished]
        .filter((one) => basename(one.path) === image && (pool === undefined || one.pool === pool))
        .map((one) => [one.path, one.pool]),
    ),
  ]
  const [first, second] = found
  if (first === undefined)
    throw new HostError(
      'request.no-such-part',
      `no pool${pool === undefined ? '' : ` ${pool}`} has an image ${image}`,
    )
  if (second !== undefined)
    throw new HostError('request.invalid', `${image} is in more than one pool; say which with --pool`, {
      details: { verb: 'images remove' },
    })
  const [path] = first
  const held = await context.hold(`the image ${path}`)
  try {
    const removing: Resource<ObservedImages> = {
      id: vms.id,
      needs: [],
      declared: () => true,
      observe: observeImages,
      plan: (observed) => planRemoval(observed, path),
      check: () => [],
      describe: (observed) => `${observed.images.length} images`,
    }
    yield* linesOf(
      context.apply({ allow: 'destroys-data', only: vms.id, instead: removing as Resource }),
      () => commandText(['garrison', 'images', 'remove', image]),
    )
  } finally {
    await held.release()
  }
}

export { exitOf, live, render } from './apply.ts'
