// The events that a caller has asked for: who is called for which message, and how they are asked for again on another connection.

import { LibvirtError } from './errors.ts'
import type { EventShape } from './events.ts'
import type { Frame } from './frame.ts'
import type { CallOptions, Rpc } from './rpc.ts'
import { int, XdrError, XdrReader } from './xdr.ts'

/** How events are asked for: `register` answers the number that their messages will bear. */
export interface Asking {
  /** What they are about and which they are, as `domain lifecycle`. */
  readonly name: string
  readonly program: number
  readonly shape: EventShape<unknown>
  readonly register: (rpc: Rpc, options: CallOptions) => Promise<number>
  readonly deregister: (rpc: Rpc, callbackID: number, options: CallOptions) => Promise<unknown>
}

interface Entry {
  readonly asking: Asking
  readonly listener: (event: unknown) => void
  key: string
  callbackID: number
}

const keyOf = (program: number, procedure: number, callbackID: number) =>
  `${program}.${procedure}.${callbackID}`

/** The subscriptions of one caller. */
export class Subscriptions {
  readonly #entries = new Set<Entry>()
  readonly #byKey = new Map<string, Entry>()

  /** Asks for events; answers what ends them: it asks for them no more where there is a connection. */
  async add(
    rpc: Rpc,
    asking: Asking,
    listener: (event: unknown) => void,
    options: CallOptions,
  ): Promise<(rpc: Rpc | null, options: CallOptions) => Promise<void>> {
    const entry: Entry = { asking, listener, key: '', callbackID: -1 }
    this.#entries.add(entry)
    try {
      await this.#ask(rpc, entry, options)
    } catch (error) {
      this.#entries.delete(entry)
      throw error
    }
    return async (current, deregisterOptions) => {
      if (!this.#entries.delete(entry)) return
      this.#byKey.delete(entry.key)
      if (current !== null) await asking.deregister(current, entry.callbackID, deregisterOptions)
    }
  }

  /** Asks for all of them on a new connection. Those that libvirt refuses are dropped and told to `onRefused`. */
  async restore(rpc: Rpc, onRefused: (name: string, error: LibvirtError) => void): Promise<void> {
    this.#byKey.clear()
    for (const entry of [...this.#entries]) {
      try {
        await this.#ask(rpc, entry, {})
      } catch (error) {
        if (!(error instanceof LibvirtError)) throw error
        this.#entries.delete(entry)
        onRefused(entry.asking.name, error)
      }
    }
  }

  /**
   * Calls the listener for whom a message is. One for nobody is passed over: it was sent before libvirt knew that it is
   * not wanted, or before its listener knew its number, who reads after that anyhow. Throws an XdrError when it cannot be read.
   */
  dispatch({ program, procedure, payload }: Frame): void {
    const reader = new XdrReader(payload)
    const entry = this.#byKey.get(keyOf(program, procedure, int.decode(reader)))
    if (entry === undefined) return
    const event = entry.asking.shape.body.decode(reader)
    if (reader.left > 0) throw new XdrError(`${reader.left} bytes after the end of an event`)
    try {
      entry.listener(event)
    } catch (error) {
      // A fault of the listener is its own, and not of the connection that others use too.
      queueMicrotask(() => {
        throw error
      })
    }
  }

  async #ask(rpc: Rpc, entry: Entry, options: CallOptions): Promise<void> {
    const { program, shape, register } = entry.asking
    entry.callbackID = await register(rpc, options)
    entry.key = keyOf(program, shape.procedure, entry.callbackID)
    if (this.#entries.has(entry)) this.#byKey.set(entry.key, entry)
  }
}
