// The mesh: every host tells every other how it stands, and remembers what it was told. Knows hosts and links; what is under a
// link it does not know, and what a report means neither.
//
// INVARIANTS
// - At most one link per host counts. Of two that were dialled from both sides the one counts that the lower name dialled, so that
//   both sides end the same one; of two from one side the newer.
// - A report is kept only from its own host, and replaces only an older one.
// - What one peer does not read waits for that peer alone: at most one report, no events.

import { createHash, randomBytes } from 'node:crypto'
import type { WebSocket } from 'ws'
import { type Address, addressText, parseAddress } from './address.ts'
import { changesBetween, type Tree, withChanges } from './delta.ts'
import { CLOSE, Link, type Way } from './link.ts'
import type { EventMessage, Hello, Message, ReportMessage } from './message.ts'
import { Allowance, eventsSent, type Pace, usualPace } from './pace.ts'
import type { Identity, Revocation } from './trust.ts'

/** What the mesh is told to stand on. */
export interface MeshGround {
  /** What this host is in its fleet, as of now. */
  readonly self: () => Identity
  /** Where this host listens, and over which network. */
  readonly addresses: () => readonly Address[]
  /** Whether this host issues certificates. */
  readonly issues: () => boolean
  /** Connects to a host by its addresses, side by side. Rejects with a reason when none answers as that host. */
  readonly dial: (host: string, addresses: readonly Address[]) => Promise<Dialled>
  /** The revocations that this host knows; `learn` adds those that are genuine and answers whether any was new. */
  readonly revocations: {
    all(): readonly Revocation[]
    learn(entries: readonly Revocation[]): Promise<boolean>
  }
  /** `epochMs` may jump, `steadyMs` never goes back. */
  readonly clock: { epochMs(): number; steadyMs(): number }
  readonly log: { info(what: object, text: string): void; error(what: object, text: string): void }
  readonly pace?: Partial<Pace>
}

/** A connection that was dialled, and whom it is with. */
export interface Dialled {
  readonly socket: WebSocket
  readonly peer: Identity
  readonly address: Address
}

/** A report as it is held. `receivedMs` is by the clock of this host. */
export interface HeldReport {
  readonly host: string
  readonly incarnation: string
  readonly generation: number
  readonly atMs: number
  readonly receivedMs: number
  readonly body: Tree
  /** What it has taken since it was last sent whole: what is only added to would grow for ever. */
  readonly bytesSinceWhole: number
}

/** What is known of another host. Times are epoch milliseconds of this host. */
export interface KnownHost {
  readonly host: string
  readonly addresses: readonly Address[]
  /** The connection with it; null while there is none. */
  readonly link: {
    readonly over: string
    readonly address: string
    readonly dialled: boolean
    readonly sinceMs: number
    readonly rttMs: number | null
    readonly role: Identity['role']
    readonly sentBytes: number
    readonly receivedBytes: number
    readonly behind: boolean
    readonly issues: boolean
  } | null
  /** When this host last heard of it, and over which network. */
  readonly seen: { readonly atMs: number; readonly over: string } | null
  /** When another host did, where that was later. */
  readonly seenBy: { readonly host: string; readonly atMs: number; readonly over: string } | null
  readonly generation: number | null
  /** Why the last try to reach it failed. */
  readonly problem: string | null
}

/** What happens in the mesh. */
export type MeshEvent =
  | { readonly what: 'linked'; readonly host: string; readonly atMs: number; readonly why: string }
  | { readonly what: 'lost'; readonly host: string; readonly atMs: number; readonly why: string }
  | { readonly what: 'report'; readonly host: string; readonly atMs: number; readonly generation: number }
  | {
      readonly what: 'event'
      readonly host: string
      readonly atMs: number
      readonly missed: number
      readonly event: Tree
    }

interface Entry {
  readonly host: string
  /** Where it is by the document; these are never forgotten. */
  listed: readonly Address[]
  told: readonly Address[]
  link: Link | null
  report: HeldReport | null
  seen: { atMs: number; over: string } | null
  seenBy: { host: string; atMs: number; over: string } | null
  dialling: boolean
  tries: number
  nextDialMs: number
  problem: string | null
  events: Allowance
}

