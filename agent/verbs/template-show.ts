// The verb `template show`: what one template takes, and a declaration to copy.

import { HostError } from '../../provisioning/problem.ts'
import { type Parameter, type TemplateUse, templateUse } from '../../provisioning/vms/template.ts'
import { invalid, notKnown } from '../../provisioning/written.ts'
import type { Parts } from '../api/context.ts'
import { paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `template show`. */
export interface ShownTemplate extends TemplateUse {
  readonly name: string
  readonly version: string
  readonly versions: readonly string[]
  readonly description: string
  readonly file: string
}

/** The newest template of that name. Throws `template.unknown`, and `desired.invalid` for one that cannot be used. */
export async function run(
  { name: wanted, templates: folder }: Args<'template show'>,
  here: { parts(): Promise<Parts> },
): Promise<ShownTemplate> {
  const parts = await here.parts()
  const catalogue = await parts.templates(folder)
  const found = catalogue.templates.filter(({ name }) => name === wanted)
  const [template] = found
  if (template === undefined) {
    const broken = catalogue.broken.filter(({ name }) => name === wanted).flatMap(({ problems }) => problems)
    if (broken.length > 0) throw invalid('desired.invalid', broken, [])
    const names = [...new Set(catalogue.templates.map(({ name }) => name))]
    throw new HostError('template.unknown', notKnown('template', wanted, names))
  }
  const use = templateUse(catalogue, template)
  if (use.problems) throw invalid('desired.invalid', use.problems, [])
  const { name, version, description, file } = template
  return { name, version, versions: found.map((one) => one.version), description, file, ...use.value }
}

const range = (least: unknown, most: unknown): string => {
  if (least !== undefined && most !== undefined) return `${least} to ${most}`
  if (least !== undefined) return `at least ${least}`
  return most === undefined ? '' : `at most ${most}`
}

/** What values a parameter takes: `integer, 1 to 64`. */
function valuesText(parameter: Parameter): string {
  switch (parameter.type) {
    case 'string':
      return `text of at most ${parameter.maxLength} characters`
    case 'boolean':
      return 'true or false'
    case 'choice':
      return parameter.choices.join(', ')
    case 'integer':
    case 'size':
      return [parameter.type, range(parameter.minimum, parameter.maximum)].filter(Boolean).join(', ')
  }
}

const column = 15

/** The answer in words. */
export function render(shown: ShownTemplate, terminal: Terminal): string {
  const { name, version, versions, description, file, base, parameters, example } = shown
  const head = paint(terminal, 'dim', 'To declare a VM with it, in host.yaml:')
  return [
    `${paint(terminal, 'strong', name)} ${version}`,
    paragraph('', description, 2),
    paragraph('  file', file, column),
    ...(versions.length > 1 ? [paragraph('  versions', versions.join(', '), column)] : []),
    ...(base === null ? [] : [paragraph('  extends', `${base.name} ${base.version}`, column)]),
    ...Object.entries(parameters).flatMap(([parameter, one]) => {
      const preset =
        one.default === undefined ? 'must be given' : `default ${one.default === '' ? 'empty' : one.default}`
      return [paragraph(`  ${parameter}`, `${one.description} (${valuesText(one)}; ${preset})`, column)]
    }),
    '',
    head,
    example.trimEnd(),
  ].join('\n')
}

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
