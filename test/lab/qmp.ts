// A client of QEMU's machine protocol (QMP): newline-separated JSON over a unix socket.
import { EventEmitter, once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { eachLine } from './processes.ts'

/** A JSON object of QMP. */
export type QmpObject = Record<string, unknown>

interface Pending {
  resolve: (answer: unknown) => void
  reject: (error: Error) => void
}

/** An open QMP session. Emits `event` with each event's name and content. */
export class Qmp extends EventEmitter<{ event: [name: string, content: QmpObject] }> {
  #socket: Socket
  #pending = new Map<number, Pending>()
  #next = 1

  private constructor(socket: Socket) {
    super()
    this.#socket = socket
    eachLine(socket, (line) => this.#receive(JSON.parse(line) as QmpObject))
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('QEMU closed its QMP socket')))
  }

  /** Connects and leaves negotiation mode. */
  static async connect(path: string): Promise<Qmp> {
    const socket = createConnection(path)
    await once(socket, 'connect')
    const session = new Qmp(socket)
    await session.ask('qmp_capabilities')
    return session
  }

  /** Runs a command and gives its `return`; QMP's own error text becomes the message. */
  ask(command: string, content: QmpObject = {}): Promise<unknown> {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {
        resolve,
        reject: (error) => reject(new Error(`QMP ${command}: ${error.message}`, { cause: error })),
      })
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: content, id })}\n`)
    })
  }

  /** Resolves with the first event of that name that `matches`; listen before causing it. Rejects after the deadline. */
  waitFor(name: string, matches: (content: QmpObject) => boolean, deadlineMs: number): Promise<QmpObject> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.off('event', look)
        reject(new Error(`QEMU sent no matching ${name} within ${deadlineMs} ms`))
      }, deadlineMs)
      const look = (seen: string, content: QmpObject) => {
        if (seen !== name || !matches(content)) return
        clearTimeout(timer)
        this.off('event', look)
        resolve(content)
      }
      this.on('event', look)
    })
  }

  /** Runs one of QEMU's background jobs to its end; throws the job's own error. */
  async job(command: string, content: QmpObject, deadlineMs: number): Promise<void> {
    const id = `job-${this.#next++}`
    const concluded = this.waitFor(
      'JOB_STATUS_CHANGE',
      (change) => change.id === id && change.status === 'concluded',
      deadlineMs,
    )
    await Promise.all([concluded, this.ask(command, { 'job-id': id, ...content })])
    const jobs = (await this.ask('query-jobs')) as Array<{ id: string; error?: string }>
    await this.ask('job-dismiss', { id })
    const error = jobs.find((job) => job.id === id)?.error
    if (error !== undefined) throw new Error(`QMP ${command}: ${error}`)
  }

  /** Closes the session; QEMU keeps running. */
  close(): void {
    this.#socket.destroy()
  }

  #receive(message: QmpObject): void {
    if (typeof message.event === 'string') {
      this.emit('event', message.event, (message.data ?? {}) as QmpObject)
      return
    }
    const pending = this.#pending.get(message.id as number)
    if (!pending) return
    this.#pending.delete(message.id as number)
    const error = message.error as { desc: string } | undefined
    if (error) pending.reject(new Error(error.desc))
    else pending.resolve(message.return)
  }

  #fail(error: Error): void {
    for (const pending of this.#pending.values()) pending.reject(error)
    this.#pending.clear()
  }
}
