// The EC2 half of the Local Network Interface of an Outposts server: made, attached and kept by the EC2 API, once.

import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Sources } from '../desired.ts'
import type { HostReader } from '../host.ts'
import {
  type Ec2Interface,
  type Ec2Network,
  type Ec2Reading,
  type Ec2Subnet,
  type InstanceFacts,
  ownTag,
} from '../instance.ts'
import { HostError, type ProblemCode, type ProblemReport, problemOf, remedyOf } from '../problem.ts'
import { type Change, type Ec2Action, type Finding, type Json, type Step, stepKey } from '../resource.ts'

const tagName = z.string().regex(/^(?!aws:|garrison:)[^\0-\x1f\x7f]{1,128}$/i, {
  message: 'must be 1 to 128 characters, and not begin with aws: or garrison:',
})

/** What the document says of the local network interface, as far as EC2 is concerned. */
export const lniSchema = z.strictObject({
  ensure: z
    .boolean()
    .default(true)
    .describe(
      'Create the interface and attach it by the EC2 API. With false it is only used when it is there.',
    ),
  deviceIndex: z
    .int()
    .min(1)
    .max(15)
    .default(1)
    .describe('The device index that makes it a local network interface; one for all hosts of its subnet.'),
  subnet: z
    .string()
    .regex(/^subnet-[0-9a-f]{8,17}$/, 'must be a subnet id such as subnet-…')
    .optional()
    .describe('A subnet of the Outposts server. Default: that of the first interface of the instance.'),
  tags: z
    .record(tagName, z.string().max(256))
    .default({})
    .describe('Further tags of the interface that Garrison creates.'),
})

/** What is wanted of the interface, after defaults. */
export type WantedLni = z.output<typeof lniSchema>

/** The interface as it is on the host. */
export interface LocalLni {
  readonly mac: string
  /** The kernel's name of it; null while no device has its MAC. */
  readonly name: string | null
  readonly interfaceId: string | null
  /** Who says that it is the one: EC2 just now, EC2 earlier, or the metadata by its device index. */
  readonly by: 'ec2' | 'ec2-earlier' | 'metadata'
}

/** What is known of the local network interface. `atMs` is when it was looked, epoch milliseconds. */
export interface ObservedLni {
  readonly atMs: number
  readonly deviceIndex: number
  readonly reading: Ec2Reading
  readonly instance: InstanceFacts | null
  readonly instanceProblem: ProblemReport | null
  /** Null when there is none, or none that can be told. */
  readonly lni: LocalLni | null
}

const subnetOf = ({ subnets }: Ec2Network, id: string | null): Ec2Subnet | null =>
  subnets.find((subnet) => subnet.id === id) ?? null

const indexHere = ({ attachment }: Ec2Interface, instanceId: string): number | null =>
  attachment?.instanceId === instanceId ? attachment.deviceIndex : null

/** EC2 marks none: it is one when its subnet is on an Outpost and has its local interfaces at the device index where it is. */
function lnisOf(network: Ec2Network): readonly Ec2Interface[] {
  return network.interfaces.filter((one) => {
    const subnet = subnetOf(network, one.subnetId)
    const index = indexHere(one, network.instanceId)
    return index !== null && subnet?.outpostArn != null && subnet.lniDeviceIndex === index
  })
}

const isOwn = ({ tags }: Ec2Interface, { instanceId }: Ec2Network): boolean => tags[ownTag] === instanceId

/** The network devices of the host with the MAC that each has. A bridge or a VLAN has the MAC of its port, and no device. */
async function devices(reader: HostReader): Promise<ReadonlyMap<string, string>> {
  const names = (await reader.list('/sys/class/net')) ?? []
  const found = await Promise.all(
    names.map(async (name) => {
      const folder = `/sys/class/net/${name}`
      const [device, mac] = await Promise.all([
        reader.resolve(`${folder}/device`),
        reader.readText(`${folder}/address`),
      ])
      return device === null || mac === null ? [] : [[mac.trim().toLowerCase(), name] as const]
    }),
  )
  return new Map(found.flat())
}

async function instanceOf(reader: HostReader) {
  try {
    return { instance: await reader.instance(), instanceProblem: null }
  } catch (error) {
    // Without it the host's own side is still there to be seen; why it is missing is told.
    if (!(error instanceof HostError)) throw error
    return { instance: null, instanceProblem: problemOf(error) }
  }
}

