// VM networks by the engine over a real libvirtd, on a wire that passes one MAC: who reaches whom in each mode.

import t from 'tap'
import type { ShownPaths } from '../../agent/verbs/network-show.ts'
import type { Plan } from '../../agent/verbs/plan.ts'
import type { Status } from '../../agent/verbs/status.ts'
import type { Why } from '../../agent/verbs/why.ts'
import { probed } from '../unit/vmnets-host.ts'
import { everything, lniMac, routed, vmnetsWire } from './vmnets-world.ts'

const wire = await vmnetsWire()
t.teardown(() => wire.stop())
const { host, at, reaches, declare, macOfNeighbour } = wire

t.test('from nothing to three networks, and then nothing more', async (t) => {
  declare(everything)
  const planned = await wire.answer<Plan>('plan')
  t.match(planned.text, /routed on lni: no probe has proved that a second MAC\s+passes/)
  t.match((await wire.apply()).line, { outcome: 'settled', problems: [] })
  t.match(await wire.apply(), { exit: 0, line: { outcome: 'settled', performed: 0 } })
  const status = await wire.answer<Status>('status', { fresh: true })
  t.match(status.line.resources[0], { summary: 'default = routed on lni, 2 more', findings: [] })
})

t.test('routed: reached and reaching, under the one MAC, and no further than declared', async (t) => {
  const { mac } = await wire.boot('a', 'default')
  wire.configure('a', ['192.0.2.70/27', '2001:db8:1::170/120'], ['192.0.2.65', '2001:db8:1::101'])
  for (const [from, to] of [
    ['lan', '192.0.2.70'],
    ['lan', '2001:db8:1::170'],
    ['a', '192.0.2.10'],
    ['a', '203.0.113.9'],
    ['a', '2001:db8:9::9'],
    ['gw', '192.0.2.70'],
  ] as const)
    t.ok(reaches(from, to), `${from} reaches ${to}`)
  for (const [from, to] of [
    ['a', '169.254.169.254'],
    ['a', '10.20.0.1'],
    ['vpc', '192.0.2.70'],
  ] as const)
    t.notOk(reaches(from, to), `${from} does not reach ${to}`)
  t.equal(await wire.exchange('lan', 7001, 'a', '192.0.2.10'), '192.0.2.70 hello', 'with its own address')
  t.equal(macOfNeighbour('192.0.2.70'), lniMac)
  t.equal(macOfNeighbour('192.0.2.90'), lniMac, 'for an address of the slice that no VM has yet, too')
  t.equal(macOfNeighbour('192.0.2.100'), 'nobody', 'for no other address of the LAN')
  t.equal(macOfNeighbour('2001:db8:1::170'), lniMac)
  t.equal(macOfNeighbour('2001:db8:1::300'), 'nobody')
  t.match((await wire.answer<Plan>('plan')).line.steps, [{ key: 'vmnets.reserve default' }])
  t.match((await wire.apply()).line, { outcome: 'settled', performed: 1 })
  t.match(wire.virsh('net-dumpxml', 'default'), new RegExp(`<host mac='${mac}' name='a' ip='192.0.2.70'`))
})

