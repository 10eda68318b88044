// Writes the documents that come from the code: every error, field of the desired document and verb (`npm run pages`).
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { desiredJsonSchema } from '../provisioning/document.ts'
import { problems } from '../provisioning/problem.ts'
import { monitoringPage } from './monitoring-page.ts'
import { verbsPage } from './verbs-page.ts'

/** What this program reads of a JSON Schema; see `desiredJsonSchema`. */
interface Schema {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Schema[]
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: boolean | Schema
  readonly description?: string
  readonly default?: unknown
  readonly minimum?: number
  readonly maximum?: number
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

function valuesOf(schema: Schema): string {
  if (schema.const !== undefined) return `\`${schema.const}\``
  if (schema.enum) return schema.enum.map((one) => `\`${one}\``).join(', ')
  if (schema.anyOf) return [...new Set(schema.anyOf.map(valuesOf))].join(' or ')
  if (schema.type === 'array') return `list of ${schema.items ? valuesOf(schema.items) : 'values'}`
  if (schema.type === 'object' && schema.properties)
    return `\`{ ${Object.entries(schema.properties)
      .map(([key, one]) => `${key}: ${valuesOf(one).replaceAll('`', '')}`)
      .join(', ')} }\``
  if (schema.minimum !== undefined && schema.maximum !== undefined)
    return `${schema.minimum} to ${schema.maximum}`
  return schema.type ?? 'value'
}

function* fields(schema: Schema, path: string): Generator<readonly [path: string, schema: Schema]> {
  const { additionalProperties } = schema
  if (typeof additionalProperties === 'object') yield* fields(additionalProperties, `${path}.NAME`)
  for (const [key, one] of Object.entries(schema.properties ?? {})) {
    const below = path === '' ? key : `${path}.${key}`
    const isGroup = one.properties !== undefined || typeof one.additionalProperties === 'object'
    if (!isGroup) yield [below, one]
    else {
      yield [below, { ...one, type: 'map' }]
      yield* fields(one, below)
    }
  }
}

function documentPage(): string {
  const schema = desiredJsonSchema() as Schema
  const rows = [...fields(schema, '')].map(([path, one]) => {
    const values = one.type === 'map' ? '' : valuesOf(one)
    const preset = one.type === 'map' || one.default === undefined ? '' : `\`${JSON.stringify(one.default)}\``
    return `| \`${path}\` | ${cell(values)} | ${cell(preset)} | ${cell(one.description ?? '')} |`
  })
  return `# The desired document, field by field

\`/etc/garrison/host.yaml\`, then \`/etc/garrison/host.d/*.yaml\` in the order of their names. Maps are merged key by key;
scalars and lists of a later file replace those of an earlier one. A key that is not in this table is an error. A part that
is left out (\`software\`, \`root\`, \`array\`, \`volumes\`) is left alone; an empty one (\`array: {}\`) has every default.

\`garrison check FILE\` validates and touches nothing; \`garrison schema\` prints the same as JSON Schema for an editor.
An example is in [packaging/host.yaml](../../packaging/host.yaml).

| field | values | default | meaning |
|---|---|---|---|
${rows.join('\n')}

Sizes are numbers with \`MiB\`, \`GiB\` or \`TiB\`. Quote modes: \`"0755"\`, for YAML reads a bare 0755 as a number.
This page is made by \`npm run pages\`.
`
}

function errorsPage(): string {
  const rows = Object.entries(problems()).map(
    ([code, { meaning, remedy, retry }]) =>
      `| \`${code}\` | ${cell(meaning)} | ${cell(remedy)} | ${retry ? 'may help' : ''} |`,
  )
  return `# Every error, block and refusal

The code stays the same over versions; match on it, never on the text. \`{name}\` is filled in from the details.

| code | what it means | what to do | trying again |
|---|---|---|---|
${rows.join('\n')}

This page is made by \`npm run pages\`.
`
}

/** The generated documents, by their path from the project's root. */
export const pages = (): Readonly<Record<string, string>> => ({
  'docs/errors.md': errorsPage(),
  'docs/usage/desired-document.md': documentPage(),
  'docs/usage/monitoring.md': monitoringPage(),
  'docs/usage/verbs.md': verbsPage(),
})

if (import.meta.main)
  for (const [path, text] of Object.entries(pages()))
    await writeFile(join(import.meta.dirname, '..', path), text)
