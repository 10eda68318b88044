// Which findings stand: what is so long enough is said, what is not so long enough is said no more, and what has a cause is hidden.
//
// INVARIANTS
// - What could not be looked at stays as it was: not seeing a fault never ends it.
// - Times to appear and to clear are measured on a clock that nobody sets; `sinceMs` is told by the one that people read.

import { type Finding, SEVERITIES } from '../../provisioning/resource.ts'
import { findingEntry, kindOf } from './findings.ts'

/**
 * Something that is so now, whether or not it is said already. Without a remedy it has that of the table. `on` names what its
 * subject stands on, where that is known: only what happens to one of these can be its cause.
 */
export type Condition = Omit<Finding, 'remedy'> & {
  readonly remedy?: string
  readonly on?: readonly string[]
}

/** A finding that is said, and since when it is so (epoch milliseconds). */
export type StandingFinding = Finding & { readonly sinceMs: number }

/** A finding that is not said while its cause stands. */
export interface HiddenFinding {
  readonly code: string
  readonly subject?: string
  readonly because: string
}

/** What is so now. `blind` says of what nobody could look at, by its code and subject. */
export interface Judgement {
  readonly conditions: readonly Condition[]
  readonly blind: (code: string, subject: string | undefined) => boolean
}

/** Now, on the clock that people read and on the one that nobody sets. */
export interface Moment {
  readonly epochMs: number
  readonly tickMs: number
}

interface Tracked {
  condition: Condition
  readonly sinceMs: number
  readonly firstTickMs: number
  lastTickMs: number
  said: boolean
}

const keyOf = ({ code, subject }: { readonly code: string; readonly subject?: string | undefined }): string =>
  `${code}\0${subject ?? ''}`

/** Whether one may be the cause of another, going by what they are about. */
function mayCause(cause: Condition, { code, subject, on }: Condition): boolean {
  if (cause.subject === undefined || subject === undefined || cause.subject === subject) return true
  // One filesystem that is full says nothing of another; an array that has failed may be under anything.
  return on === undefined ? kindOf(cause.code) !== kindOf(code) : on.includes(cause.subject)
}

/** Remembers what is so, and since when. */
export class StandingFindings {
  readonly #tracked = new Map<string, Tracked>()

  /** Begins with what was said when the daemon ended: it stands until it is looked at, and is then as old as it was. */
  constructor(before: readonly StandingFinding[], { tickMs }: Moment) {
    for (const { sinceMs, ...condition } of before)
      this.#tracked.set(keyOf(condition), {
        condition,
        sinceMs,
        firstTickMs: tickMs,
        lastTickMs: tickMs,
        said: true,
      })
  }

  /** Takes over what is so now. */
  take({ conditions, blind }: Judgement, { epochMs, tickMs }: Moment): void {
    const there = new Set<string>()
    for (const condition of conditions) {
      const key = keyOf(condition)
      // What two have found is told once, in the words of the first.
      if (there.has(key)) continue
      there.add(key)
      const tracked = this.#tracked.get(key) ?? {
        condition,
        sinceMs: epochMs,
        firstTickMs: tickMs,
        lastTickMs: tickMs,
        said: false,
      }
      tracked.condition = condition
      tracked.lastTickMs = tickMs
      tracked.said ||= tickMs - tracked.firstTickMs >= (findingEntry(condition.code)?.appearMs ?? 0)
      this.#tracked.set(key, tracked)
    }
    for (const [key, { condition, lastTickMs, said }] of this.#tracked) {
      const { code, subject } = condition
      if (there.has(key) || blind(code, subject)) continue
      if (!said || tickMs - lastTickMs >= (findingEntry(code)?.clearMs ?? 0)) this.#tracked.delete(key)
    }
  }

  /** Whether it is so now, said or not: a level that was passed is left only lower down. */
  has(code: string, subject: string | undefined): boolean {
    return this.#tracked.has(keyOf({ code, subject }))
  }

  /** Everything that is said but for what its cause hides, gravest first and then oldest first. */
  said(): { readonly findings: readonly StandingFinding[]; readonly hidden: readonly HiddenFinding[] } {
    const said = [...this.#tracked.values()].filter((one) => one.said)
    const findings: StandingFinding[] = []
    const hidden: HiddenFinding[] = []
    for (const { condition, sinceMs } of said) {
      const { code, subject } = condition
      const because = findingEntry(code)?.hiddenBy?.find((cause) =>
        said.some((other) => other.condition.code === cause && mayCause(other.condition, condition)),
      )
      if (because !== undefined) hidden.push({ code, ...(subject !== undefined && { subject }), because })
      else findings.push(standing(condition, sinceMs))
    }
    return {
      findings: findings.sort(
        (a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) || a.sinceMs - b.sinceMs,
      ),
      hidden,
    }
  }

  /** Everything that is said or hidden, to begin with the next time. */
  kept(): readonly StandingFinding[] {
    return [...this.#tracked.values()]
      .filter(({ said }) => said)
      .map(({ condition, sinceMs }) => standing(condition, sinceMs))
  }
}

const standing = ({ on: _, ...condition }: Condition, sinceMs: number): StandingFinding => ({
  ...condition,
  remedy: condition.remedy ?? findingEntry(condition.code)?.remedy ?? '',
  sinceMs,
})
