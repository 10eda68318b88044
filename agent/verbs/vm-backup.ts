// The verb `vm backup`: backs VMs up into a folder.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { bytes, count, type Terminal } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import type { Args, Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Made } from '../vms/backup/backup.ts'
import type { Backup } from '../vms/backup/manifest.ts'
import { durationMs } from '../vms/select.ts'
import type { Became } from '../vms/transitions.ts'
import { progressText } from './job-progress.ts'
import { changeVms, type VmLine, exitOf as vmExitOf, live as vmLive, render as vmRender } from './vm-batch.ts'

/** One line of the answer. */
export type BackupLine = VmLine | Progress

/** How many are kept. Throws `request.invalid`. */
function keptOf(text: string | undefined): number | null {
  if (text === undefined) return null
  if (/^[1-9]\d{0,4}$/.test(text)) return Number(text)
  throw new HostError('request.invalid', `--keep takes a number from 1 to 99999, not ${text}`, {
    details: { verb: 'vm backup' },
  })
}

/** So many hold only changes, and then one is whole again: each that more stand on is one more that must be sound. */
const mostIncrements = 14

/** What a backup holds, in words: `changes since 20261120T210012Z, 12.4 MiB, read back`. */
function textOf({ backup, resumed, removed, untidy }: Made): string {
  const { id, disks, why, leftOut, consistency } = backup
  const fileBytes = disks.reduce((total, disk) => total + disk.fileBytes, 0)
  const on = [...new Set(disks.flatMap((disk) => disk.on ?? []))]
  const kind = on.length === 0 ? 'whole' : `changes since ${on.join(', ')}`
  const parts = [
    `${id}: ${kind}, ${bytes(fileBytes)}, read back`,
    ...(consistency === 'frozen' ? ['filesystems frozen'] : []),
    ...(why === null ? [] : [why]),
    ...leftOut.map(({ target, why: reason }) => `${target} is left out: ${reason}`),
    ...(resumed ? ['what an earlier run had begun'] : []),
    ...(removed.length === 0 ? [] : [`${count(removed.length, 'older one')} removed`]),
    ...(untidy === null ? [] : [`older ones could not be tidied up: ${untidy.message}`]),
  ]
  return parts.join('; ')
}

/** What of a backup is told: all but the definition, which may hold passwords. */
export type ShownBackup = Omit<Backup, 'xml' | 'declaration'>

/** A backup without what is not told. */
export const shown = ({ xml: _, declaration: _declaration, ...backup }: Backup): ShownBackup => backup

/** Backs up every VM that is meant. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm backup'>,
): AsyncGenerator<BackupLine> {
  const age = args['keep-for']
  const retention = {
    count: keptOf(args.keep),
    ageMs: age === undefined ? null : durationMs(age, 'keep-for', 'vm backup'),
  }
  const [{ openPlace }, { backUp }] = await Promise.all([
    import('../vms/backup/place.ts'),
    import('../vms/backup/backup.ts'),
  ])
  const place = await openPlace(args.to, 'vm backup', args.init)
  const machines = await context.declaredMachines()
  const { clock, reader, performer, signal, hostname: host } = context
  yield* toldBy<BackupLine>(async (tell) => {
    const lines = changeVms(context, args, {
      verb: 'vm backup',
      risk: 'safe',
      parallel: 1,
      async work({ to, vm, changes }): Promise<Became> {
        const held = await context.hold(`the backup of ${vm.name} in ${place.path}`)
        try {
          const made = await changes.make(
            { word: 'backup', vm: vm.name, summary: `into ${place.path}`, risk: 'safe' },
            () =>
              backUp(
                {
                  to,
                  reader,
                  performer,
                  clock,
                  signal,
                  tell: (step) => tell({ event: 'progress', ...step }),
                },
                vm,
                {
                  ...{ place, mostIncrements, retention, host },
                  kept: context.libvirtFolders.kept,
                  full: args.full,
                  freeze: args.freeze,
                  declaration: machines[vm.name] ?? null,
                },
              ),
          )
          const { resumed, removed, untidy } = made
          return {
            changed: true,
            text: textOf(made),
            ...{ backup: shown(made.backup), resumed, removed, untidy },
          }
        } finally {
          await held.release()
        }
      },
    })
    for await (const line of lines) tell(line)
  })
}

/** A line in words. */
export const render = (line: BackupLine, terminal: Terminal): string | null =>
  isProgress(line) ? null : vmRender(line, terminal)

/** What is going on until the next line. */
export const live = (line: BackupLine): string | null =>
  isProgress(line) ? progressText(line) : vmLive(line)

/** As for every batch of VMs. */
export const exitOf = (line: BackupLine): Exit | null => (isProgress(line) ? null : vmExitOf(line))
