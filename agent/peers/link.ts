// One connection with one peer (RFC 6455, by ws): what may be said on it, how fast, and when it is taken for dead.

import type { RawData, WebSocket } from 'ws'
import { type Message, MessageError, parseMessage } from './message.ts'
import { Allowance, bytesTaken, messagesTaken, mostUnsentBytes, type Pace, stalledBytes } from './pace.ts'
import type { Identity } from './trust.ts'

/** Why a connection is ended: the close codes of this protocol (RFC 6455, 7.4.2), beside 1000. */
export const CLOSE = {
  policy: 1008,
  replaced: 4001,
  duplicate: 4002,
  refused: 4003,
  silent: 4004,
  stalled: 4005,
} as const

/** What ws is told on either side: no compression, nothing answered that was not looked at, nothing large. */
export const socketOptions = {
  perMessageDeflate: false,
  maxPayload: 2 ** 20,
  maxFragments: 64,
  maxBufferedChunks: 4096,
  autoPong: false,
  closeTimeout: 2000,
} as const

/** How a connection came about. `over`: the network that it is on, as this host or its peer calls it. */
export interface Way {
  readonly dialled: boolean
  readonly over: string
  readonly address: string
}

/** What is done with what comes. After `ended` nothing more does. */
export interface LinkEvents {
  /** `bytes`: how long its text was. */
  message(message: Message, bytes: number): void
  ended(why: string): void
}

/** A connection with a peer that is known by its certificate. Times are steady milliseconds. */
export class Link {
  readonly peer: Identity
  way: Way
  readonly sinceMs: number
  heardMs: number
  rttMs: number | null = null
  sentBytes = 0
  receivedBytes = 0
  /** The generation that the peer is known to hold, that is on its way to it, and since when. */
  held: number | null = null
  sending: number | null = null
  sendingSinceMs = 0
  /** Whether a newer report waits for the one on its way. */
  waiting = false
  /** Whether the peer says that it issues certificates. */
  issues = false
  /** Events that were not told because there were too many. */
  missed = 0

  readonly #socket: WebSocket
  readonly #pace: Pace
  readonly #steadyMs: () => number
  readonly #events: LinkEvents
  readonly #messages: Allowance
  readonly #bytes: Allowance
  #pingedMs = 0
  #fullSinceMs: number | null = null
  #doubtedMs: number | null = null
  #ended = false

  constructor(
    socket: WebSocket,
    peer: Identity,
    way: Way,
    pace: Pace,
    steadyMs: () => number,
    events: LinkEvents,
  ) {
    const nowMs = steadyMs()
    this.peer = peer
    this.way = way
    this.sinceMs = nowMs
    this.heardMs = nowMs
    this.#socket = socket
    this.#pace = pace
    this.#steadyMs = steadyMs
    this.#events = events
    this.#messages = new Allowance(messagesTaken.burst, messagesTaken.perSecond, nowMs)
    this.#bytes = new Allowance(bytesTaken.burst, bytesTaken.perSecond, nowMs)
    socket.on('message', (data, isBinary) => this.#take(data, isBinary))
    socket.on('ping', (data) => {
      if (this.#may(data.length)) socket.pong(data)
    })
    socket.on('pong', (data) => {
      if (!this.#may(data.length)) return
      const sentMs = Number(data.toString('latin1'))
      if (sentMs === this.#pingedMs) this.rttMs = this.#steadyMs() - sentMs
    })
    // Its close follows, with the reason.
    socket.on('error', (error) => this.#end(error.message))
    socket.on('close', (code, reason) => this.#end(reason.toString('utf8') || `closed (${code})`))
    socket.resume()
  }

  /** Whether more may be sent that could as well wait. */
  get isFull(): boolean {
    return this.#socket.bufferedAmount > stalledBytes
  }

  /** Sends a text. A peer that has far too much unread is cut off instead. */
  send(text: string): void {
    if (this.#ended) return
    this.sentBytes += text.length
    this.#socket.send(text)
    if (this.#socket.bufferedAmount > mostUnsentBytes) this.cut(CLOSE.stalled, 'it does not read')
  }

  say(message: Message): void {
    this.send(JSON.stringify(message))
  }

  /** Ends it with a reason that the peer is told. */
  end(code: number, why: string): void {
    if (this.#ended) return
    this.#socket.close(code, why.slice(0, 120))
    this.#end(why)
  }

  /** Ends it at once: the peer would not read a reason. */
  cut(code: number, why: string): void {
    this.end(code, why)
    this.#socket.terminate()
  }

  /** Somebody says that the peer is elsewhere: it must prove within a moment that it is still here. */
  doubt(): void {
    if (this.#doubtedMs !== null) return
    this.#doubtedMs = this.#steadyMs()
    this.#ping(this.#doubtedMs)
  }

  /** Looks after the connection; called now and then. */
  tick(nowMs: number): void {
    if (!this.isFull) this.#fullSinceMs = null
    else this.#fullSinceMs ??= nowMs
    const [code, why] = this.#fault(nowMs) ?? []
    if (code !== undefined && why !== undefined) this.cut(code, why)
    else if (this.#isPingDue(nowMs)) this.#ping(nowMs)
  }

  /** Why the connection is to be cut, or null. */
  #fault(nowMs: number): readonly [code: number, why: string] | null {
    const { silentMs, stalledMs, helloMs, takenMs } = this.#pace
    const isPast = (sinceMs: number | null, afterMs: number) => sinceMs !== null && nowMs - sinceMs > afterMs
    if (isPast(this.heardMs, silentMs) || isPast(this.#doubtedMs, helloMs))
      return [CLOSE.silent, `nothing heard for ${Math.round((nowMs - this.heardMs) / 1000)} s`]
    if (this.sending !== null && isPast(this.sendingSinceMs, takenMs))
      return [CLOSE.silent, 'a report was not taken']
    return isPast(this.#fullSinceMs, stalledMs) ? [CLOSE.stalled, 'it does not read'] : null
  }

  /** A peer that is quiet is asked whether it is there, and any now and then how far away it is. */
  #isPingDue(nowMs: number): boolean {
    const { pingMs } = this.#pace
    return nowMs - Math.max(this.#pingedMs, this.heardMs) >= pingMs || nowMs - this.#pingedMs >= 3 * pingMs
  }

  #ping(nowMs: number): void {
    this.#pingedMs = nowMs
    this.#socket.ping(String(nowMs))
  }

  /** Counts what came; a peer that says too much is cut off. */
  #may(bytes: number): boolean {
    const nowMs = this.#steadyMs()
    this.heardMs = nowMs
    this.#doubtedMs = null
    this.receivedBytes += bytes
    if (this.#ended) return false
    if (this.#messages.take(1, nowMs) && this.#bytes.take(bytes, nowMs)) return true
    this.#refuse('it says more than a peer may')
    return false
  }

  /** Tells the reason, and reads nothing further: ws ends what the peer does not end in time. */
  #refuse(why: string): void {
    this.end(CLOSE.policy, why)
    this.#socket.pause()
  }

  #take(data: RawData, isBinary: boolean): void {
    const bytes = data as Buffer
    if (!this.#may(bytes.length)) return
    try {
      if (isBinary) throw new MessageError('binary')
      this.#events.message(parseMessage(bytes.toString('utf8')), bytes.length)
    } catch (error) {
      if (!(error instanceof MessageError)) throw error
      this.#refuse(`a message is ${error.message}`)
    }
  }

  #end(why: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#events.ended(why)
  }
}
