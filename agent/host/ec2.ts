// EC2 as the rest of the agent has it: asked in a transient unit that may speak to the network, its last answer kept.
//
// INVARIANTS
// - An answer counts as fresh only while nothing was asked to be changed since its question began, in whatever process.
// - The last answer outlives this process and the reach of the Region; it is always told with its age.

import { readFile } from 'node:fs/promises'
import type { Ec2Network, Ec2Question, Ec2Reading } from '../../provisioning/instance.ts'
import { ownTag } from '../../provisioning/instance.ts'
import { HostError, problemOf } from '../../provisioning/problem.ts'
import type { Ec2Action } from '../../provisioning/resource.ts'
import type { Ec2Answer, Ec2Request } from './ec2-call.ts'
import { execute, lastLines } from './exec.ts'
import { errnoOf, replaceFile } from './files.ts'
import type { Imds } from './imds.ts'
import { hasUnits, networkProperties, reportIn, self, systemdRun } from './unit.ts'

/** What reads EC2. */
export interface FromEc2 {
  /** Never throws for what EC2, the metadata or the network do. */
  network(question: Ec2Question): Promise<Ec2Reading>
}

/** What asks EC2 to change something. */
export interface ToEc2 {
  /** Throws `ec2.…` and `imds.…`. */
  perform(action: Ec2Action): Promise<void>
}

/** What is put together for it. Times are epoch milliseconds. */
export interface Ec2Options {
  readonly imds: Pick<Imds, 'instance'>
  /** Where the last answer is kept. */
  readonly memoryPath: string
  readonly clock: () => number
  /** How a request is made; in a unit of its own by default. */
  readonly call?: (request: Ec2Request) => Promise<Ec2Answer>
  /** So long an answer is told again. */
  readonly freshMs?: number
}

const usualFreshMs = 30_000
const readDeadlineMs = 12_000
const actionDeadlineMs = 90_000
/** After EC2 could not be reached it is not asked for so long; it doubles with each further failure. */
const leastRestMs = 15_000
const mostRestMs = 120_000

/** What is kept over the end of this process. */
interface Memory {
  readonly question: string
  readonly answeredMs: number
  /** False once something was asked to be changed since. */
  readonly fresh: boolean
  readonly answer: Ec2Network
  /** Every interface with our tag that was ever seen. */
  readonly seen: readonly string[]
}

async function recall(path: string): Promise<Memory | null> {
  try {
    const memory = JSON.parse(await readFile(path, 'utf8')) as Partial<Memory> | null
    const { question, answeredMs, answer, seen } = memory ?? {}
    const isWhole = typeof question === 'string' && typeof answeredMs === 'number' && Array.isArray(seen)
    return isWhole && Array.isArray(answer?.interfaces) ? (memory as Memory) : null
  } catch (error) {
    // What is not there or was torn is no memory; EC2 is asked instead.
    if (error instanceof SyntaxError || errnoOf(error) !== undefined) return null
    throw error
  }
}

/** Settings of the SDK that say where things are; no secret is among them. */
const passedOn =
  /^AWS_(ENDPOINT_URL|ENDPOINT_URL_EC2|EC2_METADATA_SERVICE_ENDPOINT|USE_(FIPS|DUALSTACK)_ENDPOINT)$/

/** Asks EC2 in a unit of its own where there are units and this process may start them, else in this process. */
async function callApart(request: Ec2Request): Promise<Ec2Answer> {
  if (!(await hasUnits())) {
    const { callEc2 } = await import('./ec2-call.ts')
    return callEc2(request)
  }
  // Its own deadline comes first, and says more.
  const deadlineMs = request.deadlineMs + 30_000
  const argv = systemdRun({
    argv: [...self, 'ec2-call', '--json', '--', JSON.stringify(request)],
    deadlineMs,
    environment: Object.fromEntries(
      Object.entries(process.env).filter(
        (pair): pair is [string, string] => pair[1] !== undefined && passedOn.test(pair[0]),
      ),
    ),
    properties: ['CapabilityBoundingSet=', ...networkProperties],
  })
  const { exit, stdout, stderr } = await execute(argv, { deadlineMs, keep: 'all', tethered: true })
  if (exit === 0) return (JSON.parse(stdout) as { readonly answer: Ec2Answer }).answer
  const report = reportIn(stdout)
  if (report === null)
    throw new HostError('ec2.unreachable', `garrison ec2-call ended with ${exit}: ${lastLines(stderr, 1)}`)
  throw new HostError(report.code, report.message, { details: { ...report.details } })
}

