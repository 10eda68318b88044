// The verb `template list`: every template of this host, and every file that should be one and is not.

import type { Parts } from '../api/context.ts'
import { columns, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { type Mistake, mistakesOf, mistakeText } from './mistakes.ts'

/** The answer of `template list`. */
export interface Templates {
  readonly templates: readonly {
    readonly name: string
    readonly version: string
    readonly description: string
    readonly extends: string | null
    readonly file: string
  }[]
  readonly broken: readonly { readonly file: string; readonly mistakes: readonly Mistake[] }[]
}

/** Reads the templates of this host, or of a folder. Throws `desired.not-trusted`, `host.denied`, `request.invalid`. */
export async function run(
  { templates: folder }: Args<'template list'>,
  here: { parts(): Promise<Parts> },
): Promise<Templates> {
  const parts = await here.parts()
  const { templates, broken } = await parts.templates(folder)
  return {
    templates: templates.map(({ name, version, description, extends: base = null, file }) => ({
      name,
      version,
      description,
      extends: base,
      file,
    })),
    broken: broken.map(({ file, problems }) => ({ file, mistakes: mistakesOf(problems) })),
  }
}

const mostNameColumns = 24

/** The answer in words. */
export function render({ templates, broken }: Templates, terminal: Terminal): string {
  const width = (cells: readonly string[], most: number) =>
    Math.min(most, Math.max(...cells.map((cell) => cell.length)))
  const names = width(['template', ...templates.map(({ name }) => name)], mostNameColumns)
  const versions = width(['version', ...templates.map(({ version }) => version)], columns)
  const lead = (name: string, version: string) => `${name.padEnd(names)}  ${version.padEnd(versions)}  `
  const rows = templates.map(({ name, version, description, extends: base }) =>
    paragraph(
      lead(name, version),
      base === null ? description : `${description} (extends ${base})`,
      lead('', '').length,
    ),
  )
  const mistakes = broken.flatMap((one) => one.mistakes.map((mistake) => mistakeText(mistake, 2)))
  return [
    ...(rows.length === 0
      ? ['No templates.']
      : [paint(terminal, 'dim', `${lead('template', 'version')}what it is for`), ...rows]),
    ...(mistakes.length === 0 ? [] : [paint(terminal, 'warn', 'Not valid'), ...mistakes]),
  ].join('\n')
}

/** Always 0: a file that is no template is told, and harms only a VM that names it. */
export const exitOf = (): Exit => EXIT.done
