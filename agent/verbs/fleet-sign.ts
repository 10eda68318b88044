// The verb `fleet sign`: signs the request of an issuer, where the key of the authority is kept.

import { X509Certificate } from 'node:crypto'
import { resolve } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { readOne } from '../host/desired-files.ts'
import { signIssuer, usualLifetimes } from '../peers/authority.ts'
import { FleetFolder } from '../peers/folder.ts'
import { spanMs } from './fleet-here.ts'

/** The answer of `fleet sign`. */
export interface Signed {
  readonly certificate: string
  readonly untilMs: number
}

const mostMs = 20 * 365 * 86_400_000

/** Signs. Throws `fleet.request-refused`, `request.invalid` when the key is not there, `host.denied`. */
export async function run({ request, authority, lifetime }: Args<'fleet sign'>): Promise<Signed> {
  const folder = resolve(authority)
  const key = await new FleetFolder(folder).readAuthorityKey()
  if (key === null)
    throw new HostError('request.invalid', `there is no authority.key in ${folder}`, {
      details: { verb: 'fleet sign' },
    })
  const { text } = await readOne(resolve(request), 'fleet.request-refused')
  const lifetimeMs = lifetime === undefined ? usualLifetimes.issuerMs : spanMs(lifetime, 'fleet sign', mostMs)
  const certificate = await signIssuer(key, Buffer.from(text).toString('utf8'), lifetimeMs, Date.now())
  return { certificate, untilMs: new X509Certificate(certificate).validToDate.getTime() }
}

/** The certificate and nothing else: it is meant for a file. */
export const render = ({ certificate }: Signed): string => certificate.trimEnd()

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
