// Packages of Red Hat's family: rpm and dnf (rpm 4.16, dnf 4), and the argv that install.

import { HostError } from '../problem.ts'

/** Asks which of these packages are installed. */
export const rpmQuery = (names: readonly string[]): [string, ...string[]] => [
  '/usr/bin/rpm',
  '--query',
  '--queryformat',
  '%{NAME}\\n',
  '--',
  ...names,
]

/** Names that are installed. rpm exits with the number of those that are not. Errors: `host.unexpected-answer`. */
export function parseRpmQuery(
  names: readonly string[],
  { stdout, stderr }: { readonly stdout: string; readonly stderr: string },
): ReadonlySet<string> {
  const lines = stdout.split('\n').filter((line) => line !== '')
  const installed = new Set(lines.filter((line) => names.includes(line)))
  const absent = new Set(lines.flatMap((line) => /^package (\S+) is not installed$/.exec(line)?.[1] ?? []))
  // A damaged or locked database makes rpm say nothing of a package at all, which must not pass for its absence.
  const untold = names.find((name) => !installed.has(name) && !absent.has(name))
  if (untold !== undefined)
    throw new HostError('host.unexpected-answer', `rpm says nothing of ${untold}: ${stderr.trim()}`)
  return installed
}

/** Asks which of these packages the repositories offer, as far as their metadata is here already. */
export const dnfRepoquery = (names: readonly string[]): [string, ...string[]] => [
  '/usr/bin/dnf',
  'repoquery',
  '--quiet',
  '--cacheonly',
  '--available',
  '--queryformat',
  '%{name}',
  '--',
  ...names,
]

/** Names that are offered, or null when the metadata of a repository is not here. Amazon Linux mixes a banner into the answer. */
export function parseDnfRepoquery(
  names: readonly string[],
  { exit, stdout }: { readonly exit: number; readonly stdout: string },
): ReadonlySet<string> | null {
  if (exit !== 0) return null
  return new Set(stdout.split('\n').flatMap((line) => (names.includes(line.trim()) ? [line.trim()] : [])))
}

/** The lock of the rpm database. */
export const rpmLock = '/var/lib/rpm/.rpm.lock'

/** Reads the repositories' metadata anew. */
export const dnfMakecache = (): [string, ...string[]] => ['/usr/bin/dnf', '--assumeyes', 'makecache']

/** Installs without weak dependencies; dnf removes nothing for it unless told to. */
export const dnfInstall = (names: readonly string[]): [string, ...string[]] => [
  '/usr/bin/dnf',
  '--assumeyes',
  '--setopt=install_weak_deps=False',
  'install',
  '--',
  ...names,
]
