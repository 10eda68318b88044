// Statistics of many domains: libvirt works through one call's domains one after the other, so they are asked for in parts at once.

import type { Connection } from './connection.ts'
import { VIR } from './constants.ts'
import { LibvirtConnectionError, LibvirtError } from './errors.ts'
import type { CallOptions } from './rpc.ts'
import type { Domain, DomainRef, TypedParams } from './shapes.ts'

/** What is asked for of the domains, and how. */
export interface StatsOptions extends CallOptions {
  /** `VIR.DOMAIN_STATS_…` added together; all that libvirt has when left out. */
  readonly stats?: number | undefined
  /**
   * `VIR.CONNECT_GET_ALL_DOMAINS_STATS_…` added together; NOWAIT when left out: a domain that is busy or hangs then gives
   * only what can be had without it, and holds up nobody.
   */
  readonly flags?: number | undefined
  /** How many domains one call asks for at most; 8 when left out. Four calls are under way at once, and the last to end has little left. */
  readonly shardSize?: number | undefined
}

/** What is known: of a domain in neither list nothing is, since it has gone. */
export interface DomainStats {
  readonly records: readonly { readonly dom: Domain; readonly params: TypedParams }[]
  /** The domains of which nothing could be learned, and why. */
  readonly failed: readonly {
    readonly doms: readonly DomainRef[]
    readonly error: LibvirtError | LibvirtConnectionError
  }[]
}

/** Asks for the statistics of `doms` in shards. A shard that fails leaves the others as they are. */
export async function domainListGetStats(
  connection: Connection,
  doms: readonly DomainRef[],
  options: StatsOptions = {},
): Promise<DomainStats> {
  const { stats = 0, flags = VIR.CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT, shardSize = 8, ...how } = options
  const shards = Math.ceil(doms.length / shardSize)
  // Taken in turns: what stands together in a list is often slow together.
  const parts = Array.from({ length: shards }, (_, shard) =>
    doms.filter((_, index) => index % shards === shard),
  )
  const answers = await Promise.all(
    parts.map(async (part): Promise<DomainStats> => {
      try {
        return {
          records: await connection.connectGetAllDomainStats({ doms: part, stats, flags }, how),
          failed: [],
        }
      } catch (error) {
        if (error instanceof LibvirtError || error instanceof LibvirtConnectionError)
          return { records: [], failed: [{ doms: part, error }] }
        throw error
      }
    }),
  )
  return {
    records: answers.flatMap(({ records }) => records),
    failed: answers.flatMap(({ failed }) => failed),
  }
}
