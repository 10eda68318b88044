// The pages about VMs and their backups: what they declare is a document, and what they type are verbs.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkedArgs, parseCommandLine } from '../../agent/api/arguments.ts'
import { parseDocument } from '../../provisioning/document.ts'

const read = (name: string) => readFileSync(join(import.meta.dirname, '../../docs/usage', name), 'utf8')
const blocksOf = (text: string) => [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
const page = read('vms.md')
const blocks = blocksOf(page)

t.test('documents', async (t) => {
  const documents = blocks.flatMap(([, language, text = '']) => (language === 'yaml' ? [text] : []))
  t.not(documents.length, 0)
  for (const text of documents) {
    const { vms } = parseDocument([{ path: 'host.yaml', text }])
    t.not(Object.keys(vms?.machines ?? {}).length, 0)
  }
  const [inline] = /vms: \{accepted: .*\}/.exec(page) ?? []
  const { vms } = parseDocument([{ path: 'host.yaml', text: `version: 1\n${inline}\n` }])
  t.match(vms?.accepted, { 'vms.machines.web-3.memory': { until: '2027-01-31' } })
})

t.test('command lines', async (t) => {
  for (const text of [page, read('backup.md')]) {
    const shown = blocksOf(text).flatMap(([, , block = '']) => [...block.matchAll(/^[$#] garrison (.*)$/gm)])
    const inline = [...text.matchAll(/`garrison (vm [^`…]*)`/g)]
    t.not(shown.length, 0)
    for (const [, line = ''] of shown) {
      const { verb, values } = parseCommandLine(line.split(' '))
      t.ok(verb, line)
      if (verb !== null) t.doesNotThrow(() => checkedArgs(verb, values), line)
    }
    for (const [, line = ''] of inline) t.ok(parseCommandLine(line.split(' ')).verb, line)
  }
})
