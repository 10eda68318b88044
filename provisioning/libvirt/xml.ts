// XML as a tree that loses nothing: text to tree and back, by fast-xml-parser. What the library is lax about is refused here.
//
// INVARIANTS
// - What is read is exactly what XML 1.0 says of the text, or it is refused: no DTD, so no entities but the five and characters.
// - White space is content: it is kept wherever it is, and nothing is indented here but what `indented` makes anew.
// - printXml(parseXml(text)) has the same canonical form (C14N with comments) as the text.

import { createHash } from 'node:crypto'
import { XMLBuilder, XMLParser, XMLValidator } from 'fast-xml-parser'

/** Text between elements, after references were resolved. `cdata` remembers how it was written. */
export interface XmlText {
  readonly kind: 'text' | 'cdata' | 'comment'
  readonly text: string
}

/** An element. Names are as written, prefix and all; declarations of namespaces are attributes like others, in their order. */
export interface XmlElement {
  readonly kind: 'element'
  readonly name: string
  readonly attributes: Map<string, string>
  readonly children: XmlNode[]
}

/** A node of the tree. */
export type XmlNode = XmlText | XmlElement

/** A document: its root, and comments before and after it. The declaration (`<?xml …?>`) says nothing that a string does not. */
export interface XmlDocument {
  readonly before: readonly XmlText[]
  readonly root: XmlElement
  readonly after: readonly XmlText[]
}

/** Why a text is not XML that is read here, or a tree cannot be written as XML. */
export class XmlError extends Error {
  override readonly name = 'XmlError'
}

/** The longest text that is read, in characters; libvirt itself carries no more than 4 MiB in a string. */
const mostCharacters = 4 * 2 ** 20
const mostDepth = 64

/** What may not be in XML 1.0 at all, not even as a reference: control characters, lone surrogates, two non-characters. */
const forbidden = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u

const startCharacters =
  ':A-Z_a-z\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{2ff}\u{370}-\u{37d}\u{37f}-\u{1fff}\u{200c}\u{200d}\u{2070}-\u{218f}\u{2c00}-\u{2fef}\u{3001}-\u{d7ff}\u{f900}-\u{fdcf}\u{fdf0}-\u{fffd}\u{10000}-\u{effff}'
const namePattern = new RegExp(
  `^[${startCharacters}][${startCharacters}.0-9\u{b7}\u{300}-\u{36f}\u{203f}\u{2040}-]*$`,
  'u',
)

const short = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)

const refuse = (message: string): never => {
  throw new XmlError(message)
}

const named = (name: string): string =>
  namePattern.test(name) ? name : refuse(`${short(name)} is no name of an element or attribute`)

const predefined: ReadonlyMap<string, string> = new Map(
  Object.entries({ lt: '<', gt: '>', amp: '&', apos: "'", quot: '"' }),
)

/** The text with its references resolved. */
const resolved = (text: string): string =>
  text.includes('&')
    ? text.replace(/&([^;&]{0,12};?)/g, (whole, inside: string) => {
        const [, decimal, hexadecimal] = /^#(?:([0-9]+)|x([0-9A-Fa-f]+));$/.exec(inside) ?? []
        const code = decimal === undefined ? Number.parseInt(hexadecimal ?? '', 16) : Number(decimal)
        const character = Number.isNaN(code)
          ? predefined.get(inside.replace(/;$/, ''))
          : code <= 0x10ffff
            ? String.fromCodePoint(code)
            : undefined
        return character === undefined || !inside.endsWith(';') || forbidden.test(character)
          ? refuse(`${short(whole)} stands for nothing`)
          : character
      })
    : text

/** What fast-xml-parser makes of a text with `preserveOrder`: one key, the name; and the attributes under `:@`. */
type Ordered = { readonly [name: string]: unknown }

const textKey = '#text'
const cdataKey = '#cdata'
const commentKey = '#comment'
const prefix = '@'

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: prefix,
  textNodeName: textKey,
  cdataPropName: cdataKey,
  commentPropName: commentKey,
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  processEntities: false,
  maxNestedTags: mostDepth,
  // Names that mean something to JavaScript mean nothing here: what is made of the answer is a Map.
  onDangerousProperty: (name) => name,
})

const innerText = (value: unknown): string =>
  ((value as readonly Ordered[])[0]?.[textKey] as string | undefined) ?? ''

