// Another VM like one that is off, with copies of its disks.

import { randomUUID } from 'node:crypto'
import { at, elementsOf, printXml, remove, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { diskElements, diskWriters, readDisks } from '../../provisioning/vms/disks.ts'
import { isSeed } from '../../provisioning/vms/names.ts'
import { type NicModel, nicElements, nicWriters, readNics } from '../../provisioning/vms/nics.ts'
import { recordActions } from '../../provisioning/vms/ownership.ts'
import { convertDisk } from '../../provisioning/vms/qemu-img.ts'
import { type AnotherSeed, seedMark } from '../../provisioning/vms/seed.ts'
import { VIR } from '../node-libvirt/index.ts'
import { afterFailure } from './backup/tools.ts'
import type { KnownInHand } from './devices.ts'
import type { DefinedVm } from './facts.ts'
import { anyMac } from './mac.ts'
import { reach } from './reach.ts'
import { secretDefinition } from './rewrite.ts'
import { leftBesideSeed, macsOf, makeAnotherSeed, seedText } from './seed.ts'
import {
  fileOf,
  folderOf,
  isBelow,
  ownedFolders,
  ownFolders,
  type Site,
  wantFitName,
  wantFree,
  wantOff,
} from './site.ts'
import type { Became } from './transitions.ts'

/** The file of a clone's disk: in a folder of its own where the VM has one, or else beside that of the VM. */
export function clonePath(path: string, vm: string, clone: string, target: string): string {
  const folder = folderOf(path)
  if (fileOf(folder) === vm) return `${folderOf(folder)}/${clone}/${fileOf(path)}`
  const [ending = ''] = /\.[A-Za-z0-9]{1,8}$/.exec(fileOf(path)) ?? []
  return `${folder}/${clone}-${target}${ending}`
}

const setText = (target: XmlElement | undefined, text: string): void => {
  target?.children.splice(0, target.children.length, { kind: 'text', text })
}

/** The NICs of a definition with MACs of their own. */
export const withOwnMacs = (nics: readonly NicModel[]): readonly NicModel[] =>
  nics.map((nic) => ({ ...nic, mac: anyMac() }))

/** Makes a definition that of a clone: with a name, UUID, NICs and disks (paths by target) of its own. */
export function asClone(
  domain: XmlElement,
  name: string,
  uuid: string,
  nics: readonly NicModel[],
  paths: ReadonlyMap<string, string>,
): void {
  setText(at(domain, 'name'), name)
  setText(at(domain, 'uuid'), uuid)
  // Of what is in these, two VMs must not have the same: libvirt makes them anew.
  const os = at(domain, 'os')
  for (const one of elementsOf(os, 'nvram')) if (os !== undefined) remove(os, one)
  for (const one of elementsOf(domain, 'genid')) remove(domain, one)
  nicElements(domain).forEach((nic, index) => {
    nicWriters.mac(nic, nics[index]?.mac ?? null)
  })
  const models = readDisks(domain)
  diskElements(domain).forEach((disk, index) => {
    const target = models[index]?.target ?? ''
    const path = paths.get(target)
    if (path !== undefined) diskWriters.source(disk, { kind: 'file', at: path }, target)
  })
}

const copyDeadlineMs = 6 * 3_600_000
const syncDeadlineMs = 30 * 60_000

/** What a disk of a clone is called until libvirt knows the clone: then it gets its name, and is there at all. */
export const unfinished = (path: string): string => `${path}.cloning`

/** One disk that is copied, and where to. */
interface Copy {
  readonly target: string
  readonly path: string
  readonly format: 'qcow2' | 'raw'
  readonly copy: string
}

/** The disks that a clone gets copies of. Throws `vm.not-clonable`. */
function copiesOf(vm: DefinedVm, newName: string, pools: readonly string[]): readonly Copy[] {
  return (vm.model?.disks ?? []).flatMap(({ target, source, format, readOnly }): readonly Copy[] => {
    if (readOnly || source === null) return []
    const path = source.at
    const isFile = source.kind === 'file' && pools.some((pool) => isBelow(path, pool))
    if (!isFile || (format !== 'qcow2' && format !== 'raw'))
      throw new HostError(
        'vm.not-clonable',
        `${target} of ${vm.name} is ${path}, which is no qcow2 or raw file in a storage pool`,
        { details: { vm: vm.name } },
      )
    return [{ target, path, format, copy: clonePath(path, vm.name, newName, target) }]
  })
}

/** The seed of a VM that is a file in a pool, and where that of its clone would be; null when there is none. */
function seedOfClone(vm: DefinedVm, newName: string, pools: readonly string[]) {
  const disk = vm.model?.disks.find(isSeed)
  if (disk?.source?.kind !== 'file' || !pools.some((pool) => isBelow(disk.source?.at ?? '', pool)))
    return null
  const { target, source } = disk
  return { target, path: source.at, copy: clonePath(source.at, vm.name, newName, target) }
}

/** What gets its own name once libvirt knows the clone: its disks, its seed, and last the mark that the seed is whole. */
function placesOf(copies: readonly Copy[], seed: { readonly copy: string } | null) {
  const disks = [...copies, ...(seed === null ? [] : [seed])].map(({ copy }) => ({
    from: unfinished(copy),
    to: copy,
  }))
  return seed === null
    ? disks
    : [...disks, { from: seedMark(unfinished(seed.copy)), to: seedMark(seed.copy) }]
}

/**
 * Clones a VM. Cut short, the same clone goes on: until libvirt knows it its disks have other names, and are made anew; from then on
 * they only get their own. Throws `vm.not-clonable` when a disk is no file in a pool, `file.exists` when one of the new files is there.
 */
export async function clone(
  { to, vm, changes }: KnownInHand,
  newName: string,
  all: readonly DefinedVm[],
  site: Site,
): Promise<Became> {
  wantFitName(newName, 'vm clone')
  wantOff(vm)
  const { reader, performer, host, pools } = site
  const copies = copiesOf(vm, newName, pools)
  const seed = seedOfClone(vm, newName, pools)
  const isThere = async (path: string): Promise<boolean> => (await reader.facts(path)) !== null
  const places = placesOf(copies, seed)
  const place = async (): Promise<void> => {
    for (const { from, to } of places)
      if (await isThere(from)) await performer.perform({ kind: 'move', from, to })
  }
  const begun = all.find(({ name }) => name === newName)
  const isBegun = copies.every(({ target, copy }) =>
    begun?.model?.disks.some((disk) => disk.target === target && disk.source?.at === copy),
  )
  const left = await Promise.all(places.map(({ from }) => isThere(from)))
  if (begun !== undefined && isBegun && left.includes(true)) {
    const change = {
      word: 'clone',
      vm: vm.name,
      summary: `end making ${newName} like it`,
      risk: 'safe',
    } as const
    await changes.make(change, place)
    return { changed: true, text: `${newName} is made like it; what an earlier run had begun` }
  }
  wantFree(newName, all, 'vm clone')
  for (const { to: path } of places)
    if (await isThere(path))
      throw new HostError('file.exists', `${path} is there already`, { details: { path } })
  const folders = [
    ...new Set(copies.flatMap(({ path, copy }) => (folderOf(copy) === folderOf(path) ? [] : folderOf(copy)))),
  ]
  // Where it is recorded whose the VM is, it is of its clone; what an earlier run has recorded stays.
  const isOwned = (await ownFolders(vm, site)).length > 0
  const recorded = isOwned ? await ownedFolders(newName, folders, site) : []
  const uuid =
    recorded.find(({ owner }) => all.every((one) => one.uuid !== owner.uuid))?.owner.uuid ?? randomUUID()
  const lacking = folders.filter((folder) => !recorded.some((one) => one.folder === folder))
  const actions: readonly Action[] = [
    ...folders.map((path): Action => ({ kind: 'folder', path, mode: 0o711 })),
    ...(isOwned ? lacking.flatMap((folder) => recordActions(folder, newName, { epoch: 1, host, uuid })) : []),
    ...copies.flatMap(({ path, format, copy }): readonly Action[] => [
      // qemu-img makes files that everybody may read, and keeps the mode of one that is there.
      { kind: 'write', path: unfinished(copy), content: '', mode: 0o600 },
      {
        kind: 'run',
        argv: convertDisk({ path, format }, { path: unfinished(copy), format }),
        deadlineMs: copyDeadlineMs,
      },
      { kind: 'run', argv: ['/usr/bin/sync', '--', unfinished(copy)], deadlineMs: syncDeadlineMs },
    ]),
  ]
  return changes.make(
    { word: 'clone', vm: vm.name, summary: `make ${newName} like it`, risk: 'safe', actions },
    async () => {
      let another: AnotherSeed | null = null
      try {
        for (const action of actions) await performer.perform(action)
        const domain = await secretDefinition(await to(), vm)
        const old = readNics(domain)
        const nics = withOwnMacs(old)
        if (seed !== null) {
          const macs = macsOf(old, nics)
          const path = unfinished(seed.copy)
          await performer.perform({ kind: 'remove', path })
          another = await makeAnotherSeed(site, { image: seed.path, path, name: newName, macs })
        }
        const paths = [...copies, ...(seed !== null && another !== null ? [seed] : [])]
        asClone(domain, newName, uuid, nics, new Map(paths.map(({ target, copy }) => [target, copy])))
        const xml = printXml(domain)
        await reach(to, {
          ask: (libvirt) => libvirt.domainDefineXMLFlags({ xml, flags: VIR.DOMAIN_DEFINE_VALIDATE }),
          holds: async (libvirt) =>
            (await libvirt.connectListAllDomains({ flags: 0 })).some((one) => one.uuid === uuid),
        })
      } catch (error) {
        await afterFailure(error, async () => {
          const beside = seed === null ? [] : await leftBesideSeed(reader, unfinished(seed.copy))
          for (const path of [...places.map(({ from }) => from), ...beside])
            await performer.perform({ kind: 'remove', path })
        })
        throw error
      }
      await place()
      const told = seed === null ? [] : [seedText(another, vm.name)]
      return { changed: true, text: [`${newName} is made like it`, ...told].join('; ') }
    },
  )
}
