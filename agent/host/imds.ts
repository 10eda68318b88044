// Speaks to the instance metadata service of EC2 (IMDSv2, plain HTTP at a link-local address), which tells an instance of itself.
//
// INVARIANTS
// - What answers is not trusted: head and body are limited, every value must look like what it is, no redirect is followed.
// - A host that is no EC2 instance is told so after one short try, and not asked again for a while.

import { readFile } from 'node:fs/promises'
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type {
  InstanceEvents,
  InstanceFacts,
  MaintenanceEvent,
  MetadataInterface,
} from '../../provisioning/instance.ts'
import { HostError } from '../../provisioning/problem.ts'
import { errnoOf } from './files.ts'

/** How the metadata are asked; all of it has a default. */
export interface ImdsOptions {
  /** Where they are; the first one that can be reached at all. */
  readonly endpoints?: readonly string[]
  /** Whether this is an EC2 instance as its firmware says, so that silence is a fault and not an answer. */
  readonly isInstance?: () => Promise<boolean>
  /** Epoch milliseconds. */
  readonly clock?: () => number
  /** One request may take so long. */
  readonly requestMs?: number
  /** Everything that one question needs may take so long, pauses included. */
  readonly deadlineMs?: number
  /** The first pause before another try; it doubles. */
  readonly pauseMs?: number
}

const tokenSeconds = 21_600
const mostBodyBytes = 64 * 2 ** 10
const mostHeadBytes = 8 * 2 ** 10
/** So long a connection is kept that nothing is asked on; the watcher for events comes back after five seconds. */
const keptMs = 15_000
const mostTries = 4
const mostInterfaces = 64
const mostEvents = 100
/** So long an answer about something that changes is good. */
const changingMs = 5000
/** After a failure nobody is asked for so long; it doubles with each further one. */
const leastRestMs = 2000
const mostRestMs = 60_000

/** What the firmware of every EC2 instance with Nitro says, metal too. */
const vendorPath = '/sys/class/dmi/id/sys_vendor'

async function firmwareSaysInstance(): Promise<boolean> {
  try {
    return (await readFile(vendorPath, 'utf8')).trim() === 'Amazon EC2'
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    // Firmware that tells nothing (a container, another architecture) does not say that it is one.
    return false
  }
}

function endpointsOf(env: NodeJS.ProcessEnv): readonly string[] {
  const given = env.AWS_EC2_METADATA_SERVICE_ENDPOINT
  return given === undefined ? ['http://169.254.169.254', 'http://[fd00:ec2::254]'] : [given]
}

/** Nobody answers at all. */
class Silent extends Error {}

/** It may be otherwise in a moment. */
class Busy extends Error {}

interface Reply {
  readonly code: number
  readonly body: string
}

const unexpected = (message: string, cause?: unknown): HostError =>
  new HostError('imds.unexpected-answer', `instance metadata: ${message}`, { cause })

/** The body of an answer. Throws `imds.unexpected-answer` when it is too long. */
async function bodyOf(response: IncomingMessage, path: string): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length
    if (bytes > mostBodyBytes) throw unexpected(`${path} is longer than ${mostBodyBytes} bytes`)
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** What is wrong with a request that has failed. */
function failureOf(error: unknown, path: string): Error {
  if (error instanceof HostError || !(error instanceof Error)) return error as Error
  const code = 'code' in error ? String(error.code) : ''
  if (code.startsWith('HPE_')) return unexpected(`${path} is answered with no HTTP (${code})`, error)
  if (code === 'ECONNRESET') return new Busy(`${path} was cut off`)
  return errnoOf(error) === undefined ? error : new Silent(code)
}

async function exchange(
  url: URL,
  options: RequestOptions & { readonly agent: Agent },
  ms: number,
): Promise<Reply> {
  const signal = AbortSignal.timeout(ms)
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const asked = request(url, { maxHeaderSize: mostHeadBytes, signal, ...options }, resolve)
  asked.on('error', reject)
  asked.end()
  try {
    const response = await promise
    try {
      return { code: response.statusCode ?? 0, body: await bodyOf(response, url.pathname) }
    } finally {
      response.destroy()
    }
  } catch (error) {
    if (signal.aborted && !(error instanceof HostError)) throw new Silent(`no answer within ${ms} ms`)
    throw failureOf(error, url.pathname)
  }
}

