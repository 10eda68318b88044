// What peers say to each other, without a network: differences of trees, messages whatever they hold, tokens, certificates.

import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { addressText, parseAddress } from '../../agent/peers/address.ts'
import {
  makeAuthority,
  makeRequest,
  signHost,
  signIssuer,
  signRevocation,
  usualLifetimes,
} from '../../agent/peers/authority.ts'
import { type Change, changesBetween, type Tree, withChanges } from '../../agent/peers/delta.ts'
import { dueMs } from '../../agent/peers/issuing.ts'
import { MessageError, parseMessage } from '../../agent/peers/message.ts'
import { Allowance } from '../../agent/peers/pace.ts'
import { parseToken, tokenText } from '../../agent/peers/token.ts'
import { fleetOf, identityOf, includes, isGenuine, isIssuer } from '../../agent/peers/trust.ts'

/** Seeded chance (mulberry32): the same at each run. */
function chance(seed: number) {
  let at = seed
  const next = (): number => {
    at = (at + 0x6d2b79f5) | 0
    let mixed = Math.imul(at ^ (at >>> 15), 1 | at)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (most: number): number => Math.floor(next() * most)
  const one = <T>(of: readonly T[]): T => of[below(of.length)] as T
  return { next, below, one }
}

type Chance = ReturnType<typeof chance>

const texts = [
  '',
  'a',
  'é',
  '💡',
  'a.b',
  '0',
  'toString',
  'constructor',
  '\u0000',
  'a'.repeat(300),
  '__proto_',
]

function randomTree(by: Chance, depth: number): Tree {
  const kind = by.below(depth === 0 ? 4 : 7)
  if (kind === 0) return null
  if (kind === 1) return by.next() < 0.5
  if (kind === 2) return by.one([0, 1, -1, 1.5, 1e300, 5e-324, Number.MAX_SAFE_INTEGER, by.below(100)])
  if (kind === 3) return by.one(texts)
  if (kind === 4) return Array.from({ length: by.below(5) }, () => randomTree(by, depth - 1))
  return Object.fromEntries(
    Array.from({ length: by.below(5) }, () => [by.one(texts), randomTree(by, depth - 1)]),
  )
}

/** The tree with a few of its parts changed, as a report differs from the one before. */
function changed(by: Chance, tree: Tree): Tree {
  if (by.next() < 0.15) return randomTree(by, 2)
  if (Array.isArray(tree)) {
    const parts = tree.map((one: Tree) => (by.next() < 0.3 ? changed(by, one) : one))
    if (by.next() < 0.2) parts.push(randomTree(by, 2))
    if (by.next() < 0.2) parts.splice(by.below(parts.length + 1), 1)
    return parts
  }
  if (typeof tree !== 'object' || tree === null) return tree
  const kept = Object.entries(tree).filter(() => by.next() < 0.9)
  const parts = kept.map(([key, one]) => [key, by.next() < 0.3 ? changed(by, one) : one])
  if (by.next() < 0.3) parts.push([by.one(texts), randomTree(by, 2)])
  return Object.fromEntries(parts)
}

t.test('what differs, applied, gives what was meant', async (t) => {
  const by = chance(1)
  let wrong = 0
  let whole = 0
  for (let round = 0; round < 20_000; round += 1) {
    const before = randomTree(by, 4)
    const after = changed(by, before)
    const kept = JSON.stringify(before)
    const changes = changesBetween(before, after)
    if (changes === null) {
      whole += 1
      continue
    }
    // As it travels.
    const sent = JSON.parse(JSON.stringify(changes)) as readonly Change[]
    const got = withChanges(before, sent)
    const sorted = (tree: Tree): string => JSON.stringify(tree, keysSorted)
    if (got === null || sorted(got) !== sorted(after)) wrong += 1
    if (JSON.stringify(before) !== kept) wrong += 1
  }
  t.equal(wrong, 0)
  t.ok(whole > 0 && whole < 20_000)
})

function keysSorted(_: string, value: unknown): unknown {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value
}

t.test('differences that do not fit are refused, and reach no prototype', async (t) => {
  const tree: Tree = { list: [1, 2], deep: { a: 1 } }
  for (const change of [
    [['none', 'a'], 1],
    [['list', 3], 1],
    [['list', -1], 1],
    [['list', 'length'], 0],
    [['list', 1.5], 1],
    [['deep', 0], 1],
    [['deep', 'a', 'b'], 1],
    [['__proto__', 'polluted'], 1],
    [['deep', '__proto__'], { polluted: 1 }],
    [['constructor', 'prototype', 'polluted'], 1],
    [['toString', 'call'], 1],
    [[], 1],
  ] as unknown as readonly Change[])
    t.equal(withChanges(tree, [change]), null, JSON.stringify(change))
  t.equal(withChanges(7, [[['a'], 1]]), null)
  t.equal(({} as { polluted?: number }).polluted, undefined)
  t.same(withChanges(tree, [[['list', 1]]]), { list: [1], deep: { a: 1 } })
})

const hello = {
  kind: 'hello',
  version: 1,
  incarnation: '0123456789abcdef',
  addresses: ['lni 10.0.0.5 7443', 'fd00::5 7443'],
  have: { incarnation: '0123456789abcdef', generation: 3 },
  revoked: 'a'.repeat(64),
  issues: false,
}
const report = {
  kind: 'report',
  host: 'h05',
  incarnation: '0123456789abcdef',
  generation: 4,
  atMs: 1,
  base: 3,
  changes: [[['vms', 0, 'power'], 'off'], [['findings', 0]]],
}
const good = [
  hello,
  { ...hello, have: null },
  report,
  { ...report, base: null, changes: undefined, body: { constructor: 'a VM may be called so' } },
  { kind: 'event', host: 'h05', atMs: 1, missed: 0, event: { a: [1] } },
  { kind: 'taken', generation: 4 },
  { kind: 'again' },
  { kind: 'redial' },
  { kind: 'hosts', hosts: [{ host: 'h06', addresses: [] }] },
  { kind: 'asking', hosts: ['h06'] },
  { kind: 'seen', hosts: [{ host: 'h06', agoMs: 1, over: 'eni' }] },
  { kind: 'revoked', entries: [] },
].map((message) => JSON.stringify(message))

t.test('messages', async (t) => {
  for (const text of good) t.same(parseMessage(text), JSON.parse(text), text.slice(0, 40))
  const bad: readonly (readonly [string, RegExp])[] = [
    ['', /not JSON/],
    ['null', /no known kind/],
    ['[]', /no known kind/],
    ['"hello"', /no known kind/],
    ['{"kind":"toString"}', /no known kind/],
    ['{"kind":"__proto__"}', /no known kind/],
    ['{"kind":"taken"}', /no whole taken/],
    ['{"kind":"taken","generation":1,"more":1}', /no whole taken/],
    ['{"kind":"taken","generation":-1}', /no whole taken/],
    ['{"kind":"taken","generation":1.5}', /no whole taken/],
    ['{"kind":"taken","generation":9007199254740993}', /no whole taken/],
    ['{"kind":"taken","generation":1e999}', /out of range/],
    ['{"kind":"again","__proto__":{"a":1}}', /forbidden key/],
    ['{"kind":"again","\\u005f_proto__":{"a":1}}', /forbidden key/],
    ['{"kind":"event","host":"h","atMs":1,"missed":0,"event":"\\ud800"}', /lone surrogate/],
    ['{"kind":"event","host":"h","atMs":1,"missed":0,"event":{"\\udfff":1}}', /lone surrogate/],
    ['{"kind":"event","host":"../h","atMs":1,"missed":0,"event":1}', /no whole event/],
    [`{"kind":"event","host":"h","atMs":1,"missed":0,"event":"${'a'.repeat(70_000)}"}`, /longer/],
    ['['.repeat(500_000), /nested deeper/],
    [`{"a":${'['.repeat(40)}${']'.repeat(40)}}`, /nested deeper/],
    [`[${'0,'.repeat(200_000)}0]`, /more than 100000 parts/],
    [`{"kind":"again","a":"${' '.repeat(2 ** 20)}"}`, /longer than/],
    ['{"kind":"asking","hosts":["H06"]}', /no whole asking/],
    [JSON.stringify({ ...report, changes: [[['__proto__', 'a'], 1]] }), /no whole report/],
    [JSON.stringify({ ...report, changes: [[[], 1]] }), /no whole report/],
    [JSON.stringify({ ...report, base: null }), /no whole report/],
    [JSON.stringify({ ...hello, version: 2 }), /no whole hello/],
    [JSON.stringify({ ...hello, addresses: ['10.0.0.5 0'] }), /no whole hello/],
    [JSON.stringify({ ...hello, addresses: ['x y z 1'] }), /no whole hello/],
  ]
  for (const [text, message] of bad)
    t.throws(() => parseMessage(text), { name: 'MessageError', message }, text.slice(0, 60))
})

const fuzzRounds = Number(process.env.PEERS_FUZZ ?? 100_000)

t.test(`${fuzzRounds} fuzzed messages are messages or refused, and nothing else`, async (t) => {
  const by = chance(Number(process.env.PEERS_SEED ?? 2))
  const pieces = [
    '"',
    '\\',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '\\u',
    '__proto__',
    'null',
    '1e999',
    '-0',
    '\ud800',
    '0'.repeat(400),
  ]
  const counts = { taken: 0, refused: 0 }
  const others: string[] = []
  for (let round = 0; round < fuzzRounds; round += 1) {
    let text = by.one(good)
    for (let cut = by.below(4); cut > 0; cut -= 1) {
      const at = by.below(text.length + 1)
      const end = at + by.below(by.next() < 0.1 ? text.length : 4)
      const put =
        by.next() < 0.5
          ? by.one(pieces)
          : by.next() < 0.5
            ? JSON.stringify(randomTree(by, 3))
            : String.fromCharCode(by.below(0x10000))
      text = text.slice(0, at) + put + text.slice(end)
    }
    try {
      parseMessage(text)
      counts.taken += 1
    } catch (error) {
      counts.refused += 1
      if (!(error instanceof MessageError)) others.push(text)
    }
  }
  t.same(others.slice(0, 3), [])
  t.ok(counts.taken > fuzzRounds / 20 && counts.refused > fuzzRounds / 3, JSON.stringify(counts))
  t.equal(({} as { a?: unknown }).a, undefined)
})

t.test('addresses and tokens are read as they were written', async (t) => {
  for (const address of [
    { over: 'lni', host: '10.0.0.5', port: 7443 },
    { over: '-', host: 'fd00::5', port: 1 },
  ])
    t.same(parseAddress(addressText(address)), address)
  const token = {
    addresses: [{ over: 'lni', host: '10.0.0.5', port: 7443 }],
    fingerprint: 'ab'.repeat(32),
    secret: 'A'.repeat(22),
  }
  t.same(parseToken(tokenText(token)), token)
  const text = tokenText(token)
  const refuse = (value: unknown) => `garrison1.${Buffer.from(JSON.stringify(value)).toString('base64url')}`
  for (const wrong of [
    '',
    'garrison1.',
    text.slice(0, -6),
    text.replace('1.', '2.'),
    refuse(null),
    refuse([[], token.fingerprint, token.secret]),
    refuse([['10.0.0.5 7443'], 'ab', token.secret]),
    refuse([['10.0.0.5 7443'], token.fingerprint, 'short']),
    refuse([Array(17).fill('10.0.0.5 7443'), token.fingerprint, token.secret]),
  ])
    t.throws(() => parseToken(wrong), { code: 'fleet.token-refused' })
  try {
    parseToken(`${text.slice(0, -3)}!!!`)
  } catch (error) {
    t.notMatch(String((error as Error).message), token.secret)
  }
})

t.test('an allowance fills up again to what it was', async (t) => {
  const allowance = new Allowance(10, 5, 0)
  t.ok(allowance.take(10, 0))
  t.notOk(allowance.take(1, 100))
  t.ok(allowance.take(1, 200))
  t.notOk(allowance.take(11, 100_000), 'and no further')
  t.ok(allowance.take(10, 100_000))
})

t.test('roles include those below', async (t) => {
  t.ok(includes('admin', 'read'))
  t.ok(includes('operate', 'operate'))
  t.notOk(includes('read', 'operate'))
})

t.test('certificates are renewed from half of their time on, not all at once', async (t) => {
  const due = Array.from({ length: 200 }, (_, at) => dueMs(0, 1000, `h${at}`))
  t.ok(due.every((ms) => ms >= 500 && ms <= 600))
  t.ok(new Set(due.map((ms) => Math.floor(ms / 10))).size > 8)
})

t.test('certificates', async (t) => {
  const nowMs = Date.now()
  const make = async () => {
    const authority = await makeAuthority(usualLifetimes.authorityMs, nowMs)
    const asked = await makeRequest('issuer')
    const certificate = await signIssuer(authority, asked.request, usualLifetimes.issuerMs, nowMs)
    return { authority, issuer: { key: asked.key, certificate } }
  }
  const [ours, theirs] = [await make(), await make()]
  const root = new X509Certificate(ours.authority.certificate)
  const fleet = fleetOf(root)
  const host = { fleet, host: 'h05', role: 'operate' as const, enrolment: '0123456789abcdef' }
  const { request } = await makeRequest('whatever it asks to be called')
  const signed = await signHost(ours.issuer, request, host, 60_000, nowMs)
  const certificate = new X509Certificate(signed)
  const judge = (
    one: X509Certificate,
    atMs = nowMs,
    isRevoked: (enrolment: string) => boolean = () => false,
  ) => identityOf(one, fleet, atMs, isRevoked)

  await t.test('say who a host is, by what its issuer wrote alone', async (t) => {
    const { expiresMs, ...rest } = judge(certificate)
    t.same(rest, host)
    t.ok(Math.abs(expiresMs - nowMs - 60_000) < 2000)
    t.notOk(certificate.ca)
    t.ok(certificate.verify(new X509Certificate(ours.issuer.certificate).publicKey))
  })
  await t.test('end with their issuer', async (t) => {
    const long = new X509Certificate(await signHost(ours.issuer, request, host, 1e13, nowMs))
    t.equal(long.validToDate.getTime(), new X509Certificate(ours.issuer.certificate).validToDate.getTime())
  })
  await t.test('are refused when they are past, revoked, of another fleet, or of no host', async (t) => {
    t.throws(() => judge(certificate, nowMs + 70_000), { code: 'peer.refused', message: /expired.*h05/ })
    t.throws(() => judge(certificate, nowMs, (one) => one === host.enrolment), { message: /revoked/ })
    t.throws(() => identityOf(certificate, 'f'.repeat(16), nowMs, () => false), { message: /another fleet/ })
    for (const one of [ours.issuer.certificate, ours.authority.certificate])
      t.throws(() => judge(new X509Certificate(one)), { message: /not one of a host/ })
  })
  await t.test('are made for keys of the right kind alone, by who has them', async (t) => {
    const bytes = Buffer.from(request.replace(/-----[A-Z ]+-----/g, ''), 'base64')
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    const tampered = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
    for (const wrong of ['', 'nothing', tampered])
      await t.rejects(signHost(ours.issuer, wrong, host, 1000, nowMs), { code: 'fleet.request-refused' })
    for (const name of ['', 'H05', 'a\nOU=admin', '../x', '-a', 'a'.repeat(64)])
      await t.rejects(signHost(ours.issuer, request, { ...host, host: name }, 1000, nowMs), {
        code: 'fleet.request-refused',
      })
  })
  await t.test('of an issuer are those that the authority has signed', async (t) => {
    t.ok(isIssuer(new X509Certificate(ours.issuer.certificate), root))
    t.notOk(isIssuer(new X509Certificate(theirs.issuer.certificate), root))
    t.notOk(isIssuer(certificate, root))
  })
  await t.test('are revoked by what an issuer has signed, and by nothing else', async (t) => {
    const what = { host: 'h05', enrolment: host.enrolment, atMs: nowMs, untilMs: nowMs + 1000 }
    const genuine = signRevocation(ours.issuer, fleet, what)
    t.ok(isGenuine(genuine, root))
    for (const forged of [
      { ...genuine, host: 'h06' },
      { ...genuine, enrolment: 'f'.repeat(16) },
      { ...genuine, untilMs: genuine.untilMs + 1 },
      { ...genuine, signature: genuine.signature.replace(/.{4}$/, 'AAA=') },
      { ...genuine, signature: '' },
      { ...genuine, issuer: 'none' },
      { ...genuine, issuer: signed },
      signRevocation(theirs.issuer, fleet, what),
      signRevocation({ ...theirs.issuer, certificate: ours.issuer.certificate }, fleet, what),
    ])
      t.notOk(isGenuine(forged, root))
  })
})
