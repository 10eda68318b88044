// A fleet as installed: three hosts with the package, each in a box with a real systemd, its own sandbox and its own root side, on two
// networks. GARRISON_LAB_FULL=1: also the cuts and the renewal, which take minutes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { imdsProgram } from './fake-imds.ts'
import { fleetSteps, InstalledHost, retirement } from './fleet-suite.ts'
import { namespaces } from './namespaces.ts'
import { bootSystemdBox, builtDeb, type SystemdBox } from './systemd-box.ts'

t.setTimeout(900_000)

const full = process.env.GARRISON_LAB_FULL === '1'
const wires = [
  ['lni', 2],
  ['eni', 3],
] as const
const imdsAt = { host: '169.254.169.254', port: 80 }

type Host = InstalledHost<SystemdBox>

const made = namespaces()
const folder = mkdtempSync(join(tmpdir(), 'garrison-fleet-'))
const ended: (() => Promise<void>)[] = []
t.teardown(async () => {
  for (const end of ended) await end()
  await made.close()
  rmSync(folder, { recursive: true, force: true })
})
const networks = wires.map(([wire, subnet]) => {
  const network = made.make(wire)
  network.ip('link', 'add', 'switch', 'type', 'bridge')
  network.ip('link', 'set', 'switch', 'up')
  network.ip('address', 'add', `192.0.${subnet}.1/24`, 'dev', 'switch')
  return { network, wire, subnet }
})
networks[1]?.network.ip('address', 'add', `${imdsAt.host}/32`, 'dev', 'switch')
const noticePath = join(folder, 'notice')
await networks[1]?.network.start([
  ...[process.execPath, '--input-type=module', '-e', imdsProgram(noticePath, imdsAt)],
])

const deb = await builtDeb()
const hosts: Host[] = []
await t.test('three hosts, each from the package', async (t) => {
  for (const [at, name] of ['h05', 'h06', 'h07'].entries()) {
    const box = await bootSystemdBox(deb, (line) => t.comment(line))
    ended.push(() => box.close())
    const ip = (...words: readonly string[]) => box.run(['/usr/sbin/ip', ...words])
    for (const { network, wire, subnet } of networks) {
      network.ip(...['link', 'add', name, 'type', 'veth', 'peer', 'name', wire, 'netns', `${box.pid}`])
      network.ip('link', 'set', name, 'master', 'switch', 'up')
      await ip('address', 'add', `192.0.${subnet}.${5 + at}/24`, 'dev', wire)
      await ip('link', 'set', wire, 'up')
    }
    // The metadata are those of one of them.
    if (name === 'h06') await ip('route', 'add', imdsAt.host, 'dev', 'eni')
    // Before the daemon begins, which links anew when the document says something else of the fleet.
    const addresses = Object.fromEntries(wires.map(([wire, subnet]) => [wire, `192.0.${subnet}.${5 + at}`]))
    await box.run(['/usr/bin/mkdir', '-p', '/etc/garrison'])
    await box.run(['/usr/bin/tee', '/etc/garrison/host.yaml'], {
      stdin: JSON.stringify({ version: 1, fleet: { addresses } }),
    })
    await box.install()
    hosts.push(new InstalledHost(name, box))
    t.match(await box.show('garrison.service', 'ActiveState'), { ActiveState: 'active' })
  }
})
const [h05, h06, h07] = hosts as [Host, Host, Host]
const steps = fleetSteps([h05, h06, h07], 60_000)

await t.test('enrol: begun on one, and the others let in by a token', (t) =>
  steps.enrol(t, ...(full ? ['--lifetime', '4m'] : [])),
)
await t.test('report: the same verbs from each', (t) => steps.report(t))
await t.test('what is acted on elsewhere is as the certificate allows', (t) => steps.roles(t))

await t.test('where nobody else can testify a peer confirms a change to the network', async (t) => {
  const macOf = async (wire: string) =>
    (await h07.on.run(['/usr/bin/cat', `/sys/class/net/${wire}/address`])).stdout.trim()
  const [lni, eni] = [{ match: { mac: await macOf('lni') } }, { match: { mac: await macOf('eni') } }]
  const before = (await h07.on.run(['/usr/bin/cat', '/etc/garrison/host.yaml'])).stdout
  const declare = (cidr: string) => {
    const uplinks = { eni: { ...eni, management: true }, lni: { ...lni, address: { cidr } } }
    const stdin = JSON.stringify({ ...JSON.parse(before), uplinks })
    return h07.on.run(['/usr/bin/tee', '/etc/garrison/host.yaml'], { stdin })
  }
  const apply = async () => {
    const argv = ['/usr/bin/garrison', 'apply', '--allow', 'disruptive', '--json']
    return (await h07.on.run(argv, { allowFailure: true })).stdout
  }
  const ended = async () =>
    JSON.parse((await h07.on.run(['/usr/bin/cat', '/var/lib/garrison/network-undo/last.json'])).stdout)
  // It has no router, and nobody has an SSH session with it.
  await h07.on.run(['/usr/bin/systemctl', 'start', 'systemd-networkd.service'])
  await declare('192.0.2.7/24')
  t.match(await apply(), /"outcome":"settled"/)
  t.match(await ended(), { outcome: 'confirmed', by: 'a peer' })
  await steps.until('all are linked', steps.allLinked)
  if (full) {
    await h07.on.run(['/usr/sbin/ip', 'link', 'set', 'eni', 'down'])
    await declare('198.51.100.7/24')
    t.match(await apply(), /undo\.undone.*a peer/, 'silence confirms nothing')
    await h07.on.run(['/usr/sbin/ip', 'link', 'set', 'eni', 'up'])
    await steps.until('all are linked', steps.allLinked)
  }
  await h07.on.run(['/usr/bin/tee', '/etc/garrison/host.yaml'], { stdin: before })
})

await t.test('a retirement that AWS announces to one is known to the others within a second', async (t) => {
  writeFileSync(noticePath, retirement)
  for (const host of [h05, h07]) {
    const heard = { lateMs: Number.NaN }
    await steps.until(
      `${host.name} knows`,
      async () => {
        const { receivedMs, report } = await host.reportOf('h06')
        // All boxes have the clock of this machine.
        heard.lateMs = receivedMs - report.atMs
        return JSON.stringify(report).includes('ec2.retirement')
      },
      // Firmware of a box does not say that it is an instance: after a first answer that came late it is asked again in a minute.
      130_000,
    )
    t.ok(heard.lateMs < 1000, `${host.name} had it ${heard.lateMs} ms after h06`)
    t.comment(`${heard.lateMs} ms after h06 had made its report ${host.name} had it`)
  }
})

await t.test('killed, and back with what it knew', (t) =>
  steps.returns(t, h06, async () => {
    await h06.on.run(['/usr/bin/systemctl', 'kill', '--signal=KILL', 'garrison.service'])
    await steps.until('it is gone at once', async () => !(await h05.sees('h06')), 10_000)
  }),
)

if (full) {
  await t.test('cut on one network and on both: carried, not seen, healed', (t) =>
    steps.cut(t, (wire, plugged) =>
      h07.on.run(['/usr/sbin/ip', 'link', 'set', wire, plugged ? 'up' : 'down']),
    ),
  )
  await t.test('rotate: new keys, while everyone stays linked', (t) => steps.rotate(t))
}

await t.test('revoke: out everywhere at once, told why, and refused by both', (t) => steps.revoke(t))
