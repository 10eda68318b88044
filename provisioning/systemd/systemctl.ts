// Units as `systemctl show` tells them (systemd >= 252), and the argv that enable and start.

import { HostError } from '../problem.ts'

const properties = ['Id', 'LoadState', 'ActiveState', 'SubState', 'UnitFileState']

/** Asks for these units, in this order. */
export const systemctlShow = (units: readonly string[]): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'show',
  `--property=${properties.join(',')}`,
  '--',
  ...units,
]

/** Asks for the architecture of the machine in systemd's words: x86-64, arm64. */
export const systemctlArchitecture = (): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'show',
  '--property=Architecture',
]

/** A unit in systemd's own words. */
export interface Unit {
  /** loaded, not-found, masked, error, bad-setting. */
  readonly load: string
  /** active, inactive, failed, activating, … */
  readonly active: string
  readonly sub: string
  /** enabled, disabled, static, masked, …; empty when there is no file. */
  readonly file: string
}

/** Parses `systemctlShow(units)`'s answer: one block for each unit. Errors: `host.unexpected-answer`. */
export function parseSystemctlShow(units: readonly string[], stdout: string): readonly Unit[] {
  const blocks = stdout.trim().split(/\n\s*\n/)
  if (blocks.length !== units.length)
    throw new HostError(
      'host.unexpected-answer',
      `systemctl show told of ${blocks.length} units, ${units.length} were asked for`,
    )
  return units.map((name, index) => {
    const value = (key: string): string | undefined =>
      new RegExp(`^${key}=(.*)$`, 'm').exec(blocks[index] ?? '')?.[1]
    const [load, active] = [value('LoadState'), value('ActiveState')]
    if (load === undefined || active === undefined)
      throw new HostError('host.unexpected-answer', `systemctl show told nothing of ${name}`)
    return { load, active, sub: value('SubState') ?? '', file: value('UnitFileState') ?? '' }
  })
}

/** Makes a unit start at boot, and at once with `now`. */
export const systemctlEnable = (unit: string, now: boolean): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'enable',
  ...(now ? ['--now'] : []),
  '--',
  unit,
]

/** Starts a unit that does not run. */
export const systemctlStart = (unit: string): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'start',
  '--',
  unit,
]

/** Forgets failures, without which a unit that failed too often is not started again. */
export const systemctlResetFailed = (unit: string): [string, ...string[]] => [
  '/usr/bin/systemctl',
  'reset-failed',
  '--',
  unit,
]
