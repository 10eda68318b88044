// A layer in front of moto's CloudWatch that fails in every way that networks and AWS fail, and writes down what really arrived.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'

/** What a request meets. `…-after`: moto has taken it, and the answer is lost; `…-before`: it never came to moto. */
export type Fault =
  | 'unavailable'
  | 'throttled'
  | 'denied'
  | 'expired'
  | 'reset-before'
  | 'reset-after'
  | 'slow-before'
  | 'slow-after'
  | 'error-before'
  | 'error-after'

/** One statistic set as it arrived, or an event of a log. */
interface Arrived {
  readonly key: string
  readonly count: number
  readonly sum: number
}

/** The layer. */
export interface CloudWatchFront {
  readonly endpoint: string
  /** What moto took, by series and time (epoch milliseconds): how many values, their sum, and in how many requests. */
  readonly arrived: Map<string, { count: number; sum: number; requests: number }>
  /** Ids of log events that moto took, and how often. */
  readonly events: Map<string, number>
  /** Requests by operation, and how many met which fault. */
  readonly calls: Map<string, number>
  readonly faults: Map<string, number>
  /** Datapoints that arrived before an older one of their series that was not in doubt. */
  disorders: number
  /** Time that it tells, epoch milliseconds. */
  now: () => number
  /** What the next request of an operation meets. */
  fault: (operation: string) => Fault | null
  /** Requests whose signature was too old or of the future. */
  late: number
  /** Called when datapoints have come, and when moto has taken them and nobody is told yet; `series`: of the first of them. */
  onPut: (at: 'asked' | 'performed', series: string) => void
  /** Nobody listens any more, or somebody does again. */
  down(is: boolean): Promise<void>
  close(): Promise<void>
}

/** Signatures that are further off than this are not taken. */
const mostSkewMs = 300_000
const fortnightMs = 14 * 86_400_000

interface Datum {
  readonly MetricName: string
  readonly Dimensions: readonly { readonly Name: string; readonly Value: string }[]
  readonly Timestamp: number
  readonly StatisticValues: { readonly SampleCount: number; readonly Sum: number }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const signedMs = (text: unknown): number =>
  Date.parse(String(text).replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))

