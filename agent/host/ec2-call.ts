// Speaks to the EC2 API of a Region through the AWS SDK, which is loaded when the first call is made.
//
// INVARIANTS
// - What changes something is looked up first, at every try: what is so already is not asked for again.
// - An action ends when EC2 itself tells what was asked for; only then can the next look see it.

import { setTimeout as sleep } from 'node:timers/promises'
import {
  EC2_ACTIONS,
  type Ec2Interface,
  type Ec2Network,
  type Ec2Question,
  type Ec2Subnet,
  ownTag,
} from '../../provisioning/instance.ts'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'
import type { Ec2Action } from '../../provisioning/resource.ts'

type Sdk = typeof import('@aws-sdk/client-ec2')

interface Asked {
  readonly region: string
  readonly deadlineMs: number
}

/** The question for instances that have a tag. */
export interface TaggedRequest extends Asked {
  readonly kind: 'tagged'
  readonly tag: string
}

/** Private addresses of instances, those of the first interface first, by the value of their tag. */
export type TaggedAnswer = Readonly<Record<string, readonly string[]>>

/** What is asked of the EC2 API in one go. */
export type Ec2Request = Asked &
  (
    | { readonly kind: 'network'; readonly instanceId: string; readonly question: Ec2Question }
    | { readonly kind: 'action'; readonly action: Ec2Action }
  )

/** The answer about the network; that of an action is null. */
export type Ec2Answer = Omit<Ec2Network, 'gone'> | null

/** How calls are made; all of it has a default. */
export interface Ec2CallOptions {
  /** The first pause before another try; it doubles, and each is drawn from its whole length. */
  readonly pauseMs?: number
  readonly connectMs?: number
  readonly requestMs?: number
}

const mostPauseMs = 10_000
/** Longer than a usual pause, since asking is what was too much. */
const throttledFactor = 5

const codes: Readonly<Record<string, ProblemCode>> = {
  AccessDenied: 'ec2.denied',
  AccessDeniedException: 'ec2.denied',
  UnauthorizedOperation: 'ec2.denied',
  OptInRequired: 'ec2.denied',
  // What EC2 says of temporary credentials that are too old, too.
  RequestExpired: 'ec2.credentials-expired',
  ExpiredToken: 'ec2.credentials-expired',
  ExpiredTokenException: 'ec2.credentials-expired',
  AuthFailure: 'ec2.credentials-refused',
  InvalidClientTokenId: 'ec2.credentials-refused',
  UnrecognizedClientException: 'ec2.credentials-refused',
  MissingAuthenticationToken: 'ec2.credentials-refused',
  SignatureDoesNotMatch: 'ec2.credentials-refused',
  IncompleteSignature: 'ec2.credentials-refused',
  CredentialsProviderError: 'ec2.no-credentials',
  RequestLimitExceeded: 'ec2.throttled',
  EC2ThrottledException: 'ec2.throttled',
  Throttling: 'ec2.throttled',
  ThrottlingException: 'ec2.throttled',
  RequestThrottled: 'ec2.throttled',
  RequestThrottledException: 'ec2.throttled',
  TooManyRequestsException: 'ec2.throttled',
  InternalError: 'ec2.server-error',
  InternalFailure: 'ec2.server-error',
  ServiceUnavailable: 'ec2.server-error',
  Unavailable: 'ec2.server-error',
  TimeoutError: 'ec2.unreachable',
  AbortError: 'ec2.unreachable',
}

/** What is tried again. */
const passing: readonly ProblemCode[] = [
  'ec2.throttled',
  'ec2.server-error',
  'ec2.unreachable',
  'ec2.unexpected-answer',
]

/** An error of the SDK as far as it is looked at here. */
interface SdkError extends Error {
  readonly code?: string
  readonly $metadata?: { readonly httpStatusCode?: number }
}

function codeOf({ name, code, $metadata }: SdkError): ProblemCode {
  const known = codes[name]
  if (known !== undefined) return known
  const answered = $metadata?.httpStatusCode
  if (answered === 429) return 'ec2.throttled'
  if (answered !== undefined && answered >= 500) return 'ec2.server-error'
  if (answered !== undefined && answered >= 400) return 'ec2.refused'
  if (code !== undefined && /^(E[A-Z]+|UND_ERR_.*)$/.test(code)) return 'ec2.unreachable'
  return 'ec2.unexpected-answer'
}