function nodeOf(ordered: Ordered): XmlNode | null {
  const [name = ''] = Object.keys(ordered).filter((key) => key !== ':@')
  const value = ordered[name]
  if (name === textKey) {
    const text = value as string
    if (text.includes(']]>')) refuse(']]> may not be in text')
    return text === '' ? null : { kind: 'text', text: resolved(text) }
  }
  if (name === cdataKey) return { kind: 'cdata', text: innerText(value) }
  if (name === commentKey) {
    const text = innerText(value)
    if (text.includes('--') || text.endsWith('-')) refuse('-- may not be in a comment')
    return { kind: 'comment', text }
  }
  if (name === '?xml') return null
  const written = (ordered[':@'] ?? {}) as Readonly<Record<string, string>>
  const attributes = new Map(
    Object.entries(written).map(([key, text]) => {
      if (text.includes('<')) refuse('< may not be in an attribute')
      // As XML has it, white space that is written as itself is a blank (3.3.3).
      return [named(key.slice(prefix.length)), resolved(text.replace(/[\t\n]/g, ' '))] as const
    }),
  )
  return { kind: 'element', name: named(name), attributes, children: nodesOf(value as readonly Ordered[]) }
}

/** Nodes with neighbouring texts made one, as they are in XML. */
function nodesOf(ordered: readonly Ordered[]): XmlNode[] {
  const nodes: XmlNode[] = []
  for (const one of ordered) {
    const node = nodeOf(one)
    if (node !== null) push(nodes, node)
  }
  return nodes
}

function push(nodes: XmlNode[], node: XmlNode): void {
  const last = nodes.at(-1)
  if (node.kind === 'text' && last?.kind === 'text')
    nodes[nodes.length - 1] = { kind: 'text', text: last.text + node.text }
  else nodes.push(node)
}

/** Where the markup of a document is, told apart from what only looks like it, in one pass. */
function checkMarkup(text: string): void {
  for (let at = text.indexOf('<'); at !== -1; at = text.indexOf('<', at + 1)) {
    const skip = (opening: string, closing: string): boolean => {
      if (!text.startsWith(opening, at)) return false
      const end = text.indexOf(closing, at + opening.length)
      if (end === -1) refuse(`${opening} is never ended`)
      at = end
      return true
    }
    if (skip('<!--', '-->') || skip('<![CDATA[', ']]>')) continue
    if (text.startsWith('<!', at)) refuse('a document type (<!DOCTYPE) is not read')
    if (text.startsWith('<?', at) && (at !== 0 || !/^<\?xml\s[^<>?]*\?>/.test(text)))
      refuse('instructions (<?…?>) are not read')
  }
}

/** Reads a whole document. Throws an XmlError for what is not well-formed, too long or too deep, or has a DTD or instructions. */
export function parseXml(text: string): XmlDocument {
  if (text.length > mostCharacters) refuse('it is longer than 4 MiB')
  const [character] = forbidden.exec(text) ?? []
  if (character !== undefined) refuse(`the character ${JSON.stringify(character)} may not be in XML`)
  checkMarkup(text)
  // The parser keeps text only when markup follows.
  if (/\S/.test(text.slice(text.lastIndexOf('>') + 1))) refuse('there is text outside of the root element')
  const validity = XMLValidator.validate(text)
  if (validity !== true) refuse(`line ${validity.err.line}: ${validity.err.msg}`)
  let nodes: XmlNode[]
  try {
    nodes = nodesOf(parser.parse(text) as readonly Ordered[])
  } catch (cause) {
    if (cause instanceof XmlError) throw cause
    throw new XmlError(cause instanceof Error ? cause.message : String(cause), { cause })
  }
  const roots = nodes.filter((node) => node.kind === 'element')
  const [root] = roots
  if (root === undefined || roots.length !== 1) return refuse('it must have exactly one root element')
  const around = (part: readonly XmlNode[]): readonly XmlText[] =>
    part.flatMap((node) => {
      if (node.kind === 'comment') return node
      return node.kind === 'text' && /^\s*$/.test(node.text)
        ? []
        : refuse('there is text outside of the root element')
    })
  const at = nodes.indexOf(root)
  return { before: around(nodes.slice(0, at)), root, after: around(nodes.slice(at + 1)) }
}

const builder = new XMLBuilder({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: prefix,
  textNodeName: textKey,
  cdataPropName: cdataKey,
  commentPropName: commentKey,
  processEntities: false,
  suppressEmptyNode: true,
  suppressBooleanAttributes: false,
  maxNestedTags: mostDepth + 2,
})

const references: Readonly<Record<string, string>> = {
  '<': '&lt;',
  '>': '&gt;',
  '&': '&amp;',
  '"': '&quot;',
  "'": '&apos;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
}

const written = (text: string, special: RegExp): string => {
  const [character] = forbidden.exec(text) ?? []
  if (character !== undefined) refuse(`the character ${JSON.stringify(character)} may not be in XML`)
  return text.replace(special, (one) => references[one] ?? one)
}

