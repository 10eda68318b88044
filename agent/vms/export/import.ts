// Reads an exported VM from its folder, which may have come from anywhere: whether it is whole, and what it would be here.

import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../../../provisioning/problem.ts'
import { errnoOf, moveFile, removeFile } from '../../host/files.ts'
import { textOf, wantOwn } from '../backup/place.ts'
import { judgeHead } from '../backup/read-back.ts'
import { copySmall, digestOf, type Tools } from '../backup/tools.ts'
import type { Declaration } from '../declaration.ts'
import type { DefinedVm } from '../facts.ts'
import { documentName, type ExportedVm, mostBytes, parseExport } from './document.ts'

const damaged = (path: string, why: string): HostError =>
  new HostError('export.damaged', `${path} ${why}`, { details: { path } })

/** The files of an export: names, and what each is. */
const filesOf = ({ disks, firmware }: ExportedVm) => [...disks, ...(firmware === null ? [] : [firmware])]

/** The length of a file. Throws `export.damaged` when it is none, or a link to one; `backup.not-trusted`. */
async function sizeOf(path: string): Promise<number> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') throw damaged(path, 'is not there')
    throw error
  })
  if (!found.isFile()) throw damaged(path, 'is no file')
  await wantOwn(path)
  return found.size
}

/**
 * Reads what is in a folder: its document, and that every file is there and as long as it was. Throws `export.damaged`,
 * `backup.not-trusted`, `request.invalid`, `host.unreadable`.
 */
export async function readExport(folder: string): Promise<ExportedVm> {
  const names = await readdir(folder).catch((error: unknown): readonly string[] => {
    if (errnoOf(error) === undefined) throw error
    return []
  })
  const path = join(folder, documentName)
  if (!names.includes(documentName))
    throw new HostError(
      'request.invalid',
      `${folder} holds no export, or one that was not ended: no ${path}`,
      {
        details: { verb: 'vm import' },
      },
    )
  await wantOwn(folder)
  if ((await sizeOf(path)) > mostBytes) throw damaged(path, `is longer than ${mostBytes} bytes`)
  const vm = parseExport((await textOf(path)) ?? '', path)
  for (const { file, fileBytes } of filesOf(vm)) {
    const bytes = await sizeOf(join(folder, file))
    if (bytes !== fileBytes)
      throw damaged(join(folder, file), `has ${bytes} bytes, and was written with ${fileBytes}`)
  }
  return vm
}

/** Reads every byte of an export. Throws `export.damaged` when one is not what was written, or a disk leads to another file. */
export async function verifyExport(
  tools: Pick<Tools, 'reader' | 'tell' | 'signal'>,
  folder: string,
  vm: ExportedVm,
): Promise<void> {
  for (const { file, sha256 } of filesOf(vm)) {
    const path = join(folder, file)
    const read = await digestOf(tools, path, { subject: `${vm.name} ${file}`, doing: 'checking' })
    if (read.sha256 !== sha256) throw damaged(path, 'is not as it was written')
  }
  for (const { file, virtualBytes } of vm.disks) {
    const path = join(folder, file)
    try {
      await judgeHead(tools, { path, virtualBytes, backing: null })
    } catch (error) {
      if (error instanceof HostError && error.code === 'backup.damaged')
        throw new HostError('export.damaged', error.message, { details: { path }, cause: error })
      throw error
    }
  }
}

/**
 * Puts what the firmware of an export kept where libvirt will look for it, for a VM that is not defined yet: what is there is of one
 * that is gone.
 */
export async function placeVariables(folder: string, file: string, path: string): Promise<void> {
  const made = `${path}.new`
  await copySmall(join(folder, file), made)
  await removeFile(path)
  await moveFile(made, path)
}

const mebibyte = 2 ** 20

/** How the VM would be declared here. With `isAnother` it gets a UUID and MACs of its own. */
export function declarationOf(
  { machine, disks }: ExportedVm,
  folder: string,
  isAnother: boolean,
): Declaration {
  const {
    uuid,
    nics = {},
    disks: said = {},
    ...rest
  } = machine as Declaration & {
    readonly nics?: Readonly<Record<string, Declaration>>
    readonly disks?: Readonly<Record<string, Declaration>>
  }
  return {
    ...(isAnother ? {} : { uuid }),
    ...rest,
    disks: Object.fromEntries(
      disks.map(({ name, file, virtualBytes, fileBytes, sha256 }) => [
        name,
        {
          ...said[name],
          ...(virtualBytes % mebibyte === 0 && { size: `${virtualBytes / mebibyte}MiB` }),
          image: {
            source: join(folder, file),
            checksum: `sha256:${sha256}`,
            sizeBytes: fileBytes,
            copy: 'own',
          },
        },
      ]),
    ),
    nics: Object.fromEntries(
      Object.entries(nics).map(([name, { mac, ...nic }]) => [
        name,
        isAnother || mac === undefined ? nic : { ...nic, mac },
      ]),
    ),
  }
}

/** Throws `vm.uuid-taken` or `vm.mac-taken` when a VM of this host has the UUID or a MAC of what is to be declared. */
export function wantOwnIdentity(
  name: string,
  { uuid, nics }: Declaration,
  all: readonly DefinedVm[],
  declared: Readonly<Record<string, unknown>>,
): void {
  const macsOf = (some: unknown) =>
    Object.values((some ?? {}) as Readonly<Record<string, { readonly mac?: string }>>).flatMap(
      ({ mac }) => mac ?? [],
    )
  const wanted = macsOf(nics)
  const known = [
    ...all.map((vm) => [vm.name, vm.uuid, vm.model?.nics.flatMap(({ mac }) => mac ?? []) ?? []] as const),
    ...Object.entries(declared as Readonly<Record<string, Declaration>>).map(
      ([whose, machine]) => [whose, machine.uuid, macsOf(machine.nics)] as const,
    ),
  ]
  for (const [whose, theirs, macs] of known) {
    const details = { vm: name, whose }
    if (uuid !== undefined && theirs === uuid)
      throw new HostError('vm.uuid-taken', `${name} would get UUID ${uuid}, which ${whose} has`, { details })
    const mac = macs.find((one) => wanted.includes(one))
    if (mac !== undefined)
      throw new HostError('vm.mac-taken', `${name} would get MAC ${mac}, which ${whose} has`, { details })
  }
}
