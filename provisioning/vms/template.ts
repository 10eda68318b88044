// Templates of VMs: what a file of one may say, and how a declaration that names one is made whole from it.
//
// INVARIANTS
// - A parameter is a whole value or nothing: no text is ever put together from parts, so nothing can break out of its place.
// - Every value keeps the place where a person wrote it, in whichever file, so that each mistake is told there.

import { stringify } from 'yaml'
import { z } from 'zod'
import { size, sizeBytes } from '../values.ts'
import {
  child,
  type DocumentFile,
  type DocumentProblem,
  type Judged,
  judge,
  merge,
  notKnown,
  type Place,
  partialProblems,
  readWritten,
  type Written,
} from '../written.ts'

/** The name of a template, as a schema. */
export const templateName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a lower-case letter, then at most 62 letters, digits or -')

/** A semantic version without pre-release and build parts: a template is released or it is not. */
const version = z
  .string()
  .regex(/^(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}$/, 'must be a version such as 1.4.0')

const parameterName = z
  .string()
  .regex(/^[a-z][A-Za-z0-9]{0,30}$/, 'must be a lower-case letter, then at most 30 letters or digits')

const described = {
  description: z.string().min(1).describe('What it decides, for whoever chooses its value.'),
}

/** A default, or an example of what must be given; the example is what `template check` tries the template with. */
const given = <T extends z.ZodType>(value: T) => ({
  default: value.optional().describe('Its value where none is given. Give default or example.'),
  example: value.optional().describe('What a value looks like that must be given. Give default or example.'),
})

const parameterSchema = z
  .discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('string'),
      ...described,
      ...given(z.string()),
      minLength: z.int().min(0).max(65_536).default(0).describe('The fewest characters.'),
      maxLength: z.int().min(1).max(65_536).default(1024).describe('The most characters.'),
    }),
    z.strictObject({
      type: z.literal('integer'),
      ...described,
      ...given(z.int()),
      minimum: z.int().optional().describe('The least value.'),
      maximum: z.int().optional().describe('The greatest value.'),
    }),
    z.strictObject({
      type: z.literal('size'),
      ...described,
      ...given(size),
      minimum: size.optional().describe('The least size.'),
      maximum: size.optional().describe('The greatest size.'),
    }),
    z.strictObject({ type: z.literal('boolean'), ...described, ...given(z.boolean()) }),
    z.strictObject({
      type: z.literal('choice'),
      ...described,
      ...given(z.string()),
      choices: z.array(z.string().min(1)).min(1).max(100).describe('The values that it may have.'),
    }),
  ])
  .refine((one) => (one.default === undefined) !== (one.example === undefined), {
    message: 'must have exactly one of default and example',
  })

/** One parameter of a template, after defaults. */
export type Parameter = z.output<typeof parameterSchema>

const headSchema = z.strictObject({
  name: templateName.describe('The name that a declaration takes it by.'),
  version: version.describe(
    'Its semantic version: MAJOR.MINOR.PATCH. Every change of the file is another version.',
  ),
  description: z.string().min(1).describe('What it is for, in a sentence.'),
  extends: templateName
    .optional()
    .describe('The template that this one stands on: what this one says stands before what that one says.'),
  parameters: z
    .record(parameterName, parameterSchema)
    .default({})
    .describe(
      'What may differ from VM to VM. Its name between braces after a dollar sign, as a whole value in vm, stands for it.',
    ),
  vm: z.record(z.string(), z.unknown()).describe('A VM as it is declared, as far as the template says.'),
})

const parameterValue = z.union([z.string().max(65_536), z.number(), z.boolean()])

/**
 * What a declaration of a VM says to be made from a template; what it says itself stands before what the template says. Of a
 * document that was read with its templates, `version` (and `base`) are always there.
 */
