// What peers say to each other: JSON texts, each checked whole before anything of it is used. A message says whom it is about, and
// nothing of the way that it came.

import {
  type Check,
  isCount,
  isEither,
  isList,
  isNull,
  isShaped,
  isText,
  type Shape,
} from '../../provisioning/shape.ts'
import { addressPattern, overPattern } from './address.ts'
import type { Change, Tree } from './delta.ts'
import { hostPattern, isRevocation, type Revocation } from './trust.ts'

/** The first message of each side. `have` is the newest report of the other side that is still held. */
export interface Hello {
  readonly kind: 'hello'
  readonly version: 1
  /** Random at each start of the sender: generations count within it. */
  readonly incarnation: string
  readonly addresses: readonly string[]
  readonly have: { readonly incarnation: string; readonly generation: number } | null
  /** A digest of the revocations that the sender knows. */
  readonly revoked: string
  /** Whether the sender issues certificates. */
  readonly issues: boolean
}

/** A report of `host`: whole (`body`), or what changed since the generation `base`. `atMs` is by the clock of that host. */
export type ReportMessage = {
  readonly kind: 'report'
  readonly host: string
  readonly incarnation: string
  readonly generation: number
  readonly atMs: number
} & (
  | { readonly base: null; readonly body: Tree }
  | { readonly base: number; readonly changes: readonly Change[] }
)

/** Something that happened on `host`. `missed`: how many before it were not sent, because they came too fast. */
export interface EventMessage {
  readonly kind: 'event'
  readonly host: string
  readonly atMs: number
  readonly missed: number
  readonly event: Tree
}

/** Where hosts are said to listen. */
export interface HostsMessage {
  readonly kind: 'hosts'
  readonly hosts: readonly { readonly host: string; readonly addresses: readonly string[] }[]
}

/** When the sender had last heard of hosts; `over` which network. */
export interface SeenMessage {
  readonly kind: 'seen'
  readonly hosts: readonly { readonly host: string; readonly agoMs: number; readonly over: string }[]
}

/** Everything that a peer can say. */
export type Message =
  | Hello
  | ReportMessage
  | EventMessage
  | HostsMessage
  | SeenMessage
  /** The report of this generation is held. */
  | { readonly kind: 'taken'; readonly generation: number }
  /** The report did not fit what is held: send a whole one. */
  | { readonly kind: 'again' }
  /** Asks when these hosts were last seen. */
  | { readonly kind: 'asking'; readonly hosts: readonly string[] }
  | { readonly kind: 'revoked'; readonly entries: readonly Revocation[] }
  /** The sender has a new certificate: who dialled shall dial again, and this connection ends when that stands. */
  | { readonly kind: 'redial' }

/** Why a text is no message. It names no part of it: it may hold anything. */
export class MessageError extends Error {
  override readonly name = 'MessageError'
}

/** What a message may be at most. */
export const mostBytes = 2 ** 20
const mostDepth = 32
const mostParts = 100_000
const mostKeyLength = 256
const mostTextLength = 65_536
const mostHosts = 512
const mostAddresses = 16
const mostRevocations = 128

const wrong = (why: string): MessageError => new MessageError(why)

const [quote, backslash, openArray, openObject, closeArray, closeObject] = [
  0x22, 0x5c, 0x5b, 0x7b, 0x5d, 0x7d,
]

/** Refuses deep nesting before anything is made of it. What is no JSON at all the parser finds. */
function checkDepth(text: string): void {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) {
      at += 1
      while (at < text.length && text.charCodeAt(at) !== quote)
        at += text.charCodeAt(at) === backslash ? 2 : 1
    } else if (code === openArray || code === openObject) {
      depth += 1
      if (depth > mostDepth) throw wrong(`nested deeper than ${mostDepth}`)
    } else if (code === closeArray || code === closeObject) depth -= 1
  }
}

