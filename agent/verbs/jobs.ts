// The verb `jobs`: the long work of this host.

import type { Context } from '../api/context.ts'
import type { JobFacts } from '../api/jobs.ts'
import { ago, duration, paint, paragraph, type Style, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import { progressText } from './job-progress.ts'

/** The answer of `jobs`. */
export interface JobList {
  readonly jobs: readonly JobFacts[]
}

/** Lists every job that is kept. */
export const run = async (context: Context): Promise<JobList> => ({ jobs: await context.jobs.list() })

const styles: Readonly<Record<JobFacts['outcome'], Style>> = {
  running: 'strong',
  done: 'good',
  failed: 'bad',
  cancelled: 'dim',
  interrupted: 'warn',
}

const indent = 23

/** One job in words: what it is, and how it stands. */
export function jobText(terminal: Terminal, job: JobFacts): string {
  const { id, outcome, typed, beganMs, endedMs, progress, problem } = job
  const label = `${id}  ${paint(terminal, styles[outcome], outcome)}`
  const when =
    endedMs === null
      ? `began ${ago(terminal.nowMs - beganMs)}`
      : `${ago(terminal.nowMs - endedMs)}, took ${duration(endedMs - beganMs)}`
  return [
    paragraph(label, `${typed} (${when})`, indent),
    ...(progress === null ? [] : [paragraph('', progressText(progress), indent)]),
    ...(problem === null ? [] : [paragraph('', `${problem.code}: ${problem.message}`, indent)]),
  ].join('\n')
}

/** The list in words. */
export const render = ({ jobs }: JobList, terminal: Terminal): string =>
  jobs.length === 0 ? 'No job is known.' : jobs.map((job) => jobText(terminal, job)).join('\n')

/** Always 0: how jobs ended is an answer. */
export const exitOf = (): Exit => EXIT.done
