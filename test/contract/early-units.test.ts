// What Garrison does before the network is begun, in a host that starts: it never holds up or fails the boot.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { namedGuard, rulesetOf, transactionOf } from '../../provisioning/firewall/ruleset.ts'
import { firewallSchema } from '../../provisioning/firewall/schema.ts'
import { makeBox } from './box.ts'
import { cable, namespaces } from './namespaces.ts'

const made = namespaces()
const host = made.make('early')
const wire = made.make('wire')
t.teardown(() => made.close())
cable(host, 'eth0', wire, 'wire0')
const box = await makeBox(host.name, (line) => t.comment(line))
t.teardown(() => box.close())

const folder = '/var/lib/garrison/network-undo'
const rules = '/etc/garrison/firewall.json'
const early = ['garrison-network-undo.service', 'garrison-firewall.service']

const systemctl = async (...args: readonly string[]) =>
  box.run(['/usr/bin/systemctl', ...args], { allowFailure: true })
const property = async (unit: string, name: string): Promise<string> =>
  (await systemctl('show', '--value', `--property=${name}`, unit)).stdout.trim()

/** As if the host had lost its power while the change was armed; `files` are as they were before. */
const armed = (files: readonly object[], bootId: string): string =>
  JSON.stringify({
    ...{ id: randomUUID(), bootId, summary: 'a change', armedAtMs: 1, deadlineMs: 1000 },
    ...{ files, reload: [], sessions: [] },
  })
const before = (path: string, text: string) => ({
  ...{ path, kind: 'file', mode: 0o644, uid: 0, gid: 0 },
  content: Buffer.from(text).toString('base64'),
})

/** The boot reached its goal, and what has the network came after what is early. */
const started = async () => {
  t.equal((await systemctl('is-active', 'multi-user.target')).stdout, 'active\n')
  t.equal((await systemctl('is-active', 'systemd-networkd.service')).stdout, 'active\n')
}

t.test('a change that was not confirmed is undone, and rules are there, before the network is', async (t) => {
  await box.boot()
  await systemctl('enable', 'systemd-networkd.service', ...early)
  await box.cut()
  const network = '/etc/systemd/network/05-garrison-lan.network'
  const old = '[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.10/24\n'
  box.write(network, old.replace('192.0.2.10', '192.0.2.99'))
  box.write(`${folder}/armed.json`, armed([before(network, old)], 'another'), 0o600)
  box.write(rules, transactionOf(rulesetOf(firewallSchema.parse({}), [namedGuard('eth0')])))
  await box.boot()
  await started()
  t.equal(box.read(network), old)
  t.match(JSON.parse(box.read(`${folder}/last.json`) ?? '{}'), { outcome: 'undone', by: 'boot' })
  t.match(host.ip('address', 'show', 'dev', 'eth0'), '192.0.2.10/24')
  t.notMatch(host.ip('address', 'show', 'dev', 'eth0'), '192.0.2.99')
  t.match(host.run(['/usr/sbin/nft', 'list', 'table', 'inet', 'garrison']).stdout, /chain/)
  const begun = Number(await property('systemd-networkd.service', 'ExecMainStartTimestampMonotonic'))
  for (const unit of early) {
    t.equal(await property(unit, 'Result'), 'success', unit)
    t.ok(Number(await property(unit, 'ExecMainExitTimestampMonotonic')) < begun, `${unit} was first`)
  }
})

t.test('rules and a record that are damaged: both units fail, and the host starts', async (t) => {
  await box.cut()
  box.write(rules, '{"nftables": [{"add": {"rule": {"family": "inet", "table": "garrison"')
  box.write(`${folder}/armed.json`, '{"files":[', 0o600)
  await box.boot()
  await started()
  t.equal((await systemctl('is-system-running')).stdout, 'degraded\n')
  t.equal(await property('garrison-firewall.service', 'Result'), 'exit-code')
  t.equal(await property('garrison-network-undo.service', 'Result'), 'exit-code')
  const { stdout } = await box.run([
    '/usr/bin/journalctl',
    '--boot',
    '--unit=garrison-network-undo',
    '--output=cat',
  ])
  t.match(stdout, /undo\.damaged/)
})

t.test('without the program the host starts as well', async () => {
  await box.cut()
  box.remove(rules)
  box.remove('/usr/bin/garrison')
  await box.boot()
  await started()
})

t.test('however often changes are undone, the next one is too', async (t) => {
  await box.cut()
  box.write('/usr/bin/garrison', `#!/bin/sh\nexec ${box.garrison().join(' ')} "$@"\n`, 0o755)
  for (const name of ['armed', 'restoring'])
    if (box.read(`${folder}/${name}.json`) !== null) box.remove(`${folder}/${name}.json`)
  await box.boot()
  for (let count = 1; count <= 7; count += 1) {
    box.write('/etc/changed', 'new\n')
    box.write(`${folder}/armed.json`, armed([before('/etc/changed', `old ${count}\n`)], 'another'), 0o600)
    const { exit } = await systemctl('start', 'garrison-network-undo.service')
    t.equal(exit, 0)
    t.equal(box.read('/etc/changed'), `old ${count}\n`)
  }
})
