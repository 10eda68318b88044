// Changes to domain XML that a document asks for, in a small part of XPath: names, [n], [@a='v'], [x/@a='v'], [x='v'].

import {
  at,
  element,
  elementsOf,
  insert,
  parseXml,
  remove,
  textOf,
  type XmlElement,
  XmlError,
} from '../libvirt/xml.ts'
import type { XmlPatch } from './schema.ts'

/** A condition in brackets: the nth of those that are left, or what an attribute or a text at the end of a way is. */
type Condition =
  | { readonly nth: number }
  | { readonly way: readonly string[]; readonly attribute: string | null; readonly value: string }

interface Step {
  readonly name: string
  readonly conditions: readonly Condition[]
}

interface Place {
  readonly steps: readonly Step[]
  readonly attribute: string | null
}

const word = '[A-Za-z_][\\w.:-]*'
const stepPattern = new RegExp(`/(${word})((?:\\[(?:[^\\]'"]|'[^']*'|"[^"]*")*\\])*)`, 'y')
const attributePattern = new RegExp(`/@(${word})$`, 'y')
const conditionPattern = new RegExp(
  `\\[(?:(\\d{1,4})|((?:${word}/)*)(?:@(${word})|(${word}))\\s*=\\s*(?:'([^']*)'|"([^"]*)"))\\]`,
  'y',
)

function conditionsOf(text: string): readonly Condition[] {
  const conditions: Condition[] = []
  conditionPattern.lastIndex = 0
  while (conditionPattern.lastIndex < text.length) {
    const found = conditionPattern.exec(text)
    if (found === null) throw new XmlError(`${text} is no condition that is known here`)
    const [, nth, before = '', attribute = null, last, single, double = ''] = found
    const way = [...before.split('/').filter((one) => one !== ''), ...(last === undefined ? [] : [last])]
    conditions.push(nth === undefined ? { way, attribute, value: single ?? double } : { nth: Number(nth) })
  }
  return conditions
}

/** Reads a path such as `/domain/devices/disk[target/@dev='vda']/driver/@queues`. */
function placeOf(path: string): Place {
  const steps: Step[] = []
  let end = 0
  for (;;) {
    stepPattern.lastIndex = end
    const [whole, name, conditions = ''] = stepPattern.exec(path) ?? []
    if (whole === undefined || name === undefined) break
    steps.push({ name, conditions: conditionsOf(conditions) })
    end += whole.length
  }
  attributePattern.lastIndex = end
  const [attributeText = '', attribute = null] = attributePattern.exec(path) ?? []
  if (end + attributeText.length !== path.length)
    throw new XmlError(`${path.slice(end, end + 40)} is no path that is known here`)
  return { steps, attribute }
}

const meets = (found: readonly XmlElement[], condition: Condition): readonly XmlElement[] => {
  if ('nth' in condition) return found.slice(condition.nth - 1, condition.nth)
  const { way, attribute, value } = condition
  return found.filter((one) => {
    const end = at(one, ...way)
    return (attribute === null ? textOf(end) : end?.attributes.get(attribute)) === value
  })
}

/** The elements that a path finds below a root. Where `make` is set, a plain name that finds none is made. */
function find(root: XmlElement, steps: readonly Step[], make: boolean): readonly XmlElement[] {
  const [first, ...rest] = steps
  if (first === undefined || first.name !== root.name) return []
  return rest.reduce<readonly XmlElement[]>(
    (parents, { name, conditions }) =>
      parents.flatMap((parent) => {
        const found = conditions.reduce(meets, elementsOf(parent, name) as readonly XmlElement[])
        if (found.length > 0 || !make || conditions.length > 0) return found
        const made = element(name)
        insert(parent, made)
        return [made]
      }),
    [root],
  )
}

/** Whether everything that one element says is said by the other too, which may say more: libvirt adds addresses and aliases. */
function says(have: XmlElement, wanted: XmlElement): boolean {
  if (have.name !== wanted.name) return false
  for (const [name, value] of wanted.attributes)
    if (!name.startsWith('xmlns') && have.attributes.get(name) !== value) return false
  const inner = elementsOf(wanted)
  if (inner.length === 0 && textOf(wanted) !== '' && textOf(wanted) !== textOf(have)) return false
  const left = elementsOf(have)
  return inner.every((one) => {
    const index = left.findIndex((other) => says(other, one))
    if (index !== -1) left.splice(index, 1)
    return index !== -1
  })
}

const clone = (one: XmlElement): XmlElement => structuredClone(one)

/**
 * Makes one change and tells whether anything was changed; the same again changes nothing. Throws an XmlError when the path or
 * the element cannot be read, or when the path finds nothing to set or add to.
 */
export function applyPatch(domain: XmlElement, patch: XmlPatch): boolean {
  const nothing = (path: string) => new XmlError(`${path} finds nothing`)
  if ('set' in patch) {
    const { steps, attribute } = placeOf(patch.set)
    const found = find(domain, steps, true)
    if (found.length === 0) throw nothing(patch.set)
    const unlike = found.filter(
      (one) => (attribute === null ? textOf(one) : one.attributes.get(attribute)) !== patch.value,
    )
    for (const one of unlike)
      if (attribute === null) one.children.splice(0, one.children.length, { kind: 'text', text: patch.value })
      else one.attributes.set(attribute, patch.value)
    return unlike.length > 0
  }
  if ('add' in patch) {
    const wanted = parseXml(patch.element).root
    const { steps } = placeOf(patch.add)
    const found = find(domain, steps, true)
    if (found.length === 0) throw nothing(patch.add)
    const lacking = found.filter((one) => !elementsOf(one).some((child) => says(child, wanted)))
    for (const one of lacking) insert(one, clone(wanted))
    return lacking.length > 0
  }
  const { steps, attribute } = placeOf(patch.remove)
  if (attribute !== null)
    return find(domain, steps, false).filter((one) => one.attributes.delete(attribute)).length > 0
  const parents = find(domain, steps.slice(0, -1), false)
  const found = new Set(find(domain, steps, false))
  return (
    parents
      .flatMap((parent) => elementsOf(parent).map((child) => ({ parent, child })))
      .filter(({ parent, child }) => {
        if (found.has(child)) remove(parent, child)
        return found.has(child)
      }).length > 0
  )
}
