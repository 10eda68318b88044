// How verbs tell the mistakes in what a person wrote.

import type { DocumentProblem } from '../../provisioning/written.ts'
import { paragraph } from '../api/terminal.ts'

/** One mistake: where it is, and what is wrong with what. */
export interface Mistake {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly text: string
}

/** Problems with what was written, as verbs answer them. */
export const mistakesOf = (problems: readonly DocumentProblem[]): readonly Mistake[] =>
  problems.map(({ file, line, column, path, message }) => ({
    file,
    line,
    column,
    text: path === '' ? message : `${path}: ${message}`,
  }))

/** A mistake in the form that editors and compilers share, at an indent. */
export const mistakeText = ({ file, line, column, text }: Mistake, indent: number): string =>
  paragraph('', `${file}:${line}:${column}: ${text}`, indent)
