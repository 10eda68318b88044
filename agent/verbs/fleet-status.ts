// The verb `fleet status`: how every host of the fleet is, as this one was told.

import { setTimeout as sleep } from 'node:timers/promises'
import { count, duration, paint, type Style, shorten, type Terminal, widthOf, wrap } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import type { Tree } from '../peers/delta.ts'
import type { KnownHost } from '../peers/mesh.ts'
import type { DaemonContext } from './daemon-context.ts'
import { type ReportSummary, summaryOf } from './fleet-words.ts'

/** One host. Times are epoch milliseconds of the host that was asked. */
export interface HostLine extends Partial<ReportSummary> {
  readonly host: string
  readonly self: boolean
  readonly linked: boolean
  readonly seenMs: number | null
  readonly over: string | null
  readonly seenBy: KnownHost['seenBy']
  readonly reportAtMs: number | null
  readonly problem: string | null
}

/** The answer of `fleet status`. */
export interface FleetStatus {
  readonly fleet: string
  readonly host: string
  readonly atMs: number
  readonly hosts: readonly HostLine[]
}

/** What others say of a missing host is there by then. */
const askedMs = 150

/** Asks who has seen those that are missing, and tells. Throws `fleet.none`. */
export async function run({ fleet, reports, clock }: DaemonContext): Promise<FleetStatus> {
  const { fleet: id, host: self } = fleet.membership()
  if (fleet.hosts().some(({ link }) => link === null)) {
    fleet.ask()
    await sleep(askedMs)
  }
  const own: HostLine = {
    ...{ host: self, self: true, linked: true, seenMs: clock(), over: null, seenBy: null, problem: null },
    reportAtMs: reports.latest?.atMs ?? null,
    ...(reports.latest && summaryOf(reports.latest as unknown as Tree)),
  }
  const others = fleet.hosts().map(({ host, link, seen, seenBy, problem }): HostLine => {
    const held = fleet.reportOf(host)
    return {
      ...{ host, self: false, linked: link !== null, seenBy, problem },
      seenMs: seen?.atMs ?? null,
      over: seen?.over ?? null,
      reportAtMs: held?.atMs ?? null,
      ...(held && summaryOf(held.body)),
    }
  })
  const hosts = [own, ...others].sort((a, b) => (a.host < b.host ? -1 : 1))
  return { fleet: id, host: self, atMs: clock(), hosts }
}

/** Who heard of a host last: this one or another. */
function lastSeen({ seenMs, over, seenBy }: HostLine, self: string) {
  const own = seenMs === null ? null : { host: self, atMs: seenMs, over: over ?? '-' }
  if (own === null || seenBy === null) return own ?? seenBy
  return seenBy.atMs > own.atMs ? seenBy : own
}

const span = (ms: number): string => (ms < 9950 ? `${Math.max(0, Math.round(ms / 1000))} s` : duration(ms))

const named = (over: string): string => (over === '-' ? '' : ` over ${over}`)

function healthOf({ linked, health, high = 0, warnings = 0 }: HostLine): readonly [string, Style] {
  if (!linked) return ['not seen', 'bad']
  if (high > 0) return [`${high} high`, 'bad']
  if (warnings > 0) return [count(warnings, 'warning'), 'warn']
  return [health ?? '?', health === 'ok' || health === 'notice' ? 'good' : 'warn']
}

function driftOf({ linked, standing, steps, blocked }: HostLine): string {
  if (!linked || standing === undefined || standing === null) return '?'
  if (standing !== 'drifted') return standing === 'settled' ? '-' : standing
  return `${count(steps ?? 0, 'step')}${blocked ? ', blocked' : ''}`
}

/** One line for each host, and what not to conclude of it. */
export function render({ host: self, atMs, hosts }: FleetStatus, terminal: Terminal): string {
  const width = Math.min(24, Math.max(4, ...hosts.map(({ host }) => host.length))) + 2
  const cell = (text: string, columns: number) => text + ' '.repeat(Math.max(1, columns - widthOf(text)))
  const head = cell('host', width) + cell('seen', 8) + cell('health', 13) + cell('drift', 18) + cell('vms', 8)
  const lines = hosts.map((line) => {
    const seen = lastSeen(line, self)
    const [health, style] = healthOf(line)
    const path = line.self
      ? 'this host'
      : line.linked
        ? (line.over ?? '-')
        : seen === null
          ? 'never'
          : `last by ${seen.host}${named(seen.over)}`
    return (
      cell(shorten(line.host, width - 2), width) +
      cell(seen === null ? '-' : span(atMs - seen.atMs), 8) +
      cell(paint(terminal, style, health), 13) +
      cell(driftOf(line), 18) +
      cell(line.linked && line.vms ? `${line.vms.running}/${line.vms.all}` : '?', 8) +
      path
    )
  })
  const missing = hosts.filter(({ linked }) => !linked)
  const first = missing[0]?.host
  const summary = `${count(hosts.length, 'host')}${
    missing.length === 0
      ? ', all seen'
      : `, ${missing.length} not seen ('not seen' is not 'down': ping, console, garrison fleet report ${first})`
  }`
  const relayed = hosts.flatMap(({ host, linked, relay }) =>
    linked && relay?.by
      ? wrap(`${host} does not reach the Region: ${relay.by} tells CloudWatch of it`, 80)
      : [],
  )
  return [`${head}path`, ...lines, ...wrap(summary, 80), ...relayed].map((line) => line.trimEnd()).join('\n')
}

/** 4 when a host is not seen, 2 when one has drifted or a finding to mend, else 0. */
export function exitOf({ hosts }: FleetStatus): Exit {
  if (hosts.some(({ linked, standing }) => !linked || standing === 'unknown')) return EXIT.unknown
  const isWell = ({ standing, high = 0, warnings = 0 }: HostLine): boolean =>
    standing !== 'drifted' && high === 0 && warnings === 0
  return hosts.every(isWell) ? EXIT.done : EXIT.drift
}
