// The token of an invitation: where the fleet is, the fingerprint that it is known by, and a secret that opens it once.

import { createHash, randomBytes } from 'node:crypto'
import { HostError } from '../../provisioning/problem.ts'
import { type Address, addressPattern, addressText, parseAddress } from './address.ts'

/** What a token holds. */
export interface Token {
  /** Where the issuer listens: `host:port`, to be tried side by side. */
  readonly addresses: readonly Address[]
  /** SHA-256 of the certificate of the authority, in hex. */
  readonly fingerprint: string
  readonly secret: string
}

const prefix = 'garrison1.'
const mostAddresses = 16

/** A new secret: 128 bits. */
export const newSecret = (): string => randomBytes(16).toString('base64url')

/** What the issuer keeps of a secret: enough to know it again, too little to use it. */
export const secretHash = (secret: string): string => createHash('sha256').update(secret).digest('hex')

/** The token as it is given to the person who lets the host join. */
export const tokenText = ({ addresses, fingerprint, secret }: Token): string =>
  prefix +
  Buffer.from(JSON.stringify([addresses.map(addressText), fingerprint, secret])).toString('base64url')

/** Reads a token. Throws `fleet.token-refused` without repeating any of it. */
export function parseToken(text: string): Token {
  const broken = () =>
    new HostError('fleet.token-refused', 'that is no whole token: it begins with garrison1. and is one word')
  if (!text.startsWith(prefix) || text.length > 4096) throw broken()
  const parsed = () => {
    try {
      return JSON.parse(Buffer.from(text.slice(prefix.length), 'base64url').toString('utf8'))
    } catch {
      // What it says is not told: it is half a secret.
      throw broken()
    }
  }
  const token: unknown = parsed()
  if (!Array.isArray(token) || token.length !== 3) throw broken()
  const [addresses, fingerprint, secret] = token as readonly unknown[]
  if (
    !Array.isArray(addresses) ||
    addresses.length === 0 ||
    addresses.length > mostAddresses ||
    !addresses.every((one) => typeof one === 'string' && addressPattern.test(one)) ||
    typeof fingerprint !== 'string' ||
    !/^[0-9a-f]{64}$/.test(fingerprint) ||
    typeof secret !== 'string' ||
    !/^[A-Za-z0-9_-]{22}$/.test(secret)
  )
    throw broken()
  return { addresses: addresses.map((one: string) => parseAddress(one)), fingerprint, secret }
}
