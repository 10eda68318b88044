// A bench in a network namespace of its own: it is run again in one, where loopback alone is up.

import { execFileSync, spawnSync } from 'node:child_process'

const inside = '--inside'
const ip = (...words: readonly string[]) => execFileSync('/usr/sbin/ip', words)

/** Runs the program again with these arguments in a namespace of its own, and ends with it; in there it makes the network. */
export function enterOwnNetwork(filename: string, args: readonly (number | string)[]): void {
  if (process.argv.at(-1) === inside) {
    ip('link', 'set', 'lo', 'up')
    // Without an address besides 127.0.0.1 a resolver that asks for AI_ADDRCONFIG (collectd) takes the host to have none.
    ip('address', 'add', '192.0.2.1/32', 'dev', 'lo')
    return
  }
  const again = [process.execPath, filename, ...args.map(String), inside]
  process.exit(spawnSync('/usr/bin/unshare', ['--net', '--', ...again], { stdio: 'inherit' }).status ?? 1)
}
