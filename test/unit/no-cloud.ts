// A host that is no EC2 instance, for tests of other things: what LinuxHost, LinuxPerformer and readers in memory need for it.

import type { FromEc2, ToEc2 } from '../../agent/host/ec2.ts'
import type { HostReader } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'

const noInstance = (): HostError => new HostError('ec2.no-instance', 'a host of a test')

/** What is put together for a host without metadata. */
export const noCloud = {
  imds: { instance: async () => null, events: async () => null },
  ec2: {
    network: async () => ({ answer: null, answeredMs: null, problem: noInstance().report() }),
    perform: () => Promise.reject(noInstance()),
  } satisfies FromEc2 & ToEc2,
}

/** The same as it is read. */
export const readsNoCloud: Pick<HostReader, 'instance' | 'instanceEvents' | 'ec2Network'> = {
  instance: noCloud.imds.instance,
  instanceEvents: noCloud.imds.events,
  ec2Network: noCloud.ec2.network,
}
