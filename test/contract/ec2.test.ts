// The EC2 client and the local network interface against moto: from nothing to one interface, through every failure and every crash.

import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  CreateNetworkInterfaceCommand,
  CreateSubnetCommand,
  DeleteNetworkInterfaceCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSubnetsCommand,
  DetachNetworkInterfaceCommand,
  EC2Client,
  type NetworkInterface,
  RunInstancesCommand,
} from '@aws-sdk/client-ec2'
import t, { type Test } from 'tap'
import { Ec2 } from '../../agent/host/ec2.ts'
import { callEc2 } from '../../agent/host/ec2-call.ts'
import { Imds } from '../../agent/host/imds.ts'
import { desiredSchema } from '../../provisioning/desired.ts'
import { type Needed, neededOf, policyOf } from '../../provisioning/iam.ts'
import { EC2_ACTIONS, ownTag } from '../../provisioning/instance.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Failure, startEc2Front } from './ec2-front.ts'
import { startFakeImds, usualPaths } from './fake-imds.ts'
import { applyLni, type Ended, nicsPath } from './lni-agent.ts'
import { startMoto } from './moto.ts'

t.setTimeout(600_000)

const full = process.env.GARRISON_LAB_FULL === '1'
const region = ['us', 'east', '1'].join('-')
const moto = await startMoto()
const front = await startEc2Front(moto.endpoint)
const imds = await startFakeImds()
t.teardown(async () => {
  await front.close()
  await imds.close()
  await moto.stop()
})
Object.assign(process.env, {
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  AWS_CONFIG_FILE: '/dev/null',
  AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  AWS_ENDPOINT_URL_EC2: front.endpoint,
  AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.endpoint,
})

/** What a person with the rights of the account does, past the layer. */
const console = new EC2Client({ region, endpoint: moto.endpoint })
t.teardown(() => console.destroy())

const [network] = (await console.send(new DescribeSubnetsCommand({}))).Subnets ?? []
let subnetsMade = 0

/** A new instance on an Outposts server, alone in a new subnet, and the folder of the host that it is. */
async function newHost(t: Test) {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-lni-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  subnetsMade += 1
  const made = await console.send(
    new CreateSubnetCommand({
      VpcId: network?.VpcId,
      CidrBlock: `172.31.${128 + (subnetsMade >> 4)}.${(subnetsMade & 15) << 4}/28`,
    }),
  )
  const subnetId = made.Subnet?.SubnetId ?? ''
  front.setSubnet(subnetId, { outpostArn: 'arn-of-an-outpost' })
  const { Instances } = await console.send(
    new RunInstancesCommand({
      ImageId: 'ami-12345678',
      MinCount: 1,
      MaxCount: 1,
      SubnetId: subnetId,
      InstanceType: 'c6id.metal',
    }),
  )
  const instanceId = Instances?.[0]?.InstanceId ?? ''
  imds.paths.set('instance-id', instanceId)
  imds.paths.set('placement/region', region)
  front.calls.length = 0
  front.hidden = 0
  front.fail('*')
  /** The attach call hot-plugs the device. */
  front.onCall = async (action, at) => {
    if (action === 'AttachNetworkInterface' && at === 'performed') await plug()
  }
  const interfaces = async (): Promise<readonly NetworkInterface[]> =>
    (
      await console.send(
        new DescribeNetworkInterfacesCommand({ Filters: [{ Name: 'subnet-id', Values: [subnetId] }] }),
      )
    ).NetworkInterfaces?.filter(({ Attachment }) => Attachment?.DeviceIndex !== 0) ?? []
  const plug = async () => {
    const macs = (await interfaces()).flatMap(({ Attachment, MacAddress = '' }) =>
      Attachment ? MacAddress : [],
    )
    writeFileSync(nicsPath(folder), JSON.stringify(macs))
  }
  const reading = () =>
    new Ec2({
      imds: new Imds({ isInstance: async () => true }),
      memoryPath: join(folder, 'ec2.json'),
      clock: Date.now,
      freshMs: 0,
      call: (request) =>
        callEc2({ ...request, deadlineMs: 3000 }, { pauseMs: 5, connectMs: 500, requestMs: 300 }),
    })
  return { folder, subnetId, instanceId, interfaces, plug, reading }
}

