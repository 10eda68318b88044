// The root side of the doors: HTTP/1.1 with JSON on unix sockets (RFC 9112), streams as NDJSON. Each socket is one door.
//
// INVARIANTS
// - The door is known by the socket that a request came in on, never by anything that the request says.
// - A verb that streams is drained to its end even when its caller has left: only its signal tells it to end early.
// - The process leaves only when no connection is open, so that no caller is dropped between its connect and its request, and when
//   no job is under way.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { HostError, type ProblemCode, problemOf } from '../../provisioning/problem.ts'
import { checkedArgs, doorNeeded, unknownVerb, verbAt } from './arguments.ts'
import type { AnswerModule, Context, SessionModule, StreamModule } from './context.ts'
import { isJob, jobLines } from './job-lines.ts'
import type { BegunJob } from './jobs.ts'
import { carrySession, refuseSession, sessionArgs, wantSession } from './session.ts'
import { safeJson } from './terminal.ts'
import { type Args, DOORS, type Door, type VerbName, verbOf } from './verbs.ts'

/** A socket to listen on: one that systemd passed, or a path to make. `only`: nothing but this verb is asked there. */
export type Doorway = { readonly door: Exclude<Door, 'local'>; readonly only?: VerbName } & (
  | { readonly fd: number }
  | { readonly path: string }
)

type ServableModule<C> =
  | AnswerModule<VerbName, unknown, C>
  | StreamModule<VerbName, unknown, C>
  | SessionModule<VerbName, C>

/**
 * What the server works with. `idleMs`: it leaves when no connection has been open for so long; null: never. `C` is what its
 * verbs work with.
 */
export interface Serving<C = Context> {
  readonly doorways: readonly Doorway[]
  readonly contextFor: (who: string, signal: AbortSignal) => C
  readonly load: (verb: VerbName) => Promise<ServableModule<C> | null>
  /** Has another host of the fleet answer, and gives on what it says; only the daemon can. */
  readonly relay?: (
    asked: {
      readonly host: string
      readonly path: string
      readonly args: unknown
      readonly caller: string
    },
    response: ServerResponse,
  ) => Promise<void>
  /** What a GET of a path is answered with, for programs that ask no verbs. */
  readonly pages?: Readonly<Record<string, () => Promise<{ readonly type: string; readonly text: string }>>>
  readonly log: Pick<Logger, 'info' | 'error'>
  readonly idleMs: number | null
}

/** A running server. `stop` lets every verb end as soon as it soundly can; `left` resolves when all is closed. */
export interface Served {
  readonly left: Promise<void>
  stop(): void
}

const mostBodyBytes = 64 * 2 ** 10
const mostUnsentBytes = 2 ** 20
const whoAt = { read: 'read.sock', operate: 'operate.sock', admin: 'admin.sock (root)' } as const

const httpStatus: Partial<Record<ProblemCode, number>> = {
  'request.invalid': 400,
  'door.refused': 403,
  'request.unknown-verb': 404,
  'request.too-large': 413,
  'apply.locked': 409,
  'desired.missing': 409,
  'desired.invalid': 409,
  'fleet.none': 409,
  'fleet.unknown-host': 404,
  'fleet.unreachable': 502,
}

/** The schema of a problem, as a whole answer or as the last line of a stream. */
export const problemSchema = 'garrison/problem/1'

/** Who asks: the door that they came through, and, marked as their own words, who they say they are. */
function whoOf({ door, only }: Doorway, request: IncomingMessage): string {
  const says = request.headers['garrison-caller']
  const known = typeof says === 'string' && /^[\x20-\x7e]{1,128}$/.test(says)
  const at = only === undefined ? whoAt[door] : `${only}.sock (the daemon)`
  return known ? `${at}, says ${says}` : at
}

async function bodyOf(request: IncomingMessage, verb: string): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > mostBodyBytes)
      throw new HostError('request.too-large', `the request is larger than ${mostBodyBytes} bytes`)
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString('utf8')
  if (text.trim() === '') return {}
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new HostError(
      'request.invalid',
      `the request to ${verb} is not JSON: ${(cause as Error).message}`,
      {
        details: { verb },
        cause,
      },
    )
  }
}

