// Observations of real hosts: every folder test/observe/RESOURCE/HOST holds a transcript that `garrison record` wrote there.
// GARRISON_GOLDEN=write writes observed.json anew; read the difference before it is committed.

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { type Desired, desiredSchema } from '../../provisioning/desired.ts'
import { resources } from '../../provisioning/index.ts'
import type { Resource } from '../../provisioning/resource.ts'
import { readTranscript, replay } from './replay.ts'

const folders = (path: string): string[] =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))

for (const id of folders(import.meta.dirname)) {
  t.test(id, async (t) => {
    const resource = resources.find((one) => one.id === id) as Resource
    t.ok(resource, 'is a resource')
    for (const name of folders(join(import.meta.dirname, id))) {
      t.test(name, async (t) => {
        const path = (file: string) => join(import.meta.dirname, id, name, file)
        const document = parse(readFileSync(path('desired.yaml'), 'utf8')) as unknown
        const desired: Desired = { ...desiredSchema.parse(document), sources: {} }
        const reader = replay(await readTranscript(path('transcript.jsonl')))
        const observed: unknown = JSON.parse(JSON.stringify(await resource.observe(reader, desired)))
        const golden = path('observed.json')
        if (process.env.GARRISON_GOLDEN === 'write')
          writeFileSync(golden, `${JSON.stringify(observed, null, 2)}\n`)
        t.ok(existsSync(golden), 'has observed.json')
        t.same(observed, JSON.parse(readFileSync(golden, 'utf8')))
      })
    }
  })
}

t.test('what is not in a transcript is not made up', async (t) => {
  const reader = replay([
    { call: 'readText', args: ['/etc/hostname'], answer: 'h07\n' },
    {
      call: 'list',
      args: ['/root'],
      error: { code: 'host.denied', message: 'no', details: { path: '/root' } },
    },
  ])
  t.equal(await reader.readText('/etc/hostname'), 'h07\n')
  await t.rejects(reader.list('/root'), { code: 'host.denied', details: { path: '/root' } })
  await t.rejects(reader.readText('/etc/passwd'), {
    message: /not in the transcript: readText \["\/etc\/passwd"\]/,
  })
  await t.rejects(reader.mountTables(), { message: /not in the transcript: mountTables/ })
})
