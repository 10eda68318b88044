// The EC2 half of the local network interface: what is planned from what EC2, the metadata and the host say, case by case.

import t from 'tap'
import type { HostReader } from '../../provisioning/host.ts'
import {
  type Ec2Interface,
  type Ec2Network,
  type Ec2Reading,
  type InstanceFacts,
  ownTag,
} from '../../provisioning/instance.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Step } from '../../provisioning/resource.ts'
import { checkLni, lniSchema, observeLni, planLni, unknownPart } from '../../provisioning/uplinks/lni.ts'
import { readerOf } from './simulated-host.ts'

const nowMs = Date.UTC(2026, 10, 21, 7)
const me = 'i-0123456789abcdef0'
const subnetId = 'subnet-0123456789abcdef0'
const firstMac = '02:00:00:00:00:10'
const lniMac = '02:00:00:00:00:11'

const attachment = (deviceIndex: number, more: Partial<NonNullable<Ec2Interface['attachment']>> = {}) => ({
  id: `eni-attach-${deviceIndex}`,
  instanceId: me,
  deviceIndex,
  phase: 'attached' as const,
  deleteOnTermination: deviceIndex === 0,
  ...more,
})

const first: Ec2Interface = {
  id: 'eni-0',
  mac: firstMac,
  subnetId,
  tags: {},
  attachment: attachment(0),
}

const own = (more: Partial<Ec2Interface> = {}): Ec2Interface => ({
  id: 'eni-1',
  mac: lniMac,
  subnetId,
  tags: { [ownTag]: me },
  attachment: null,
  ...more,
})

const onOutpost = { id: subnetId, outpostArn: 'an Outpost', lniDeviceIndex: null }
const enabled = { ...onOutpost, lniDeviceIndex: 1 }

const network = (more: Partial<Ec2Network> = {}): Ec2Network => ({
  instanceId: me,
  subnetId,
  subnets: [enabled],
  interfaces: [first],
  othersAtIndex: [],
  gone: [],
  ...more,
})

interface World {
  readonly ec2?: Partial<Ec2Network> | null
  readonly problem?: HostError
  readonly answeredMs?: number | null
  /** Kernel name -> MAC of what is a device. */
  readonly nics?: Readonly<Record<string, string>>
  readonly metadata?: InstanceFacts | null | HostError
}

const facts = (deviceNumber: number | null): InstanceFacts => ({
  instanceId: me,
  region: 'xx-test-1',
  zone: 'xx-test-1a',
  partition: 'aws',
  outpostArn: null,
  mac: firstMac,
  interfaces: [
    { mac: firstMac, deviceNumber: 0, interfaceId: 'eni-0', subnetId },
    { mac: lniMac, deviceNumber, interfaceId: 'eni-1', subnetId },
  ],
})

function readerFor({
  ec2 = {},
  problem,
  answeredMs = nowMs,
  nics = { ens5: firstMac },
  metadata = null,
}: World) {
  const reader: HostReader = {
    ...readerOf({ files: new Map(), journal: [] }),
    list: async () => [...Object.keys(nics), 'br0', 'lo'],
    readText: async (path) => {
      const name = path.split('/')[4] ?? ''
      // A bridge has the MAC of its port.
      return name === 'br0' ? `${lniMac}\n` : `${nics[name]?.toUpperCase() ?? '00:00:00:00:00:00'}\n`
    },
    resolve: async (path) => (Object.hasOwn(nics, path.split('/')[4] ?? '') ? '/sys/devices/pci' : null),
    now: async () => nowMs,
    instance: async () => {
      if (metadata instanceof HostError) throw metadata
      return metadata
    },
    ec2Network: async (): Promise<Ec2Reading> => ({
      answer: ec2 === null ? null : network(ec2),
      answeredMs,
      problem: problem?.report() ?? null,
    }),
  }
  return reader
}

async function outcome(world: World, document: Record<string, unknown> = {}) {
  const wanted = lniSchema.parse(document)
  const observed = await observeLni(readerFor(world), wanted)
  const steps = planLni(observed, wanted, {
    settings: 'uplinks.lan.lni',
    sources: { 'uplinks.lan.lni.deviceIndex': 'host.yaml:7' },
  })
  return {
    observed,
    steps: steps.map(({ id, blocked, risk }) =>
      blocked ? `${id} blocked ${blocked.code}` : risk === 'safe' ? id : `${id} ${risk}`,
    ),
    whole: steps,
    findings: checkLni(observed, false).map(({ code }) => code),
  }
}

/** The token of the interface that is to be made. */
const tokenOf = (steps: readonly Step[]): string =>
  steps
    .flatMap(({ actions }) => actions)
    .flatMap((action) =>
      action.kind === 'ec2' && action.operation === 'create-interface' ? action.clientToken : [],
    )
    .join()