const patterns = {
  instanceId: /^i-[0-9a-f]{8,17}$/,
  region: /^[a-z]{2,6}(-[a-z]{2,12}){1,3}-\d{1,2}$/,
  zone: /^[a-z0-9-]{3,64}$/,
  partition: /^aws(-[a-z]{2,8}){0,3}$/,
  outpostArn: /^arn:[a-z-]{3,20}:outposts:[a-z0-9-]{3,32}:\d{12}:outpost\/op-[0-9a-f]{8,17}$/,
  mac: /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i,
  deviceNumber: /^\d{1,3}$/,
  interfaceId: /^eni-[0-9a-f]{8,17}$/,
  subnetId: /^subnet-[0-9a-f]{8,17}$/,
  lifecycle: /^[A-Za-z:]{1,40}$/,
} as const

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

/** `21 Jan 2019 09:00:43 GMT` (the day is not padded) or ISO 8601, as epoch milliseconds; null when it is neither. */
export function parseMoment(text: unknown): number | null {
  if (typeof text !== 'string') return null
  const [, day, month = '', year, hour, minute, second] =
    /^(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) (?:GMT|UTC)$/.exec(text) ?? []
  if (day !== undefined) {
    const at = months.indexOf(month)
    const ms = Date.UTC(Number(year), at, Number(day), Number(hour), Number(minute), Number(second))
    // What does not come back as it went in was no date (31 Feb).
    return at === -1 || new Date(ms).getUTCDate() !== Number(day) ? null : ms
  }
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/.test(text)) return null
  const ms = Date.parse(text)
  return Number.isNaN(ms) ? null : ms
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw unexpected(`${path} is no JSON`, cause)
  }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const mostWordChars = 500

/** A text of somebody else, cut to what is shown. */
const word = (value: unknown): string => (typeof value === 'string' ? value.slice(0, mostWordChars) : '')

function maintenanceEvent(value: unknown): MaintenanceEvent {
  if (!isObject(value)) throw unexpected('a scheduled event is no object')
  const description = word(value.Description)
  return {
    id: word(value.EventId),
    code: word(value.Code),
    // The history says the same in its own way: `[Canceled] …`, `[Completed] …`.
    active: value.State === 'active' && !/^\[(Canceled|Completed)\]/i.test(description),
    description,
    notBeforeMs: parseMoment(value.NotBefore),
    notAfterMs: parseMoment(value.NotAfter),
  }
}