type Host = Awaited<ReturnType<typeof newHost>>

/** That there is one interface, as it is wanted, by what EC2 says through the layer. */
async function oneInterface(t: Test, host: Host, note: string): Promise<void> {
  const found = await host.interfaces()
  t.equal(found.length, 1, `${note}: one interface`)
  t.same(found[0]?.TagSet, [{ Key: ownTag, Value: host.instanceId }], `${note}: tagged`)
  const { answer, problem } = await host.reading().network({ subnetId: null, deviceIndex: 1 })
  t.equal(problem, null)
  const own = answer?.interfaces.filter(({ tags }) => tags[ownTag] !== undefined) ?? []
  t.match(
    own.map(({ attachment }) => attachment),
    [{ instanceId: host.instanceId, deviceIndex: 1, deleteOnTermination: true }],
    `${note}: attached, and ends with the instance`,
  )
  t.equal(answer?.subnets.find(({ id }) => id === host.subnetId)?.lniDeviceIndex, 1)
}

const changing = Object.values(EC2_ACTIONS)
  .map((action) => action.replace('ec2:', ''))
  .filter((action) => !action.startsWith('Describe'))

const changes = (): readonly string[] => front.calls.filter((action) => changing.includes(action))

const whatEnded = ({ outcome, problems }: Pick<Ended, 'outcome' | 'problems'>) => [
  outcome,
  ...problems.map(({ code }) => code),
]

t.test('from nothing to one interface, and never again', async (t) => {
  const host = await newHost(t)
  t.same(whatEnded(await applyLni(host.folder)), ['settled'])
  t.same(changes(), [
    'ModifySubnetAttribute',
    'CreateNetworkInterface',
    'AttachNetworkInterface',
    'ModifyNetworkInterfaceAttribute',
  ])
  await oneInterface(t, host, 'made')
  const asked = changes().length
  t.same(whatEnded(await applyLni(host.folder)), ['settled'])
  t.equal(changes().length, asked, 'a second apply changes nothing')
  t.same(whatEnded(await applyLni(host.folder, { tags: { team: 'edge' } })), ['settled'])
  t.same(changes().slice(asked), ['CreateTags'])
})

t.test('an interface that was left unattached is used', async (t) => {
  const host = await newHost(t)
  const { NetworkInterface: left } = await console.send(
    new CreateNetworkInterfaceCommand({
      SubnetId: host.subnetId,
      TagSpecifications: [
        { ResourceType: 'network-interface', Tags: [{ Key: ownTag, Value: host.instanceId }] },
      ],
    }),
  )
  t.same(whatEnded(await applyLni(host.folder)), ['settled'])
  t.notOk(changes().includes('CreateNetworkInterface'))
  await oneInterface(t, host, 'adopted')
  t.equal((await host.interfaces())[0]?.NetworkInterfaceId, left?.NetworkInterfaceId)
})

t.test(
  'an interface that somebody deleted is made anew, and no other than by a token of its own',
  async (t) => {
    const host = await newHost(t)
    await applyLni(host.folder)
    const [first] = await host.interfaces()
    await console.send(
      new DetachNetworkInterfaceCommand({ AttachmentId: first?.Attachment?.AttachmentId, Force: true }),
    )
    await console.send(new DeleteNetworkInterfaceCommand({ NetworkInterfaceId: first?.NetworkInterfaceId }))
    rmSync(nicsPath(host.folder))
    const memory = JSON.parse(readFileSync(join(host.folder, 'ec2.json'), 'utf8'))
    writeFileSync(join(host.folder, 'ec2.json'), JSON.stringify({ ...memory, fresh: false }))
    t.same(whatEnded(await applyLni(host.folder)), ['settled'])
    await oneInterface(t, host, 'made anew')
    t.not((await host.interfaces())[0]?.NetworkInterfaceId, first?.NetworkInterfaceId)
  },
)

