// Arguments of verbs: the command line and the JSON body of a request, both checked against the one table of verbs.

import { parseArgs } from 'node:util'
import { HostError } from '../../provisioning/problem.ts'
import {
  type Args,
  DOORS,
  type Door,
  type Field,
  isVerb,
  type Verb,
  type VerbName,
  verbNames,
  verbOf,
} from './verbs.ts'

/** Flags that every verb has. */
export const commonFlags: Readonly<Record<string, Field>> = {
  json: { kind: 'switch', brief: 'print JSON: one object, or one per line when it streams' },
  help: { kind: 'switch', brief: 'show what the verb does, with examples' },
  socket: {
    kind: 'path',
    placeholder: 'PATH',
    brief: 'ask this socket and no other',
    local: true,
  },
  host: {
    kind: 'text',
    placeholder: 'HOST',
    brief: 'ask it of this host of the fleet',
    local: true,
  },
}

/** A command line, taken apart. `verb` is null when none was given; `group` is then the word whose verbs help is wanted for. */
export interface CommandLine {
  readonly verb: VerbName | null
  readonly group: string | null
  readonly values: Readonly<Record<string, unknown>>
  readonly json: boolean
  readonly help: boolean
  readonly socket: string | undefined
  /** The host of the fleet that is asked instead of this one. */
  readonly host: string | undefined
}

/** The verb's fields, operands first, in the order of the table. */
export const fieldsOf = (verb: Verb): Readonly<Record<string, Field>> => ({ ...verb.operands, ...verb.flags })

const isMany = (field: Field | undefined): boolean => field !== undefined && 'many' in field

/** The names of the verbs under a word, or under several. */
export const verbsUnder = (group: string): readonly VerbName[] =>
  verbNames.filter((name) => name.startsWith(`${group} `) && !verbOf(name).hidden)

const invalid = (verb: string, message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

const edits = (a: string, b: string): number => {
  let row = [...Array(b.length + 1).keys()]
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min(
          (next[j - 1] ?? 0) + 1,
          (row[j] ?? 0) + 1,
          (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        ),
      )
    row = next
  }
  return row[b.length] ?? 0
}

/** `; did you mean X?` when one of the known words is at most a third of its letters away, or nothing. */
function hint(word: string, known: readonly string[], prefix = ''): string {
  const [best] = known
    .map((name) => ({ name, distance: edits(word, name) }))
    .filter(({ name, distance }) => distance <= Math.max(1, Math.ceil(name.length / 3)))
    .sort((a, b) => a.distance - b.distance)
  return best === undefined ? '' : `; did you mean ${prefix}${best.name}?`
}

/** The flags that may be meant: of the verb that the command line begins with, or of all where that may yet be another. */
function flagsMeant(argv: readonly string[]) {
  const flagAt = argv.findIndex((word) => word.startsWith('-'))
  const words = flagAt < 0 ? argv : argv.slice(0, flagAt)
  const first = [3, 2, 1].map((count) => words.slice(0, count).join(' ')).find(isVerb)
  const goesOn = first === undefined || verbNames.some((name) => name.startsWith(`${first} `))
  return (goesOn ? verbNames : [first]).map((name) => verbOf(name).flags)
}

/** Takes a command line apart. Throws `request.invalid`, which names the nearest known word. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  const fields = [...flagsMeant(argv), commonFlags].flatMap(Object.entries)
  const options = Object.fromEntries(
    fields.map(([name, field]: [string, Field]) => [
      name,
      { type: field.kind === 'switch' ? ('boolean' as const) : ('string' as const) },
    ]),
  )
  const { tokens } = parseArgs({
    args: [...argv],
    options: { ...options, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'V' } },
    strict: false,
    tokens: true,
  })
  const words = tokens.flatMap((token) => (token.kind === 'positional' ? token.value : []))
  const flags = tokens.flatMap((token) => (token.kind === 'option' ? token : []))
  const given = (name: string) => flags.some((flag) => flag.name === name)

  const [first, second] = words
  const name =
    first === undefined && given('version')
      ? 'version'
      : ([3, 2].map((count) => words.slice(0, count).join(' ')).find(isVerb) ?? first)
  if (name === undefined || (name === 'help' && second === undefined)) {
    const stray = flags.find((flag) => !(flag.name in commonFlags))
    if (stray) throw invalid('', `${stray.rawName} needs a verb before it`)
    return {
      verb: null,
      group: null,
      values: {},
      json: given('json'),
      help: true,
      socket: undefined,
      host: undefined,
    }
  }
  if (name === 'help') return parseCommandLine([...words.slice(1), '--help'])
  if (!isVerb(name)) {
    const group = words.join(' ')
    if (given('help') && verbsUnder(group).length > 0)
      return {
        verb: null,
        group,
        values: {},
        json: given('json'),
        help: true,
        socket: undefined,
        host: undefined,
      }
    throw unknownVerb(group)
  }

  const verb = verbOf(name)
  const known = { ...verb.flags, ...commonFlags }
  const values: Record<string, unknown> = {}
  for (const flag of flags) {
    if (flag.name === 'version' && first === undefined) continue
    const field = known[flag.name]
    if (field === undefined || flag.rawName === '-V')
      throw invalid(
        name,
        `${flag.rawName} is not a flag of ${name}${hint(flag.name, Object.keys(known), '--')}`,
      )
    if (field.kind === 'switch' && flag.value !== undefined)
      throw invalid(name, `${flag.rawName} takes no value`)
    if (field.kind !== 'switch' && flag.value === undefined)
      throw invalid(name, `${flag.rawName} needs a value: ${field.placeholder}`)
    if (isMany(field)) {
      values[flag.name] = [...((values[flag.name] ?? []) as readonly unknown[]), flag.value]
      continue
    }
    if (flag.name in values) throw invalid(name, `${flag.rawName} is given twice`)
    values[flag.name] = field.kind === 'switch' ? true : flag.value
  }
  const operands = Object.keys(verb.operands)
  const rest = words.slice(name.split(' ').length - (first === undefined ? 1 : 0))
  rest.forEach((word, at) => {
    const operand = operands[Math.min(at, operands.length - 1)]
    const many = operand !== undefined && isMany(verb.operands[operand])
    if (operand === undefined || (at >= operands.length && !many))
      throw invalid(name, `${name} takes no further word: ${word}`)
    values[operand] = many ? [...((values[operand] ?? []) as readonly unknown[]), word] : word
  })
  const { json, help, socket, host, ...own } = values
  if (typeof host === 'string' && !/^[a-z0-9][a-z0-9.-]{0,62}$/.test(host))
    throw invalid(name, `${host} is no name of a host of a fleet`)
  return {
    verb: name,
    group: null,
    values: own,
    json: json === true,
    help: help === true,
    socket: typeof socket === 'string' ? socket : undefined,
    host: typeof host === 'string' ? host : undefined,
  }
}

/** The error for a word that is no verb. */
export const unknownVerb = (words: string): HostError => {
  const typed = words.split(' ')
  // The longest part that leads to verbs: what follows it is what is wrong.
  const group = typed
    .map((_, at) => typed.slice(0, at + 1).join(' '))
    .findLast((name) => verbsUnder(name).length > 0)
  if (group !== undefined) {
    const next = verbsUnder(group).map((verb) => verb.slice(group.length + 1))
    const wrong = words.slice(group.length + 1)
    const message =
      wrong === ''
        ? `${group} needs a word after it: ${next.join(', ')}`
        : `${group} has no verb ${wrong}${hint(wrong, next, `${group} `)}`
    return new HostError('request.unknown-verb', message)
  }
  const known = verbNames.filter((name) => !verbOf(name).hidden)
  const [first = ''] = typed
  return new HostError('request.unknown-verb', `there is no verb ${first}${hint(first, known)}`)
}

