// Reads what a person has written as YAML 1.2 (core schema) into values that know their place, and holds them against a schema.

import {
  type Document,
  isAlias,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type ParsedNode,
  parseDocument as parseYaml,
  type YAMLError,
} from 'yaml'
import { z } from 'zod'
import type { Sources } from './desired.ts'
import { HostError, type ProblemCode } from './problem.ts'

/** One file that a person wrote. `path` is how problems and sources name it; bytes are read as UTF-8, strictly. */
export interface DocumentFile {
  readonly path: string
  readonly text: string | Uint8Array
}

/** One thing wrong. `line` and `column` count from 1; `path` is dotted and empty when the place is not a value. */
export interface DocumentProblem {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly path: string
  readonly message: string
}

const mostBytes = 256 * 2 ** 10
const mostValues = 10_000
const mostDepth = 32
const mostProblems = 100

/** Where something was written; `line` and `column` count from 1. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

/** A value with where it was written; `key` is the place of the key before it. */
export type Written = { readonly at: Place; readonly key: Place } & (
  | { readonly kind: 'scalar'; readonly value: unknown; readonly source: string }
  | { readonly kind: 'list'; readonly items: readonly Written[] }
  | { readonly kind: 'map'; readonly entries: ReadonlyMap<string, Written> }
)

const syntaxWords: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'a tab stands where only spaces may: indent with spaces',
  MULTIPLE_DOCS: 'a second document begins here (---): write one document per file',
  RESOURCE_EXHAUSTION: 'it is nested too deeply to be read',
  BAD_ALIAS: 'this alias (*) names no anchor (&) before it',
  DUPLICATE_KEY: 'this key is written twice',
}

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)

/** Text of a file, or why it cannot be read as text. */
function decode(file: DocumentFile): string | DocumentProblem {
  const { path, text } = file
  const refused = (message: string, before = ''): DocumentProblem => ({
    file: path,
    line: before.split('\n').length,
    column: before.length - before.lastIndexOf('\n'),
    path: '',
    message,
  })
  if (text.length > mostBytes) return refused(`it is larger than ${mostBytes / 2 ** 10} KiB`)
  let decoded: string
  if (typeof text === 'string') decoded = text
  else {
    decoded = new TextDecoder('utf-8', { ignoreBOM: true }).decode(text)
    const strict = Buffer.from(decoded)
    const wrongAt = strict.equals(text) ? -1 : text.findIndex((byte, index) => byte !== strict[index])
    if (wrongAt !== -1)
      return refused('it is not UTF-8 here', new TextDecoder().decode(text.subarray(0, wrongAt)))
  }
  if (decoded.startsWith('\uFEFF'))
    return refused('it begins with a byte order mark: save it as UTF-8 without one')
  const control = /[\0-\x08\x0B\x0C\x0E-\x1F\x7F\x85\u2028\u2029]/.exec(decoded)
  if (control !== null)
    return refused(
      `the control character ${JSON.stringify(control[0])} may not be here`,
      decoded.slice(0, control.index),
    )
  return decoded
}