t.test('a token whose interface is gone without a trace leads on at the next try', async (t) => {
  const host = await newHost(t)
  front.onCall = async (action, at) => {
    if (action !== 'CreateNetworkInterface' || at !== 'performed') return
    front.onCall = () => {}
    const [made] = await host.interfaces()
    await console.send(new DeleteNetworkInterfaceCommand({ NetworkInterfaceId: made?.NetworkInterfaceId }))
  }
  const request = { region, deadlineMs: 1500, kind: 'action' } as const
  const action = {
    kind: 'ec2',
    operation: 'create-interface',
    instanceId: host.instanceId,
    subnetId: host.subnetId,
    clientToken: 'a-token',
    description: 'of a test',
    tags: { [ownTag]: host.instanceId },
    gone: [],
  } as const
  const imds = new Imds({ isInstance: async () => true })
  const ec2 = new Ec2({
    imds,
    memoryPath: join(host.folder, 'ec2.json'),
    clock: Date.now,
    freshMs: 0,
    call: (asked) => callEc2({ ...asked, deadlineMs: request.deadlineMs }, { pauseMs: 5 }),
  })
  const question = { subnetId: null, deviceIndex: 1 }
  t.same((await ec2.network(question)).answer?.gone, [])
  await t.rejects(ec2.perform(action), { code: 'ec2.not-visible' })
  t.equal((await ec2.network(question)).answer?.gone.length, 1, 'the next token is another one')
})

t.test('what EC2 does not show at once is waited for, and not made twice', async (t) => {
  const host = await newHost(t)
  front.hidden = 6
  t.same(whatEnded(await applyLni(host.folder)), ['settled'])
  await oneInterface(t, host, 'hidden at first')
  t.equal(changes().filter((action) => action === 'CreateNetworkInterface').length, 1)
})

t.test('a device that never appears is told, and nothing is made anew for it', async (t) => {
  const host = await newHost(t)
  front.onCall = () => {}
  t.same(whatEnded(await applyLni(host.folder, {}, { waitMs: 300 })), ['failed', 'lni.not-appeared'])
  const made = changes().length
  t.same(whatEnded(await applyLni(host.folder, {}, { waitMs: 300 })), ['failed', 'lni.not-appeared'])
  t.equal(changes().length, made, 'EC2 has done its part')
  await host.plug()
  t.same(whatEnded(await applyLni(host.folder)), ['settled'])
  await oneInterface(t, host, 'late')
})

t.test('answers that are lost, torn or refused for a moment end in one interface all the same', async (t) => {
  const passing: readonly Failure[] = [
    'throttled',
    'server-error',
    'reset',
    'torn',
    'performed-torn',
    'performed-reset',
    'silence',
  ]
  for (const action of [...changing.filter((one) => one !== 'CreateTags'), 'DescribeNetworkInterfaces'])
    for (const failure of passing) {
      const host = await newHost(t)
      front.fail(action, failure, failure)
      t.same(whatEnded(await applyLni(host.folder)), ['settled'], `${failure} of ${action}`)
      await oneInterface(t, host, `${failure} of ${action}`)
    }
})

t.test('each kind of failure is told apart', async (t) => {
  const host = await newHost(t)
  const cases: readonly (readonly [Failure, string])[] = [
    ['throttled', 'ec2.throttled'],
    ['server-error', 'ec2.server-error'],
    ['denied', 'ec2.denied'],
    ['expired', 'ec2.credentials-expired'],
    ['signature', 'ec2.credentials-refused'],
    ['silence', 'ec2.unreachable'],
    ['reset', 'ec2.unreachable'],
    ['torn', 'ec2.unreachable'],
    ['page', 'ec2.unexpected-answer'],
  ]
  const request = { kind: 'network', region, instanceId: host.instanceId, deadlineMs: 800 } as const
  const question = { subnetId: null, deviceIndex: 1 }
  const ask = async () => {
    try {
      return await callEc2({ ...request, question }, { pauseMs: 20, connectMs: 300, requestMs: 200 })
    } catch (error) {
      return error instanceof HostError ? error : Promise.reject(error)
    }
  }
  for (const [failure, code] of cases) {
    front.fail('*', ...Array<Failure>(500).fill(failure))
    const startedMs = performance.now()
    t.match(await ask(), { code }, failure)
    t.ok(performance.now() - startedMs < 4000, `${failure} ends at its deadline`)
  }
  front.fail('*')
  front.fail('DescribeSubnets', 'denied')
  t.match(await ask(), { details: { action: 'ec2:DescribeSubnets' }, remedy: /Allow ec2:DescribeSubnets/ })
  const { AWS_ENDPOINT_URL_EC2: endpoint, AWS_ACCESS_KEY_ID: key } = process.env
  process.env.AWS_ENDPOINT_URL_EC2 = 'http://ec2.invalid'
  t.match(await ask(), { code: 'ec2.unreachable' }, 'no name service')
  process.env.AWS_ENDPOINT_URL_EC2 = endpoint
  delete process.env.AWS_ACCESS_KEY_ID
  t.match(await ask(), { code: 'ec2.no-credentials' })
  process.env.AWS_ACCESS_KEY_ID = key
})

