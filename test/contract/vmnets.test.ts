// VM networks by the engine over a real libvirtd, on a wire that passes one MAC: who reaches whom in each mode, and what is mended.

import t from 'tap'
import type { Plan } from '../../agent/verbs/plan.ts'
import type { Status } from '../../agent/verbs/status.ts'
import { lniMac, vmnetsWire } from './vmnets-world.ts'

const wire = await vmnetsWire('vmnets')
t.teardown(() => wire.stop())
const { host, at, reaches } = wire

const lans = {
  lni: {
    ipv4: { subnet: '192.0.2.0/24', router: '192.0.2.1', dhcp: { from: '192.0.2.128', to: '192.0.2.254' } },
    ipv6: { subnet: '2001:db8:1::/64', router: '2001:db8:1::1' },
  },
}
const routed = {
  uplink: 'lni',
  ipv4: { subnet: '192.0.2.64/27' },
  ipv6: { subnet: '2001:db8:1::100/120' },
  reservations: { a: { ipv4: '192.0.2.70', ipv6: '2001:db8:1::170' } },
}
const natted = {
  mode: 'nat',
  uplink: 'lni',
  ipv4: { subnet: '10.77.0.0/24' },
  ipv6: { subnet: 'fd77::/120' },
  reservations: { n: { ipv4: '10.77.0.9' } },
  forwards: [
    { port: 8080, to: 'n', toPort: 80 },
    { port: 8081, to: '10.77.0.9', toPort: 80, from: ['198.51.100.0/24'] },
  ],
}
const alone = { mode: 'isolated', ipv4: { subnet: '10.88.0.0/24' } }
const declare = (networks: object): void => wire.declare({ version: 1, vmnets: { networks, lans } })
const everything = { default: routed, hidden: natted, alone }
const macOfNeighbour = (address: string): string => {
  at('lan', '/usr/sbin/ip', 'neigh', 'flush', 'dev', 'eth0')
  at('lan', '/usr/bin/ping', '-c', '1', '-W', '1', address)
  return /lladdr (\S+)/.exec(at('lan', '/usr/sbin/ip', 'neigh', 'show', address).out)?.[1] ?? 'nobody'
}

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

t.test('a VM with a MAC of its own on the wire is dropped there', async (t) => {
  host('/usr/sbin/ip', 'link', 'add', 'own', 'link', 'lni', 'type', 'macvlan', 'mode', 'bridge')
  t.teardown(() => host('/usr/sbin/ip', 'link', 'delete', 'own'))
  host('/usr/sbin/ip', 'address', 'add', '192.0.2.50/32', 'dev', 'own')
  host('/usr/sbin/ip', 'link', 'set', 'own', 'up')
  t.throws(() => host('/usr/bin/ping', '-c', '2', '-W', '1', '-I', 'own', '192.0.2.10'))
  wire.remember('network-probe/lni.json', { atMs: Date.now(), mac: lniMac, secondMac: 'dropped' })
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

t.test('what others change is told and put back', async (t) => {
  t.match((await wire.apply()).line, { outcome: 'settled' })
  host('/usr/sbin/nft', 'flush', 'chain', 'inet', 'garrison_vms', 'in-hidden')
  host('/usr/sbin/ip', 'neigh', 'delete', 'proxy', '192.0.2.70', 'dev', 'lni')
  host('/usr/sbin/ip', 'rule', 'delete', 'priority', '5211', 'from', '192.0.2.64/27')
  host('/usr/sbin/sysctl', '-qw', 'net.ipv4.ip_forward=0')
  wire.virsh('net-autostart', '--disable', 'hidden')
  const { line } = await wire.answer<Plan>('plan')
  t.same(line.steps.map(({ key }) => key).sort(), [
    'vmnets.autostart hidden',
    'vmnets.forwarding',
    'vmnets.rules',
    'vmnets.wire lni',
  ])
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.ok(reaches('lan', '192.0.2.70'))
  t.ok(reaches('a', '203.0.113.9'))
})

t.test('nothing is taken from under a VM that runs', async (t) => {
  declare({ ...everything, default: { ...routed, mtu: 1400 } })
  t.match((await wire.apply()).line, { outcome: 'settled', performed: 1 })
  const status = await wire.answer<Status>('status', { fresh: true })
  t.match(status.line.resources[0]?.findings, [{ code: 'vmnets.restart-pending', text: /: a$/ }])
  t.ok(reaches('lan', '192.0.2.70'), 'it goes on as it was')
  wire.virsh('destroy', 'a')
  t.match((await wire.answer<Plan>('plan')).line.steps, [{ key: 'vmnets.restart default' }])
  t.match((await wire.apply()).line, { outcome: 'settled', performed: 1 })
  t.match(wire.virsh('net-dumpxml', 'default'), /<mtu size='1400'\/>/)
})

t.test('a slice that moves is answered for no more', async (t) => {
  declare({ ...everything, default: { ...routed, ipv4: { subnet: '192.0.2.32/27' }, reservations: {} } })
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.equal(macOfNeighbour('192.0.2.70'), 'nobody')
  t.equal(macOfNeighbour('192.0.2.40'), lniMac)
  t.notMatch(host('/usr/sbin/ip', 'rule', 'show'), /192\.0\.2\.64/)
})

t.test('without its uplink a network stays as it is, and is told once', async (t) => {
  host('/usr/sbin/ip', 'link', 'set', 'lni', 'name', 'gone')
  const before = host('/usr/sbin/nft', '--stateless', 'list', 'table', 'inet', 'garrison_vms')
  const status = await wire.answer<Status>('status', { fresh: true })
  t.match(
    status.line.resources[0]?.findings
      .filter(({ severity }) => severity === 'high')
      .map(({ code, subject }) => [code, subject]),
    [
      ['vmnets.uplink-missing', 'default'],
      ['vmnets.uplink-missing', 'hidden'],
    ],
  )
  t.match((await wire.apply()).line, { outcome: 'blocked', performed: 0 })
  t.equal(host('/usr/sbin/nft', '--stateless', 'list', 'table', 'inet', 'garrison_vms'), before)
  host('/usr/sbin/ip', 'link', 'set', 'gone', 'name', 'lni')
  t.match((await wire.apply()).line, { outcome: 'settled' })
})
