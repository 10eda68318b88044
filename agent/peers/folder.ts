// What a host keeps of its fleet, as files of one folder (/var/lib/garrison/fleet, mode 0700, files 0600, owner garrison).
//
// INVARIANTS
// - A key and its certificate are one file, replaced whole: they always belong together.
// - Invitations, enrolments and revocations are one file each, so that the command line and the daemon never write the same one.
// - What is read is whole or `fleet.file-damaged`: files can be edited, and drives forget.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import { type Check, isCount, isEither, isList, isNull, isShaped, isText } from '../../provisioning/shape.ts'
import { createFile, errnoOf, makeFolder, removeFile, replaceFile } from '../host/files.ts'
import { addressPattern, overPattern } from './address.ts'
import type { Lifetimes, Signer } from './authority.ts'
import { hostPattern, isRevocation, type Revocation, ROLES, type Role } from './trust.ts'

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

/** What was last known of another host. */
export interface Remembered {
  readonly host: string
  readonly addresses: readonly string[]
  readonly seen: { readonly atMs: number; readonly over: string } | null
}

/** Where the cloud last said that hosts are, by their names, and by which tag it was asked. */
export interface Discovered {
  readonly tag: string
  readonly hosts: Readonly<Record<string, readonly string[]>>
}

const privately = 0o600
const most = 4096

const isHost = isText(hostPattern)
const isRole: Check = (value) => (ROLES as readonly unknown[]).includes(value)
const isInvitation = isShaped({ role: isRole, host: isEither(isNull, isHost), untilMs: isCount })
const isEnrolment = isShaped({
  host: isHost,
  role: isRole,
  enrolment: isText(/^[0-9a-f]{16}$/),
  atMs: isCount,
})
const isLifetimes = isShaped({ authorityMs: isCount, issuerMs: isCount, hostMs: isCount })
const isKnown = isList(
  most,
  isShaped({
    host: isHost,
    addresses: isList(most, isText(addressPattern)),
    seen: isEither(isNull, isShaped({ atMs: isCount, over: isText(overPattern) })),
  }),
)
const isHosts: Check = (value) =>
  typeof value === 'object' && value !== null && Object.values(value).every(isList(most, isText(/^/)))
const isDiscovered = isShaped({ tag: isText(/^/), hosts: isHosts })

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

const damaged = (path: string, cause?: unknown): HostError =>
  new HostError('fleet.file-damaged', `${path} does not hold what Garrison wrote there`, {
    details: { path },
    cause,
  })

/** The JSON of a file, or null when it is not there. Throws `fleet.file-damaged` when it is not what Garrison wrote. */
async function jsonOrNull<T>(path: string, isWhole: Check): Promise<T | null> {
  const text = await readOrNull(path)
  if (text === null) return null
  const read = (): unknown => {
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw damaged(path, cause)
    }
  }
  const value = read()
  if (!isWhole(value)) throw damaged(path)
  return value as T
}

/** The error, if it says that a file is damaged. Throws any other. */
export function wantDamaged(error: unknown): HostError {
  if (error instanceof HostError && error.code === 'fleet.file-damaged') return error
  throw error
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
  readAuthorityKey(folder = this.path): Promise<Signer | null> {
    return signerOrNull(join(folder, 'authority.key'))
  }

  async writeAuthorityKey(authority: Signer, folder = this.path): Promise<void> {
    const path = join(folder, 'authority.key')
    if (!(await createFile(path, authority.key + authority.certificate, privately)))
      throw new HostError('fleet.exists', `there is the key of an authority already: ${path}`, {
        details: { path },
      })
  }

  /** The key of an issuer with its certificate; null where this host issues nothing. */
  readIssuer(): Promise<Signer | null> {
    return signerOrNull(this.#at('issuer.pem'))
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
  readLifetimes(): Promise<Lifetimes | null> {
    return jsonOrNull(this.#at('lifetimes.json'), isLifetimes)
  }

  writeLifetimes(lifetimes: Lifetimes): Promise<void> {
    return replaceFile(this.#at('lifetimes.json'), `${JSON.stringify(lifetimes)}\n`, privately)
  }

  writeInvitation(hash: string, invitation: Invitation): Promise<void> {
    return replaceFile(this.#at('invited', `${hash}.json`), JSON.stringify(invitation), privately)
  }

  /** The invitation with this hash, or null. */
  readInvitation(hash: string): Promise<Invitation | null> {
    return jsonOrNull(this.#at('invited', `${hash}.json`), isInvitation)
  }

  removeInvitation(hash: string): Promise<void> {
    return removeFile(this.#at('invited', `${hash}.json`))
  }

  /** Removes the invitations that are past their time or damaged, and so open nothing; answers how many are open. */
  async sweepInvitations(nowMs: number): Promise<number> {
    let open = 0
    for (const name of await this.#namesIn('invited')) {
      const hash = name.slice(0, -'.json'.length)
      const invitation = await this.readInvitation(hash).catch((error: unknown) => {
        wantDamaged(error)
        return null
      })
      if (invitation !== null && invitation.untilMs > nowMs) open += 1
      else await this.removeInvitation(hash)
    }
    return open
  }

  /** Writes down who was let in. */
  writeEnrolment(enrolment: Enrolment): Promise<void> {
    return replaceFile(this.#at('enrolled', `${enrolment.host}.json`), JSON.stringify(enrolment), privately)
  }

  readEnrolment(host: string): Promise<Enrolment | null> {
    return jsonOrNull(this.#at('enrolled', `${host}.json`), isEnrolment)
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

  /** Every revocation that somebody still needs to know, and what is wrong with those that cannot be read; removes what is over. */
  async readRevocations(
    nowMs: number,
  ): Promise<{ readonly revocations: readonly Revocation[]; readonly problems: readonly HostError[] }> {
    const revocations: Revocation[] = []
    const problems: HostError[] = []
    for (const name of await this.#namesIn('revoked'))
      try {
        const revocation = await jsonOrNull<Revocation>(this.#at('revoked', name), isRevocation)
        if (revocation === null) continue
        if (revocation.untilMs > nowMs) revocations.push(revocation)
        else await removeFile(this.#at('revoked', name))
      } catch (error) {
        // One that is damaged takes no other along: peers tell it again.
        problems.push(wantDamaged(error))
      }
    return { revocations, problems }
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

  /** What was last known of the other hosts; null when nothing is. */
  readKnown(): Promise<readonly Remembered[] | null> {
    return jsonOrNull(this.#at('known.json'), isKnown)
  }

  writeKnown(known: readonly Remembered[]): Promise<void> {
    return replaceFile(this.#at('known.json'), `${JSON.stringify(known)}\n`, privately)
  }

  /** What the cloud last told of where the others are; null when it never did. */
  readDiscovered(): Promise<Discovered | null> {
    return jsonOrNull(this.#at('discovered.json'), isDiscovered)
  }

  writeDiscovered(discovered: Discovered): Promise<void> {
    return replaceFile(this.#at('discovered.json'), `${JSON.stringify(discovered)}\n`, privately)
  }
}

/** A key with its certificate, or null when the file is not there. Throws `fleet.file-damaged` when they do not belong together. */
async function signerOrNull(path: string): Promise<Signer | null> {
  const pem = await readOrNull(path)
  if (pem === null) return null
  const { key, certificates } = partsOf(pem)
  const [certificate = ''] = certificates
  const belong = () => {
    try {
      return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
    } catch (cause) {
      throw damaged(path, cause)
    }
  }
  if (!belong()) throw damaged(path)
  return { key, certificate }
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
