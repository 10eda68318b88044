// A VM as a document would declare it, made from its libvirt definition. What no key of a document can say is told beside it.

import type { z } from 'zod'
import type { Json } from '../resource.ts'
import { type Difference, exactSize } from './differences.ts'
import type { DiskModel } from './disks.ts'
import type { DomainModel } from './domain.ts'
import type { NicModel } from './nics.ts'
import { machineSchema } from './schema.ts'

/** What stands below `vms.machines.NAME`, before defaults. */
export type WrittenMachine = z.input<typeof machineSchema>

/** One disk of it. */
export type WrittenDisk = NonNullable<WrittenMachine['disks']>[string]

type WrittenNic = NonNullable<WrittenMachine['nics']>[string]

/** A declaration, and what of the definition it does not say, in words. */
export interface Adopted {
  readonly machine: WrittenMachine
  readonly unsaid: readonly string[]
}

const partName = /^[a-z][a-z0-9_-]{0,19}$/

/** What a disk, NIC or device is called in a document: as Garrison named it, else as its bus or its turn has it. */
export const partNameOf = (name: string | null, otherwise: string): string =>
  name !== null && partName.test(name) && !(name in Object.prototype) ? name : otherwise

/** One of the words that a key takes; another is told, and `instead` stands for it. */
const chosen =
  (unsaid: string[], whose: string) =>
  <const Word extends string>(
    what: string,
    value: string | null,
    words: readonly Word[],
    instead: NoInfer<Word>,
  ): Word => {
    const found = words.find((word) => word === value)
    if (found !== undefined) return found
    unsaid.push(`${whose}: ${what} is ${value ?? 'not said'}; ${instead} stands for it`)
    return instead
  }

/** A disk without where it is. */
export function adoptedDisk(disk: DiskModel, name: string, unsaid: string[]): WrittenDisk {
  const pick = chosen(unsaid, name)
  const device = pick('device', disk.device, ['disk', 'cdrom'], 'disk')
  const bus = pick('bus', disk.bus, ['virtio', 'scsi', 'sata'], 'sata')
  const cache = pick(
    'cache',
    disk.cache,
    ['none', 'writeback', 'writethrough', 'directsync', 'unsafe'],
    'none',
  )
  const isDirect = cache === 'none' || cache === 'directsync'
  const io = pick(
    'io',
    disk.io,
    ['threads', 'io_uring', ...(isDirect ? (['native'] as const) : [])],
    'threads',
  )
  if (disk.serial !== null && disk.serial !== name)
    unsaid.push(`${name}: its serial number is ${disk.serial}; ${name} stands for it`)
  return {
    device,
    // QEMU has no SATA disk that is only read.
    bus: disk.readOnly && device === 'disk' && bus === 'sata' ? 'scsi' : bus,
    ...{ cache, io, discard: pick('discard', disk.discard, ['unmap', 'ignore'], 'ignore') },
    ...(disk.readOnly && device === 'disk' && { readOnly: true }),
    ...(disk.boot !== null && disk.boot > 0 && disk.boot < 100 && { boot: disk.boot }),
  }
}

function adoptedNic({ source, mac, model }: NicModel, name: string, unsaid: string[]): WrittenNic | null {
  if (source.kind !== 'network' && source.kind !== 'bridge' && source.kind !== 'macvtap') {
    unsaid.push(`${name}: a NIC of the kind ${source.kind}`)
    return null
  }
  return {
    [source.kind]: source.at,
    model: chosen(unsaid, name)('model', model, ['virtio', 'e1000e', 'rtl8139'], 'virtio'),
    ...(mac !== null && { mac }),
  }
}

/** The machine type without its version where a document would say the same without one. */
const machineType = ({ machine, architecture }: DomainModel): WrittenMachine => {
  const usual = architecture === 'aarch64' ? /^virt(-|$)/ : /^(pc-)?q35(-|$)/
  if (machine === null || usual.test(machine)) return {}
  return { machine: /^pc-i440fx-/.test(machine) ? 'pc' : machine }
}

/** Declares a VM as it is defined, without its disks. `isOn`: whether it runs. */
export function adopted(
  model: DomainModel,
  { isOn, autostart }: { readonly isOn: boolean; readonly autostart: boolean },
): Adopted {
  const unsaid: string[] = []
  const pick = chosen(unsaid, 'the VM')
  const nics = model.nics.flatMap((nic, index): readonly (readonly [string, WrittenNic])[] => {
    const name = partNameOf(nic.name, `nic${index}`)
    const said = adoptedNic(nic, name, unsaid)
    return said === null ? [] : [[name, said]]
  })
  if (!['none', 'vnc'].includes(model.display)) unsaid.push(`its screen: ${model.display}`)
  for (const { kind, at } of model.devices) unsaid.push(`a device of the host: ${kind} ${at}`)
  const tags = machineSchema.shape.tags.safeParse(model.origin?.tags ?? {})
  if (!tags.success) unsaid.push('its tags')
  const machine: WrittenMachine = {
    ...(model.uuid !== null && { uuid: model.uuid }),
    cpus: model.cpus ?? 1,
    memory: exactMemory(model.memoryBytes ?? 2 ** 30),
    firmware: model.firmware,
    ...machineType(model),
    accelerator: pick('type', model.type === 'qemu' ? 'tcg' : model.type, ['kvm', 'tcg'], 'kvm'),
    // Where nothing is said QEMU takes this one.
    cpuModel: model.cpuModel ?? (model.architecture === 'aarch64' ? 'cortex-a15' : 'qemu64'),
    clock: pick('clock', model.clock, ['utc', 'localtime'], 'utc'),
    nics: Object.fromEntries(nics),
    console: { serial: model.serial, display: model.display === 'none' ? 'none' : 'vnc' },
    autostart,
    power: isOn ? 'running' : 'off',
    ...(tags.success && { tags: tags.data }),
  }
  return { machine, unsaid }
}

