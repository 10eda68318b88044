// A connection to a driver that outlives its socket: opened, watched, dialled again with back-off, its subscriptions asked for anew.
//
// INVARIANTS
// - A call made while there is no connection fails at once. Nothing is made twice: whether to try again is the caller's to say.
// - `readAgain` comes after the subscriptions stand again, so that what is read then is followed by events without a gap.

import { EventEmitter, setMaxListeners } from 'node:events'
import { domainCalls, domainStreams } from './calls-domain.ts'
import { authList, authPolkit, hostCalls, open } from './calls-host.ts'
import { networkCalls } from './calls-network.ts'
import { storageCalls, storageStreams } from './calls-storage.ts'
import { type Address, type AddressOptions, addressOf, dial } from './dial.ts'
import { LibvirtConnectionError, LibvirtError } from './errors.ts'
import {
  domainEvents,
  type EventOf,
  type EventShape,
  monitorEvent,
  monitorRegistration,
  networkEvents,
  nodeDeviceEvents,
  registrations,
  secretEvents,
  storagePoolEvents,
} from './events.ts'
import type { Frame } from './frame.ts'
import { type ArgsOf, type Procedure, program, type ReplyOf } from './procedure.ts'
import { type CallOptions, type Keepalive, Rpc } from './rpc.ts'
import type { DomainRef, Network, NodeDevice, Secret, StoragePool } from './shapes.ts'
import { LibvirtStream, type StreamWay } from './stream.ts'
import { type Asking, Subscriptions } from './subscriptions.ts'
import { XdrError } from './xdr.ts'

const calls = { ...hostCalls, ...networkCalls, ...storageCalls, ...domainCalls }
const streams = { ...storageStreams, ...domainStreams }

type CallTable = typeof calls
type StreamTable = typeof streams

/** The name of a call: libvirt's own without its `vir`. */
export type CallName = keyof CallTable
/** What a call takes. */
export type CallArgs<N extends CallName> = ArgsOf<CallTable[N]>
/** What a call resolves to. */
export type CallReply<N extends CallName> = ReplyOf<CallTable[N]>
/** The name of a call that opens a stream. */
export type StreamName = keyof StreamTable
/** What a call that opens a stream takes. */
export type StreamArgs<N extends StreamName> = ArgsOf<StreamTable[N]>
/** What a call that opens a stream replies beside it. */
export type StreamReply<N extends StreamName> = ReplyOf<StreamTable[N]>

type Call<Args, Result> =
  Readonly<Record<never, never>> extends Args
    ? (args?: Args, options?: CallOptions) => Promise<Result>
    : (args: Args, options?: CallOptions) => Promise<Result>

/** Every call as a method: its arguments by name, then how it is to be made. */
export type Calls = {
  readonly [N in CallName]: Call<CallArgs<N>, CallReply<N>>
} & {
  readonly [N in StreamName]: Call<StreamArgs<N>, LibvirtStream<StreamReply<N>>>
}

/** How a connection is opened and kept. */
export interface ConnectOptions extends AddressOptions {
  /** Milliseconds after which a call is given up that has no deadline of its own; 30 000 when left out. */
  readonly deadlineMs?: number | undefined
  /** The same for calls that move bytes, start a guest or wait for one; 600 000 when left out. */
  readonly slowDeadlineMs?: number | undefined
  /** Milliseconds that connecting may take; 10 000 when left out. */
  readonly connectDeadlineMs?: number | undefined
  /** Whether and when silence is taken for death; after five questions, one every 5 s, when left out. */
  readonly keepalive?: Keepalive | false | undefined
  /** Whether to connect again when the connection is lost, and how soon; from 100 ms, doubled up to 10 s, when left out. */
  readonly reconnect?: Backoff | false | undefined
}

/** How long to wait before connecting again: doubled from `leastMs` to `mostMs`, less a random part of up to a half. */
export interface Backoff {
  readonly leastMs: number
  readonly mostMs: number
}

