// VM networks over time, on a wire that passes one MAC: what others change, a boot, other modes, other names, no uplink.

import t from 'tap'
import type { Plan } from '../../agent/verbs/plan.ts'
import type { Status } from '../../agent/verbs/status.ts'
import type { Why } from '../../agent/verbs/why.ts'
import { everything, lans, lniMac, routed, vmnetsWire } from './vmnets-world.ts'

const wire = await vmnetsWire()
t.teardown(() => wire.stop())
const { host, reaches, declare, macOfNeighbour } = wire

t.test('a VM on each of three networks', async (t) => {
  declare(everything)
  t.match((await wire.apply()).line, { outcome: 'settled', problems: [] })
  await wire.boot('a', 'default')
  await wire.boot('n', 'hidden')
  wire.configure('a', ['192.0.2.70/27', '2001:db8:1::170/120'], ['192.0.2.65', '2001:db8:1::101'])
  wire.configure('n', ['10.77.0.9/24', 'fd77::9/120'], ['10.77.0.1', 'fd77::1'])
  t.ok(reaches('n', '192.0.2.70'))
})

t.test('what others change is told and put back', async (t) => {
  t.match((await wire.apply()).line, { outcome: 'settled' })
  host('/usr/sbin/sysctl', '-qw', 'net.ipv6.conf.lni.forwarding=0')
  wire.at('lan', '/usr/sbin/ip', 'neigh', 'flush', 'all')
  t.notOk(reaches('lan', '2001:db8:1::170'))
  const why = await wire.answer<Why>('why', { subject: 'vm', name: 'a', part: 'network' })
  t.match(why.text, 'the kernel answers on lni for no address in IPv6')
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
  t.ok(reaches('lan', '2001:db8:1::170'))
  t.ok(reaches('a', '203.0.113.9'))
})

t.test('over a VLAN of the uplink', async (t) => {
  // The kernel of a build machine may have no VLANs: a second cable stands in for the tags.
  wire.tagged('lni.20', '198.51.100.20/24', '198.51.100.10/24')
  host('/usr/sbin/ip', 'address', 'add', '2001:db8:20::20/64', 'dev', 'lni.20', 'nodad')
  const ipv6 = { subnet: '2001:db8:20::160/124' }
  const work = { uplink: 'lni', vlan: 20, ipv4: { subnet: '198.51.100.64/29' }, ipv6 }
  declare({ ...everything, work })
  t.match((await wire.apply()).line, { outcome: 'settled' })
  await wire.boot('v', 'work')
  wire.configure('v', ['198.51.100.66/29'], ['198.51.100.65'])
  t.ok(reaches('lan', '198.51.100.66'))
  t.notOk(reaches('v', '192.0.2.70'), 'and not to a network on another wire')

  const proxies = (): string => host('/usr/sbin/ip', '-6', 'neigh', 'show', 'proxy', 'dev', 'lni.20')
  const before = proxies()
  t.match(before, '2001:db8:20::16e')
  const told: string[] = []
  const afterFirstBatch = (command: string) => {
    if (!/-6 .*-batch/.test(command) || told.length > 0) return
    for (const value of ['disable_ipv6=1', 'forwarding=0', 'disable_ipv6=0']) {
      host('/usr/sbin/sysctl', '-qw', `net/ipv6/conf/lni.20/${value}`)
      told.push(proxies())
    }
  }
  t.ok(wire.begins('lni.20', afterFirstBatch))
  t.same(told, ['', '', ''], 'the kernel forgets them when NetworkManager begins with an interface')
  t.equal(proxies(), before)
  t.equal(host('/usr/sbin/sysctl', '-n', 'net/ipv6/conf/lni.20/forwarding').trim(), '1')
  t.ok(reaches('lan', '198.51.100.66'))
  wire.virsh('destroy', 'v')
  declare({ ...everything, work: { mode: 'isolated', ipv4: { subnet: '198.51.100.64/29' } } })
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.notMatch(host('/usr/sbin/ip', 'neigh', 'show', 'proxy'), /198\.51/)
  t.notMatch(host('/usr/sbin/ip', 'rule', 'show'), /198\.51/)
  host('/usr/sbin/ip', 'link', 'delete', 'lni.20')
  declare(everything)
  t.match((await wire.apply()).line, { outcome: 'settled' })
})

t.test('after a boot it is as it was, without the agent', async (t) => {
  const rules = (): string => host('/usr/sbin/nft', '--stateless', 'list', 'table', 'inet', 'garrison_vms')
  const before = rules()
  wire.boots()
  t.equal(rules(), before)
  t.match(await wire.apply(), { exit: 0, line: { outcome: 'settled', performed: 0 } })
  t.ok(reaches('lan', '192.0.2.70'))
  t.ok(reaches('a', '2001:db8:9::9'))
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

t.test('an uplink that gets another name is found by its MAC', async (t) => {
  const uplinks = { lan: { match: { mac: lniMac } } }
  const networks = { default: { ...routed, uplink: 'lan' } }
  wire.write({ version: 1, uplinks, vmnets: { networks, lans: { lan: lans.lni } } })
  t.match((await wire.apply()).line, { outcome: 'settled' })
  host('/usr/sbin/ip', 'link', 'set', 'lni', 'name', 'ens6')
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.equal(macOfNeighbour('192.0.2.70'), lniMac)
  t.match(host('/usr/sbin/nft', 'list', 'table', 'inet', 'garrison_vms'), /oifname "ens6"/)
  host('/usr/sbin/ip', 'link', 'set', 'ens6', 'name', 'lni')
  declare(everything)
  t.match((await wire.apply()).line, { outcome: 'settled' })
})

t.test('where the default route is, the kernel leaves it out while the cable is', async (t) => {
  const out = { mode: 'nat', uplink: 'eni', ipv4: { subnet: '10.66.0.0/24' } }
  const switches = (device: string) =>
    ['ipv4', 'ipv6'].map((family) =>
      host('/usr/sbin/sysctl', '-n', `net.${family}.conf.${device}.ignore_routes_with_linkdown`).trim(),
    )
  declare({ ...everything, out })
  t.match((await wire.apply()).line, { outcome: 'settled' })
  t.same(switches('eni'), ['1', '1'])
  t.same(switches('lni'), ['0', '0'])
  declare({ ...everything, out: { mode: 'isolated', ipv4: { subnet: '10.66.0.0/24' } } })
  t.match((await wire.apply()).line, { outcome: 'settled' })
})

t.test('without its uplink a network stays as it is, and is told once', async (t) => {
  host('/usr/sbin/ip', 'link', 'set', 'lni', 'name', 'gone')
  const before = host('/usr/sbin/nft', '--stateless', 'list', 'table', 'inet', 'garrison_vms')
  const status = await wire.answer<Status>('status', { fresh: true })
  t.match(
    status.line.resources[0]?.findings
      .filter(({ severity }) => severity === 'high')
      .map(({ code, subject }) => [code, subject]),
    [['vmnets.uplink-missing', 'lni']],
  )
  t.match((await wire.apply()).line, { outcome: 'blocked', performed: 0 })
  t.equal(host('/usr/sbin/nft', '--stateless', 'list', 'table', 'inet', 'garrison_vms'), before)
  host('/usr/sbin/ip', 'link', 'set', 'gone', 'name', 'lni')
  t.match((await wire.apply()).line, { outcome: 'settled' })
})
