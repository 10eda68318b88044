// A fleet as installed: three hosts with the package, each in a box with a real systemd, its own sandbox and its own root side, on two
// networks. GARRISON_LAB_FULL=1: also the cuts and the renewal, which take minutes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Report } from '../../agent/report/report-schema.ts'
import type { FleetPeers } from '../../agent/verbs/fleet-peers.ts'
import type { ToldReport } from '../../agent/verbs/fleet-report.ts'
import type { FleetStatus } from '../../agent/verbs/fleet-status.ts'
import { imdsProgram } from './fake-imds.ts'
import { until } from './fleet-world.ts'
import { namespaces } from './namespaces.ts'
import { bootSystemdBox, builtDeb, type SystemdBox } from './systemd-box.ts'

t.setTimeout(900_000)

const full = process.env.GARRISON_LAB_FULL === '1'
const wires = [
  ['lni', 2],
  ['eni', 3],
] as const
const imdsAt = { host: '169.254.169.254', port: 80 }

class Host {
  readonly name: string
  readonly box: SystemdBox

  constructor(name: string, box: SystemdBox) {
    this.name = name
    this.box = box
  }

  /** Runs a verb in it; the answer is its last line. */
  async asked<T>(...words: readonly string[]): Promise<T> {
    const { stdout } = await this.box.run(['/usr/bin/garrison', ...words, '--json'], { allowFailure: true })
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
  }

  statuses = async () => (await this.asked<FleetStatus>('fleet', 'status')).hosts ?? []
  statusOf = async (name: string) => (await this.statuses()).find(({ host }) => host === name)
  sees = async (name: string) => (await this.statusOf(name))?.linked === true
  reportOf = (name: string) => this.asked<ToldReport>('fleet', 'report', name)
  membership = async () => (await this.asked<FleetPeers>('fleet', 'peers')).membership
  log = async () =>
    (await this.box.run(['/usr/bin/journalctl', '--no-pager', '--output=cat', '--unit=garrison.service']))
      .stdout

  async cable(wire: string, plugged: boolean): Promise<void> {
    await this.box.run(['/usr/sbin/ip', 'link', 'set', wire, plugged ? 'up' : 'down'])
  }
}

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
    hosts.push(new Host(name, box))
    t.match(await box.show('garrison.service', 'ActiveState'), { ActiveState: 'active' })
  }
})
const [h05, h06, h07] = hosts as [Host, Host, Host]
const every = async (isSo: (host: Host) => Promise<boolean>) =>
  (await Promise.all(hosts.map(isSo))).every(Boolean)
const allLinked = () =>
  every(async (host) => {
    const all = await host.statuses()
    return all.length === hosts.length && all.every(({ linked }) => linked)
  })

async function enrol(host: Host, role: string): Promise<void> {
  const { token } = await h05.asked<{ token: string }>('fleet', 'invite', '--name', host.name, '--role', role)
  const joined = await host.box.run(
    ['/usr/bin/garrison', 'fleet', 'join', '-', '--name', host.name, '--json'],
    { stdin: `${token}\n` },
  )
  t.match(JSON.parse(joined.stdout), { host: host.name, role })
}

await t.test('enrol: begun on one, and the others let in by a token', async (t) => {
  t.match(await h06.asked('fleet', 'status'), { code: 'fleet.none' })
  await h05.asked('fleet', 'init', '--name', 'h05', ...(full ? ['--lifetime', '4m'] : []))
  await enrol(h06, 'operate')
  await enrol(h07, 'read')
  await until('all are linked, without a start of anything', allLinked, 60_000, 250)
  t.equal((await h06.statusOf('h07'))?.over, 'lni', 'by the first network of the document')
})

await t.test('report: the same verbs from each', async (t) => {
  await until(
    'each has been told of each',
    () => every(async (host) => (await host.statuses()).every(({ health }) => health !== undefined)),
    60_000,
    250,
  )
  for (const host of hosts) {
    const text = await host.box.run(['/usr/bin/garrison', 'fleet', 'status'], { allowFailure: true })
    t.match(text.stdout, /^3 hosts, all seen$/m, host.name)
    for (const { name } of hosts) {
      if (name === host.name) continue
      t.match(await host.reportOf(name), { linked: true, report: { schema: 'garrison/report/1' } })
      t.match(await host.asked('--host', name, 'status'), { schema: 'garrison/status/1' })
    }
  }
})