/** Why everything that was read before may be out of date. */
export type ReadAgain =
  | { readonly because: 'reconnected' }
  /** An event came that could not be read: what it told is lost. */
  | { readonly because: 'unreadable-event'; readonly cause: Error }

/** What a connection emits. */
export interface ConnectionEvents {
  /** The connection is gone, and everyone who waited has been told; another is tried unless that is switched off. */
  disconnected: [LibvirtConnectionError]
  /** Read again what was read before: events were missed. */
  readAgain: [ReadAgain]
  /** Events that were asked for will come no more: libvirt refused them when they were asked for anew. */
  subscriptionLost: [string, LibvirtError]
}

/** Events that were asked for. */
export interface Subscription {
  /** Asks for them no more; the listener is not called from now on. */
  deregister(options?: CallOptions): Promise<void>
}

const keepaliveFeature = 10
const readOnlyFlag = 1
const authNone = 0
const authByPolkit = 2

const wait = (ms: number, signal: AbortSignal): Promise<void> => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const stop = () => {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
    resolve()
  }
  const timer = setTimeout(stop, ms)
  signal.addEventListener('abort', stop)
  return promise
}

type Events = Readonly<Record<string, EventShape<unknown>>>

type Pair<In> = {
  readonly register: Procedure<{ readonly eventID: number; readonly object?: In | null | undefined }, number>
  readonly deregister: Procedure<{ readonly callbackID: number }, unknown>
}

/** The connection without its calls, which are added by their names. */
class Core extends EventEmitter<ConnectionEvents> {
  readonly #address: Address
  readonly #options: ConnectOptions
  readonly #subscriptions = new Subscriptions()
  readonly #streams = new Set<LibvirtStream>()
  readonly #closing = new AbortController()
  #rpc: Rpc | null = null
  #lost = new LibvirtConnectionError('closed', 'the connection has not been opened')
  #whenBack = Promise.withResolvers<void>()

