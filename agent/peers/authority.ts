// Makes the certificates of a fleet (RFC 5280) and reads requests for them (PKCS #10), with @peculiar/x509.
//
// The authority signs issuers, an issuer signs hosts. So the key of the authority is needed only when a fleet is made and when an
// issuer is renewed, and can be kept where no network reaches it.

import { createPrivateKey, randomBytes, sign, webcrypto, X509Certificate } from 'node:crypto'
import { HostError } from '../../provisioning/problem.ts'
import {
  fleetOf,
  hostPattern,
  type Identity,
  isIssuer,
  type Revocation,
  revocationText,
  subjectOf,
} from './trust.ts'

/** A key and its certificate, both PEM. */
export interface Signer {
  readonly key: string
  readonly certificate: string
}

/** A new key (PKCS #8, PEM) and the request for a certificate of it (PKCS #10, PEM). */
export interface Requested {
  readonly key: string
  readonly request: string
}

/** How long certificates are good for. */
export interface Lifetimes {
  readonly authorityMs: number
  readonly issuerMs: number
  readonly hostMs: number
}

const dayMs = 86_400_000

/** Twenty years, two years, ninety days: a host that the issuer cannot be reached from has six weeks after its first try. */
export const usualLifetimes: Lifetimes = {
  authorityMs: 20 * 365 * dayMs,
  issuerMs: 2 * 365 * dayMs,
  hostMs: 90 * dayMs,
}

// Clocks differ, and one that is behind should not find its new certificate to be of the future.
const mostSkewMs = 3_600_000

const curve = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

/** The library, 20 MB of it: only where a certificate is made. */
async function x509() {
  // It wants the other to be there first.
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

const newKeys = () => webcrypto.subtle.generateKey(curve, true, ['sign', 'verify'])

const keyText = async (key: webcrypto.CryptoKey): Promise<string> =>
  createPrivateKey({
    key: Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)),
    format: 'der',
    type: 'pkcs8',
  }).export({ format: 'pem', type: 'pkcs8' }) as string

const signingKey = (pem: string): Promise<webcrypto.CryptoKey> =>
  webcrypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' }),
    curve,
    false,
    ['sign'],
  )

/** A span that begins a little before now and ends with its signer at the latest. */
function spanOf(lifetimeMs: number, nowMs: number, signer?: X509Certificate) {
  const end = Math.min(nowMs + lifetimeMs, signer?.validToDate.getTime() ?? Number.POSITIVE_INFINITY)
  return { notBefore: new Date(nowMs - Math.min(mostSkewMs, lifetimeMs / 10)), notAfter: new Date(end) }
}

const serialNumber = (): string => `01${randomBytes(15).toString('hex')}`

/** Makes the authority of a new fleet. Times are epoch milliseconds. */
export async function makeAuthority(lifetimeMs: number, nowMs: number): Promise<Signer> {
  const { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, X509CertificateGenerator } =
    await x509()
  const keys = await newKeys()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: [`garrison fleet ${randomBytes(8).toString('hex')}`] }],
    ...spanOf(lifetimeMs, nowMs),
    keys,
    signingAlgorithm: curve,
    extensions: [
      new BasicConstraintsExtension(true, 1, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true),
    ],
  })
  return { key: await keyText(keys.privateKey), certificate: pemOf(certificate) }
}

const pemOf = (certificate: { toString(format: 'pem'): string }): string => `${certificate.toString('pem')}\n`

/** Makes a key and the request for its certificate. What the request asks to be called only its signer decides. */
export async function makeRequest(name: string): Promise<Requested> {
  const { Pkcs10CertificateRequestGenerator } = await x509()
  const keys = await newKeys()
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: curve,
  })
  return { key: await keyText(keys.privateKey), request: pemOf(request) }
}

/** A request that is well formed, asks for a P-256 key, and was made by who has that key. Throws `fleet.request-refused`. */
async function checkedRequest(text: string) {
  const { Pkcs10CertificateRequest } = await x509()
  const refused = (why: string, cause?: unknown) =>
    new HostError('fleet.request-refused', `the request for a certificate ${why}`, { cause })
  const read = () => {
    try {
      return new Pkcs10CertificateRequest(text)
    } catch (cause) {
      throw refused('cannot be read', cause)
    }
  }
  const request = read()
  const { name, namedCurve } = request.publicKey.algorithm as { name?: string; namedCurve?: string }
  if (name !== curve.name || namedCurve !== curve.namedCurve) throw refused('is not for an ECDSA P-256 key')
  if (!(await request.verify())) throw refused('is not signed with its own key')
  return request
}

/** Signs the request of an issuer with the key of the authority. Throws `fleet.request-refused`. */
export async function signIssuer(
  authority: Signer,
  requestText: string,
  lifetimeMs: number,
  nowMs: number,
): Promise<string> {
  const { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, X509CertificateGenerator } =
    await x509()
  const request = await checkedRequest(requestText)
  const parent = new X509Certificate(authority.certificate)
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ O: [`garrison fleet ${fleetOf(parent)}`] }, { CN: ['issuer'] }],
    issuer: [{ CN: [`garrison fleet ${fleetOf(parent)}`] }],
    ...spanOf(lifetimeMs, nowMs, parent),
    publicKey: request.publicKey,
    signingKey: await signingKey(authority.key),
    signingAlgorithm: curve,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.digitalSignature, true),
    ],
  })
  return pemOf(certificate)
}

/** Signs the request of a host with the key of an issuer: answers the certificate. Throws `fleet.request-refused`. */
export async function signHost(
  issuer: Signer,
  requestText: string,
  identity: Omit<Identity, 'expiresMs'>,
  lifetimeMs: number,
  nowMs: number,
): Promise<string> {
  const {
    BasicConstraintsExtension,
    ExtendedKeyUsage,
    ExtendedKeyUsageExtension,
    KeyUsageFlags,
    KeyUsagesExtension,
    SubjectAlternativeNameExtension,
    X509CertificateGenerator,
  } = await x509()
  if (!hostPattern.test(identity.host))
    throw new HostError('fleet.request-refused', 'that is no name for a host: lower case, digits, - and .')
  const request = await checkedRequest(requestText)
  const parent = new X509Certificate(issuer.certificate)
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: subjectOf(identity),
    issuer: [{ O: [`garrison fleet ${identity.fleet}`] }, { CN: ['issuer'] }],
    ...spanOf(lifetimeMs, nowMs, parent),
    publicKey: request.publicKey,
    signingKey: await signingKey(issuer.key),
    signingAlgorithm: curve,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      new SubjectAlternativeNameExtension([{ type: 'dns', value: identity.host }]),
    ],
  })
  return pemOf(certificate)
}

/** Signs that the certificates of an enrolment are not to be trusted any more. */
export function signRevocation(
  issuer: Signer,
  fleet: string,
  what: Omit<Revocation, 'issuer' | 'signature'>,
): Revocation {
  const signature = sign('sha256', revocationText(fleet, what), createPrivateKey(issuer.key))
  return { ...what, issuer: issuer.certificate, signature: signature.toString('base64') }
}

/** Whether a certificate that came back belongs to a key and, as an issuer, to the authority. */
export function isIssuerFor(certificate: string, key: string, authority: X509Certificate): boolean {
  const issuer = new X509Certificate(certificate)
  return isIssuer(issuer, authority) && issuer.checkPrivateKey(createPrivateKey(key))
}
