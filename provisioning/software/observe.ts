// Which of the wanted packages are installed, half installed or offered, and how their units are: from dpkg or rpm, and systemd.

import type { Desired } from '../desired.ts'
import type { Answer, HostReader } from '../host.ts'
import { HostError } from '../problem.ts'
import { parseSystemctlShow, systemctlArchitecture, systemctlShow, type Unit } from '../systemd/systemctl.ts'
import { aptCachePolicy, dpkgQuery, halfWay, parseAptCachePolicy, parseDpkgQuery } from './dpkg.ts'
import { parseOsRelease } from './os-release.ts'
import { dnfRepoquery, parseDnfRepoquery, parseRpmQuery, rpmQuery } from './rpm.ts'
import {
  type Architecture,
  distributionOf,
  type Family,
  type Role,
  roleSet,
  type WantedUnit,
} from './sets.ts'

/** A wanted package. */
export interface WantedPackage {
  readonly name: string
  /** The role that wants it, or `packages` when the document names it. */
  readonly wantedBy: Role | 'packages'
  /** `installed`, `missing`, or how some interrupted work left it (dpkg's word, or `reinstall-required`). */
  readonly condition: string
  /** Somebody marked it to be left as it is. */
  readonly held: boolean
  /** Whether the package lists offer it; null when that is not known, for the lists are not here, or when it is not missing. */
  readonly offered: boolean | null
}

/** Everything that planning needs to know of software. Without a declaration only the distribution is read. */
export interface ObservedSoftware {
  /** As os-release names it, for people. */
  readonly distribution: string
  /** The package tools, or null when Garrison does not know this distribution or architecture. */
  readonly family: Family | null
  readonly packages: readonly WantedPackage[]
  /** Packages that some interrupted work left half way, wanted or not, in dpkg's words. */
  readonly halfWay: readonly Pick<WantedPackage, 'name' | 'condition'>[]
  /** dpkg was killed before it could write down what it did. */
  readonly interrupted: boolean
  readonly units: readonly (WantedUnit & Unit)[]
}

const answered = (argv: readonly string[], { exit, stdout, stderr }: Answer): string => {
  if (exit === 0) return stdout
  throw new HostError('host.unreadable', `${argv.join(' ')} ended with ${exit}: ${stderr.trim()}`)
}

async function ask(reader: HostReader, argv: [string, ...string[]]): Promise<string> {
  return answered(argv, await reader.query(argv))
}

type Presence = Pick<ObservedSoftware, 'halfWay' | 'interrupted'> & {
  readonly conditionOf: (name: string) => Pick<WantedPackage, 'condition' | 'held'>
}

async function observeDpkg(reader: HostReader): Promise<Presence> {
  const known = parseDpkgQuery(await ask(reader, dpkgQuery()))
  return {
    halfWay: [...known.values()]
      .filter(({ condition }) => halfWay.includes(condition))
      .map(({ name, condition }) => ({ name, condition })),
    // What dpkg has not yet merged into its database; it is empty unless dpkg runs or was killed.
    interrupted: ((await reader.list('/var/lib/dpkg/updates')) ?? []).some((name) => /^\d+$/.test(name)),
    conditionOf: (name) => {
      const { condition = 'missing', held = false } = known.get(name) ?? {}
      return {
        condition: ['not-installed', 'config-files'].includes(condition) ? 'missing' : condition,
        held,
      }
    },
  }
}

async function observeRpm(reader: HostReader, names: readonly string[]): Promise<Presence> {
  const installed = parseRpmQuery(names, await reader.query(rpmQuery(names)))
  return {
    halfWay: [],
    interrupted: false,
    conditionOf: (name) => ({ condition: installed.has(name) ? 'installed' : 'missing', held: false }),
  }
}

/** Which of the missing names are offered, or null when the lists are not here. */
async function observeOffers(
  reader: HostReader,
  family: Family,
  missing: readonly string[],
): Promise<ReadonlySet<string> | null> {
  if (missing.length === 0) return new Set()
  if (family === 'dnf') return parseDnfRepoquery(missing, await reader.query(dnfRepoquery(missing)))
  const lists = (await reader.list('/var/lib/apt/lists')) ?? []
  if (!lists.some((name) => /_Packages(\.|$)/.test(name))) return null
  return parseAptCachePolicy(await ask(reader, aptCachePolicy(missing)))
}

/** Reads what is wanted of software. Anybody may. Errors: `host.unreadable` (no systemd), `host.unexpected-answer`. */
export async function observeSoftware(reader: HostReader, desired: Desired): Promise<ObservedSoftware> {
  const os = parseOsRelease((await reader.readText('/etc/os-release')) ?? '')
  const nothing = {
    distribution: os.name,
    family: null,
    packages: [],
    halfWay: [],
    interrupted: false,
    units: [],
  }
  const known = distributionOf(os)
  if (known === null || desired.software === undefined) return { ...nothing, family: known?.family ?? null }
  const { family } = known
  const architecture = /^Architecture=(x86-64|arm64)$/m.exec(await ask(reader, systemctlArchitecture()))?.[1]
  if (architecture === undefined) return nothing

  const sets = desired.software.roles.map((role) => ({
    role,
    ...roleSet(family, architecture as Architecture, role),
  }))
  const wantedBy = new Map<string, WantedPackage['wantedBy']>([
    ...sets.flatMap(({ role, packages }) => packages.map((name) => [name, role] as const)),
    // The document's own word weighs more: a package that it names is not merely left out when it is not offered.
    ...desired.software.packages.map((name) => [name, 'packages'] as const),
  ])
  const names = [...wantedBy.keys()]
  const presence = family === 'apt' ? await observeDpkg(reader) : await observeRpm(reader, names)
  const found = names.map((name) => ({ name, ...presence.conditionOf(name) }))
  const missing = found.filter(({ condition }) => condition === 'missing').map(({ name }) => name)
  const offers = await observeOffers(reader, family, missing)
  const units = sets.flatMap((set) => set.units)
  const seen = units.length === 0 ? [] : await observeUnits(reader, units)
  return {
    distribution: os.name,
    family,
    packages: found.map(({ name, condition, held }) => ({
      name,
      wantedBy: wantedBy.get(name) ?? 'packages',
      condition,
      held,
      offered: condition === 'missing' ? (offers?.has(name) ?? null) : null,
    })),
    halfWay: presence.halfWay,
    interrupted: presence.interrupted,
    units: seen,
  }
}

async function observeUnits(
  reader: HostReader,
  units: readonly WantedUnit[],
): Promise<readonly (WantedUnit & Unit)[]> {
  const names = units.map(({ unit }) => unit)
  const seen = parseSystemctlShow(names, await ask(reader, systemctlShow(names)))
  return units.flatMap((wanted, index) => {
    const unit = seen[index]
    return unit === undefined ? [] : { ...wanted, ...unit }
  })
}
