// The verb `vm import`: declares a VM as `vm export` wrote it down, and makes it.

import { normalize } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import { isProgress, type Progress } from '../api/progress.ts'
import { ago, paragraph, type Terminal } from '../api/terminal.ts'
import { toldBy } from '../api/told.ts'
import type { Args, Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { withWords } from '../vms/declaration.ts'
import type { ExportedVm } from '../vms/export/document.ts'
import { progressText } from './job-progress.ts'
import {
  type DeclareLine,
  exitOf as declareExitOf,
  live as declareLive,
  declareVm,
  render as renderDeclare,
} from './vm-declare.ts'

/** One line of the answer. */
export type ImportLine =
  | ({ readonly event: 'read'; readonly folder: string; readonly as: string } & Omit<ExportedVm, 'machine'>)
  | DeclareLine

const verb = 'vm import'

/** Throws `export.other-architecture` when this host has other processors. */
async function wantArchitecture({ reader }: Context<Connection>, { name, architecture }: ExportedVm) {
  const { stdout } = await reader.query(['/usr/bin/uname', '--machine'])
  const here = stdout.trim()
  if (here !== architecture)
    throw new HostError(
      'export.other-architecture',
      `${name} is for ${architecture}, and this host is ${here}`,
      {
        details: { architecture, here },
      },
    )
}

/** Imports it. Throws `export.damaged`, `vm.uuid-taken`, `vm.mac-taken`, and what `declareVm` throws; then nothing is written. */
export async function* run(
  context: Context<Connection>,
  { dir, name: called, 'new-identity': isAnother, set, plan, declare }: Args<'vm import'>,
): AsyncGenerator<ImportLine> {
  const invalid = (message: string) => new HostError('request.invalid', message, { details: { verb } })
  if (!dir.startsWith('/')) throw invalid(`an export is in an absolute path, not ${dir}`)
  if (plan && declare) throw invalid('it is either --plan or --declare')
  const folder = normalize(dir).replace(/\/$/, '')
  const [
    { readExport, verifyExport, declarationOf, wantOwnIdentity, placeVariables },
    { readVms },
    { wantFree },
    { openChanges },
    { variablesPath },
  ] = await Promise.all([
    import('../vms/export/import.ts'),
    import('../vms/facts.ts'),
    import('../vms/site.ts'),
    import('../vms/changes.ts'),
    import('../vms/firmware.ts'),
  ])
  const vm = await readExport(folder)
  const name = called ?? vm.name
  await wantArchitecture(context, vm)
  const { machine: _, ...shown } = vm
  yield { event: 'read', folder, as: name, ...shown }
  const { clock, reader, signal, libvirtFolders } = context
  const declaration = withWords(declarationOf(vm, folder, isAnother), set, 'set', verb)
  const all = await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run)
  wantFree(name, all, verb)
  const template = vm.template === null ? '' : `, from template ${vm.template.name} ${vm.template.version}`
  const declaring = {
    ...({ verb, name, declaration, made: vm.disks.map((disk) => disk.name) } as const),
    heading: `Imported by garrison vm import on ${new Date(clock()).toISOString().slice(0, 10)}, for ${context.who}: ${vm.name} of ${vm.host}${template}.`,
  }
  const held = await context.hold(`the disks of ${name}`)
  try {
    wantOwnIdentity(name, declaration, all, await context.declaredMachines())
    if (!plan) {
      // What cannot come about is said before every byte is read.
      for await (const _line of declareVm(context, { ...declaring, until: 'plan' }));
      yield* toldBy<Progress>((tell) =>
        verifyExport({ reader, signal, tell: (step) => tell({ event: 'progress', ...step }) }, folder, vm),
      )
    }
    if (!plan && vm.firmware !== null) {
      const { file } = vm.firmware
      const changes = await openChanges(context, `${verb} ${name}`, 'safe')
      let outcome = 'failed'
      try {
        const path = variablesPath(libvirtFolders.kept, name)
        await changes.make(
          { word: 'firmware', vm: name, summary: `its variables, in ${path}`, risk: 'safe' },
          () => placeVariables(folder, file, path),
        )
        outcome = 'done'
      } finally {
        await changes.end(outcome)
      }
    }
    yield* declareVm(context, { ...declaring, until: plan ? 'plan' : declare ? 'declare' : 'converge' })
  } finally {
    await held.release()
  }
}

const consistencyText = {
  off: 'while it was off',
  crash: 'while it ran, as after a power cut',
  frozen: 'while it ran, with its filesystems frozen',
} as const

/** A line in words. */
export function render(line: ImportLine, terminal: Terminal): string | null {
  if (isProgress(line) || line.event !== 'read') return renderDeclare(line, terminal)
  const { name, as, host, atMs, consistency, left } = line
  return [
    paragraph(
      '',
      `${name === as ? name : `${as} is ${name}`} of ${host}, exported ${ago(terminal.nowMs - atMs)} ${consistencyText[consistency]}.`,
      0,
    ),
    ...left.map((one) => paragraph('  left behind', one, 16)),
  ].join('\n')
}

/** What is going on until the next line. */
export const live = (line: ImportLine): string | null => {
  if (isProgress(line)) return progressText(line)
  return line.event === 'read' ? 'looking at the host' : declareLive(line)
}

/** As for `vm create`. */
export const exitOf = (line: ImportLine): Exit | null =>
  isProgress(line) || line.event === 'read' ? null : declareExitOf(line)
