// The verb `check`: a desired document, checked without touching anything.

import { HostError } from '../../provisioning/problem.ts'
import type { DocumentProblem } from '../../provisioning/written.ts'
import type { Parts } from '../api/context.ts'
import { count, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit, resourceNames } from '../api/verbs.ts'
import { type Mistake, mistakesOf, mistakeText } from './mistakes.ts'

/** The answer of `check`. */
export interface Check {
  readonly file: string
  readonly valid: boolean
  readonly mistakes: readonly Mistake[]
  readonly declared: readonly string[]
}

/** Reads FILE, or the document of this host. Throws `desired.missing` when there is none, `host.denied` when it may not be read. */
export async function run({ file }: Args<'check'>, here: { parts(): Promise<Parts> }): Promise<Check> {
  const { document, documentFolder } = await here.parts()
  const named = file ?? documentFolder
  try {
    const { desired } = await document(file)
    const declared = resourceNames.filter((name) => desired[name] !== undefined)
    return { file: named, valid: true, mistakes: [], declared }
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'desired.invalid') throw error
    return {
      file: named,
      valid: false,
      mistakes: mistakesOf(error.details.problems as readonly DocumentProblem[]),
      declared: [],
    }
  }
}

/** The answer in words: one mistake a paragraph, as compilers name places. */
export function render({ file, valid, mistakes, declared }: Check, terminal: Terminal): string {
  if (valid) {
    const parts = declared.length === 0 ? 'asks for nothing' : `asks for ${declared.join(', ')}`
    return paragraph('', `${file}: ${paint(terminal, 'good', 'valid')}, ${parts}`, 0)
  }
  return [
    `${count(mistakes.length, 'mistake')} in ${file}`,
    ...mistakes.map((mistake) => mistakeText(mistake, 2)),
  ].join('\n')
}

/** 0 when valid, else 1. */
export const exitOf = ({ valid }: Check): Exit => (valid ? EXIT.done : EXIT.error)