/** Turns one file into written values; what is wrong is added to `problems`. Null when the file says nothing. */
export function readWritten(file: DocumentFile, problems: DocumentProblem[]): Written | null {
  const text = decode(file)
  if (typeof text !== 'string') {
    problems.push(text)
    return null
  }
  const lines = new LineCounter()
  const place = (offset: number): Place => {
    const { line, col } = lines.linePos(offset)
    return { file: file.path, line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  const refuse = (offset: number, path: readonly string[], message: string): null => {
    problems.push({ ...place(offset), path: path.join('.'), message })
    return null
  }
  const document: Document.Parsed = parseYaml(text, {
    version: '1.2',
    schema: 'core',
    merge: false,
    // Keys are compared below: the parser's own comparison takes quadratic time.
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter: lines,
  })
  if (document.directives.yaml.explicit || document.directives.yaml.version !== '1.2')
    return refuse(0, [], '%YAML directives are not used here: leave the line out')
  const faults: readonly YAMLError[] = [...document.errors, ...document.warnings]
  for (const { code, message, pos } of faults.slice(0, 10))
    refuse(
      pos[0],
      [],
      code === 'TAG_RESOLVE_FAILED'
        ? 'tags (!…) are not used here'
        : (syntaxWords[code] ?? lowerFirst(message)),
    )
  if (faults.length > 0) return null

  let values = 0
  const read = (node: ParsedNode | null, path: readonly string[], key: Place | null): Written | null => {
    const offset = node?.range[0] ?? 0
    values += 1
    if (values > mostValues) {
      // Said once: every value of an alias bomb would say it again.
      return values === mostValues + 1
        ? refuse(offset, path, `there are more than ${mostValues} values`)
        : null
    }
    if (path.length > mostDepth) return refuse(offset, path.slice(0, 4), 'it is nested too deeply to be read')
    const at = { at: place(offset), key: key ?? place(offset) }
    if (node === null) return { ...at, kind: 'scalar', value: null, source: '' }
    if (!isAlias(node) && node.tag !== undefined) return refuse(offset, path, 'tags (!…) are not used here')
    if (isAlias(node)) {
      const target = node.resolve(document)
      return isNode(target)
        ? read(target as ParsedNode, path, at.key)
        : refuse(offset, path, syntaxWords.BAD_ALIAS ?? '')
    }
    if (isScalar(node)) return { ...at, kind: 'scalar', value: node.value, source: node.source ?? '' }
    if (isSeq(node)) {
      const items = node.items.map((item, index) => read(item as ParsedNode, [...path, String(index)], null))
      return { ...at, kind: 'list', items: items.filter((item) => item !== null) }
    }
    const entries = new Map<string, Written>()
    for (const { key: name, value } of node.items) {
      const nameOffset = name.range[0]
      if (!isScalar(name) || name.value === null) {
        refuse(nameOffset, path, 'a key must be a plain word')
        continue
      }
      const word = typeof name.value === 'string' ? name.value : (name.source ?? '')
      // The schema would leave it out without a word.
      if (word === '__proto__') refuse(nameOffset, [...path, word], 'this name may not be used')
      const first = entries.get(word)
      if (first !== undefined)
        refuse(nameOffset, [...path, word], `this key is written twice (first in line ${first.key.line})`)
      const written = read(value as ParsedNode | null, [...path, word], place(nameOffset))
      if (written !== null) entries.set(word, written)
    }
    return { ...at, kind: 'map', entries }
  }
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null))
    return null
  const root = read(document.contents, [], null)
  if (root !== null && root.kind !== 'map')
    return refuse(0, [], 'it must be a map of keys, such as "version: 1"')
  return root
}

/** Maps are merged key by key; of everything else the later one stands. */
export function merge(earlier: Written | null, later: Written | null): Written | null {
  if (earlier === null || later === null) return later ?? earlier
  if (earlier.kind !== 'map' || later.kind !== 'map') return later
  const entries = new Map(earlier.entries)
  for (const [word, value] of later.entries) {
    const merged = merge(entries.get(word) ?? null, value)
    if (merged !== null) entries.set(word, merged)
  }
  return { ...later, entries }
}

/** The values alone. Objects without a prototype, so that no key of a document means anything to JavaScript. */
export function plain(written: Written): unknown {
  if (written.kind === 'scalar') return written.value
  if (written.kind === 'list') return written.items.map(plain)
  const object: Record<string, unknown> = Object.create(null)
  for (const [word, value] of written.entries) object[word] = plain(value)
  return object
}

/** What is written below a key or an index of a value. */
export const child = (written: Written | undefined, step: PropertyKey): Written | undefined =>
  written?.kind === 'map'
    ? written.entries.get(String(step))
    : written?.kind === 'list'
      ? written.items[Number(step)]
      : undefined

