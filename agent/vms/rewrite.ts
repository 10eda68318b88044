// A definition changed for the next start of a VM: read with its passwords, changed, and defined anew.

import { parseXml, printXml, type XmlElement, XmlError } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'

/** A VM as calls take it. */
export interface Dom {
  readonly name: string
  readonly uuid: string
}

/** The definition for the next start, whole. It holds passwords: it is shown to nobody and written nowhere but into libvirt. */
export async function secretDefinition(libvirt: Connection, dom: Dom): Promise<XmlElement> {
  const xml = await libvirt.domainGetXMLDesc({
    dom,
    flags: VIR.DOMAIN_XML_INACTIVE | VIR.DOMAIN_XML_SECURE,
  })
  try {
    return parseXml(xml).root
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause
    throw new HostError(
      'host.unexpected-answer',
      `the definition of ${dom.name} is not XML that is read here`,
      {
        cause,
      },
    )
  }
}

/** Changes the definition for the next start. Throws `libvirt.refused` when libvirt does not take it. */
export async function rewrite(
  libvirt: Connection,
  dom: Dom,
  change: (domain: XmlElement) => void,
): Promise<void> {
  const domain = await secretDefinition(libvirt, dom)
  change(domain)
  await libvirt.domainDefineXMLFlags({ xml: printXml(domain), flags: VIR.DOMAIN_DEFINE_VALIDATE })
}
