// The NICs of the host itself, without those of its VMs, and whether a cable carries: sysfs-class-net.

import { HostError } from '../../../provisioning/problem.ts'
import type { ReadNow } from '../process.ts'

/** One NIC. `carrier` is null when it is switched off, which somebody wanted. */
export interface Link {
  readonly name: string
  readonly carrier: boolean | null
}

/** What is needed to look at NICs. */
export interface LinksOptions {
  readonly read: ReadNow
  readonly exists: (path: string) => boolean
}

const up = 1

/** Knows which devices are NICs: those that stand for a device of a bus, whether it is real or a hypervisor's. */
export class Links {
  readonly #options: LinksOptions
  /** Asked once for each device, for a hundred VMs have a hundred devices. */
  readonly #isNic = new Map<string, boolean>()

  constructor(options: LinksOptions) {
    this.#options = options
  }

  /** Those of the network devices that are NICs of the host. */
  nicsOf(names: Iterable<string>): readonly string[] {
    const there = new Set(names)
    for (const name of this.#isNic.keys()) if (!there.has(name)) this.#isNic.delete(name)
    return [...there].filter((name) => {
      const known = this.#isNic.get(name) ?? this.#options.exists(`/sys/class/net/${name}/device`)
      this.#isNic.set(name, known)
      return known
    })
  }

  /** Looks at a NIC. Null when it has gone. */
  look(name: string): Link | null {
    const { read } = this.#options
    const flags = read(`/sys/class/net/${name}/flags`)
    if (flags === null) return null
    if ((Number(flags) & up) === 0) return { name, carrier: null }
    try {
      const carrier = read(`/sys/class/net/${name}/carrier`)
      return carrier === null ? null : { name, carrier: carrier.trim() === '1' }
    } catch (error) {
      // One that is switched off between the two reads has none (EINVAL).
      if (error instanceof HostError && error.code === 'host.unreadable') return { name, carrier: null }
      throw error
    }
  }
}