  constructor(address: Address, options: ConnectOptions) {
    super()
    this.#address = address
    this.#options = options
    // However many wait for the connection, or have streams, all of them listen for its end.
    setMaxListeners(0, this.#closing.signal)
  }

  /** Whether calls can be made now. */
  get connected(): boolean {
    return this.#rpc !== null
  }

  /** Makes the first connection. Throws what kept it from being made. */
  async start(): Promise<void> {
    this.#adopt(await this.#open(true))
  }

  /**
   * Resolves when calls can be made; rejects with `closed`, `aborted` or `deadline`, and at once when the connection is lost
   * and is not to be made again.
   */
  async whenConnected({ deadlineMs, signal }: CallOptions = {}): Promise<void> {
    if (this.#options.reconnect === false) this.#connection('whenConnected')
    const any = AbortSignal.any([
      this.#closing.signal,
      ...(signal ? [signal] : []),
      ...(deadlineMs === undefined ? [] : [AbortSignal.timeout(deadlineMs)]),
    ])
    const { promise: stopped, reject } = Promise.withResolvers<never>()
    const stop = () => {
      const reason = this.#closing.signal.aborted ? 'closed' : signal?.aborted ? 'aborted' : 'deadline'
      reject(
        new LibvirtConnectionError(reason, `no connection: ${this.#lost.message}`, { cause: any.reason }),
      )
    }
    if (any.aborted) stop()
    else any.addEventListener('abort', stop)
    try {
      while (this.#rpc === null) await Promise.race([this.#whenBack.promise, stopped])
    } finally {
      any.removeEventListener('abort', stop)
    }
  }

  /** Ends the connection and its streams, for good and at once; whoever waits is released with `closed`. */
  close(): void {
    if (this.#closing.signal.aborted) return
    const closed = new LibvirtConnectionError('closed', 'the connection was closed')
    this.#closing.abort(closed)
    this.#lost = closed
    for (const stream of this.#streams) stream.destroy(closed)
    this.#rpc?.close(closed)
  }

  /** Closes. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Makes a call by its name. */
  async call<N extends CallName>(
    name: N,
    args: CallArgs<N>,
    options: CallOptions = {},
  ): Promise<CallReply<N>> {
    const procedure = calls[name] as Procedure<CallArgs<N>, CallReply<N>>
    return await this.#connection(name).call(name, procedure, args, this.#timed(procedure, options))
  }

  /** Opens a stream by the name of the call that does so. */
  async openStream<N extends StreamName>(
    name: N,
    args: StreamArgs<N>,
    options: CallOptions = {},
  ): Promise<LibvirtStream<StreamReply<N>>> {
    const procedure = streams[name] as Procedure<StreamArgs<N>, StreamReply<N>> & {
      readonly stream: StreamWay
    }
    const rpc = await this.#open(false)
    const stream = new LibvirtStream<StreamReply<N>>(rpc, procedure as never, procedure.stream)
    this.#streams.add(stream)
    stream.once('close', () => this.#streams.delete(stream))
    try {
      stream.opened(await rpc.call(name, procedure, args, this.#timed(procedure, options), stream.listener))
      return stream
    } catch (error) {
      stream.destroy()
      throw error
    }
  }

  /** Asks for an event of all domains or of one. */
  connectDomainEventRegisterAny<N extends keyof typeof domainEvents>(
    event: N,
    listener: (event: EventOf<(typeof domainEvents)[N]>) => void,
    options: CallOptions & { readonly dom?: DomainRef | undefined } = {},
  ): Promise<Subscription> {
    return this.#register('domain', registrations.domain, domainEvents, event, listener, options.dom, options)
  }

  /** Asks for an event of all networks or of one. */
  connectNetworkEventRegisterAny<N extends keyof typeof networkEvents>(
    event: N,
    listener: (event: EventOf<(typeof networkEvents)[N]>) => void,
    options: CallOptions & { readonly net?: Network | undefined } = {},
  ): Promise<Subscription> {
    return this.#register(
      'network',
      registrations.network,
      networkEvents,
      event,
      listener,
      options.net,
      options,
    )
  }

  /** Asks for an event of all storage pools or of one. */
  connectStoragePoolEventRegisterAny<N extends keyof typeof storagePoolEvents>(
    event: N,
    listener: (event: EventOf<(typeof storagePoolEvents)[N]>) => void,
    options: CallOptions & { readonly pool?: StoragePool | undefined } = {},
  ): Promise<Subscription> {
    const pair = registrations.storagePool
    return this.#register('storage pool', pair, storagePoolEvents, event, listener, options.pool, options)
  }

  /** Asks for an event of all of the host's devices or of one. */
  connectNodeDeviceEventRegisterAny<N extends keyof typeof nodeDeviceEvents>(
    event: N,
    listener: (event: EventOf<(typeof nodeDeviceEvents)[N]>) => void,
    options: CallOptions & { readonly dev?: NodeDevice | undefined } = {},
  ): Promise<Subscription> {
    const pair = registrations.nodeDevice
    return this.#register('node device', pair, nodeDeviceEvents, event, listener, options.dev, options)
  }

  /** Asks for an event of all secrets or of one. */
  connectSecretEventRegisterAny<N extends keyof typeof secretEvents>(
    event: N,
    listener: (event: EventOf<(typeof secretEvents)[N]>) => void,
    options: CallOptions & { readonly secret?: Secret | undefined } = {},
  ): Promise<Subscription> {
    return this.#register(
      'secret',
      registrations.secret,
      secretEvents,
      event,
      listener,
      options.secret,
      options,
    )
  }

  /** Asks for the events that QEMU tells over its own monitor, of one name or of all. */
  qemuConnectDomainMonitorEventRegister(
    listener: (event: EventOf<typeof monitorEvent>) => void,
    options: CallOptions & { readonly dom?: DomainRef | undefined; readonly event?: string | undefined } = {},
  ): Promise<Subscription> {
    const { register, deregister } = monitorRegistration
    const args = { object: options.dom ?? null, event: options.event ?? null, flags: 0 }
    return this.#subscribe(
      {
        name: `qemu ${options.event ?? 'monitor'}`,
        program: program.qemu,
        shape: monitorEvent,
        register: (rpc, how) =>
          rpc.call('qemuConnectDomainMonitorEventRegister', register, args, this.#timed(register, how)),
        deregister: (rpc, callbackID, how) =>
          rpc.call(
            'qemuConnectDomainMonitorEventDeregister',
            deregister,
            { callbackID },
            this.#timed(deregister, how),
          ),
      },
      listener,
      options,
    )
  }

  #register<E extends Events, N extends keyof E & string, In>(
    kind: string,
    { register, deregister }: Pair<In>,
    events: E,
    event: N,
    listener: (event: EventOf<E[N]>) => void,
    object: In | undefined,
    options: CallOptions,
  ): Promise<Subscription> {
    const shape = events[event] as EventShape<unknown>
    const name = `${kind} ${event}`
    const args = { eventID: shape.id, object: object ?? null }
    return this.#subscribe(
      {
        name,
        program: program.remote,
        shape,
        register: (rpc, how) => rpc.call(`register ${name}`, register, args, this.#timed(register, how)),
        deregister: (rpc, callbackID, how) =>
          rpc.call(`deregister ${name}`, deregister, { callbackID }, this.#timed(deregister, how)),
      },
      listener,
      options,
    )
  }

  async #subscribe(
    asking: Asking,
    listener: (event: never) => void,
    { deadlineMs, signal, lane }: CallOptions,
  ): Promise<Subscription> {
    const options = { deadlineMs, signal, lane }
    const rpc = this.#connection(asking.name)
    const end = await this.#subscriptions.add(rpc, asking, listener as (event: unknown) => void, options)
    return { deregister: (how = {}) => end(this.#rpc, how) }
  }

  #connection(name: string): Rpc {
    if (this.#rpc !== null) return this.#rpc
    const { reason, message } = this.#lost
    throw new LibvirtConnectionError(reason, `${name}: there is no connection: ${message}`, {
      cause: this.#lost,
    })
  }

  #timed({ pace }: Pick<Procedure<never, unknown>, 'pace'>, options: CallOptions) {
    const { deadlineMs = 30_000, slowDeadlineMs = 600_000 } = this.#options
    return { ...options, deadlineMs: options.deadlineMs ?? (pace === 'slow' ? slowDeadlineMs : deadlineMs) }
  }

  /** Connects and opens the driver; `isWatched` is for the connection on which calls are made. */
  async #open(isWatched: boolean): Promise<Rpc> {
    const { connectDeadlineMs = 10_000, readOnly = false } = this.#options
    const { keepalive = { intervalMs: 5000, count: 5 } } = this.#options
    const timeout = AbortSignal.timeout(connectDeadlineMs)
    const signal = AbortSignal.any([this.#closing.signal, timeout])
    const options = { deadlineMs: connectDeadlineMs, signal }
    let rpc: Rpc | null = null
    try {
      const opening: Rpc = new Rpc(await dial(this.#address, signal), {
        onMessage: (frame) => this.#receive(frame),
        onEnd: (error) => {
          if (this.#rpc === opening) this.#disconnected(error)
        },
      })
      rpc = opening
      const ways = await rpc.call('authList', authList, {}, options)
      if (!ways.includes(authNone) && ways.length > 0) {
        if (!ways.includes(authByPolkit) || !(await rpc.call('authPolkit', authPolkit, {}, options)))
          throw new LibvirtConnectionError(
            'denied',
            `libvirt wants authentication ${ways}, which is not spoken`,
          )
      }
      const args = { name: this.#address.name, flags: readOnly ? readOnlyFlag : 0 }
      await rpc.call('connectOpen', open, args, options)
      if (isWatched && keepalive !== false) {
        const { connectSupportsFeature } = hostCalls
        // Asking for it is what makes libvirt ask in its turn.
        await rpc.call(
          'connectSupportsFeature',
          connectSupportsFeature,
          { feature: keepaliveFeature },
          options,
        )
        rpc.startKeepalive(keepalive)
      }
      return rpc
    } catch (error) {
      rpc?.close()
      if (this.#closing.signal.aborted) throw this.#lost
      if (!timeout.aborted) throw error
      throw new LibvirtConnectionError('deadline', `not connected within ${connectDeadlineMs} ms`, {
        cause: error,
      })
    }
  }

  #adopt(rpc: Rpc): void {
    if (this.#closing.signal.aborted) throw this.#lost
    if (rpc.ended !== null) throw rpc.ended
    this.#rpc = rpc
    this.#whenBack.resolve()
  }

  #receive(frame: Frame): void {
    try {
      this.#subscriptions.dispatch(frame)
    } catch (cause) {
      if (!(cause instanceof XdrError)) throw cause
      this.emit('readAgain', { because: 'unreadable-event', cause })
    }
  }

  #disconnected(error: LibvirtConnectionError): void {
    this.#rpc = null
    this.#lost = error
    this.#whenBack = Promise.withResolvers<void>()
    const { reconnect = { leastMs: 100, mostMs: 10_000 } } = this.#options
    if (reconnect !== false && !this.#closing.signal.aborted) void this.#redial(reconnect)
    this.emit('disconnected', error)
  }

  async #redial({ leastMs, mostMs }: Backoff): Promise<void> {
    for (let delayMs = leastMs; ; delayMs = Math.min(delayMs * 2, mostMs)) {
      await wait(delayMs * (1 - Math.random() / 2), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      let rpc: Rpc | null = null
      try {
        rpc = await this.#open(true)
        await this.#subscriptions.restore(rpc, (name, error) => this.emit('subscriptionLost', name, error))
        this.#adopt(rpc)
        break
      } catch (error) {
        rpc?.close()
        // Told to whoever makes a call meanwhile, and overcome by the next attempt.
        if (error instanceof LibvirtConnectionError) this.#lost = error
        else if (error instanceof LibvirtError)
          this.#lost = new LibvirtConnectionError('denied', error.message, { cause: error })
        else throw error
      }
    }
    this.emit('readAgain', { because: 'reconnected' })
  }
}

for (const name of Object.keys(calls) as CallName[])
  Object.defineProperty(Core.prototype, name, {
    value(this: Core, args: CallArgs<typeof name> = {} as never, options?: CallOptions) {
      return this.call(name, args, options)
    },
  })
for (const name of Object.keys(streams) as StreamName[])
  Object.defineProperty(Core.prototype, name, {
    value(this: Core, args: StreamArgs<typeof name>, options?: CallOptions) {
      return this.openStream(name, args, options)
    },
  })

/** A connection to a driver, with every call of libvirt's that it knows as a method. */
export type Connection = Core & Calls

/**
 * Connects and opens a driver, as `qemu:///system`. Throws a LibvirtConnectionError when libvirt cannot be reached, a
 * LibvirtError when it refuses. A connection that is lost later is made again until `close()`.
 */
export async function connectOpen(uri: string, options: ConnectOptions = {}): Promise<Connection> {
  const connection = new Core(addressOf(uri, options), options) as Connection
  await connection.start()
  return connection
}

/** The same, only to read: over the socket that anybody may open. */
export const connectOpenReadOnly = (uri: string, options: ConnectOptions = {}): Promise<Connection> =>
  connectOpen(uri, { ...options, readOnly: true })
