// Hosts of a fleet found by the tag of their instances in an EC2 that is stood for by moto, and remembered while it is away.

import { CreateTagsCommand, EC2Client, RunInstancesCommand } from '@aws-sdk/client-ec2'
import t from 'tap'
import type { Address } from '../../agent/peers/address.ts'
import { Discovery } from '../../agent/peers/discovery.ts'
import { FleetFolder } from '../../agent/peers/folder.ts'
import { run } from '../../agent/verbs/ec2-call.ts'
import { until } from './fleet-world.ts'
import { startMoto } from './moto.ts'

t.setTimeout(200_000)
const region = ['us', 'east', '1'].join('-')
const moto = await startMoto()
t.teardown(() => moto.stop())
Object.assign(process.env, {
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  AWS_CONFIG_FILE: '/dev/null',
  AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  AWS_ENDPOINT_URL_EC2: moto.endpoint,
})
const ec2 = new EC2Client({ region, endpoint: moto.endpoint })
t.teardown(() => ec2.destroy())

/** Starts an instance with a tag; answers its address. */
async function launch(tag: string, value: string): Promise<string> {
  const made = await ec2.send(new RunInstancesCommand({ ImageId: 'ami-12345678', MinCount: 1, MaxCount: 1 }))
  const { InstanceId = '', PrivateIpAddress = '' } = made.Instances?.[0] ?? {}
  await ec2.send(new CreateTagsCommand({ Resources: [InstanceId], Tags: [{ Key: tag, Value: value }] }))
  return PrivateIpAddress
}

const tag = 'garrison-host'
const h05 = await launch(tag, 'h05')
const h06 = await launch(tag, 'h06')
await launch('Name', 'h07')

const ask = async () => {
  const request = JSON.stringify({ kind: 'tagged', region, tag, deadlineMs: 3000 })
  return (await run({ request })).answer as Readonly<Record<string, readonly string[]>>
}

await t.test('instances with the tag, by its value', async (t) => {
  t.same(await ask(), { h05: [h05], h06: [h06] })
})

await t.test('what was found is tried, and remembered while the Region is away', async (t) => {
  const folder = new FleetFolder(t.testdir())
  const found: Readonly<Record<string, readonly Address[]>>[] = []
  const told: string[] = []
  const ground = {
    ...{ folder, tag, port: 7443, everyMs: 50 },
    found: (hosts: Readonly<Record<string, readonly Address[]>>) => void found.push(hosts),
    log: { error: (_: object, text: string) => void told.push(text) },
  }
  const first = new Discovery({ ...ground, ask })
  await first.begin()
  await until('it was told', () => found.length === 1)
  t.same(found[0], {
    h05: [{ over: 'eni', host: h05, port: 7443 }],
    h06: [{ over: 'eni', host: h06, port: 7443 }],
  })
  await launch(tag, 'No Name Of A Host')
  const h08 = await launch(tag, 'h08')
  await until('a new one is found', () => found.at(-1)?.h08 !== undefined)
  t.equal(found.at(-1)?.h08?.[0]?.host, h08)
  t.equal(Object.keys(found.at(-1) ?? {}).length, 3)
  first.close()

  found.length = 0
  process.env.AWS_ENDPOINT_URL_EC2 = 'http://127.0.0.1:9'
  const second = new Discovery({ ...ground, ask })
  await second.begin()
  t.same(Object.keys(found[0] ?? {}), ['h05', 'h06', 'h08'], 'at once, from the disk')
  await until('it tells that it cannot ask', () => second.problem !== null, 20_000)
  t.match(second.problem, /DescribeInstances/)
  t.equal(told.length, 1)
  process.env.AWS_ENDPOINT_URL_EC2 = moto.endpoint
  await until('it asks again', () => second.problem === null, 20_000)
  t.equal(found.length, 1, 'and nothing has changed')
  second.close()

  const other = new Discovery({ ...ground, tag: 'another', ask: async () => ({}) })
  await other.begin()
  t.equal(found.length, 1, 'what was found by another tag is not taken')
  other.close()
})