function ordered(node: XmlNode): Ordered {
  if (node.kind === 'element') {
    const attributes = Object.fromEntries(
      [...node.attributes].map(([name, value]) => [prefix + named(name), written(value, /[<>&"'\t\n\r]/g)]),
    )
    return {
      [named(node.name)]: node.children.map(ordered),
      ...(node.attributes.size > 0 && { ':@': attributes }),
    }
  }
  if (node.kind === 'cdata') {
    written(node.text, /$^/)
    // A CDATA section cannot hold its own end, nor a carriage return.
    return /\]\]>|\r/.test(node.text)
      ? { [textKey]: written(node.text, /[<>&\r]/g) }
      : { [cdataKey]: [{ [textKey]: node.text }] }
  }
  if (node.kind === 'comment') {
    written(node.text, /$^/)
    if (/--|-$|\r/.test(node.text)) refuse('-- may not be in a comment')
    return { [commentKey]: [{ [textKey]: node.text }] }
  }
  return { [textKey]: written(node.text, /[<>&\r]/g) }
}

/** Writes an element as text. Throws an XmlError for what XML cannot hold: control characters, names that are none. */
export const printXml = (root: XmlElement): string => builder.build([ordered(root)])

/** A new element. Attributes that are undefined are left out; a child that is text becomes a text node. */
export const element = (
  name: string,
  attributes: Readonly<Record<string, string | undefined>> = {},
  children: readonly (XmlNode | string)[] = [],
): XmlElement => ({
  kind: 'element',
  name,
  attributes: new Map(
    Object.entries(attributes).filter((one): one is [string, string] => one[1] !== undefined),
  ),
  children: children.map((child) => (typeof child === 'string' ? { kind: 'text', text: child } : child)),
})

/** The elements right below this one, all or those of a name. */
export const elementsOf = (parent: XmlElement | undefined, name?: string): XmlElement[] =>
  parent?.children.filter(
    (child): child is XmlElement => child.kind === 'element' && (name === undefined || child.name === name),
  ) ?? []

/** The first element of a name on a way down: `at(domain, 'os', 'type')`. */
export const at = (from: XmlElement | undefined, ...way: readonly string[]): XmlElement | undefined =>
  way.reduce((parent, name) => elementsOf(parent, name)[0], from)

/** The text right below an element, without the white space at its ends; null when there is no element. */
export const textOf = (from: XmlElement | undefined): string | null =>
  from === undefined
    ? null
    : from.children
        .flatMap((child) => (child.kind === 'text' || child.kind === 'cdata' ? child.text : []))
        .join('')
        .trim()

/** Whether two trees say the same: how text was written (CDATA) and the order of attributes are of no matter. */
export function sameXml(one: XmlElement, other: XmlElement): boolean {
  if (one.name !== other.name || one.attributes.size !== other.attributes.size) return false
  for (const [name, value] of one.attributes) if (other.attributes.get(name) !== value) return false
  const [mine, theirs] = [one, other].map(({ children }) => {
    const nodes: XmlNode[] = []
    for (const child of children)
      push(nodes, child.kind === 'cdata' ? { kind: 'text', text: child.text } : child)
    return nodes.filter((child) => child.kind === 'element' || child.text !== '' || child.kind === 'comment')
  }) as [XmlNode[], XmlNode[]]
  return (
    mine.length === theirs.length &&
    mine.every((child, index) => {
      const against = theirs[index] as XmlNode
      if (child.kind === 'element') return against.kind === 'element' && sameXml(child, against)
      return against.kind === child.kind && against.text === child.text
    })
  )
}

/** Puts an element below another, after its last child of the same name or else last, indented as its neighbours are. */
export function insert(parent: XmlElement, child: XmlElement): void {
  const { children } = parent
  const same = children.findLastIndex((one) => one.kind === 'element' && one.name === child.name)
  const last = same === -1 ? children.findLastIndex((one) => one.kind === 'element') : same
  const before = children[last - 1]
  const blank = before?.kind === 'text' && /^\s*$/.test(before.text) ? [before] : []
  children.splice(last + 1, 0, ...blank, child)
}

/** Takes an element out, and the white space before it. */
export function remove(parent: XmlElement, child: XmlElement): void {
  const index = parent.children.indexOf(child)
  if (index === -1) return
  const before = parent.children[index - 1]
  const blank = before?.kind === 'text' && /^\s*$/.test(before.text)
  parent.children.splice(blank ? index - 1 : index, blank ? 2 : 1)
}

/** What tells one definition from another: the SHA-256 of its text, in hexadecimal digits. */
export const xmlDigest = (text: string): string => createHash('sha256').update(text).digest('hex')
