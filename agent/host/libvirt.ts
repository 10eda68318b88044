// The way to libvirt: opened when it is first needed, kept, and every error of its client turned into one of ours.
//
// INVARIANTS
// - Nothing is loaded or opened before somebody asks: a host without VMs pays nothing.
// - Sampling and control have a connection each, so that neither waits for the other (libvirtd serves a client's calls in turn).

import { readFile } from 'node:fs/promises'
import { HostError } from '../../provisioning/problem.ts'
import { errnoOf, replaceFile } from './files.ts'

/** What is kept of a connection, whoever its client is: one that connects again by itself. */
export interface Kept {
  readonly connected: boolean
  whenConnected(options: { readonly deadlineMs: number }): Promise<void>
}

/** What a connection is for. */
export type Use = 'control' | 'monitor'

/** How long a caller waits for a connection that was lost: a libvirtd that is started again answers within a second. */
const backDeadlineMs = 3000
/** How much later libvirt must have answered for it to be remembered anew. */
const rememberMs = 10_000

/** An error of the client as far as it is looked at here; agent/node-libvirt says what the words mean. */
interface ClientError extends Error {
  readonly code?: number
  readonly codeName?: string
  readonly domainName?: string
  readonly procedure?: string
  readonly reason?: string
  readonly sent?: boolean
}

const isClientError = (error: unknown): error is ClientError =>
  error instanceof Error && (error.name === 'LibvirtError' || error.name === 'LibvirtConnectionError')

/** Remembers over the end of this process when libvirt last answered. */
export interface AnswerMemory {
  recall(): Promise<number | null>
  keep(answeredMs: number): Promise<void>
}

/** An age to the whole unit below; what is older than a day is told in days. */
function age(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1000],
  ] as const
  const [unit, unitMs] = units.find(([, one]) => ms >= one) ?? ['s', 1000]
  return `${Math.floor(ms / unitMs)} ${unit}`
}

/**
 * What went wrong in a call, in our words: `libvirt.refused` (details: libvirt's `code` by name, `number`, `domain`,
 * `procedure`), `libvirt.denied`, `libvirt.unreachable` (details: `reason`, `answeredMs`, and `sent`: the call may have been
 * performed). Everything else is given back as it is. `answeredMs` is when libvirt last answered, null when never.
 */
export function libvirtProblem(error: unknown, answeredMs: number | null, nowMs: number): unknown {
  if (!isClientError(error)) return error
  const { message, procedure, codeName, domainName, reason, sent = false } = error
  if (error.name === 'LibvirtError') {
    const details = { code: codeName, number: error.code, domain: domainName, procedure }
    return new HostError('libvirt.refused', message, { details, cause: error })
  }
  if (reason === 'aborted' || reason === 'invalid') return error
  if (reason === 'denied') return new HostError('libvirt.denied', message, { details: {}, cause: error })
  const silent = answeredMs === null ? 'does not answer' : `has not answered for ${age(nowMs - answeredMs)}`
  const done = sent ? '; what was asked may have been done' : ''
  return new HostError('libvirt.unreachable', `libvirt ${silent}: ${message}${done}`, {
    details: { reason, sent, answeredMs },
    cause: error,
  })
}

/** Keeps the connections of one process to libvirt. `C` is the client's connection, with its calls. */
export class Libvirt<C extends Kept> {
  readonly #open: (use: Use) => Promise<C>
  readonly #clock: () => number
  readonly #memory: AnswerMemory
  readonly #kept = new Map<Use, Promise<C>>()
  #answeredMs: number | null = null
  #rememberedMs = 0

  constructor(open: (use: Use) => Promise<C>, clock: () => number, memory: AnswerMemory) {
    this.#open = open
    this.#clock = clock
    this.#memory = memory
  }

  /**
   * The connection for that use, opened if it is not and waited for if it was lost. Its calls throw what `libvirtProblem` says,
   * and so does this.
   */
  async connection(use: Use): Promise<C> {
    try {
      const kept = this.#kept.get(use) ?? this.#begin(use)
      const connection = await kept
      if (!connection.connected) await connection.whenConnected({ deadlineMs: backDeadlineMs })
      await this.#remember()
      return this.#told(connection)
    } catch (error) {
      throw await this.#problem(error)
    }
  }

  /** A connection that is not kept: the caller closes it. Its calls throw what `libvirtProblem` says, and so does this. */
  async own(use: Use): Promise<C> {
    try {
      const connection = await this.#open(use)
      this.#answeredMs = this.#clock()
      return this.#told(connection)
    } catch (error) {
      throw await this.#problem(error)
    }
  }

  async #remember(): Promise<void> {
    const answeredMs = this.#answeredMs ?? 0
    if (answeredMs - this.#rememberedMs < rememberMs) return
    this.#rememberedMs = answeredMs
    await this.#memory.keep(answeredMs)
  }

  async #problem(error: unknown): Promise<unknown> {
    if (isClientError(error)) this.#answeredMs ??= await this.#memory.recall()
    return libvirtProblem(error, this.#answeredMs, this.#clock())
  }

  #begin(use: Use): Promise<C> {
    const opening = this.#open(use).then(
      (connection) => {
        this.#answeredMs = this.#clock()
        return connection
      },
      (error) => {
        // The next one who asks tries again.
        this.#kept.delete(use)
        throw error
      },
    )
    this.#kept.set(use, opening)
    return opening
  }

  /** The connection, but what its calls reject with is ours. */
  #told(connection: C): C {
    return new Proxy(connection, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => {
          const result = value.apply(target, args)
          return result instanceof Promise ? result.then(this.#answered, this.#failed) : result
        }
      },
    })
  }

  readonly #answered = <T>(answer: T): T => {
    this.#answeredMs = this.#clock()
    return answer
  }

  readonly #failed = async (error: unknown): Promise<never> => {
    if (error instanceof Error && error.name === 'LibvirtError') this.#answeredMs = this.#clock()
    throw await this.#problem(error)
  }
}

/** A memory in a file that everybody may read. */
export const answerMemory = (path: string): AnswerMemory => ({
  async recall() {
    try {
      const text = await readFile(path, 'utf8')
      return /^\d{1,15}\n$/.test(text) ? Number(text) : null
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      // Then nobody knows, and what is told says so.
      return null
    }
  },
  async keep(answeredMs) {
    await replaceFile(path, `${answeredMs}\n`, 0o644).catch((error: unknown) => {
      // That libvirt answers now matters more than that somebody will know when it last did.
      if (!(error instanceof HostError)) throw error
    })
  },
})