/** The metadata of this instance. One of these is enough for a process. */
export class Imds {
  readonly #endpoints: readonly string[]
  readonly #isInstance: () => Promise<boolean>
  readonly #clock: () => number
  readonly #requestMs: number
  readonly #deadlineMs: number
  readonly #pauseMs: number
  /** Its own, and so never through a proxy: that would answer for itself. */
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 1, timeout: keptMs })
  /** Where the metadata have answered. */
  #endpoint: string | null = null
  #token: { readonly text: string; readonly untilMs: number } | null = null
  #asked: { readonly facts: Promise<InstanceFacts | null>; readonly atMs: number } | null = null
  #fixed: Omit<InstanceFacts, 'interfaces'> | null = null
  #rest: { readonly untilMs: number; readonly ms: number; readonly problem: HostError | null } | null = null

  constructor(options: ImdsOptions = {}) {
    this.#endpoints = options.endpoints ?? endpointsOf(process.env)
    this.#isInstance = options.isInstance ?? firmwareSaysInstance
    this.#clock = options.clock ?? Date.now
    this.#requestMs = options.requestMs ?? 1000
    this.#deadlineMs = options.deadlineMs ?? 5000
    this.#pauseMs = options.pauseMs ?? 100
  }

  /**
   * What the metadata tell of the instance, at most five seconds old; null on a host that is none. What never changes is asked
   * once. Throws `imds.unreachable`, `imds.refused`, `imds.unexpected-answer`.
   */
  instance(): Promise<InstanceFacts | null> {
    const nowMs = this.#clock()
    if (this.#asked !== null && nowMs - this.#asked.atMs < changingMs) return this.#asked.facts
    const facts = this.#ask((untilMs) => this.#instance(untilMs))
    this.#asked = { facts, atMs: nowMs }
    // The next one who asks tries again.
    facts.catch(() => {
      this.#asked = null
    })
    return facts
  }

  /** What AWS announces for the instance; null on a host that is none. Throws as `instance` does. */
  events(): Promise<InstanceEvents | null> {
    return this.#ask((untilMs) => this.#events(untilMs))
  }

  /** Null where there are no metadata. */
  async #ask<T>(question: (untilMs: number) => Promise<T>): Promise<T | null> {
    const nowMs = this.#clock()
    if (this.#rest !== null && nowMs < this.#rest.untilMs) {
      if (this.#rest.problem === null) return null
      throw this.#rest.problem
    }
    try {
      const answer = await question(nowMs + this.#deadlineMs)
      this.#rest = null
      return answer
    } catch (error) {
      const problem = await this.#problem(error)
      const ms = problem === null ? mostRestMs : Math.min((this.#rest?.ms ?? leastRestMs / 2) * 2, mostRestMs)
      this.#rest = { ms, problem, untilMs: this.#clock() + ms }
      if (problem === null) return null
      throw problem
    }
  }

  /** What an error means; null: there are no metadata, for this is no instance. */
  async #problem(error: unknown): Promise<HostError | null> {
    const isElsewhere = this.#token === null && !(await this.#isInstance())
    // Other clouds have something at this address too, and it gives no such token.
    if (isElsewhere && (error instanceof Silent || error instanceof Busy || error instanceof HostError))
      return null
    if (error instanceof HostError) return error
    if (!(error instanceof Silent || error instanceof Busy)) throw error
    return new HostError('imds.unreachable', `instance metadata: ${error.message}`, { cause: error })
  }

  async #freshToken(untilMs: number): Promise<string> {
    if (this.#token !== null && this.#clock() < this.#token.untilMs) return this.#token.text
    const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': String(tokenSeconds) }
    const { code, body } = await this.#request('PUT', '/latest/api/token', headers, untilMs)
    if (code === 403)
      throw new HostError('imds.refused', 'instance metadata: a token is refused (403)', {
        details: { code },
      })
    if (code !== 200) throw unexpected(`a token is answered with ${code}`)
    if (!/^[\x21-\x7e]{1,1024}$/.test(body)) throw unexpected('the token is none')
    this.#token = { text: body, untilMs: this.#clock() + tokenSeconds * 900 }
    return body
  }

  /** One request, again after a pause where that may help. */
  async #request(
    method: string,
    path: string,
    headers: Record<string, string>,
    untilMs: number,
  ): Promise<Reply> {
    for (let tries = 1; ; tries += 1) {
      try {
        const reply = await this.#reach(method, path, headers, untilMs)
        if (reply.code !== 429 && reply.code < 500) return reply
        throw new Busy(`${path} is answered with ${reply.code}`)
      } catch (error) {
        if (!(error instanceof Busy || error instanceof Silent)) throw error
        const pauseMs = this.#pauseMs * 2 ** (tries - 1)
        // What has never answered is not waited for: most likely there is nothing.
        if (this.#endpoint === null && error instanceof Silent && !(await this.#isInstance())) throw error
        if (tries === mostTries || this.#clock() + pauseMs >= untilMs) throw error
        await sleep(pauseMs)
      }
    }
  }

  async #reach(
    method: string,
    path: string,
    headers: Record<string, string>,
    untilMs: number,
  ): Promise<Reply> {
    const [first = '', ...others] = this.#endpoint === null ? this.#endpoints : [this.#endpoint]
    const at = async (endpoint: string): Promise<Reply> => {
      const leftMs = Math.max(1, Math.min(this.#requestMs, untilMs - this.#clock()))
      const reply = await exchange(new URL(path, endpoint), { method, headers, agent: this.#agent }, leftMs)
      this.#endpoint = endpoint
      return reply
    }
    try {
      return await at(first)
    } catch (error) {
      const [other] = others
      // Without any route to the one family, the other is tried.
      if (other === undefined || !(error instanceof Silent) || !/UNREACH/.test(error.message)) throw error
      return at(other)
    }
  }

  /** The text at a path below /latest/meta-data; null when it is absent. */
  async #text(path: string, untilMs: number): Promise<string | null> {
    const ask = async () => {
      const token = await this.#freshToken(untilMs)
      return this.#request('GET', `/latest/meta-data/${path}`, { 'x-aws-ec2-metadata-token': token }, untilMs)
    }
    let reply = await ask()
    if (reply.code === 401) {
      this.#token = null
      reply = await ask()
    }
    const { code, body } = reply
    if (code === 200) return body
    if (code === 404) return null
    if (code === 401 || code === 403)
      throw new HostError('imds.refused', `instance metadata: ${path} is refused (${code})`, {
        details: { code },
      })
    throw unexpected(`${path} is answered with ${code}`)
  }

  /** A value that must look as it should. */
  async #value(path: string, pattern: RegExp, untilMs: number): Promise<string | null> {
    const text = (await this.#text(path, untilMs))?.trim() ?? null
    if (text !== null && !pattern.test(text)) throw unexpected(`${path} is none`)
    return text
  }

  async #needed(path: string, pattern: RegExp, untilMs: number): Promise<string> {
    const text = await this.#value(path, pattern, untilMs)
    if (text === null) throw unexpected(`${path} is absent`)
    return text
  }

  async #instance(untilMs: number): Promise<InstanceFacts> {
    this.#fixed ??= {
      instanceId: await this.#needed('instance-id', patterns.instanceId, untilMs),
      region: await this.#needed('placement/region', patterns.region, untilMs),
      zone: await this.#needed('placement/availability-zone', patterns.zone, untilMs),
      partition: (await this.#value('services/partition', patterns.partition, untilMs)) ?? 'aws',
      outpostArn: await this.#value('outpost-arn', patterns.outpostArn, untilMs),
      mac: (await this.#needed('mac', patterns.mac, untilMs)).toLowerCase(),
    }
    const fixed = this.#fixed
    const list = (await this.#text('network/interfaces/macs/', untilMs)) ?? ''
    const macs = [...new Set(list.split(/\s+/).map((line) => line.replace(/\/$/, '').toLowerCase()))].filter(
      (mac) => mac !== '',
    )
    if (macs.length > mostInterfaces) throw unexpected(`there are ${macs.length} interfaces`)
    if (!macs.every((mac) => patterns.mac.test(mac))) throw unexpected('an interface has no MAC')
    const interfaces: MetadataInterface[] = []
    for (const mac of macs) interfaces.push(await this.#interface(mac, fixed.mac, untilMs))
    return { ...fixed, interfaces }
  }

  async #interface(mac: string, firstMac: string, untilMs: number): Promise<MetadataInterface> {
    const at = `network/interfaces/macs/${mac}`
    const number = await this.#value(`${at}/device-number`, patterns.deviceNumber, untilMs)
    return {
      mac,
      // Until it has spread, an interface that was just attached is said to be the first one.
      deviceNumber: number === null || (Number(number) === 0 && mac !== firstMac) ? null : Number(number),
      interfaceId: await this.#value(`${at}/interface-id`, patterns.interfaceId, untilMs),
      subnetId: await this.#value(`${at}/subnet-id`, patterns.subnetId, untilMs),
    }
  }

  async #json(path: string, untilMs: number): Promise<unknown> {
    const text = await this.#text(path, untilMs)
    return text === null ? null : parseJson(text, path)
  }

  async #events(untilMs: number): Promise<InstanceEvents> {
    const spot = await this.#json('spot/instance-action', untilMs)
    const rebalance = await this.#json('events/recommendations/rebalance', untilMs)
    const scheduled = (await this.#json('events/maintenance/scheduled', untilMs)) ?? []
    const lifecycle = await this.#value('autoscaling/target-lifecycle-state', patterns.lifecycle, untilMs)
    if (!Array.isArray(scheduled) || scheduled.length > mostEvents)
      throw unexpected('the scheduled events are no list')
    if ((spot !== null && !isObject(spot)) || (rebalance !== null && !isObject(rebalance)))
      throw unexpected('an event is no object')
    return {
      spot: spot && { action: word(spot.action), atMs: parseMoment(spot.time) },
      rebalance: rebalance && { noticedMs: parseMoment(rebalance.noticeTime) },
      maintenance: scheduled.map(maintenanceEvent),
      lifecycle,
    }
  }
}
