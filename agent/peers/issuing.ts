// How hosts come by their certificates: the issuer's side of joining and renewing, and what is asked of it.

import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { OneByOne } from '../../provisioning/one-by-one.ts'
import { HostError } from '../../provisioning/problem.ts'
import {
  isIssuerFor,
  type Lifetimes,
  makeAuthority,
  makeRequest,
  type Signer,
  signHost,
  signIssuer,
  signRevocation,
  usualLifetimes,
} from './authority.ts'
import { type FleetFolder, wantDamaged } from './folder.ts'
import { newSecret, secretHash } from './token.ts'
import { fingerprintOf, fleetOf, hostPattern, type Identity, isIssuer, type Role } from './trust.ts'

/** What a host sends to join: the secret of its invitation, the name that it wants, and a request for a certificate (PKCS #10). */
export interface Joining {
  readonly secret: string
  readonly host: string
  readonly request: string
}

/** What it gets: its certificate and that of its issuer (PEM), and that of the authority. */
export interface Issued {
  readonly chain: string
}

const mostInvitations = 256

const fleetExists = (path: string): HostError =>
  new HostError('fleet.exists', `this host is in a fleet already (${path})`, { details: { path } })

/** Makes the authority of a new fleet and leaves its key in `keyFolder`. Throws `fleet.exists`. */
export async function makeFleetAuthority(
  folder: FleetFolder,
  keyFolder: string,
  lifetimes: Lifetimes,
  nowMs: number,
): Promise<Signer> {
  if ((await folder.readAuthority()) !== null) throw fleetExists(folder.path)
  const authority = await makeAuthority(lifetimes.authorityMs, nowMs)
  await folder.writeAuthorityKey(authority, keyFolder)
  return authority
}

/** Makes a fleet of an authority, with this host as its first and as its issuer. */
export async function makeFleet(
  folder: FleetFolder,
  authority: Signer,
  host: string,
  lifetimes: Lifetimes,
  nowMs: number,
): Promise<{ readonly fleet: string; readonly fingerprint: string }> {
  const root = new X509Certificate(authority.certificate)
  await folder.writeLifetimes(lifetimes)
  const issuer = await makeRequest('issuer')
  const certificate = await signIssuer(authority, issuer.request, lifetimes.issuerMs, nowMs)
  await folder.writeIssuer({ key: issuer.key, certificate })
  const identity = { fleet: fleetOf(root), host, role: 'admin' as const, enrolment: newEnrolment() }
  await folder.writeEnrolment({ host, role: 'admin', enrolment: identity.enrolment, atMs: nowMs })
  const own = await makeRequest(host)
  const signed = await signHost(
    { key: issuer.key, certificate },
    own.request,
    identity,
    lifetimes.hostMs,
    nowMs,
  )
  await folder.writeHostKey({ key: own.key, chain: signed + certificate })
  // Last: with it the host is in a fleet.
  await folder.writeAuthority(authority.certificate)
  return { fleet: identity.fleet, fingerprint: fingerprintOf(root) }
}

const newEnrolment = (): string => randomBytes(8).toString('hex')

/** Throws `fleet.name-refused` for what cannot be the name of a host. */
export function wantHostName(host: string): void {
  if (!hostPattern.test(host))
    throw new HostError('fleet.name-refused', `${host} is no name for a host of a fleet`, {
      details: { host },
    })
}

const noIssuer = (): HostError => new HostError('fleet.no-issuer', 'this host issues no certificates')

/** Opens the fleet once, for one host. Throws `fleet.no-issuer`. The secret is nowhere but in the answer. */
export async function invite(
  folder: FleetFolder,
  invitation: { readonly role: Role; readonly host: string | null; readonly untilMs: number },
  nowMs: number,
): Promise<string> {
  if ((await folder.readIssuer()) === null) throw noIssuer()
  if (invitation.host !== null) wantHostName(invitation.host)
  if ((await folder.sweepInvitations(nowMs)) >= mostInvitations)
    throw new HostError('fleet.token-refused', `there are ${mostInvitations} open invitations already`)
  const secret = newSecret()
  await folder.writeInvitation(secretHash(secret), invitation)
  return secret
}

