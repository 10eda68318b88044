// Packages of Debian's family: dpkg-query and apt-cache, and the argv that install and repair (dpkg 1.21, apt 2.6).

import { HostError } from '../problem.ts'

/** Asks for every package that dpkg knows, for one that was left half way blocks the installation of all others. */
export const dpkgQuery = (): [string, ...string[]] => [
  '/usr/bin/dpkg-query',
  '--show',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own form of a field
  '--showformat=${Package}\\t${db:Status-Want}\\t${db:Status-Eflag}\\t${db:Status-Status}\\n',
]

/** A package as dpkg has it. `condition` is dpkg's status word, or `reinstall-required`. */
export interface DpkgPackage {
  readonly name: string
  readonly held: boolean
  readonly condition: string
}

/** Conditions of a package that some interrupted work left half way. */
export const halfWay: readonly string[] = [
  'half-installed',
  'unpacked',
  'half-configured',
  'triggers-awaited',
  'triggers-pending',
  'reinstall-required',
]

/** Parses `dpkgQuery()`'s answer; of a package in several architectures the worst counts. Errors: `host.unexpected-answer`. */
export function parseDpkgQuery(stdout: string): ReadonlyMap<string, DpkgPackage> {
  const packages = new Map<string, DpkgPackage>()
  for (const line of stdout.split('\n')) {
    if (line === '') continue
    const [name, want, flag, status] = line.split('\t')
    if (!name || !want || !flag || !status)
      throw new HostError('host.unexpected-answer', `dpkg-query answered a line that is not known: ${line}`)
    const condition = flag === 'ok' ? status : 'reinstall-required'
    const known = packages.get(name)
    const worse =
      known === undefined ||
      halfWay.includes(condition) ||
      (condition === 'installed' && !halfWay.includes(known.condition))
    packages.set(name, {
      name,
      held: want === 'hold' || known?.held === true,
      condition: worse ? condition : known.condition,
    })
  }
  return packages
}

/** Asks which version of each package the lists offer. */
export const aptCachePolicy = (names: readonly string[]): [string, ...string[]] => [
  '/usr/bin/apt-cache',
  'policy',
  '--',
  ...names,
]

/** Names with a candidate; apt-cache leaves out what it does not know, and shows `(none)` for purely virtual names. */
export function parseAptCachePolicy(stdout: string): ReadonlySet<string> {
  const blocks = stdout.split(/^(?=\S)/m)
  return new Set(
    blocks
      .filter((block) => /^ {2}Candidate: (?!\(none\))/m.test(block))
      .map((block) => block.slice(0, block.indexOf(':'))),
  )
}

/** The lock that a package transaction takes first. */
export const dpkgLock = '/var/lib/dpkg/lock-frontend'

/** The lock of the package lists. */
export const aptListsLock = '/var/lib/apt/lists/lock'

/** Nothing asks, nothing is restarted: Ubuntu's needrestart would restart services by itself when nobody can answer. */
export const aptEnvironment: Readonly<Record<string, string>> = {
  DEBIAN_FRONTEND: 'noninteractive',
  NEEDRESTART_MODE: 'l',
  NEEDRESTART_SUSPEND: '1',
}

const aptGet = (lockWaitSeconds: number): [string, ...string[]] => [
  '/usr/bin/apt-get',
  '--yes',
  ...['-o', `DPkg::Lock::Timeout=${lockWaitSeconds}`],
  ...['-o', 'Dpkg::Options::=--force-confdef'],
  ...['-o', 'Dpkg::Options::=--force-confold'],
  ...['-o', 'Acquire::Retries=3'],
]

/** Reads the package lists anew. */
export const aptUpdate = (lockWaitSeconds: number): [string, ...string[]] => [
  ...aptGet(lockWaitSeconds),
  'update',
]

/** Installs without recommended packages; when something would have to be removed it installs nothing and fails. */
export const aptInstall = (lockWaitSeconds: number, names: readonly string[]): [string, ...string[]] => [
  ...aptGet(lockWaitSeconds),
  '--no-install-recommends',
  '--no-remove',
  'install',
  '--',
  ...names,
]

/** Configures what was unpacked. Apt refuses to work before it when dpkg was interrupted. */
export const dpkgConfigure = (): [string, ...string[]] => [
  '/usr/bin/dpkg',
  '--force-confdef',
  '--force-confold',
  '--configure',
  '--pending',
]

/** Fetches and installs `torn` packages again, and what configured packages still lack; removes nothing for it. */
export const aptFixBroken = (lockWaitSeconds: number, torn: readonly string[]): [string, ...string[]] => [
  ...aptGet(lockWaitSeconds),
  '--no-install-recommends',
  '--no-remove',
  '--fix-broken',
  '--reinstall',
  'install',
  '--',
  ...torn,
]