/** What is to be written into a document so that it says what there is, each by its key below the VM. */
export interface AdoptedDrift {
  readonly sets: readonly { readonly path: readonly string[]; readonly value: Json }[]
  /** The paths of the differences that are then none any more. */
  readonly said: readonly string[]
  readonly unsaid: readonly string[]
}

const powers: Readonly<Record<string, string>> = {
  running: 'running',
  blocked: 'running',
  off: 'off',
  crashed: 'off',
}

/** What no person writes into a document: Garrison's own marks, and what is always so. */
const ownPaths: ReadonlySet<string> = new Set(['metadata', 'template'])
const fixedPaths: ReadonlySet<string> = new Set(['cloudInit', 'guestAgent', 'random', 'architecture'])

/** What is attached and not declared, as it would be declared: its name and what stands below it; null when no key can say it. */
function adoptedPart(
  path: string,
  { disks, nics, devices }: DomainModel,
  unsaid: string[],
): readonly [name: string, said: Json] | null {
  const key = path.slice(path.indexOf('.') + 1)
  if (path.startsWith('disks.')) {
    const disk = disks.find(({ name, target }) => (name ?? target) === key)
    const isHere = disk?.source?.kind === 'file' || disk?.source?.kind === 'block'
    if (!disk?.source || !isHere || (disk.format !== 'qcow2' && disk.format !== 'raw')) return null
    const name = partNameOf(disk.name, disk.target)
    return [name, { path: disk.source.at, format: disk.format, ...adoptedDisk(disk, name, unsaid) } as Json]
  }
  if (path.startsWith('nics.')) {
    const at = nics.findIndex(({ name, mac }) => (name ?? mac ?? '?') === key)
    const nic = nics[at]
    const name = partNameOf(nic?.name ?? null, `nic${at}`)
    const said = nic === undefined ? null : adoptedNic(nic, name, unsaid)
    return said === null ? null : [name, said as Json]
  }
  const at = devices.findIndex(({ name, at: place }) => (name ?? place) === key)
  const device = devices[at]
  return device?.kind === 'pci' || device?.kind === 'mdev'
    ? [partNameOf(device.name, `device${at}`), { [device.kind]: device.at }]
    : null
}

/** Says in the words of a document what differs from it. What cannot be said is told: a person takes it out of the document, or back. */
export function adoptedDrift(
  differences: readonly Difference[],
  model: DomainModel,
  autostart: boolean,
): AdoptedDrift {
  const unsaid: string[] = []
  const setsOf = ({ path, desired, observed }: Difference): AdoptedDrift['sets'] => {
    const words = path.split('.')
    const isNicSource = /^nics\.[^.]+\.(network|bridge|macvtap)$/.test(path)
    const [kind, ...place] = isNicSource ? String(observed).split(' ') : []
    if (ownPaths.has(path)) return []
    if (desired === null) {
      const part = adoptedPart(path, model, unsaid)
      if (part !== null) return [{ path: [words[0] ?? '', part[0]], value: part[1] }]
    } else if (path === 'power') {
      const power = powers[String(observed)]
      // Whether it starts with the host goes by its power where nothing is said.
      if (power !== undefined)
        return [
          { path: words, value: power },
          { path: ['autostart'], value: autostart },
        ]
    } else if (isNicSource) {
      if (kind === words.at(-1)) return [{ path: words, value: place.join(' ') }]
    } else if (observed !== null && !fixedPaths.has(path)) return [{ path: words, value: observed }]
    unsaid.push(`${path}: ${observed === null ? 'it is declared, and not there' : JSON.stringify(observed)}`)
    return []
  }
  const each = differences.map((difference) => ({ path: difference.path, sets: setsOf(difference) }))
  return {
    sets: each.flatMap(({ sets }) => sets),
    said: each.flatMap(({ path, sets }) => (sets.length > 0 ? path : [])),
    unsaid,
  }
}

/** Memory in a unit that a document has: whole MiB, and not less than there was. */
const exactMemory = (bytes: number): string => exactSize(Math.ceil(bytes / 2 ** 20) * 2 ** 20)
