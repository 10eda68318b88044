// Asks libvirt for statistics in such a way that what is not answered holds up nobody else; libvirt is whatever client is passed in.
//
// INVARIANTS
// - A question to a guest that hangs is never answered, keeps one of the four places of its connection and one of libvirtd's
//   20 workers (max_workers), and nobody can take it back. So they are counted until they end, and have a limit.
// - While libvirtd owes an answer to a question that needs no guest, it is asked nothing.

import type { Clock } from './clock.ts'

/** A VM as libvirt goes by it; `id` is -1 unless it runs. */
export interface DomainRef {
  readonly name: string
  readonly uuid: string
}

/** What libvirt tells of one VM: libvirt's own names and values. */
export interface DomainRecord {
  readonly dom: DomainRef & { readonly id: number }
  readonly params: StatsParams
}

/** Values by libvirt's own names; what does not fit a number is a bigint. */
export type StatsParams = Readonly<Record<string, number | bigint | boolean | string>>

/** The events that make a VM worth reading again. */
export type HintEvent = 'lifecycle' | 'deviceAdded' | 'deviceRemoved' | 'balloonChange'

/** What libvirt told of a VM: of its lifecycle also what happened, in libvirt's numbers (virDomainEventType and its detail). */
export type HeardEvent = { readonly dom: DomainRef } & (
  | { readonly event: Exclude<HintEvent, 'lifecycle'> }
  | { readonly event: 'lifecycle'; readonly kind: number; readonly detail: number }
)

/** That something is worth reading again: a VM, or everything because nobody knows what was missed. */
export type Hint = 'all' | HeardEvent

/** The part of a libvirt client that sampling needs; it connects again by itself. agent/node-libvirt says what it does. */
export interface StatsConnection {
  connectGetAllDomainStats(
    args: { readonly doms: readonly DomainRef[]; readonly stats: number; readonly flags: number },
    how: { readonly deadlineMs: number },
  ): Promise<readonly DomainRecord[]>
  connectDomainEventRegisterAny(
    event: HintEvent,
    listener: (told: { readonly dom: DomainRef; readonly event?: number; readonly detail?: number }) => void,
  ): Promise<unknown>
  on(event: 'readAgain', listener: () => void): unknown
  close(): void
}

/** virDomainStatsTypes. */
export const GROUP = { power: 1, balloon: 4, nics: 16, disks: 32 } as const

/** VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT: of a VM that somebody holds, tell what can be told without it. */
const noWait = 0x20000000

const events: readonly HintEvent[] = ['lifecycle', 'deviceAdded', 'deviceRemoved', 'balloonChange']

/** A connection with so many questions that hang takes no more: two of its four places are left for what is answered. */
const hangingPerConnection = 2
/**
 * When so many hang, no guest is asked any more. Since four are asked at the same time, nine of libvirtd's workers is the most
 * that guests that hang can cost.
 */
const mostHanging = 6
/** The longest that a timer can be: that we know when such a question ends matters more than to be rid of it. */
const noDeadlineMs = 2 ** 31 - 1

/** Nobody has answered in time. `asked` says whether the question was asked, and hangs now. */
export class Unanswered extends Error {
  override readonly name = 'Unanswered'
  readonly asked: boolean

  constructor(message: string, asked = false) {
    super(message)
    this.asked = asked
  }
}

/** One connection, and how many questions on it hang. */
interface Line {
  readonly connection: StatsConnection
  hanging: number
}

/** What the questions are asked with, and who is told what is worth reading again. */
export interface QuestionsOptions {
  readonly connect: () => Promise<StatsConnection>
  readonly clock: Clock
  readonly deadlineMs: number
  readonly hint: (hint: Hint) => void
}

/** The questions to libvirt, over connections of its own. */
export class Questions {
  readonly #options: QuestionsOptions
  /** The last is asked; those before it are only kept until their questions end. */
  #lines: Line[] = []
  #opening: Promise<Line> | null = null
  #libvirtdOwes = false
  #closed = false

  constructor(options: QuestionsOptions) {
    this.#options = options
  }

  /** How many questions hang now. */
  get hanging(): number {
    return this.#lines.reduce((sum, { hanging }) => sum + hanging, 0)
  }

  /** Asks what libvirtd knows by itself; of all VMs when `doms` is empty. Throws Unanswered, or what the client throws. */
  async askLibvirtd(doms: readonly DomainRef[], stats: number): Promise<readonly DomainRecord[]> {
    if (this.#libvirtdOwes) throw new Unanswered('libvirtd still owes an answer')
    return await this.#ask({ doms, stats }, (isOwed) => {
      this.#libvirtdOwes = isOwed
    })
  }

  /** Asks what only the guests' QEMU know. Throws Unanswered, or what the client throws. */
  async askGuests(doms: readonly DomainRef[], stats: number): Promise<readonly DomainRecord[]> {
    const { hanging } = this
    if (hanging >= mostHanging) throw new Unanswered(`${hanging} questions to guests hang already`)
    return await this.#ask({ doms, stats }, () => {})
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true
    for (const { connection } of this.#lines) connection.close()
    this.#lines = []
  }

  async #ask(
    { doms, stats }: { readonly doms: readonly DomainRef[]; readonly stats: number },
    owed: (is: boolean) => void,
  ): Promise<readonly DomainRecord[]> {
    const line = await this.#inTime(this.#line())
    const asking = line.connection.connectGetAllDomainStats(
      { doms, stats, flags: noWait },
      { deadlineMs: noDeadlineMs },
    )
    try {
      return await this.#inTime(asking)
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error
      owed(true)
      this.#hang(line, asking, () => owed(false))
      throw new Unanswered(error.message, true)
    }
  }

  #hang(line: Line, asking: Promise<unknown>, ended: () => void): void {
    line.hanging += 1
    const end = () => {
      line.hanging -= 1
      ended()
      if (line.hanging > 0 || line === this.#lines.at(-1)) return
      line.connection.close()
      this.#lines = this.#lines.filter((other) => other !== line)
    }
    // However it ends, nobody waits for what it says any more.
    void asking.then(end, end)
  }

  async #line(): Promise<Line> {
    if (this.#closed) throw new Unanswered('nobody asks any more')
    const last = this.#lines.at(-1)
    if (last !== undefined && last.hanging < hangingPerConnection) return last
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null
    })
    return await this.#opening
  }

  async #open(): Promise<Line> {
    const { connect, hint } = this.#options
    const connection = await connect()
    try {
      for (const event of events)
        await connection.connectDomainEventRegisterAny(event, ({ dom, event: kind = -1, detail = -1 }) =>
          hint(event === 'lifecycle' ? { event, dom, kind, detail } : { event, dom }),
        )
      if (this.#closed) throw new Unanswered('nobody asks any more')
    } catch (error) {
      connection.close()
      throw error
    }
    // What happened before, or while there was no connection, nobody has told.
    connection.on('readAgain', () => hint('all'))
    hint('all')
    const line = { connection, hanging: 0 }
    this.#lines.push(line)
    return line
  }

  async #inTime<T>(work: Promise<T>): Promise<T> {
    const { clock, deadlineMs } = this.#options
    const settled = new AbortController()
    const late = clock.sleep(deadlineMs, settled.signal).then(() => {
      throw new Unanswered(`no answer within ${deadlineMs} ms`)
    })
    try {
      return await Promise.race([work, late])
    } finally {
      settled.abort()
    }
  }
}