export const chosenTemplateSchema = z
  .strictObject({
    name: templateName.describe('The name of the template; garrison template list shows them.'),
    version: version
      .optional()
      .describe('This version and no other. Default: the newest, whose version each VM remembers.'),
    base: version
      .optional()
      .describe('The version of the template that it extends, where it does. Default: the newest.'),
    parameters: z
      .record(parameterName, parameterValue)
      .default({})
      .describe('Values for its parameters; garrison template show NAME explains each.'),
    update: z
      .boolean()
      .default(false)
      .describe(
        'Change a VM that was made from another version to this one; else what that one said stands.',
      ),
  })
  .describe('The template that the VM is made from.')

/** A template as it was read, by itself. */
export interface Template {
  readonly file: string
  readonly name: string
  readonly version: string
  readonly description: string
  readonly extends?: string | undefined
  readonly parameters: Readonly<Record<string, Parameter>>
  readonly written: Written
}

/** A file that is no valid template, and what it would be called. */
export interface BrokenTemplate {
  readonly file: string
  readonly name: string
  readonly problems: readonly DocumentProblem[]
}

/** All templates of a host. */
export interface Catalogue {
  /** By name, the newest version first. */
  readonly templates: readonly Template[]
  readonly broken: readonly BrokenTemplate[]
}

/** Less than 0 when the first version is older, 0 when they are the same, more than 0 when it is newer (semver.org, 11). */
export function compareVersions(one: string, other: string): number {
  const [a, b] = [one, other].map((text) => text.split('.').map(Number))
  const at = a?.findIndex((number, index) => number !== b?.[index]) ?? -1
  return at === -1 ? 0 : (a?.[at] ?? 0) - (b?.[at] ?? 0)
}

const problemAt = (
  { file, line, column }: Place,
  path: readonly string[],
  message: string,
): DocumentProblem => ({
  file,
  line,
  column,
  path: path.join('.'),
  message,
})

/** The same problems, told of a part of a document. */
const below = (problems: readonly DocumentProblem[], base: readonly string[]): readonly DocumentProblem[] =>
  problems.map((one) => ({ ...one, path: [...base, one.path].filter((part) => part !== '').join('.') }))

/** What a parameter takes, as a schema: the same words for a mistake as everywhere in a document. */
function valueSchema(parameter: Parameter): z.ZodType {
  switch (parameter.type) {
    case 'string': {
      const { minLength, maxLength } = parameter
      return z
        .string()
        .refine((text) => text.length >= minLength, `must have at least ${minLength} characters`)
        .refine((text) => text.length <= maxLength, `must have at most ${maxLength} characters`)
    }
    case 'integer': {
      const { minimum = Number.MIN_SAFE_INTEGER, maximum = Number.MAX_SAFE_INTEGER } = parameter
      return z.int().min(minimum).max(maximum)
    }
    case 'size': {
      const { minimum = '0MiB', maximum } = parameter
      return size
        .refine((text) => sizeBytes(text) >= sizeBytes(minimum), `must be at least ${minimum}`)
        .refine(
          (text) => maximum === undefined || sizeBytes(text) <= sizeBytes(maximum),
          `must be at most ${maximum}`,
        )
    }
    case 'boolean':
      return z.boolean()
    case 'choice':
      return z.enum(parameter.choices)
  }
}

/** Whether what a parameter itself says to be its default or example is a value that it takes. */
function ownProblems(written: Written, parameters: Template['parameters']): readonly DocumentProblem[] {
  return Object.entries(parameters).flatMap(([name, parameter]) =>
    (['default', 'example'] as const).flatMap((key) => {
      const own = child(child(child(written, 'parameters'), name), key)
      if (own === undefined) return []
      const { problems } = judge(valueSchema(parameter), own)
      return below(problems ?? [], ['parameters', name, key])
    }),
  )
}

