// What `network probe` measures, in namespaces: a LAN behind a switch that passes one MAC, or one address, or all of them.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { ProbeTask } from '../../agent/host/probe.ts'
import type { ProbeRecord } from '../../provisioning/link/probe.ts'
import { meaningOf, parseProbe } from '../../provisioning/link/probe.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { cable, namespaces } from './namespaces.ts'
import { answer, bytesOf, seconds, startOddDhcp } from './odd-dhcp.ts'

await ensureRequirements(
  (line) => t.comment(line),
  [
    { package: 'dnsmasq-base', path: '/usr/sbin/dnsmasq' },
    { package: 'iproute2', path: '/usr/sbin/ip' },
    { package: 'iputils-ping', path: '/usr/bin/ping' },
    { package: 'nftables', path: '/usr/sbin/nft' },
  ],
)

const mac = '02:3a:00:00:00:11'
const made = namespaces()
t.teardown(() => made.close())
const host = made.make('host')
const wire = made.make('wire')
const lan = made.make('lan')
cable(host, 'lni', wire, 'port', mac)
cable(wire, 'rest', lan, 'router')
wire.ip('link', 'add', 'name', 'switch', 'type', 'bridge')
for (const port of ['port', 'rest']) wire.ip('link', 'set', 'dev', port, 'master', 'switch')
wire.ip('link', 'set', 'dev', 'switch', 'up')
host.ip('address', 'add', '192.0.2.10/24', 'dev', 'lni')
lan.ip('address', 'add', '192.0.2.1/24', 'dev', 'router')
lan.ip('address', 'add', '192.0.2.99/32', 'dev', 'lo')
const folder = t.testdir({})
await lan.start(
  [
    ...['/usr/sbin/dnsmasq', '--no-daemon', '--conf-file=/dev/null', '--port=0', '--bind-interfaces'],
    ...['--interface=router', '--dhcp-range=192.0.2.50,192.0.2.60,2m', '--no-ping'],
    `--dhcp-leasefile=${folder}/leases`,
  ],
  'stderr',
)

/** What the switch lets in from the port of the host. */
const rules = (text: string): void => {
  wire.run(['/usr/sbin/nft', 'delete', 'table', 'bridge', 'wire'])
  if (text === '') return
  const table = `table bridge wire { chain in { type filter hook prerouting priority 0; iifname != port accept; ${text}\n}\n}`
  const { exit, stderr } = wire.run(['/usr/sbin/nft', table])
  if (exit !== 0) throw new Error(stderr)
}

const usual: ProbeTask = {
  ...{ device: 'lni', mac, mtu: 1500, gateway: '192.0.2.1', dns: [], leased: false, address: null },
  ...{ ownMac: false, vlans: [], host: `/run/netns/${host.name}` },
}

const argvOf = (task: ProbeTask): readonly string[] => [
  ...['/usr/bin/unshare', '--net', '--', process.execPath],
  ...[join(import.meta.dirname, '..', '..', 'agent', 'main.ts'), 'network', 'measure', '--json'],
  ...['--record', join(folder, 'record.json'), '--', JSON.stringify(task)],
]

function probe(change: Partial<ProbeTask> = {}): ProbeRecord {
  const before = [host.ip('-4', 'address'), host.ip('route'), host.ip('link')]
  const { exit, stderr } = host.run(argvOf({ ...usual, ...change }))
  t.equal(exit, 0, stderr)
  t.strictSame([host.ip('-4', 'address'), host.ip('route'), host.ip('link')], before, 'the host is as it was')
  const record = parseProbe(readFileSync(join(folder, 'record.json'), 'utf8'))
  if (record === null) throw new Error('no record')
  return record
}

t.test('a switch that passes everything', async (t) => {
  const record = probe({ address: '192.0.2.200' })
  t.match(record, {
    ...{ arp: 'answers', ping: 'answers', secondMac: 'passes', secondAddress: 'passes' },
    ...{ dhcp: 'answers', dhcpBy: 'offer', pathMtu: 1500, notes: [] },
  })
  t.match(meaningOf(record).join('\n'), /bridge works/)
  t.equal(readFileSync(join(folder, 'leases'), 'utf8').includes('192.0.2.5'), false, 'no lease was taken')
})

t.test('a LAN without a DHCP server', async (t) => {
  rules('udp dport 67 drop')
  t.match(probe(), { arp: 'answers', secondMac: 'passes', dhcp: 'silent', dhcpBy: null })
})

/** Has the router ask for an address, by broadcasts, for as long as nobody answers it: it has not answered anybody by that. */
const routerAsks = async (address: string): Promise<void> => {
  lan.ip('neighbour', 'flush', 'dev', 'router')
  await lan.start(['/usr/bin/ping', '-n', '-i', '0.2', '--', address])
}

t.test('one MAC alone, as the local network interface of an Outposts server', async (t) => {
  rules(`ether saddr != ${mac} drop`)
  // A second MAC hears that.
  await routerAsks('192.0.2.77')
  const record = probe({ address: '192.0.2.200' })
  t.match(record, {
    ...{ arp: 'answers', ping: 'answers', secondMac: 'dropped', secondAddress: 'passes' },
    ...{ dhcp: 'unknown', dhcpBy: null },
  })
  t.match(meaningOf(record).join('\n'), /bridge does not work[\s\S]*routed works/)
  t.match(probe({ leased: true }), { secondMac: 'dropped', dhcp: 'answers', dhcpBy: 'lease' })
})

