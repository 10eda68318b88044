// What a definition remembers of where it came from, in the metadata of a libvirt domain under a namespace of our own.

import { at, element, elementsOf, insert, remove, type XmlElement } from '../libvirt/xml.ts'

/** The namespace of our element; `.invalid` is kept free for names that shall never resolve (RFC 2606). */
export const originNamespace = 'https://garrison.invalid/vm/1'

/** Where a definition came from. */
export interface Origin {
  /** The template that it was made from, or null. */
  readonly template: { readonly name: string; readonly version: string; readonly base: string | null } | null
  /** The digest of what was desired of the definition when Garrison last wrote it. */
  readonly digest: string
  readonly tags: Readonly<Record<string, string>>
}

const isOurs =
  (outer: readonly XmlElement[]) =>
  ({ name, attributes }: XmlElement): boolean => {
    const [prefix, local] = name.includes(':') ? name.split(':') : ['', name]
    const declaration = prefix === '' ? 'xmlns' : `xmlns:${prefix}`
    const declaring = [attributes, ...outer.map((one) => one.attributes)].find((one) => one.has(declaration))
    return local === 'vm' && declaring?.get(declaration) === originNamespace
  }

const ours = (domain: XmlElement): readonly XmlElement[] => {
  const metadata = at(domain, 'metadata')
  return metadata === undefined ? [] : elementsOf(metadata).filter(isOurs([metadata, domain]))
}

/** What the definition remembers; null when Garrison did not write it. */
export function readOrigin(domain: XmlElement): Origin | null {
  const [found] = ours(domain)
  if (found === undefined) return null
  const { attributes } = found
  const template = attributes.get('template')
  return {
    template:
      template === undefined
        ? null
        : { name: template, version: attributes.get('version') ?? '', base: attributes.get('base') ?? null },
    digest: attributes.get('digest') ?? '',
    tags: Object.fromEntries(
      elementsOf(found).flatMap((one) => {
        const key = one.attributes.get('key')
        return key !== undefined && /(^|:)tag$/.test(one.name)
          ? [[key, one.attributes.get('value') ?? '']]
          : []
      }),
    ),
  }
}

/** Makes the definition remember where it came from, in place of what it remembered before. */
export function writeOrigin(domain: XmlElement, { template, digest, tags }: Origin): void {
  const metadata = at(domain, 'metadata') ?? element('metadata')
  if (at(domain, 'metadata') === undefined) insert(domain, metadata)
  for (const old of ours(domain)) remove(metadata, old)
  insert(
    metadata,
    element(
      'garrison:vm',
      {
        'xmlns:garrison': originNamespace,
        template: template?.name,
        version: template?.version,
        base: template?.base ?? undefined,
        digest,
      },
      Object.entries(tags).map(([key, value]) => element('garrison:tag', { key, value })),
    ),
  )
}