t.test('what is denied at a change names the action, and nothing else is asked for', async (t) => {
  for (const action of changing.filter((one) => one !== 'CreateTags')) {
    const host = await newHost(t)
    front.fail(action, 'denied')
    const { outcome, problems } = await applyLni(host.folder)
    t.equal(outcome, 'failed')
    t.match(problems[0], { code: 'ec2.denied', details: { action: `ec2:${action}` } }, action)
    t.equal(changes().at(-1), action)
    t.same(whatEnded(await applyLni(host.folder)), ['settled'], 'allowed by now')
    await oneInterface(t, host, action)
  }
})

t.test('what garrison iam prints is enough, and no statement of it is too much', async (t) => {
  const tags = { team: 'edge' }
  const uplinks = { lan: { lni: { tags }, address: 'dhcp' } }
  const neededBy = async (host: Host, instance?: string) => {
    imds.paths.set(`network/interfaces/macs/${imds.paths.get('mac')}/subnet-id`, host.subnetId)
    const document = desiredSchema.parse({ version: 1, host: { instance }, uplinks })
    return neededOf({ ...document, sources: {} }, await new Imds({ isInstance: async () => true }).instance())
  }
  const apply = async (host: Host, needed: readonly Needed[]) => {
    const policy = policyOf(needed)
    front.allowed = policy && { policy, region }
    const ended = await applyLni(host.folder, { tags })
    front.allowed = null
    return ended
  }
  const host = await newHost(t)
  const needed = await neededBy(host)
  t.same(whatEnded(await apply(host, needed)), ['settled'])
  for (const { statement } of needed) {
    const poor = await newHost(t)
    const rest = (await neededBy(poor)).filter((one) => one.statement.Sid !== statement.Sid)
    const { problems, assessments } = await apply(poor, rest)
    const denied = problems[0] ?? assessments[0]?.steps[0]?.blocked
    t.match(denied, { code: 'ec2.denied', remedy: /garrison iam/ }, `without ${statement.Sid}`)
    const { action } = { action: null, ...(denied?.details as object | undefined) }
    t.ok(statement.Action.includes(String(action)), `${denied?.message}`)
  }
  const own = await newHost(t)
  t.same(whatEnded(await apply(own, await neededBy(own, own.instanceId))), ['settled'], 'for it alone')
  const other = await newHost(t)
  t.same(whatEnded(await apply(other, await neededBy(other, own.instanceId))), ['failed', 'ec2.denied'])
})

t.test(
  'a Region that is out of reach after the first run: what is there goes on, with its age',
  async (t) => {
    const host = await newHost(t)
    await applyLni(host.folder)
    front.fail('*', ...Array<Failure>(1000).fill('reset'))
    const memory = JSON.parse(readFileSync(join(host.folder, 'ec2.json'), 'utf8'))
    const answeredMs = Date.now() - 7_200_000
    writeFileSync(join(host.folder, 'ec2.json'), JSON.stringify({ ...memory, answeredMs }))
    const ec2 = host.reading()
    const reading = await ec2.network({ subnetId: null, deviceIndex: 1 })
    t.match(reading, { answeredMs, problem: { code: 'ec2.unreachable' } })
    const asked = front.calls.length
    t.match(await ec2.network({ subnetId: null, deviceIndex: 1 }), {
      problem: { message: /asked again in \d+ s/ },
    })
    t.equal(front.calls.length, asked, 'and is left alone for a while')
    const ended = await applyLni(host.folder)
    t.equal(ended.outcome, 'settled', 'nothing is planned, nothing blocked')
    t.same(
      ended.assessments[0]?.findings.map(({ code }) => code),
      ['uplinks.lni-unknown'],
    )
    t.match(ended.assessments[0]?.findings[0]?.text, /last answer 2 h old/)
  },
)

