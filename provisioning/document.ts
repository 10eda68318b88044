// Reads the desired document: text of one or more files into `Desired`, or every problem with its place.

import { z } from 'zod'
import { type Desired, desiredSchema } from './desired.ts'
import type { Json } from './resource.ts'
import {
  type DocumentFile,
  type DocumentProblem,
  invalid,
  judgeOf,
  merge,
  readWritten,
  sourcesOf,
} from './written.ts'

/** The JSON Schema (draft 2020-12) of the desired document, with descriptions and defaults. */
export const desiredJsonSchema = (): Json =>
  z.toJSONSchema(desiredSchema, { target: 'draft-2020-12', io: 'input' }) as unknown as Json

const judge = judgeOf(desiredSchema)

/**
 * Reads the files in the order given (host.yaml, then host.d sorted): maps are merged, other values of a later file replace.
 * Throws `desired.invalid` with every problem in `details.problems`.
 */
export function parseDocument(files: readonly DocumentFile[]): Desired {
  const problems: DocumentProblem[] = []
  const written = files.map((file) => readWritten(file, problems)).reduce(merge, null)
  if (problems.length > 0) throw invalid('desired.invalid', problems, files)
  if (written === null) {
    const file = files[0]?.path ?? 'host.yaml'
    const message = 'it is empty: write at least "version: 1"'
    throw invalid('desired.invalid', [{ file, line: 1, column: 1, path: '', message }], files)
  }
  const judged = judge(written)
  if (judged.problems) throw invalid('desired.invalid', judged.problems, files)
  return { ...judged.value, sources: sourcesOf(written) }
}
