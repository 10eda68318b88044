// The generated documents are what their generator makes now.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { pages } from '../../packaging/pages.ts'

for (const [path, text] of Object.entries(pages()))
  t.equal(readFileSync(join(import.meta.dirname, '../..', path), 'utf8'), text, `${path}: npm run pages`)
