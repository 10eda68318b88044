// The verb `fleet invite`: makes a token that lets one host in.

import { X509Certificate } from 'node:crypto'
import { HostError } from '../../provisioning/problem.ts'
import { ago, paragraph, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { addressPattern, addressText } from '../peers/address.ts'
import { addressIn, ownAddresses } from '../peers/fleet.ts'
import { invite } from '../peers/issuing.ts'
import { tokenText } from '../peers/token.ts'
import { fingerprintOf } from '../peers/trust.ts'
import { enteredFolder, type Here, spanMs } from './fleet-here.ts'
import { fleetSettings } from './fleet-settings.ts'

/** The answer of `fleet invite`. */
export interface Invited {
  readonly token: string
  readonly role: string
  readonly host: string | null
  readonly untilMs: number
  readonly addresses: readonly string[]
}

const mostMs = 7 * 86_400_000

/** Makes the token. Throws `fleet.no-issuer`, `fleet.none`, `fleet.name-refused`, `fleet.denied`. */
export async function run(
  { role = 'read', name, for: span = '1h', at, folder }: Args<'fleet invite'>,
  here: Here,
): Promise<Invited> {
  const nowMs = Date.now()
  const host = name ?? null
  const untilMs = nowMs + spanMs(span, 'fleet invite', mostMs)
  const desired = await fleetSettings(here)
  const entered = await enteredFolder(here, folder)
  const authority = await entered.readAuthority()
  if (authority === null) throw new HostError('fleet.none', 'this host is in no fleet')
  const { port } = desired
  const addresses = at.length > 0 ? at.map((one) => addressIn('-', one, port)) : ownAddresses(desired, port)
  if (!addresses.every((one) => addressPattern.test(addressText(one))))
    throw new HostError('request.invalid', `--at takes an address or a name: 10.0.1.5, [fd00::5]:7443`, {
      details: { verb: 'fleet invite' },
    })
  const secret = await invite(entered, { role, host, untilMs }, nowMs)
  const fingerprint = fingerprintOf(new X509Certificate(authority))
  return {
    token: tokenText({ addresses, fingerprint, secret }),
    ...{ role, host, untilMs, addresses: addresses.map(addressText) },
  }
}

/** The token by itself on its line, and what to do with it. */
export const render = ({ token, role, host, untilMs }: Invited, { nowMs }: Terminal): string =>
  [
    token,
    paragraph(
      '',
      `Lets ${host ?? 'one host'} in, once, with the role ${role}; past its time in ${ago(untilMs - nowMs).replace(' ago', '')}. It is a secret until it is used.`,
      2,
    ),
    `On the new host  garrison fleet join -${host === null ? '' : ` --name ${host}`}`,
  ].join('\n')

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