const create = ['uplinks.lni-create', 'uplinks.lni-attach', 'uplinks.lni-end']

t.test('from nothing: one call after the other', async (t) => {
  const { steps, whole, findings } = await outcome({ ec2: { subnets: [onOutpost] } })
  t.same(steps, ['uplinks.lni-subnet', ...create])
  t.same(findings, [])
  t.same(
    whole.map(({ actions: [action] }) => action),
    [
      { kind: 'ec2', operation: 'enable-lni', subnetId, deviceIndex: 1 },
      {
        kind: 'ec2',
        operation: 'create-interface',
        instanceId: me,
        subnetId,
        clientToken: tokenOf(whole),
        description: `Garrison: local network interface of ${me}`,
        tags: { [ownTag]: me },
        gone: [],
      },
      { kind: 'ec2', operation: 'attach-interface', instanceId: me, interfaceId: null, deviceIndex: 1 },
      { kind: 'ec2', operation: 'delete-on-termination', instanceId: me, interfaceId: null },
    ],
  )
  t.equal(whole[0]?.because[0]?.why, 'host.yaml:7')
  t.same(
    whole.map(({ after }) => after?.length ?? 0),
    [0, 1, 2, 3],
    'in their order',
  )
})

t.test('what each crash between two calls leaves is gone on with', async (t) => {
  t.same((await outcome({})).steps, create, 'the subnet is ready')
  t.same((await outcome({ ec2: { interfaces: [first, own()] } })).steps, [
    'uplinks.lni-attach',
    'uplinks.lni-end',
  ])
  t.same(
    (await outcome({ ec2: { subnets: [onOutpost], interfaces: [first, own()] } })).steps,
    ['uplinks.lni-subnet', 'uplinks.lni-attach', 'uplinks.lni-end'],
    'made before the subnet was ready',
  )
  const attached = own({ attachment: attachment(1, { phase: 'attaching' }) })
  t.same((await outcome({ ec2: { interfaces: [first, attached] } })).steps, [
    'uplinks.lni-end',
    'uplinks.lni-appear',
  ])
  const ending = own({ attachment: attachment(1, { deleteOnTermination: true }) })
  t.same((await outcome({ ec2: { interfaces: [first, ending] } })).steps, ['uplinks.lni-appear'])
  const nics = { ens5: firstMac, ens6: lniMac }
  const settled = await outcome({ ec2: { interfaces: [first, ending] }, nics })
  t.same(settled.steps, [])
  t.same(settled.observed.lni, { mac: lniMac, name: 'ens6', interfaceId: 'eni-1', by: 'ec2' })
  t.same((await outcome({ ec2: { interfaces: [first, ending] }, nics }, { tags: { team: 'edge' } })).steps, [
    'uplinks.lni-tag',
  ])
})

t.test('the token', async (t) => {
  const token = async (gone: readonly string[], document = {}) => {
    const { whole } = await outcome({ ec2: { gone } }, document)
    return tokenOf(whole)
  }
  const usual = await token([])
  t.match(usual, /^[\x21-\x7e]{1,64}$/)
  t.equal(await token([], { tags: { a: 'b' } }), usual, 'what is wished of it otherwise does not matter')
  t.not(await token(['eni-9']), usual, 'one that was there and is gone is not asked for again')
})

t.test('what is in the way blocks, and says so', async (t) => {
  const foreign: Ec2Interface = { ...own(), id: 'eni-7', tags: {}, attachment: attachment(1) }
  const cases: readonly (readonly [string, World, Record<string, unknown>?])[] = [
    ['lni.not-on-outpost', { ec2: { subnets: [{ ...onOutpost, outpostArn: null }] } }],
    ['lni.no-subnet', { ec2: { subnets: [] } }],
    ['lni.no-subnet', { ec2: { subnetId: null, interfaces: [] } }],
    ['lni.subnet-index', { ec2: { subnets: [{ ...onOutpost, lniDeviceIndex: 2 }] } }],
    ['lni.index-taken', { ec2: { subnets: [onOutpost], interfaces: [first, foreign] } }],
    [
      'lni.other-index',
      { ec2: { interfaces: [first, own({ attachment: attachment(1) })] } },
      { deviceIndex: 2 },
    ],
    ['lni.other-index', { ec2: { interfaces: [first, own({ attachment: attachment(3) })] } }],
    ['lni.elsewhere', { ec2: { interfaces: [first, own({ subnetId: 'subnet-9' })] } }],
    [
      'lni.elsewhere',
      { ec2: { interfaces: [first, own({ attachment: attachment(1, { instanceId: 'i-1' }) })] } },
    ],
    [
      'lni.detaching',
      { ec2: { interfaces: [first, own({ attachment: attachment(1, { phase: 'detaching' }) })] } },
    ],
  ]
  for (const [code, world, document] of cases)
    t.same((await outcome(world, document)).steps, [`uplinks.lni blocked ${code}`], code)
})

