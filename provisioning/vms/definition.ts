// Definitions as they are read: the XML tree with what Garrison knows of it.

import { parseXml, printXml, sameXml, type XmlElement } from '../libvirt/xml.ts'
import { type DomainModel, readDomain } from './domain.ts'
import type { Objection } from './steps.ts'

/** A definition that was read. It is a value: whoever changes one changes a copy. */
export interface Definition {
  readonly root: XmlElement
  readonly model: DomainModel
}

/** So many definitions are kept: those of a large host, as defined and as running. */
const mostKept = 512

/** A host is looked at anew after every step, and most definitions are then what they were. The latest are last. */
const kept = new Map<string, Definition>()

/** Reads a definition; throws an XmlError. */
export function readDefinition(xml: string): Definition {
  const known = kept.get(xml)
  kept.delete(xml)
  const { root } = known ?? parseXml(xml)
  const definition = known ?? { root, model: readDomain(root) }
  kept.set(xml, definition)
  for (const oldest of kept.keys()) {
    if (kept.size <= mostKept) break
    kept.delete(oldest)
  }
  return definition
}

/** The definition as it is after it was written and read again, or an objection when that is not the same one. */
export function verified(root: XmlElement): Definition | Objection {
  const again = parseXml(printXml(root)).root
  const model = readDomain(again)
  return sameXml(root, again) && JSON.stringify(readDomain(root)) === JSON.stringify(model)
    ? { root: again, model }
    : {
        code: 'vm.xml-mismatch',
        message: 'the definition is another one after it was written and read again',
      }
}
