// What garrison iam prints, document by document. That it is enough for EC2 is shown in test/contract/ec2.test.ts.

import t from 'tap'
import { exitOf, render, run } from '../../agent/verbs/iam.ts'
import { desiredSchema } from '../../provisioning/desired.ts'
import { neededOf, policyOf } from '../../provisioning/iam.ts'
import type { InstanceFacts } from '../../provisioning/instance.ts'
import { HostError } from '../../provisioning/problem.ts'

const subnetId = 'subnet-0123456789abcdef0'

const facts: InstanceFacts = {
  instanceId: 'i-0123456789abcdef0',
  region: 'xx-test-1',
  zone: 'xx-test-1a',
  partition: 'aws-xx',
  outpostArn: null,
  mac: '02:00:00:00:00:10',
  interfaces: [
    { mac: '02:00:00:00:00:11', deviceNumber: 1, interfaceId: 'eni-1', subnetId: 'subnet-0' },
    { mac: '02:00:00:00:00:10', deviceNumber: 0, interfaceId: 'eni-0', subnetId },
  ],
}

const document = (more: Record<string, unknown>) => ({
  ...desiredSchema.parse({ version: 1, ...more }),
  sources: {},
})

/** Written in parts: no ARN stands in the sources. */
const arn = (...parts: readonly string[]): string => ['arn', ...parts].join(':')

const lan = (lni: Record<string, unknown>) => ({ uplinks: { lan: { lni, address: 'dhcp' } } })

const statements = (more: Record<string, unknown>, known: InstanceFacts | null = facts) =>
  policyOf(neededOf(document(more), known))?.Statement ?? []

const sids = (more: Record<string, unknown>) => statements(more).map(({ Sid }) => Sid)

t.test('to look for the hosts of a fleet by their tag', async (t) => {
  t.match(statements({ fleet: { discover: {} } }), [
    {
      ...{ Sid: 'GarrisonFleet', Action: ['ec2:DescribeInstances'], Resource: ['*'] },
      Condition: { StringEquals: { 'aws:RequestedRegion': 'xx-test-1' } },
    },
  ])
  t.same(sids({ fleet: {} }), [])
})

t.test('a document that asks nothing of AWS needs no policy', async (t) => {
  t.equal(policyOf(neededOf(document({}), facts)), null)
  t.equal(
    policyOf(neededOf(document({ uplinks: { lan: { match: { mac: '02:00:00:00:00:11' } } } }), facts)),
    null,
  )
})

t.test('the local network interface', async (t) => {
  t.same(sids(lan({ ensure: false })), ['GarrisonLook'], 'one that is only used is only looked at')
  const made = ['GarrisonSubnet', 'GarrisonCreate', 'GarrisonCreateIn', 'GarrisonCreateTagged']
  t.same(sids(lan({})), ['GarrisonLook', ...made, 'GarrisonAttach', 'GarrisonAttachTo'])
  t.same(sids(lan({ tags: { team: 'edge' } })), [
    ...['GarrisonLook', ...made, 'GarrisonTag'],
    ...['GarrisonAttach', 'GarrisonAttachTo'],
  ])
  const subnets = (more: Record<string, unknown>, known: InstanceFacts | null) =>
    statements(lan(more), known).find(({ Sid }) => Sid === 'GarrisonSubnet')?.Resource
  t.same(
    subnets({}, facts),
    [arn('aws-xx', 'ec2', 'xx-test-1', '*', `subnet/${subnetId}`)],
    'that of its first interface',
  )
  t.same(subnets({ subnet: subnetId }, { ...facts, interfaces: [] }), [
    arn('aws-xx', 'ec2', 'xx-test-1', '*', `subnet/${subnetId}`),
  ])
  t.same(subnets({}, null), [arn('aws', 'ec2', '*', '*', 'subnet/*')], 'off the instance it is left open')
  const forOne = statements({ ...lan({}), host: { instance: facts.instanceId } })
  t.match(JSON.stringify(forOne), `instance/${facts.instanceId}`)
  t.notMatch(JSON.stringify(forOne), 'i-*', 'a document for one instance is a policy for it alone')
  t.match(
    JSON.stringify(statements({ ...lan({}), host: { instance: 'a1b2' } })),
    'i-*',
    'a machine-id is none',
  )
})

t.test('images on S3, one object each', async (t) => {
  const disk = (source: string) => ({
    image: { source, ...(source.startsWith('/') ? {} : { checksum: `sha256:${'0'.repeat(64)}` }) },
  })
  const machine = (sources: readonly string[]) => ({
    disks: Object.fromEntries(sources.map((source, at) => [`d${at}`, disk(source)])),
  })
  const vms = {
    pools: { images: { path: '/var/lib/images' } },
    machines: {
      one: machine(['s3://bucket/a.qcow2', '/srv/b.qcow2', 'https://example.com/c.qcow2']),
      two: machine(['s3://bucket/a.qcow2', 's3://bucket/odd *?$.qcow2']),
    },
  }
  const variables = ['*', '?', '$'].map((one) => `$\{${one}}`).join('')
  t.same(statements({ vms }), [
    {
      Sid: 'GarrisonImages',
      Effect: 'Allow',
      Action: ['s3:GetObject'],
      Resource: [
        arn('aws-xx', 's3', '', '', 'bucket/a.qcow2'),
        arn('aws-xx', 's3', '', '', `bucket/odd ${variables}.qcow2`),
      ],
    },
  ])
})

t.test('CloudWatch: the namespace of the document, and its log group', async (t) => {
  const [put, get, ...none] = statements({ cloudwatch: { namespace: 'Edge' } })
  t.match(put, {
    Action: ['cloudwatch:PutMetricData'],
    Condition: { StringEquals: { 'cloudwatch:namespace': 'Edge' } },
  })
  t.match(get, { Action: ['cloudwatch:GetMetricData'] })
  t.same(none, [], 'no logs where none are sent')
  const [, there, group, events] = statements({
    cloudwatch: { region: 'xx-other-2', logs: { group: '/edge' } },
  })
  t.match(there?.Condition, { StringEquals: { 'aws:RequestedRegion': 'xx-other-2' } })
  const named = arn('aws-xx', 'logs', 'xx-other-2', '*', 'log-group', '/edge')
  t.same(group?.Resource, [named, `${named}:*`])
  t.same(events?.Resource, [`${named}:log-stream:*`])
})

t.test('the verb', async (t) => {
  const parts = (instance: () => Promise<InstanceFacts | null>, more: Record<string, unknown>) => ({
    parts: async () =>
      ({
        reader: { instance },
        documentFolder: '/etc/garrison',
        document: async () => ({ desired: document(more), digest: '0' }),
      }) as never,
  })
  const host = { file: undefined }
  const answer = await run(
    host,
    parts(async () => facts, lan({})),
  )
  t.match(answer, { file: '/etc/garrison', region: 'xx-test-1', problem: null })
  t.same(answer.because[0], { sid: 'GarrisonLook', path: 'uplinks.lan.lni' })
  t.same(JSON.parse(render(answer)), answer.policy, 'what is printed is the policy')
  t.equal(exitOf(), 0)
  const silent = () => Promise.reject(new HostError('imds.unreachable', 'instance metadata: silence'))
  t.match(await run({ file: 'host.yaml' }, parts(silent, lan({}))), {
    ...{ file: 'host.yaml', region: null, problem: { code: 'imds.unreachable' } },
    policy: { Version: '2012-10-17' },
  })
  const nothing = await run(
    host,
    parts(async () => null, {}),
  )
  t.match(render(nothing), /asks nothing of AWS/)
})