/** Where each value was written, by dotted path. */
export function sourcesOf(root: Written): Sources {
  const sources: Record<string, string> = {}
  const visit = (written: Written, path: string): void => {
    if (path !== '') sources[path] = `${written.key.file}:${written.key.line}`
    const children =
      written.kind === 'map' ? written.entries : written.kind === 'list' ? written.items.entries() : []
    for (const [step, value] of children) visit(value, path === '' ? String(step) : `${path}.${step}`)
  }
  visit(root, '')
  return sources
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly additionalProperties?: SchemaNode | boolean
  readonly items?: SchemaNode
  readonly anyOf?: readonly SchemaNode[]
  readonly oneOf?: readonly SchemaNode[]
}

type Known = (path: readonly PropertyKey[]) => readonly string[]

const jsonSchemas = new WeakMap<z.ZodType, SchemaNode>()

/** Tells the keys that a schema lets be written at a place. Its JSON Schema is slow to make: once, and only when a key is wrong. */
const knownKeysOf =
  (schema: z.ZodType): Known =>
  (path) => {
    const node = jsonSchemas.get(schema) ?? (z.toJSONSchema(schema, { io: 'input' }) as SchemaNode)
    jsonSchemas.set(schema, node)
    return keysAt(node, path)
  }

function keysAt(root: SchemaNode, path: readonly PropertyKey[]): readonly string[] {
  let nodes = [root]
  const alternatives = (node: SchemaNode): readonly SchemaNode[] =>
    (node.anyOf ?? node.oneOf)?.flatMap(alternatives) ?? [node]
  for (const step of path)
    nodes = nodes.flatMap(alternatives).flatMap((node) => {
      const { additionalProperties } = node
      const next =
        typeof step === 'number'
          ? node.items
          : (node.properties?.[String(step)] ??
            (typeof additionalProperties === 'object' ? additionalProperties : undefined))
      return next ?? []
    })
  return [...new Set(nodes.flatMap(alternatives).flatMap((node) => Object.keys(node.properties ?? {})))]
}

/** Edit distance where swapping two neighbours counts as one edit. */
function distance(from: string, to: string): number {
  let [before, row] = [[] as number[], Array.from({ length: to.length + 1 }, (_, index) => index)]
  for (let i = 1; i <= from.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= to.length; j += 1) {
      const same = from[i - 1] === to[j - 1] ? 0 : 1
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]
      next.push(
        Math.min(
          (row[j] ?? 0) + 1,
          (next[j - 1] ?? 0) + 1,
          (row[j - 1] ?? 0) + same,
          swapped ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
        ),
      )
    }
    ;[before, row] = [row, next]
  }
  return row.at(-1) ?? 0
}

