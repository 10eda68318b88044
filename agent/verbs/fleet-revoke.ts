// The verb `fleet revoke`: puts a host out of the fleet.

import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { revoke } from '../peers/issuing.ts'
import { enteredFolder, type Here } from './fleet-here.ts'

/** The answer of `fleet revoke`. */
export interface Revoked {
  readonly host: string
  readonly enrolment: string
}

/** Writes the revocation, which the daemon sees at once. Throws `fleet.no-issuer`, `fleet.unknown-host`, `fleet.denied`. */
export async function run({ peer: host, folder }: Args<'fleet revoke'>, here: Here): Promise<Revoked> {
  return { host, enrolment: await revoke(await enteredFolder(here, folder), host, Date.now()) }
}

/** What was done, and what it means. */
export const render = ({ host }: Revoked): string =>
  [
    `${host} is trusted no more.`,
    paragraph(
      '',
      'Every host that this one is linked with hears of it now, the others when they come back. To let it in again: garrison fleet invite.',
      2,
    ),
  ].join('\n')

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
