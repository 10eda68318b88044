// The way to libvirt: opened when it is first needed, kept, and every error of its client turned into one of ours.
//
// INVARIANTS
// - Nothing is loaded or opened before somebody asks: a host without VMs pays nothing.
// - Sampling and control have a connection each, so that neither waits for the other (libvirtd serves a client's calls in turn).

import { HostError } from '../../provisioning/problem.ts'

/** What is kept of a connection, whoever its client is: one that connects again by itself. */
export interface Kept {
  readonly connected: boolean
  whenConnected(options: { readonly deadlineMs: number }): Promise<void>
}

/** What a connection is for. */
export type Use = 'control' | 'monitor'

/** How long a caller waits for a connection that was lost: a libvirtd that is started again answers within a second. */
const backDeadlineMs = 3000

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

const second = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+/, '')

/**
 * What went wrong in a call, in our words: `libvirt.refused` (details: libvirt's `code` by name, `number`, `domain`,
 * `procedure`), `libvirt.denied`, `libvirt.unreachable` (details: `reason`, `answeredMs`, and `sent`: the call may have been
 * performed). Everything else is given back as it is. `answeredMs` is when libvirt last answered, null when never.
 */
export function libvirtProblem(error: unknown, answeredMs: number | null): unknown {
  if (!isClientError(error)) return error
  const { message, procedure, codeName, domainName, reason, sent = false } = error
  if (error.name === 'LibvirtError') {
    const details = { code: codeName, number: error.code, domain: domainName, procedure }
    return new HostError('libvirt.refused', message, { details, cause: error })
  }
  if (reason === 'aborted' || reason === 'invalid') return error
  if (reason === 'denied') return new HostError('libvirt.denied', message, { details: {}, cause: error })
  const last = answeredMs === null ? '' : `; it last did at ${second(answeredMs)}`
  const done = sent ? '; what was asked may have been done' : ''
  return new HostError('libvirt.unreachable', `libvirt does not answer: ${message}${last}${done}`, {
    details: { reason, sent, answeredMs },
    cause: error,
  })
}

/** Keeps the connections of one process to libvirt. `C` is the client's connection, with its calls. */
export class Libvirt<C extends Kept> {
  readonly #open: (use: Use) => Promise<C>
  readonly #clock: () => number
  readonly #kept = new Map<Use, Promise<C>>()
  #answeredMs: number | null = null

  constructor(open: (use: Use) => Promise<C>, clock: () => number) {
    this.#open = open
    this.#clock = clock
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
      return this.#told(connection)
    } catch (error) {
      throw libvirtProblem(error, this.#answeredMs)
    }
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

  readonly #failed = (error: unknown): never => {
    if (error instanceof Error && error.name === 'LibvirtError') this.#answeredMs = this.#clock()
    throw libvirtProblem(error, this.#answeredMs)
  }
}