/** Reads one file. A file that says nothing has one problem at its beginning. */
export function readTemplate(file: DocumentFile): Judged<Template> {
  const problems: DocumentProblem[] = []
  const written = readWritten(file, problems)
  if (problems.length > 0) return { problems }
  const start = { file: file.path, line: 1, column: 1 }
  if (written === null)
    return {
      problems: [problemAt(start, [], 'it is empty: write at least name, version, description and vm')],
    }
  const head = judge(headSchema, written)
  if (head.problems) return head
  const { name, version, description, extends: base, parameters } = head.value
  const own = ownProblems(written, parameters)
  if (own.length > 0) return { problems: own }
  return {
    value: { file: file.path, name, version, description, extends: base, parameters, written },
    problems: null,
  }
}

/**
 * The templates of a host: those that ship, and its own, which hide every version of a shipped one of the same name. Of two files
 * of one name and version the later stands.
 */
export function catalogueOf(shipped: readonly DocumentFile[], own: readonly DocumentFile[]): Catalogue {
  const read = (files: readonly DocumentFile[]) => {
    const templates = new Map<string, Template>()
    const broken: BrokenTemplate[] = []
    for (const file of files) {
      const { path } = file
      const judged = readTemplate(file)
      if (judged.problems)
        broken.push({ file: path, name: path.replace(/^.*\/|\.yaml$/g, ''), problems: judged.problems })
      else templates.set(`${judged.value.name} ${judged.value.version}`, judged.value)
    }
    return { templates: [...templates.values()], broken }
  }
  const [theirs, ours] = [read(shipped), read(own)]
  const hidden = new Set([...ours.templates, ...ours.broken].map(({ name }) => name))
  return {
    templates: [...theirs.templates.filter(({ name }) => !hidden.has(name)), ...ours.templates].sort(
      (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : compareVersions(b.version, a.version)),
    ),
    broken: [...theirs.broken, ...ours.broken],
  }
}

/** Where a template is named or its version given, in a document or in another template. */
interface Naming {
  readonly name: Written
  readonly version: Written | undefined
  readonly namePath: readonly string[]
  readonly versionPath: readonly string[]
}

const textOf = (written: Written | undefined): string | undefined =>
  written?.kind === 'scalar' && typeof written.value === 'string' ? written.value : undefined

/** The template that is named, the newest unless a version is given; null and a problem when there is none. */
function find(catalogue: Catalogue, naming: Naming, problems: DocumentProblem[]): Template | null {
  const { name: named, version: wanted, namePath, versionPath } = naming
  const name = textOf(named)
  // What is no text is a mistake that the schema tells of.
  if (name === undefined) return null
  const versions = catalogue.templates.filter((one) => one.name === name)
  const [newest] = versions
  if (newest === undefined) {
    const broken = catalogue.broken.filter((one) => one.name === name)
    if (broken.length > 0) problems.push(...broken.flatMap((one) => one.problems))
    else {
      const names = [...new Set(catalogue.templates.map((one) => one.name))]
      problems.push(problemAt(named.at, namePath, notKnown('template', name, names)))
    }
    return null
  }
  const exactly = textOf(wanted)
  if (wanted === undefined || exactly === undefined) return newest
  const found = versions.find((one) => one.version === exactly)
  if (found === undefined) {
    const there = versions.map((one) => one.version).join(', ')
    problems.push(problemAt(wanted.at, versionPath, `${name} ${exactly} is not there; there is ${there}`))
    return null
  }
  return found
}

const wholeReference = /^\$\{([^{}]*)\}$/