await t.test('what is acted on elsewhere is as the certificate allows', async (t) => {
  t.match(await h07.asked('--host', 'h05', 'apply'), { code: 'fleet.role-refused' })
  t.match(await h06.asked('--host', 'h05', 'apply'), { outcome: 'settled' }, 'the role operate')
})

await t.test('a retirement that AWS announces to one is known to the others within a second', async (t) => {
  const event = { Code: 'instance-retirement', EventId: 'instance-event-1', State: 'active' }
  const times = { NotBefore: '21 Jan 2036 09:00:43 GMT', NotAfter: '', Description: 'the end' }
  writeFileSync(noticePath, JSON.stringify([{ ...event, ...times }]))
  for (const host of [h05, h07]) {
    const heard = { lateMs: Number.NaN }
    await until(
      `${host.name} knows`,
      async () => {
        const { receivedMs, report } = await host.reportOf('h06')
        // All boxes have the clock of this machine.
        heard.lateMs = receivedMs - (report as unknown as Report).atMs
        return JSON.stringify(report).includes('ec2.retirement')
      },
      // Firmware of a box does not say that it is an instance: after a first answer that came late it is asked again in a minute.
      130_000,
      100,
    )
    t.ok(heard.lateMs < 1000, `${host.name} had it ${heard.lateMs} ms after h06`)
    t.comment(`${heard.lateMs} ms after h06 had made its report ${host.name} had it`)
  }
})

await t.test('killed, and back with what it knew', async (t) => {
  const toldBy06 = async () => (await h05.reportOf('h06')).report as unknown as Report
  const before = await toldBy06()
  await h06.box.run(['/usr/bin/systemctl', 'kill', '--signal=KILL', 'garrison.service'])
  await until('it is gone at once', async () => !(await h05.sees('h06')), 10_000)
  await until('systemd has started it, and it is back', allLinked, 60_000, 250)
  await until('it reports', async () => (await toldBy06()).run !== before.run, 60_000, 250)
  t.ok((await toldBy06()).generation > before.generation, 'newer than what it told before')
})

if (full) {
  await t.test('cut on one network and on both: carried, not seen, healed', async (t) => {
    await h07.cable('lni', false)
    await until('seen over the other', async () => (await h05.statusOf('h07'))?.over === 'eni', 120_000, 500)
    await h07.cable('eni', false)
    await until(
      'nobody sees it',
      async () => !(await h05.sees('h07')) && !(await h06.sees('h07')),
      60_000,
      500,
    )
    const text = await h06.box.run(['/usr/bin/garrison', 'fleet', 'status'], { allowFailure: true })
    t.equal(text.exit, 4)
    t.match(text.stdout, /^h07 +\d+ s +not seen +\? +\? +last by h0[56] over eni$/m)
    t.match(await h05.asked('--host', 'h07', 'report'), { code: 'fleet.unreachable' })
    for (const [wire] of wires) await h07.cable(wire, true)
    await until('it is back', allLinked, 120_000, 500)
  })

  await t.test('rotate: new keys, while everyone stays linked', async (t) => {
    const ends = await Promise.all(hosts.map(async (host) => (await host.membership()).untilMs))
    const since = await Promise.all(hosts.map(async (host) => (await host.log()).length))
    const logged = async (at: number) => (await hosts[at]?.log())?.slice(since[at]) ?? ''
    for (const [at, host] of hosts.entries())
      await until(
        `${host.name} has a new certificate, and its port uses it`,
        async () =>
          (await host.membership()).untilMs > (ends[at] ?? Number.NaN) &&
          /new certificate/.test(await logged(at)),
        240_000,
        1000,
      )
    for (const at of hosts.keys()) t.notMatch(await logged(at), /peer lost/)
    t.ok(await allLinked())
  })
}

await t.test('revoke: out everywhere at once, told why, and refused by both', async (t) => {
  await h05.asked('fleet', 'revoke', 'h07')
  await until('nobody sees it', async () => !(await h05.sees('h07')) && !(await h06.sees('h07')), 20_000, 100)
  t.match(await h06.membership(), { revoked: [{ host: 'h07' }] }, 'the other has heard')
  for (const name of ['h05', 'h06']) {
    const isTold = async () => /revoked/.test((await h07.statusOf(name))?.problem ?? '')
    await until(`it is told why by ${name}`, isTold, 60_000, 250)
    t.match(await h07.asked('--host', name, 'report'), { code: 'peer.refused', message: /revoked/ })
  }
  t.ok(await h05.sees('h06'))
})
