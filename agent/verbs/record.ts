// The verb `record`: writes what this host answers into a folder, in the form that `test/observe` replays.

import { join, resolve } from 'node:path'
import { nothingDesired } from '../../provisioning/desired.ts'
import { assessAll } from '../../provisioning/engine.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Parts } from '../api/context.ts'
import { count, paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { createFile, makeFolder } from '../host/files.ts'
import { recording } from '../host/record.ts'

/** The answer of `record`. */
export interface Recorded {
  readonly dir: string
  readonly queries: number
  readonly refused: number
}

/** Observes every resource once. Throws `file.exists` when DIR holds a transcript already. */
export async function run({ dir }: Args<'record'>, here: { parts(): Promise<Parts> }): Promise<Recorded> {
  const { resources, reader, document, clock } = await here.parts()
  const folder = resolve(dir)
  const desired = await document().then(
    (read) => read.desired,
    (error: unknown) => {
      if (error instanceof HostError && error.code === 'desired.missing') return nothingDesired
      throw error
    },
  )
  const lines: string[] = []
  const recorded = recording(reader, async (line) => {
    lines.push(line)
  })
  await assessAll({ resources, reader: recorded, desired, clock })
  await makeFolder(folder, { mode: 0o700 })
  const written = await createFile(join(folder, 'transcript.jsonl'), `${lines.join('\n')}\n`, 0o600)
  if (!written)
    throw new HostError('file.exists', `${join(folder, 'transcript.jsonl')} is there already`, {
      details: { path: folder },
    })
  await createFile(join(folder, 'desired.json'), `${JSON.stringify(desired, null, 2)}\n`, 0o600)
  const refused = lines.filter((line) => 'error' in JSON.parse(line)).length
  return { dir: folder, queries: lines.length, refused }
}

/** The answer in words. */
export const render = ({ dir, queries, refused }: Recorded): string =>
  paragraph(
    '',
    `${count(queries, 'answer')} recorded in ${dir}${refused === 0 ? '' : `, ${count(refused, 'error')} among them`}. Read them before you send them.`,
    0,
  )

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
