// A host's side of coming by a certificate: joining with a token, and renewing in time. HTTP/1.1 over TLS 1.3.

import { X509Certificate } from 'node:crypto'
import { HostError } from '../../provisioning/problem.ts'
import { type Address, addressText } from './address.ts'
import { makeRequest } from './authority.ts'
import { connectTo, firstOf, reach } from './dial.ts'
import type { FleetFolder } from './folder.ts'
import { dueMs, type Issued, wantHostName } from './issuing.ts'
import type { Keyring } from './keyring.ts'
import { asked } from './question.ts'
import type { Token } from './token.ts'
import { fingerprintOf, fleetOf, type Identity, identityOf } from './trust.ts'

const textIn = (answer: unknown, key: string): string => {
  const value = (answer as Record<string, unknown> | null)?.[key]
  if (typeof value === 'string') return value
  throw new HostError('fleet.unreachable', `the issuer answered without ${key}`, {
    details: { host: 'the issuer' },
  })
}

/**
 * Joins a fleet: makes a key that never leaves this host, and lets the issuer sign it. The secret of the token is sent only to who
 * has shown a certificate under the authority that the token names. Throws `fleet.exists`, `fleet.unreachable`,
 * `fleet.token-refused`, `fleet.name-taken`, `fleet.name-refused`.
 */
export async function joinFleet(
  folder: FleetFolder,
  token: Token,
  host: string,
  nowMs: number,
): Promise<Identity> {
  wantHostName(host)
  if ((await folder.readAuthority()) !== null)
    throw new HostError('fleet.exists', `this host is in a fleet already (${folder.path})`, {
      details: { path: folder.path },
    })
  const authorityPem = await authorityAt(token)
  const fleet = fleetOf(new X509Certificate(authorityPem))
  const identityIn = (certificate: Buffer | string): Identity =>
    identityOf(new X509Certificate(certificate), fleet, nowMs, () => false)
  const { key, request: signing } = await makeRequest(host)
  const { socket } = await firstOf('the issuer', token.addresses, (address, signal) =>
    connectTo(
      address,
      {
        ca: authorityPem,
        minVersion: 'TLSv1.3',
        checkServerIdentity: (_, { raw }) => {
          try {
            identityIn(raw)
            return undefined
          } catch (error) {
            return error as Error
          }
        },
      },
      signal,
    ),
  )
  const { host: issuer } = identityIn(socket.getPeerCertificate().raw)
  const chain = textIn(
    await asked(socket, 'the issuer', '/v1/join', { secret: token.secret, host, request: signing }),
    'chain',
  )
  const identity = identityIn(chain)
  // The one that is known so far; it tells of the others.
  const known = [{ host: issuer, addresses: token.addresses.map(addressText), seen: null }]
  await folder.writeKnown(known)
  await folder.writeHostKey({ key, chain })
  await folder.writeAuthority(authorityPem)
  return identity
}

/** The certificate of the authority, as the issuer tells it; nothing is told to the issuer, and what it says is proved. */
async function authorityAt({ addresses, fingerprint }: Token): Promise<string> {
  const { socket } = await firstOf('the issuer', addresses, (address: Address, signal) =>
    // Nobody is believed here: the answer is held against the fingerprint.
    connectTo(address, { rejectUnauthorized: false, minVersion: 'TLSv1.3' }, signal),
  )
  const answer = await asked(socket, 'the issuer', '/v1/authority', {}).catch((error: unknown) => {
    if (!(error instanceof HostError) || error.code !== 'peer.refused') throw error
    throw new HostError(
      'fleet.token-refused',
      'no invitation is open there: it was used, or is past its time',
      {
        cause: error,
      },
    )
  })
  const pem = textIn(answer, 'authority')
  const isRight = () => {
    try {
      return fingerprintOf(new X509Certificate(pem)) === fingerprint
    } catch {
      // What is no certificate has no fingerprint.
      return false
    }
  }
  if (!isRight())
    throw new HostError('fleet.token-refused', 'who answers there is not the fleet that the token names')
  return pem
}

/** Whether the certificate of this host is due to be renewed. */
export const isDue = ({ credentials: { beganMs, identity } }: Keyring, nowMs: number): boolean =>
  nowMs >= dueMs(beganMs, identity.expiresMs, identity.host)

/**
 * Gets a new certificate, with a new key, from the first of these hosts that issues one, and writes it down. Throws what the last
 * of them said when none does.
 */
export async function renewAt(
  folder: FleetFolder,
  keyring: Keyring,
  hosts: readonly { readonly host: string; readonly addresses: readonly Address[] }[],
): Promise<void> {
  const { identity } = keyring.credentials
  const { key, request: signing } = await makeRequest(identity.host)
  let last: unknown = new HostError('fleet.no-issuer', 'no host is known that could renew the certificate')
  for (const { host, addresses } of hosts)
    try {
      const { socket } = await reach(keyring, host, addresses)
      const chain = textIn((await asked(socket, host, '/v1/renew', { request: signing })) as Issued, 'chain')
      await folder.writeHostKey({ key, chain })
      return
    } catch (error) {
      last = error
    }
  throw last
}
