// The verb `jobs cancel`: asks a job to end.

import type { Context } from '../api/context.ts'
import type { JobFacts } from '../api/jobs.ts'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `jobs cancel`. */
export interface Cancelling {
  readonly job: JobFacts
}

/** Asks the job to end. Throws `job.unknown`, `job.ended`, `job.elsewhere`. */
export const run = async (context: Context, { job }: Args<'jobs cancel'>): Promise<Cancelling> => ({
  job: await context.jobs.cancel(job),
})

/** The answer in words. */
export const render = ({ job }: Cancelling): string =>
  paragraph('', `Job ${job.id} (${job.typed}) is asked to end; garrison jobs shows when it has.`, 0)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
