// A host's membership in its fleet, put together: port, mesh, keys that renew themselves, and the verbs that go from host to host.
//
// INVARIANTS
// - Nothing is listened on before the host has joined, and nothing any more after it was put out.
// - What is said here of a key is where it lies, never what it is.

import { type FSWatcher, watch } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { networkInterfaces } from 'node:os'
import { OneByOne } from '../../provisioning/one-by-one.ts'
import { HostError, problemOf } from '../../provisioning/problem.ts'
import { type Address, addressPattern, addressText, parseAddress } from './address.ts'
import { askBatch, type BatchAnswer, BatchesOfPeers, batchPath } from './batch.ts'
import { dialMesh } from './dial.ts'
import { Discovery, type Found } from './discovery.ts'
import { isDue, renewAt } from './enrol.ts'
import { FleetFolder, wantDamaged } from './folder.ts'
import { Issuing, issuerUntilMs, type Joining, renewIssuer } from './issuing.ts'
import { Keyring, readCredentials } from './keyring.ts'
import { type HeldReport, type KnownHost, Mesh, type MeshEvent } from './mesh.ts'
import type { Pace } from './pace.ts'
import { type AskedSession, Port } from './port.ts'
import { askPeer, type Carried, type DoorFor, type SessionDoor, VerbsOfPeers } from './relay.ts'
import { fingerprintOf, type Identity, type Revocation } from './trust.ts'

/** What the desired document says of the fleet. Addresses are by the label of their network. */
export interface FleetDesired {
  readonly port: number
  readonly listen?: string | undefined
  readonly addresses?: Readonly<Record<string, string>> | undefined
  readonly peers: Readonly<Record<string, Readonly<Record<string, string>>>>
  /** The tag of instances by which hosts are looked for. */
  readonly discover?: { readonly tag: string } | undefined
  /** Whether /metrics is answered on the port. */
  readonly metrics?: boolean
}

/** What a membership stands on. */
export interface FleetGround {
  /** Where the keys are. */
  readonly folder: string
  /** What the desired document says of the fleet. */
  readonly settings: () => Promise<FleetDesired>
  readonly doorFor: DoorFor
  readonly sessions: SessionDoor
  /** Asks EC2 for the instances with a tag. Throws a HostError. */
  readonly tagged?: (tag: string) => Promise<Found>
  /** Does what a peer has this host send for it. Throws a HostError when nothing of it was done. */
  readonly batch?: (peer: string, batch: unknown) => Promise<object>
  /** What Prometheus scrapes. */
  readonly metrics?: () => Promise<{ readonly type: string; readonly text: string }>
  readonly clock: { epochMs(): number; steadyMs(): number }
  readonly log: { info(what: object, text: string): void; error(what: object, text: string): void }
  readonly pace?: Partial<Pace>
}

/** How the host is in its fleet. */
export interface Membership {
  readonly fleet: string
  readonly fingerprint: string
  readonly host: string
  readonly role: Identity['role']
  readonly port: number
  readonly addresses: readonly string[]
  readonly untilMs: number
  /** Until when this host can issue certificates; null where it issues none. */
  readonly issuerUntilMs: number | null
  /** Why the last try to renew the certificate failed. */
  readonly renewProblem: string | null
  /** Why hosts could not be looked for by their tag; null when they could, or are not looked for. */
  readonly discoverProblem: string | null
  readonly revoked: readonly { readonly host: string; readonly atMs: number }[]
}

const reloadDelayMs = 100
const retryMs = 60_000
const keepEveryMs = 60_000
const mostRenewCheckMs = 60_000
const issuerNoticeMs = 120 * 86_400_000
const mostAddresses = 16

/** What holds where the document says nothing of the fleet. */
export const usualFleet: FleetDesired = { port: 7443, peers: {}, metrics: false }

/** An address as people write it: `10.0.0.5`, `10.0.0.5:7443`, `fd00::5`, `[fd00::5]:7443`. */
export function addressIn(over: string, text: string, port: number): Address {
  const [, six, four, given] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text) ?? []
  return { over, host: six ?? four ?? text, port: given === undefined ? port : Number(given) }
}

/** Addresses by label, as the document writes them. */
const addressesIn = (byLabel: Readonly<Record<string, string>>, port: number): readonly Address[] =>
  Object.entries(byLabel).map(([over, text]) => addressIn(over, text, port))

