// The verb `vm restore`: puts a backup of a VM back.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { ago, duration, paint, paragraph, type Terminal, withTail } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Restored } from '../vms/backup/restore.ts'
import { vmCommand } from '../vms/command.ts'
import { progressText } from './job-progress.ts'

/** One line of the answer. */
export type RestoreLine =
  | { readonly event: 'begun'; readonly vm: string; readonly place: string; readonly at: string | null }
  | Progress
  | ({ readonly event: 'done'; readonly durationMs: number } & Restored)

/** Restores. Throws what `restore` throws, `request.invalid`, `job.busy`. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm restore'>,
): AsyncGenerator<RestoreLine> {
  const { vm, from, at = null, as = null, folder = null, overwrite } = args
  const invalid = (message: string) =>
    new HostError('request.invalid', message, { details: { verb: 'vm restore' } })
  if (as === null && folder !== null) throw invalid('--folder is for another VM, made by --as')
  if (folder !== null && !folder.startsWith('/')) throw invalid(`--folder is an absolute path, not ${folder}`)
  const [{ wantFitName }, { openPlace }, { restore }, { openChanges }] = await Promise.all([
    import('../vms/site.ts'),
    import('../vms/backup/place.ts'),
    import('../vms/backup/restore.ts'),
    import('../vms/changes.ts'),
  ])
  if (as !== null) wantFitName(as, 'vm restore')
  const place = await openPlace(from, 'vm restore')
  const { clock, reader, performer, signal, ownFolder } = context
  const beganMs = clock()
  const name = as ?? vm
  const held = [
    await context.hold(`the backup of ${vm} in ${place.path}`),
    await context.hold(`the disks of ${name}`),
  ]
  try {
    yield { event: 'begun', vm: name, place: place.path, at }
    const risk = overwrite ? 'destroys-data' : 'safe'
    const changes = await openChanges(context, `vm restore ${vm} --from ${place.path}`, risk)
    yield* toldBy<RestoreLine>(async (tell) => {
      const tools = {
        ...{ reader, performer, clock, signal },
        to: () => context.libvirt('control'),
        tell: (step: Omit<Progress, 'event'>) => tell({ event: 'progress', ...step }),
      }
      const restoring = { place, vm, at, as, folder, overwrite, records: `${ownFolder}/restores` }
      let outcome = 'failed'
      try {
        const restored = await changes.make(
          { word: 'restore', vm: name, summary: `from ${place.path}, backup ${at ?? 'the newest'}`, risk },
          () => restore(tools, restoring),
        )
        outcome = 'done'
        tell({ event: 'done', durationMs: clock() - beganMs, ...restored })
      } finally {
        await changes.end(outcome)
      }
    })
  } finally {
    for (const one of held) await one.release()
  }
}

/** A line in words. */
export function render(line: RestoreLine, terminal: Terminal): string | null {
  if (line.event !== 'done') return null
  const { vm, backup, atMs, disks, seed, defined, resumed, durationMs } = line
  const parts = [
    `restored from ${backup}, made ${ago(terminal.nowMs - atMs)}`,
    ...disks.map(({ target, path }) => `${target} is ${path}`),
    ...(seed === null ? [] : [seed]),
    ...(defined ? ['defined'] : []),
    ...(resumed ? ['what an earlier run had begun'] : []),
  ]
  return [
    withTail(
      paragraph(vm, parts.join('; '), 20),
      `${duration(durationMs)}  ${paint(terminal, 'good', 'done')}`,
    ),
    `It is off: ${vmCommand('start', vm)}`,
  ].join('\n')
}

/** What is going on until the next line. */
export const live = (line: RestoreLine): string | null => {
  if (isProgress(line)) return progressText(line)
  return line.event === 'begun' ? `${line.vm} …` : null
}

/** 0 when it is restored. */
export const exitOf = (line: RestoreLine): Exit | null => (line.event === 'done' ? EXIT.done : null)
