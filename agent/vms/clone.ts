// Another VM like one that is off, with copies of its disks.

import { randomUUID } from 'node:crypto'
import { at, elementsOf, printXml, remove, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { diskElements, diskWriters, readDisks } from '../../provisioning/vms/disks.ts'
import { nicElements, nicWriters } from '../../provisioning/vms/nics.ts'
import { recordActions } from '../../provisioning/vms/ownership.ts'
import { convertDisk } from '../../provisioning/vms/qemu-img.ts'
import { VIR } from '../node-libvirt/index.ts'
import type { KnownInHand } from './devices.ts'
import type { DefinedVm } from './facts.ts'
import { anyMac } from './mac.ts'
import { secretDefinition } from './rewrite.ts'
import { fileOf, folderOf, isBelow, ownFolders, type Site, wantFree, wantOff } from './site.ts'
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

/** Makes a definition that of a clone: with a name, UUID, MACs and disks (paths by target) of its own. */
export function asClone(
  domain: XmlElement,
  name: string,
  uuid: string,
  paths: ReadonlyMap<string, string>,
): void {
  setText(at(domain, 'name'), name)
  setText(at(domain, 'uuid'), uuid)
  // Of what is in these, two VMs must not have the same: libvirt makes them anew.
  const os = at(domain, 'os')
  for (const one of elementsOf(os, 'nvram')) if (os !== undefined) remove(os, one)
  for (const one of elementsOf(domain, 'genid')) remove(domain, one)
  for (const nic of nicElements(domain)) nicWriters.mac(nic, anyMac())
  const models = readDisks(domain)
  diskElements(domain).forEach((disk, index) => {
    const target = models[index]?.target ?? ''
    const path = paths.get(target)
    if (path !== undefined) diskWriters.source(disk, { kind: 'file', at: path }, target)
  })
}

const copyDeadlineMs = 6 * 3_600_000

/** Clones a VM. Throws `vm.not-clonable` when a disk is no file in a pool, `file.exists` when one of the new files is there. */
export async function clone(
  { to, vm, changes }: KnownInHand,
  newName: string,
  all: readonly DefinedVm[],
  site: Site,
): Promise<Became> {
  wantFree(newName, all, 'vm clone')
  wantOff(vm)
  const { reader, performer, host, pools } = site
  const own = await ownFolders(vm, site)
  const uuid = randomUUID()
  const paths = new Map<string, string>()
  const folders = new Set<string>()
  const copies: Action[] = []
  for (const { target, source, format, readOnly } of vm.model?.disks ?? []) {
    if (readOnly || source === null) continue
    const path = source.at
    const isFile = source.kind === 'file' && pools.some((pool) => isBelow(path, pool))
    if (!isFile || (format !== 'qcow2' && format !== 'raw'))
      throw new HostError(
        'vm.not-clonable',
        `${target} of ${vm.name} is ${path}, which is no qcow2 or raw file in a storage pool`,
        { details: { vm: vm.name } },
      )
    const copy = clonePath(path, vm.name, newName, target)
    if ((await reader.facts(copy)) !== null)
      throw new HostError('file.exists', `${copy} is there already`, { details: { path: copy } })
    paths.set(target, copy)
    if (folderOf(copy) !== folderOf(path)) folders.add(folderOf(copy))
    copies.push({
      kind: 'run',
      argv: convertDisk({ path, format }, { path: copy, format }),
      deadlineMs: copyDeadlineMs,
    })
  }
  const actions: readonly Action[] = [
    ...[...folders].map((path): Action => ({ kind: 'folder', path, mode: 0o711 })),
    // Where it is recorded whose the VM is, it is of its clone.
    ...(own.length === 0
      ? []
      : [...folders].flatMap((folder) => recordActions(folder, newName, { epoch: 1, host, uuid }))),
    ...copies,
  ]
  await changes.make(
    { word: 'clone', vm: vm.name, summary: `make ${newName} like it`, risk: 'safe', actions },
    async () => {
      try {
        for (const action of actions) await performer.perform(action)
        const libvirt = await to()
        const domain = await secretDefinition(libvirt, vm)
        asClone(domain, newName, uuid, paths)
        await libvirt.domainDefineXMLFlags({ xml: printXml(domain), flags: VIR.DOMAIN_DEFINE_VALIDATE })
      } catch (error) {
        for (const path of paths.values()) await performer.perform({ kind: 'remove', path })
        throw error
      }
    },
  )
  return { changed: true, text: `${newName} is made like it` }
}
