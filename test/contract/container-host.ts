// A reader of this host where this host may be a container: there the namespace of PID 1 cannot be looked at, even by root.

import { readFileSync } from 'node:fs'
import type { HostReader } from '../../provisioning/host.ts'

/** The same reader, which takes its own mounts for those of the host. */
export const inContainer = (reader: HostReader): HostReader =>
  new Proxy(reader, {
    get(target, name) {
      if (name === 'mountTables')
        return async () => [{ pid: 1, own: true, mountinfo: readFileSync('/proc/1/mountinfo', 'utf8') }]
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