/** The issuer's side. One at a time: an invitation opens once. */
export class Issuing {
  readonly #folder: FleetFolder
  readonly #epochMs: () => number
  readonly #answers = new OneByOne()

  constructor(folder: FleetFolder, epochMs: () => number) {
    this.#folder = folder
    this.#epochMs = epochMs
  }

  /** Whether somebody without a certificate may ask for one now. */
  async isOpen(): Promise<boolean> {
    return (
      (await this.#folder.readIssuer()) !== null && (await this.#folder.sweepInvitations(this.#epochMs())) > 0
    )
  }

  /** Lets a host in. Throws `fleet.token-refused`, `fleet.name-taken`, `fleet.request-refused`, `fleet.no-issuer`. */
  join({
    secret,
    host,
    request,
  }: Joining): Promise<Issued & { readonly identity: Omit<Identity, 'expiresMs'> }> {
    return this.#answers.do(async () => {
      const hash = secretHash(secret)
      const invitation = await this.#folder.readInvitation(hash)
      if (invitation === null || invitation.untilMs <= this.#epochMs())
        throw new HostError('fleet.token-refused', 'the token is not known, was used, or is past its time')
      wantHostName(host)
      if (invitation.host !== null && invitation.host !== host)
        throw new HostError('fleet.token-refused', `the token is for ${invitation.host}, and not for ${host}`)
      if ((await this.#folder.readEnrolment(host)) !== null)
        throw new HostError('fleet.name-taken', `the fleet has a host ${host} already`, { details: { host } })
      const { fleet } = await this.#fleet()
      const identity = { fleet, host, role: invitation.role, enrolment: newEnrolment() }
      // Signed before it is used up, so that a request that is refused costs no token; and not given away before it is.
      const issued = await this.#sign(request, identity)
      await this.#folder.removeInvitation(hash)
      await this.#folder.writeEnrolment({
        host,
        role: invitation.role,
        enrolment: identity.enrolment,
        atMs: this.#epochMs(),
      })
      return { ...issued, identity }
    })
  }

  /** A new certificate for a host that has shown its present one. Throws `fleet.request-refused`, `fleet.no-issuer`. */
  renew({ fleet, host, role, enrolment }: Identity, request: string): Promise<Issued> {
    return this.#answers.do(async () => {
      const issued = await this.#sign(request, { fleet, host, role, enrolment })
      const known = await this.#folder.readEnrolment(host).catch((error: unknown) => {
        wantDamaged(error)
        return null
      })
      // It may be lost, or of another issuer that is no more: this one can revoke the host from now on.
      if (known?.enrolment !== enrolment)
        await this.#folder.writeEnrolment({ host, role, enrolment, atMs: this.#epochMs() })
      return issued
    })
  }

  async #fleet(): Promise<{ readonly fleet: string }> {
    const authority = await this.#folder.readAuthority()
    if (authority === null) throw noIssuer()
    return { fleet: fleetOf(new X509Certificate(authority)) }
  }

  async #sign(request: string, identity: Omit<Identity, 'expiresMs'>): Promise<Issued> {
    const issuer = await this.#folder.readIssuer()
    if (issuer === null) throw noIssuer()
    const { hostMs } = (await this.#folder.readLifetimes()) ?? usualLifetimes
    const certificate = await signHost(issuer, request, identity, hostMs, this.#epochMs())
    return { chain: certificate + issuer.certificate }
  }
}

/**
 * Takes the trust in a host back: the revocation is written down here, and travels with the mesh from the next moment on. Throws
 * `fleet.no-issuer`, `fleet.unknown-host`.
 */
