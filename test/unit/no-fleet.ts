// A host that is in no fleet, for what is asked of the daemon's other verbs.

import type { DaemonContext } from '../../agent/verbs/daemon-context.ts'
import { HostError } from '../../provisioning/problem.ts'

const none = (): never => {
  throw new HostError('fleet.none', 'this host is in no fleet')
}

/** Everything of it throws `fleet.none`. */
export const noFleet: DaemonContext['fleet'] = {
  ...{ membership: none, hosts: none, ask: none, reportOf: none, listen: none },
}
