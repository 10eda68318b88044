// How the wanted packages come to be installed and their units to run: mend what was interrupted, install, then enable.

import type { Desired } from '../desired.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Change, type Step, stepKey } from '../resource.ts'
import { systemctlEnable, systemctlResetFailed, systemctlStart } from '../systemd/systemctl.ts'
import {
  aptEnvironment,
  aptFixBroken,
  aptInstall,
  aptListsLock,
  aptUpdate,
  dpkgConfigure,
  dpkgLock,
} from './dpkg.ts'
import type { ObservedSoftware } from './observe.ts'
import { dnfInstall, dnfMakecache, rpmLock } from './rpm.ts'

const minutes = (count: number): number => count * 60_000

/** Unit files that start at boot, or that something else starts. */
const enabled = ['enabled', 'static', 'alias', 'indirect', 'generated']

/** Left in the middle of unpacking: apt would rather remove such a package than fetch it again, unless it is named. */
const mustBeReinstalled = ['half-installed', 'reinstall-required']

const running = ['active', 'activating', 'reloading']

type ObservedUnit = ObservedSoftware['units'][number]

/** What of a unit is not as wanted, or null. */
export function unitTrouble({
  load,
  file,
  active,
  leavesWhenIdle,
}: ObservedUnit): 'missing' | 'masked' | 'failed' | 'disabled' | 'stopped' | null {
  if (load === 'masked' || file.startsWith('masked')) return 'masked'
  if (load === 'not-found') return 'missing'
  if (active === 'failed') return 'failed'
  if (!enabled.includes(file)) return 'disabled'
  return leavesWhenIdle || running.includes(active) ? null : 'stopped'
}

const blocked = (code: ProblemCode, message: string): Blocked => ({ code, message, remedy: remedyOf(code) })

