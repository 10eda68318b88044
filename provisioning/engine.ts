// The engine: looks at every resource, and converges by performing one step at a time and looking again.
//
// INVARIANTS
// - A step is performed only from an assessment made after the last performed step; earlier ones are looked at again first.
// - The journal holds `step-started` on disk before the first action of the step; a journal that cannot be written ends the apply.
// - Nothing is remembered of the world between steps but how often each step was tried.

import type { Desired } from './desired.ts'
import type { ActionOutcome, HostReader, JournalWriter, Performer, Request } from './host.ts'
import { HostError, type ProblemCode, type ProblemReport, problemOf } from './problem.ts'
import { type Action, type Assessment, type Resource, RISKS, type Step, stepKey } from './resource.ts'

/** What looking at a host takes. `clock` gives epoch milliseconds. */
export interface Look {
  readonly resources: readonly Resource[]
  readonly reader: HostReader
  readonly desired: Desired
  readonly clock: () => number
}

/** What converging takes. `signal` ends the apply after the step in hand. `apply` is the id of its journal lines. */
export interface Convergence extends Look {
  readonly performer: Performer
  readonly journal: JournalWriter
  readonly request: Request
  readonly apply: string
  /** The EC2 instance-id or machine-id of this host. */
  readonly instance: string
  /** A digest of the desired document, for the journal. */
  readonly desiredDigest: string
  readonly signal: AbortSignal
}

/** Why a step of the last plan was not performed. */
export interface Leftover {
  readonly resource: string
  readonly key: string
  readonly reason: 'blocked' | 'risk' | 'needs' | 'after' | 'failed' | 'stopped' | 'not-asked'
  readonly text: string
}

/** How an apply ended; `blocked` covers refused by risk too. */
export type Outcome = 'settled' | 'blocked' | 'unknown' | 'failed' | 'stopped' | 'drifted'

/** What `converge` tells as it goes. Durations in milliseconds. */
export type EngineEvent =
  | { readonly event: 'assessed'; readonly assessments: readonly Assessment[] }
  | { readonly event: 'step-started'; readonly resource: string; readonly key: string; readonly step: Step }
  /** The step has changed the network and now waits for witnesses; without them it is undone after the deadline. */
  | { readonly event: 'step-confirming'; readonly resource: string; readonly key: string }
  | {
      readonly event: 'step-done'
      readonly resource: string
      readonly key: string
      readonly summary: string
      readonly durationMs: number
      /** The part of `durationMs` that the actions themselves took. */
      readonly actionsMs: number
    }
  | {
      readonly event: 'step-failed'
      readonly resource: string
      readonly key: string
      readonly problem: ProblemReport
      readonly durationMs: number
    }
  | {
      readonly event: 'finished'
      readonly outcome: Outcome
      readonly performed: number
      readonly durationMs: number
      readonly left: readonly Leftover[]
      readonly problems: readonly ProblemReport[]
      readonly assessments: readonly Assessment[]
    }

/** The reader with every answer read at most once: one round of observation sees one host. */
export function onceEach(reader: HostReader): HostReader {
  const seen = new Map<string, Promise<unknown>>()
  const once =
    <Args extends readonly unknown[], Result>(call: string, read: (...args: Args) => Promise<Result>) =>
    (...args: Args): Promise<Result> => {
      const key = JSON.stringify([call, ...args])
      const known = seen.get(key)
      if (known) return known as Promise<Result>
      const answer = read(...args)
      seen.set(key, answer)
      return answer
    }
  return {
    query: once('query', (argv, deadlineMs) => reader.query(argv, deadlineMs)),
    readText: once('readText', (path) => reader.readText(path)),
    list: once('list', (path) => reader.list(path)),
    resolve: once('resolve', (path) => reader.resolve(path)),
    facts: once('facts', (path) => reader.facts(path)),
    head: once('head', (path, bytes) => reader.head(path, bytes)),
    capacity: once('capacity', (path) => reader.capacity(path)),
    mountTables: once('mountTables', () => reader.mountTables()),
    sample: once('sample', (device) => reader.sample(device)),
    exclusive: once('exclusive', (device) => reader.exclusive(device)),
    ioActivity: once('ioActivity', (kernelNames) => reader.ioActivity(kernelNames)),
    unfinishedSteps: once('unfinishedSteps', () => reader.unfinishedSteps()),
    lockHolder: once('lockHolder', () => reader.lockHolder()),
    now: once('now', () => reader.now()),
    domains: once('domains', () => reader.domains()),
    pools: once('pools', () => reader.pools()),
    networks: once('networks', () => reader.networks()),
    instance: once('instance', () => reader.instance()),
    instanceEvents: once('instanceEvents', () => reader.instanceEvents()),
    ec2Network: once('ec2Network', (question) => reader.ec2Network(question)),
  }
}