t.test('a VM is given its reserved address, and the way of its traffic is told', async (t) => {
  t.equal(wire.lease('a'), '192.0.2.70')
  const shown = await wire.answer<ShownPaths>('network show', { vm: 'a' })
  t.equal(shown.exit, 0, shown.text ?? '')
  t.match(shown.line.paths, [{ mode: 'routed', addresses: ['192.0.2.70'] }])
  t.same(
    shown.line.paths[0]?.hops.map((hop) => hop.at).filter((place) => !place.startsWith('vnet')),
    ['guest', 'vm-default', 'kernel', 'rules', 'routes', 'lni', 'answers', 'router', 'router'],
  )
  t.ok((shown.line.paths[0]?.hops[1]?.counts?.receivedPackets ?? 0) > 10)
  const tap = shown.line.paths[0]?.hops[1]?.at ?? ''
  for (const [cut, mend, place] of [
    [
      ['/usr/sbin/ip', 'link', 'set', tap, 'nomaster'],
      ['/usr/sbin/ip', 'link', 'set', tap, 'master', 'vm-default'],
      tap,
    ],
    [
      ['/usr/sbin/sysctl', '-qw', 'net.ipv4.ip_forward=0'],
      ['/usr/sbin/sysctl', '-qw', 'net.ipv4.ip_forward=1'],
      'kernel',
    ],
    [
      ['/usr/sbin/ip', 'route', 'delete', 'default', 'table', '5210'],
      [
        '/usr/sbin/ip',
        'route',
        'add',
        'default',
        'via',
        '192.0.2.1',
        'dev',
        'lni',
        'table',
        '5210',
        'proto',
        'kernel',
      ],
      'routes',
    ],
    [
      ['/usr/sbin/ip', 'neigh', 'delete', 'proxy', '192.0.2.71', 'dev', 'lni'],
      ['/usr/sbin/ip', 'neigh', 'add', 'proxy', '192.0.2.71', 'dev', 'lni'],
      'answers',
    ],
  ] as const) {
    host(...cut)
    const { line, exit, text } = await wire.answer<ShownPaths>('network show', { vm: 'a' })
    t.equal(exit, 3)
    t.match(line.paths[0]?.hops.at(-1), { at: place, stop: { remedy: /./ } }, text ?? '')
    host(...mend)
  }
  wire.cable('p-lni', 'down')
  const why = await wire.answer<Why>('why', { subject: 'vm', name: 'a', part: 'network' })
  t.match(why.text, /Its traffic stops at lni: lni has no carrier/)
  wire.cable('p-lni', 'up')
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.match(await wire.answer('network show', { vm: 'nobody' }), { line: { code: 'request.no-such-vm' } })
})

t.test('a VM with a MAC of its own on the wire is dropped there', async (t) => {
  host('/usr/sbin/ip', 'link', 'add', 'own', 'link', 'lni', 'type', 'macvlan', 'mode', 'bridge')
  t.teardown(() => host('/usr/sbin/ip', 'link', 'delete', 'own'))
  host('/usr/sbin/ip', 'address', 'add', '192.0.2.50/32', 'dev', 'own')
  host('/usr/sbin/ip', 'link', 'set', 'own', 'up')
  t.throws(() => host('/usr/bin/ping', '-c', '2', '-W', '1', '-I', 'own', '192.0.2.10'))
  wire.remember('network-probe/lni.json', probed('dropped', lniMac))
  declare({ ...everything, wide: { mode: 'bridge', uplink: 'lni' } })
  const { line } = await wire.answer<Plan>('plan')
  t.match(
    line.steps.map(({ blocked }) => blocked?.code),
    ['vmnet.second-mac-unproved'],
  )
  declare(everything)
})

t.test('nat: reaching out under the address of the host, reached by its ports alone', async (t) => {
  await wire.boot('n', 'hidden')
  wire.configure('n', ['10.77.0.9/24', 'fd77::9/120'], ['10.77.0.1', 'fd77::1'])
  for (const [from, to] of [
    ['n', '192.0.2.10'],
    ['n', '203.0.113.9'],
    ['n', '2001:db8:9::9'],
    ['n', '192.0.2.70'],
  ] as const)
    t.ok(reaches(from, to), `${from} reaches ${to}`)
  at('lan', '/usr/sbin/ip', 'route', 'add', '10.77.0.0/24', 'via', '192.0.2.20')
  t.notOk(reaches('lan', '10.77.0.9'), 'not from the LAN, whatever route that has')
  t.notOk(reaches('a', '10.77.0.9'), 'nor from another network')
  t.equal(await wire.exchange('lan', 7002, 'n', '192.0.2.10'), '192.0.2.20 hello')
  t.equal(await wire.exchange('n', 80, 'lan', '192.0.2.20', 8080), '192.0.2.10 hello')
  t.equal(await wire.exchange('n', 80, 'lan', '192.0.2.20', 8081), 'nothing', 'a source that is not declared')
})

