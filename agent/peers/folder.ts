// What a host keeps of its fleet, as files of one folder (/var/lib/garrison/fleet, mode 0700, files 0600, owner garrison).
//
// INVARIANTS
// - A key and its certificate are one file, replaced whole: they always belong together.
// - Invitations, enrolments and revocations are one file each, so that the command line and the daemon never write the same one.

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import { createFile, errnoOf, makeFolder, removeFile, replaceFile } from '../host/files.ts'
import type { Lifetimes, Signer } from './authority.ts'
import type { Revocation, Role } from './trust.ts'

/** An invitation that is still open, by the hash of its secret. */
export interface Invitation {
  readonly role: Role
  /** The name that must join with it; any when null. */
  readonly host: string | null
  readonly untilMs: number
}

/** A host that this issuer has let in. */
export interface Enrolment {
  readonly host: string
  readonly enrolment: string
  readonly role: Role
  readonly atMs: number
}

/** What the host itself is: its key, its certificate and that of its issuer (PEM, in this order in one file). */
export interface HostKey {
  readonly key: string
  readonly chain: string
}

const privately = 0o600

/** The parts of a PEM file: the private key, and the certificates in their order. */
function partsOf(pem: string): { readonly key: string; readonly certificates: readonly string[] } {
  const blocks = pem.match(/-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----\n?/g) ?? []
  const key = blocks.find((block) => block.includes('PRIVATE KEY-----')) ?? ''
  return { key, certificates: blocks.filter((block) => block.startsWith('-----BEGIN CERTIFICATE-----')) }
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    const errno = errnoOf(cause)
    if (errno === 'ENOENT') return null
    if (errno === undefined) throw cause
    const code = errno === 'EACCES' ? 'fleet.denied' : 'host.unreadable'
    throw new HostError(code, `${path} could not be read (${errno})`, { details: { path, errno }, cause })
  }
}