/** The body of a template with each parameter in its place. A value that is a parameter is written where that value is. */
function substituted(
  body: Written,
  values: ReadonlyMap<string, Written>,
  problems: DocumentProblem[],
  path: readonly string[],
): Written {
  if (body.kind === 'list')
    return {
      ...body,
      items: body.items.map((item, at) => substituted(item, values, problems, [...path, String(at)])),
    }
  if (body.kind === 'map') {
    const entries = [...body.entries].map(
      ([key, value]) => [key, substituted(value, values, problems, [...path, key])] as const,
    )
    return { ...body, entries: new Map(entries) }
  }
  const { value: text } = body
  if (typeof text !== 'string' || !text.includes('${')) return body
  const [, name] = wholeReference.exec(text) ?? []
  if (name !== undefined) {
    const value = values.get(name)
    if (value === undefined)
      problems.push(problemAt(body.at, path, notKnown('parameter', name, [...values.keys()])))
    return value ?? body
  }
  const part = [...text.matchAll(/(?<!\$)\$\{([^{}]*)\}/g)].find(([, inner = '']) => values.has(inner))
  if (part !== undefined)
    problems.push(
      problemAt(
        body.at,
        path,
        `${part[0]} must be the whole value; for these very characters write $${part[0]}`,
      ),
    )
  return { ...body, value: text.replaceAll('$${', '${') }
}

/** A template with the one that it extends, its parameters and its body, before any value is chosen. */
interface Joined {
  readonly template: Template
  readonly base: Template | null
  readonly parameters: Template['parameters']
  /** The places of defaults and examples, by parameter. */
  readonly own: ReadonlyMap<string, Written>
  readonly body: Written
}

function join(
  catalogue: Catalogue,
  template: Template,
  baseVersion: Pick<Naming, 'version' | 'versionPath'>,
  problems: DocumentProblem[],
): Joined | null {
  const { written } = template
  const named = child(written, 'extends')
  const path = ['extends']
  const base =
    named === undefined ? null : find(catalogue, { ...baseVersion, name: named, namePath: path }, problems)
  if (named !== undefined && base === null) return null
  if (named !== undefined && base?.extends !== undefined) {
    const message = `${base.name} itself extends ${base.extends}, and a template may only extend one that does not`
    problems.push(problemAt(named.at, path, message))
    return null
  }
  for (const [name, { type }] of Object.entries(template.parameters)) {
    const before = base?.parameters[name]
    const place = child(child(written, 'parameters'), name)
    if (before !== undefined && before.type !== type && place !== undefined)
      problems.push(
        problemAt(place.key, ['parameters', name], `${base?.name} has it as ${before.type}, not ${type}`),
      )
  }
  const body = merge(base && (child(base.written, 'vm') ?? null), child(written, 'vm') ?? null)
  if (body === null) return null
  const own = new Map<string, Written>()
  for (const one of base ? [base, template] : [template])
    for (const name of Object.keys(one.parameters)) {
      const parameter = child(child(one.written, 'parameters'), name)
      const value = child(parameter, 'default') ?? child(parameter, 'example')
      if (value !== undefined) own.set(name, value)
    }
  return { template, base, parameters: { ...base?.parameters, ...template.parameters }, own, body }
}

/** The values of all parameters: those given, and defaults. `examples` stand for what must be given and is not. */
function valuesOf(
  { parameters, own }: Joined,
  given: Written | undefined,
  examples: boolean,
  at: Place,
  path: readonly string[],
  problems: DocumentProblem[],
): ReadonlyMap<string, Written> {
  const taken: Written = given ?? { at, key: at, kind: 'map', entries: new Map() }
  // What is no map is a mistake that the schema tells of.
  if (taken.kind !== 'map') return own
  const schema = z.strictObject(
    Object.fromEntries(
      Object.entries(parameters).map(([name, parameter]) => {
        const value = valueSchema(parameter)
        return [name, examples || parameter.default !== undefined ? value.optional() : value]
      }),
    ),
  )
  problems.push(...below(judge(schema, taken).problems ?? [], path))
  return new Map([...own, ...taken.entries])
}

const scalar = (place: Written, value: string): Written => ({
  ...place,
  kind: 'scalar',
  value,
  source: value,
})