function answer(response: ServerResponse, status: number, value: unknown, exit?: number): void {
  const body = `${safeJson(value)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(exit !== undefined && { 'garrison-exit': exit }),
  })
  response.end(body)
}

async function stream(
  response: ServerResponse,
  lines: AsyncIterable<unknown>,
  schema: string,
): Promise<void> {
  const send = async (line: object) => {
    if (response.destroyed) return
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    response.write(`${safeJson(line)}\n`)
    if (response.writableLength > mostUnsentBytes)
      await Promise.race([once(response, 'drain'), once(response, 'close')])
  }
  try {
    for await (const line of lines) await send({ schema, ...(line as object) })
  } catch (error) {
    if (!response.headersSent) throw error
    await send({ schema: problemSchema, ...problemOf(error) })
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  response.end()
}

/** Waits until the answer is with the kernel, the caller is gone, or a caller that reads nothing has had its second. */
async function sent(response: ServerResponse): Promise<void> {
  if (response.writableFinished || response.destroyed) return
  const enough = new AbortController()
  const { signal } = enough
  await Promise.race([
    once(response, 'close', { signal }),
    once(response, 'finish', { signal }),
    delay(1000, undefined, { signal }),
  ]).finally(() => enough.abort())
}

const notSo = (verb: VerbName, message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

const notServed = (by: string): HostError =>
  new HostError('door.refused', `${by} runs in the client, never on the root side`)

/** Starts to listen on every doorway. Rejects when one cannot be listened on. */
export async function serve<C = Context>({
  doorways,
  contextFor,
  load,
  relay,
  pages = {},
  log,
  idleMs,
}: Serving<C>): Promise<Served> {
  const left = Promise.withResolvers<void>()
  const ending = new AbortController()
  const servers: Server[] = []
  let connections = 0
  let requests = 0
  let idle: NodeJS.Timeout | undefined

  const leave = () => {
    clearTimeout(idle)
    for (const server of servers) server.close()
    maybeLeft()
  }
  const maybeLeft = () => {
    if (ending.signal.aborted && requests === 0) {
      for (const server of servers) server.closeAllConnections()
      left.resolve()
    }
  }
  const stop = () => {
    ending.abort()
    leave()
  }
  const watchIdle = () => {
    clearTimeout(idle)
    if (idleMs === null || connections > 0 || requests > 0 || ending.signal.aborted) return
    idle = setTimeout(stop, idleMs)
  }
  /** Stays for a job as for a request; a process that must go interrupts it. */
  const stayFor = (job: BegunJob) => {
    requests += 1
    const interrupt = () => job.stop('interrupted')
    ending.signal.addEventListener('abort', interrupt)
    if (ending.signal.aborted) interrupt()
    void job.ended
      .catch((error: unknown) =>
        log.error({ err: error, job: job.id }, 'what became of a job is not written'),
      )
      .finally(() => {
        ending.signal.removeEventListener('abort', interrupt)
        requests -= 1
        watchIdle()
        maybeLeft()
      })
  }

  /** Throws `door.refused` unless a verb may be asked for at this door. */
  function wantDoor<N extends VerbName>({ door, only }: Doorway, name: N, args: Args<N>): void {
    if (only !== undefined && name !== only)
      throw new HostError('door.refused', `${only}.sock is for ${only} alone, and not for ${name}`)
    const needed = doorNeeded(name, args)
    if (needed.door === 'local') throw notServed(needed.by)
    if (DOORS.indexOf(door) < DOORS.indexOf(needed.door))
      throw new HostError(
        'door.refused',
        `${needed.by} needs ${needed.door}.sock; this came in on ${door}.sock`,
      )
  }

  /** The module of a verb that may be asked for at this door. Throws `door.refused`. */
  async function admitted<N extends VerbName>(doorway: Doorway, name: N, args: Args<N>) {
    const module = await load(name)
    if (module === null) throw notServed(name)
    wantDoor(doorway, name, args)
    return module
  }

  async function openSession(
    doorway: Doorway,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ): Promise<void> {
    requests += 1
    const startedMs = performance.now()
    let code = 'ok'
    const gone = new AbortController()
    socket.once('close', () => gone.abort())
    socket.on('error', () => socket.destroy())
    const who = whoOf(doorway, request)
    try {
      wantSession(request)
      const [pathname = '/'] = request.url?.split('?') ?? []
      const name = verbAt(pathname)
      if (name === null) throw unknownVerb(pathname)
      const args = checkedArgs(name, sessionArgs(request.url ?? ''))
      const module = await admitted(doorway, name, args)
      if (!verbOf(name).session) throw notSo(name, `${name} is no session: it is asked for by POST`)
      const signal = AbortSignal.any([gone.signal, ending.signal])
      const far = await (module as SessionModule<VerbName, C>).open(contextFor(who, signal), args)
      await carrySession(socket, head, far, signal)
    } catch (error) {
      const problem = problemOf(error)
      code = problem.code
      if (code === 'agent.defect') log.error({ err: error, url: request.url, door: doorway.door }, 'defect')
      refuseSession(
        socket,
        httpStatus[problem.code] ?? 500,
        `${safeJson({ schema: problemSchema, ...problem })}\n`,
      )
    } finally {
      requests -= 1
      const ms = Math.round(performance.now() - startedMs)
      log.info({ door: doorway.door, who, url: request.url, code, ms }, 'session ended')
      watchIdle()
      maybeLeft()
    }
  }

  /** Only verbs of the root side are jobs, so that what they work with is its context. */
  function jobOf<N extends VerbName>(
    name: N,
    args: Args<N>,
    module: ServableModule<C>,
    context: C,
    who: string,
  ) {
    const { run, exitOf } = module as unknown as StreamModule<N, object>
    return jobLines({
      ...{ name, args, module: { run, exitOf }, begun: stayFor },
      context: context as Context,
      contextFor: (signal) => contextFor(who, signal) as Context,
    })
  }

  async function respond(doorway: Doorway, request: IncomingMessage, response: ServerResponse) {
    const [pathname = '/'] = request.url?.split('?') ?? []
    const page = Object.hasOwn(pages, pathname) ? pages[pathname] : undefined
    if (request.method === 'GET' && page !== undefined) {
      const { type, text } = await page()
      response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
      response.end(text)
      return
    }
    if (request.method !== 'POST')
      throw new HostError('request.invalid', `${request.method} ${pathname}: every verb is a POST`, {
        details: { verb: '' },
      })
    const name = verbAt(pathname)
    if (name === null) throw unknownVerb(pathname)
    const args = checkedArgs(name, await bodyOf(request, name))
    if (verbOf(name).session) throw notSo(name, `${name} is a session: it is asked for by an HTTP upgrade`)
    const host = request.headers['garrison-host']
    if (typeof host === 'string') {
      if (relay === undefined) throw notSo(name, 'another host is asked through the daemon')
      wantDoor(doorway, name, args)
      const says = request.headers['garrison-caller']
      const caller = typeof says === 'string' ? says : ''
      await relay({ host, path: pathname, args, caller }, response)
      return
    }
    const module = await admitted(doorway, name, args)
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    const who = whoOf(doorway, request)
    const context = contextFor(who, AbortSignal.any([gone.signal, ending.signal]))
    const { schema, streams } = verbOf(name)
    if (streams) {
      const { run } = module as StreamModule<VerbName, object, C>
      const lines = isJob(name, args) ? jobOf(name, args, module, context, who) : run(context, args)
      await stream(response, lines, schema)
    } else {
      const { run, exitOf } = module as AnswerModule<VerbName, unknown, C>
      const result = await run(context, args)
      answer(response, 200, { schema, ...(result as object) }, exitOf(result))
    }
  }

  const listen = async (doorway: Doorway) => {
    const server = createServer(
      {
        headersTimeout: 5000,
        requestTimeout: 10_000,
        connectionsCheckingInterval: 2500,
        keepAliveTimeout: 5000,
        maxHeaderSize: 8192,
      },
      async (request, response) => {
        requests += 1
        const startedMs = performance.now()
        let code = 'ok'
        try {
          await respond(doorway, request, response)
        } catch (error) {
          const problem = problemOf(error)
          code = problem.code
          if (code === 'agent.defect')
            log.error({ err: error, url: request.url, door: doorway.door }, 'defect')
          // What is left of the request is not read: the connection ends with the answer.
          response.setHeader('connection', 'close')
          answer(response, httpStatus[problem.code] ?? 500, { schema: problemSchema, ...problem })
        } finally {
          await sent(response)
          requests -= 1
          const ms = Math.round(performance.now() - startedMs)
          log.info(
            { door: doorway.door, who: whoOf(doorway, request), url: request.url, code, ms },
            'answered',
          )
          watchIdle()
          maybeLeft()
        }
      },
    )
    server.on('upgrade', (request, socket, head) => void openSession(doorway, request, socket, head))
    server.maxConnections = 64
    server.on('connection', (socket) => {
      connections += 1
      watchIdle()
      socket.once('close', () => {
        connections -= 1
        watchIdle()
      })
    })
    server.listen('fd' in doorway ? { fd: doorway.fd } : { path: doorway.path })
    await once(server, 'listening')
    servers.push(server)
  }
  for (const doorway of doorways) await listen(doorway)
  watchIdle()
  return { left: left.promise, stop }
}
