// The verb `jobs follow`: what a job has told, and what it goes on to tell, in the words of its own verb.

import { HostError } from '../../provisioning/problem.ts'
import type { Context, StreamModule } from '../api/context.ts'
import type { Terminal } from '../api/terminal.ts'
import { type Args, type Exit, type VerbName, verbOf } from '../api/verbs.ts'
import * as fetchImage from './images-fetch.ts'
import * as backup from './vm-backup.ts'
import * as create from './vm-create.ts'
import * as restore from './vm-restore.ts'
import * as verify from './vm-verify.ts'

/** A line of any job, with the schema of its verb. */
type Line = object & { readonly schema?: string }

type Words = Pick<StreamModule<VerbName, object>, 'render' | 'live' | 'exitOf'>

/** The words of every verb that is a job. */
const wordsOf: { readonly [Name in VerbName]?: Words } = {
  'images fetch': fetchImage as Words,
  'vm create': create as Words,
  'vm backup': backup as Words,
  'vm restore': restore as Words,
  'vm verify': verify as Words,
}

const bySchema = new Map(
  Object.entries(wordsOf).map(([name, words]) => [verbOf(name as VerbName).schema, words]),
)

const of = ({ schema = '' }: Line): Words | undefined => bySchema.get(schema)

/** Follows a job, or the newest one. */
export async function* run(context: Context, { job }: Args<'jobs follow'>): AsyncGenerator<object> {
  const id = job ?? (await context.jobs.list())[0]?.id
  if (id === undefined) throw new HostError('job.unknown', 'there is no job')
  yield* context.jobs.follow(id, context.signal)
}

/** A line in the words of its verb. */
export const render = (line: Line, terminal: Terminal): string | null =>
  of(line)?.render(line, terminal) ?? null

/** What the verb shows below. */
export const live = (line: Line): string | null => of(line)?.live?.(line) ?? null

/** What the verb would have ended with. */
export const exitOf = (line: Line): Exit | null => of(line)?.exitOf(line) ?? null
