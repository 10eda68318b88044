// Exports one VM into a folder of its own: its disks whole, as qcow2, and last the document that says what they are.
//
// INVARIANTS
// - Until the document is there the folder is no export: what is under way is in a manifest of backups, which goes when the document
//   has come.
// - Nothing is written into a folder that holds anything else.

import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { HostError } from '../../../provisioning/problem.ts'
import {
  adopted,
  adoptedDisk,
  partNameOf,
  type WrittenDisk,
  type WrittenMachine,
} from '../../../provisioning/vms/adopted.ts'
import type { DomainModel } from '../../../provisioning/vms/domain.ts'
import { seedDisk } from '../../../provisioning/vms/names.ts'
import { type Machine, machineSchema } from '../../../provisioning/vms/schema.ts'
import { errnoOf, removeFile, replaceFile } from '../../host/files.ts'
import { type BackedVm, copyOut } from '../backup/backup.ts'
import type { Backup } from '../backup/manifest.ts'
import { manifestName, Store, wantOwn } from '../backup/place.ts'
import type { Tools } from '../backup/tools.ts'
import { documentName, type ExportedVm, hostKeys, printExport } from './document.ts'

/** What is exported, and where to. */
export interface Exporting {
  readonly folder: string
  /** Have the guest's agent freeze its filesystems for the moment that is copied. */
  readonly freeze: boolean
  readonly host: string
  /** Where libvirt keeps what it makes for VMs: `/var/lib/libvirt`. */
  readonly kept: string
  readonly architecture: string
  /** What the document of this host says of it, or null; and by the name of each disk where it is declared to be. */
  readonly declared: Machine | null
  readonly declaredPaths: Readonly<Record<string, string>>
  /** Its definition for the next start. */
  readonly defined: DomainModel
  readonly autostart: boolean
}

/** What became of it. */
export interface Exported {
  readonly folder: string
  readonly vm: ExportedVm
  readonly resumed: boolean
}

const inTheWay = (path: string, what: string): HostError =>
  new HostError('export.in-the-way', `${path} ${what}`, { details: { path } })

