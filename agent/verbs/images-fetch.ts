// The verb `images fetch`: brings an image into a pool, as a VM that is declared with it would have it brought.

import { HostError } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { toldSource } from '../../provisioning/told.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { bytes, duration, paint, paragraph, type Terminal, withTail } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { watchImage } from './image-progress.ts'
import { progressText } from './job-progress.ts'
import { lookAtVms } from './vm-drop-in.ts'

/** One line of the answer. */
export type FetchLine =
  | { readonly event: 'begun'; readonly image: string; readonly pool: string; readonly source: string }
  | Progress
  | {
      readonly event: 'done'
      readonly image: string
      readonly path: string
      readonly fileBytes: number
      readonly fetched: boolean
      readonly durationMs: number
    }

const verb = 'images fetch'
const deadlineMs = 12 * 3_600_000

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

/** The pool that is meant, which may be used. Throws `request.invalid`, and why it may not be. */
async function poolOf(context: Context, name: string | undefined) {
  const { poolObjection } = await import('../../provisioning/vms/pools.ts')
  const { vms, desired } = await lookAtVms(context)
  const pools = Object.entries(desired.vms?.pools ?? {})
  const [only] = pools.length === 1 ? pools : []
  const [known, { path }] = pools.find(([one]) => one === name) ??
    (name === undefined ? only : undefined) ?? [name, { path: '' }]
  if (path === '')
    throw invalid(
      name === undefined
        ? `it must be said which pool: --pool ${pools.map(([one]) => one).join(' or ') || '(vms.pools has none)'}`
        : `the document declares no pool ${name}`,
    )
  const pool = vms.pools.find((one) => one.name === known)
  const objection = pool === undefined ? null : poolObjection(pool, path)
  if (objection !== null) throw new HostError(objection.code, objection.message)
  return { name: known ?? '', path, isThere: pool?.folder === 'folder' }
}

/** Fetches it. Throws what the fetch throws, `request.invalid`, `job.busy`, `job.cancelled`, `job.interrupted`. */
export async function* run(
  context: Context,
  { source, pool: poolName, checksum, format, size }: Args<'images fetch'>,
): AsyncGenerator<FetchLine> {
  const [{ imageFileName, imageSchema }, { openChanges }, { goOn }] = await Promise.all([
    import('../../provisioning/vms/image.ts'),
    import('../vms/changes.ts'),
    import('../vms/backup/tools.ts'),
  ])
  if (size !== undefined && !/^[1-9]\d{0,15}$/.test(size))
    throw invalid(`--size is a number of bytes, not ${size}`)
  const { data: image, error } = imageSchema.safeParse({
    ...{ source, checksum, format },
    ...(size !== undefined && { sizeBytes: Number(size) }),
  })
  if (error !== undefined)
    throw invalid(error.issues.map((one) => `${one.path.join('.') || 'source'} ${one.message}`).join('; '))
  const pool = await poolOf(context, poolName)
  const name = imageFileName(image)
  const path = `${pool.path}/${name}`
  const { reader, performer, clock, signal } = context
  const told = toldSource(source)
  const beganMs = clock()
  const held = await context.hold(`the image ${path}`)
  try {
    const wasThere = (await reader.facts(path)) !== null
    yield { event: 'begun', image: name, pool: pool.name, source: told }
    const changes = await openChanges(context, `${verb} ${told}`, 'safe')
    yield* toldBy<FetchLine>(async (tell) => {
      const unwatch = watchImage(reader, path, tell)
      const fetching: Action = {
        kind: 'fetch',
        ...{ source, path, format: image.format, deadlineMs },
        ...(image.checksum !== undefined && { checksum: image.checksum }),
        ...(image.sizeBytes !== undefined && { sizeBytes: image.sizeBytes }),
      }
      const actions: readonly Action[] = [
        // QEMU runs as another user and only passes through.
        ...(pool.isThere ? [] : [{ kind: 'folder', path: pool.path, mode: 0o711 } as const]),
        fetching,
      ]
      let outcome = 'failed'
      try {
        const change = { word: 'image', vm: path, summary: `from ${told}`, risk: 'safe' as const, actions }
        await changes.make(change, async () => {
          try {
            for (const action of actions) await performer.perform(action, signal)
          } catch (error) {
            if (signal.reason === 'cancelled')
              for (const part of [`${path}.part.json`, `${path}.part`])
                await performer.perform({ kind: 'remove', path: part })
            goOn(signal)
            throw error
          }
        })
        outcome = 'done'
      } finally {
        unwatch()
        await changes.end(outcome)
      }
      const fileBytes = (await reader.facts(path))?.sizeBytes ?? 0
      tell({ event: 'done', image: name, path, fileBytes, fetched: !wasThere, durationMs: clock() - beganMs })
    })
  } finally {
    await held.release()
  }
}

/** A line in words. */
export function render(line: FetchLine, terminal: Terminal): string | null {
  if (line.event !== 'done') return null
  const { path, fileBytes, fetched, durationMs } = line
  return withTail(
    paragraph('', `${path}, ${bytes(fileBytes)}${fetched ? '' : ', was there, and is what it should be'}`, 2),
    `${duration(durationMs)}  ${paint(terminal, 'good', 'done')}`,
  )
}

/** What is going on until the next line. */
export const live = (line: FetchLine): string | null => {
  if (isProgress(line)) return progressText(line)
  return line.event === 'begun' ? `${line.image}: asking ${line.source}` : null
}

/** 0 when it is there. */
export const exitOf = (line: FetchLine): Exit | null => (line.event === 'done' ? EXIT.done : null)