/** How many trees are kept to tell differences from, and how many hosts are known at most. */
const history = 4
const mostHosts = 512
const mostAddresses = 16
const mostRevocations = 128
const mostListeners = 64
const mostBytesSinceWhole = 4 * 2 ** 20
const askedPeers = 8

const digestOf = (revocations: readonly Revocation[]): string =>
  createHash('sha256')
    .update(
      revocations
        .map(({ enrolment }) => enrolment)
        .sort()
        .join('\n'),
    )
    .digest('hex')

/** The mesh as one host sees it. */
export class Mesh {
  readonly incarnation = randomBytes(8).toString('hex')
  readonly #ground: MeshGround
  readonly #pace: Pace
  readonly #hosts = new Map<string, Entry>()
  /** Links that have not yet said hello, and those that end. */
  readonly #greeting = new Set<Link>()
  readonly #past = new Map<number, Tree>()
  readonly #texts = new Map<number | null, string>()
  readonly #listeners = new Set<(event: MeshEvent) => void>()
  readonly #timer: NodeJS.Timeout
  #generation = -1
  #atMs = 0
  #askedMs = 0
  #closed = false

  constructor(ground: MeshGround) {
    this.#ground = ground
    this.#pace = { ...usualPace, ...ground.pace }
    this.#timer = setInterval(() => this.#tick(), this.#pace.tickMs)
  }

  /** Says where hosts are by the document; a host that it no longer names is kept as one that was told. */
  list(hosts: Readonly<Record<string, readonly Address[]>>): void {
    for (const entry of this.#hosts.values()) {
      if (entry.listed.length > 0 && hosts[entry.host] === undefined) entry.told = [...entry.listed]
      entry.listed = []
    }
    for (const [host, addresses] of Object.entries(hosts)) {
      const entry = this.#entry(host)
      if (entry) entry.listed = addresses
    }
    this.#dialDue()
  }

  /** Takes in what was known before a restart. `atMs` of the past: who was seen when. */
  recall(known: readonly Pick<KnownHost, 'host' | 'addresses' | 'seen'>[]): void {
    for (const { host, addresses, seen } of known) {
      const entry = this.#entry(host)
      if (entry === null) continue
      entry.told = addresses
      entry.seen ??= seen
    }
    this.#dialDue()
  }

