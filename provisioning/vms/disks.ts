// The disks of a libvirt domain definition (<disk>): read, made, changed.

import { at, element, elementsOf, insert, remove, textOf, type XmlElement } from '../libvirt/xml.ts'

/** Where a disk's content is. `at` is a path, or what else names it (`POOL/VOLUME`, `rbd:NAME`). */
export interface DiskSource {
  readonly kind: string
  readonly at: string
}

/** One disk of a definition. */
export interface DiskModel {
  /** The name that Garrison gave it; null for one that somebody else attached. */
  readonly name: string | null
  /** What the guest's bus calls it (`vda`); libvirt's own key. */
  readonly target: string
  readonly device: string
  readonly bus: string | null
  /** Null for a drive without a medium. */
  readonly source: DiskSource | null
  readonly format: string
  readonly cache: string
  readonly io: string
  readonly discard: string
  readonly readOnly: boolean
  readonly serial: string | null
  /** Its turn when the guest boots. */
  readonly boot: number | null
}

/** libvirt keeps aliases that begin with this, and makes none itself. */
export const ownAlias = 'ua-'

/** The name after a prefix of our own in the alias of a device, or null. */
export function nameInAlias(device: XmlElement, kind: string): string | null {
  const alias = at(device, 'alias')?.attributes.get('name') ?? ''
  const prefix = `${ownAlias}${kind}-`
  return alias.startsWith(prefix) ? alias.slice(prefix.length) : null
}

/** The attribute of each type of source that says where it is (libvirt's formatdomain, Hard drives). */
const sourceAttributes: ReadonlyMap<string, string> = new Map(
  Object.entries({ file: 'file', block: 'dev', dir: 'dir' }),
)

function sourceOf(disk: XmlElement): DiskSource | null {
  const kind = disk.attributes.get('type') ?? 'file'
  const source = at(disk, 'source')
  if (source === undefined) return null
  const { attributes } = source
  const attribute = sourceAttributes.get(kind)
  if (attribute !== undefined) {
    const path = attributes.get(attribute)
    return path === undefined ? null : { kind, at: path }
  }
  const named = kind === 'volume' ? ['pool', 'volume'] : ['protocol', 'name', 'type', 'path', 'dev']
  return { kind, at: named.flatMap((one) => attributes.get(one) ?? []).join('/') }
}

/** Turns at boot from `<os><boot dev=…/>`, which counts the first disk and the first CD only. */
function osTurns(domain: XmlElement): ReadonlyMap<string, number> {
  return new Map(
    elementsOf(at(domain, 'os'), 'boot').map(({ attributes }, index) => [
      attributes.get('dev') === 'hd' ? 'disk' : (attributes.get('dev') ?? ''),
      index + 1,
    ]),
  )
}

/** The `<disk>` elements of a definition, in their order. */
export const diskElements = (domain: XmlElement): readonly XmlElement[] =>
  elementsOf(at(domain, 'devices'), 'disk')

function diskOf(disk: XmlElement, osTurn: number | null): DiskModel {
  const driver = at(disk, 'driver')?.attributes
  const target = at(disk, 'target')?.attributes
  const device = disk.attributes.get('device') ?? 'disk'
  const boot = at(disk, 'boot')?.attributes.get('order')
  const setting = (name: string, fallback: string): string => {
    const value = driver?.get(name)
    return value === undefined || value === 'default' ? fallback : value
  }
  return {
    name: nameInAlias(disk, 'disk'),
    target: target?.get('dev') ?? '',
    device,
    bus: target?.get('bus') ?? null,
    source: sourceOf(disk),
    // What QEMU does where nothing is said.
    format: setting('type', 'raw'),
    cache: setting('cache', 'writeback'),
    io: setting('io', 'threads'),
    discard: setting('discard', 'ignore'),
    readOnly: at(disk, 'readonly') !== undefined || device === 'cdrom',
    serial: textOf(at(disk, 'serial')),
    boot: boot !== undefined && /^\d{1,4}$/.test(boot) ? Number(boot) : osTurn,
  }
}

