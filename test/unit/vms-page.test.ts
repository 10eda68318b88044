// The page about VMs: what it declares is a document, and what it types are verbs.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseCommandLine } from '../../agent/api/arguments.ts'
import { parseDocument } from '../../provisioning/document.ts'

const page = readFileSync(join(import.meta.dirname, '../../docs/usage/vms.md'), 'utf8')
const blocks = [...page.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]

t.test('documents', async (t) => {
  const documents = blocks.flatMap(([, language, text = '']) => (language === 'yaml' ? [text] : []))
  t.not(documents.length, 0)
  for (const text of documents) {
    const { vms } = parseDocument([{ path: 'host.yaml', text }])
    t.not(Object.keys(vms?.machines ?? {}).length, 0)
  }
  const [inline] = /vms: \{accepted: .*\}/.exec(page) ?? []
  const { vms } = parseDocument([{ path: 'host.yaml', text: `version: 1\n${inline}\n` }])
  t.match(vms?.accepted, [{ path: 'vms.machines.web-3.memory', until: '2027-01-31' }])
})

t.test('command lines', async (t) => {
  const typed = blocks.flatMap(([, , text = '']) => [...text.matchAll(/^\$ garrison (.*)$/gm)])
  t.not(typed.length, 0)
  for (const [, line = ''] of typed) t.ok(parseCommandLine(line.split(' ')).verb, line)
})