const mostMessageChars = 600

/** What an error of a call means. `action` is what IAM would have to allow. */
function ec2Problem(error: unknown, action: string): HostError {
  if (error instanceof HostError) return error
  if (!(error instanceof Error)) throw error
  const code = codeOf(error as SdkError)
  // Denied was perhaps what the call implies: tags that are given at the making are an action of their own.
  const [, denied = action] = /to perform: ([a-z0-9]+:[A-Za-z]+)/.exec(error.message) ?? []
  // A long cipher that only the owner of the account can read.
  const [said = ''] = error.message.split(/ ?Encoded authorization failure/)
  const text = `${error.name}: ${said}`.slice(0, mostMessageChars)
  const message =
    code === 'ec2.denied' ? `${denied} is not allowed to this host: ${text}` : `${action}: ${text}`
  return new HostError(code, message, {
    details: { action: code === 'ec2.denied' ? denied : action, error: error.name },
    cause: error,
  })
}

const isPassing = (error: unknown): error is HostError =>
  error instanceof HostError && passing.includes(error.code)

const missing = (what: string): HostError =>
  new HostError('ec2.unexpected-answer', `EC2 answers without ${what}`)

/** The calls of one request, in one client. */
class Calls {
  readonly #sdk: Sdk
  readonly #client: InstanceType<Sdk['EC2Client']>
  readonly #signal: AbortSignal
  readonly #untilMs: number
  readonly #pauseMs: number

