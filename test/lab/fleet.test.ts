// A fleet of a guest and boxes of this machine on the networks of an outpost: what only whole hosts show, which are cables pulled out, a
// power cut, and metadata at their own address. GARRISON_LAB_FULL=1: a second guest, and the renewal, which takes minutes.

import { randomBytes } from 'node:crypto'
import t from 'tap'
import { startFakeImds, usualPaths } from '../contract/fake-imds.ts'
import { fleetSteps, InstalledHost, retirement } from '../contract/fleet-suite.ts'
import { until } from '../contract/fleet-world.ts'
import { bootSystemdBox, builtDeb, type SystemdBox } from '../contract/systemd-box.ts'
import { installGarrison, writeDocument } from './garrison.ts'
import { bootGuest, Guest, type Port } from './guest.ts'
import { addresses, makeOutpost, type Outpost } from './outpost.ts'

t.setTimeout(0)

const full = process.env.GARRISON_LAB_FULL === '1'
const patienceMs = 600_000
const wires = [
  { wire: 'lni', place: 'switch', bridge: 'wire', network: '192.0.2' },
  { wire: 'eni', place: 'vpc', bridge: 'eth0', network: '10.20.0' },
] as const

/** Where the others find the host with this number: written before its daemon begins, which else links anew in the middle. */
const documentOf = (number: number): string => {
  const own = Object.fromEntries(wires.map(({ wire, network }) => [wire, `${network}.${number}`]))
  return JSON.stringify({ version: 1, fleet: { addresses: own } })
}

/** Wires a box as a guest is, and installs the package in it. */
async function settleBox(box: SystemdBox, number: number, outpost: Outpost): Promise<void> {
  for (const { wire, place, bridge, network } of wires) {
    const ip = (...words: readonly string[]) => outpost.run(place, ['/usr/sbin/ip', ...words])
    const port = `box${number}`
    await ip('link', 'add', port, 'type', 'veth', 'peer', 'name', wire, 'netns', `${box.pid}`)
    await ip('link', 'set', port, 'master', bridge, 'up')
    await box.run(['/usr/sbin/ip', 'address', 'add', `${network}.${number}/24`, 'dev', wire])
    await box.run(['/usr/sbin/ip', 'link', 'set', wire, 'up'])
  }
  await box.run(['/usr/bin/mkdir', '-p', '/etc/garrison'])
  await box.run(['/usr/bin/tee', '/etc/garrison/host.yaml'], { stdin: documentOf(number) })
  await box.install()
}

/** The NICs of a guest. */
type Nics = Readonly<Record<'lni' | 'eni', Port>>

/** Makes a guest a host of its own, with the package; `reached` is what else it reaches over its ENI. */
async function settleGuest(guest: Guest, nics: Nics, number: number, reached: string): Promise<void> {
  const name = `h0${number}`
  await guest.run(['hostname', name])
  await guest.writeFile('/etc/hostname', `${name}\n`)
  await guest.writeFile('/etc/machine-id', `${randomBytes(16).toString('hex')}\n`)
  // It writes under the identity that it began with, where journalctl would not look any more.
  await guest.run(['systemctl', 'restart', 'systemd-journald.service'])
  for (const { wire, network } of wires)
    await guest.writeFile(
      `/etc/systemd/network/20-${wire}.network`,
      `[Match]\nMACAddress=${nics[wire].mac}\n
[Network]\nAddress=${network}.${number}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n${wire === 'eni' ? reached : ''}`,
    )
  await guest.run(['networkctl', 'reload'])
  await writeDocument(guest, documentOf(number))
  await installGarrison(guest)
}

