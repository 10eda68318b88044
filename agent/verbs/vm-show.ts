// The verb `vm show`: everything that is known of one VM.

import type { DomainModel } from '../../provisioning/vms/domain.ts'
import type { Context } from '../api/context.ts'
import { ago, bytes, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { type Details, readDetails } from '../vms/details.ts'
import { readVms, type Vm } from '../vms/facts.ts'
import { findVm } from '../vms/select.ts'

/** The answer of `vm show`. */
export interface ShownVm extends Details {
  readonly atMs: number
  readonly vm: Vm
  readonly model: DomainModel | null
}

/** Looks at the VM. Throws `request.no-such-vm`, `libvirt.unreachable`. */
export async function run(context: Context<Connection>, { vm: called }: Args<'vm show'>): Promise<ShownVm> {
  const { clock, reader, libvirtFolders } = context
  const libvirt = await context.libvirt('monitor')
  const atMs = clock()
  const { model, ...vm } = findVm(await readVms(libvirt, reader, libvirtFolders.run), called)
  const isUp = vm.power !== 'off' && vm.power !== 'unknown'
  return { atMs, vm, model, ...(await readDetails(libvirt, vm, model, isUp)) }
}

const column = 14

const yesOrNo = (is: boolean): string => (is ? 'yes' : 'no')

/** The answer in words. */
export function render(shown: ShownVm, terminal: Terminal): string {
  const { vm, model, disks, addresses, snapshots, unread } = shown
  const row = (label: string, ...values: readonly (string | null | false | undefined)[]) => {
    const known = values.filter(Boolean)
    return known.length === 0 ? [] : [paragraph(`  ${label}`, known.join(', '), column)]
  }
  const since = vm.runningSinceMs
  return [
    `${paint(terminal, 'strong', vm.name)}  ${paint(terminal, vm.power === 'running' ? 'good' : 'warn', vm.power)} (${vm.reason})`,
    ...(vm.problem === null
      ? []
      : [paragraph(`  ${paint(terminal, 'bad', 'unread')}`, vm.problem.message, column)]),
    ...row('uuid', vm.uuid),
    ...row('running', since !== null && `since ${moment(since)}, ${ago(terminal.nowMs - since)}`),
    ...row('processors', vm.cpus !== null && String(vm.cpus), model?.cpuModel),
    ...row('memory', vm.memoryBytes !== null && bytes(vm.memoryBytes)),
    ...row('machine', model?.type, model?.machine, model?.architecture, model?.firmware),
    ...row(
      'starts',
      `with the host: ${yesOrNo(vm.autostart)}`,
      vm.saved && 'from its saved memory',
      !vm.persistent && 'never again, for it is not defined',
    ),
    ...row('template', vm.template),
    ...row('tags', ...Object.entries(vm.tags).map(([key, value]) => `${key}=${value}`)),
    ...(model?.disks ?? []).flatMap(({ target, name, device, bus, source, format, readOnly }) => {
      const size = disks[target]
      return row(
        target,
        name,
        source === null ? `empty ${device}` : source.at,
        size && `${bytes(size.capacityBytes)}, takes ${bytes(size.allocationBytes)}`,
        format,
        bus,
        readOnly && 'read-only',
      )
    }),
    ...(model?.nics ?? []).flatMap(({ mac, source, model: nicModel }) =>
      row('nic', mac, `${source.kind} ${source.at}`, nicModel, ...(addresses[mac ?? ''] ?? [])),
    ),
    ...(model?.devices ?? []).flatMap((device) => row('device', JSON.stringify(device))),
    ...row('display', model?.display !== 'none' && model?.display),
    ...row('snapshots', ...snapshots),
    ...unread.map(({ fact, problem }) =>
      paragraph(`  ${paint(terminal, 'warn', 'unread')}`, `${fact}: ${problem.message}`, column),
    ),
  ].join('\n')
}

/** 4 when it is not known what the VM does or is, or else 0. */
export const exitOf = ({ vm }: ShownVm): Exit =>
  vm.power === 'unknown' || vm.problem !== null ? EXIT.unknown : EXIT.done