  constructor(sdk: Sdk, { region, deadlineMs }: Asked, options: Ec2CallOptions) {
    const { pauseMs = 200, connectMs = 3000, requestMs = 10_000 } = options
    this.#sdk = sdk
    this.#signal = AbortSignal.timeout(deadlineMs)
    this.#untilMs = performance.now() + deadlineMs
    this.#pauseMs = pauseMs
    this.#client = new sdk.EC2Client({
      region,
      // Tried again here, where it is known what may have been done already.
      maxAttempts: 1,
      requestHandler: {
        connectionTimeout: connectMs,
        requestTimeout: requestMs,
        throwOnRequestTimeout: true,
      },
    })
  }

  close(): void {
    this.#client.destroy()
  }

  /** Sends one command; `action` is what IAM calls it. */
  async #send<T>(action: string, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await send(this.#signal)
    } catch (error) {
      throw ec2Problem(error, action)
    }
  }

  /** A pause that grows; false when the deadline would come first. */
  async #pause(tries: number, factor = 1): Promise<boolean> {
    const longestMs = Math.min(this.#pauseMs * factor * 2 ** (tries - 1), mostPauseMs)
    const ms = longestMs * (0.5 + Math.random() / 2)
    if (performance.now() + ms >= this.#untilMs) return false
    await sleep(ms)
    return true
  }

  async #again<T>(work: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await work()
      } catch (error) {
        const factor = error instanceof HostError && error.code === 'ec2.throttled' ? throttledFactor : 1
        if (!isPassing(error) || !(await this.#pause(tries, factor))) throw error
      }
    }
  }

  interfaces(filters: Readonly<Record<string, string>>): Promise<readonly Ec2Interface[]> {
    const { paginateDescribeNetworkInterfaces } = this.#sdk
    const Filters = Object.entries(filters).map(([Name, value]) => ({ Name, Values: [value] }))
    return this.#again(() =>
      this.#send(EC2_ACTIONS.describeInterfaces, async (abortSignal) => {
        const found: Ec2Interface[] = []
        const pages = paginateDescribeNetworkInterfaces(
          { client: this.#client },
          { Filters },
          { abortSignal },
        )
        for await (const { NetworkInterfaces } of pages)
          for (const one of NetworkInterfaces ?? []) found.push(interfaceOf(one))
        return found
      }),
    )
  }

  subnets(ids: readonly string[]): Promise<readonly Ec2Subnet[]> {
    if (ids.length === 0) return Promise.resolve([])
    const { DescribeSubnetsCommand } = this.#sdk
    return this.#again(() =>
      this.#send(EC2_ACTIONS.describeSubnets, async (abortSignal) => {
        // By filter: one that does not exist is then left out, and no error for them all.
        const Filters = [{ Name: 'subnet-id', Values: [...ids] }]
        const { Subnets } = await this.#client.send(new DescribeSubnetsCommand({ Filters }), { abortSignal })
        return (Subnets ?? []).map(({ SubnetId, OutpostArn, EnableLniAtDeviceIndex }) => {
          if (SubnetId === undefined) throw missing('the id of a subnet')
          return {
            id: SubnetId,
            outpostArn: OutpostArn ?? null,
            // EC2 says 0 for none: the first interface is never one.
            lniDeviceIndex: EnableLniAtDeviceIndex || null,
          }
        })
      }),
    )
  }

  tagged(tag: string): Promise<TaggedAnswer> {
    const { paginateDescribeInstances } = this.#sdk
    const Filters = [
      { Name: 'tag-key', Values: [tag] },
      // Also one that is stopped: it is where it was when it starts again.
      { Name: 'instance-state-name', Values: ['pending', 'running', 'stopping', 'stopped'] },
    ]
    return this.#again(() =>
      this.#send(EC2_ACTIONS.describeInstances, async (abortSignal) => {
        const found = new Map<string, readonly string[]>()
        const pages = paginateDescribeInstances({ client: this.#client }, { Filters }, { abortSignal })
        for await (const { Reservations = [] } of pages)
          for (const instance of Reservations.flatMap(({ Instances = [] }) => Instances)) {
            const name = instance.Tags?.find(({ Key }) => Key === tag)?.Value
            if (name) found.set(name, [...(found.get(name) ?? []), ...addressesOf(instance)])
          }
        return Object.fromEntries([...found].sort(([a], [b]) => (a < b ? -1 : 1)))
      }),
    )
  }

  /**
   * Brings something about: looks, asks when it is not so, and looks until it is. Throws `ec2.not-visible` when EC2 does not tell
   * it before the deadline.
   */
  async #bring<T>(look: () => Promise<T>, isDone: (seen: T) => boolean, ask: (seen: T) => Promise<void>) {
    const asked = await this.#again(async () => {
      const seen = await look()
      if (isDone(seen)) return false
      try {
        await ask(seen)
      } catch (error) {
        // Somebody else may have brought it about since the look: then it is refused because it is done.
        if (!(error instanceof HostError) || error.code !== 'ec2.refused' || !isDone(await look()))
          throw error
      }
      return true
    })
    if (!asked) return
    for (let tries = 1; !isDone(await look()); tries += 1)
      if (!(await this.#pause(tries)))
        throw new HostError('ec2.not-visible', 'EC2 does not tell what it was asked for')
  }

  async #interface(id: string | null, instanceId: string): Promise<Ec2Interface> {
    const filter: Record<string, string> =
      id === null ? { [`tag:${ownTag}`]: instanceId } : { 'network-interface-id': id }
    const found = await this.interfaces(filter)
    const [first] = found
    if (first !== undefined && found.length === 1) return first
    throw new HostError(
      'ec2.refused',
      found.length === 0
        ? `there is no ${id ?? 'interface of this host'}`
        : 'several interfaces are of this host',
      { details: { interfaceId: id } },
    )
  }

  readonly #actions: {
    readonly [Operation in Ec2Action['operation']]: (
      action: Extract<Ec2Action, { operation: Operation }>,
    ) => Promise<void>
  } = {
    'enable-lni': ({ subnetId, deviceIndex }) =>
      this.#bring(
        async () => (await this.subnets([subnetId]))[0],
        (subnet) => subnet?.lniDeviceIndex === deviceIndex,
        async () => {
          const command = new this.#sdk.ModifySubnetAttributeCommand({
            SubnetId: subnetId,
            EnableLniAtDeviceIndex: deviceIndex,
          })
          await this.#send(EC2_ACTIONS.enableLni, (abortSignal) =>
            this.#client.send(command, { abortSignal }),
          )
        },
      ),
    'create-interface': (action) => this.#create(action),
    'attach-interface': ({ interfaceId, instanceId, deviceIndex }) =>
      this.#bring(
        () => this.#interface(interfaceId, instanceId),
        ({ attachment }) => attachment?.instanceId === instanceId && attachment.deviceIndex === deviceIndex,
        async ({ id, attachment }) => {
          if (attachment !== null)
            throw new HostError(
              'ec2.refused',
              `${id} is attached to ${attachment.instanceId ?? 'another account'} at device index ${attachment.deviceIndex}`,
            )
          const command = new this.#sdk.AttachNetworkInterfaceCommand({
            NetworkInterfaceId: id,
            InstanceId: instanceId,
            DeviceIndex: deviceIndex,
          })
          await this.#send(EC2_ACTIONS.attachInterface, (abortSignal) =>
            this.#client.send(command, { abortSignal }),
          )
        },
      ),
    'delete-on-termination': ({ interfaceId, instanceId }) =>
      this.#bring(
        () => this.#interface(interfaceId, instanceId),
        ({ attachment }) => attachment?.deleteOnTermination === true,
        async ({ id, attachment }) => {
          if (attachment === null) throw new HostError('ec2.refused', `${id} is attached to nothing`)
          const command = new this.#sdk.ModifyNetworkInterfaceAttributeCommand({
            NetworkInterfaceId: id,
            Attachment: { AttachmentId: attachment.id, DeleteOnTermination: true },
          })
          await this.#send(EC2_ACTIONS.modifyInterface, (abortSignal) =>
            this.#client.send(command, { abortSignal }),
          )
        },
      ),
    'tag-interface': ({ interfaceId, tags }) =>
      this.#bring(
        () => this.#interface(interfaceId, ''),
        (seen) => Object.entries(tags).every(([key, value]) => seen.tags[key] === value),
        async () => {
          const command = new this.#sdk.CreateTagsCommand({ Resources: [interfaceId], Tags: tagList(tags) })
          await this.#send(EC2_ACTIONS.tag, (abortSignal) => this.#client.send(command, { abortSignal }))
        },
      ),
  }

  perform(action: Ec2Action): Promise<void> {
    // The table and the action agree on the operation, which the compiler cannot follow through an index.
    return (this.#actions[action.operation] as (action: Ec2Action) => Promise<void>)(action)
  }

  /** Whether one that is thought to be gone is there after all; EC2 forgets for moments what it has told before. */
  async #isBack(gone: readonly string[]): Promise<boolean> {
    if (gone.length === 0) return false
    for (let tries = 1; ; tries += 1) {
      const found = await this.interfaces({ 'network-interface-id': gone.at(-1) ?? '' })
      if (found.length > 0) return true
      if (tries === 5) return false
      await this.#pause(tries, throttledFactor)
    }
  }

  async #create(action: Extract<Ec2Action, { operation: 'create-interface' }>): Promise<void> {
    const { subnetId, instanceId, clientToken, description, tags, gone } = action
    if (await this.#isBack(gone)) return
    let made: string | undefined
    const command = new this.#sdk.CreateNetworkInterfaceCommand({
      SubnetId: subnetId,
      ClientToken: clientToken,
      Description: description,
      TagSpecifications: [{ ResourceType: 'network-interface', Tags: tagList(tags) }],
    })
    try {
      await this.#bring(
        () => this.interfaces({ [`tag:${ownTag}`]: instanceId }),
        (found) => found.length > 0,
        async () => {
          const { NetworkInterface } = await this.#send(EC2_ACTIONS.createInterface, (abortSignal) =>
            this.#client.send(command, { abortSignal }),
          )
          made = NetworkInterface?.NetworkInterfaceId
          if (made === undefined) throw missing('the id of the interface that it made')
        },
      )
    } catch (error) {
      if (!(error instanceof HostError) || error.code !== 'ec2.not-visible') throw error
      throw new HostError('ec2.not-visible', `EC2 says that it made ${made}, and does not know it`, {
        details: { interfaceId: made },
        cause: error,
      })
    }
  }
}

