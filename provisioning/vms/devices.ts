// Devices of the host that a libvirt domain definition hands to its guest (<hostdev>): read and made.

import { at, element, elementsOf, type XmlElement } from '../libvirt/xml.ts'
import { nameInAlias, ownAlias } from './disks.ts'

/** One device that is handed over. `at` is a PCI address (`0000:3b:00.0`), the UUID of an mdev, or words about another kind. */
export interface DeviceModel {
  /** The name that Garrison gave it; null for one that somebody else attached. */
  readonly name: string | null
  readonly kind: string
  readonly at: string
}

/** The `<hostdev>` elements of a definition, in their order. */
export const deviceElements = (domain: XmlElement): readonly XmlElement[] =>
  elementsOf(at(domain, 'devices'), 'hostdev')

const hex = (text: string | undefined, digits: number): string =>
  Number(text ?? '0')
    .toString(16)
    .padStart(digits, '0')

/** What else a source says, for people: the vendor and product of a USB device, the adapter of a SCSI one. */
const words = (source: XmlElement | undefined): string =>
  elementsOf(source)
    .flatMap(({ attributes }) => [...attributes.values()])
    .join(':')

/** The devices of a definition, in their order. */
export const readDevices = (domain: XmlElement): readonly DeviceModel[] =>
  deviceElements(domain).map((device) => {
    const kind = device.attributes.get('type') ?? device.attributes.get('mode') ?? ''
    const address = at(device, 'source', 'address')?.attributes
    const place =
      kind === 'pci'
        ? `${hex(address?.get('domain'), 4)}:${hex(address?.get('bus'), 2)}:${hex(address?.get('slot'), 2)}.${hex(address?.get('function'), 1)}`
        : (address?.get('uuid') ?? words(at(device, 'source')))
    return { name: nameInAlias(device, 'device'), kind, at: place }
  })

/** A new `<hostdev>` for a PCI device or an mdev. */
export function deviceElement({ name, kind, at: place }: DeviceModel): XmlElement {
  const [, domain, bus, slot, fn] = /^(.{4}):(.{2}):(.{2})\.(.)$/.exec(place) ?? []
  const address =
    kind === 'pci'
      ? { domain: `0x${domain}`, bus: `0x${bus}`, slot: `0x${slot}`, function: `0x${fn}` }
      : { uuid: place }
  return element(
    'hostdev',
    {
      mode: 'subsystem',
      type: kind,
      // libvirt unbinds a PCI device from its driver and gives it back afterwards.
      ...(kind === 'pci' ? { managed: 'yes' } : { model: 'vfio-pci' }),
    },
    [
      element('source', {}, [element('address', address)]),
      ...(name === null ? [] : [element('alias', { name: `${ownAlias}device-${name}` })]),
    ],
  )
}
