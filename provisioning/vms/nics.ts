// The NICs of a libvirt domain definition (<interface>): read, made, changed.

import { at, element, elementsOf, insert, remove, type XmlElement } from '../libvirt/xml.ts'
import { nameInAlias, ownAlias } from './disks.ts'

/** What a NIC is attached to: a `network` of libvirt, a `bridge`, an interface (`macvtap`), or something else by libvirt's name. */
export interface NicSource {
  readonly kind: string
  readonly at: string
}

/** One NIC of a definition. */
export interface NicModel {
  /** The name that Garrison gave it; null for one that somebody else attached. */
  readonly name: string | null
  /** Lower-case; null when libvirt has not given it one yet. */
  readonly mac: string | null
  readonly source: NicSource
  readonly model: string
}

/** libvirt's type of a NIC, what it is called here, and the attribute of its source that says where it is. */
const kinds: readonly (readonly [type: string, kind: string, attribute: string])[] = [
  ['network', 'network', 'network'],
  ['bridge', 'bridge', 'bridge'],
  ['direct', 'macvtap', 'dev'],
]

/** The `<interface>` elements of a definition, in their order. */
export const nicElements = (domain: XmlElement): readonly XmlElement[] =>
  elementsOf(at(domain, 'devices'), 'interface')

/** The NICs of a definition, in their order. */
export const readNics = (domain: XmlElement): readonly NicModel[] =>
  nicElements(domain).map((nic) => {
    const type = nic.attributes.get('type') ?? ''
    const source = at(nic, 'source')?.attributes
    const [, kind, attribute] = kinds.find(([one]) => one === type) ?? [type, type, 'name']
    return {
      name: nameInAlias(nic, 'nic'),
      mac: at(nic, 'mac')?.attributes.get('address')?.toLowerCase() ?? null,
      source: { kind, at: source?.get(attribute) ?? '' },
      model: at(nic, 'model')?.attributes.get('type') ?? 'rtl8139',
    }
  })

const replace = (nic: XmlElement, made: XmlElement): void => {
  const old = at(nic, made.name)
  if (old !== undefined) remove(nic, old)
  insert(nic, made)
}

/** What can be changed of a NIC that is there. */
export const nicWriters: {
  readonly [Name in Exclude<keyof NicModel, 'name'>]: (nic: XmlElement, value: NicModel[Name]) => void
} = {
  mac(nic, value) {
    if (value !== null) replace(nic, element('mac', { address: value }))
  },
  source(nic, { kind, at: place }) {
    const [type, , attribute] = kinds.find(([, one]) => one === kind) ?? [kind, kind, 'name']
    nic.attributes.set('type', type)
    replace(nic, element('source', { [attribute]: place, ...(type === 'direct' && { mode: 'bridge' }) }))
  },
  model: (nic, value) => replace(nic, element('model', { type: value })),
}

/** A new `<interface>`. */
export function nicElement(nic: NicModel): XmlElement {
  const made = element('interface')
  nicWriters.mac(made, nic.mac)
  nicWriters.source(made, nic.source)
  nicWriters.model(made, nic.model)
  if (nic.name !== null) insert(made, element('alias', { name: `${ownAlias}nic-${nic.name}` }))
  return made
}