/** The verb of a request path such as `/v1/drives/show`, or null. */
export function verbAt(path: string): VerbName | null {
  const [, version, ...words] = path.split('/')
  const name = words.join(' ')
  return version === 'v1' && isVerb(name) ? name : null
}

/** The request path of a verb. */
export const pathOf = (verb: VerbName): string => `/v1/${verb.replaceAll(' ', '/')}`

/** Checks values against the fields of a verb, whoever gave them. Throws `request.invalid`. */
export function checkedArgs<N extends VerbName>(name: N, values: unknown): Args<N> {
  if (values === null || typeof values !== 'object' || Array.isArray(values))
    throw invalid(name, 'the arguments of a verb are one JSON object')
  const fields = fieldsOf(verbOf(name))
  for (const key of Object.keys(values))
    if (!Object.hasOwn(fields, key))
      throw invalid(name, `${name} has no argument ${key}${hint(key, Object.keys(fields))}`)
  const checked = Object.entries(fields).map(([key, field]) => {
    const value: unknown = Object.hasOwn(values, key) ? values[key as keyof typeof values] : undefined
    return [key, checkedValue(name, key, field, value)]
  })
  return Object.fromEntries(checked) as Args<N>
}

function checkedValue(verb: string, key: string, field: Field, value: unknown): unknown {
  if (field.kind === 'switch') {
    if (value !== undefined && typeof value !== 'boolean')
      throw invalid(verb, `${key} of ${verb} is true or false`)
    return value ?? false
  }
  if (isMany(field)) {
    const values: unknown = value ?? []
    if (!Array.isArray(values)) throw invalid(verb, `${key} of ${verb} is a list`)
    if (values.length > 4096) throw invalid(verb, `${key} of ${verb} has more than 4096 entries`)
    if (values.length === 0 && field.required)
      throw invalid(verb, `${verb} needs ${field.placeholder}: ${field.brief}`)
    return values.map((one) => checkedText(verb, key, one))
  }
  if (value === undefined) {
    if (field.required) throw invalid(verb, `${verb} needs ${field.placeholder}: ${field.brief}`)
    return undefined
  }
  const text = checkedText(verb, key, value)
  if (field.kind === 'choice' && !field.choices.includes(text))
    throw invalid(
      verb,
      `${field.placeholder} of ${verb} is one of ${field.choices.join(', ')}, not ${text}${hint(text, field.choices)}`,
    )
  return text
}

function checkedText(verb: string, key: string, value: unknown): string {
  if (typeof value !== 'string' || value === '' || value.length > 4096 || /[\0\n]/.test(value))
    throw invalid(verb, `${key} of ${verb} is a text of one line and at most 4096 characters`)
  return value
}

/** The door that a verb with these arguments needs, and what makes it so. */
export function doorNeeded<N extends VerbName>(
  name: N,
  args: Args<N>,
): { readonly door: Door; readonly by: string } {
  const verb = verbOf(name)
  let needed: { door: Door; by: string } = { door: verb.door, by: name }
  for (const [key, field] of Object.entries(fieldsOf(verb))) {
    const value = args[key as keyof Args<N>]
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) continue
    const door =
      'local' in field ? 'local' : field.kind === 'choice' ? field.doors?.[String(value)] : field.door
    if (door === 'local' || (door && DOORS.indexOf(door) > DOORS.indexOf(needed.door)))
      needed = { door, by: field.kind === 'switch' ? `${name} --${key}` : `${name} --${key} ${value}` }
  }
  return needed
}
