// The verb `vm export`: writes a VM into a folder that `vm import` makes it from, on this host or another.

import { normalize } from 'node:path'
import type { Desired } from '../../provisioning/desired.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { isProgress } from '../api/progress.ts'
import { bytes, count, type Terminal } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import type { Args, Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Exported } from '../vms/export/export.ts'
import type { Became } from '../vms/transitions.ts'
import { type BackupLine, live as backupLive } from './vm-backup.ts'
import { changeVms, exitOf as vmExitOf, render as vmRender } from './vm-batch.ts'

const verb = 'vm export'

const consistencyText = {
  off: 'as it was while off',
  crash: 'as it was at one moment while it ran, as after a power cut',
  frozen: 'as it was at one moment while it ran, its filesystems frozen',
} as const

function textOf({ folder, vm, resumed }: Exported): string {
  const fileBytes = vm.disks.reduce((total, disk) => total + disk.fileBytes, 0)
  return [
    `${folder}: ${count(vm.disks.length, 'disk')}, ${bytes(fileBytes)}, read back`,
    consistencyText[vm.consistency],
    ...(resumed ? ['what an earlier run had begun'] : []),
    ...vm.left.map((one) => `left behind: ${one}`),
  ].join('; ')
}

/** What the document says; nothing where there is none. Throws `desired.invalid`: whether it declares the VM is then not known. */
async function desiredOf(context: Context<Connection>): Promise<Partial<Desired>> {
  try {
    return await context.desired()
  } catch (error) {
    if (error instanceof HostError && error.code === 'desired.missing') return {}
    throw error
  }
}

/** Exports it. Throws `request.invalid`, `request.no-such-vm`, `job.busy`; what goes wrong with the VM is in a line. */
export async function* run(
  context: Context<Connection>,
  { vm: called, dir, freeze }: Args<'vm export'>,
): AsyncGenerator<BackupLine> {
  if (!dir.startsWith('/'))
    throw new HostError('request.invalid', `an export is written to an absolute path, not ${dir}`, {
      details: { verb },
    })
  const folder = normalize(dir).replace(/\/$/, '')
  const [{ exportVm }, { readModel }, { VIR }, { diskPath }] = await Promise.all([
    import('../vms/export/export.ts'),
    import('../vms/facts.ts'),
    import('../node-libvirt/index.ts'),
    import('../../provisioning/vms/names.ts'),
  ])
  const { clock, reader, performer, signal, hostname: host } = context
  yield* toldBy<BackupLine>(async (tell) => {
    const lines = changeVms(
      context,
      { vm: called },
      {
        verb,
        risk: 'safe',
        parallel: 1,
        async work({ to, vm, changes }): Promise<Became> {
          const held = await context.hold(`the export in ${folder}`)
          try {
            const { vms } = await desiredOf(context)
            const declared = vms?.machines[vm.name] ?? null
            const paths = Object.keys(declared?.disks ?? {}).flatMap((disk) => {
              const path = vms && declared && diskPath(vms, vm.name, declared, disk)
              return path ? [[disk, path] as const] : []
            })
            const defined = await readModel(await to(), vm, vm.persistent ? VIR.DOMAIN_XML_INACTIVE : 0)
            const tools = {
              ...{ to, reader, performer, clock, signal },
              tell: (step: object) => tell({ event: 'progress', ...step } as BackupLine),
            }
            const made = await changes.make(
              { word: 'export', vm: vm.name, summary: `into ${folder}`, risk: 'safe' },
              () =>
                exportVm(tools, vm, {
                  ...{ folder, freeze, host, declared, defined },
                  kept: context.libvirtFolders.kept,
                  architecture: defined.architecture ?? 'unknown',
                  declaredPaths: Object.fromEntries(paths),
                  autostart: vm.autostart,
                }),
            )
            const { machine: _, ...shown } = made.vm
            return { changed: true, text: textOf(made), ...{ export: shown, resumed: made.resumed } }
          } finally {
            await held.release()
          }
        },
      },
    )
    for await (const line of lines) tell(line)
  })
}

/** A line in words. */
export const render = (line: BackupLine, terminal: Terminal): string | null =>
  isProgress(line) ? null : vmRender(line, terminal)

/** What is going on until the next line. */
export const live = backupLive

/** As for every batch of VMs. */
export const exitOf = (line: BackupLine): Exit | null => (isProgress(line) ? null : vmExitOf(line))