t.test('three hosts as a fleet', async (t) => {
  const startedMs = performance.now()
  const tell = (what: string) =>
    t.comment(`${what} after ${Math.round((performance.now() - startedMs) / 1000)} s`)
  await using ending = new AsyncDisposableStack()
  const outpost = ending.use(await makeOutpost())
  const imds = await startFakeImds(usualPaths)
  ending.defer(() => imds.close())
  await outpost.lead('vpc', addresses.metadata, 80, imds.endpoint)
  const deb = await builtDeb()
  const boxOf = async (number: number) => {
    const box = await bootSystemdBox(deb, (line) => t.comment(line))
    ending.defer(() => box.close())
    await settleBox(box, number, outpost)
    return new InstalledHost<SystemdBox | Guest>(`h0${number}`, box)
  }
  const guestOf = async (number: number, instance: { readonly instanceId?: string }, reached: string) => {
    const nics = {
      lni: outpost.port('lan', `02:00:00:00:0${number}:11`),
      eni: outpost.port('vpc', `02:00:00:00:0${number}:10`),
    }
    const options = { prepared: true, drives: [], memoryMiB: 1024, nics: [nics.lni, nics.eni] }
    const guest = ending.use(await bootGuest({ ...options, ...instance, deadlineMs: patienceMs }))
    tell(`h0${number} booted`)
    await settleGuest(guest, nics, number, reached)
    tell(`h0${number} installed`)
    return { host: new InstalledHost<SystemdBox | Guest>(`h0${number}`, guest), guest, nics }
  }
  const instanceId = usualPaths['instance-id'] as string
  const toMetadata = `\n[Route]\nDestination=${addresses.metadata}/32\nScope=link\n`
  // One after the other: on a busy machine none of them would start in time.
  const h05 = await boxOf(5)
  const h06 = full ? (await guestOf(6, {}, '')).host : await boxOf(6)
  const { host: h07, guest, nics } = await guestOf(7, { instanceId }, toMetadata)
  const steps = fleetSteps([h05, h06, h07], patienceMs)

  await t.test('enrol: begun on one, and the others let in by a token', (t) =>
    steps.enrol(t, ...(full ? ['--lifetime', '8m'] : [])),
  )
  tell('enrolled')
  await t.test('report: the same verbs from each', async (t) => {
    await steps.report(t)
    t.match((await h05.reportOf('h07')).report.host, { name: 'h07', instance: instanceId })
  })
  await t.test('what is acted on elsewhere is as the certificate allows', (t) => steps.roles(t))
  tell('asked')

  await t.test('a retirement that AWS announces to one is seen on the others within a second', async (t) => {
    /** Waits for what a host is told by the other; asking a guest takes longer than what is to be shown. */
    const hearing = async ({ name, on, reportOf }: typeof h05) => {
      if (!(on instanceof Guest)) {
        const knows = async () => JSON.stringify(await reportOf('h07')).includes('ec2.retirement')
        t.notOk(await knows())
        return () => until(`${name} knows`, knows, patienceMs)
      }
      const watch = await on.start(['garrison', 'fleet', 'watch', '--json'])
      t.notMatch(await watch.waitForLine(/"host":"h07".*"health"/, patienceMs), /"high"/)
      return () => watch.waitForLine(/"host":"h07".*"health":"high"/, patienceMs)
    }
    const there = await guest.start(['garrison', 'report', '--watch', '--json'])
    await there.waitForLine(/garrison\/report/)
    const elsewhere = await Promise.all([h05, h06].map(hearing))
    const announcedMs = performance.now()
    imds.paths.set('events/maintenance/scheduled', retirement)
    const [atMs = 0, ...others] = await Promise.all(
      [() => there.waitForLine(/"ec2\.retirement"/, patienceMs), ...elsewhere].map(async (heard) => {
        await heard()
        return performance.now() - announcedMs
      }),
    )
    const lates = others.map((ms) => Math.round(ms - atMs))
    t.comment(`told there after ${Math.round(atMs)} ms, elsewhere ${lates.join(' and ')} ms later`)
    for (const late of lates) t.ok(late < 1000, `${late} ms`)
  })
  tell('announced')

  await t.test('cables pulled out, on one network and on both: carried, not seen, healed', (t) =>
    steps.cut(t, (wire, plugged) => guest.plugCable(nics[wire], plugged)),
  )
  tell('healed')
  await t.test('the power cut, and back with what it knew', (t) =>
    steps.returns(t, h07, async () => {
      await guest.powerCut()
      await guest.powerOn({ deadlineMs: patienceMs })
    }),
  )
  tell('back')
  if (full) await t.test('rotate: new keys, while everyone stays linked', (t) => steps.rotate(t))
  await t.test('revoke: out everywhere at once, told why, and refused by both', (t) => steps.revoke(t))
  tell('revoked')
})
