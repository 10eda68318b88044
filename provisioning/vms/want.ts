// The domain definition that a declared VM shall have, as XML: made from nothing, and then changed as the declaration asks.

import { at, element, elementsOf, insert, type XmlElement } from '../libvirt/xml.ts'
import { sizeBytes } from '../values.ts'
import { deviceElement } from './devices.ts'
import { type DiskModel, diskElement, freeTarget } from './disks.ts'
import { type Basics, basicFields, basicNames, type DomainModel } from './domain.ts'
import { diskPath, newMac, seedDisk, seedPath } from './names.ts'
import { type NicModel, nicElement } from './nics.ts'
import { applyPatch } from './patch.ts'
import type { DesiredVms, Machine, MachineDisk, MachineNic } from './schema.ts'

/** What a definition takes from where it is made. */
export interface Site {
  readonly vms: DesiredVms
  readonly uuid: string
  /** As `uname --machine` says it: `x86_64`, `aarch64`. */
  readonly architecture: string
  /** What is defined already: names and addresses that libvirt or an earlier definition gave are kept. */
  readonly known: DomainModel | null
}

/** Disks on the SCSI bus hang on virtio-scsi: libvirt would choose an adapter that most guests have no driver for. */
export function ensureScsi(domain: XmlElement): void {
  const devices = at(domain, 'devices')
  if (devices === undefined) return
  const isScsi = elementsOf(devices, 'disk').some(
    (disk) => at(disk, 'target')?.attributes.get('bus') === 'scsi',
  )
  const has = elementsOf(devices, 'controller').some(({ attributes }) => attributes.get('type') === 'scsi')
  if (isScsi && !has)
    insert(devices, element('controller', { type: 'scsi', index: '0', model: 'virtio-scsi' }))
}

const basicsOf = (machine: Machine, { architecture }: Site): Basics => ({
  type: machine.accelerator === 'kvm' ? 'kvm' : 'qemu',
  memoryBytes: Math.ceil(sizeBytes(machine.memory) / 1024) * 1024,
  cpus: machine.cpus,
  firmware: machine.firmware,
  architecture,
  machine: machine.machine ?? (architecture === 'aarch64' ? 'virt' : 'q35'),
  cpuModel: machine.cpuModel ?? (machine.accelerator === 'kvm' ? 'host-passthrough' : 'maximum'),
  clock: machine.clock,
  serial: machine.console.serial,
  display: machine.console.display,
  guestAgent: true,
  random: true,
})

function diskOf(name: string, disk: MachineDisk, path: string | null, boot: number | null, site: Site) {
  // QEMU's virt machine has no SATA of its own.
  const drive = site.architecture === 'aarch64' ? 'scsi' : 'sata'
  const bus = disk.bus ?? (disk.device === 'cdrom' ? drive : 'virtio')
  const isDirect = disk.cache === 'none' || disk.cache === 'directsync'
  return {
    name,
    target: '',
    device: disk.device,
    bus,
    source: path === null ? null : { kind: path.startsWith('/dev/') ? 'block' : 'file', at: path },
    format: disk.format,
    cache: disk.cache,
    io: disk.io ?? (isDirect ? 'native' : 'threads'),
    discard: disk.discard,
    readOnly: disk.readOnly || disk.device === 'cdrom',
    serial: name,
    boot,
  } satisfies DiskModel
}

/**
 * The drive that the seed is read from. It is on the bus of the first disk, for which the guest has a driver: the kernels of cloud
 * images may have none for SATA (Debian's linux-image-cloud has CONFIG_SATA_AHCI unset). One that is defined stays where it is.
 */
function seedOn(disks: readonly DiskModel[], { known }: Site): MachineDisk {
  const bus = known?.disks.find(({ name }) => name === seedDisk)?.bus ?? disks[0]?.bus
  const place =
    bus === 'sata' || bus === 'scsi'
      ? ({ bus, device: 'cdrom' } as const)
      : ({ bus: 'virtio', device: 'disk' } as const)
  return { ...place, format: 'raw', cache: 'writeback', discard: 'ignore', readOnly: true }
}

/** The disks with their names on the bus: those that are defined keep theirs. */
function disksOf(name: string, machine: Machine, site: Site): readonly DiskModel[] {
  const declared = Object.entries(machine.disks)
  const hasTurn = declared.some(([, { boot }]) => boot !== undefined)
  const disks = declared.map(([part, disk], index) =>
    diskOf(
      part,
      disk,
      diskPath(site.vms, name, machine, part),
      disk.boot ?? (!hasTurn && index === 0 ? 1 : null),
      site,
    ),
  )
  const seedAt = seedPath(site.vms, name, machine)
  const all = seedAt === null ? disks : [...disks, diskOf(seedDisk, seedOn(disks, site), seedAt, null, site)]
  const known = (disk: DiskModel): string | undefined =>
    site.known?.disks.find((one) => one.name === disk.name && one.bus === disk.bus)?.target
  const taken = new Set(site.known?.disks.map(({ target }) => target))
  return all.map((disk) => {
    const target = known(disk) ?? freeTarget(disk.bus, taken)
    taken.add(target)
    return { ...disk, target }
  })
}

const nicOf = (name: string, nic: MachineNic, { uuid, known }: Site): NicModel => ({
  name,
  mac: nic.mac ?? known?.nics.find((one) => one.name === name)?.mac ?? newMac(uuid, name),
  source:
    nic.bridge !== undefined
      ? { kind: 'bridge', at: nic.bridge }
      : nic.macvtap !== undefined
        ? { kind: 'macvtap', at: nic.macvtap }
        : { kind: 'network', at: nic.network ?? 'default' },
  model: nic.model,
})

/**
 * The definition of a declared VM, with every change that it asks for. Throws an XmlError when a change cannot be read or made, or
 * a value cannot be written in XML.
 */
export function wantedDomain(name: string, machine: Machine, site: Site): XmlElement {
  const basics = basicsOf(machine, site)
  const devices = element('devices')
  const domain = element('domain', { type: basics.type }, [
    element('name', {}, [name]),
    element('uuid', {}, [site.uuid]),
    element('memory'),
    element('vcpu'),
    element('os', {}, [element('type', {}, ['hvm'])]),
    element('features', {}, [element('acpi'), ...(site.architecture === 'x86_64' ? [element('apic')] : [])]),
    element('cpu'),
    element('clock'),
    element('on_poweroff', {}, ['destroy']),
    element('on_reboot', {}, ['restart']),
    // What has crashed is off, and started again as whatever else is off and should run.
    element('on_crash', {}, ['destroy']),
    devices,
  ])
  for (const field of basicNames) {
    const { write } = basicFields[field] as { write(domain: XmlElement, value: unknown): void }
    if (basics[field] !== null) write(domain, basics[field])
  }
  for (const disk of disksOf(name, machine, site)) insert(devices, diskElement(disk))
  ensureScsi(domain)
  for (const [part, nic] of Object.entries(machine.nics)) insert(devices, nicElement(nicOf(part, nic, site)))
  for (const [part, device] of Object.entries(machine.devices))
    insert(
      devices,
      deviceElement({
        name: part,
        ...('pci' in device ? { kind: 'pci', at: device.pci } : { kind: 'mdev', at: device.mdev }),
      }),
    )
  for (const patch of machine.xml) applyPatch(domain, patch)
  return domain
}
