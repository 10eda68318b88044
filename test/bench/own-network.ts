// A bench in a network namespace of its own: it is run again in one, where loopback alone is up.

import { spawnSync } from 'node:child_process'

const inside = '--inside'

/** Runs the program again with these arguments in a namespace of its own, and ends with it; in there it does nothing. */
export function enterOwnNetwork(filename: string, args: readonly (number | string)[]): void {
  if (process.argv.at(-1) === inside) return
  // Without an address besides 127.0.0.1 a resolver that asks for AI_ADDRCONFIG (collectd) takes the host to have none.
  const script = 'ip link set lo up; ip address add 192.0.2.1/32 dev lo; exec "$@"'
  const again = [process.execPath, filename, ...args.map(String), inside]
  const argv = ['--net', '--', '/bin/sh', '-ec', script, 'sh', ...again]
  process.exit(spawnSync('/usr/bin/unshare', argv, { stdio: 'inherit' }).status ?? 1)
}
