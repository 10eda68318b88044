// One request at a time to an API of AWS, through the SDK but tried once only, and what can be known of one that went wrong.
//
// INVARIANTS
// - The SDK never tries again by itself: what it would call the same request, the other side may count twice.
// - A connection is used once: one that was kept may be closed by the other side just as something is written to it.
// - A request is signed with the time that its caller names, however long it takes to leave: AWS takes none that is five minutes old,
//   so that what a stopped process still has in hand arrives at no later time.

import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { Duplex } from 'node:stream'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'
import type { Outcome } from './sending.ts'

/** What became of a request. */
export type Answer<T> =
  | { readonly kind: 'answered'; readonly value: T; readonly serverMs: number | null }
  | (Exclude<Outcome, { kind: 'accepted' }> & { readonly name: string })

/** How requests are made. */
export interface LineOptions {
  readonly region: string
  /** A request may take so long, from the look for credentials to the end of the answer. */
  readonly deadlineMs?: number
  readonly connectMs?: number
}

/** What is used here of a client of the SDK. */
interface Client {
  readonly config: object
  readonly middlewareStack: {
    // biome-ignore lint/suspicious/noExplicitAny: the SDK types a middleware by its input and output, which matter nothing here
    add(middleware: any, options: any): void
  }
  destroy(): void
}

/** Codes of errors that say that something in the request itself is not taken. */
const ofContent =
  /^(InvalidParameter|MissingRequiredParameter|MissingParameter|Validation|LimitExceeded|Serialization|InvalidFormat|RequestEntityTooLarge|InvalidOperation)/
const ofRights =
  /^(AccessDenied|UnauthorizedOperation|OptInRequired|ExpiredToken|InvalidClientTokenId|UnrecognizedClient|MissingAuthenticationToken|SignatureDoesNotMatch|IncompleteSignature|InvalidSignature|RequestExpired|RequestTimeTooSkewed|AuthFailure|InvalidAccessKeyId|NotAuthorized|CredentialsProviderError|TokenProviderError)/
const ofHaste = /Throttl|TooManyRequests|RequestLimitExceeded|SlowDown/

const mostSaid = 400

/** A client of one API. */
export class Line<C extends Client> {
  readonly client: C
  readonly #deadlineMs: number
  readonly #what: string
  readonly #agents: readonly [HttpAgent, HttpsAgent]
  readonly #closed = new AbortController()
  /** Whether anything of the request can have reached the other side. */
  #reached = false
  #signedMs = 0
  #serverMs: number | null = null
  #code: number | null = null

  /** `make` makes the client of a configuration; `what` is how people call the API. */
  constructor(
    what: string,
    { region, deadlineMs = 25_000, connectMs = 5000 }: LineOptions,
    make: (config: object) => C,
  ) {
    this.#what = what
    this.#deadlineMs = deadlineMs
    const reached = () => {
      this.#reached = true
    }
    const watched = <A extends HttpAgent>(agent: A, event: 'connect' | 'secureConnect'): A => {
      const create = agent.createConnection.bind(agent)
      agent.createConnection = (...args: Parameters<typeof create>) => {
        const socket = create(...args) as Duplex | null | undefined
        socket?.once(event, reached)
        return socket
      }
      return agent
    }
    this.#agents = [
      watched(new HttpAgent({ keepAlive: false }), 'connect'),
      watched(new HttpsAgent({ keepAlive: false }), 'secureConnect'),
    ]
    const [httpAgent, httpsAgent] = this.#agents
    this.client = make({
      region,
      maxAttempts: 1,
      requestHandler: { httpAgent, httpsAgent, connectionTimeout: connectMs },
    })
    // The SDK signs with the clock and this added to it, and sets it by what the other side answers.
    Object.defineProperty(this.client.config, 'systemClockOffset', {
      get: () => this.#signedMs - Date.now(),
      set: () => undefined,
    })
    this.client.middlewareStack.add(
      (next: (args: unknown) => Promise<{ response: unknown }>) => async (args: unknown) => {
        const result = await next(args)
        const { statusCode, headers } = result.response as {
          readonly statusCode: number
          readonly headers: Readonly<Record<string, string>>
        }
        this.#code = statusCode
        const serverMs = Date.parse(headers.date ?? '')
        // It tells whole seconds, of which half a one has passed on average.
        this.#serverMs = Number.isNaN(serverMs) ? null : serverMs + 500
        return result
      },
      { step: 'deserialize', priority: 'low', name: 'garrisonAnswer' },
    )
  }

  /** One request. Never throws for what AWS, the network or the credentials do. `nowMs`: the true time, for the signature. */
  async call<T>(
    send: (client: C, abortSignal: AbortSignal) => Promise<T>,
    nowMs: number,
  ): Promise<Answer<T>> {
    this.#reached = false
    this.#serverMs = null
    this.#code = null
    this.#signedMs = nowMs
    const late = AbortSignal.timeout(this.#deadlineMs)
    try {
      const value = await send(this.client, AbortSignal.any([late, this.#closed.signal]))
      return { kind: 'answered', value, serverMs: this.#serverMs }
    } catch (error) {
      if (!(error instanceof Error)) throw error
      return this.#meaning(error, late.aborted)
    } finally {
      for (const agent of this.#agents) agent.destroy()
    }
  }

  /** A request that is under way is given up: nobody can tell what became of it. */
  close(): void {
    this.#closed.abort()
    this.client.destroy()
  }

  #meaning(error: Error, isLate: boolean): Exclude<Answer<never>, { kind: 'answered' }> {
    const { name } = error
    const serverMs = this.#serverMs
    const said = `${name}: ${error.message}`.slice(0, mostSaid)
    const problem = (code: ProblemCode, text = said): HostError =>
      new HostError(code, `${this.#what}: ${text}`, { cause: error })
    const failed = (code: ProblemCode) =>
      ({ kind: 'failed', problem: problem(code), name, serverMs }) as const
    if (ofRights.test(name)) return failed('cloudwatch.denied')
    if (ofHaste.test(name)) return failed('cloudwatch.busy')
    const code = this.#code
    if (code !== null && code >= 400 && code < 500)
      return ofContent.test(name) || code === 413
        ? { kind: 'refused', why: said, name, serverMs }
        : failed(code === 429 ? 'cloudwatch.busy' : 'cloudwatch.refused')
    // Said by what takes requests in, before anything was done; any other fault may come after it.
    if (code === 503) return failed('cloudwatch.busy')
    const text = isLate && code === null ? `no answer within ${this.#deadlineMs / 1000} s` : said
    return this.#reached
      ? { kind: 'unanswered', problem: problem('cloudwatch.unanswered', text), name, serverMs }
      : { kind: 'failed', problem: problem('cloudwatch.unreachable', text), name, serverMs }
  }
}

/** Why a question was not answered, as the error that it is. */
export const problemOfAsking = (answer: Exclude<Answer<never>, { kind: 'answered' }>): HostError =>
  answer.kind === 'refused'
    ? new HostError('cloudwatch.refused', `CloudWatch does not take the question: ${answer.why}`)
    : answer.problem
