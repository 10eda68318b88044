// What this host sends to CloudWatch for its peers: errands of theirs under its own credentials, in the name of who asks, each once.

import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { CloudWatchOptions } from './cloudwatch.ts'
import { type Errand, isErrand, outcomeTold } from './errand.ts'
import { streamOf } from './logs-door.ts'
import type { Door } from './sending.ts'
import type { Row } from './spool.ts'

/** What it stands on. */
export interface RelayingGround extends Pick<CloudWatchOptions, 'openMetrics' | 'openLogs'> {
  /** What this host tells itself, and where; null while it tells nothing. */
  readonly own: () => { readonly settings: DesiredCloudWatch; readonly region: string } | null
  readonly epochMs: () => number
}

/** What was done for one peer since the daemon began. */
export interface DoneFor {
  readonly rows: number
  readonly requests: number
  readonly atMs: number
}

/** Who asks, by the report that it has sent: what it may speak of. */
export interface Asker {
  readonly peer: string
  readonly host: string
  readonly instance: string
}

const refused = (why: string): HostError => new HostError('fleet.errand-refused', why)

/** The errands of peers. */
export class Relaying {
  readonly #ground: RelayingGround
  readonly #done = new Map<string, DoneFor>()
  readonly #open = new Set<{ close(): void }>()

  constructor(ground: RelayingGround) {
    this.#ground = ground
  }

  /** Gives up what is under way: nobody can tell what became of it. */
  close(): void {
    for (const door of this.#open) door.close()
  }

  /** What was done, by the names of the peers. */
  get done(): ReadonlyMap<string, DoneFor> {
    return this.#done
  }

  /**
   * Does one errand, and tells what came of it. Nothing has been sent when this throws `fleet.errand-refused` or `request.invalid`;
   * throws what stands in the way of asking.
   */
  async answer(asker: Asker | null, asked: unknown): Promise<object> {
    const own = this.#ground.own()
    if (own?.settings.relay?.offer !== true) throw refused('this host sends for no other')
    if (!isErrand(asked))
      throw new HostError('request.invalid', 'that is no errand', { details: { verb: 'cloudwatch' } })
    const errand = asked as Errand
    const { place, nowMs } = errand
    if (asker === null) throw refused('who asks has sent no report yet')
    if (place.host !== asker.host || place.instance !== asker.instance)
      throw refused(`${asker.peer} may speak of itself alone`)
    const { settings, region } = own
    const into = errand.queue === 'datums' ? settings.namespace : settings.logs?.group
    if (place.region !== region || place.into !== into)
      throw refused(`this host tells ${into ?? 'no log group'} in ${region} alone`)
    if (errand.queue === 'datums') {
      const { openMetrics } = this.#ground
      const { namespace } = settings
      const door = await openMetrics({ region, namespace, host: place.host, instance: place.instance })
      return this.#through(door, asker.peer, errand.do, errand.rows, nowMs)
    }
    if (settings.logs === undefined) throw refused('this host tells no events')
    const stream = streamOf(place.host, place.instance)
    const door = await this.#ground.openLogs({ region, ...settings.logs, stream })
    return this.#through(door, asker.peer, errand.do, errand.rows, nowMs)
  }

  async #through<One extends Row>(
    door: Door<One> & { close(): void },
    peer: string,
    what: Errand['do'],
    rows: readonly One[],
    nowMs: number,
  ): Promise<object> {
    this.#open.add(door)
    try {
      if (what === 'ask') return { there: [...(await door.ask(rows, nowMs))] }
      const outcome = await door.put(rows, nowMs)
      const { rows: before = 0, requests = 0 } = this.#done.get(peer) ?? {}
      const taken = outcome.kind === 'accepted' ? rows.length - outcome.rejected.length : 0
      this.#done.set(peer, {
        ...{ rows: before + taken, requests: requests + 1 },
        atMs: this.#ground.epochMs(),
      })
      return outcomeTold(outcome)
    } finally {
      this.#open.delete(door)
      door.close()
    }
  }
}