const tagList = (tags: Readonly<Record<string, string>>) =>
  Object.entries(tags).map(([Key, Value]) => ({ Key, Value }))

/** The private addresses of an instance. That of a local network interface is not among what anybody can reach, and is tried in vain. */
function addressesOf({ NetworkInterfaces = [] }: import('@aws-sdk/client-ec2').Instance): readonly string[] {
  const index = (one: (typeof NetworkInterfaces)[number]): number => one.Attachment?.DeviceIndex ?? 0
  return [...NetworkInterfaces]
    .sort((a, b) => index(a) - index(b))
    .flatMap(({ PrivateIpAddress, Ipv6Addresses = [] }) => [
      PrivateIpAddress ?? [],
      ...Ipv6Addresses.map(({ Ipv6Address }) => Ipv6Address ?? []),
    ])
    .flat()
}

/** An interface as EC2 describes it, in our words. Throws `ec2.unexpected-answer`. */
function interfaceOf(one: import('@aws-sdk/client-ec2').NetworkInterface): Ec2Interface {
  const { NetworkInterfaceId, MacAddress = '', SubnetId, TagSet, Attachment } = one
  if (NetworkInterfaceId === undefined || SubnetId === undefined) throw missing('the id of an interface')
  const mac = MacAddress.toLowerCase().replaceAll('-', ':')
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac)) throw missing(`the MAC of ${NetworkInterfaceId}`)
  const { Status: phase, DeviceIndex, AttachmentId, InstanceId, DeleteOnTermination } = Attachment ?? {}
  return {
    id: NetworkInterfaceId,
    mac,
    subnetId: SubnetId,
    tags: Object.fromEntries((TagSet ?? []).map(({ Key = '', Value = '' }) => [Key, Value])),
    attachment:
      AttachmentId === undefined || phase === 'detached'
        ? null
        : {
            id: AttachmentId,
            instanceId: InstanceId ?? null,
            deviceIndex: DeviceIndex ?? 0,
            phase: phase ?? 'attached',
            deleteOnTermination: DeleteOnTermination ?? false,
          },
  }
}