/** One declaration made whole from the template that it names; what has no template, or none that is there, is left as it is. */
function expandOne(
  catalogue: Catalogue,
  vm: Written,
  path: readonly string[],
  problems: DocumentProblem[],
): Written {
  const chosen = child(vm, 'template')
  const name = child(chosen, 'name')
  if (vm.kind !== 'map' || chosen?.kind !== 'map' || name === undefined) return vm
  const templatePath = [...path, 'template']
  const at = (key: string) => [...templatePath, key]
  const naming = { name, namePath: at('name'), version: child(chosen, 'version'), versionPath: at('version') }
  const template = find(catalogue, naming, problems)
  const joined =
    template &&
    join(catalogue, template, { version: child(chosen, 'base'), versionPath: at('base') }, problems)
  if (joined === null) return vm
  const parameters = child(chosen, 'parameters')
  const values = valuesOf(joined, parameters, false, chosen.key, at('parameters'), problems)
  const body = substituted(joined.body, values, problems, ['vm'])
  const exact: Written = {
    ...chosen,
    entries: new Map([
      ...chosen.entries,
      ['version', scalar(name, joined.template.version)],
      ...(joined.base ? [['base', scalar(name, joined.base.version)] as const] : []),
    ]),
  }
  const own: Written = { ...vm, entries: new Map([...vm.entries, ['template', exact]]) }
  return merge(body, own) ?? own
}

/**
 * Makes every VM of a document whole from the template that it names, before the document is held against its schema: mistakes
 * are told wherever they were written, and the sources of values lead into the template's file.
 */
export const expandTemplates =
  (catalogue: Catalogue) =>
  (document: Written, problems: DocumentProblem[]): Written => {
    const vms = child(document, 'vms')
    const machines = child(vms, 'machines')
    if (document.kind !== 'map' || vms?.kind !== 'map' || machines?.kind !== 'map') return document
    const whole = [...machines.entries].map(
      ([name, vm]) => [name, expandOne(catalogue, vm, ['vms', 'machines', name], problems)] as const,
    )
    const withKey = <M extends Written & { readonly kind: 'map' }>(
      map: M,
      key: string,
      value: Written,
    ): M => ({
      ...map,
      entries: new Map([...map.entries, [key, value]]),
    })
    return withKey(document, 'vms', withKey(vms, 'machines', { ...machines, entries: new Map(whole) }))
  }

/** Everything that is wrong with a template, tried with its defaults and examples against the schema of a VM. */
export function templateProblems(
  catalogue: Catalogue,
  template: Template,
  vm: z.ZodType,
): readonly DocumentProblem[] {
  const problems: DocumentProblem[] = []
  const joined = join(catalogue, template, { version: undefined, versionPath: [] }, problems)
  if (joined === null) return problems
  const values = valuesOf(joined, undefined, true, template.written.at, ['parameters'], problems)
  const body = substituted(joined.body, values, problems, ['vm'])
  if (problems.length > 0) return problems
  return below(partialProblems(vm, body), ['vm'])
}

/** A template with what it takes from the one that it extends, for a person who is about to use it. */
export interface TemplateUse {
  /** The template that it extends. */
  readonly base: Pick<Template, 'name' | 'version'> | null
  /** Every parameter that may be given, those of the base too. */
  readonly parameters: Template['parameters']
  /** A document that declares a VM with it, as text: every parameter that must be given has its example. */
  readonly example: string
}

/** How a template is used, or what is wrong with it or the one that it extends. */
export function templateUse(catalogue: Catalogue, template: Template): Judged<TemplateUse> {
  const problems: DocumentProblem[] = []
  const joined = join(catalogue, template, { version: undefined, versionPath: [] }, problems)
  if (joined === null || problems.length > 0) return { problems }
  const { base, parameters } = joined
  const examples = Object.entries(parameters).flatMap(([name, { example }]) =>
    example === undefined ? [] : [[name, example]],
  )
  const chosen = {
    name: template.name,
    ...(examples.length > 0 && { parameters: Object.fromEntries(examples) }),
  }
  const example = stringify(
    { vms: { machines: { [`${template.name}-1`]: { template: chosen } } } },
    { lineWidth: 0 },
  )
  return {
    value: { base: base && { name: base.name, version: base.version }, parameters, example },
    problems: null,
  }
}