/** One apply in a process of its own: what it says at its end, null when it was killed. */
function startApply(folder: string) {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'lni-agent.ts'), folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: process.env,
  })
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const ended = new Promise<Pick<Ended, 'outcome' | 'problems'> | null>((resolve) =>
    child.once('close', (_, signal) => resolve(signal === null ? JSON.parse(said) : null)),
  )
  return { child, ended }
}

/** One apply, killed where `at` says: how it ended, and how many calls it made. */
async function applyKilled(host: Host, at: (call: number, when: 'asked' | 'performed') => boolean) {
  front.calls.length = 0
  const { child, ended } = startApply(host.folder)
  front.onCall = async (action, when, call) => {
    if (action === 'AttachNetworkInterface' && when === 'performed') await host.plug()
    if (!at(call, when)) return
    child.kill('SIGKILL')
    // What is killed asks for nothing more; what it asked for already is on its way.
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return { end: await ended, calls: front.calls.length }
}

t.test('killed between every two calls: one interface, tagged, that ends with the instance', async (t) => {
  const whole = await newHost(t)
  const { calls, end } = await applyKilled(whole, () => false)
  t.equal(end?.outcome, 'settled')
  t.ok(calls > 15, `${calls} calls`)
  const points = Array.from({ length: calls }, (_, at) => at + 1).flatMap((call) => [
    [call, 'asked'] as const,
    [call, 'performed'] as const,
  ])
  // Where something is changed in any case; of what is only looked at one in five, unless all are asked for.
  const changed = front.calls.slice(-calls).flatMap((action, at) => (changing.includes(action) ? at + 1 : []))
  const day = Math.floor(Date.now() / 86_400_000)
  const drawn = points.filter(([call], at) => full || changed.includes(call) || (at + day) % 5 === 0)
  for (const [call, when] of drawn) {
    const host = await newHost(t)
    const note = `killed when call ${call} was ${when}`
    const { end, calls: made } = await applyKilled(host, (at, what) => at === call && what === when)
    // One that needed fewer looks than the first was done before.
    t.ok(end === null || made < call, note)
    t.same(whatEnded(await applyLni(host.folder)), ['settled'], note)
    await oneInterface(t, host, note)
  }
  t.comment(`${drawn.length} of ${points.length} points`)
})

t.test('killed twice', async (t) => {
  for (const [first, second] of [
    [3, 2],
    [9, 4],
    [12, 7],
    [14, 14],
  ]) {
    const host = await newHost(t)
    for (const call of [first, second])
      await applyKilled(host, (at, what) => at === call && what === 'performed')
    t.same(whatEnded(await applyLni(host.folder)), ['settled'])
    await oneInterface(t, host, `killed at ${first} and then at ${second}`)
  }
})

t.test('ten applies at once, each with a memory of its own, make one interface', async (t) => {
  const host = await newHost(t)
  const folders = Array.from({ length: 10 }, (_, at) => join(host.folder, String(at)))
  for (const folder of folders) mkdirSync(folder)
  front.onCall = async (action, at) => {
    if (action !== 'AttachNetworkInterface' || at !== 'performed') return
    await host.plug()
    for (const folder of folders) copyFileSync(nicsPath(host.folder), nicsPath(folder))
  }
  const ends = await Promise.all(folders.map((folder) => startApply(folder).ended))
  for (const end of ends) t.same(end && whatEnded(end), ['settled'])
  await oneInterface(t, host, 'by ten')
})

t.test('the paths of the metadata are those of an instance', async (t) => {
  t.ok([...imds.paths.keys()].every((path) => path in usualPaths))
})
