// The local network interface of an Outposts server, from nothing to an address on the LAN, with the agent killed on the way.

import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { ownTag } from '../../provisioning/instance.ts'
import { makeAws } from './aws.ts'
import { garrison, installGarrison, settle, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'
import { makeOutpost } from './outpost.ts'
import { sample, seed } from './sample.ts'

t.setTimeout(0)

const eniMac = '02:00:00:00:00:01'

const document = JSON.stringify({
  version: 1,
  uplinks: { eni: { match: { mac: eniMac }, management: true }, lan: { lni: {}, address: 'dhcp' } },
})

/** Every point at which the root side is killed, in the order in which an apply comes by. */
const points = [
  'ModifySubnetAttribute',
  'CreateNetworkInterface',
  'AttachNetworkInterface',
  'ModifyNetworkInterfaceAttribute',
].flatMap((action) => [[action, 'asked'] as const, [action, 'performed'] as const])

/** The IPv4 address that the NIC with a MAC has, or null. */
async function addressOf(guest: Guest, mac: string): Promise<string | null> {
  const links: { address: string; addr_info: { family: string; local: string }[] }[] = JSON.parse(
    (await guest.run(['ip', '-json', 'address', 'show'])).stdout,
  )
  const link = links.find(({ address }) => address === mac)
  return link?.addr_info.find(({ family }) => family === 'inet')?.local ?? null
}

t.test('one interface, tagged, attached and with an address of the LAN', async (t) => {
  await using outpost = await makeOutpost()
  const eni = outpost.port('vpc', eniMac)
  await using aws = await makeAws(outpost, eniMac)
  await using guest = await bootGuest({ instanceId: aws.instanceId, prepared: true, drives: [], nics: [eni] })
  await aws.prepare(guest)
  await installGarrison(guest)
  await writeDocument(guest, document)
  const { front } = aws
  const left = new Set(sample(points, 1).map((point) => point.join(' ')))
  t.comment(`seed ${seed}: killed when ${[...left].join(', ')}`)
  const operate = 'garrison-operate.service'
  let kills = 0
  front.onCall = async (action, at) => {
    if (action === 'AttachNetworkInterface' && at === 'performed') await aws.plug(guest)
    if (!left.has(`${action} ${at}`)) return
    // A call outlives the process that made it; only one that still waits for the answer is killed.
    const { exit } = await guest.run(['systemctl', 'is-active', '--quiet', operate], { allowFailure: true })
    if (exit !== 0) return
    left.delete(`${action} ${at}`)
    kills += 1
    await guest.run(['systemctl', 'kill', '--signal=KILL', operate])
  }
  let applies = 0
  for (const endMs = performance.now() + 1_200_000; ; await pause(5000)) {
    applies += 1
    const { exit, lines, stderr } = await garrison(guest, ['apply'])
    if (exit === 0) break
    t.comment(
      `apply ${applies} ended with ${exit}: ${JSON.stringify(lines.at(-1))?.slice(0, 1500)} ${stderr}`,
    )
    if (performance.now() > endMs) throw new Error(`no end after ${applies} applies`)
  }
  t.ok(kills > 0, `killed ${kills} times, settled by apply ${applies}`)

  const [made, ...more] = await aws.interfaces()
  t.same(more, [], 'there is one')
  t.same(made?.TagSet, [{ Key: ownTag, Value: aws.instanceId }])
  t.match(made?.Attachment, { InstanceId: aws.instanceId, DeviceIndex: 1 })
  const own = await addressOf(guest, made?.MacAddress ?? '')
  t.match(own, /^192\.0\.2\.1[0-5]\d$/, 'the LAN has given it an address')
  t.not(own, made?.PrivateIpAddress, 'which is not that of EC2')
  t.ok(await outpost.reaches('lan', own ?? ''), 'the LAN reaches the host')

  const known = await garrison(guest, ['instance'])
  const interfaces = [
    { mac: eniMac, deviceNumber: 0 },
    { mac: made?.MacAddress, deviceNumber: 1 },
  ]
  t.match(known.lines[0], { instance: { instanceId: aws.instanceId, interfaces } }, 'as the metadata say')

  const changes = front.calls.filter((action) => !action.startsWith('Describe')).length
  const again = await settle(guest)
  t.equal(again.lines.at(-1).performed, 0, 'settled is settled')
  t.equal(front.calls.filter((action) => !action.startsWith('Describe')).length, changes)

  front.fail('*', ...Array<'silence'>(1000).fill('silence'))
  await guest.run(['sed', '-i', 's/"fresh":true/"fresh":false/', '/var/lib/garrison/ec2.json'])
  await settle(guest)
  const unreachable = await garrison(guest, ['status', '--fresh'])
  const uplinks = unreachable.lines[0].resources.find(
    (one: { resource: string }) => one.resource === 'uplinks',
  )
  t.equal(uplinks.standing, 'settled', 'without the Region what is there goes on')
  t.ok(await outpost.reaches('lan', own ?? ''))
})
