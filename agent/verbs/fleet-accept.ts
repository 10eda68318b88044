// The verb `fleet accept`: takes the certificate that makes this host an issuer.

import { resolve } from 'node:path'
import { moment } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { readOne } from '../host/desired-files.ts'
import { acceptIssuer } from '../peers/issuing.ts'
import { enteredFolder, type Here } from './fleet-here.ts'

/** The answer of `fleet accept`. */
export interface Accepted {
  readonly untilMs: number
}

/** Takes it. Throws `fleet.request-refused`, `fleet.denied`, `host.denied`. */
export async function run({ certificate, folder }: Args<'fleet accept'>, here: Here): Promise<Accepted> {
  const { text } = await readOne(resolve(certificate), 'fleet.request-refused')
  return acceptIssuer(await enteredFolder(here, folder), Buffer.from(text).toString('utf8'))
}

/** Until when this host issues. */
export const render = ({ untilMs }: Accepted): string =>
  `This host issues certificates of its fleet until ${moment(untilMs)}.\nNext  garrison fleet invite`

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
