// A thin layer in front of moto's EC2 API: what moto lacks of local network interfaces, and every failure that a test wants.
// What it adds, with the API reference of each addition, is listed in docs/development/ec2.md.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Policy } from '../../provisioning/iam.ts'
import { judgedOf, refusedBy } from './iam-judge.ts'

/** What a call is answered with instead. `performed`: moto has done it, and the answer is lost. */
export type Failure =
  | 'throttled'
  | 'server-error'
  | 'denied'
  | 'expired'
  | 'signature'
  | 'silence'
  | 'reset'
  | 'torn'
  | 'page'
  | 'performed-torn'
  | 'performed-reset'

/** The layer. Actions are named as in the API: `AttachNetworkInterface`. */
export interface Ec2Front {
  readonly endpoint: string
  /** Every action asked for, in order. */
  readonly calls: string[]
  /** What the next calls of an action are answered with, in their order. */
  fail(action: string, ...failures: readonly Failure[]): void
  /** Called when a request has come, and when it was performed and is not answered yet. `call`: its place in `calls`, from 1. */
  onCall: (action: string, at: 'asked' | 'performed', call: number) => void | Promise<void>
  /** What those who ask may do; null: everything. */
  allowed: { readonly policy: Policy; readonly region: string } | null
  /** So many descriptions do not show an interface yet that was just made. */
  hidden: number
  setSubnet(id: string, more: { readonly outpostArn?: string; readonly lniDeviceIndex?: number }): void
  close(): Promise<void>
}

const errors: Partial<Record<Failure, readonly [status: number, code: string, message: string]>> = {
  throttled: [503, 'RequestLimitExceeded', 'Request limit exceeded.'],
  'server-error': [500, 'InternalError', 'An internal error has occurred'],
  denied: [
    403,
    'UnauthorizedOperation',
    'You are not authorized to perform this operation. Encoded authorization failure message: abcdef',
  ],
  expired: [400, 'RequestExpired', 'Request has expired.'],
  signature: [401, 'AuthFailure', 'AWS was not able to validate the provided access credentials'],
}

const xmlError = (code: string, message: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors><RequestID>0-1</RequestID></Response>`

const xmlDone = (action: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0-1</requestId><return>true</return></${action}Response>`

const textIn = (xml: string, name: string): string | null =>
  new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1] ?? null

/** The items of the outermost list, each with its own lists inside, and what is around them. */
function itemsOf(xml: string, list: string): { head: string; items: string[]; tail: string } {
  const open = xml.indexOf(`<${list}>`)
  if (open < 0) return { head: xml, items: [], tail: '' }
  const from = open + list.length + 2
  const items: string[] = []
  let depth = 0
  let start = from
  const tag = /<(\/?)item>|<\/?([\w]+)>/g
  tag.lastIndex = from
  for (let found = tag.exec(xml); found !== null; found = tag.exec(xml)) {
    if (found[2] === list && depth === 0)
      return { head: xml.slice(0, from), items, tail: xml.slice(found.index) }
    if (found[2] !== undefined) continue
    if (found[1] === '') {
      if (depth === 0) start = found.index
      depth += 1
    } else {
      depth -= 1
      if (depth === 0) items.push(xml.slice(start, tag.lastIndex))
    }
  }
  return { head: xml, items: [], tail: '' }
}

const deviceIndexFilter = 'attachment.device-index'

/** Takes a filter away from a request; what it asked for, or null. */
function takeFilter(form: URLSearchParams, name: string): string | null {
  const [key] = [...form].find(([one, value]) => /^Filter\.\d+\.Name$/.test(one) && value === name) ?? []
  if (key === undefined) return null
  const at = key.replace('.Name', '')
  const value = form.get(`${at}.Value.1`)
  // A filter that all interfaces fit stands in its place, for they are numbered.
  form.set(`${at}.Name`, 'network-interface-id')
  form.set(`${at}.Value.1`, '*')
  return value
}