function localLni(
  { answer, problem }: Ec2Reading,
  instance: InstanceFacts | null,
  deviceIndex: number,
  names: ReadonlyMap<string, string>,
): LocalLni | null {
  const [told] = answer === null ? [] : lnisOf(answer)
  if (told !== undefined && problem === null)
    return { mac: told.mac, name: names.get(told.mac) ?? null, interfaceId: told.id, by: 'ec2' }
  if (problem === null) return null
  const name = told === undefined ? undefined : names.get(told.mac)
  if (told !== undefined && name !== undefined)
    return { mac: told.mac, name, interfaceId: told.id, by: 'ec2-earlier' }
  const found = instance?.interfaces.find(({ deviceNumber }) => deviceNumber === deviceIndex)
  if (found === undefined) return null
  const { mac, interfaceId } = found
  return { mac, name: names.get(mac) ?? null, interfaceId, by: 'metadata' }
}

/** Looks at the host, its metadata and EC2. That EC2 or the metadata cannot be asked is part of the answer. */
export async function observeLni(
  reader: HostReader,
  { deviceIndex, subnet }: Pick<WantedLni, 'deviceIndex' | 'subnet'>,
): Promise<ObservedLni> {
  const [reading, { instance, instanceProblem }, names, atMs] = await Promise.all([
    reader.ec2Network({ subnetId: subnet ?? null, deviceIndex }),
    instanceOf(reader),
    devices(reader),
    reader.now(),
  ])
  const lni = localLni(reading, instance, deviceIndex, names)
  return { atMs, deviceIndex, reading, instance, instanceProblem, lni }
}

/**
 * The token of one interface: the same for every try to make it, another one when it was there and is gone.
 * (EC2 remembers a token beyond the end of what it made.)
 */
const clientToken = ({ instanceId, gone }: Ec2Network, deviceIndex: number): string =>
  `garrison-${createHash('sha256')
    .update(JSON.stringify([instanceId, deviceIndex, gone.length]))
    .digest('hex')
    .slice(0, 40)}`

/** Where the document says it, as `uplinks.lan.lni`, and where that was written. */
export interface LniPlace {
  readonly settings: string
  readonly sources: Sources
}

interface Drafting extends LniPlace {
  readonly steps: Step[]
}

type Draft = Pick<Step, 'summary'> & {
  readonly path: string
  readonly desired: Json
  readonly observed: Json
  readonly action: Ec2Action
  readonly risk?: Step['risk']
}

/** Adds a step that comes after those that are there. */
function draft({ sources, steps }: Drafting, id: string, { summary, risk = 'safe', action, ...rest }: Draft) {
  const { path, desired, observed } = rest
  const why = sources[path]
  const change: Change = { path, desired, observed, ...(why !== undefined && { why }) }
  const after = steps.map(stepKey)
  steps.push({
    id: `uplinks.${id}`,
    summary,
    risk,
    because: [change],
    actions: [action],
    ...(after.length > 0 && { after }),
  })
}

const refuse = (
  code: ProblemCode,
  message: string,
  because: Change,
  details: Readonly<Record<string, Json>> = {},
): readonly Step[] => [
  {
    id: 'uplinks.lni',
    summary: 'the local network interface',
    risk: 'safe',
    because: [because],
    actions: [],
    blocked: { code, message, remedy: remedyOf(code, details), details },
  },
]

/** The interface that is to become the local one: that which is attached already, or else one that was left unattached. */
function chosenInterface(network: Ec2Network): Ec2Interface | null {
  const own = network.interfaces.filter((one) => isOwn(one, network)).sort((a, b) => (a.id < b.id ? -1 : 1))
  return (
    own.find((one) => indexHere(one, network.instanceId) !== null) ??
    own.find(({ attachment }) => attachment === null) ??
    own[0] ??
    null
  )
}

/** The MAC of the interface: known before it is a device, from the moment that EC2 has made it. */
export function macOfLni({ reading: { answer, problem }, lni }: ObservedLni): string | null {
  if (lni !== null) return lni.mac
  const own = answer === null || problem !== null ? null : chosenInterface(answer)
  return own?.attachment === null ? own.mac : null
}

const appearMs = 180_000

/** When EC2 says that it is attached, the host will see it: a device with its MAC. */
function appearSteps(
  { lni, deviceIndex }: ObservedLni,
  { settings, steps: after }: Drafting,
): readonly Step[] {
  if (lni === null || lni.by !== 'ec2' || lni.name !== null) return []
  const before = after.map(stepKey)
  return [
    {
      id: 'uplinks.lni-appear',
      summary: `wait until the device ${lni.mac} appears`,
      risk: 'safe',
      because: [{ path: `${settings}.deviceIndex`, desired: deviceIndex, observed: null }],
      actions: [
        {
          kind: 'wait',
          until: { kind: 'interface', mac: lni.mac },
          summary: `${lni.interfaceId} (${lni.mac}) is a device of this host`,
          deadlineMs: appearMs,
        },
      ],
      ...(before.length > 0 && { after: before }),
    },
  ]
}

