// The verb `fleet join`: lets this host join a fleet.

import { readFileSync } from 'node:fs'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { joinFleet } from '../peers/enrol.ts'
import { parseToken } from '../peers/token.ts'
import { enteredFolder, type Here, usualName } from './fleet-here.ts'

/** The answer of `fleet join`. */
export interface Joined {
  readonly fleet: string
  readonly host: string
  readonly role: string
  readonly untilMs: number
}

const standardInput = 0

/** Joins. Throws `fleet.token-refused`, `fleet.unreachable`, `fleet.exists`, `fleet.name-taken`, `fleet.denied`. */
export async function run(
  { token, name = usualName(), folder }: Args<'fleet join'>,
  here: Here,
): Promise<Joined> {
  const text = token === '-' ? readFileSync(standardInput, 'utf8').trim() : token
  const parsed = parseToken(text)
  const entered = await enteredFolder(here, folder)
  const { fleet, host, role, expiresMs } = await joinFleet(entered, parsed, name, Date.now())
  return { fleet, host, role, untilMs: expiresMs }
}

/** What this host now is. */
export const render = ({ fleet, host, role }: Joined): string =>
  [
    `This host is ${host} in fleet ${fleet}, with the role ${role}.`,
    paragraph('', 'The daemon sees it within a second, and renews the certificate by itself.', 2),
    'Next  garrison fleet status',
  ].join('\n')

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