/** Starts it on loopback. Datapoints of a part whose name begins with `poison` are never taken. */
export async function startCloudWatchFront(moto: string, slowMs: number): Promise<CloudWatchFront> {
  const arrived: CloudWatchFront['arrived'] = new Map()
  const latest = new Map<string, number>()
  const inDoubt = new Set<string>()
  const count = (map: Map<string, number>, key: string) => map.set(key, (map.get(key) ?? 0) + 1)
  const server = createServer((request, response) => {
    // A client that was killed in the middle says nothing more.
    handle(request, response).catch(() => response.destroy())
  })
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  }
  await listen(0)
  const { port } = server.address() as AddressInfo

  const front: CloudWatchFront = {
    ...{ endpoint: `http://127.0.0.1:${port}`, arrived, disorders: 0, late: 0 },
    ...{ events: new Map(), calls: new Map(), faults: new Map() },
    now: Date.now,
    fault: () => null,
    onPut: () => undefined,
    async down(is) {
      if (is === !server.listening) return
      if (!is) return listen(port)
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
    async close() {
      if (!server.listening) return
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }

  function answer(response: ServerResponse, status: number, type: string, message: string): void {
    response.writeHead(status, {
      'content-type': 'application/x-amz-json-1.0',
      date: new Date(front.now()).toUTCString(),
      'x-amzn-requestid': '0-1',
    })
    response.end(JSON.stringify({ __type: `com.amazonaws#${type}`, message }))
  }

  const arrivals = (data: readonly Datum[]): readonly (Arrived & { series: string; atMs: number })[] =>
    data.map(({ MetricName, Dimensions, Timestamp, StatisticValues }) => {
      const part = Dimensions.slice(2).map(({ Value }) => Value)
      const series = [MetricName, ...part].join(' ')
      const { SampleCount, Sum } = StatisticValues
      const atMs = Math.round(Timestamp * 1000)
      return { series, atMs, key: `${series} ${atMs}`, count: SampleCount, sum: Sum }
    })

  function keep(data: readonly Datum[]): void {
    for (const { series, atMs, key, count: values, sum } of arrivals(data)) {
      const before = arrived.get(key) ?? { count: 0, sum: 0, requests: 0 }
      arrived.set(key, {
        count: before.count + values,
        sum: before.sum + sum,
        requests: before.requests + 1,
      })
      if (atMs < (latest.get(series) ?? 0) && !inDoubt.has(key)) front.disorders += 1
      latest.set(series, Math.max(latest.get(series) ?? 0, atMs))
    }
  }

  /** What is wrong with a request as it is, whatever else happens. */
  function objection(
    request: IncomingMessage,
    data: readonly Datum[],
  ): readonly [number, string, string] | null {
    if (Math.abs(signedMs(request.headers['x-amz-date']) - front.now()) > mostSkewMs)
      return [403, 'InvalidSignatureException', 'Signature expired']
    const tooMany = data.length > 1000
    if (tooMany) return [413, 'RequestEntityTooLarge', 'too many']
    const isBad = ({ Timestamp, Dimensions }: Datum) =>
      Timestamp * 1000 < front.now() - fortnightMs ||
      Timestamp * 1000 > front.now() + 7_200_000 ||
      Dimensions.some(({ Value }) => Value.startsWith('poison'))
    return data.some(isBad)
      ? [400, 'InvalidParameterValueException', 'The value of a datum is invalid']
      : null
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const raw = await bodyOf(request)
    const operation = String(request.headers['x-amz-target']).replace(/^.*\./, '')
    count(front.calls, operation)
    const text = (request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw).toString('utf8')
    const asked = JSON.parse(text) as {
      readonly MetricData?: readonly Datum[]
      readonly logEvents?: readonly { readonly message: string }[]
    }
    const data = asked.MetricData ?? []
    const [first] = data
    const series = first?.MetricName ?? ''
    if (data.length > 0) front.onPut('asked', series)
    const wrong = objection(request, data)
    if (wrong?.[1] === 'InvalidSignatureException') front.late += 1
    if (wrong !== null) return answer(response, ...wrong)
    const fault = front.fault(operation)
    if (fault !== null) count(front.faults, fault)
    if (fault === 'unavailable') return answer(response, 503, 'ServiceUnavailableException', 'not now')
    if (fault === 'throttled') return answer(response, 400, 'ThrottlingException', 'Rate exceeded')
    if (fault === 'denied') return answer(response, 403, 'AccessDeniedException', 'not authorized')
    if (fault === 'expired') return answer(response, 403, 'ExpiredTokenException', 'the token has expired')
    if (fault?.endsWith('-before')) for (const { key } of arrivals(data)) inDoubt.add(key)
    else {
      const { host: _, 'content-length': __, ...headers } = request.headers
      const forwarded = await fetch(moto, {
        method: 'POST',
        headers: { ...(headers as Record<string, string>), connection: 'close' },
        body: new Uint8Array(raw),
      })
      const said = await forwarded.text()
      if (forwarded.ok) {
        keep(data)
        for (const { message } of asked.logEvents ?? []) count(front.events, JSON.parse(message).id)
      }
      if (data.length > 0) front.onPut('performed', series)
      if (fault === null) {
        response.writeHead(forwarded.status, {
          'content-type': forwarded.headers.get('content-type') ?? '',
          date: new Date(front.now()).toUTCString(),
        })
        response.end(said)
        return
      }
    }
    if (fault?.startsWith('error')) return answer(response, 500, 'InternalServiceFault', 'something broke')
    if (fault?.startsWith('slow')) await new Promise((resolve) => setTimeout(resolve, slowMs))
    request.socket.destroy()
  }
  return front
}