/** Looks at one resource. What it cannot read makes it `unknown` and hides no other resource. */
export async function assess(resource: Resource, look: Look): Promise<Assessment> {
  const { desired, reader, clock } = look
  const declared = resource.declared(desired)
  const atMs = clock()
  const common = { resource: resource.id, needs: resource.needs, declared, atMs }
  // What was seen is told even where it does not suffice for a plan.
  let seen: Pick<Assessment, 'findings' | 'observed'> = { findings: [], observed: null }
  try {
    const observed = await resource.observe(reader, desired)
    seen = { findings: resource.check(observed), observed }
    const steps = declared ? resource.plan(observed, desired) : []
    return {
      ...common,
      ...seen,
      standing: steps.length === 0 ? 'settled' : 'drifted',
      summary: resource.describe(observed, desired),
      steps,
    }
  } catch (error) {
    const problem = problemOf(error)
    return { ...common, ...seen, standing: 'unknown', summary: problem.message, steps: [], problem }
  }
}

/** Looks at all resources in one round, side by side. */
export function assessAll(look: Look): Promise<readonly Assessment[]> {
  const round = { ...look, reader: onceEach(look.reader) }
  return Promise.all(look.resources.map((resource) => assess(resource, round)))
}

const lookAgain = (resource: Resource, look: Look): Promise<Assessment> =>
  assess(resource, { ...look, reader: onceEach(look.reader) })

/** Why the steps of `one` may not be performed now whatever they are, or null. */
function hindrance(one: Assessment, all: readonly Assessment[], failed: ReadonlyMap<string, ProblemReport>) {
  if (failed.has(one.resource))
    return { reason: 'failed', text: `an earlier step of ${one.resource} failed` } as const
  for (const need of one.needs) {
    const needed = all.find(({ resource }) => resource === need)
    if (!needed?.declared) continue
    if (failed.has(need)) return { reason: 'needs', text: `needs ${need}, which failed` } as const
    if (needed.standing === 'unknown')
      return { reason: 'needs', text: `needs ${need}, which could not be read` } as const
    if (needed.standing === 'drifted')
      return { reason: 'needs', text: `needs ${need}, which is not settled` } as const
  }
  return null
}

/** Why this one step may not be performed now, or null. */
function objection(step: Step, one: Assessment, request: Request) {
  if (request.only !== undefined && request.only !== one.resource)
    return { reason: 'not-asked', text: `only ${request.only} was asked for` } as const
  if (step.blocked) return { reason: 'blocked', text: step.blocked.message } as const
  if (RISKS.indexOf(step.risk) > RISKS.indexOf(request.allow))
    return {
      reason: 'risk',
      text: `is ${step.risk}; garrison apply --allow ${step.risk} performs it`,
    } as const
  const present = new Set(one.steps.map(stepKey))
  const before = step.after?.find((key) => present.has(key))
  return before === undefined ? null : ({ reason: 'after', text: `comes after ${before}` } as const)
}

function nextStep(all: readonly Assessment[], failed: ReadonlyMap<string, ProblemReport>, request: Request) {
  for (const one of all) {
    if (hindrance(one, all, failed)) continue
    const step = one.steps.find((candidate) => objection(candidate, one, request) === null)
    if (step) return { one, step }
  }
  return null
}

const leftovers = (
  all: readonly Assessment[],
  failed: ReadonlyMap<string, ProblemReport>,
  request: Request,
): readonly Leftover[] =>
  all.flatMap((one) =>
    one.steps.map((step) => {
      const why = objection(step, one, request) ?? hindrance(one, all, failed)
      return {
        resource: one.resource,
        key: stepKey(step),
        ...(why ?? { reason: 'stopped' as const, text: 'the apply was stopped before it' }),
      }
    }),
  )

/** What a step is refused with because the host is no longer as it was planned for; nothing has failed then. */
const refusals: readonly ProblemCode[] = ['plan.changed', 'drive.busy']

function outcomeOf(
  asked: readonly Assessment[],
  left: readonly Leftover[],
  failed: ReadonlyMap<string, ProblemReport>,
): Outcome {
  if ([...failed.values()].some(({ code }) => !refusals.includes(code))) return 'failed'
  if (left.some(({ reason }) => reason === 'stopped')) return 'stopped'
  if (left.some(({ reason }) => reason === 'blocked' || reason === 'risk')) return 'blocked'
  if (asked.some(({ declared, standing }) => declared && standing === 'unknown')) return 'unknown'
  if (failed.size > 0) return 'blocked'
  return left.some(({ reason }) => reason !== 'not-asked') ? 'drifted' : 'settled'
}

/** The problem of a step whose beginning has been undone; that this failed as well is told with it. */
async function undone(
  problem: ProblemReport,
  otherwise: readonly Action[],
  performer: Performer,
): Promise<ProblemReport> {
  try {
    for (const action of otherwise) await performer.perform(action)
    return problem
  } catch (error) {
    return {
      ...problem,
      message: `${problem.message}; and it could not be undone: ${problemOf(error).message}`,
    }
  }
}

const triesUntilStuck = 3

/**
 * Performs step after step until every plan is empty or nothing further may be performed; always ends with `finished`.
 * Throws only when the journal cannot be written (`journal.unwritable`) or the document is for another host.
 */