t.test('one MAC with one address alone', async (t) => {
  rules(`ether saddr != ${mac} drop; ip saddr != 192.0.2.10 drop; arp saddr ip != 192.0.2.10 drop`)
  const record = probe({ address: '192.0.2.200' })
  t.match(record, { arp: 'answers', secondMac: 'dropped', secondAddress: 'dropped' })
  t.match(meaningOf(record).join('\n'), /only nat works/)
})

t.test('a way that is narrower than the interface', async (t) => {
  const narrow = (mtu: string): void => {
    for (const [space, device] of [
      [wire, 'port'],
      [wire, 'rest'],
      [lan, 'router'],
    ] as const)
      space.ip('link', 'set', 'dev', device, 'mtu', mtu)
  }
  rules('')
  narrow('1450')
  t.teardown(() => narrow('1500'))
  const record = probe({ ownMac: true })
  t.match(record, { pathMtu: 1450, mtu: 1500, secondMac: 'unknown' })
  t.match(meaningOf(record).join('\n'), /mtu: 1450/)
})

t.test('an address that another host has is not taken', async (t) => {
  const record = probe({ address: '192.0.2.99', ownMac: true })
  t.equal(record.secondAddress, 'unknown')
  t.match(record.notes.join(), /192\.0\.2\.99 is another host's/)
})

t.test('where nothing answers nothing is proved', async (t) => {
  rules('drop')
  await routerAsks('192.0.2.10')
  const record = probe({ address: '192.0.2.200' })
  t.match(record, {
    ...{ arp: 'silent', ping: 'silent', secondMac: 'unknown', secondAddress: 'unknown' },
    ...{ dhcp: 'unknown', pathMtu: null },
  })
  t.match(meaningOf(record).join('\n'), /nothing is proved/)
})

t.test('killed at any moment it leaves nothing, but for an address that goes by itself', async (t) => {
  rules('')
  const before = [host.ip('route'), host.ip('-brief', 'link')]
  for (const afterMs of [300, 700, 1500]) {
    const script = `exec timeout --signal=KILL ${afterMs / 1000} "$@"`
    host.run(['/bin/sh', '-c', script, 'sh', ...argvOf({ ...usual, address: '192.0.2.200' })])
    t.strictSame([host.ip('route'), host.ip('-brief', 'link')], before)
    const left = host.ip('address', 'show', 'dev', 'lni')
    if (left.includes('192.0.2.200')) t.match(left, /192\.0\.2\.200\/32[\s\S]*valid_lft \d+sec/)
  }
})

t.test('a VLAN that the kernel cannot make is not known, and says why', async (t) => {
  const [vlan] = probe({ vlans: [{ id: 20, gateway: null, used: null }], ownMac: true }).vlans
  t.match(vlan, { id: 20, answers: /^(unknown|silent)$/ })
})

t.test('a VLAN that the host is in is asked for over its interface there', async (t) => {
  // Stands for the interface of a VLAN, which is asked over like any other.
  const used = { device: 'lni', leased: false }
  const asked = ['192.0.2.1', '192.0.2.77', null].map((gateway, at) => ({ id: 20 + at, gateway, used }))
  const { vlans, notes } = probe({ vlans: asked, ownMac: true })
  t.match(
    vlans.map(({ answers }) => answers),
    ['answers', 'silent', 'unknown'],
  )
  t.match(notes.join(), /VLAN 22: lni of this host is in it/)
})

t.test('DHCP servers that make no sense are told of, with what to do', async (t) => {
  rules('')
  const rogue = made.make('rogue')
  cable(wire, 'third', rogue, 'rogue')
  wire.ip('link', 'set', 'dev', 'third', 'master', 'switch')
  rogue.ip('address', 'add', '192.0.2.2/24', 'dev', 'rogue')
  const server = await startOddDhcp(rogue, folder, '192.0.2.2')
  const named = { 54: bytesOf('192.0.2.2') }
  server.serve({ answers: [answer(named)] })
  t.match(probe().odd, ['2 servers offer addresses: 192.0.2.1, 192.0.2.2'])
  const quiet =
    'table bridge quiet { chain in { type filter hook prerouting priority 1; iifname rest udp sport 67 drop; }; }'
  t.equal(wire.run(['/usr/sbin/nft', quiet]).exit, 0)
  t.match(probe(), { dhcp: 'answers', dhcpBy: 'offer', odd: [] })
  const odd = [
    answer({ ...named, 51: seconds(0) }, '192.0.2.51'),
    answer({ ...named, 1: bytesOf('0.0.0.0') }, '192.0.2.52'),
    answer({ ...named, 3: bytesOf('198.18.0.1') }, '192.0.2.53'),
    answer({ ...named, 26: [0, 68] }, '192.0.2.54'),
    answer({ 54: null }, '192.0.2.55'),
    answer(named, '169.254.169.254'),
    answer(named, '192.0.2.255'),
    answer({ ...named, 12: [...Buffer.from('evil\n\u001b[2J')] }, '192.0.2.56', [12, 250, 27, 91]),
  ]
  server.serve({ answers: odd })
  const record = probe()
  t.match(record, { secondMac: 'passes', dhcp: 'answers' })
  for (const [at, words] of [
    'for 0 s',
    'a network of /0',
    'the router 198.18.0.1 is outside',
    'an MTU of 68',
    'no server is named',
    'no address of a host',
    'the address of a whole network',
    'longer than the packet',
  ].entries())
    t.match(record.odd[at], words)
  t.notMatch(JSON.stringify(record), /evil|u001b/)
  t.match(meaningOf(record).join('\n'), /dhcp is not to be relied on here: .* static address/)
  server.serve({ answers: [], refusals: 50 })
  const refused = probe()
  t.match(refused, { secondMac: 'passes', dhcp: 'silent', odd: [/refuses/] })
})
