// What a libvirt domain definition says of the things that Garrison knows: read from the XML tree, and written into it one by one.
//
// INVARIANTS
// - Writing touches only the elements of the thing written: addresses, aliases, security labels and all else stay as they are.
// - What was written is read back as the same value.
// - Where libvirt fills in what a definition leaves out, reading gives what QEMU then does.

import { at, element, elementsOf, insert, remove, textOf, type XmlElement } from '../libvirt/xml.ts'
import { type DeviceModel, readDevices } from './devices.ts'
import { type DiskModel, readDisks } from './disks.ts'
import { type NicModel, readNics } from './nics.ts'
import { type Origin, readOrigin } from './origin.ts'

/** What boots the guest. */
export type Firmware = 'bios' | 'uefi' | 'uefi-secure'

/** Everything that Garrison knows of a definition but its disks, NICs, devices and where it came from. */
export interface Basics {
  /** `kvm`, or `qemu` for an emulated one. */
  readonly type: string
  /** Null when it cannot be told. */
  readonly memoryBytes: number | null
  readonly cpus: number | null
  readonly firmware: Firmware
  readonly architecture: string | null
  readonly machine: string | null
  /** A model, or `host-passthrough`, `host-model`, `maximum`; null when QEMU chooses. */
  readonly cpuModel: string | null
  readonly clock: string
  readonly serial: boolean
  /** `none`, `vnc` (by a socket on this host), or how else it is reached. */
  readonly display: string
  /** The channel of the guest agent. */
  readonly guestAgent: boolean
  /** A virtio source of randomness. */
  readonly random: boolean
}

/** A definition, as far as Garrison knows it. */
export interface DomainModel extends Basics {
  readonly name: string | null
  readonly uuid: string | null
  readonly disks: readonly DiskModel[]
  readonly nics: readonly NicModel[]
  readonly devices: readonly DeviceModel[]
  readonly origin: Origin | null
}

/** One thing that a definition says. */
interface Field<Value> {
  read(domain: XmlElement): Value
  write(domain: XmlElement, value: NonNullable<Value>): void
  /** Whether libvirt may have made the observed value of the desired one. */
  same?(desired: Value, observed: Value): boolean
}

/** The element of this name below another; made when it is missing. */
const ensured = (parent: XmlElement, name: string): XmlElement => {
  const found = at(parent, name)
  if (found !== undefined) return found
  const made = element(name)
  insert(parent, made)
  return made
}

const setText = (target: XmlElement, text: string): void => {
  target.children.splice(0, target.children.length, { kind: 'text', text })
}

const devicesOf = (domain: XmlElement): XmlElement => ensured(domain, 'devices')

const removeAll = (parent: XmlElement, unwanted: readonly XmlElement[]): void => {
  for (const one of unwanted) remove(parent, one)
}

/** Bytes in the units that libvirt knows (virScaleInteger): KiB unless one is given. */
const unitBytes: ReadonlyMap<string, number> = new Map([
  ['b', 1],
  ['bytes', 1],
  ...['k', 'm', 'g', 't', 'p', 'e'].flatMap((letter, index): readonly (readonly [string, number])[] => [
    [letter, 1024 ** (index + 1)],
    [`${letter}ib`, 1024 ** (index + 1)],
    [`${letter}b`, 1000 ** (index + 1)],
  ]),
])

const bytesOf = (from: XmlElement | undefined): number | null => {
  const text = textOf(from)
  const unit = unitBytes.get((from?.attributes.get('unit') ?? 'KiB').toLowerCase())
  return text !== null && /^\d{1,15}$/.test(text) && unit !== undefined ? Number(text) * unit : null
}

const numberOf = (text: string | null | undefined): number | null =>
  text !== null && text !== undefined && /^\d{1,6}$/.test(text) ? Number(text) : null

const memoryBytes: Field<number | null> = {
  read: (domain) => bytesOf(at(domain, 'memory')),
  write(domain, bytes) {
    for (const name of ['memory', 'currentMemory']) {
      const target = name === 'memory' ? ensured(domain, name) : at(domain, name)
      if (target === undefined) continue
      target.attributes.set('unit', 'KiB')
      setText(target, String(Math.ceil(bytes / 1024)))
    }
  },
}

