// The verb `template check`: a template, tried without touching anything.

import { resolve } from 'node:path'
import { machineSchema } from '../../provisioning/vms/schema.ts'
import { readTemplate, templateProblems } from '../../provisioning/vms/template.ts'
import type { Parts } from '../api/context.ts'
import { count, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { readOne } from '../host/desired-files.ts'
import { type Mistake, mistakesOf, mistakeText } from './mistakes.ts'

/** The answer of `template check`. */
export interface TemplateCheck {
  readonly file: string
  readonly valid: boolean
  readonly mistakes: readonly Mistake[]
  readonly name?: string
  readonly version?: string
}

/** Reads FILE and tries it on the templates of this host. Throws `template.unknown` when there is no file, `host.denied`. */
export async function run(
  { file, templates: folder }: Args<'template check'>,
  here: { parts(): Promise<Parts> },
): Promise<TemplateCheck> {
  const parts = await here.parts()
  const { text } = await readOne(resolve(file), 'template.unknown')
  // Mistakes name the file as it was typed, so that an editor finds it from there.
  const read = readTemplate({ path: file, text })
  if (read.problems) return { file, valid: false, mistakes: mistakesOf(read.problems) }
  const { name, version } = read.value
  const catalogue = await parts.templates(folder)
  const mistakes = mistakesOf(templateProblems(catalogue, read.value, machineSchema))
  return { file, valid: mistakes.length === 0, mistakes, name, version }
}

/** The answer in words. */
export function render({ file, valid, mistakes, name, version }: TemplateCheck, terminal: Terminal): string {
  if (valid) return paragraph('', `${file}: ${paint(terminal, 'good', 'valid')}, ${name} ${version}`, 0)
  return [
    `${count(mistakes.length, 'mistake')} in ${file}`,
    ...mistakes.map((mistake) => mistakeText(mistake, 2)),
  ].join('\n')
}

/** 0 when valid, else 1. */
export const exitOf = ({ valid }: TemplateCheck): Exit => (valid ? EXIT.done : EXIT.error)