/** EC2, for one process. */
export class Ec2 implements FromEc2, ToEc2 {
  readonly #options: Ec2Options
  readonly #call: (request: Ec2Request) => Promise<Ec2Answer>
  #changes = 0
  #rest: { readonly untilMs: number; readonly ms: number; readonly problem: HostError } | null = null

  constructor(options: Ec2Options) {
    this.#options = options
    this.#call = options.call ?? callApart
  }

  async network(question: Ec2Question): Promise<Ec2Reading> {
    const { clock, memoryPath, freshMs = usualFreshMs } = this.#options
    const memory = await recall(memoryPath)
    const key = JSON.stringify([question.subnetId, question.deviceIndex])
    const last = memory?.question === key ? memory : null
    const nowMs = clock()
    try {
      const instance = await this.#options.imds.instance()
      if (instance === null) throw noInstance()
      const { instanceId, region } = instance
      const isSame = last?.answer.instanceId === instanceId
      if (last?.fresh && isSame && nowMs >= last.answeredMs && nowMs - last.answeredMs < freshMs)
        return { answer: last.answer, answeredMs: last.answeredMs, problem: null }
      const before = this.#changes
      const found = await this.#ask({
        kind: 'network',
        region,
        instanceId,
        question,
        deadlineMs: readDeadlineMs,
      })
      if (found === null) throw new HostError('ec2.unexpected-answer', 'EC2 answers nothing')
      const seenBefore = memory?.answer.instanceId === instanceId ? memory.seen : []
      const own = found.interfaces.filter(({ tags }) => tags[ownTag] === instanceId).map(({ id }) => id)
      const seen = [...new Set([...seenBefore, ...own])].sort()
      const answer = { ...found, gone: seen.filter((id) => !own.includes(id)) }
      await this.#keep({ question: key, answeredMs: nowMs, fresh: this.#changes === before, answer, seen })
      return { answer, answeredMs: nowMs, problem: null }
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      return {
        answer: last?.answer ?? null,
        answeredMs: last?.answeredMs ?? null,
        problem: problemOf(error),
      }
    }
  }

  async perform(action: Ec2Action): Promise<void> {
    const instance = await this.#options.imds.instance()
    if (instance === null) throw noInstance()
    const { region } = instance
    await this.#changed()
    try {
      await this.#call({ kind: 'action', region, action, deadlineMs: actionDeadlineMs })
    } catch (error) {
      const { interfaceId } = error instanceof HostError ? error.details : {}
      // The token of one that is not there leads to nothing any more: the next try takes another.
      if (error instanceof HostError && error.code === 'ec2.not-visible' && typeof interfaceId === 'string')
        await this.#changed(interfaceId)
      throw error
    } finally {
      this.#changes += 1
      this.#rest = null
    }
  }

  /** Asks, but leaves EC2 alone for a while after it could not be reached. */
  async #ask(request: Ec2Request): Promise<Ec2Answer> {
    const { clock } = this.#options
    const nowMs = clock()
    if (this.#rest !== null && nowMs < this.#rest.untilMs) {
      const { code, message, details } = this.#rest.problem
      const waitS = Math.ceil((this.#rest.untilMs - nowMs) / 1000)
      throw new HostError(code, `${message}; asked again in ${waitS} s`, { details })
    }
    try {
      const answer = await this.#call(request)
      this.#rest = null
      return answer
    } catch (error) {
      if (error instanceof HostError && error.retry) {
        const ms = Math.min((this.#rest?.ms ?? leastRestMs / 2) * 2, mostRestMs)
        this.#rest = { ms, problem: error, untilMs: clock() + ms }
      }
      throw error
    }
  }

  /** Writes down that what is kept may not be so any more. `seen`: an interface that there was. */
  async #changed(seen?: string): Promise<void> {
    const memory = await recall(this.#options.memoryPath)
    if (memory === null) return
    const known = seen === undefined ? memory.seen : [...new Set([...memory.seen, seen])].sort()
    await this.#keep({ ...memory, fresh: false, seen: known })
  }

  async #keep(memory: Memory): Promise<void> {
    await replaceFile(this.#options.memoryPath, `${JSON.stringify(memory)}\n`, 0o644).catch(
      (error: unknown) => {
        // Whoever may not write it asks EC2 each time; that is slower, and as true.
        if (!(error instanceof HostError) || process.getuid?.() === 0) throw error
      },
    )
  }
}

const noInstance = (): HostError =>
  new HostError('ec2.no-instance', 'there are no instance metadata: this host is no EC2 instance')
