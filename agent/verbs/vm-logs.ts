// The verb `vm logs`: what QEMU and libvirt wrote about a VM.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { hostClock } from '../report/clock.ts'
import { readVms } from '../vms/facts.ts'
import { logLines } from '../vms/log.ts'
import { findVm } from '../vms/select.ts'

/** One line of the answer. */
export interface LogLine {
  readonly event: 'line'
  readonly line: string
}

const usualLines = 50
const mostLines = 100_000

/** Reads the log, and goes on with --follow until the caller leaves. */
export async function* run(
  context: Context<Connection>,
  { vm: called, follow, lines: wanted = String(usualLines) }: Args<'vm logs'>,
): AsyncGenerator<LogLine> {
  const { reader, libvirtFolders, signal } = context
  if (!/^\d{1,6}$/.test(wanted) || Number(wanted) > mostLines)
    throw new HostError('request.invalid', `--lines takes a number up to ${mostLines}, not ${wanted}`, {
      details: { verb: 'vm logs' },
    })
  const { name } = findVm(await readVms(await context.libvirt('monitor'), reader, libvirtFolders.run), called)
  const following = follow ? { signal, sleep: hostClock.sleep } : null
  for await (const line of logLines(libvirtFolders.log, name, Number(wanted), following))
    yield { event: 'line', line }
}

/** The line as it is. */
export const render = ({ line }: LogLine): string => line

/** Reading ends well. */
export const exitOf = (): null => null