/** The keys that are known, nearest to `key` first, and whether the first is so near that it was meant. */
function nearestKeys(key: string, keys: readonly string[]) {
  const known = keys
    .map((one) => ({ one, edits: distance(key.slice(0, 60).toLowerCase(), one.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits)
  const [nearest] = known
  const meant =
    nearest && nearest.edits <= Math.max(2, Math.floor(nearest.one.length / 3)) ? nearest.one : undefined
  return { meant, known: known.map(({ one }) => one) }
}

/** A word that is none of those known, with the one that was meant, or all of them. `kind` says what it is: `key`, `template`. */
export function notKnown(kind: string, word: string, all: readonly string[]): string {
  const { meant, known } = nearestKeys(word, all)
  const short = JSON.stringify(word.length > 60 ? `${word.slice(0, 60)}…` : word)
  if (meant !== undefined) return `unknown ${kind} ${short}; did you mean ${meant}?`
  return `unknown ${kind} ${short}; known here: ${known.length === 0 ? 'none' : known.join(', ')}`
}

type Issue = z.core.$ZodIssue

const typeWords: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of keys',
  record: 'a map of names',
}

const listOf = (values: readonly unknown[], word: string): string =>
  values.length < 2 ? values.join('') : `${values.slice(0, -1).join(', ')} ${word} ${values.at(-1)}`

/** What a value would have to be, for an issue about the value itself: `a list`, `one of raid, mirror`. */
const wanted = (issue: Issue): string =>
  issue.code === 'invalid_type'
    ? (typeWords[issue.expected] ?? issue.expected)
    : issue.code === 'invalid_value'
      ? listOf(issue.values, 'or')
      : issue.message.replace(/^must be /, '')

/** What is written at a place, as a person would call it. */
function called(written: Written): string {
  if (written.kind === 'list') return 'a list'
  if (written.kind === 'map') return 'a map of keys'
  const { value, source } = written
  const short = source.length > 60 ? `${source.slice(0, 60)}…` : source
  if (value === null) return 'nothing'
  if (typeof value === 'string') return `the text ${JSON.stringify(short)}`
  return typeof value === 'number' ? `the number ${short}` : short
}

function sentence(issue: Issue, written: Written): string {
  const not = `, not ${called(written)}`
  switch (issue.code) {
    case 'invalid_type':
      if (issue.expected === 'object' && written.kind === 'scalar' && written.value === null)
        return 'it has no value: write {} to take every default'
      return `must be ${wanted(issue)}${not}`
    case 'invalid_value':
      return `must be ${wanted(issue)}${not}`
    case 'too_small':
      if (issue.origin === 'string') return 'must not be empty'
      if (issue.origin === 'array') return `must have at least ${issue.minimum} entries`
      return `must be ${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}${not}`
    case 'too_big':
      if (issue.origin === 'array') return `must have at most ${issue.maximum} entries`
      return `must be ${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}${not}`
    case 'invalid_union':
      return `must be ${listOf('options' in issue ? (issue.options ?? []) : [], 'or')}${not}`
    case 'invalid_format':
      return `${issue.message}${not}`
    default:
      return issue.message
  }
}

/** Whether a branch of a union fails because the value is of quite another kind. */
const isOtherKind = (branch: readonly Issue[]): boolean =>
  branch.some(({ code, path }) => path.length === 0 && (code === 'invalid_type' || code === 'invalid_value'))

/** The schema's issues as problems in the words of this document. */
function problemsOf(
  known: Known,
  root: Written,
  issues: readonly Issue[],
  base: readonly PropertyKey[] = [],
): readonly DocumentProblem[] {
  return issues.flatMap((issue): readonly DocumentProblem[] => {
    const path = [...base, ...issue.path]
    const written = path.reduce<Written | undefined>(child, root)
    const problem = (place: Place, message: string, at = path): DocumentProblem => ({
      file: place.file,
      line: place.line,
      column: place.column,
      path: at.join('.'),
      message,
    })
    const unknownProblem = (key: string, parent: Written): DocumentProblem =>
      problem(child(parent, key)?.key ?? parent.key, notKnown('key', key, known(path)), [...path, key])
    if (written === undefined) {
      const parent = path.slice(0, -1).reduce<Written | undefined>(child, root) ?? root
      return [problem(parent.key, 'must be given')]
    }
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownProblem(key, written))
    if (issue.code === 'invalid_key') {
      const reasons = issue.issues.map(({ message }) => message).join(', ')
      return [problem(written.key, `the name ${JSON.stringify(String(path.at(-1)))} ${reasons}`)]
    }
    if (issue.code === 'invalid_union' && issue.errors.length > 0) {
      const matching = issue.errors.filter((branch) => !isOtherKind(branch))
      const [only] = matching
      if (only === undefined) {
        const alternatives = [...new Set(issue.errors.flat().map(wanted))]
        return [problem(written.at, `must be ${listOf(alternatives, 'or')}, not ${called(written)}`)]
      }
      const fitting = matching.find((branch) =>
        branch.every(
          (one) =>
            one.code !== 'unrecognized_keys' &&
            one.path.reduce<Written | undefined>(child, written) !== undefined,
        ),
      )
      if (fitting !== undefined || matching.length === 1)
        return problemsOf(known, root, fitting ?? only, path)
      const unknown =
        written.kind === 'map' ? [...written.entries.keys()].filter((key) => !known(path).includes(key)) : []
      if (unknown.length > 0) return unknown.map((key) => unknownProblem(key, written))
      return [problem(written.at, `must have exactly one of ${listOf(known(path), 'and')}`)]
    }
    // A map, a list or nothing begins on a later line than its key, and the key is where one looks.
    const isText = written.kind === 'scalar' && written.value !== null
    return [problem(isText ? written.at : written.key, sentence(issue, written))]
  })
}

/** The same values with unknown keys called what was meant, or left out, so that the rest is judged too. */
function corrected(known: Known, root: Written, issues: readonly Issue[]): Written {
  const unknown = new Set(
    issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys' ? issue.keys.map((key) => JSON.stringify([...issue.path, key])) : [],
    ),
  )
  const correct = (written: Written, path: readonly string[]): Written => {
    if (written.kind !== 'map') return written
    const entries = new Map<string, Written>()
    for (const [word, value] of written.entries) {
      const wanted = unknown.has(JSON.stringify([...path, word]))
        ? nearestKeys(word, known(path)).meant
        : word
      if (wanted !== undefined && (wanted === word || !written.entries.has(wanted)))
        entries.set(wanted, correct(value, [...path, word]))
    }
    return { ...written, entries }
  }
  return correct(root, [])
}

