// What a change of a VM's files or name needs to know of the host, and when it may be made at all.

import type { HostReader, Performer } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import {
  type Record as Owned,
  type Owner,
  observeOwner,
  ownershipOf,
} from '../../provisioning/vms/ownership.ts'
import { vmCommand } from './command.ts'
import type { DefinedVm } from './facts.ts'

/** The host beside libvirt. */
export interface Site {
  readonly reader: HostReader
  readonly performer: Performer
  /** What this host is called in the records of owners. */
  readonly host: string
  /** The VMs that the desired document declares, by name. */
  readonly declared: Readonly<Record<string, unknown>>
  /** The folders of libvirt's storage pools. */
  readonly pools: readonly string[]
  /** Where libvirt keeps what it makes for VMs: `/var/lib/libvirt`. */
  readonly kept: string
}

/** What a VM may be called: it becomes a file name, a word of a command line and a part of a path. */
const fitName = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/

/** The folder of a path. */
export const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'))

/** The last part of a path. */
export const fileOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1)

/** Whether a path is below a folder. */
export const isBelow = (path: string, folder: string): boolean => path.startsWith(`${folder}/`)

/** Throws `request.invalid` for what no VM may be called. */
export function wantFitName(name: string, verb: string): void {
  if (!fitName.test(name))
    throw new HostError(
      'request.invalid',
      `a VM is called by at most 63 letters, digits, ., _ or -, with a letter or digit at both ends, not ${JSON.stringify(name)}`,
      { details: { verb } },
    )
}

/** Throws `request.invalid` for what no VM may be called, `vm.name-taken` when one is called so. */
export function wantFree(name: string, all: readonly Pick<DefinedVm, 'name'>[], verb: string): void {
  wantFitName(name, verb)
  if (all.some((one) => one.name === name))
    throw new HostError('vm.name-taken', `there is a VM ${name} already`, { details: { vm: name } })
}

/** Throws `vm.wrong-power` unless the VM is off. */
export function wantOff({ name, power }: DefinedVm): void {
  if (power !== 'off')
    throw new HostError('vm.wrong-power', `${name} is ${power}`, {
      details: { vm: name, power, command: vmCommand('stop', name) },
    })
}

/** Throws `vm.declared` when the desired document has the VM: what it declares would be made again. */
export function wantUndeclared({ name }: DefinedVm, { declared }: Site): void {
  if (Object.hasOwn(declared, name))
    throw new HostError('vm.declared', `${name} is declared in the desired document`, {
      details: { vm: name },
    })
}

/** A folder with the record of an owner, who is this host. */
export interface OwnFolder {
  readonly folder: string
  readonly owner: Owner
}

/** Those of some folders that have a record of a VM. Throws `vm.owned-elsewhere`, `vm.owner-damaged`. */
export async function ownedFolders(
  name: string,
  folders: readonly string[],
  { reader, host }: Pick<Site, 'reader' | 'host'>,
): Promise<readonly OwnFolder[]> {
  return wantOurs(name, await recordsIn(reader, folders, name), host)
}

/** The records of some folders, by folder: of a VM, or with null of whichever. */
export async function recordsIn(
  reader: HostReader,
  folders: readonly string[],
  vm: string | null,
): Promise<Readonly<{ [folder: string]: Owned }>> {
  return Object.fromEntries(
    await Promise.all(folders.map(async (one) => [one, await observeOwner(reader, one, vm)] as const)),
  )
}

/** Those of one VM's folders that have a record, which all count together. Throws `vm.owned-elsewhere`, `vm.owner-damaged`. */
export function wantOurs(
  name: string,
  records: Readonly<{ [folder: string]: Owned }>,
  host: string,
): readonly OwnFolder[] {
  const ownership = ownershipOf(records, host)
  if (ownership.kind === 'damaged')
    throw new HostError(
      'vm.owner-damaged',
      `the record of the owner of ${name} in ${ownership.folder} cannot be read`,
      { details: { vm: name, folder: ownership.folder } },
    )
  if (ownership.kind === 'elsewhere')
    throw new HostError(
      'vm.owned-elsewhere',
      `${name} belongs to ${ownership.owner.host}, says ${ownership.folder}`,
      { details: { vm: name, host: ownership.owner.host } },
    )
  if (ownership.kind === 'unclaimed') return []
  const { owner } = ownership
  return Object.keys(records)
    .filter((one) => records[one] !== 'none')
    .map((folder) => ({ folder, owner }))
}

/** The folders of a VM's files that have a record of it. Throws `vm.owned-elsewhere`, `vm.owner-damaged`. */
export function ownFolders(vm: DefinedVm, site: Site): Promise<readonly OwnFolder[]> {
  const paths = (vm.model?.disks ?? []).flatMap(({ source }) => (source?.kind === 'file' ? source.at : []))
  return ownedFolders(vm.name, [...new Set(paths.map(folderOf))], site)
}