const cpus: Field<number | null> = {
  read(domain) {
    const vcpu = at(domain, 'vcpu')
    return vcpu === undefined ? 1 : numberOf(vcpu.attributes.get('current') ?? textOf(vcpu))
  },
  write(domain, count) {
    const vcpu = ensured(domain, 'vcpu')
    vcpu.attributes.delete('current')
    setText(vcpu, String(count))
    // libvirt refuses a topology that does not multiply up, and a list of CPUs of another length.
    const cpu = at(domain, 'cpu')
    const topology = at(cpu, 'topology')
    const product = ['sockets', 'dies', 'clusters', 'cores', 'threads'].reduce(
      (total, one) => total * (numberOf(topology?.attributes.get(one)) ?? 1),
      1,
    )
    if (cpu !== undefined && topology !== undefined && product !== count) remove(cpu, topology)
    removeAll(domain, elementsOf(domain, 'vcpus'))
  },
}

const firmware: Field<Firmware> = {
  read(domain) {
    const os = at(domain, 'os')
    const loader = at(os, 'loader')
    const isUefi =
      os?.attributes.get('firmware') === 'efi' ||
      loader?.attributes.get('type') === 'pflash' ||
      at(os, 'nvram') !== undefined
    const isSecure =
      loader?.attributes.get('secure') === 'yes' ||
      elementsOf(at(os, 'firmware'), 'feature').some(
        // Keys are only enrolled in firmware that has Secure Boot.
        ({ attributes }) =>
          ['secure-boot', 'enrolled-keys'].includes(attributes.get('name') ?? '') &&
          attributes.get('enabled') === 'yes',
      )
    return !isUefi ? 'bios' : isSecure ? 'uefi-secure' : 'uefi'
  },
  write(domain, value) {
    const os = ensured(domain, 'os')
    removeAll(
      os,
      ['loader', 'nvram', 'firmware', 'varstore'].flatMap((name) => elementsOf(os, name)),
    )
    if (value === 'bios') {
      os.attributes.delete('firmware')
      return
    }
    os.attributes.set('firmware', 'efi')
    const enabled = value === 'uefi-secure' ? 'yes' : 'no'
    insert(
      os,
      element('firmware', {}, [
        element('feature', { enabled, name: 'enrolled-keys' }),
        element('feature', { enabled, name: 'secure-boot' }),
      ]),
    )
  },
}

const osAttribute = (name: 'arch' | 'machine'): Field<string | null> => ({
  read: (domain) => at(domain, 'os', 'type')?.attributes.get(name) ?? null,
  write(domain, value) {
    ensured(ensured(domain, 'os'), 'type').attributes.set(name, value)
  },
})

/** Names that libvirt replaces by the newest versioned one when it defines: `q35` by `pc-q35-7.2`. */
const machineAliases: ReadonlyMap<string | null, RegExp> = new Map([
  ['q35', /^pc-q35-/],
  ['pc', /^pc-i440fx-/],
  ['virt', /^virt-/],
])

const cpuModel: Field<string | null> = {
  read(domain) {
    const cpu = at(domain, 'cpu')
    const mode = cpu?.attributes.get('mode')
    return mode === undefined || mode === 'custom' ? textOf(at(cpu, 'model')) : mode
  },
  write(domain, value) {
    const cpu = ensured(domain, 'cpu')
    // What belongs to the former model; topology and NUMA cells stay.
    removeAll(
      cpu,
      ['model', 'vendor', 'feature'].flatMap((name) => elementsOf(cpu, name)),
    )
    for (const name of ['check', 'match', 'migratable']) cpu.attributes.delete(name)
    const isMode = ['host-passthrough', 'host-model', 'maximum'].includes(value)
    cpu.attributes.set('mode', isMode ? value : 'custom')
    if (isMode) return
    cpu.attributes.set('match', 'exact')
    insert(cpu, element('model', { fallback: 'forbid' }, [value]))
  },
}