/** What becomes of our own interface once it is there: attached, gone with the instance, tagged. */
function ownSteps(
  drafting: Drafting,
  network: Ec2Network,
  wanted: WantedLni,
  own: Ec2Interface | null,
): void {
  const { instanceId } = network
  const interfaceId = own?.id ?? null
  const called = interfaceId ?? 'it'
  const attachment = own?.attachment ?? null
  if (attachment === null)
    draft(drafting, 'lni-attach', {
      summary: `attach ${called} to ${instanceId} at device index ${wanted.deviceIndex}`,
      path: `${drafting.settings}.deviceIndex`,
      desired: wanted.deviceIndex,
      observed: null,
      action: {
        kind: 'ec2',
        operation: 'attach-interface',
        instanceId,
        interfaceId,
        deviceIndex: wanted.deviceIndex,
      },
    })
  if (attachment?.deleteOnTermination !== true)
    draft(drafting, 'lni-end', {
      summary: `let ${called} end with the instance`,
      path: `${drafting.settings}.deleteOnTermination`,
      desired: true,
      observed: attachment?.deleteOnTermination ?? null,
      action: { kind: 'ec2', operation: 'delete-on-termination', instanceId, interfaceId },
    })
  if (own === null) return
  const missing = Object.entries(wanted.tags).filter(([key, value]) => own.tags[key] !== value)
  if (missing.length > 0)
    draft(drafting, 'lni-tag', {
      summary: `tag ${own.id}: ${missing.map(([key]) => key).join(', ')}`,
      path: `${drafting.settings}.tags`,
      desired: Object.fromEntries(missing),
      observed: Object.fromEntries(missing.map(([key]) => [key, own.tags[key] ?? null])),
      action: {
        kind: 'ec2',
        operation: 'tag-interface',
        interfaceId: own.id,
        tags: Object.fromEntries(missing),
      },
    })
}

/**
 * Plans the calls of EC2 that are needed, in their order; nothing while EC2 cannot be asked and the interface is there.
 * Pure. Blocked steps carry `lni.…`, `ec2.…` or `imds.…` codes.
 */