  /** Tells all peers how this host stands: each as soon as it has taken what it was told before. The newest wins. */
  publish(generation: number, atMs: number, report: object): void {
    this.#past.set(generation, JSON.parse(JSON.stringify(report)))
    this.#generation = generation
    this.#atMs = atMs
    this.#texts.clear()
    for (const old of this.#past.keys()) if (this.#past.size > history) this.#past.delete(old)
    for (const { link } of this.#hosts.values()) if (link !== null) this.#tell(link)
  }

  /** Tells all peers of something that happens, at once; those that are behind hear only how many they missed. */
  tell(event: object): void {
    const atMs = this.#ground.clock.epochMs()
    const message = (missed: number): string =>
      JSON.stringify({
        kind: 'event',
        host: this.#ground.self().host,
        atMs,
        missed,
        event: event as Tree,
      } satisfies EventMessage)
    const text = message(0)
    const nowMs = this.#ground.clock.steadyMs()
    for (const entry of this.#hosts.values()) {
      const { link } = entry
      if (link === null) continue
      if (link.isFull || !entry.events.take(1, nowMs)) {
        link.missed += 1
        continue
      }
      link.send(link.missed === 0 ? text : message(link.missed))
      link.missed = 0
    }
  }

  /** A connection that a peer has dialled, known by its certificate. */
  accept(socket: WebSocket, peer: Identity, way: Omit<Way, 'dialled'>): void {
    this.#greet(socket, peer, { ...way, dialled: false })
  }

  /** Every other host that is known, by name. */
  hosts(): readonly KnownHost[] {
    return [...this.#hosts.values()]
      .map((entry) => this.#known(entry))
      .sort((a, b) => (a.host < b.host ? -1 : 1))
  }

  /** The newest report of a host that is held. */
  reportOf(host: string): HeldReport | null {
    return this.#hosts.get(host)?.report ?? null
  }

  /** Where a host may be reached, the way that works now first; none when it is not known. */
  addressesOf(host: string): readonly Address[] {
    const entry = this.#hosts.get(host)
    return entry === undefined ? [] : addressesOf(entry)
  }

  /** Calls back for whatever happens until the answer is called. False when too many listen already. */
  listen(listener: (event: MeshEvent) => void): (() => void) | null {
    if (this.#listeners.size >= mostListeners) return null
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Asks all peers when the hosts that are missing were last seen; answers come into `hosts()`. */
  ask(): void {
    const missing = [...this.#hosts.values()].filter(({ link }) => link === null).map(({ host }) => host)
    if (missing.length > 0) this.#askPeers(missing, mostHosts)
  }

  /** This host has a new certificate: every link is made anew before the old one ends. */
  renewed(): void {
    for (const entry of this.#hosts.values()) {
      if (entry.link === null) continue
      if (entry.link.way.dialled) void this.#dial(entry)
      else entry.link.say({ kind: 'redial' })
    }
  }

  /** Revocations were learnt elsewhere: peers hear of them, and those that they are about are cut off. */
  revoked(): void {
    const entries = this.#ground.revocations.all()
    const enrolments = new Set(entries.map(({ enrolment }) => enrolment))
    for (const { host, link } of [...this.#hosts.values()]) {
      if (link === null) continue
      if (enrolments.has(link.peer.enrolment)) {
        link.end(CLOSE.refused, 'its certificate was revoked')
        this.#hosts.delete(host)
      } else this.#tellRevoked(link)
    }
    for (const link of this.#greeting)
      if (enrolments.has(link.peer.enrolment)) link.end(CLOSE.refused, 'its certificate was revoked')
  }

  /** Ends every link; nothing is dialled or sent any more. */
  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    for (const link of this.#greeting) link.end(1001, 'this host leaves')
    for (const { link } of [...this.#hosts.values()]) link?.end(1001, 'this host leaves')
  }

  #entry(host: string): Entry | null {
    const found = this.#hosts.get(host)
    if (found || host === this.#ground.self().host) return found ?? null
    if (this.#hosts.size >= mostHosts) return null
    const nowMs = this.#ground.clock.steadyMs()
    const entry: Entry = {
      host,
      listed: [],
      told: [],
      link: null,
      report: null,
      seen: null,
      seenBy: null,
      dialling: false,
      tries: 0,
      nextDialMs: nowMs + (host < this.#ground.self().host ? this.#pace.courtesyMs : 0),
      problem: null,
      events: new Allowance(eventsSent.burst, eventsSent.perSecond, nowMs),
    }
    this.#hosts.set(host, entry)
    return entry
  }

  #known(entry: Entry): KnownHost {
    const { host, link, seenBy, report, problem } = entry
    const { clock } = this.#ground
    const steadyMs = clock.steadyMs()
    const epochMs = clock.epochMs()
    const seen = link
      ? { atMs: Math.round(epochMs - (steadyMs - link.heardMs)), over: link.way.over }
      : entry.seen
    return {
      host,
      addresses: addressesOf(entry),
      link: link && {
        over: link.way.over,
        address: link.way.address,
        dialled: link.way.dialled,
        sinceMs: Math.round(epochMs - (steadyMs - link.sinceMs)),
        rttMs: link.rttMs === null ? null : Math.round(link.rttMs * 10) / 10,
        role: link.peer.role,
        sentBytes: link.sentBytes,
        receivedBytes: link.receivedBytes,
        behind: link.isFull,
        issues: link.issues,
      },
      seen,
      seenBy: seenBy !== null && seenBy.atMs > (seen?.atMs ?? 0) ? seenBy : null,
      generation: report?.generation ?? null,
      problem,
    }
  }

  #tick(): void {
    const nowMs = this.#ground.clock.steadyMs()
    for (const link of this.#greeting)
      if (nowMs - link.sinceMs > this.#pace.helloMs) link.cut(CLOSE.policy, 'no hello in time')
    for (const { link } of [...this.#hosts.values()]) {
      if (link === null) continue
      if (link.peer.expiresMs <= this.#ground.clock.epochMs())
        link.end(CLOSE.refused, 'its certificate is past its time')
      else {
        link.tick(nowMs)
        if (link.waiting) this.#tell(link)
      }
    }
    this.#dialDue()
    if (nowMs - this.#askedMs < this.#pace.askMs) return
    this.#askedMs = nowMs
    const missing = [...this.#hosts.values()].filter(({ link }) => link === null).map(({ host }) => host)
    if (missing.length > 0) this.#askPeers(missing, askedPeers)
  }

  #dialDue(): void {
    if (this.#closed) return
    const nowMs = this.#ground.clock.steadyMs()
    for (const entry of this.#hosts.values())
      if (
        entry.link === null &&
        !entry.dialling &&
        entry.nextDialMs <= nowMs &&
        addressesOf(entry).length > 0
      )
        void this.#dial(entry)
  }

  /** Never rejects: why it failed is kept with the host, and it is tried again. */
  async #dial(entry: Entry): Promise<void> {
    if (entry.dialling || this.#closed) return
    entry.dialling = true
    this.#putOff(entry)
    try {
      const { socket, peer, address } = await this.#ground.dial(entry.host, addressesOf(entry))
      this.#greet(socket, peer, { dialled: true, over: address.over, address: addressText(address) })
    } catch (error) {
      entry.problem = (error as Error).message
    } finally {
      entry.dialling = false
    }
  }

  /** Full jitter under a limit that doubles: a fleet that lost its network at once does not come back at once. */
  #putOff(entry: Entry): void {
    const { leastRedialMs, mostRedialMs } = this.#pace
    const limitMs = Math.min(mostRedialMs, leastRedialMs * 2 ** Math.min(entry.tries, 16))
    entry.tries += 1
    entry.nextDialMs = this.#ground.clock.steadyMs() + limitMs * (0.2 + 0.8 * Math.random())
  }

  /** One answers after none did: the network is back, and for the others too. */
  #hurry(): void {
    const nowMs = this.#ground.clock.steadyMs()
    for (const entry of this.#hosts.values()) {
      entry.tries = 0
      entry.nextDialMs = Math.min(entry.nextDialMs, nowMs + this.#pace.leastRedialMs * 4 * Math.random())
    }
  }

  #greet(socket: WebSocket, peer: Identity, way: Way): void {
    let entry: Entry | null = null
    const { steadyMs } = this.#ground.clock
    const link = new Link(socket, peer, way, this.#pace, steadyMs, {
      message: (message, bytes) => {
        if (entry !== null) this.#heard(entry, link, message, bytes)
        else if (message.kind === 'hello') entry = this.#adopt(link, message)
        else link.end(CLOSE.policy, 'it says no hello')
      },
      ended: (why) => {
        this.#greeting.delete(link)
        if (entry !== null) this.#lost(entry, link, why)
      },
    })
    if (this.#closed) {
      link.end(1001, 'this host leaves')
      return
    }
    this.#greeting.add(link)
    const held = this.#hosts.get(peer.host)?.report
    link.say({
      kind: 'hello',
      version: 1,
      incarnation: this.incarnation,
      addresses: this.#ground.addresses().map(addressText),
      have: held ? { incarnation: held.incarnation, generation: held.generation } : null,
      revoked: digestOf(this.#ground.revocations.all()),
      issues: this.#ground.issues(),
    })
  }

  /** Makes a link that has said hello the one that counts; null when another does. */
  #adopt(link: Link, { addresses, have, revoked, issues }: Hello): Entry | null {
    const { host } = link.peer
    const entry = this.#entry(host)
    if (entry === null) {
      link.end(CLOSE.refused, 'it has the name of this host, or there are too many hosts')
      return null
    }
    const old = entry.link
    if (old !== null && old.way.dialled !== link.way.dialled && !this.#isPreferred(link)) {
      // The other side dials only when it has no link: the one that is here may be dead and not know it.
      old.doubt()
      link.end(CLOSE.duplicate, 'there is a connection already')
      return null
    }
    this.#greeting.delete(link)
    const isFirst = [...this.#hosts.values()].every((one) => one.link === null)
    entry.link = link
    if (isFirst) this.#hurry()
    link.issues = issues
    entry.problem = null
    entry.told = addresses.map(parseAddress)
    link.way = labelled(link.way, entry.told)
    old?.end(CLOSE.replaced, 'there is a newer connection')
    if (have?.incarnation === this.incarnation) link.held = have.generation
    if (old === null) {
      this.#ground.log.info({ host, ...link.way }, 'peer linked')
      this.#emit({ what: 'linked', host, atMs: this.#ground.clock.epochMs(), why: link.way.over })
    }
    if (revoked !== digestOf(this.#ground.revocations.all())) this.#tellRevoked(link)
    this.#tellHosts(link)
    this.#tell(link)
    return entry
  }

  #isPreferred({ peer, way }: Link): boolean {
    const { host } = this.#ground.self()
    return way.dialled ? host < peer.host : peer.host < host
  }

  #lost(entry: Entry, link: Link, why: string): void {
    if (entry.link !== link) return
    const { clock, log } = this.#ground
    const lastedMs = clock.steadyMs() - link.sinceMs
    entry.seen = {
      atMs: Math.round(clock.epochMs() - (clock.steadyMs() - link.heardMs)),
      over: link.way.over,
    }
    entry.link = null
    entry.problem = why
    // One that never holds for long is dialled ever more seldom.
    if (lastedMs > this.#pace.silentMs) entry.tries = 0
    this.#putOff(entry)
    log.info({ host: entry.host, why, ...link.way }, 'peer lost')
    this.#emit({ what: 'lost', host: entry.host, atMs: clock.epochMs(), why })
  }

  #heard(entry: Entry, link: Link, message: Message, bytes: number): void {
    if (entry.link !== link) return
    switch (message.kind) {
      case 'hello':
        link.end(CLOSE.policy, 'it says hello twice')
        break
      case 'report':
        this.#hold(entry, link, message, bytes)
        break
      case 'taken':
        if (message.generation !== link.sending) break
        link.held = link.sending
        link.sending = null
        this.#tell(link)
        break
      case 'again':
        link.held = null
        link.sending = null
        // At the next tick, and not at once: whoever says this in a loop gets one report a second.
        link.waiting = true
        break
      case 'event':
        if (message.host !== entry.host) link.end(CLOSE.policy, 'it speaks for another host')
        else {
          const { host, atMs, missed, event } = message
          this.#emit({ what: 'event', host, atMs, missed, event })
        }
        break
      case 'hosts':
        for (const { host, addresses } of message.hosts) this.#learn(host, addresses.map(parseAddress))
        break
      case 'asking':
        this.#answerSeen(link, message.hosts)
        break
      case 'seen':
        for (const { host, agoMs, over } of message.hosts) this.#keepSeen(host, entry.host, agoMs, over)
        break
      case 'revoked':
        this.#ground.revocations
          .learn(message.entries)
          .then((isNew) => {
            if (isNew) this.revoked()
          })
          .catch((error: unknown) =>
            this.#ground.log.error({ err: error }, 'a revocation could not be written down'),
          )
        break
      case 'redial':
        if (link.way.dialled) void this.#dial(entry)
        break
    }
  }

  #keepSeen(host: string, by: string, agoMs: number, over: string): void {
    const entry = this.#hosts.get(host)
    const atMs = this.#ground.clock.epochMs() - agoMs
    if (entry && atMs > (entry.seenBy?.atMs ?? 0)) entry.seenBy = { host: by, atMs, over }
  }

  #hold(entry: Entry, link: Link, message: ReportMessage, bytes: number): void {
    const { host, incarnation, generation, atMs, base } = message
    if (host !== entry.host) {
      link.end(CLOSE.policy, 'it speaks for another host')
      return
    }
    const held = entry.report?.incarnation === incarnation ? entry.report : null
    if (held === null || generation > held.generation) {
      const bytesSinceWhole = base === null ? bytes : (held?.bytesSinceWhole ?? 0) + bytes
      const body =
        base === null
          ? message.body
          : held?.generation === base && bytesSinceWhole < mostBytesSinceWhole
            ? withChanges(held.body, message.changes)
            : null
      if (body === null) {
        link.say({ kind: 'again' })
        return
      }
      const receivedMs = this.#ground.clock.epochMs()
      entry.report = { host, incarnation, generation, atMs, receivedMs, body, bytesSinceWhole }
      this.#emit({ what: 'report', host, atMs: receivedMs, generation })
    }
    link.say({ kind: 'taken', generation })
  }

  /** Sends the newest report, unless one is on its way or the peer does not read. */
  #tell(link: Link): void {
    const generation = this.#generation
    if (generation < 0 || link.held === generation) return
    link.waiting = link.sending !== null || link.isFull
    if (link.waiting) return
    link.sending = generation
    link.sendingSinceMs = this.#ground.clock.steadyMs()
    link.send(this.#textSince(link.held))
  }

  /** The newest report as it is sent to who holds `base`; made once for all of them. */
  #textSince(base: number | null): string {
    const before = base === null ? undefined : this.#past.get(base)
    if (base !== null && before === undefined) return this.#textSince(null)
    const known = this.#texts.get(base)
    if (known !== undefined) return known
    const body = this.#past.get(this.#generation) ?? null
    const changes = before === undefined ? null : changesBetween(before, body)
    if (base !== null && changes === null) return this.#textSince(null)
    const text = JSON.stringify({
      kind: 'report',
      host: this.#ground.self().host,
      incarnation: this.incarnation,
      generation: this.#generation,
      atMs: this.#atMs,
      ...(base !== null && changes !== null ? { base, changes } : { base: null, body }),
    } satisfies ReportMessage)
    const whole = base === null ? text : this.#textSince(null)
    // Many small changes can take more room than all of it.
    const shorter = text.length < whole.length ? text : whole
    this.#texts.set(base, shorter)
    return shorter
  }

  #tellHosts(link: Link): void {
    const hosts = [...this.#hosts.values()]
      .filter((entry) => entry.host !== link.peer.host && addressesOf(entry).length > 0)
      .map((entry) => ({ host: entry.host, addresses: addressesOf(entry).map(addressText) }))
    if (hosts.length > 0) link.say({ kind: 'hosts', hosts })
  }

  #learn(host: string, addresses: readonly Address[]): void {
    const entry = this.#entry(host)
    // What a linked host says of itself is newer than what others say of it.
    if (entry === null || entry.link !== null) return
    entry.told = distinct([...addresses, ...entry.told]).slice(0, mostAddresses)
  }

  #tellRevoked(link: Link): void {
    const entries = this.#ground.revocations.all()
    for (let at = 0; at < entries.length; at += mostRevocations)
      link.say({ kind: 'revoked', entries: entries.slice(at, at + mostRevocations) })
  }

  #askPeers(hosts: readonly string[], most: number): void {
    const links = [...this.#hosts.values()].flatMap(({ link }) => link ?? [])
    for (let count = 0; count < most && links.length > 0; count += 1) {
      const [link] = links.splice(Math.floor(Math.random() * links.length), 1)
      if (link && !link.isFull) link.say({ kind: 'asking', hosts })
    }
  }

  #answerSeen(link: Link, asked: readonly string[]): void {
    const nowMs = this.#ground.clock.epochMs()
    const hosts = asked.flatMap((host) => {
      const entry = this.#hosts.get(host)
      const seen = entry && this.#known(entry).seen
      return seen ? { host, agoMs: Math.max(0, nowMs - seen.atMs), over: seen.over } : []
    })
    if (hosts.length > 0 && !link.isFull) link.say({ kind: 'seen', hosts })
  }

  #emit(event: MeshEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}

const distinct = (addresses: readonly Address[]): readonly Address[] => [
  ...new Map(addresses.map((address) => [`${address.host} ${address.port}`, address])).values(),
]

/** A way that was dialled by an address without a label gets the label that the peer itself gives it. */
function labelled(way: Way, addresses: readonly Address[]): Way {
  if (!way.dialled || way.over !== '-') return way
  const { host, port } = parseAddress(way.address)
  const known = addresses.find((one) => one.host === host && one.port === port)
  return known === undefined ? way : { ...way, over: known.over, address: addressText(known) }
}

const addressesOf = ({ listed, told, link }: Entry): readonly Address[] => {
  const all = distinct([...listed, ...told])
  const [now, others] = [link?.way.address, all]
  return now === undefined
    ? others
    : [...others].sort((a, b) => Number(addressText(b) === now) - Number(addressText(a) === now))
}