/** Steps `software.configure`, `.refresh`, `.install`, `.enable`, `.start`; what a person did on purpose is blocked, not undone. */
export function planSoftware(observed: ObservedSoftware, desired: Desired): readonly Step[] {
  const wanted = desired.software
  if (wanted === undefined) return []
  const { family, packages, halfWay, interrupted, units, distribution } = observed
  const because = (path: string, desiredValue: string, observedValue: string): Change => {
    const why = desired.sources[path] ?? desired.sources.software
    return { path, desired: desiredValue, observed: observedValue, ...(why !== undefined && { why }) }
  }
  const steps: Step[] = []
  if (family === null) {
    return [
      {
        id: 'software.install',
        summary: 'install what the roles need',
        risk: 'safe',
        because: [because('software.roles', wanted.roles.join(', '), `unknown on ${distribution}`)],
        actions: [],
        blocked: blocked(
          'software.unknown-distribution',
          `${distribution} is not a distribution and architecture that Garrison knows the packages of`,
        ),
      },
    ]
  }

  const unlocked = (path: string, what: string): Action => ({
    kind: 'wait',
    until: { kind: 'unlocked', path },
    summary: `until no other process holds the lock of ${what}`,
    deadlineMs: wanted.lockWaitSeconds * 1000,
  })
  // Maintainer scripts need everything, so transactions run outside the sandbox, where they also outlive this process.
  const run = (argv: [string, ...string[]], deadlineMs: number): Extract<Action, { kind: 'run' }> => ({
    kind: 'run',
    argv,
    deadlineMs: deadlineMs + wanted.lockWaitSeconds * 1000,
    unit: true,
    ...(family === 'apt' && { environment: aptEnvironment }),
  })
  const packageLock = unlocked(family === 'apt' ? dpkgLock : rpmLock, 'the package database')
  const refresh =
    family === 'apt'
      ? [unlocked(aptListsLock, 'the package lists'), run(aptUpdate(wanted.lockWaitSeconds), minutes(10))]
      : [run(dnfMakecache(), minutes(10))]

  if (halfWay.length > 0 || interrupted) {
    const torn = halfWay
      .filter(({ condition }) => mustBeReinstalled.includes(condition))
      .map(({ name }) => name)
    steps.push({
      id: 'software.configure',
      summary: 'finish the package work that was interrupted',
      risk: 'safe',
      because: [
        ...(interrupted ? [because('software', 'dpkg at rest', 'dpkg was interrupted')] : []),
        ...halfWay.map(({ name, condition }) => because('software', `${name} installed`, condition)),
      ],
      actions: [
        packageLock,
        // It fails over packages that still lack others; what fetches those comes next and is the judge.
        { ...run(dpkgConfigure(), minutes(30)), exits: [0, 1] },
        ...(torn.length > 0 ? refresh : []),
        run(aptFixBroken(wanted.lockWaitSeconds, torn), minutes(30)),
      ],
    })
  }

  const missing = packages.filter(({ condition }) => condition === 'missing')
  if (missing.some(({ offered }) => offered === null))
    steps.push({
      id: 'software.refresh',
      summary: 'read the package lists',
      risk: 'safe',
      because: [because('software.roles', wanted.roles.join(', '), 'no package lists')],
      actions: refresh,
    })

  const installable = missing.filter(({ held, offered }) => !held && offered !== false)
  if (installable.length > 0) {
    const names = installable.map(({ name }) => name)
    const after = steps.map(stepKey)
    steps.push({
      id: 'software.install',
      summary:
        names.length > 3
          ? `install ${names.length} packages for ${[...new Set(installable.map(({ wantedBy }) => wantedBy))].join(', ')}`
          : `install ${names.join(', ')}`,
      risk: 'safe',
      because: installable.map(({ name, wantedBy }) =>
        because(
          wantedBy === 'packages' ? 'software.packages' : 'software.roles',
          `${name} (${wantedBy})`,
          'missing',
        ),
      ),
      actions:
        family === 'apt'
          ? // Lists of an image are older than what its mirror still has.
            [packageLock, ...refresh, run(aptInstall(wanted.lockWaitSeconds, names), minutes(45))]
          : [packageLock, run(dnfInstall(names), minutes(45))],
      ...(after.length > 0 && { after }),
    })
  }
  for (const { name, wantedBy, held, offered } of missing) {
    const hindered = held
      ? blocked('software.held', `${name} is on hold, and apt installs nothing that is`)
      : offered === false && wantedBy === 'packages'
        ? blocked('software.not-offered', `no repository of this host offers ${name}`)
        : null
    if (hindered === null) continue
    steps.push({
      id: 'software.install',
      subject: name,
      summary: `install ${name}`,
      risk: 'safe',
      because: [
        because(
          wantedBy === 'packages' ? 'software.packages' : 'software.roles',
          `${name} (${wantedBy})`,
          'missing',
        ),
      ],
      actions: [],
      blocked: hindered,
    })
  }

  const before = steps.filter((step) => !step.blocked).map(stepKey)
  for (const unit of units) {
    const source = packages.find(({ name }) => name === unit.package)
    if (source?.condition === 'missing' && !installable.includes(source)) continue
    const trouble = unitTrouble(unit)
    // A unit that its installed package does not have is a finding: no step could make it.
    if (trouble === null || (trouble === 'missing' && source?.condition === 'installed')) continue
    steps.push(unitStep(unit, trouble, before, because))
  }
  return steps
}

function unitStep(
  { unit, active, file, sub, leavesWhenIdle }: ObservedUnit,
  trouble: NonNullable<ReturnType<typeof unitTrouble>>,
  after: readonly string[],
  because: (path: string, desiredValue: string, observedValue: string) => Change,
): Step {
  const toEnable = !enabled.includes(file)
  const act = (argv: [string, ...string[]]): Action => ({ kind: 'run', argv, deadlineMs: minutes(3) })
  const seen = trouble === 'missing' ? 'not there yet' : `${file || 'no unit file'}, ${active} (${sub})`
  const wantedText = leavesWhenIdle ? 'enabled' : 'enabled and running'
  const step = (id: string, verb: string, actions: readonly Action[]): Step => ({
    id,
    subject: unit,
    summary: `${verb} ${unit}`,
    risk: 'safe',
    because: [because('software.roles', `${unit} ${wantedText}`, seen)],
    actions,
    ...(after.length > 0 && { after }),
  })
  if (trouble === 'masked')
    return {
      ...step('software.enable', 'enable', []),
      blocked: blocked('software.masked', `${unit} is masked, which somebody did on purpose`),
    }
  const reset = trouble === 'failed' ? [act(systemctlResetFailed(unit))] : []
  if (toEnable)
    return step('software.enable', leavesWhenIdle ? 'enable' : 'enable and start', [
      ...reset,
      act(systemctlEnable(unit, !leavesWhenIdle)),
    ])
  return step('software.start', 'start', [...reset, act(systemctlStart(unit))])
}