/** The addresses of this host's interfaces that others could reach it by, labelled by interface. */
function interfaceAddresses(port: number): readonly Address[] {
  const all = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses
      .filter(({ internal, address }) => !internal && !/^(fe80|169\.254\.)/i.test(address))
      .map(({ address }) => ({ over: name.toLowerCase(), host: address, port }))
      .filter((address) => addressPattern.test(addressText(address))),
  )
  return all.slice(0, mostAddresses)
}

/** Where others reach this host: as the document says, or else at every address of its interfaces. */
export const ownAddresses = (
  { addresses }: Pick<FleetDesired, 'addresses'>,
  port: number,
): readonly Address[] => (addresses === undefined ? interfaceAddresses(port) : addressesIn(addresses, port))

/** Something that is wrong with the membership, for people to mend. */
export interface FleetCondition {
  readonly code: 'fleet.certificate' | 'fleet.file-damaged' | 'fleet.issuer' | 'fleet.not-working'
  readonly severity: 'notice' | 'warning' | 'high'
  readonly text: string
  /** The file that it is about, where there can be several. */
  readonly subject?: string
}

/** The fleet as the daemon has it: there from the start, and alive once the host has joined. */
export class Fleet {
  readonly #ground: FleetGround
  readonly #folder: FleetFolder
  #member: Member | null = null
  /** Why the host is not in its fleet, though it has keys. */
  #problem: HostError | null = null
  #settings: FleetDesired | null = null
  /** Why the document could not be read the last time. */
  #unread: string | null = null
  #watcher: FSWatcher | null = null
  #reloading: NodeJS.Timeout | null = null
  #retrying: NodeJS.Timeout | null = null
  /** What changes the membership. */
  readonly #changes = new OneByOne()
  #latest: { readonly generation: number; readonly atMs: number; readonly report: object } | null = null
  #closed = false

  private constructor(ground: FleetGround) {
    this.#ground = ground
    this.#folder = new FleetFolder(ground.folder)
  }

  /** Begins. What is wrong with keys or port is told by `conditions`, and tried again. Throws what is no fault of the fleet. */
  static async open(ground: FleetGround): Promise<Fleet> {
    const fleet = new Fleet(ground)
    await fleet.resettle()
    return fleet
  }

  /** The desired document may have changed: begins anew when it says something else of the fleet. */
  resettle(): Promise<void> {
    return this.#next(async () => {
      const settings = await this.#read()
      if (JSON.stringify(settings) === JSON.stringify(this.#settings)) return
      this.#settings = settings
      await this.#member?.close()
      this.#member = null
      await this.#begin()
    })
  }

  /** What the document says; what it said before while it cannot be read. */
  async #read(): Promise<FleetDesired> {
    try {
      const settings = await this.#ground.settings()
      this.#unread = null
      return settings
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      // It is asked for every ten seconds, and said once.
      if (error.message !== this.#unread)
        this.#ground.log.error({ err: error.report() }, 'what the document says of the fleet is not known')
      this.#unread = error.message
      return this.#settings ?? usualFleet
    }
  }