/** Serves in front of moto until closed. */
export async function startEc2Front(moto: string): Promise<Ec2Front> {
  const failures = new Map<string, Failure[]>()
  const subnets = new Map<string, { outpostArn?: string; lniDeviceIndex?: number }>()
  const tokens = new Map<string, { readonly asked: string; readonly answer: string }>()
  const kept = new Set<string>()
  const young = new Map<string, number>()
  const sockets = new Set<Socket>()

  const forward = async (form: URLSearchParams, headers: IncomingMessage['headers']) => {
    const response = await fetch(moto, {
      method: 'POST',
      body: form.toString(),
      headers: {
        'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
        authorization: headers.authorization ?? '',
        'x-amz-date': String(headers['x-amz-date'] ?? ''),
      },
    })
    return { status: response.status, body: await response.text() }
  }
  type Answer = Awaited<ReturnType<typeof forward>>

  const subnetsShown = (body: string): string => {
    const { head, items, tail } = itemsOf(body, 'subnetSet')
    const shown = items.map((item) => {
      const { outpostArn, lniDeviceIndex } = subnets.get(textIn(item, 'subnetId') ?? '') ?? {}
      const more = [
        ...(outpostArn === undefined ? [] : [`<outpostArn>${outpostArn}</outpostArn>`]),
        `<enableLniAtDeviceIndex>${lniDeviceIndex ?? 0}</enableLniAtDeviceIndex>`,
      ]
      return item.replace(/<\/item>$/, `${more.join('')}</item>`)
    })
    return `${head}${shown.join('')}${tail}`
  }

  const interfacesShown = (body: string, deviceIndex: string | null): string => {
    const { head, items, tail } = itemsOf(body, 'networkInterfaceSet')
    const shown = items.flatMap((item) => {
      const id = textIn(item, 'networkInterfaceId') ?? ''
      const left = young.get(id) ?? 0
      if (left > 0) {
        young.set(id, left - 1)
        return []
      }
      if (deviceIndex !== null && textIn(item, 'deviceIndex') !== deviceIndex) return []
      return kept.has(textIn(item, 'attachmentId') ?? '')
        ? item.replace('<deleteOnTermination>false<', '<deleteOnTermination>true<')
        : item
    })
    return `${head}${shown.join('')}${tail}`
  }

  const describe = async (field: string, value: string, headers: IncomingMessage['headers']) => {
    const form = new URLSearchParams({
      Action: 'DescribeNetworkInterfaces',
      Version: '2016-11-15',
      'Filter.1.Name': field,
      'Filter.1.Value.1': value,
    })
    return itemsOf((await forward(form, headers)).body, 'networkInterfaceSet').items
  }

  /** Changes come one after the other, as they do in EC2: two that are the same at once are one. */
  let changed: Promise<unknown> = Promise.resolve()
  const inTurn = (form: URLSearchParams, headers: IncomingMessage['headers']): Promise<Answer> => {
    if (form.get('Action')?.startsWith('Describe')) return perform(form, headers)
    const turn = changed.then(() => perform(form, headers))
    changed = turn.catch(() => undefined)
    return turn
  }

  const refusal = async (form: URLSearchParams, headers: IncomingMessage['headers']) => {
    if (front.allowed === null) return null
    const { policy, region } = front.allowed
    const judged = await judgedOf(form, region, async (id) => {
      const [one = ''] = await describe('network-interface-id', id, headers)
      const tags = itemsOf(one, 'tagSet').items
      return {
        tags: Object.fromEntries(tags.map((tag) => [textIn(tag, 'key') ?? '', textIn(tag, 'value') ?? ''])),
        instanceId: textIn(one, 'instanceId') ?? '',
      }
    })
    const refused = refusedBy(policy, judged)
    if (refused === null) return null
    const message = `You are not authorized to perform this operation. User: someone is not authorized to perform: ${refused.action} on resource: ${refused.arn} because no identity-based policy allows the ${refused.action} action`
    return { status: 403, body: xmlError('UnauthorizedOperation', message) }
  }

  const perform = async (form: URLSearchParams, headers: IncomingMessage['headers']): Promise<Answer> => {
    const action = form.get('Action') ?? ''
    const done = { status: 200, body: xmlDone(action) }
    const refused = (code: string, message: string) => ({ status: 400, body: xmlError(code, message) })
    if (action === 'ModifySubnetAttribute' && form.has('EnableLniAtDeviceIndex')) {
      const id = form.get('SubnetId') ?? ''
      const known = subnets.get(id)
      if (known?.outpostArn === undefined)
        return refused('InvalidParameterCombination', `${id} is not in an Outpost server`)
      known.lniDeviceIndex = Number(form.get('EnableLniAtDeviceIndex'))
      return done
    }
    if (action === 'DescribeSubnets') {
      const answer = await forward(form, headers)
      return { ...answer, body: subnetsShown(answer.body) }
    }
    if (action === 'DescribeNetworkInterfaces') {
      const deviceIndex = takeFilter(form, deviceIndexFilter)
      const answer = await forward(form, headers)
      return { ...answer, body: interfacesShown(answer.body, deviceIndex) }
    }
    if (action === 'CreateNetworkInterface') {
      const token = form.get('ClientToken') ?? ''
      const asked = new URLSearchParams([...form].filter(([name]) => name !== 'ClientToken')).toString()
      const before = tokens.get(token)
      if (before !== undefined)
        return before.asked === asked
          ? { status: 200, body: before.answer }
          : refused('IdempotentParameterMismatch', 'The token was used with other parameters')
      const answer = await forward(form, headers)
      if (token !== '' && answer.status === 200) tokens.set(token, { asked, answer: answer.body })
      young.set(textIn(answer.body, 'networkInterfaceId') ?? '', front.hidden)
      return answer
    }
    if (action === 'AttachNetworkInterface') {
      const [id = '', instance = ''] = [form.get('NetworkInterfaceId') ?? '', form.get('InstanceId') ?? '']
      const [one = ''] = await describe('network-interface-id', id, headers)
      if (textIn(one, 'attachmentId') !== null)
        return refused('InvalidNetworkInterface.InUse', `Interface: [${id}] in use.`)
      const others = await describe('attachment.instance-id', instance, headers)
      if (others.some((other) => textIn(other, 'deviceIndex') === form.get('DeviceIndex')))
        return refused('InvalidParameterValue', `Instance '${instance}' already has an interface there.`)
      return forward(form, headers)
    }
    if (action === 'ModifyNetworkInterfaceAttribute' && form.has('Attachment.AttachmentId')) {
      kept.add(form.get('Attachment.AttachmentId') ?? '')
      return done
    }
    return forward(form, headers)
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const form = new URLSearchParams(Buffer.concat(chunks).toString('utf8'))
    const action = form.get('Action') ?? ''
    const call = front.calls.push(action)
    await front.onCall(action, 'asked', call)
    const failure = failures.get(action)?.shift() ?? failures.get('*')?.shift()
    const send = (status: number, body: string) =>
      response.writeHead(status, { 'content-type': 'text/xml;charset=UTF-8' }).end(body)
    const [status, code, message] = (failure && errors[failure]) ?? []
    if (status !== undefined) send(status, xmlError(code ?? '', message ?? ''))
    else if (failure === 'silence') return
    else if (failure === 'reset') request.socket.resetAndDestroy()
    else if (failure === 'page') send(200, '<html><head><title>Please log in</head></html>')
    else {
      const result =
        failure === 'torn'
          ? { status: 200, body: xmlDone(action) }
          : ((await refusal(form, request.headers)) ?? (await inTurn(form, request.headers)))
      await front.onCall(action, 'performed', call)
      if (failure === 'performed-reset') request.socket.resetAndDestroy()
      else if (failure === 'torn' || failure === 'performed-torn') {
        const length = Buffer.byteLength(result.body)
        response.writeHead(200, { 'content-length': length })
        response.write(result.body.slice(0, Math.floor(length / 2)), () => request.socket.destroy())
      } else send(result.status, result.body)
    }
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.writeHead(500).end(xmlError('Front', String(error)))
    })
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const front: Ec2Front = {
    endpoint: `http://127.0.0.1:${port}`,
    calls: [],
    fail: (action, ...more) => void failures.set(action, [...more]),
    onCall: () => {},
    allowed: null,
    hidden: 0,
    setSubnet: (id, more) => void subnets.set(id, { ...more }),
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return front
}