t.test('a subnet that other hosts use is not changed by itself', async (t) => {
  const { steps } = await outcome({ ec2: { subnets: [onOutpost], othersAtIndex: ['eni-5'] } })
  t.equal(steps[0], 'uplinks.lni-subnet disruptive')
})

t.test('one that somebody else made is used and left alone', async (t) => {
  const foreign: Ec2Interface = { ...own(), id: 'eni-7', tags: {}, attachment: attachment(1) }
  const { steps, observed } = await outcome({
    ec2: { interfaces: [first, foreign] },
    nics: { ens5: firstMac, lan: lniMac },
  })
  t.same(steps, [])
  t.equal(observed.lni?.name, 'lan')
})

t.test('a second one is a finding, and the attached one is used', async (t) => {
  const attached = own({ id: 'eni-2', attachment: attachment(1, { deleteOnTermination: true }) })
  const { steps, findings } = await outcome({
    ec2: { interfaces: [first, own(), attached] },
    nics: { ens6: lniMac },
  })
  t.same(steps, [])
  t.same(findings, ['uplinks.lni-several'])
  t.same(
    (await outcome({ ec2: { interfaces: [first, own({ id: 'eni-3' }), own()] } })).whole[0]?.actions,
    [{ kind: 'ec2', operation: 'attach-interface', instanceId: me, interfaceId: 'eni-1', deviceIndex: 1 }],
    'of two unattached ones always the same',
  )
})

t.test('a Region that cannot be reached stops nothing that is there', async (t) => {
  const problem = new HostError('ec2.unreachable', 'ENOTFOUND')
  const nics = { ens5: firstMac, ens6: lniMac }
  const there = own({ attachment: attachment(1) })
  const answeredMs = nowMs - 3 * 3_600_000
  const earlier = await outcome({ ec2: { interfaces: [first, there] }, problem, answeredMs, nics })
  t.same(earlier.steps, [])
  t.same(earlier.findings, ['uplinks.lni-unknown'])
  t.equal(earlier.observed.lni?.by, 'ec2-earlier')
  t.equal(unknownPart(earlier.observed), 'EC2 unknown, last answer 3 h old')

  const never = await outcome({ ec2: null, answeredMs: null, problem, nics, metadata: facts(1) })
  t.same(never.steps, [])
  t.match(never.observed.lni, { name: 'ens6', by: 'metadata' })
  t.equal(unknownPart(never.observed), 'EC2 unknown, never answered')

  const early = await outcome({ ec2: null, answeredMs: null, problem, nics, metadata: facts(null) })
  t.same(early.steps, ['uplinks.lni blocked ec2.unreachable'], 'an index that is not told yet is none')

  const unplugged = await outcome({ ec2: { interfaces: [first, there] }, problem, answeredMs })
  t.same(unplugged.steps, ['uplinks.lni blocked ec2.unreachable'])

  const mute = new HostError('imds.unreachable', 'no answer')
  const dark = await outcome({ ec2: null, answeredMs: null, problem: mute, metadata: mute })
  t.same(dark.steps, ['uplinks.lni blocked imds.unreachable'])
  t.equal(dark.observed.instanceProblem?.code, 'imds.unreachable')

  const denied = new HostError('ec2.denied', 'no', { details: { action: 'ec2:DescribeSubnets' } })
  const { whole } = await outcome({ ec2: null, answeredMs: null, problem: denied })
  t.match(whole[0]?.blocked?.remedy, /Allow ec2:DescribeSubnets/)
})

t.test('off EC2 it is no finding, and blocks where it is asked for', async (t) => {
  const problem = new HostError('ec2.no-instance', 'no metadata')
  const { steps, findings } = await outcome({ ec2: null, answeredMs: null, problem })
  t.same(steps, ['uplinks.lni blocked ec2.no-instance'])
  t.same(findings, [])
  t.same((await outcome({ ec2: null, problem }, { ensure: false })).steps, [])
})

t.test('the document', async (t) => {
  t.same(lniSchema.parse({}), { ensure: true, deviceIndex: 1, tags: {} })
  for (const wrong of [
    { deviceIndex: 0 },
    { subnet: 'x' },
    { subnet: 'subnet-0123456789abcdef0\n' },
    { tags: { 'aws:x': 'y' } },
    { tags: { 'garrison:lni': 'y' } },
    { tags: { x: 'y'.repeat(257) } },
    { colour: 'red' },
  ])
    t.notOk(lniSchema.safeParse(wrong).success, JSON.stringify(wrong))
})