t.test('isolated: each other and the host’s DHCP, and nothing else', async (t) => {
  await wire.boot('i', 'alone')
  await wire.boot('j', 'alone')
  wire.configure('i', ['10.88.0.8/24'], ['10.88.0.1'])
  wire.configure('j', ['10.88.0.9/24'], ['10.88.0.1'])
  t.ok(reaches('i', '10.88.0.9'))
  t.ok(reaches('i', '10.88.0.1'))
  t.notOk(reaches('i', '192.0.2.10'))
  t.notOk(reaches('i', '192.0.2.70'))
})

t.test('an address that is not of the network goes nowhere', async (t) => {
  wire.configure('a', ['192.0.2.99/32'], [])
  t.equal(at('a', '/usr/bin/ping', '-c', '1', '-W', '1', '-I', '192.0.2.99', '203.0.113.9').exit, 1)
  t.match(
    host('/usr/sbin/nft', 'list', 'chain', 'inet', 'garrison_vms', 'out-default'),
    /packets [1-9]\d* bytes \d+ drop comment "default\.spoofed-ipv4/,
  )
  at('a', '/usr/sbin/ip', 'address', 'delete', '192.0.2.99/32', 'dev', 'eth0')
})

t.test('a VM opens no connection to the host', async (t) => {
  const server = await wire.exchange('lan', 7003, 'a', '192.0.2.20')
  t.equal(server, 'nothing')
  t.ok(reaches('a', '192.0.2.20'), 'but may see that it is there')
})

t.test(
  'a VM takes no address that is kept for another, nor that of the gateway; and is kept from others',
  async (t) => {
    const apart = { mode: 'isolated', isolate: true, ipv4: { subnet: '10.89.0.0/24' } }
    declare({ ...everything, default: { ...routed, antiSpoofing: true }, apart })
    t.match((await wire.apply()).line, { outcome: 'settled' })
    await wire.boot('b', 'default')
    wire.configure('b', ['192.0.2.70/27'], ['192.0.2.65'])
    const pings = (address: string, to: string): boolean =>
      at('b', '/usr/bin/ping', '-c', '2', '-W', '1', '-I', address, to).exit === 0
    t.notOk(pings('192.0.2.70', '192.0.2.65'), 'as a')
    t.ok(reaches('lan', '192.0.2.70'), 'a is still reached')
    const shown = await wire.answer<ShownPaths>('network show', { vm: 'b' })
    t.match(
      JSON.stringify(shown.line),
      /dropped \d+ by default\.a\.taken-/,
      'and it is told what was dropped',
    )
    at('b', '/usr/sbin/ip', 'address', 'flush', 'dev', 'eth0')
    wire.configure('b', ['192.0.2.65/27'], [])
    t.notOk(pings('192.0.2.65', '192.0.2.70'), 'as the gateway')
    at('b', '/usr/sbin/ip', 'address', 'flush', 'dev', 'eth0')
    wire.configure('b', ['192.0.2.80/27'], ['192.0.2.65'])
    t.ok(pings('192.0.2.80', '192.0.2.10'), 'with one that is free it is let')
    await wire.boot('k', 'apart')
    await wire.boot('l', 'apart')
    wire.configure('k', ['10.89.0.8/24'], [])
    wire.configure('l', ['10.89.0.9/24'], [])
    t.ok(reaches('k', '10.89.0.1'))
    t.notOk(reaches('k', '10.89.0.9'))
    for (const vm of ['b', 'k', 'l']) wire.virsh('destroy', vm)
    declare(everything)
    t.match((await wire.apply()).line, { outcome: 'settled' })
    t.throws(
      () => host('/usr/sbin/nft', 'list', 'table', 'bridge', 'garrison_vms'),
      'the table is gone with it',
    )
  },
)