async function network(calls: Calls, instanceId: string, question: Ec2Question): Promise<Ec2Answer> {
  const { deviceIndex } = question
  const [attached, own] = await Promise.all([
    calls.interfaces({ 'attachment.instance-id': instanceId }),
    calls.interfaces({ [`tag:${ownTag}`]: instanceId }),
  ])
  const interfaces = [...new Map([...attached, ...own].map((one) => [one.id, one])).values()].sort((a, b) =>
    a.id < b.id ? -1 : 1,
  )
  const first = attached.find(({ attachment }) => attachment?.deviceIndex === 0)
  const subnetId = question.subnetId ?? first?.subnetId ?? null
  const ids = new Set([...(subnetId === null ? [] : [subnetId]), ...interfaces.map((one) => one.subnetId)])
  const subnets = await calls.subnets([...ids].sort())
  const subnet = subnets.find(({ id }) => id === subnetId)
  const others =
    subnet === undefined || subnet.outpostArn === null || subnet.lniDeviceIndex !== null
      ? []
      : await calls.interfaces({
          'subnet-id': subnet.id,
          'attachment.device-index': String(deviceIndex),
        })
  return {
    instanceId,
    subnetId,
    subnets: [...subnets].sort((a, b) => (a.id < b.id ? -1 : 1)),
    interfaces,
    othersAtIndex: others.flatMap(({ id, attachment }) =>
      attachment?.instanceId === instanceId ? [] : [id],
    ),
  }
}

/** Asks EC2 in this process for the instances with a tag. Errors as `callEc2`. */
export async function callTagged(
  request: TaggedRequest,
  options: Ec2CallOptions = {},
): Promise<TaggedAnswer> {
  const calls = new Calls(await import('@aws-sdk/client-ec2'), request, options)
  try {
    return await calls.tagged(request.tag)
  } finally {
    calls.close()
  }
}

/**
 * Asks EC2 in this process. Errors: `ec2.…`, each told apart; what may pass by itself (throttling, a fault of EC2, silence, a torn
 * answer) is tried again with growing pauses until the deadline.
 */
export async function callEc2(request: Ec2Request, options: Ec2CallOptions = {}): Promise<Ec2Answer> {
  const calls = new Calls(await import('@aws-sdk/client-ec2'), request, options)
  try {
    if (request.kind === 'network') return await network(calls, request.instanceId, request.question)
    await calls.perform(request.action)
    return null
  } finally {
    calls.close()
  }
}
