// What the root side said of the host: its answer to `status`, asked for now and then, and what kept it from answering.
//
// INVARIANTS
// - One question at a time, however long its answer takes.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import type { Blocked, Finding, Risk, Standing } from '../../provisioning/resource.ts'
import type { Clock } from './clock.ts'

/** One resource, as `garrison status` answers it. */
export interface RootResource {
  readonly resource: string
  readonly declared: boolean
  readonly standing: Standing
  readonly summary: string
  readonly steps: readonly {
    readonly key: string
    readonly summary: string
    readonly risk: Risk
    readonly blocked?: Blocked
  }[]
  readonly findings: readonly Finding[]
  readonly problem?: ProblemReport
}

/** The answer of `status`, as far as it is used here. */
export interface RootStatus {
  readonly atMs: number
  readonly standing: Standing
  readonly applying: { readonly who: string; readonly sinceMs: number } | { readonly problem: unknown } | null
  readonly document: ProblemReport | null
  readonly resources: readonly RootResource[]
}

/** What the root side said last (null: nothing yet), and why it said nothing the last time (null: it did). */
export interface RootView {
  readonly seen: RootStatus | null
  readonly problem: ProblemReport | null
}

/** How the root side is asked. */
export interface RootAskerOptions {
  /** Asks for a fresh look. Throws a HostError. */
  readonly ask: () => Promise<RootStatus>
  readonly clock: Clock
  readonly everyMs?: number
  /** How soon it may be asked again when something has changed. */
  readonly soonMs?: number
  /** How long an answer may take before it is called missing; it is waited for all the same. */
  readonly deadlineMs?: number
}

/** Asks the root side on a slow beat. */
export class RootAsker {
  readonly #options: Required<RootAskerOptions>
  #view: RootView = { seen: null, problem: null }
  #asking = false
  #askedTickMs: number | null = null
  #isWanted = false

  constructor(options: RootAskerOptions) {
    this.#options = { everyMs: 300_000, soonMs: 30_000, deadlineMs: 120_000, ...options }
  }

  /** What it said last. */
  get view(): RootView {
    return this.#view
  }

  /** Something has changed that only the root side can judge: it is asked again soon. */
  nudge(): void {
    this.#isWanted = true
  }

  /** Asks when it is time to. Rejects only when there is a defect. */
  async beat(): Promise<void> {
    const { clock, everyMs, soonMs, deadlineMs } = this.#options
    const nowMs = clock.steadyMs()
    const sinceMs = this.#askedTickMs === null ? Number.POSITIVE_INFINITY : nowMs - this.#askedTickMs
    if (this.#asking) {
      if (sinceMs >= deadlineMs) this.#fail(new HostError('host.deadline', 'the root side does not answer'))
      return
    }
    if (sinceMs < (this.#isWanted ? soonMs : everyMs)) return
    this.#asking = true
    this.#askedTickMs = nowMs
    this.#isWanted = false
    try {
      this.#view = { seen: await this.#options.ask(), problem: null }
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#fail(error)
    } finally {
      this.#asking = false
    }
  }

  #fail(error: HostError): void {
    this.#view = { seen: this.#view.seen, problem: error.report() }
  }
}
