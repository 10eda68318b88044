// What the verbs work with that the daemon answers.

import type { Fleet } from '../peers/fleet.ts'
import type { CloudWatch } from '../report/cloudwatch.ts'
import type { History } from '../report/history.ts'
import type { Report } from '../report/report.ts'

/** The reports of this host. */
export interface ReportSource {
  /** Null before the first. */
  readonly latest: Report | null
  /** Calls with each report that differs from the one before; answers how to end that. */
  onReport(listener: (report: Report) => void): () => void
}

/** What a verb of the daemon may use. `signal` aborts when the caller left or the daemon must go. */
export interface DaemonContext {
  readonly who: string
  readonly clock: () => number
  readonly signal: AbortSignal
  readonly reports: ReportSource
  readonly cloudwatch: Pick<CloudWatch, 'overview'>
  readonly history: Pick<History, 'read' | 'everyMs' | 'partsOf'>
  /** The other hosts. All of it throws `fleet.none` on a host that is in no fleet. */
  readonly fleet: Pick<Fleet, 'membership' | 'hosts' | 'ask' | 'reportOf' | 'listen'>
}
