// What a host has a peer send for it over the fleet port, and what this one does so for others. What it is, neither side here knows.
//
// INVARIANTS
// - Where it is not sure that the peer did nothing, the answer is that nobody can tell.
// - The certificate must have the role operate: it acts outside by the hand of another host.

import { HostError } from '../../provisioning/problem.ts'
import type { Address } from './address.ts'
import { reach } from './dial.ts'
import type { Keyring } from './keyring.ts'
import { Allowance } from './pace.ts'
import { asked } from './question.ts'
import { wantRole } from './relay.ts'
import type { Identity } from './trust.ts'

/** Where batches go on the port. */
export const batchPath = '/v1/batch'
/** How large one may be, in bytes. */
export const mostBatchBytes = 2 ** 19

/** What came of a batch. */
export type BatchAnswer =
  | { readonly kind: 'answered'; readonly value: unknown }
  /** The peer did nothing of it. */
  | { readonly kind: 'refused'; readonly problem: HostError }
  /** Nobody can tell what the peer did. */
  | { readonly kind: 'unanswered'; readonly problem: HostError }

/** Longer than the peer itself waits for those whom it asks. */
const deadlineMs = 45_000
const atOnce = 4
const ofOne = { burst: 30, perSecond: 0.5 } as const
const ofAll = { burst: 120, perSecond: 4 } as const

const problemIn = (error: unknown): HostError => {
  if (error instanceof HostError) return error
  throw error
}

/** Has a peer take a batch, until `stop` gives it up. Never rejects for what the network or the peer does. */
export async function askBatch(
  keyring: Keyring,
  host: string,
  addresses: readonly Address[],
  batch: object,
  stop: AbortSignal,
): Promise<BatchAnswer> {
  const reached = await reach(keyring, host, addresses).catch(problemIn)
  if (reached instanceof HostError) return { kind: 'refused', problem: reached }
  try {
    return { kind: 'answered', value: await asked(reached.socket, host, batchPath, batch, deadlineMs, stop) }
  } catch (error) {
    const problem = problemIn(error)
    // A problem that it names is told in the place of doing it; a defect may come at any moment.
    const isSure = problem.code !== 'fleet.unreachable' && problem.code !== 'agent.defect'
    return { kind: isSure ? 'refused' : 'unanswered', problem }
  }
}

/** Takes the batches of peers, as fast as one host does that for others. */
export class BatchesOfPeers {
  readonly #take: (peer: string, batch: unknown) => Promise<object>
  readonly #steadyMs: () => number
  readonly #all: Allowance
  readonly #each = new Map<string, Allowance>()
  readonly #under = new Set<string>()

  constructor(take: (peer: string, batch: unknown) => Promise<object>, steadyMs: () => number) {
    this.#take = take
    this.#steadyMs = steadyMs
    this.#all = new Allowance(ofAll.burst, ofAll.perSecond, steadyMs())
  }

  /** Throws `fleet.role-refused`, `fleet.busy`, and what taking it throws; then nothing was done. */
  async answer(peer: Identity, batch: unknown): Promise<object> {
    wantRole(peer, 'operate')
    const { host } = peer
    const nowMs = this.#steadyMs()
    const own = this.#each.get(host) ?? new Allowance(ofOne.burst, ofOne.perSecond, nowMs)
    this.#each.set(host, own)
    const isBusy = this.#under.has(host) || this.#under.size >= atOnce
    if (isBusy || !own.take(1, nowMs) || !this.#all.take(1, nowMs))
      throw new HostError('fleet.busy', `more is sent for ${host} here already than may be in this time`)
    this.#under.add(host)
    try {
      return await this.#take(host, batch)
    } finally {
      this.#under.delete(host)
    }
  }
}