/** What is in a folder; null when there is none. Throws `export.in-the-way` when it is none. */
async function namesIn(path: string): Promise<readonly string[] | null> {
  try {
    return await readdir(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    if (errnoOf(error) === 'ENOTDIR') throw inTheWay(path, 'is no folder')
    throw error
  }
}

/** Opens the folder of an export. Throws `export.in-the-way`, `backup.not-trusted`, `request.invalid`. */
async function openFolder(folder: string, { name, uuid }: BackedVm): Promise<Store> {
  const above = dirname(folder)
  if ((await namesIn(above)) === null)
    throw new HostError('request.invalid', `there is no folder ${above}: mount or make it first`, {
      details: { verb: 'vm export' },
    })
  const names = await namesIn(folder)
  if (names !== null) await wantOwn(folder)
  const store = await Store.at(folder, { name, uuid })
  if (store.isNew && names?.includes(documentName)) throw inTheWay(folder, 'holds an export already')
  // What a crash leaves of a manifest that was being written goes when the next one is.
  const others = names?.filter((one) => !one.startsWith(`.${manifestName}.`)) ?? []
  if (store.isNew && others.length > 0) throw inTheWay(folder, 'is not empty')
  if (store.manifest.vm.uuid !== uuid)
    throw inTheWay(folder, `holds an unfinished export of another VM, ${store.manifest.vm.name}`)
  return store
}

/** The defaults of every key of a machine, so that a document need not repeat them. */
const usual: Machine = machineSchema.parse({
  disks: { any: { size: '1MiB' } },
  nics: { any: {} },
  cloudInit: {},
})

const isMap = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What of a value a document has to say, given what would be there without it. */
const beside = (value: unknown, otherwise: unknown): { readonly [key: string]: unknown } =>
  Object.fromEntries(
    Object.entries(value ?? {}).filter(
      ([key, one]) => JSON.stringify(one) !== JSON.stringify(isMap(otherwise) ? otherwise[key] : undefined),
    ),
  )

const eachBeside = (all: object, otherwise: unknown): { readonly [name: string]: object } =>
  Object.fromEntries(Object.entries(all).map(([name, one]) => [name, beside(one, otherwise)]))

/** A machine without what is about this host, and without what would be so anyway. */
function portable(machine: WrittenMachine, left: string[]): ExportedVm['machine'] {
  for (const device of Object.keys(machine.devices ?? {})) left.push(`${device}: a device of that host`)
  if ((machine.xml ?? []).length > 0)
    left.push('changes to the domain XML (xml): they may lead to anything on a host')
  const { disks = {}, nics = {}, cloudInit, console: reached, ...rest } = machine
  const said = Object.entries(beside(rest, usual)).filter(([key]) => !hostKeys.has(key))
  return {
    ...Object.fromEntries(said),
    disks: eachBeside(disks, usual.disks.any),
    nics: eachBeside(nics, usual.nics.any),
    ...(reached !== undefined && { console: beside(reached, usual.console) }),
    ...(cloudInit !== undefined && { cloudInit: beside(cloudInit, usual.cloudInit) }),
  }
}

const withMacs = (nics: WrittenMachine['nics'], { nics: known }: DomainModel): WrittenMachine['nics'] =>
  Object.fromEntries(
    Object.entries(nics ?? {}).map(([name, nic]) => {
      const mac = nic.mac ?? known.find((one) => one.name === name)?.mac ?? undefined
      return [name, { ...nic, ...(mac !== undefined && { mac }) }]
    }),
  )

/** The document of what was copied. */
function describe(vm: BackedVm, backup: Backup, asked: Exporting): ExportedVm {
  const { declared, declaredPaths, defined, host, architecture } = asked
  const left = backup.leftOut.map(({ target, why }) => `${target}: ${why}`)
  const isOn = vm.power !== 'off'
  const known =
    declared === null
      ? adopted(defined, { isOn, autostart: asked.autostart })
      : { machine: declared as WrittenMachine, unsaid: [] }
  left.push(...known.unsaid)
  const live = vm.model?.disks ?? []
  const disks: [name: string, settings: WrittenDisk, ExportedVm['disks'][number]][] = []
  for (const { target, source, name: given, file, virtualBytes, fileBytes, sha256 } of backup.disks) {
    const declaredName =
      given !== null && declared?.disks[given] !== undefined
        ? given
        : Object.keys(declaredPaths).find((one) => declaredPaths[one] === source)
    const name = declaredName ?? partNameOf(given, target)
    const model =
      defined.disks.find((one) => one.target === target) ?? live.find((one) => one.target === target)
    const settings = declared?.disks[name] ?? (model === undefined ? {} : adoptedDisk(model, name, left))
    const {
      size: _,
      path: _path,
      pool: _pool,
      image: _image,
      format: _format,
      ...portableSettings
    } = settings
    disks.push([name, portableSettings, { name, file, virtualBytes, fileBytes, sha256 }])
  }
  for (const name of Object.keys(declared?.disks ?? {}))
    if (!disks.some(([one]) => one === name)) left.push(`${name}: it is declared, and was not copied`)
  const { template } = declared ?? {}
  const machine = {
    ...known.machine,
    uuid: vm.uuid,
    nics: withMacs(known.machine.nics, defined),
    disks: Object.fromEntries(disks.map(([name, settings]) => [name, settings])),
  }
  return {
    name: vm.name,
    uuid: vm.uuid,
    architecture,
    host,
    atMs: backup.atMs,
    consistency: backup.consistency,
    from: declared === null ? 'definition' : 'document',
    template:
      template === undefined
        ? null
        : { name: template.name, version: template.version ?? '', base: template.base ?? null },
    machine: portable(machine, left),
    disks: disks.map(([, , disk]) => disk),
    firmware:
      backup.firmware === null
        ? null
        : {
            file: 'firmware.fd',
            fileBytes: backup.firmware.fileBytes,
            sha256: backup.firmware.sha256,
          },
    left,
  }
}

/** Takes away the manifest of an export that came to nothing, so that the folder is empty again. */
async function tidy(store: Store): Promise<void> {
  const { backups, begun, removing } = store.manifest
  if (backups.length === 0 && begun === null && removing.length === 0)
    await removeFile(store.pathOf(manifestName))
}

/**
 * Exports a VM, or ends an export that was begun. Errors: `export.in-the-way`, `backup.not-trusted`, and what `copyOut` throws; after
 * `job.interrupted` there is something to go on with.
 */
export async function exportVm(tools: Tools, vm: BackedVm, asked: Exporting): Promise<Exported> {
  const { folder, declared, freeze, host, kept } = asked
  const store = await openFolder(folder, vm)
  const without: ReadonlyMap<string, string> =
    declared?.cloudInit === undefined
      ? new Map()
      : new Map([[seedDisk, 'it is made anew from what is declared for cloud-init']])
  try {
    const { backup, resumed } = await copyOut(tools, vm, store, {
      place: { path: dirname(folder), id: null },
      ...{ full: true, mostIncrements: 0, freeze, host, kept, without, declaration: null },
    })
    const described = describe(vm, backup, asked)
    await replaceFile(join(folder, documentName), printExport(described), 0o600)
    await removeFile(join(folder, manifestName))
    return { folder, vm: described, resumed }
  } catch (error) {
    await tidy(store)
    throw error
  }
}