const clock: Field<string> = {
  read: (domain) => at(domain, 'clock')?.attributes.get('offset') ?? 'utc',
  write(domain, value) {
    ensured(domain, 'clock').attributes.set('offset', value)
  },
}

const ptys = (domain: XmlElement): readonly XmlElement[] =>
  ['serial', 'console']
    .flatMap((name) => elementsOf(at(domain, 'devices'), name))
    .filter(({ attributes }) => attributes.get('type') === 'pty')

const serial: Field<boolean> = {
  read: (domain) => ptys(domain).length > 0,
  write(domain, isWanted) {
    const devices = devicesOf(domain)
    removeAll(devices, ptys(domain))
    if (isWanted) insert(devices, element('serial', { type: 'pty' }))
  },
}

const screen = (graphics: XmlElement): string => {
  const type = graphics.attributes.get('type') ?? 'unknown'
  const listen = at(graphics, 'listen')
  const isSocket = listen?.attributes.get('type') === 'socket' || graphics.attributes.has('socket')
  if (isSocket) return type
  const address = listen?.attributes.get('address') ?? graphics.attributes.get('listen')
  return address === undefined ? `${type} on the network` : `${type} on ${address}`
}

const display: Field<string> = {
  read: (domain) => elementsOf(at(domain, 'devices'), 'graphics').map(screen).join(', ') || 'none',
  write(domain, value) {
    const devices = devicesOf(domain)
    removeAll(devices, elementsOf(devices, 'graphics'))
    if (value === 'vnc')
      insert(devices, element('graphics', { type: 'vnc' }, [element('listen', { type: 'socket' })]))
  },
}

const agentName = 'org.qemu.guest_agent.0'

const channels = (domain: XmlElement): readonly XmlElement[] =>
  elementsOf(at(domain, 'devices'), 'channel').filter(
    (channel) => at(channel, 'target')?.attributes.get('name') === agentName,
  )

const guestAgent: Field<boolean> = {
  read: (domain) => channels(domain).length > 0,
  write(domain, isWanted) {
    const devices = devicesOf(domain)
    removeAll(devices, channels(domain))
    if (isWanted)
      insert(
        devices,
        element('channel', { type: 'unix' }, [element('target', { type: 'virtio', name: agentName })]),
      )
  },
}

const random: Field<boolean> = {
  read: (domain) => elementsOf(at(domain, 'devices'), 'rng').length > 0,
  write(domain, isWanted) {
    const devices = devicesOf(domain)
    removeAll(devices, elementsOf(devices, 'rng'))
    if (isWanted)
      insert(
        devices,
        element('rng', { model: 'virtio' }, [element('backend', { model: 'random' }, ['/dev/urandom'])]),
      )
  },
}

/** How each of the basics is read, written and compared. */
export const basicFields: { readonly [Name in keyof Basics]: Field<Basics[Name]> } = {
  type: {
    read: (domain) => domain.attributes.get('type') ?? '',
    write: (domain, value) => domain.attributes.set('type', value),
  },
  memoryBytes,
  cpus,
  firmware,
  architecture: osAttribute('arch'),
  machine: {
    ...osAttribute('machine'),
    same: (desired, observed) =>
      desired === observed || machineAliases.get(desired)?.test(observed ?? '') === true,
  },
  cpuModel,
  clock,
  serial,
  display,
  guestAgent,
  random,
}

/** The names of the basics, in the order in which they are shown. */
export const basicNames = Object.keys(basicFields) as readonly (keyof Basics)[]

/** Reads a definition. Never fails: what is not as expected is null, or words that equal nothing that is desired. */
export function readDomain(domain: XmlElement): DomainModel {
  const basics = Object.fromEntries(
    basicNames.map((name) => [name, basicFields[name].read(domain)]),
  ) as unknown as Basics
  return {
    name: textOf(at(domain, 'name')),
    uuid: textOf(at(domain, 'uuid')),
    ...basics,
    disks: readDisks(domain),
    nics: readNics(domain),
    devices: readDevices(domain),
    origin: readOrigin(domain),
  }
}