/** The fleet folder of one host. Everything is read anew at each call: others write here too. */
export class FleetFolder {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  #at(...names: string[]): string {
    return join(this.path, ...names)
  }

  /** Makes the folder and what is below it where it is missing; as root, becomes its owner first where it is there. */
  async enter(): Promise<void> {
    await becomeOwner(this.path)
    for (const name of ['', 'invited', 'enrolled', 'revoked'])
      await makeFolder(this.#at(name), { mode: 0o700 })
  }

  /** The certificate of the authority (PEM), or null when the host is in no fleet. */
  readAuthority(): Promise<string | null> {
    return readOrNull(this.#at('authority.pem'))
  }

  writeAuthority(certificate: string): Promise<void> {
    return replaceFile(this.#at('authority.pem'), certificate, privately)
  }

  /** The key of the authority with its certificate, where it is kept on this host or in another folder; else null. */
  async readAuthorityKey(folder = this.path): Promise<Signer | null> {
    return signerOf(await readOrNull(join(folder, 'authority.key')))
  }

  async writeAuthorityKey(authority: Signer, folder = this.path): Promise<void> {
    const path = join(folder, 'authority.key')
    if (!(await createFile(path, authority.key + authority.certificate, privately)))
      throw new HostError('fleet.exists', `there is the key of an authority already: ${path}`, {
        details: { path },
      })
  }

  /** The key of an issuer with its certificate; null where this host issues nothing. */
  async readIssuer(): Promise<Signer | null> {
    return signerOf(await readOrNull(this.#at('issuer.pem')))
  }

  writeIssuer({ key, certificate }: Signer): Promise<void> {
    return replaceFile(this.#at('issuer.pem'), key + certificate, privately)
  }

  /** A key that an issuer's certificate was asked for, with the request. */
  async readIssuerRequest(): Promise<{ readonly key: string; readonly request: string } | null> {
    const pem = await readOrNull(this.#at('issuer-request.pem'))
    if (pem === null) return null
    const { key } = partsOf(pem)
    return { key, request: pem.slice(key.length) }
  }

  writeIssuerRequest({ key, request }: { readonly key: string; readonly request: string }): Promise<void> {
    return replaceFile(this.#at('issuer-request.pem'), key + request, privately)
  }

  dropIssuerRequest(): Promise<void> {
    return removeFile(this.#at('issuer-request.pem'))
  }

  /** What this host is in the fleet; null before it has joined. */
  async readHostKey(): Promise<HostKey | null> {
    const pem = await readOrNull(this.#at('identity.pem'))
    if (pem === null) return null
    const { key, certificates } = partsOf(pem)
    return { key, chain: certificates.join('') }
  }

  writeHostKey({ key, chain }: HostKey): Promise<void> {
    return replaceFile(this.#at('identity.pem'), key + chain, privately)
  }

  /** How long the certificates are good for that are issued here. */
  async readLifetimes(): Promise<Lifetimes | null> {
    const text = await readOrNull(this.#at('lifetimes.json'))
    return text === null ? null : JSON.parse(text)
  }

  writeLifetimes(lifetimes: Lifetimes): Promise<void> {
    return replaceFile(this.#at('lifetimes.json'), `${JSON.stringify(lifetimes)}\n`, privately)
  }

  writeInvitation(hash: string, invitation: Invitation): Promise<void> {
    return replaceFile(this.#at('invited', `${hash}.json`), JSON.stringify(invitation), privately)
  }

  /** The invitation with this hash, or null. */
  async readInvitation(hash: string): Promise<Invitation | null> {
    const text = await readOrNull(this.#at('invited', `${hash}.json`))
    return text === null ? null : JSON.parse(text)
  }

  removeInvitation(hash: string): Promise<void> {
    return removeFile(this.#at('invited', `${hash}.json`))
  }

  /** Removes the invitations that are past their time; answers how many are open. */
  async sweepInvitations(nowMs: number): Promise<number> {
    let open = 0
    for (const name of await this.#namesIn('invited')) {
      const hash = name.slice(0, -'.json'.length)
      const invitation = await this.readInvitation(hash)
      if (invitation !== null && invitation.untilMs > nowMs) open += 1
      else await this.removeInvitation(hash)
    }
    return open
  }

  /** Writes down who was let in. */
  writeEnrolment(enrolment: Enrolment): Promise<void> {
    return replaceFile(this.#at('enrolled', `${enrolment.host}.json`), JSON.stringify(enrolment), privately)
  }

  async readEnrolment(host: string): Promise<Enrolment | null> {
    const text = await readOrNull(this.#at('enrolled', `${host}.json`))
    return text === null ? null : JSON.parse(text)
  }

  removeEnrolment(host: string): Promise<void> {
    return removeFile(this.#at('enrolled', `${host}.json`))
  }

  writeRevocation(revocation: Revocation): Promise<void> {
    return replaceFile(
      this.#at('revoked', `${revocation.enrolment}.json`),
      JSON.stringify(revocation),
      privately,
    )
  }

  /** Every revocation that somebody still needs to know; removes the others. */
  async readRevocations(nowMs: number): Promise<readonly Revocation[]> {
    const revocations: Revocation[] = []
    for (const name of await this.#namesIn('revoked')) {
      const text = await readOrNull(this.#at('revoked', name))
      if (text === null) continue
      const revocation: Revocation = JSON.parse(text)
      if (revocation.untilMs > nowMs) revocations.push(revocation)
      else await removeFile(this.#at('revoked', name))
    }
    return revocations
  }

  async #namesIn(folder: string): Promise<readonly string[]> {
    try {
      return (await readdir(this.#at(folder))).filter(
        (name) => name.endsWith('.json') && !name.startsWith('.'),
      )
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw error
    }
  }

  /** What was last known of the other hosts, as JSON; null when nothing is. */
  readKnown(): Promise<string | null> {
    return readOrNull(this.#at('known.json'))
  }

  /** What the cloud last told of where the others are, as JSON; null when it never did. */
  readDiscovered(): Promise<string | null> {
    return readOrNull(this.#at('discovered.json'))
  }

  writeDiscovered(text: string): Promise<void> {
    return replaceFile(this.#at('discovered.json'), text, privately)
  }

  writeKnown(text: string): Promise<void> {
    return replaceFile(this.#at('known.json'), text, privately)
  }
}

function signerOf(pem: string | null): Signer | null {
  if (pem === null) return null
  const { key, certificates } = partsOf(pem)
  return { key, certificate: certificates[0] ?? '' }
}

/** As root: goes on as the owner of what is there, whose keys these are. Otherwise nothing. */
async function becomeOwner(path: string): Promise<void> {
  if (process.getuid?.() !== 0) return
  try {
    const { uid, gid } = await stat(path)
    if (uid === 0) return
    process.setgroups?.([gid])
    process.setgid?.(gid)
    process.setuid?.(uid)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