export async function* converge(options: Convergence): AsyncGenerator<EngineEvent> {
  const { resources, performer, journal, desired, request, apply, instance, clock, signal } = options
  if (desired.host.instance !== undefined && desired.host.instance !== instance)
    throw new HostError(
      'plan.other-instance',
      `the desired document is for ${desired.host.instance}, this host is ${instance}`,
      { details: { desired: desired.host.instance, observed: instance } },
    )
  const startedMs = clock()
  const stamp = () => ({ apply, atMs: clock() })
  await journal.append({
    ...stamp(),
    kind: 'apply-started',
    request,
    desired: options.desiredDigest,
    instance,
  })
  let all = await assessAll(options)
  yield { event: 'assessed', assessments: all }

  const failed = new Map<string, ProblemReport>()
  const tries = new Map<string, number>()
  const seenAfter = new Map(resources.map(({ id }) => [id, 0]))
  let performed = 0
  let wholeLookAfter = 0

  while (!signal.aborted) {
    const next = nextStep(all, failed, request)
    if (next === null) {
      if (wholeLookAfter === performed) break
      all = await assessAll(options)
      wholeLookAfter = performed
      for (const { id } of resources) seenAfter.set(id, performed)
      continue
    }
    const { one, step } = next
    const resource = resources.find(({ id }) => id === one.resource) as Resource
    const look = async () => {
      const again = await lookAgain(resource, options)
      all = all.map((other) => (other.resource === resource.id ? again : other))
      seenAfter.set(resource.id, performed)
      return again
    }
    if (seenAfter.get(resource.id) !== performed) {
      await look()
      continue
    }
    const key = stepKey(step)
    const reason = JSON.stringify([key, step.because])
    const tried = tries.get(reason) ?? 0
    if (tried === triesUntilStuck) {
      const text = `${key} was performed ${tried} times for the same reason and is still needed`
      failed.set(resource.id, new HostError('plan.stuck', text, { details: { key } }).report())
      continue
    }
    tries.set(reason, tried + 1)
    yield { event: 'step-started', resource: resource.id, key, step }

    const beganMs = clock()
    const outcomes: ActionOutcome[] = []
    let problem: ProblemReport | null = null
    let begun = false
    try {
      if (step.claims) await performer.claim(step.claims, () => confirm(step, resource, options))
    } catch (error) {
      problem = problemOf(error)
    }
    if (problem === null) {
      await journal.append({ ...stamp(), kind: 'step-started', key, resource: resource.id, step })
      begun = true
      try {
        for (const action of step.actions) {
          // Before the wait and not in it: this line is data that the caller's own session has to carry.
          if (action.kind === 'undo' && action.operation === 'confirm')
            yield { event: 'step-confirming', resource: resource.id, key }
          // Alone a wait for witnesses is not finished when the apply is to end: who ends it sees the host as it was.
          outcomes.push(await performer.perform(action, action.kind === 'undo' ? signal : undefined))
        }
      } catch (error) {
        problem = problemOf(error)
        if (outcomes.length > 0 && step.otherwise) problem = await undone(problem, step.otherwise, performer)
      }
    }
    const durationMs = clock() - beganMs
    if (begun) performed += 1
    if (problem === null) {
      await journal.append({ ...stamp(), kind: 'step-done', key, outcomes, durationMs })
      const actionsMs = outcomes.reduce((sum, outcome) => sum + outcome.durationMs, 0)
      const { summary } = step
      yield { event: 'step-done', resource: resource.id, key, summary, durationMs, actionsMs }
    } else {
      const { code, message } = problem
      await journal.append({ ...stamp(), kind: 'step-failed', key, outcomes, durationMs, code, message })
      failed.set(resource.id, problem)
      yield { event: 'step-failed', resource: resource.id, key, problem, durationMs }
    }
    await look()
  }

  const left = leftovers(all, failed, request)
  const asked = all.filter(({ resource }) => request.only === undefined || request.only === resource)
  const outcome = outcomeOf(asked, left, failed)
  const durationMs = clock() - startedMs
  await journal.append({ ...stamp(), kind: 'apply-ended', outcome, steps: performed, durationMs })
  const unread = asked.flatMap(({ declared, problem }) => (declared && problem ? [problem] : []))
  yield {
    event: 'finished',
    outcome,
    performed,
    durationMs,
    left,
    problems: [...failed.values(), ...unread],
    assessments: all,
  }
}

/** Under exclusive opens: observes and plans once more; anything but the very same step is refused (safety rule 8). */
async function confirm(step: Step, resource: Resource, options: Convergence): Promise<void> {
  const again = await lookAgain(resource, options)
  const key = stepKey(step)
  const same = again.steps.find((candidate) => stepKey(candidate) === key)
  if (again.problem)
    throw new HostError('plan.changed', `${key}: ${again.problem.message}`, { details: { ...again.problem } })
  if (same?.blocked)
    throw new HostError('plan.changed', `${key} is now blocked: ${same.blocked.message}`, {
      details: { ...same.blocked },
    })
  if (JSON.stringify(same) !== JSON.stringify(step))
    throw new HostError('plan.changed', `${key} is no longer what the host needs`, { details: { key } })
}
