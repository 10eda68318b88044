// The verb `vm backups`: what backups there are in a folder.

import type { ProblemReport } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { ago, bytes, count, duration, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Store } from '../vms/backup/place.ts'
import type { Tools } from '../vms/backup/tools.ts'
import { progressText } from './job-progress.ts'
import { type ShownBackup, shown } from './vm-backup.ts'

/** One line of the answer. */
export type BackupsLine =
  | Progress
  | {
      readonly event: 'vm'
      readonly vm: string
      readonly uuid: string
      readonly backups: readonly ShownBackup[]
      readonly begun: string | null
    }
  | { readonly event: 'unreadable'; readonly vm: string; readonly problem: ProblemReport }
  | {
      readonly event: 'finished'
      readonly backups: number
      readonly damaged: number
      readonly unreadable: number
      readonly durationMs: number
    }

/** Lists the backups in a folder, after `verify` has had each VM's in hand. */
export async function* listed(
  context: Context<Connection>,
  { dir, vm }: Args<'vm backups'>,
  verify: ((store: Store, tools: Omit<Tools, 'to'>) => Promise<void>) | null,
): AsyncGenerator<BackupsLine> {
  const [{ openPlace }, { inventory }] = await Promise.all([
    import('../vms/backup/place.ts'),
    import('../vms/backup/inventory.ts'),
  ])
  const place = await openPlace(dir, 'vm backups')
  const { clock, reader, performer, signal } = context
  const beganMs = clock()
  yield* toldBy<BackupsLine>(async (tell) => {
    const tools = {
      ...{ reader, performer, clock, signal },
      tell: (step: Omit<Progress, 'event'>) => tell({ event: 'progress', ...step }),
    }
    const total = { backups: 0, damaged: 0, unreadable: 0 }
    for await (const one of inventory(place, vm)) {
      if ('problem' in one) {
        total.unreadable += 1
        tell({ event: 'unreadable', ...one })
        continue
      }
      const { store } = one
      if (verify !== null) {
        const held = await context.hold(`the backup of ${one.vm} in ${place.path}`)
        try {
          await verify(store, tools)
        } finally {
          await held.release()
        }
      }
      const { backups, begun, vm: who } = store.manifest
      total.backups += backups.length
      total.damaged += backups.filter(({ damage }) => damage !== null).length
      tell({
        event: 'vm',
        vm: who.name,
        uuid: who.uuid,
        backups: backups.map(shown),
        begun: begun?.id ?? null,
      })
    }
    tell({ event: 'finished', ...total, durationMs: clock() - beganMs })
  })
}

/** Lists them. */
export const run = (context: Context<Connection>, args: Args<'vm backups'>): AsyncGenerator<BackupsLine> =>
  listed(context, args, null)

const indent = 21

function backupText({ id, disks, consistency, verifiedMs, damage }: ShownBackup, terminal: Terminal): string {
  const size = disks.reduce((sum, { fileBytes }) => sum + fileBytes, 0)
  const on = [...new Set(disks.flatMap((disk) => disk.on ?? []))]
  const parts = [
    on.length === 0 ? 'whole' : `on ${on.join(', ')}`,
    bytes(size),
    { off: 'while off', crash: 'while it ran', frozen: 'frozen' }[consistency],
    damage === null
      ? `read back ${ago(terminal.nowMs - verifiedMs)}`
      : paint(terminal, 'bad', `damaged: ${damage}`),
  ]
  return paragraph(`  ${id}`, parts.join(', '), indent)
}

/** A line in words. */
export function render(line: BackupsLine, terminal: Terminal): string | null {
  switch (line.event) {
    case 'progress':
      return null
    case 'vm':
      return [
        paint(terminal, 'strong', line.vm),
        ...line.backups.map((backup) => backupText(backup, terminal)),
        ...(line.begun === null ? [] : [paragraph(`  ${line.begun}`, 'unfinished', indent)]),
      ].join('\n')
    case 'unreadable':
      return [
        paint(terminal, 'strong', line.vm),
        paragraph('', `${line.problem.code}: ${line.problem.message}`, 2),
        paragraph('', line.problem.remedy, 2),
      ].join('\n')
    case 'finished':
      return `${[
        count(line.backups, 'backup'),
        ...(line.damaged > 0 ? [`${line.damaged} damaged`] : []),
        ...(line.unreadable > 0 ? [`${count(line.unreadable, 'manifest')} unreadable`] : []),
      ].join(', ')} in ${duration(line.durationMs)}.`
  }
}

/** What is going on until the next line. */
export const live = (line: BackupsLine): string | null => (isProgress(line) ? progressText(line) : null)

/** 0 when all is sound, 1 when something is damaged, 4 when it cannot be told what there is. */
export function exitOf(line: BackupsLine): Exit | null {
  if (line.event !== 'finished') return null
  if (line.damaged > 0) return EXIT.error
  return line.unreadable > 0 ? EXIT.unknown : EXIT.done
}
