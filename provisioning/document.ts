// Reads the desired document: text of one or more files into `Desired`, or every problem with its place.

import { z } from 'zod'
import { type Desired, desiredSchema } from './desired.ts'
import type { Json } from './resource.ts'
import {
  type DocumentFile,
  type DocumentProblem,
  invalid,
  judge,
  merge,
  readWritten,
  sourcesOf,
  type Written,
} from './written.ts'

/** The JSON Schema (draft 2020-12) of the desired document, with descriptions and defaults. */
export const desiredJsonSchema = (): Json =>
  z.toJSONSchema(desiredSchema, { target: 'draft-2020-12', io: 'input' }) as unknown as Json

/**
 * Reads the files in the order given (host.yaml, then host.d sorted): maps are merged, other values of a later file replace.
 * `complete` fills in what the document only names, and tells what it could not. Throws `desired.invalid` with every problem in
 * `details.problems`.
 */
export function parseDocument(
  files: readonly DocumentFile[],
  complete: (document: Written, problems: DocumentProblem[]) => Written = (document) => document,
): Desired {
  const problems: DocumentProblem[] = []
  const written = files.map((file) => readWritten(file, problems)).reduce(merge, null)
  if (problems.length > 0) throw invalid('desired.invalid', problems, files)
  if (written === null) {
    const file = files[0]?.path ?? 'host.yaml'
    const message = 'it is empty: write at least "version: 1"'
    throw invalid('desired.invalid', [{ file, line: 1, column: 1, path: '', message }], files)
  }
  const whole = complete(written, problems)
  const judged = judge(desiredSchema, whole)
  if (judged.problems) problems.push(...judged.problems)
  if (judged.problems || problems.length > 0) throw invalid('desired.invalid', problems, files)
  return { ...judged.value, sources: sourcesOf(whole) }
}