const lineOf = ({ file, line, column, path, message }: DocumentProblem): string =>
  `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}${message}`

/** Each problem once, in the order of the lines. */
const inOrder = (problems: readonly DocumentProblem[]): readonly DocumentProblem[] =>
  [...new Map(problems.map((problem) => [lineOf(problem), problem])).values()].sort(
    (a, b) => a.line - b.line || a.column - b.column,
  )

/**
 * The problems as one error of that code, in the order of the files and of the lines in them; `details.problems` holds them, at
 * most a hundred.
 */
export function invalid(
  code: ProblemCode,
  problems: readonly DocumentProblem[],
  files: readonly DocumentFile[],
): HostError {
  const fileOf = ({ file }: DocumentProblem): number => files.findIndex(({ path }) => path === file)
  const told = inOrder(problems)
    .toSorted((a, b) => fileOf(a) - fileOf(b))
    .slice(0, mostProblems)
  return new HostError(code, told.map(lineOf).join('\n'), { details: { problems: told } })
}

/** What a schema says of what was written. */
export type Judged<T> =
  | { readonly value: T; readonly problems: null }
  | { readonly problems: readonly DocumentProblem[] }

/** The problems that a schema has with written values, in words about the places where they were written. */
function problemsWith(
  schema: z.ZodType,
  written: Written,
  issues: readonly Issue[],
  counts: (issue: Issue) => boolean = () => true,
): readonly DocumentProblem[] {
  const known = knownKeysOf(schema)
  const nearly = corrected(known, written, issues)
  const again = schema.safeParse(plain(nearly)).error?.issues ?? []
  const at = (root: Written, { path }: Issue) => path.reduce<Written | undefined>(child, root)
  // What the schema says of several values together, or misses, is only true once each key is what was meant.
  const certain = issues.filter(
    (issue) =>
      issue.code !== 'custom' && (at(written, issue) !== undefined || at(nearly, issue) === undefined),
  )
  return inOrder([
    ...problemsOf(known, written, certain.filter(counts)),
    ...problemsOf(known, nearly, again.filter(counts)),
  ])
}

/** Holds written values against a schema. */
export function judge<S extends z.ZodType>(schema: S, written: Written): Judged<z.output<S>> {
  const { data, error } = schema.safeParse(plain(written))
  if (error) return { problems: problemsWith(schema, written, error.issues) }
  return { value: data as z.output<S>, problems: null }
}

/** What is wrong with a part of what a schema wants: what is missing may be given elsewhere, but not within an entry of a list. */
export function partialProblems(schema: z.ZodType, written: Written): readonly DocumentProblem[] {
  const issues = schema.safeParse(plain(written)).error?.issues ?? []
  const isGiven = ({ path }: Issue): boolean =>
    path.some((step) => typeof step === 'number') ||
    path.reduce<Written | undefined>(child, written) !== undefined
  return problemsWith(schema, written, issues, isGiven)
}
