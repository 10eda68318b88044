// What a host of a fleet holds in memory of its keys and of whom it trusts, as TLS 1.3 (RFC 8446) wants them.

import { X509Certificate } from 'node:crypto'
import { createSecureContext, type TLSSocket } from 'node:tls'
import { HostError } from '../../provisioning/problem.ts'
import type { FleetFolder } from './folder.ts'
import { fingerprintOf, fleetOf, type Identity, identityOf, isGenuine, type Revocation } from './trust.ts'

/** Everything that was read once, and belongs together. */
export interface Credentials {
  readonly identity: Identity
  readonly authority: X509Certificate
  /** SHA-256 of the certificate of the authority. */
  readonly fingerprint: string
  readonly beganMs: number
  /** The number of the certificate of this host, to tell whether it is a new one. */
  readonly serial: string
  /** The same as TLS takes it (PEM). */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string }
}

/** Reads what a host is in its fleet; null when it is in none. Throws `fleet.damaged`, `fleet.denied`. */
export async function readCredentials(folder: FleetFolder): Promise<Credentials | null> {
  const [authorityPem, hostKey] = [await folder.readAuthority(), await folder.readHostKey()]
  if (authorityPem === null || hostKey === null) return null
  try {
    const authority = new X509Certificate(authorityPem)
    const certificate = new X509Certificate(hostKey.chain)
    // A host that was off for long still has to know who it is, to say that it must join again.
    const identity = identityOf(certificate, fleetOf(authority), 0, () => false)
    const tls = { ca: authorityPem, cert: hostKey.chain, key: hostKey.key }
    // Throws when the key is another's.
    createSecureContext(tls)
    return {
      identity,
      authority,
      fingerprint: fingerprintOf(authority),
      beganMs: certificate.validFromDate.getTime(),
      serial: certificate.serialNumber,
      tls,
    }
  } catch (cause) {
    throw new HostError('fleet.damaged', `the keys in ${folder.path} do not belong together`, {
      details: { path: folder.path },
      cause,
    })
  }
}

/** The keys of this host and the revocations that it knows, read anew when the folder changes. */
export class Keyring {
  readonly #folder: FleetFolder
  readonly #epochMs: () => number
  #credentials: Credentials
  #revocations: readonly Revocation[] = []
  #revoked: ReadonlySet<string> = new Set()
  /** Revocations that are on the disk and cannot be read. */
  problems: readonly HostError[] = []

  constructor(folder: FleetFolder, credentials: Credentials, epochMs: () => number) {
    this.#folder = folder
    this.#credentials = credentials
    this.#epochMs = epochMs
  }

  get credentials(): Credentials {
    return this.#credentials
  }

  /** Reads the folder; answers what is new in it. */
  async reload(): Promise<{ readonly renewed: boolean; readonly revoked: boolean }> {
    const credentials = await readCredentials(this.#folder)
    const renewed = credentials !== null && credentials.serial !== this.#credentials.serial
    if (renewed) this.#credentials = credentials
    const before = this.#revoked.size
    const { revocations, problems } = await this.#folder.readRevocations(this.#epochMs())
    this.problems = problems
    this.#keep(revocations.filter((one) => isGenuine(one, this.#credentials.authority)))
    return { renewed, revoked: this.#revoked.size > before }
  }

  #keep(revocations: readonly Revocation[]): void {
    this.#revocations = revocations
    this.#revoked = new Set(revocations.map(({ enrolment }) => enrolment))
  }

  all(): readonly Revocation[] {
    return this.#revocations
  }

  /** Adds those that are genuine and new, on the disk first; answers whether there were any. */
  async learn(entries: readonly Revocation[]): Promise<boolean> {
    const isNew = ({ enrolment }: Revocation): boolean => !this.#revoked.has(enrolment)
    const added = entries.filter(
      (one) =>
        isNew(one) &&
        one.untilMs > this.#epochMs() &&
        this.#revocations.length < mostRevocations &&
        isGenuine(one, this.#credentials.authority),
    )
    for (const one of added) await this.#folder.writeRevocation(one)
    // Others may have been learnt meanwhile.
    this.#keep([...this.#revocations, ...added.filter(isNew)])
    return added.length > 0
  }

  /** Who is at the other end of a connection. Throws `peer.refused` with the reason. */
  peerOf(socket: TLSSocket): Identity {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) throw new HostError('peer.refused', 'the peer shows no certificate')
    const { identity } = this.#credentials
    // OpenSSL says CERT_HAS_EXPIRED first; which host it was is worth more.
    const judged = () =>
      identityOf(certificate, identity.fleet, this.#epochMs(), (one) => this.#revoked.has(one))
    if (socket.authorized) return judged()
    const why = String(socket.authorizationError ?? 'unknown')
    if (why.includes('CERT_HAS_EXPIRED')) judged()
    throw new HostError('peer.refused', `the certificate of the peer is not to be trusted (${why})`)
  }
}

const mostRevocations = 4096
