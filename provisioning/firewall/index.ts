// The resource firewall: who may reach the host itself over interfaces that no security group guards. One nftables table of its own.

import type { Resource } from '../resource.ts'
import { check } from './check.ts'
import { type ObservedFirewall, observe } from './observe.ts'
import { plan } from './plan.ts'

/** Needs `software`, which brings nft. Not uplinks: the rules are there before the interfaces are. */
export const firewall: Resource<ObservedFirewall> = {
  id: 'firewall',
  needs: ['software'],
  declared: (desired) => desired.firewall !== undefined,
  observe,
  plan,
  check,
  describe({ wanted, live, differences, interfaces }, desired) {
    if (wanted === null) return 'not declared'
    const over = interfaces.map(({ name }) => name).join(', ')
    if (live === null) return `nothing guards ${over}`
    const { length } = desired.firewall?.allow ?? []
    const open = length === 0 ? 'nothing is open' : `${length} ${length === 1 ? 'opening' : 'openings'}`
    return `${over}: ${open}${differences.length > 0 ? ', and the rules differ' : ''}`
  },
}
