// A verb that is a job, begun and then followed by whoever asked for it, for as long as they stay.

import { toldSource } from '../../provisioning/told.ts'
import { fieldsOf } from './arguments.ts'
import type { Context, StreamModule } from './context.ts'
import type { BegunJob } from './jobs.ts'
import { type Args, type VerbName, verbOf } from './verbs.ts'

/** What a job tells first. */
export interface JobLine {
  readonly event: 'job'
  readonly job: string
}

/** Whether a line says which job it is that follows. */
export const isJobLine = (line: object): line is JobLine => 'event' in line && line.event === 'job'

/** Whether a verb asked for like this is a job: one that would only show what it would do is none. */
export const isJob = <N extends VerbName>(name: N, args: Args<N>): boolean =>
  verbOf(name).job === true && !('plan' in args && args.plan === true)

/** A verb with its arguments as one would type it, without what may be a secret. */
export function typedAs<N extends VerbName>(name: N, args: Args<N>): string {
  const { operands } = verbOf(name)
  const words: string[] = []
  for (const [key, field] of Object.entries(fieldsOf(verbOf(name)))) {
    const value = args[key as keyof Args<N>] as boolean | string | readonly string[] | undefined
    const values = Array.isArray(value) ? value : value === undefined || value === false ? [] : [value]
    const told = (one: boolean | string) =>
      'untold' in field ? String(one).replace(/=.*/, '=(not told)') : toldSource(String(one))
    for (const one of values)
      words.push(...(key in operands ? [] : [`--${key}`]), ...(field.kind === 'switch' ? [] : [told(one)]))
  }
  return [name, ...words].join(' ')
}

/** What is needed to begin a verb as a job. `contextFor` makes the context that it works with, which its caller cannot end. */
export interface AskedJobLines<N extends VerbName> {
  readonly name: N
  readonly args: Args<N>
  readonly module: Pick<StreamModule<N, object>, 'run' | 'exitOf'>
  readonly context: Context
  readonly contextFor: (signal: AbortSignal) => Context
  /** Told of the job before its first line, so that the process stays for it. */
  readonly begun: (job: BegunJob) => void
}

/** Begins a verb as a job and tells its lines, unless it was asked to be left alone (`--detach`). Throws what the verb throws. */
export async function* jobLines<N extends VerbName>({
  name,
  args,
  module,
  context,
  contextFor,
  begun,
}: AskedJobLines<N>): AsyncGenerator<object> {
  const { schema } = verbOf(name)
  const job = await context.jobs.begin(
    { verb: name, typed: typedAs(name, args), who: context.who },
    {
      async *lines(signal) {
        for await (const line of module.run(contextFor(signal), args)) yield { schema, ...line }
      },
      exitOf: (line) => module.exitOf(line),
    },
  )
  begun(job)
  yield { event: 'job', job: job.id } satisfies JobLine
  if ('detach' in args && args.detach === true) return
  yield* context.jobs.follow(job.id, context.signal)
}
