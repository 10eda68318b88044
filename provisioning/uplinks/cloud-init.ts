// cloud-init, which configures interfaces at each start unless it is told not to: the file that tells it.

import type { OwnFile } from './observe.ts'
import { mark } from './want.ts'

/** There when cloud-init is installed. */
export const cloudInitConfig = '/etc/cloud/cloud.cfg'

/** What Garrison tells cloud-init. */
export const cloudInitPath = '/etc/cloud/cloud.cfg.d/99-garrison-network.cfg'

/**
 * With `all` cloud-init configures no interface any more; otherwise only the first one, and not the others that the metadata of
 * EC2 tell (which it does since 24.1, with routes of its own).
 */
export const cloudInitFile = (all: boolean): OwnFile => ({
  path: cloudInitPath,
  content: `${[
    mark,
    ...(all
      ? ['network: {config: disabled}']
      : ['datasource:', '  Ec2:', '    apply_full_imds_network_config: false']),
  ].join('\n')}\n`,
})
