// What the NICs of libvirt's VMs are attached to, as defined and as it runs (<interface>).

import type { DomainFacts } from '../host.ts'
import { at, elementsOf, parseXml, XmlError } from './xml.ts'

/** One NIC of one VM. */
export interface Attachment {
  readonly vm: string
  readonly uuid: string
  /** Whether this is how it runs now; false for what it is when it is next started. */
  readonly isLive: boolean
  /** Lower-case; null when libvirt has not given it one. */
  readonly mac: string | null
  /** libvirt's type: network, bridge, direct, user, … */
  readonly kind: string
  /** The network, bridge or interface, in libvirt's words. */
  readonly to: string
  /** The interface of the host that carries its frames (`vnet0`, `macvtap0`); null while there is none. */
  readonly tap: string | null
  /** What libvirt made the NIC of a network into when it was started: the bridge or interface. */
  readonly through: string | null
  readonly isIsolated: boolean
  /** The nwfilter that its frames pass. */
  readonly filter: string | null
}

function inDefinition({ name, uuid }: DomainFacts, xml: string, isLive: boolean): readonly Attachment[] {
  const { root } = parseXml(xml)
  return elementsOf(at(root, 'devices'), 'interface').map((nic) => {
    const kind = nic.attributes.get('type') ?? ''
    const source = at(nic, 'source')?.attributes
    const through = source?.get('bridge') ?? source?.get('dev') ?? null
    return {
      ...{ vm: name, uuid, isLive, kind, through },
      mac: at(nic, 'mac')?.attributes.get('address')?.toLowerCase() ?? null,
      to: source?.get('network') ?? through ?? '',
      tap: isLive ? (at(nic, 'target')?.attributes.get('dev') ?? null) : null,
      isIsolated: at(nic, 'port')?.attributes.get('isolated') === 'yes',
      filter: at(nic, 'filterref')?.attributes.get('filter') ?? null,
    }
  })
}

/** Every NIC of a VM, as it runs and as it is defined. Nothing of a definition that cannot be read: the VMs' part tells that. */
export const attachmentsOf = (domain: DomainFacts): readonly Attachment[] =>
  [
    [domain.xml, false],
    [domain.liveXml, true],
  ].flatMap(([xml, isLive]) => {
    if (typeof xml !== 'string') return []
    try {
      return inDefinition(domain, xml, isLive === true)
    } catch (error) {
      if (error instanceof XmlError) return []
      throw error
    }
  })