  #next(work: () => Promise<void>): Promise<void> {
    return this.#changes.do(async () => {
      if (!this.#closed) await work()
    })
  }

  async #begin(): Promise<void> {
    if (this.#retrying) clearTimeout(this.#retrying)
    this.#retrying = null
    try {
      await this.#watch()
      const credentials = await readCredentials(this.#folder)
      this.#problem = null
      if (credentials === null) return
      const keyring = new Keyring(this.#folder, credentials, this.#ground.clock.epochMs)
      this.#member = await Member.begin(this.#ground, this.#settings ?? usualFleet, this.#folder, keyring)
      // Whoever closed meanwhile found nobody to close.
      if (this.#closed) await this.#member.close()
      if (this.#latest)
        this.#member.mesh.publish(this.#latest.generation, this.#latest.atMs, this.#latest.report)
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      this.#problem = error
      this.#ground.log.error({ err: error.report() }, 'not in the fleet')
      this.#retrying = setTimeout(() => this.#later(() => this.#begin()), retryMs)
    }
  }

  async #watch(): Promise<void> {
    if (this.#watcher !== null) return
    await this.#folder.enter()
    this.#watcher = watch(this.#folder.path, { recursive: true }, () => this.#reloadSoon())
    this.#watcher.on('error', (error) =>
      this.#ground.log.error({ err: error }, 'the fleet folder is watched no more'),
    )
  }

  /** Several files change together, and a rename is seen before what follows it. */
  #reloadSoon(): void {
    this.#reloading ??= setTimeout(() => {
      this.#reloading = null
      this.#later(() => (this.#member === null ? this.#begin() : this.#member.reload()))
    }, reloadDelayMs)
  }

  #later(work: () => Promise<void>): void {
    this.#next(work).catch((error: unknown) =>
      this.#ground.log.error({ err: problemOf(error) }, 'the fleet folder could not be read anew'),
    )
  }

  /** What is wrong now. */
  conditions(): readonly FleetCondition[] {
    if (this.#problem !== null)
      return [{ code: 'fleet.not-working', severity: 'high', text: this.#problem.message }]
    return this.#member?.conditions() ?? []
  }

  /** Tells all peers how this host stands. */
  publish(generation: number, atMs: number, report: object): void {
    this.#latest = { generation, atMs, report }
    this.#member?.mesh.publish(generation, atMs, report)
  }

  /** Tells all peers of something that happens here, at once. */
  tell(event: object): void {
    this.#member?.mesh.tell(event)
  }

  #joined(): Member {
    if (this.#member !== null) return this.#member
    if (this.#problem !== null) throw this.#problem
    throw new HostError('fleet.none', 'this host is in no fleet')
  }

  /** Throws `fleet.none`. */
  membership(): Membership {
    return this.#joined().membership()
  }

  /** Throws `fleet.none`. */
  hosts(): readonly KnownHost[] {
    return this.#joined().mesh.hosts()
  }

  /** Asks peers when missing hosts were last seen. Throws `fleet.none`. */
  ask(): void {
    this.#joined().mesh.ask()
  }

  /** The newest report of another host, or null. Throws `fleet.none`. */
  reportOf(host: string): HeldReport | null {
    return this.#joined().mesh.reportOf(host)
  }

  /** Calls back for what happens in the mesh until the answer is called. Throws `fleet.none`, `fleet.busy`. */
  listen(listener: (event: MeshEvent) => void): () => void {
    const stop = this.#joined().mesh.listen(listener)
    if (stop === null) throw new HostError('fleet.busy', 'too many listen to the fleet here already')
    return stop
  }

  /** Has a peer run a verb, and gives its answer on. Throws `fleet.none`, `fleet.unreachable`, `fleet.unknown-host`. */
  async askPeer(host: string, carried: Carried, response: ServerResponse): Promise<void> {
    const { keyring, mesh } = this.#joined()
    if (!mesh.hosts().some((known) => known.host === host))
      throw new HostError('fleet.unknown-host', `no host ${host} is known in the fleet`, {
        details: { host },
      })
    await askPeer(keyring, host, mesh.addressesOf(host), carried, response)
  }

  /** The other hosts that are linked now; none on a host that is in no fleet. */
  linked(): readonly string[] {
    const hosts = this.#member?.mesh.hosts() ?? []
    return hosts.filter(({ link }) => link !== null).map(({ host }) => host)
  }

  /** Has a peer take a batch, until `stop` gives it up. Throws `fleet.none`. */
  askBatch(host: string, batch: object, stop: AbortSignal): Promise<BatchAnswer> {
    const { keyring, mesh } = this.#joined()
    return askBatch(keyring, host, mesh.addressesOf(host), batch, stop)
  }

  /** Ends everything, after what is known of the others is on the disk. */
  async close(): Promise<void> {
    this.#closed = true
    this.#watcher?.close()
    for (const timer of [this.#reloading, this.#retrying]) if (timer) clearTimeout(timer)
    await this.#member?.close()
  }
}

/** What there is once a host has joined. */
class Member {
  readonly keyring: Keyring
  readonly mesh: Mesh
  readonly #ground: FleetGround
  readonly #settings: FleetDesired
  readonly #folder: FleetFolder
  readonly #port: Port
  readonly #issuing: Issuing
  readonly #verbs: VerbsOfPeers
  readonly #batches: BatchesOfPeers | null
  readonly #timers: NodeJS.Timeout[] = []
  readonly #left = new AbortController()
  #discovery: Discovery | null = null
  #portNumber = 0
  #renewing: Promise<void> | null = null
  #renewProblem: string | null = null
  #issuerUntilMs: number | null = null
  #kept = ''
  /** What is wrong with what was remembered of the others, until it is written anew. */
  #damaged: HostError | null = null
  #issuerDamaged: HostError | null = null
  #authorityDamaged: HostError | null = null

  private constructor(ground: FleetGround, settings: FleetDesired, folder: FleetFolder, keyring: Keyring) {
    const { clock, log, pace = {} } = ground
    this.#ground = ground
    this.#settings = settings
    this.#folder = folder
    this.keyring = keyring
    this.#issuing = new Issuing(folder, clock.epochMs)
    this.#verbs = new VerbsOfPeers(ground.doorFor)
    this.#batches = ground.batch ? new BatchesOfPeers(ground.batch, clock.steadyMs) : null
    this.mesh = new Mesh({
      self: () => keyring.credentials.identity,
      addresses: () => this.#addresses(),
      issues: () => this.#issuerUntilMs !== null,
      dial: (host, addresses) => dialMesh(keyring, host, addresses),
      revocations: keyring,
      clock,
      log,
      pace,
    })
    this.#port = new Port({
      port: settings.port,
      host: settings.listen,
      keyring,
      log,
      steadyMs: clock.steadyMs,
      behind: {
        isOpen: () => this.#issuing.isOpen(),
        stranger: (path, body) => this.#stranger(path, body),
        peer: (peer, path, body, response, caller) => this.#peer(peer, path, body, response, caller),
        mesh: (socket, peer, localAddress, remoteAddress) =>
          this.mesh.accept(socket, peer, { over: this.#over(localAddress), address: remoteAddress }),
        session: (asked, isGood) => this.#session(asked, isGood),
      },
    })
  }

  static async begin(
    ground: FleetGround,
    settings: FleetDesired,
    folder: FleetFolder,
    keyring: Keyring,
  ): Promise<Member> {
    const member = new Member(ground, settings, folder, keyring)
    try {
      await member.reload()
      member.#portNumber = await member.#port.listen()
      member.#list({})
      await member.#recall()
      await member.#discover()
    } catch (error) {
      // It is tried again with another one.
      await member.close()
      throw error
    }
    const { identity } = keyring.credentials
    ground.log.info(
      { fleet: identity.fleet, host: identity.host, role: identity.role, port: member.#portNumber },
      'in the fleet',
    )
    const every = (ms: number, work: () => Promise<void>, failed: string) => {
      const timer = setInterval(
        () => work().catch((error: unknown) => ground.log.error({ err: problemOf(error) }, failed)),
        ms,
      )
      member.#timers.push(timer)
    }
    // Often enough also for a certificate that lasts an hour.
    const lifetimeMs = identity.expiresMs - keyring.credentials.beganMs
    every(
      Math.min(mostRenewCheckMs, lifetimeMs / 50),
      () => member.renew(),
      'the certificate could not be renewed',
    )
    every(keepEveryMs, () => member.#keep(), 'what is known of the fleet could not be kept')
    return member
  }

  /** Says where hosts are: by the document, and where else they were found. */
  #list(found: Readonly<Record<string, readonly Address[]>>): void {
    const { peers, port } = this.#settings
    const hosts = new Set([...Object.keys(peers), ...Object.keys(found)])
    this.mesh.list(
      Object.fromEntries(
        [...hosts].map((host) => [host, [...addressesIn(peers[host] ?? {}, port), ...(found[host] ?? [])]]),
      ),
    )
  }

  async #discover(): Promise<void> {
    const { tagged, log } = this.#ground
    const { discover, port } = this.#settings
    if (discover === undefined || tagged === undefined) return
    this.#discovery = new Discovery({
      ...{ folder: this.#folder, tag: discover.tag, port, ask: tagged, log },
      found: (hosts) => this.#list(hosts),
    })
    await this.#discovery.begin()
  }

  #addresses(): readonly Address[] {
    return ownAddresses(this.#settings, this.#portNumber)
  }

  /** The label of the network that a local address is on. */
  #over(localAddress: string): string {
    return this.#addresses().find(({ host }) => host === localAddress)?.over ?? '-'
  }

  #stranger(path: string, body: unknown): Promise<object> | null {
    if (path === '/v1/authority') return Promise.resolve({ authority: this.keyring.credentials.tls.ca })
    return path === '/v1/join' ? this.#join(body) : null
  }

  async #join(body: unknown): Promise<object> {
    const { secret, host, request } = textsIn(body, ['secret', 'host', 'request']) as unknown as Joining
    const { chain, identity } = await this.#issuing.join({ secret, host, request })
    this.#ground.log.info({ host, role: identity.role, enrolment: identity.enrolment }, 'let into the fleet')
    return { chain }
  }

  async #peer(
    peer: Identity,
    path: string,
    body: unknown,
    response: ServerResponse,
    caller: string,
  ): Promise<object | null> {
    if (path === '/v1/renew') {
      const { request } = textsIn(body, ['request'])
      const issued = await this.#issuing.renew(peer, request ?? '')
      this.#ground.log.info({ host: peer.host, enrolment: peer.enrolment }, 'certificate renewed')
      return issued
    }
    if (path === batchPath && this.#batches !== null) {
      const answer = await this.#batches.answer(peer, body)
      this.#ground.log.info({ peer: peer.host }, 'asked by a peer to speak to CloudWatch for it')
      return answer
    }
    const { metrics } = this.#ground
    if (path === '/metrics' && this.#settings.metrics && metrics !== undefined) {
      const { type, text } = await metrics()
      response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
      response.end(text)
      return null
    }
    if (!path.startsWith('/v1/verbs/'))
      throw new HostError('request.unknown-verb', 'there is nothing of that name on the fleet port')
    const verb = path.slice('/v1/verbs'.length)
    await this.#verbs.answer(peer, verb, body, caller, response)
    this.#ground.log.info({ peer: peer.host, role: peer.role, caller, verb }, 'asked by a peer')
    return null
  }

  async #session(asked: AskedSession, isGood: () => void): Promise<void> {
    const { sessions, log } = this.#ground
    const { peer, path: verb, caller } = asked
    const who = { peer: peer.host, role: peer.role, caller, verb }
    const open: SessionDoor['open'] = async (...words) => {
      const far = await sessions.open(...words)
      log.info(who, 'session of a peer begun')
      return far
    }
    await this.#verbs.session(asked, isGood, { ...sessions, open }, this.#left.signal)
    log.info(who, 'session of a peer ended')
  }

  /** The folder has changed: takes in what is new, and tells the others. */
  async reload(): Promise<void> {
    const { renewed, revoked } = await this.keyring.reload()
    for (const problem of this.keyring.problems)
      this.#ground.log.error({ err: problem.report() }, 'a revocation does not count until a peer tells it')
    try {
      this.#issuerUntilMs = await issuerUntilMs(this.#folder)
      this.#issuerDamaged = null
      this.#authorityDamaged = null
    } catch (error) {
      this.#issuerUntilMs = null
      this.#issuerDamaged = wantDamaged(error)
      this.#ground.log.error({ err: this.#issuerDamaged.report() }, 'this host issues no certificates')
    }
    if (renewed) {
      this.#renewProblem = null
      this.#port.renewed()
      this.mesh.renewed()
      this.#ground.log.info(
        { until: new Date(this.keyring.credentials.identity.expiresMs) },
        'new certificate',
      )
    }
    if (revoked) this.mesh.revoked()
  }

  /** Renews what is due: the issuer of this host, and its own certificate, here or at a peer that issues. */
  renew(): Promise<void> {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null
    })
    return this.#renewing
  }

  async #renew(): Promise<void> {
    const nowMs = this.#ground.clock.epochMs()
    // A key of an authority that is damaged keeps no host from its own certificate.
    const isWhole = this.#issuerUntilMs !== null && this.#authorityDamaged === null
    if (isWhole)
      await renewIssuer(this.#folder, nowMs).catch((error: unknown) => {
        this.#authorityDamaged = wantDamaged(error)
      })
    if (!isDue(this.keyring, nowMs)) return
    const self = this.keyring.credentials.identity.host
    // An issuer asks itself first, over its own port: there is one way.
    const { listen = 'localhost' } = this.#settings
    const own = { host: self, addresses: [{ over: '-', host: listen, port: this.#portNumber }] }
    const others = this.mesh.hosts().filter(({ link }) => link?.issues)
    try {
      await renewAt(this.#folder, this.keyring, this.#issuerUntilMs === null ? others : [own, ...others])
    } catch (error) {
      const { message } = problemOf(error)
      const isKnown = this.#renewProblem === message
      this.#renewProblem = message
      // Told once, and shown until it is mended.
      if (isKnown) return
      throw error
    }
    await this.reload()
  }

  membership(): Membership {
    const { identity, authority } = this.keyring.credentials
    return {
      fleet: identity.fleet,
      fingerprint: fingerprintOf(authority),
      host: identity.host,
      role: identity.role,
      port: this.#portNumber,
      addresses: this.#addresses().map(addressText),
      untilMs: identity.expiresMs,
      issuerUntilMs: this.#issuerUntilMs,
      renewProblem: this.#renewProblem,
      discoverProblem: this.#discovery?.problem ?? null,
      revoked: this.keyring.all().map(({ host, atMs }: Revocation) => ({ host, atMs })),
    }
  }

  conditions(): readonly FleetCondition[] {
    const { identity, beganMs } = this.keyring.credentials
    const nowMs = this.#ground.clock.epochMs()
    const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
    const damaged = [
      ...[this.#damaged, this.#issuerDamaged, this.#authorityDamaged, this.#discovery?.damaged ?? null],
      ...this.keyring.problems,
    ]
    const conditions: FleetCondition[] = damaged.flatMap((problem) =>
      problem === null
        ? []
        : [
            {
              ...{ code: 'fleet.file-damaged' as const, severity: 'warning' as const },
              ...{ subject: String(problem.details.path), text: problem.message },
            },
          ],
    )
    // At half of its time it is renewed: at three quarters that has failed for weeks.
    const lateMs = identity.expiresMs - (identity.expiresMs - beganMs) / 4
    if (nowMs > lateMs) {
      const isOver = nowMs >= identity.expiresMs
      const why = this.#renewProblem === null ? '' : `: ${this.#renewProblem}`
      conditions.push({
        code: 'fleet.certificate',
        severity: isOver ? 'high' : 'warning',
        text: `the certificate of this host ${isOver ? 'ended' : 'ends'} on ${dateOf(identity.expiresMs)} and could not be renewed${why}`,
      })
    }
    if (this.#issuerUntilMs !== null && nowMs > this.#issuerUntilMs - issuerNoticeMs)
      conditions.push({
        code: 'fleet.issuer',
        severity: nowMs > this.#issuerUntilMs - issuerNoticeMs / 4 ? 'warning' : 'notice',
        text: `this host can issue certificates until ${dateOf(this.#issuerUntilMs)}`,
      })
    return conditions
  }

  /** Where the others are and when they were seen outlives this process: it is needed most when nothing else can tell. */
  async #keep(): Promise<void> {
    const known = this.mesh
      .hosts()
      .map(({ host, addresses, seen }) => ({ host, addresses: addresses.map(addressText), seen }))
    const text = JSON.stringify(known)
    if (text === '[]' || text === this.#kept) return
    this.#kept = text
    await this.#folder.writeKnown(known)
    this.#damaged = null
  }

  async #recall(): Promise<void> {
    try {
      const known = (await this.#folder.readKnown()) ?? []
      this.mesh.recall(
        known.map(({ host, addresses, seen }) => ({ host, addresses: addresses.map(parseAddress), seen })),
      )
    } catch (error) {
      // The document, the tag and peers that dial this host tell of them again.
      this.#damaged = wantDamaged(error)
      this.#ground.log.error({ err: this.#damaged.report() }, 'what was known of the others is lost')
    }
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    this.#discovery?.close()
    this.#left.abort()
    await this.#keep()
    this.mesh.close()
    this.#port.close()
  }
}

/** Texts of a body by their names. Throws `request.invalid` when one is missing or something else is there. */
function textsIn<K extends string>(body: unknown, keys: readonly K[]): Readonly<Record<K, string>> {
  const given = typeof body === 'object' && body !== null && !Array.isArray(body) ? body : {}
  const whole =
    Object.keys(given).length === keys.length &&
    keys.every((key) => Object.hasOwn(given, key) && typeof given[key as keyof typeof given] === 'string')
  if (!whole)
    throw new HostError('request.invalid', `what is wanted is ${keys.join(', ')} and nothing else`, {
      details: { verb: 'fleet join' },
    })
  return given as Readonly<Record<K, string>>
}
