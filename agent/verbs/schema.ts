// The verb `schema`: the JSON Schema of the desired document, or of a report.

import { desiredJsonSchema } from '../../provisioning/document.ts'
import type { Json } from '../../provisioning/resource.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { reportJsonSchema } from '../report/report-schema.ts'

/** The answer of `schema`. */
export interface SchemaAnswer {
  readonly document: Json
}

/** Derives the schema; that of the document is what an author writes against: what has a default may be left out. */
export const run = async ({ of }: Args<'schema'>): Promise<SchemaAnswer> => ({
  document: of === 'report' ? reportJsonSchema() : desiredJsonSchema(),
})

/** The schema alone, indented, so that it can be sent into a file. */
export const render = ({ document }: SchemaAnswer): string => JSON.stringify(document, null, 2)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
