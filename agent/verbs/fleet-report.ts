// The verb `fleet report`: the last report of a host of the fleet, as it told this one.

import { HostError } from '../../provisioning/problem.ts'
import { ago, count, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Tree } from '../peers/delta.ts'
import type { DaemonContext } from './daemon-context.ts'
import { summaryOf } from './fleet-words.ts'

/** The answer of `fleet report`. */
export interface ToldReport {
  readonly host: string
  readonly receivedMs: number
  readonly linked: boolean
  readonly report: Tree
}

/** Throws `fleet.none`, `fleet.unknown-host`, `report.none-yet`. */
export async function run(
  { fleet, reports, clock }: DaemonContext,
  { peer: host }: Args<'fleet report'>,
): Promise<ToldReport> {
  if (host === fleet.membership().host && reports.latest !== null)
    return { host, receivedMs: clock(), linked: true, report: reports.latest as unknown as Tree }
  const known = fleet.hosts().find((one) => one.host === host)
  if (known === undefined)
    throw new HostError('fleet.unknown-host', `no host ${host} is known in the fleet`, { details: { host } })
  const held = fleet.reportOf(host)
  if (held === null) throw new HostError('report.none-yet', `${host} has told this host nothing yet`)
  return { host, receivedMs: held.receivedMs, linked: known.link !== null, report: held.body }
}

type Found = Readonly<Record<'severity' | 'code' | 'text', unknown>>

const findingsIn = (report: Tree): readonly Found[] => {
  const { findings } = report as { readonly findings?: unknown }
  return Array.isArray(findings) ? findings : []
}

/** The report in short, with what is to be done about it. */
export function render({ host, receivedMs, linked, report }: ToldReport, terminal: Terminal): string {
  const { health, standing, steps, vms, relay } = summaryOf(report)
  const when = `told ${ago(terminal.nowMs - receivedMs)}${linked ? '' : '; it is not seen now'}`
  return [
    `${paint(terminal, 'strong', host)}    ${standing ?? '?'}    health: ${health ?? '?'}    ${when}`,
    ...(vms === null ? [] : [paragraph('  vms', `${vms.running} of ${vms.all} run`, 13)]),
    ...(steps === null ? [] : [paragraph('  drift', steps === 0 ? 'none' : count(steps, 'step'), 13)]),
    ...(relay.by === null ? [] : [paragraph('  cloudwatch', `told by ${relay.by}`, 13)]),
    ...(relay.offers ? [paragraph('  cloudwatch', 'sends for peers that do not reach the Region', 13)] : []),
    ...findingsIn(report).map(({ severity, code, text }) =>
      paragraph(`${String(severity).toUpperCase()} ${code}`, String(text), 11),
    ),
    paragraph('', `All of it: garrison fleet report ${host} --json`, 2),
  ].join('\n')
}

/** 4 when the host is not seen now: what it told may be long past. */
export const exitOf = ({ linked }: ToldReport): Exit => (linked ? EXIT.done : EXIT.unknown)
