// The definition of a VM that is restored: as it was, or with a name, an identity and disks of its own.

import {
  at,
  elementsOf,
  parseXml,
  printXml,
  remove,
  type XmlElement,
  XmlError,
} from '../../../provisioning/libvirt/xml.ts'
import { HostError } from '../../../provisioning/problem.ts'
import { readDisks } from '../../../provisioning/vms/disks.ts'
import { isSeed } from '../../../provisioning/vms/names.ts'
import { type NicModel, nicElements, nicWriters, readNics } from '../../../provisioning/vms/nics.ts'
import { anyMac } from '../mac.ts'

/** What of a definition is another one. `sources`: the file of each disk by libvirt's name of it. */
export interface Renewed {
  readonly name: string
  readonly uuid: string
  readonly sources: Readonly<Record<string, string>>
  /** Where the variables of its firmware are; null when libvirt makes them. */
  readonly firmware: string | null
  /** Whether it is another VM beside the old one: it gets MACs of its own. */
  readonly isAnother: boolean
}

function setText(target: XmlElement | undefined, text: string): void {
  target?.children.splice(0, target.children.length, { kind: 'text', text })
}

const drop = (parent: XmlElement | undefined, name: string): void => {
  for (const one of elementsOf(parent, name)) if (parent !== undefined) remove(parent, one)
}

/** Sets the file of a disk; one that is not among the sources keeps its medium when that is elsewhere, as an installer is. */
function setSource(disk: XmlElement, sources: Renewed['sources']): void {
  const path = sources[at(disk, 'target')?.attributes.get('dev') ?? '']
  if (path === undefined) return
  const { attributes } = disk
  attributes.set('type', 'file')
  const source = at(disk, 'source')
  source?.attributes.clear()
  source?.attributes.set('file', path)
  // What it stood on is part of the restored file.
  drop(disk, 'backingStore')
}

function rootOf(xml: string, name: string): XmlElement {
  try {
    return parseXml(xml).root
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause
    throw new HostError('host.unexpected-answer', `the definition of ${name} is no XML: ${cause.message}`, {
      cause,
    })
  }
}

/** The definition to be defined. Throws `host.unexpected-answer` when what was kept is no XML. */
export function renewed(xml: string, { name, uuid, sources, firmware, isAnother }: Renewed): string {
  const root = structuredClone(rootOf(xml, name))
  setText(at(root, 'name'), name)
  setText(at(root, 'uuid'), uuid)
  root.attributes.delete('id')
  const devices = at(root, 'devices')
  for (const disk of elementsOf(devices, 'disk')) setSource(disk, sources)
  const nvram = at(root, 'os', 'nvram')
  const source = at(nvram, 'source')
  if (source !== undefined && firmware !== null) source.attributes.set('file', firmware)
  else if (firmware !== null) setText(nvram, firmware)
  else nvram?.children.splice(0, nvram.children.length)
  if (isAnother) {
    // Given here, for the seed of cloud-init names them too.
    for (const nic of nicElements(root)) nicWriters.mac(nic, anyMac())
    // Sockets and files that libvirt names after the VM.
    for (const kind of ['serial', 'console', 'channel'])
      for (const device of elementsOf(devices, kind))
        if (device.attributes.get('type') === 'unix') drop(device, 'source')
  }
  return printXml(root)
}

/** The NICs of a definition, in their order. */
export const nicsIn = (xml: string): readonly NicModel[] => readNics(parseXml(xml).root)

/** libvirt's name of the disk of a VM's definition that is its seed, or null. Throws `host.unexpected-answer` as `renewed` does. */
export const seedIn = (xml: string, name: string): string | null =>
  readDisks(rootOf(xml, name)).find(isSeed)?.target ?? null

/** What a definition says of its disks: the file or device of each by libvirt's name of it, and in what format. */
export function sourcesIn(
  xml: string,
): Readonly<Record<string, { readonly kind: string; readonly path: string; readonly format: string }>> {
  const disks = elementsOf(at(parseXml(xml).root, 'devices'), 'disk')
  return Object.fromEntries(
    disks.flatMap((disk) => {
      const { attributes } = at(disk, 'source') ?? {}
      const path = attributes?.get('file') ?? attributes?.get('dev')
      const target = at(disk, 'target')?.attributes.get('dev')
      const format = at(disk, 'driver')?.attributes.get('type') ?? 'raw'
      return path === undefined || target === undefined
        ? []
        : [[target, { kind: disk.attributes.get('type') ?? 'file', path, format }] as const]
    }),
  )
}