export function planLni(
  observed: ObservedLni,
  wanted: WantedLni,
  { settings, sources }: LniPlace,
): readonly Step[] {
  const { reading, lni } = observed
  const { deviceIndex } = wanted
  if (!wanted.ensure) return []
  const path = `${settings}.deviceIndex`
  const because = (seen: Json): Change => ({
    path,
    desired: deviceIndex,
    observed: seen,
    ...(sources[path] !== undefined && { why: sources[path] }),
  })
  const { answer: network, problem } = reading
  if (problem !== null || network === null) {
    if (lni !== null && lni.name !== null) return []
    const {
      code,
      message,
      details = {},
    } = problem ?? {
      code: 'ec2.unreachable' as const,
      message: 'EC2 has not answered yet',
    }
    return refuse(code, message, because(null), details as Record<string, Json>)
  }
  const subnet = subnetOf(network, network.subnetId)
  const lnis = lnisOf(network)
  const there = lnis.find((one) => indexHere(one, network.instanceId) === deviceIndex)
  const own = chosenInterface(network)
  const drafting: Drafting = { settings, sources, steps: [] }
  if (there !== undefined) {
    const { phase } = there.attachment ?? {}
    if (phase === 'detaching') return refuse('lni.detaching', `${there.id} is being detached`, because(phase))
    // One that somebody else has made is used as it is.
    if (isOwn(there, network)) ownSteps(drafting, network, wanted, there)
    return [...drafting.steps, ...appearSteps(observed, drafting)]
  }
  const [other] = lnis
  if (other !== undefined) {
    const index = indexHere(other, network.instanceId)
    return refuse('lni.other-index', `${other.id} is there, at device index ${index}`, because(index))
  }
  if (subnet === null)
    return refuse(
      'lni.no-subnet',
      network.subnetId === null ? 'EC2 tells no first interface' : `there is no ${network.subnetId}`,
      because(null),
    )
  if (subnet.outpostArn === null)
    return refuse('lni.not-on-outpost', `${subnet.id} is on no Outpost`, because(null))
  if (subnet.lniDeviceIndex !== null && subnet.lniDeviceIndex !== deviceIndex)
    return refuse(
      'lni.subnet-index',
      `${subnet.id} has them at device index ${subnet.lniDeviceIndex}`,
      because(subnet.lniDeviceIndex),
    )
  const occupant = network.interfaces.find((one) => indexHere(one, network.instanceId) === deviceIndex)
  if (occupant !== undefined && occupant.id !== own?.id)
    return refuse(
      'lni.index-taken',
      `${occupant.id} is attached at device index ${deviceIndex}, and is no local network interface`,
      because(occupant.id),
    )
  if (own !== null && own.subnetId !== subnet.id)
    return refuse('lni.elsewhere', `${own.id} is in ${own.subnetId}, not in ${subnet.id}`, because(own.id))
  if (own !== null && own.attachment !== null && own.attachment.instanceId !== network.instanceId)
    return refuse(
      'lni.elsewhere',
      `${own.id} is attached to ${own.attachment.instanceId ?? 'an instance of another account'}`,
      because(own.id),
    )
  if (own?.attachment?.phase === 'detaching')
    return refuse('lni.detaching', `${own.id} is being detached`, because('detaching'))
  if (own !== null && own.attachment !== null && own.attachment.deviceIndex !== deviceIndex) {
    const index = own.attachment.deviceIndex
    return refuse('lni.other-index', `${own.id} is attached at device index ${index}`, because(index))
  }
  if (subnet.lniDeviceIndex === null) {
    const others = network.othersAtIndex
    draft(drafting, 'lni-subnet', {
      summary:
        others.length === 0
          ? `enable local network interfaces at device index ${deviceIndex} of ${subnet.id}`
          : `enable local network interfaces at device index ${deviceIndex} of ${subnet.id}, where other instances have ${others.join(', ')}`,
      path,
      desired: deviceIndex,
      observed: null,
      action: { kind: 'ec2', operation: 'enable-lni', subnetId: subnet.id, deviceIndex },
      ...(others.length > 0 && { risk: 'disruptive' }),
    })
  }
  if (own === null)
    draft(drafting, 'lni-create', {
      summary: `create a network interface in ${subnet.id}`,
      path: `${settings}.ensure`,
      desired: true,
      observed: false,
      action: {
        kind: 'ec2',
        operation: 'create-interface',
        instanceId: network.instanceId,
        subnetId: subnet.id,
        clientToken: clientToken(network, deviceIndex),
        description: `Garrison: local network interface of ${network.instanceId}`,
        tags: { [ownTag]: network.instanceId },
        gone: network.gone,
      },
    })
  ownSteps(drafting, network, wanted, own)
  return drafting.steps
}

/** A span of time in words, to the whole unit below. */
function span(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
  ] as const
  const [unit, unitMs] = units.find(([, one]) => ms >= one) ?? ['s', 1000]
  return `${Math.max(0, Math.floor(ms / unitMs))} ${unit}`
}

/** How old the answer of EC2 is that still holds: `EC2 unknown, last answer 3 h old`. Null while EC2 answers. */
export function unknownPart({ reading: { problem, answeredMs }, atMs }: ObservedLni): string | null {
  if (problem === null) return null
  return answeredMs === null
    ? 'EC2 unknown, never answered'
    : `EC2 unknown, last answer ${span(atMs - answeredMs)} old`
}

/** Judges the EC2 side of the interface. That EC2 does not answer a host that is cut off from it is no finding of its own. Pure. */
export function checkLni(observed: ObservedLni, isCut: boolean): readonly Finding[] {
  const { reading, lni } = observed
  const findings: Finding[] = []
  const { answer: network, problem } = reading
  if (problem !== null && problem.code !== 'ec2.no-instance' && !isCut)
    findings.push({
      code: 'uplinks.lni-unknown',
      severity: 'warning',
      subject: 'lni',
      text: `${unknownPart(observed)}: ${problem.message}${lni?.name == null ? '' : `; ${lni.name} (${lni.mac}) is there and goes on`}`,
      remedy: problem.remedy,
    })
  if (network === null) return findings
  const several = new Set([
    ...lnisOf(network).map(({ id }) => id),
    ...network.interfaces.filter((one) => isOwn(one, network)).map(({ id }) => id),
  ])
  if (several.size > 1)
    findings.push({
      code: 'uplinks.lni-several',
      severity: 'warning',
      subject: 'lni',
      text: `there are ${several.size} interfaces where one is meant: ${[...several].sort().join(', ')}`,
      remedy:
        'Find out which one is in use (garrison network show), and delete the others: aws ec2 delete-network-interface. Garrison deletes none.',
    })
  return findings
}
