// What VMs use, sample after sample. A guest that hangs is shown as it was last, with the age of that, and holds up no other.

import { type Power, powerOf } from '../../provisioning/vms/power.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import { isWhole, noRates, type Rates, ratesOf, type Sample, sampleOf } from './rates.ts'

/** What one VM uses. `ageMs`: how old the numbers are; null when there are none. */
export interface Usage extends Rates {
  readonly name: string
  readonly uuid: string
  readonly power: Power
  readonly ageMs: number | null
  readonly memoryBytes: number | null
  readonly residentBytes: number | null
}

/** What is known of one VM from one sample to the next. */
interface Known {
  readonly sample: Sample
  readonly rates: Rates
}

const stats =
  VIR.DOMAIN_STATS_STATE |
  VIR.DOMAIN_STATS_CPU_TOTAL |
  VIR.DOMAIN_STATS_BALLOON |
  VIR.DOMAIN_STATS_INTERFACE |
  VIR.DOMAIN_STATS_BLOCK

/** Samples VMs; each call of `sample` tells what was used since the one before. */
export class Sampler {
  readonly #known = new Map<string, Known>()
  readonly #clock: () => number

  constructor(clock: () => number) {
    this.#clock = clock
  }

  /** Samples these VMs, in their order; one that has gone is left out. Throws `libvirt.unreachable`. */
  async sample(
    libvirt: Connection,
    doms: readonly { readonly name: string; readonly uuid: string }[],
  ): Promise<readonly Usage[]> {
    // No VM would mean every VM.
    if (doms.length === 0) return []
    const records = await libvirt.connectGetAllDomainStats(
      { doms, stats, flags: VIR.CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT },
      { deadlineMs: 10_000 },
    )
    const atMs = this.#clock()
    return records.map(({ dom, params }) => {
      const { power } = powerOf({
        state: Number(params['state.state'] ?? 0),
        reason: Number(params['state.reason'] ?? 0),
      })
      const before = this.#known.get(dom.uuid)
      const sample = sampleOf(params, atMs)
      if (isWhole(sample)) {
        const rates = before === undefined ? noRates : ratesOf(before.sample, sample)
        this.#known.set(dom.uuid, { sample, rates })
      } else if (power === 'off') this.#known.delete(dom.uuid)
      const known = this.#known.get(dom.uuid)
      return {
        name: dom.name,
        uuid: dom.uuid,
        power,
        ageMs: known === undefined ? null : atMs - known.sample.atMs,
        memoryBytes: known?.sample.memoryBytes ?? null,
        residentBytes: known?.sample.residentBytes ?? null,
        ...(known?.rates ?? noRates),
      }
    })
  }
}
