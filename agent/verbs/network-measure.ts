// The hidden verb `network measure`: what `network probe` starts in a namespace of its own, outside the sandbox of the root side.

import { probePath } from '../../provisioning/link/probe.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { replaceFile } from '../host/files.ts'
import { measure, type ProbeTask } from '../host/probe.ts'

/** Where the record is. */
interface Measured {
  readonly path: string
}

/** Measures, and writes the record down. Throws `request.invalid` for a task that is none. */
export async function run({ task, record }: Args<'network measure'>): Promise<Measured> {
  let parsed: ProbeTask
  try {
    parsed = JSON.parse(task) as ProbeTask
  } catch (cause) {
    throw new HostError('request.invalid', 'the task is no JSON', {
      details: { verb: 'network measure' },
      cause,
    })
  }
  const path = record ?? probePath(parsed.device)
  await replaceFile(path, `${JSON.stringify(await measure(parsed, Date.now()))}\n`, 0o644)
  return { path }
}

/** The answer in words. */
export const render = ({ path }: Measured): string => path

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
