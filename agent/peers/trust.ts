// Who a peer is: its certificate (RFC 5280), judged against the authority of the fleet and against those that were revoked.

import { verify, X509Certificate } from 'node:crypto'
import { HostError } from '../../provisioning/problem.ts'
import { type Check, isCount, isShaped, isText } from '../../provisioning/shape.ts'

/** What a host may ask of its peers, in rising order: it is written in its certificate. */
export const ROLES = ['read', 'operate', 'admin'] as const

/** One of `ROLES`. */
export type Role = (typeof ROLES)[number]

/** Whether a role includes another. */
export const includes = (role: Role, needed: Role): boolean => ROLES.indexOf(role) >= ROLES.indexOf(needed)

/** What a certificate says of its host. `enrolment` stays the same when it is renewed, and is new when the host joins again. */
export interface Identity {
  readonly fleet: string
  readonly role: Role
  readonly enrolment: string
  readonly host: string
  readonly expiresMs: number
}

/** A name that a host can have in a fleet. */
export const hostPattern = /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/

// Exactly what an issuer writes, in its order: anything more or less is no host of a fleet.
const subjectPattern =
  /^O=garrison fleet ([0-9a-f]{16})\nOU=(read|operate|admin)\nserialNumber=([0-9a-f]{16})\nCN=([a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?)$/

/** The subject of a host's certificate. */
export const subjectOf = ({ fleet, role, enrolment, host }: Omit<Identity, 'expiresMs'>) => [
  { O: [`garrison fleet ${fleet}`] },
  { OU: [role] },
  { '2.5.4.5': [enrolment] },
  { CN: [host] },
]

const refused = (why: string, details: Readonly<Record<string, unknown>> = {}): HostError =>
  new HostError('peer.refused', `the certificate of the peer ${why}`, { details })

/**
 * What a certificate says, that TLS has found to be signed by the authority. Throws `peer.refused` when it is not one of a host of
 * this fleet, is past its time, or revoked.
 */
export function identityOf(
  certificate: X509Certificate,
  fleet: string,
  nowMs: number,
  isRevoked: (enrolment: string) => boolean,
): Identity {
  const [, ofFleet = '', role = '', enrolment = '', host = ''] =
    subjectPattern.exec(certificate.subject) ?? []
  if (host === '' || certificate.ca) throw refused('is not one of a host')
  if (ofFleet !== fleet) throw refused('is of another fleet')
  if (isRevoked(enrolment)) throw refused(`was revoked (${host})`, { host })
  const expiresMs = certificate.validToDate.getTime()
  if (expiresMs <= nowMs) throw refused(`expired at ${new Date(expiresMs).toISOString()} (${host})`, { host })
  return { fleet, role: role as Role, enrolment, host, expiresMs }
}

/** That the certificates of an enrolment are not to be trusted any more, signed by an issuer of the fleet. */
export interface Revocation {
  readonly host: string
  readonly enrolment: string
  readonly atMs: number
  /** When the last certificate that it can have had is past its time: nobody needs to remember longer. */
  readonly untilMs: number
  /** The certificate of the issuer (PEM) and its signature (base64, ECDSA with SHA-256). */
  readonly issuer: string
  readonly signature: string
}

/** Whether something that was read has the form of a revocation; whether it counts, `isGenuine` says. */
export const isRevocation: Check = isShaped({
  host: isText(hostPattern),
  enrolment: isText(/^[0-9a-f]{16}$/),
  atMs: isCount,
  untilMs: isCount,
  issuer: isText(/^-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{64,4096}-----END CERTIFICATE-----\s*$/),
  signature: isText(/^[A-Za-z0-9+/=]{64,128}$/),
})

/** The text that an issuer signs. */
export const revocationText = (
  fleet: string,
  { host, enrolment, atMs, untilMs }: Omit<Revocation, 'issuer' | 'signature'>,
): Buffer => Buffer.from(`garrison revocation 1\n${fleet}\n${host}\n${enrolment}\n${atMs}\n${untilMs}\n`)

/** The fleet that an authority is of, by its own name. Throws `fleet.damaged`. */
export function fleetOf(authority: X509Certificate): string {
  const [, fleet] = /^CN=garrison fleet ([0-9a-f]{16})$/.exec(authority.subject) ?? []
  if (fleet === undefined || !authority.ca)
    throw new HostError('fleet.damaged', 'the certificate of the authority is none of a fleet')
  return fleet
}

/** Whether a revocation was signed by an issuer of this authority. */
export function isGenuine(revocation: Revocation, authority: X509Certificate): boolean {
  try {
    const issuer = new X509Certificate(revocation.issuer)
    return (
      isIssuer(issuer, authority) &&
      verify(
        'sha256',
        revocationText(fleetOf(authority), revocation),
        issuer.publicKey,
        Buffer.from(revocation.signature, 'base64'),
      )
    )
  } catch (error) {
    // What no parser takes is not genuine; anything else is a defect.
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_OSSL')) return false
    throw error
  }
}

/** Whether a certificate is one of an issuer that the authority has signed. */
export const isIssuer = (issuer: X509Certificate, authority: X509Certificate): boolean =>
  issuer.ca && issuer.checkIssued(authority) && issuer.verify(authority.publicKey)

/** The fingerprint that an invitation names the fleet by: SHA-256 of the authority's certificate, in hex. */
export const fingerprintOf = (certificate: X509Certificate): string =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase()