// The one key that an assignment takes for something else. A VM may well be called `constructor`, and nothing here looks up a key
// that is not an object's own.
const forbidden = '__proto__'

/** Refuses what no report needs and what has hurt others: the key of prototypes, lone surrogates, numbers that are none. */
function checkParts(root: unknown): void {
  const open: unknown[] = [root]
  let parts = 0
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    parts += 1
    if (parts > mostParts) throw wrong(`more than ${mostParts} parts`)
    if (typeof value === 'string') checkText(value, mostTextLength)
    else if (typeof value === 'number') {
      if (!Number.isFinite(value)) throw wrong('a number out of range')
    } else if (Array.isArray(value)) for (const one of value) open.push(one)
    else if (typeof value === 'object' && value !== null)
      for (const key of Object.keys(value)) {
        if (key === forbidden) throw wrong('a forbidden key')
        checkText(key, mostKeyLength)
        open.push((value as Record<string, unknown>)[key])
      }
  }
}

function checkText(text: string, most: number): void {
  if (text.length > most) throw wrong(`a text longer than ${most}`)
  if (!text.isWellFormed()) throw wrong('a lone surrogate')
}

const isTree: Check = () => true
const isHost = isText(hostPattern)
const isIncarnation = isText(/^[0-9a-f]{16}$/)
const isAddresses = isList(mostAddresses, isText(addressPattern))
const isPath: Check = (value) =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.length <= mostDepth &&
  value.every((key) => (typeof key === 'string' ? key !== forbidden : isCount(key)))
const isChange: Check = (value) =>
  Array.isArray(value) && (value.length === 1 || value.length === 2) && isPath(value[0])

const kind = (name: string): Shape => ({ kind: (value) => value === name })
const report: Shape = {
  ...kind('report'),
  host: isHost,
  incarnation: isIncarnation,
  generation: isCount,
  atMs: isCount,
}

const shapes: Readonly<Record<Message['kind'], Check>> = {
  hello: isShaped({
    ...kind('hello'),
    version: (value) => value === 1,
    incarnation: isIncarnation,
    addresses: isAddresses,
    have: isEither(isNull, isShaped({ incarnation: isIncarnation, generation: isCount })),
    revoked: isText(/^[0-9a-f]{64}$/),
    issues: (value) => typeof value === 'boolean',
  }),
  report: isEither(
    isShaped({ ...report, base: isNull, body: isTree }),
    isShaped({ ...report, base: isCount, changes: isList(mostParts, isChange) }),
  ),
  event: isShaped({ ...kind('event'), host: isHost, atMs: isCount, missed: isCount, event: isTree }),
  hosts: isShaped({
    ...kind('hosts'),
    hosts: isList(mostHosts, isShaped({ host: isHost, addresses: isAddresses })),
  }),
  seen: isShaped({
    ...kind('seen'),
    hosts: isList(mostHosts, isShaped({ host: isHost, agoMs: isCount, over: isText(overPattern) })),
  }),
  taken: isShaped({ ...kind('taken'), generation: isCount }),
  again: isShaped(kind('again')),
  asking: isShaped({ ...kind('asking'), hosts: isList(mostHosts, isHost) }),
  revoked: isShaped({
    ...kind('revoked'),
    entries: isList(mostRevocations, isRevocation),
  }),
  redial: isShaped(kind('redial')),
}

/** Reads one message. Throws `MessageError`, whatever the text holds. */
export function parseMessage(text: string): Message {
  if (text.length > mostBytes) throw wrong(`longer than ${mostBytes}`)
  checkDepth(text)
  const message = parseJson(text)
  checkParts(message)
  const name = (message as { readonly kind?: unknown } | null)?.kind
  if (typeof name !== 'string' || !Object.hasOwn(shapes, name)) throw wrong('of no known kind')
  if (!shapes[name as Message['kind']](message)) throw wrong(`no whole ${name}`)
  return message as Message
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) throw wrong('not JSON')
    throw error
  }
}
