// The firewall of the host in the real kernel: nft prints what was loaded, and packets fare as declared.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { nftList, nftLoad, parseTable } from '../../provisioning/firewall/nft.ts'
import { differences, namedGuard, rulesetOf, transactionOf } from '../../provisioning/firewall/ruleset.ts'
import { firewallSchema } from '../../provisioning/firewall/schema.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { attempt, cable, listening, namespaces } from './namespaces.ts'

await ensureRequirements(
  (line) => t.comment(line),
  [
    { package: 'iproute2', path: '/usr/sbin/ip' },
    { package: 'nftables', path: '/usr/sbin/nft' },
    { package: 'iputils-ping', path: '/usr/bin/ping' },
  ],
)

const made = namespaces()
t.teardown(() => made.close())
const host = made.make('host')
const lan = made.make('lan')
cable(host, 'lni', lan, 'wire')
cable(host, 'eni', lan, 'vpc')
// Guarded by its MAC, and renamed by somebody.
cable(host, 'ens9', lan, 'other', '02:3a:00:00:00:21')
// By its name alone a VLAN is told from others, and not every kernel that this runs on has VLANs.
cable(host, 'lni.100', lan, 'wire.100')
for (const [space, last] of [
  [host, 10],
  [lan, 77],
] as const) {
  const names = space === host ? ['lni', 'lni.100', 'eni', 'ens9'] : ['wire', 'wire.100', 'vpc', 'other']
  for (const [at, name] of names.entries()) {
    space.ip('address', 'add', `192.0.${2 + at}.${last}/24`, 'dev', name)
    space.ip('address', 'add', `2001:db8:${at}::${last}/64`, 'dev', name, 'nodad')
    space.ip('link', 'set', name, 'up')
  }
}
lan.ip('address', 'add', '192.0.2.78/24', 'dev', 'wire')

const firewall = firewallSchema.parse({
  allow: [
    { service: 'ssh', from: ['192.0.2.77', '192.0.3.0/24', '2001:db8::/64'] },
    { port: 5900, to: 5902 },
    { protocol: 'udp', port: 5000, from: ['0.0.0.0/0', '::/0'] },
  ],
})
// By name, and by a MAC whatever it is called.
const wanted = rulesetOf(firewall, [
  namedGuard('lni'),
  { called: 'lan', names: ['lan'], mac: '02:3a:00:00:00:21' },
])

const file = join(mkdtempSync(join(tmpdir(), 'garrison-firewall-')), 'rules.json')
t.teardown(() => rmSync(dirname(file), { recursive: true }))

const load = (text: string) => {
  writeFileSync(file, text)
  const { exit, stderr } = host.run(nftLoad(file))
  if (exit !== 0) throw new Error(stderr)
}
const live = () => {
  const { exit, stdout } = host.run(nftList())
  return exit === 0 ? parseTable(stdout) : null
}

t.test('what nft prints is what was loaded, however often, and nothing of others goes', async (t) => {
  host.run(['/usr/sbin/nft', 'add', 'table', 'inet', 'other'])
  t.equal(live(), null)
  load(transactionOf(null))
  t.equal(live(), null)
  load(transactionOf(wanted))
  load(transactionOf(wanted))
  t.strictSame(differences(live(), wanted), [])
  t.match(host.run(['/usr/sbin/nft', 'list', 'ruleset']).stdout, /table inet other/)
  host.run(['/usr/sbin/nft', 'add', 'rule', 'inet', 'garrison', 'guarded', 'tcp', 'dport', '8080', 'accept'])
  t.match(differences(live(), wanted).join(), /not wanted: .*8080/)
  const drifted = live()
  load(transactionOf(wanted))
  load(transactionOf(drifted))
  t.strictSame(live(), drifted, 'what was there before comes back, though it is not ours')
  load(transactionOf(wanted))
})

t.test('a file that nft refuses changes nothing', async (t) => {
  const broken = { ...wanted, rules: [...wanted.rules, { chain: 'nowhere', expr: [{ accept: null }] }] }
  t.throws(() => load(transactionOf(broken)))
  t.strictSame(differences(live(), wanted), [])
})

t.test('packets fare as declared', async (t) => {
  await host.start(listening([22, 80, 5901, 9090], [5000, 6000]))
  await lan.start(listening([80], [6000]))
  const tcp = (address: string, port: number, source?: string) => attempt(lan, 'tcp', address, port, source)
  t.equal(tcp('192.0.2.10', 22, '192.0.2.77'), 'open')
  t.equal(tcp('192.0.2.10', 22, '192.0.2.78'), 'silent', 'another source')
  t.equal(tcp('2001:db8::10', 22), 'open')
  t.equal(tcp('2001:db8:1::10', 22), 'silent', 'IPv6 from the VLAN, which is no source of it')
  t.equal(tcp('192.0.3.10', 22), 'open', 'on the VLAN')
  t.equal(tcp('192.0.3.10', 80), 'silent', 'on the VLAN too')
  t.equal(tcp('192.0.2.10', 80), 'silent')
  t.equal(tcp('192.0.2.10', 9090), 'silent')
  t.equal(tcp('2001:db8::10', 80), 'silent')
  t.equal(tcp('192.0.2.10', 5901), 'open', 'within a range of ports')
  t.equal(tcp('192.0.4.10', 80), 'open', 'an interface that is not guarded')
  t.equal(tcp('192.0.5.10', 80), 'silent', 'one that is guarded by its MAC')
  t.equal(tcp('192.0.5.10', 5901), 'open', 'an opening there')
  t.equal(attempt(lan, 'udp', '192.0.2.10', 5000), 'open')
  t.equal(attempt(lan, 'udp', '2001:db8::10', 5000), 'open')
  t.equal(attempt(lan, 'udp', '192.0.2.10', 6000), 'silent')
  t.equal(attempt(host, 'tcp', '192.0.2.77', 80), 'open', 'the host itself reaches out')
  t.equal(attempt(host, 'udp', '192.0.2.77', 6000), 'open')
})

t.test('errors, echoes and neighbours need no opening', async (t) => {
  const ping = (address: string) =>
    lan.run(['/usr/bin/ping', '-n', '-q', '-c', '1', '-W', '2', '--', address]).exit
  t.equal(ping('192.0.2.10'), 0)
  t.equal(ping('192.0.3.10'), 0)
  lan.ip('neighbour', 'flush', 'all')
  host.ip('neighbour', 'flush', 'all')
  t.equal(ping('2001:db8::10'), 0)
  t.equal(attempt(lan, 'tcp', '2001:db8::10', 22), 'open')
})
