// Transient units of systemd (systemd-run(1)): programs that run outside the sandbox of this process, this one among them.

import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { isSea } from 'node:sea'
import { type ProblemReport, problems } from '../../provisioning/problem.ts'
import type { Argv } from './exec.ts'
import { errnoOf } from './files.ts'

/** What is run in a unit. `name` is the unit's; without it systemd makes one up. */
export interface InUnit {
  readonly argv: Argv
  readonly name?: string
  readonly deadlineMs: number
  readonly environment?: Readonly<Record<string, string>>
  /** Settings of the unit, such as `NoNewPrivileges=yes`. */
  readonly properties?: readonly string[]
}

/** The argv that runs a program in a unit and waits for its end, its standard streams being those of systemd-run. */
export const systemdRun = ({ argv, name, deadlineMs, environment, properties = [] }: InUnit): Argv => [
  '/usr/bin/systemd-run',
  '--wait',
  '--collect',
  '--pipe',
  '--quiet',
  '--service-type=exec',
  ...(name === undefined ? [] : [`--unit=${name}`]),
  `--description=Garrison: ${basename(argv[0])}`,
  `--property=RuntimeMaxSec=${Math.ceil(deadlineMs / 1000)}`,
  ...properties.map((property) => `--property=${property}`),
  ...Object.entries({ LC_ALL: 'C.UTF-8', ...environment }).map(([key, value]) => `--setenv=${key}=${value}`),
  '--',
  ...argv,
]

function absentOnly(error: unknown): null {
  if (errnoOf(error) !== 'ENOENT') throw error
  return null
}

/** Whether there are units here and this process may start them. */
export const hasUnits = async (): Promise<boolean> =>
  process.getuid?.() === 0 && ((await stat('/run/systemd/system').catch(absentOnly))?.isDirectory() ?? false)

/** How this very program is started. */
export const self: Argv = isSea() ? [process.execPath] : [process.execPath, process.argv[1] ?? '']

/** What is left to a process that speaks to the network and touches no device. */
export const networkProperties: readonly string[] = [
  'NoNewPrivileges=yes',
  'ProtectSystem=full',
  'ProtectKernelModules=yes',
  'ProtectKernelTunables=yes',
  'ProtectKernelLogs=yes',
  'ProtectControlGroups=yes',
  'PrivateDevices=yes',
  'RestrictNamespaces=yes',
  'RestrictSUIDSGID=yes',
  'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6',
]

/** The problem that a verb told with --json, or null. */
export function reportIn(stdout: string): ProblemReport | null {
  try {
    const answer = JSON.parse(stdout) as ProblemReport
    return answer.code in problems() ? answer : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}
