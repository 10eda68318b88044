// Makes reports: one snapshot of the host with a generation number, from everything that is known. Its shape is in report-schema.ts.

import { type Datapoint, partOf } from '../../provisioning/metrics.ts'
import type { Severity, Standing } from '../../provisioning/resource.ts'
import { type Round, useOf } from './datapoints.ts'
import type { Inventory, Report } from './report-schema.ts'
import type { RootView } from './root-view.ts'
import type { HiddenFinding, StandingFinding } from './standing-findings.ts'

export type { Inventory, Report } from './report-schema.ts'

/** Everything that a report is made of. */
export interface Known {
  readonly run: string
  readonly host: Report['host']
  readonly round: Round
  readonly findings: readonly StandingFinding[]
  readonly hidden: readonly HiddenFinding[]
  readonly root: RootView
  readonly rootStale: boolean
  /** The last value of each metric of the host and its parts. */
  readonly values: Iterable<Datapoint>
  readonly inventory: { readonly value: Inventory; readonly atMs: number } | null
  readonly inventoryProblem: string | null
  readonly relay: Report['relay']
}

/** Three digits: what comes after them changes with each look and tells nobody anything. */
const rounded = (value: number): number => Number(value.toPrecision(3))
const roundedOrNull = (value: number | null): number | null => (value === null ? null : rounded(value))

/** The name of a value in a report: `cpu.busy`, `drive.read DRIVE`. */
export function valueName(point: Datapoint): string {
  const part = partOf(point)
  return part === undefined ? point.metric : `${point.metric} ${part}`
}

function healthOf(findings: readonly StandingFinding[], isKnown: boolean): Report['health'] {
  const found: ReadonlySet<Severity> = new Set(findings.map(({ severity }) => severity))
  if (found.has('high')) return 'high'
  if (found.has('warning')) return 'warning'
  if (!isKnown) return 'unknown'
  return found.has('notice') ? 'notice' : 'ok'
}

function driftOf({ seen }: RootView): Report['drift'] {
  if (seen === null) return null
  const { atMs, document, applying, resources } = seen
  return {
    atMs,
    document: document?.code ?? null,
    applying:
      applying !== null && 'who' in applying ? { who: applying.who, sinceMs: applying.sinceMs } : null,
    resources: resources.map(({ resource, declared, standing, summary, steps, problem }) => ({
      resource,
      declared,
      standing,
      summary,
      steps: steps.map(({ key, summary: says, risk, blocked }) => ({
        key,
        summary: says,
        risk,
        blocked: blocked?.code ?? null,
      })),
      problem: problem?.code ?? null,
    })),
  }
}

function standingOf({ seen }: RootView, isStale: boolean): Standing {
  if (seen === null || isStale) return 'unknown'
  return seen.standing
}

/** Everything but its generation and time. */
export type ReportBody = Omit<Report, 'generation' | 'atMs'>

/** Makes the body of a report. */
export function reportBody(known: Known): ReportBody {
  const { run, host, round, findings, hidden, root, rootStale, values, inventory } = known
  const { vms } = round
  const vmsStale = vms.listed === null || vms.listed.stale || vms.silence !== null
  return {
    schema: 'garrison/report/1',
    run,
    host,
    health: healthOf(findings, !rootStale && root.seen !== null && !vmsStale),
    standing: standingOf(root, rootStale),
    findings: [...findings],
    hidden: [...hidden],
    drift: driftOf(root),
    metrics: Object.fromEntries([...values].map((point) => [valueName(point), rounded(point.value)])),
    vms: vms.vms.map((vm) => {
      const use = useOf(vm)
      return {
        uuid: vm.uuid,
        name: vm.name,
        power: vm.power?.value.power ?? 'unknown',
        reason: vm.power?.value.reason ?? '',
        stale: vm.power?.stale ?? true,
        stuckSinceMs: vm.stuckSinceMs,
        cpuPercent: roundedOrNull(use.cpuPercent),
        memoryBytes: roundedOrNull(use.memoryBytes),
        readPerSecond: roundedOrNull(use.readPerSecond),
        writtenPerSecond: roundedOrNull(use.writtenPerSecond),
        receivedPerSecond: roundedOrNull(use.receivedPerSecond),
        sentPerSecond: roundedOrNull(use.sentPerSecond),
      }
    }),
    inventory: inventory?.value ?? null,
    relay: known.relay,
    ages: {
      host: { atMs: round.host.atMs, stale: false, problem: null },
      vms: { atMs: vms.listed?.atMs ?? null, stale: vmsStale, problem: vms.silence },
      root: { atMs: root.seen?.atMs ?? null, stale: rootStale, problem: root.problem?.message ?? null },
      inventory: { atMs: inventory?.atMs ?? null, stale: false, problem: known.inventoryProblem },
    },
  }
}

/** Gives reports their generation: one more when anything but the time and the ages has changed. */
export class Reports {
  #latest: Report | null = null
  #text = ''
  #generation: number

  /** `generation` is that of the last report of the run before. */
  constructor(generation: number) {
    this.#generation = generation
  }

  /** The latest; null before the first. */
  get latest(): Report | null {
    return this.#latest
  }

  /** Takes a body over; answers whether anything in it has changed. */
  take(body: ReportBody, atMs: number): boolean {
    const { ages, ...rest } = body
    const text = JSON.stringify(rest)
    const isNew = text !== this.#text
    if (isNew) this.#generation += 1
    this.#text = text
    this.#latest = { ...body, generation: this.#generation, atMs }
    return isNew
  }
}
