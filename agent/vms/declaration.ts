// A VM as a person would declare it: from words of a command line, from what another host exported, or from its definition.

import { isScalar, isMap as isYamlMap, parse, parseDocument, stringify, YAMLParseError } from 'yaml'
import { HostError } from '../../provisioning/problem.ts'

/** What stands below `vms.machines.NAME` in a document. */
export type Declaration = { [key: string]: unknown }

const isMap = (value: unknown): value is Declaration =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** `KEY=VALUE`: a dotted key and a value as YAML has it. Throws `request.invalid`. */
function assignment(word: string, flag: string, verb: string): readonly [readonly string[], unknown] {
  const invalid = (why: string) =>
    new HostError('request.invalid', `--${flag} ${word}: ${why}`, { details: { verb } })
  const at = word.indexOf('=')
  if (at < 1) throw invalid('it must be KEY=VALUE')
  const keys = word.slice(0, at).split('.')
  if (!keys.every((key) => /^[A-Za-z0-9][\w-]*$/.test(key)))
    throw invalid('a key is words of letters, digits, _ and -, with a dot between them')
  try {
    return [keys, parse(word.slice(at + 1), { schema: 'core', uniqueKeys: true })]
  } catch (error) {
    if (error instanceof YAMLParseError)
      throw invalid(`its value is no YAML: ${error.message.split('\n')[0]}`)
    throw error
  }
}

/** Sets what words say, in their order, each below the maps that its key names. Throws `request.invalid`. */
export function withWords(
  declaration: Declaration,
  words: readonly string[],
  flag: string,
  verb: string,
): Declaration {
  const whole = structuredClone(declaration)
  for (const word of words) {
    const [keys, value] = assignment(word, flag, verb)
    const last = keys.at(-1) ?? ''
    let below = whole
    for (const key of keys.slice(0, -1)) {
      const next = Object.hasOwn(below, key) ? below[key] : {}
      if (!isMap(next))
        throw new HostError('request.invalid', `--${flag} ${word}: ${key} is no map`, { details: { verb } })
      below[key] = next
      below = next
    }
    below[last] = value
  }
  return whole
}

/** Where a declared VM is in the folder of the document. */
export const dropInOf = (name: string): string => `host.d/vm-${name}.yaml`

/** A document that declares one VM. `heading` says where it came from, in a line. */
export const documentText = (name: string, declaration: Declaration, heading: string): string =>
  `# ${heading.replace(/[\r\n]+/g, ' ')}\n${stringify({ vms: { machines: { [name]: declaration } } }, { lineWidth: 100 })}`

/** The text of a file of a document with some values set; all else in it, comments too, stays as it is. */
export function withValues(
  text: string,
  sets: readonly { readonly path: readonly string[]; readonly value: unknown }[],
): string {
  const document = parseDocument(text)
  for (const { path, value } of sets) document.setIn(path, value)
  return document.toString({ lineWidth: 100 })
}

/**
 * What a file of a document accepts of the drift of one VM, by path, and its text without that; null when nothing else is in it. `only`:
 * the paths that are meant; all of the VM's when left out.
 */
export function withoutAccepted(
  text: string,
  name: string,
  only?: readonly string[],
): { readonly paths: readonly string[]; readonly text: string | null } {
  const document = parseDocument(text)
  const accepted = document.getIn(['vms', 'accepted'])
  const keys = isYamlMap(accepted)
    ? accepted.items.map(({ key }) => String(isScalar(key) ? key.value : key))
    : []
  const paths = keys.filter((key) => key.startsWith(`vms.machines.${name}.`) && (only?.includes(key) ?? true))
  for (const path of paths) document.deleteIn(['vms', 'accepted', path])
  if (paths.length > 0)
    for (const above of [['vms', 'accepted'], ['vms']]) {
      const left = document.getIn(above)
      if (isYamlMap(left) && left.items.length === 0) document.deleteIn(above)
    }
  const isEmpty = isYamlMap(document.contents) && document.contents.items.length === 0
  return { paths, text: isEmpty ? null : document.toString({ lineWidth: 100 }) }
}
