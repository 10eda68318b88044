// The verb `report`: what the daemon knows of this host, once or whenever it changes.

import { HostError } from '../../provisioning/problem.ts'
import {
  ago,
  bytes,
  count,
  duration,
  moment,
  paint,
  paragraph,
  type Terminal,
  withTail,
} from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import type { Report } from '../report/report.ts'
import type { DaemonContext } from './daemon-context.ts'
import { findingIndent, findingText, healthText, standingStyle } from './wording.ts'

/** Tells the latest report, and with --watch each that differs from the one before; one that the caller is too slow for is left out. */
export async function* run(
  { reports, signal }: Pick<DaemonContext, 'reports' | 'signal'>,
  { watch }: Args<'report'>,
): AsyncGenerator<Report> {
  let changed = Promise.withResolvers<void>()
  const wake = () => changed.resolve()
  const unlisten = reports.onReport(wake)
  signal.addEventListener('abort', wake)
  try {
    const { latest } = reports
    if (latest === null && !watch)
      throw new HostError('report.none-yet', 'the daemon has just begun and has not looked yet')
    for (let told = -1; !signal.aborted; ) {
      const next = reports.latest
      if (next !== null && next.generation !== told) {
        told = next.generation
        yield next
        if (!watch) return
      } else {
        await changed.promise
        changed = Promise.withResolvers()
      }
    }
  } finally {
    unlisten()
    signal.removeEventListener('abort', wake)
  }
}

const textColumn = 13
const clearScreen = '\u001b[H\u001b[2J'

function rootText({ drift, ages }: Report, nowMs: number): string {
  const { atMs, problem } = ages.root
  if (drift === null || atMs === null) return problem === null ? 'not asked yet' : `unknown: ${problem}`
  const declared = drift.document === null ? drift.resources.filter((one) => one.declared) : drift.resources
  const parts = (['unknown', 'drifted', 'settled'] as const).flatMap((standing) => {
    const names = declared.filter((one) => one.standing === standing).map(({ resource }) => resource)
    return names.length === 0 ? [] : `${names.join(', ')} ${standing}`
  })
  const document = drift.document === null ? [] : [`no valid document (${drift.document})`]
  const applying = drift.applying === null ? [] : [`${drift.applying.who} applies`]
  return `${[...document, ...applying, ...parts].join('; ')}; looked ${ago(nowMs - atMs)}`
}

function vmsText({ vms, ages }: Report, nowMs: number): string {
  if (ages.vms.atMs === null) return `unknown: ${ages.vms.problem ?? 'libvirt was not asked yet'}`
  const running = vms.filter(({ power }) => power === 'running').length
  const stuck = vms.filter(({ stuckSinceMs }) => stuckSinceMs !== null).length
  const old = ages.vms.stale ? `; libvirt last told ${ago(nowMs - ages.vms.atMs)}` : ''
  return `${running} of ${vms.length} run${stuck === 0 ? '' : `, ${stuck} stuck`}${old}`
}

/** What the host is busy with, in one line; what is not known is left out. */
function useText({ metrics, host }: Report, nowMs: number): string {
  const value = (name: string, say: (value: number) => string): readonly string[] => {
    const known = metrics[name]
    return known === undefined ? [] : [say(known)]
  }
  const percent = (number: number) => `${Math.round(number)} %`
  return [
    ...value('cpu.busy', (number) => `cpu ${percent(number)}`),
    ...value('memory.used', (number) => `memory ${percent(number)}`),
    ...value('memory.available', (number) => `${bytes(number)} left`),
    ...value('pressure.io', (number) => `waits for drives ${percent(number)}`),
    ...(host.bootedMs === null ? [] : [`up ${duration(nowMs - host.bootedMs)}`]),
  ].join(', ')
}

/** A report in words. */
export function render(report: Report, terminal: Terminal): string {
  const { nowMs } = terminal
  const { host, standing, health, findings, hidden } = report
  const head = [
    paint(terminal, 'strong', host.name),
    paint(terminal, standingStyle[standing], standing),
    healthText(terminal, health, findings),
  ].join('    ')
  const causes = [...new Set(hidden.map(({ because }) => because))].join(', ')
  const text = [
    withTail(head, `seen ${ago(Math.max(0, nowMs - (report.ages.host.atMs ?? report.atMs)))}`),
    paragraph('  host', useText(report, nowMs), textColumn),
    paragraph('  vms', vmsText(report, nowMs), textColumn),
    paragraph('  resources', rootText(report, nowMs), textColumn),
    ...findings.map((finding) =>
      withTail(findingText(terminal, finding), `since ${moment(finding.sinceMs)}`),
    ),
    ...(hidden.length === 0
      ? []
      : [paragraph('', `${count(hidden.length, 'finding')} more because of ${causes}`, findingIndent)]),
  ].join('\n')
  return terminal.live ? `${clearScreen}${text}` : text
}

/** 4 when nobody can tell how the host stands, 2 when it drifted, else 0. */
export function exitOf({ standing }: Report): Exit {
  if (standing === 'unknown') return EXIT.unknown
  return standing === 'drifted' ? EXIT.drift : EXIT.done
}