export async function revoke(folder: FleetFolder, host: string, nowMs: number): Promise<string> {
  const issuer = await folder.readIssuer()
  const authority = await folder.readAuthority()
  if (issuer === null || authority === null) throw noIssuer()
  const enrolment = await folder.readEnrolment(host)
  if (enrolment === null)
    throw new HostError('fleet.unknown-host', `${host} was not let in by this issuer`, { details: { host } })
  const { hostMs } = (await folder.readLifetimes()) ?? usualLifetimes
  const untilMs = nowMs + hostMs
  await folder.writeRevocation(
    signRevocation(issuer, fleetOf(new X509Certificate(authority)), {
      host,
      enrolment: enrolment.enrolment,
      atMs: nowMs,
      untilMs,
    }),
  )
  await folder.removeEnrolment(host)
  return enrolment.enrolment
}

/** A request for the certificate of an issuer, with a key that stays here: for who has the key of the authority. */
export async function requestIssuer(folder: FleetFolder): Promise<string> {
  if ((await folder.readAuthority()) === null)
    throw new HostError('fleet.none', 'this host is in no fleet: it has to join one first')
  const open = await folder.readIssuerRequest()
  if (open !== null) return open.request
  const made = await makeRequest('issuer')
  await folder.writeIssuerRequest(made)
  return made.request
}

/** Takes the certificate that a request was answered with. Throws `fleet.request-refused` unless it belongs to that request. */
export async function acceptIssuer(
  folder: FleetFolder,
  certificate: string,
): Promise<{ readonly untilMs: number }> {
  const open = await folder.readIssuerRequest()
  const authority = await folder.readAuthority()
  if (open === null || authority === null)
    throw new HostError('fleet.request-refused', 'this host has asked for no certificate of an issuer')
  const read = () => {
    try {
      return isIssuerFor(certificate, open.key, new X509Certificate(authority))
    } catch (cause) {
      throw new HostError('fleet.request-refused', 'that is no certificate', { cause })
    }
  }
  if (!read())
    throw new HostError(
      'fleet.request-refused',
      'the certificate is not for the key of this host, or not signed by the authority of its fleet',
    )
  await folder.writeIssuer({ key: open.key, certificate })
  if ((await folder.readLifetimes()) === null) await folder.writeLifetimes(usualLifetimes)
  await folder.dropIssuerRequest()
  return { untilMs: new X509Certificate(certificate).validToDate.getTime() }
}

/** Renews the issuer of this host where the key of the authority is here too; answers whether it did. */
export async function renewIssuer(folder: FleetFolder, nowMs: number): Promise<boolean> {
  const [issuer, authority] = [await folder.readIssuer(), await folder.readAuthorityKey()]
  if (issuer === null || authority === null) return false
  const { validFromDate, validToDate } = new X509Certificate(issuer.certificate)
  if (nowMs < dueMs(validFromDate.getTime(), validToDate.getTime())) return false
  const { issuerMs } = (await folder.readLifetimes()) ?? usualLifetimes
  const { key, request } = await makeRequest('issuer')
  await folder.writeIssuer({ key, certificate: await signIssuer(authority, request, issuerMs, nowMs) })
  return true
}

/** When a certificate is to be renewed: at half of its time, and a little later by its name, so that not all come at once. */
export function dueMs(fromMs: number, toMs: number, name = ''): number {
  const spread = createHash('sha256').update(name).digest().readUInt16BE(0) / 65_536
  return fromMs + (toMs - fromMs) * (0.5 + 0.1 * spread)
}

/**
 * How far the certificate of the issuer here is good for, in epoch milliseconds; null where there is none. Throws `fleet.file-damaged`
 * when anything that it takes to issue certificates cannot be read.
 */
export async function issuerUntilMs(folder: FleetFolder): Promise<number | null> {
  const [issuer, authority] = [await folder.readIssuer(), await folder.readAuthority()]
  if (issuer === null || authority === null) return null
  await folder.readLifetimes()
  const certificate = new X509Certificate(issuer.certificate)
  return isIssuer(certificate, new X509Certificate(authority)) ? certificate.validToDate.getTime() : null
}