/** The disks of a definition, in their order. */
export function readDisks(domain: XmlElement): readonly DiskModel[] {
  const turns = osTurns(domain)
  const seen = new Set<string>()
  return diskElements(domain).map((disk) => {
    const device = disk.attributes.get('device') ?? 'disk'
    const turn = seen.has(device) ? null : (turns.get(device) ?? null)
    seen.add(device)
    return diskOf(disk, turn)
  })
}

const child = (disk: XmlElement, name: string): XmlElement => {
  const found = at(disk, name)
  if (found !== undefined) return found
  const made = element(name)
  insert(disk, made)
  return made
}

const dropChild = (disk: XmlElement, name: string): void => {
  const found = at(disk, name)
  if (found !== undefined) remove(disk, found)
}

const setDriver =
  (name: string) =>
  (disk: XmlElement, value: string): void => {
    child(disk, 'driver').attributes.set(name, value)
  }

/** What can be changed of a disk that is there. A new target or bus is another place on another controller. */
export const diskWriters: {
  readonly [Name in Exclude<keyof DiskModel, 'name' | 'target'>]: (
    disk: XmlElement,
    value: DiskModel[Name],
    target: string,
  ) => void
} = {
  device: (disk, value) => disk.attributes.set('device', value),
  bus(disk, value, target) {
    const { attributes } = child(disk, 'target')
    attributes.set('dev', target)
    if (value === null) attributes.delete('bus')
    else attributes.set('bus', value)
    dropChild(disk, 'address')
  },
  source(disk, value) {
    dropChild(disk, 'source')
    if (value === null) return
    disk.attributes.set('type', value.kind)
    insert(disk, element('source', { [sourceAttributes.get(value.kind) ?? 'name']: value.at }))
  },
  format: setDriver('type'),
  cache: setDriver('cache'),
  io: setDriver('io'),
  discard: setDriver('discard'),
  readOnly(disk, isWanted) {
    dropChild(disk, 'readonly')
    if (isWanted) insert(disk, element('readonly'))
  },
  serial(disk, value) {
    dropChild(disk, 'serial')
    if (value !== null) insert(disk, element('serial', {}, [value]))
  },
  boot(disk, value) {
    dropChild(disk, 'boot')
    if (value !== null) insert(disk, element('boot', { order: String(value) }))
  },
}

/** The next free name on a bus: `vda`, …, `vdz`, `vdaa`. */
export function freeTarget(bus: string | null, taken: ReadonlySet<string>): string {
  const prefix = bus === 'virtio' ? 'vd' : 'sd'
  const letters = (index: number): string =>
    (index >= 26 ? letters(Math.floor(index / 26) - 1) : '') + String.fromCharCode(97 + (index % 26))
  for (let index = 0; ; index += 1) {
    const target = prefix + letters(index)
    if (!taken.has(target)) return target
  }
}

/** Turns of single devices cannot stand beside `<os><boot/></os>`, so that goes where any device has one. */
export function preferTurns(domain: XmlElement): void {
  const os = at(domain, 'os')
  const hasTurn = elementsOf(at(domain, 'devices')).some((device) => at(device, 'boot') !== undefined)
  if (os !== undefined && hasTurn) for (const one of elementsOf(os, 'boot')) remove(os, one)
}

/** A new `<disk>`. */
export function diskElement(disk: DiskModel): XmlElement {
  const made = element('disk', { type: disk.source?.kind ?? 'file', device: disk.device }, [
    element('driver', { name: 'qemu', type: disk.format }),
  ])
  diskWriters.source(made, disk.source, disk.target)
  diskWriters.bus(made, disk.bus, disk.target)
  for (const name of ['cache', 'io', 'discard'] as const) diskWriters[name](made, disk[name], disk.target)
  diskWriters.readOnly(made, disk.readOnly, disk.target)
  diskWriters.serial(made, disk.serial, disk.target)
  diskWriters.boot(made, disk.boot, disk.target)
  if (disk.name !== null) insert(made, element('alias', { name: `${ownAlias}disk-${disk.name}` }))
  return made
}
