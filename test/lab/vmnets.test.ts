// VMs on the network of an Outposts server, on Debian's own kernel: from an ENI alone to VMs on the LAN and its VLANs.
//
// The VMs are libvirt's and have no system: in their place a namespace of the guest stands behind each NIC, so that its frames pass
// everything that libvirt, the kernel and Garrison have put on it.

import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { caller, flood, gauge, listener, type VmNic, vmXml, wirePath } from '../contract/vm-side.ts'
import { type Aws, makeAws } from './aws.ts'
import { garrison, installGarrison, type VerbAnswer, writeDocument } from './garrison.ts'
import { bootGuest, type Guest, type Port } from './guest.ts'
import { addresses, makeOutpost, type Outpost } from './outpost.ts'
import { eachLine, linesOf } from './processes.ts'
import { ensureRequirements } from './requirements.ts'
import { sample, seed } from './sample.ts'

t.setTimeout(0)

const eniMac = '02:00:00:00:00:01'
/** Of further NICs on the LAN: one whose port is open, and one that is to be a VM's. */
const further = { side: '02:00:00:00:00:31', spare: '02:00:00:00:00:32' }
const vlan = {
  id: 20,
  host: '198.51.100.20',
  host6: '2001:db8:20::20',
  lan: '198.51.100.1',
  lan6: '2001:db8:20::1',
}
const host = '192.0.2.20'
/** Mbit/s; what is sent is twice as much. */
const limit = 1

const networks = {
  default: {
    uplink: 'lan',
    ipv4: { subnet: '192.0.2.64/27' },
    ipv6: { subnet: '2001:db8:1::160/124' },
    reservations: { one: { ipv4: '192.0.2.70', ipv6: '2001:db8:1::16a' }, two: { ipv4: '192.0.2.71' } },
    antiSpoofing: true,
    limits: { receive: limit, send: limit },
  },
  hidden: {
    mode: 'nat',
    uplink: 'lan',
    ipv4: { subnet: '10.77.0.0/24' },
    ipv6: { subnet: 'fd77::/120' },
    reservations: { one: { ipv4: '10.77.0.70' } },
    forwards: [
      { port: 8080, to: 'one', toPort: 80 },
      { port: 8081, to: 'one', toPort: 80, from: [`${addresses.gateway}/32`] },
    ],
  },
  alone: { mode: 'isolated', isolate: true, ipv4: { subnet: '10.88.0.0/24' } },
  tagged: {
    mode: 'routed',
    uplink: 'lan',
    vlan: vlan.id,
    ipv4: { subnet: '198.51.100.64/28' },
    ipv6: { subnet: '2001:db8:20::160/124' },
  },
  taghid: { mode: 'nat', uplink: 'lan', vlan: vlan.id, ipv4: { subnet: '10.99.0.0/24' } },
}
const lans = {
  lan: {
    ipv4: {
      ...{ subnet: '192.0.2.0/24', router: addresses.gateway },
      dhcp: { from: '192.0.2.100', to: '192.0.2.150' },
    },
    ipv6: { subnet: '2001:db8:1::/64', router: addresses.gateway6 },
  },
}
const lan = {
  lni: {},
  address: { cidr: `${host}/24`, gateway: addresses.gateway },
  address6: { cidr: '2001:db8:1::20/64' },
  vlans: {
    storage: {
      id: vlan.id,
      address: { cidr: `${vlan.host}/24`, gateway: vlan.lan },
      address6: { cidr: `${vlan.host6}/64` },
    },
  },
}
const documentOf = (networks: object, uplinks: object = {}): string =>
  JSON.stringify({
    version: 1,
    uplinks: { eni: { match: { mac: eniMac }, management: true }, lan, ...uplinks },
    firewall: { allow: [{ service: 'ssh', from: [addresses.lan] }] },
    vmnets: { networks, lans },
  })

const names = ['one', 'two'] as const

/** Where a VM's NIC is by its network: what it has there, beside the gateways of the network. */
const configured = (vm: (typeof names)[number]) => {
  const own = vm === 'one' ? 70 : 71
  const own6 = vm === 'one' ? 'a' : 'b'
  return {
    default: [`192.0.2.${own}/27 192.0.2.65`, `2001:db8:1::16${own6}/124 2001:db8:1::161`],
    hidden: [`10.77.0.${own}/24 10.77.0.1`, `fd77::${own6}/120 fd77::1`],
    alone: [`10.88.0.${own}/24 10.88.0.1`],
    tagged: [`198.51.100.${own}/28 198.51.100.65`, `2001:db8:20::16${own6}/124 2001:db8:20::161`],
    taghid: [`10.99.0.${own}/24 10.99.0.1`],
  }
}

const wireInGuest = '/var/tmp/guest-wire.py'

/** The NIC of a VM: the namespace behind it, its device on the host, its MAC. */
interface Nic {
  readonly space: string
  readonly tap: string
  readonly mac: string
}

const inside = (space: string, ...argv: readonly string[]): string[] => [
  ...['/usr/sbin/ip', 'netns', 'exec', space],
  ...argv,
]

async function defineVm(guest: Guest, name: string, nics: readonly VmNic[]): Promise<void> {
  const path = `/var/tmp/${name}.xml`
  await guest.writeFile(path, vmXml(name, nics))
  await guest.run(['virsh', 'define', path])
}

/** Starts a VM with a namespace behind each NIC, by its network. It has no system, so it does not run. */
async function startVm(guest: Guest, name: string): Promise<Readonly<Record<string, Nic>>> {
  await guest.run(['virsh', 'start', '--paused', name])
  const listed = await guest.run(['virsh', '--quiet', 'domiflist', name])
  const pid = (await guest.run(['cat', `/run/libvirt/qemu/${name}.pid`])).stdout.trim()
  const made = await Promise.all(
    listed.stdout
      .trim()
      .split('\n')
      .map(async (row) => {
        const [tap = '', , network = '', , mac = ''] = row.trim().split(/\s+/)
        const space = `${name}-${network}`
        await guest.run(['ip', 'netns', 'add', space])
        // libvirt does so with a macvtap when the processors of the VM begin, which here they never do.
        await guest.run(['ip', 'link', 'set', tap, 'up'])
        const carrier = ['python3', wireInGuest, pid, tap, 'eth0', mac]
        await (await guest.start(inside(space, ...carrier))).waitForLine(/ready/)
        return [network, { space, tap, mac }] as const
      }),
  )
  return Object.fromEntries(made)
}

/** Gives a NIC its addresses, each with its gateway or none, as DHCP would. */
const configure = (guest: Guest, { space }: Nic, all: readonly string[]) =>
  guest.run(['ip', '-n', space, '-batch', '-'], {
    stdin: all
      .map((one) => {
        const [address = '', gateway] = one.split(' ')
        const add = `address add ${address} dev eth0 ${address.includes(':') ? 'nodad' : ''}\n`
        return gateway === undefined ? add : `${add}route replace default via ${gateway}\n`
      })
      .join(''),
  })

/** Starts both VMs and gives their NICs what they have. */
async function startVms(guest: Guest) {
  const vms = { one: {}, two: {} } as Record<(typeof names)[number], Readonly<Record<string, Nic>>>
  for (const vm of names) {
    vms[vm] = await startVm(guest, vm)
    for (const [network, own] of Object.entries(configured(vm)))
      await configure(guest, at(vms[vm], network), own)
  }
  return vms
}

/** The NIC on a network. */
function at(nics: Readonly<Record<string, Nic>>, network: string): Nic {
  const nic = nics[network]
  if (nic === undefined) throw new Error(`no NIC on ${network}: ${Object.keys(nics).join(', ')}`)
  return nic
}

/** Whether a VM has an answer from an address within some seconds. */
const reaches = async (guest: Guest, { space }: Nic, address: string, seconds = 4): Promise<boolean> => {
  const ping = ['ping', '-n', '-q', '-c', '1', '-i', '0.3', '-w', String(seconds), address]
  return (await guest.run(inside(space, ...ping), { allowFailure: true })).exit === 0
}

/** What a server on the LAN hears when a VM calls: from whom, and what. */
async function heardOnLan(outpost: Outpost, guest: Guest, { space }: Nic, port: number): Promise<string> {
  const server = ['/usr/bin/python3', '-c', listener, String(port), '0.0.0.0']
  const line = linesOf(outpost.serve('lan', server))
  await line()
  await guest.run(inside(space, 'python3', '-c', caller, addresses.lan, String(port)))
  return line()
}

/** What a server on a VM hears when a place of the outpost calls an address and a port. */
async function heardByVm(outpost: Outpost, guest: Guest, { space }: Nic, to: string, port: number) {
  const server = await guest.start(inside(space, 'python3', '-c', listener, '80', '0.0.0.0'))
  await server.waitForLine(/ready/)
  const call = ['/usr/bin/python3', '-c', caller, to, String(port)]
  if ((await outpost.run('lan', call, { allowFailure: true })).exit === 0) return server.waitForLine(/hello/)
  await server.kill()
  return 'nothing'
}

/** The MAC that answers on the LAN for an address, or `nobody`. */
async function macOnLan(outpost: Outpost, address: string, device = 'eth0'): Promise<string> {
  const neighbour = ['/usr/sbin/ip', 'neigh']
  await outpost.run('lan', [...neighbour, 'flush', 'dev', device])
  await outpost.run('lan', ['/usr/bin/ping', '-c', '1', '-W', '2', address], { allowFailure: true })
  const { stdout } = await outpost.run('lan', [...neighbour, 'show', address])
  return /lladdr (\S+)/.exec(stdout)?.[1] ?? 'nobody'
}

type Vms = Awaited<ReturnType<typeof startVms>>

/** The LAN asks anew for every address. */
const forgetNeighbours = (outpost: Outpost) => outpost.run('lan', ['/usr/sbin/ip', 'neigh', 'flush', 'all'])

/** Who reaches whom, as the document says it. */
async function judgeReach(t: Test, { outpost, guest, vms: { one, two } }: World): Promise<void> {
  const [routed, natted, tagged] = [at(one, 'default'), at(one, 'hidden'), at(one, 'tagged')]
  const taghid = at(one, 'taghid')
  await forgetNeighbours(outpost)
  for (const to of ['192.0.2.70', '192.0.2.71', '2001:db8:1::16a'])
    t.ok(await outpost.reaches('lan', to), `the LAN reaches ${to}`)
  for (const to of ['198.51.100.70', '2001:db8:20::16a'])
    t.ok(await outpost.reaches('lan', to), `the LAN reaches ${to} over the VLAN`)
  for (const [from, to] of [
    [routed, addresses.lan],
    [routed, addresses.lan6],
    [routed, addresses.outside],
    [routed, addresses.outside6],
    [routed, '192.0.2.71'],
    [natted, addresses.lan],
    [natted, addresses.outside],
    [natted, addresses.outside6],
    [natted, '192.0.2.70'],
    [tagged, vlan.lan],
    [tagged, vlan.lan6],
    [tagged, '198.51.100.71'],
    [taghid, vlan.lan],
    [at(one, 'alone'), '10.88.0.1'],
  ] as const)
    t.ok(await reaches(guest, from, to), `${from.space} reaches ${to}`)
  for (const [from, to] of [
    [routed, '169.254.169.254'],
    [routed, addresses.vpc],
    [routed, '198.51.100.70'],
    [tagged, '192.0.2.70'],
    [at(two, 'default'), '10.77.0.70'],
    [at(one, 'alone'), '10.88.0.71'],
    [at(one, 'alone'), addresses.lan],
  ] as const)
    t.notOk(await reaches(guest, from, to, 1), `${from.space} does not reach ${to}`)
}

/**
 * Mbit/s that reach a place of the outpost from a VM, or the VM from there, after the first two seconds. Datagrams that are small
 * do not each wear out the burst of a shaper that is told none (1600 bytes): it is slower then by each delay of its timer.
 */
async function rate(
  outpost: Outpost,
  guest: Guest,
  { space }: Nic,
  to: string | null,
  bytes = 300,
): Promise<number> {
  const gauging = ['python3', '-c', gauge, '9000', '2', '6']
  const flooding = (address: string) => [
    'python3',
    '-c',
    flood,
    address,
    '9000',
    '8',
    String(limit * 2),
    String(bytes),
  ]
  if (to === null) {
    const line = linesOf(outpost.serve('lan', ['/usr/bin/env', ...gauging]))
    await line()
    await guest.run(inside(space, ...flooding(addresses.lan)))
    return Number(await line())
  }
  const measured = await guest.start(inside(space, ...gauging))
  await measured.waitForLine(/ready/)
  await outpost.run('lan', ['/usr/bin/env', ...flooding(to)])
  return Number(await measured.waitForLine(/^[\d.]+$/))
}

/** The limits of a NIC are the kernel's, in both directions. */
async function judgeLimits(t: Test, guest: Guest, { tap }: Nic): Promise<void> {
  const tc = async (...argv: readonly string[]) => (await guest.run(['tc', ...argv])).stdout
  t.match(await tc('class', 'show', 'dev', tap), new RegExp(`htb .*rate ${limit}Mbit`), 'what it receives')
  t.match(
    await tc('filter', 'show', 'dev', tap, 'ingress'),
    new RegExp(`police[^]*rate ${limit}Mbit`),
    'what it sends',
  )
}

/** The places that a VM's traffic is told to pass, by what its NIC is attached to. */
const placesOf = ({ lines }: VerbAnswer): Readonly<Record<string, string>> =>
  Object.fromEntries(
    lines[0].paths.map((path: { to: string; hops: readonly { at: string }[] }) => [
      path.to,
      path.hops.map(({ at }) => at.replace(/^vnet\d+$/, 'tap').replace(/^en.*/, 'lan')).join(' '),
    ]),
  )

/** Asks a verb until the metadata answer in time: on a machine that is busy an emulated guest is late for them. */
async function asked(guest: Guest, words: readonly string[]): Promise<VerbAnswer> {
  for (let tries = 0; ; tries += 1) {
    const answer = await garrison(guest, words)
    if (tries === 20 || !/"(imds\.unreachable|ec2\.unreachable)"/.test(JSON.stringify(answer.lines)))
      return answer
    await pause(5000)
  }
}

/** Applies to the end; throws what it said unless it settles. */
async function settled(guest: Guest): Promise<VerbAnswer> {
  const answer = await asked(guest, ['apply'])
  if (answer.exit !== 0) throw new Error(`no apply settled: ${JSON.stringify(answer.lines.at(-1))}`)
  return answer
}

/** The keys of the steps that an apply has done. */
const stepsOf = ({ lines }: VerbAnswer): readonly string[] =>
  lines.filter(({ event }) => event === 'step-done').map(({ key }) => key)

/** A finding of a report. */
interface Told {
  readonly code: string
  readonly subject?: string
  readonly sinceMs: number
}

const seconds = (fromMs: number): number => Math.round((performance.now() - fromMs) / 1000)

/** The device that has a MAC and is no VLAN and no macvtap; '' while there is none. */
async function deviceOf(guest: Guest, mac: string): Promise<string> {
  const links: { ifname: string; address: string; link?: string }[] = JSON.parse(
    (await guest.run(['ip', '-json', 'link'])).stdout,
  )
  return links.find(({ address, link }) => address === mac && link === undefined)?.ifname ?? ''
}

/** A network of libvirt on a device, as somebody makes it by hand. */
const bridgeXml = (name: string, device: string): string =>
  `<network><name>${name}</name><forward mode='bridge'><interface dev='${device}'/></forward></network>`

/** Waits until it is so; answers how many seconds that took. Throws when it takes too long. */
async function until(isSo: () => boolean | Promise<boolean>, most = 120): Promise<number> {
  for (const fromMs = performance.now(); ; await pause(500)) {
    if (await isSo()) return seconds(fromMs)
    if (seconds(fromMs) > most) throw new Error(`not within ${most} s: ${isSo}`)
  }
}

/** What the scenario stands on. */
interface World {
  readonly outpost: Outpost
  readonly aws: Aws
  readonly guest: Guest
  readonly lni: Port
  /** Started anew, they have other NICs. */
  vms: Vms
}

/** VMs are seen under the addresses and the MAC that the document says. */
async function judgeAddresses(t: Test, { outpost, guest, lni, vms }: World): Promise<void> {
  const { one } = vms
  t.equal(await heardOnLan(outpost, guest, at(one, 'default'), 7001), '192.0.2.70 hello', 'routed: its own')
  t.equal(await heardOnLan(outpost, guest, at(one, 'hidden'), 7002), `${host} hello`, 'nat: the host’s')
  t.equal(await heardByVm(outpost, guest, at(one, 'hidden'), host, 8080), `${addresses.lan} hello`)
  t.equal(await heardByVm(outpost, guest, at(one, 'hidden'), host, 8081), 'nothing', 'not declared for it')
  for (const [address, mac] of [
    ['192.0.2.70', lni.mac],
    ['192.0.2.90', lni.mac],
    ['192.0.2.99', 'nobody'],
    ['2001:db8:1::16a', lni.mac],
    ['2001:db8:1::17a', 'nobody'],
  ] as const)
    t.equal(await macOnLan(outpost, address), mac, `who answers for ${address}`)
  t.equal(await macOnLan(outpost, '2001:db8:20::16a', `eth0.${vlan.id}`), lni.mac, 'NDP on the VLAN')
  const asking = ['busybox', 'udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '8', '-s', '/bin/true']
  const { stderr } = await guest.run(inside(at(one, 'default').space, ...asking), { allowFailure: true })
  t.match(stderr, /lease of 192\.0\.2\.70 obtained/, 'DHCP keeps its address for it')
}

/** SSH from where it is declared, the metadata over the ENI. */
async function judgeHost(t: Test, { outpost, guest, aws }: World): Promise<void> {
  const scan = ['/usr/bin/ssh-keyscan', '-T', '5', '-t', 'ed25519', host]
  t.match((await outpost.run('lan', scan, { allowFailure: true })).stdout, /ssh-ed25519/)
  t.equal((await outpost.run('gateway', scan, { allowFailure: true })).stdout, '')
  t.match((await asked(guest, ['instance'])).lines[0], { instance: { instanceId: aws.instanceId } })
}

/** Frames of the VLAN have its tag on the wire, and no others. */
async function judgeTags(t: Test, { outpost, guest, lni, vms }: World): Promise<void> {
  const tagged = await outpost.counter(lni, `vlan id ${vlan.id}`)
  const others = await outpost.counter(lni, `vlan id != ${vlan.id}`)
  const bare = await outpost.counter(lni, 'ether type ip ip saddr 198.51.100.0/24')
  for (const network of ['tagged', 'taghid']) t.ok(await reaches(guest, at(vms.two, network), vlan.lan))
  const seen = await tagged()
  t.ok(seen >= 2, `${seen} tagged frames`)
  t.ok(await reaches(guest, at(vms.two, 'default'), addresses.lan))
  t.equal(await tagged(), seen, 'a VM of another network sends none')
  t.equal((await others()) + (await bare()), 0)
  const leads = ['/usr/sbin/ip', 'route', 'replace', '198.51.100.70/32', 'via', host]
  await outpost.run('gateway', leads)
  t.notOk(await outpost.reaches('gateway', '198.51.100.70'), 'nor is it reached without one')
}

/** A NIC sends and receives what it is limited to, measured. */
async function judgeRates(t: Test, { outpost, guest, vms }: World): Promise<void> {
  const nic = at(vms.one, 'default')
  await judgeLimits(t, guest, nic)
  for (const [way, to] of [
    ['sends', null],
    ['receives', '192.0.2.70'],
  ] as const) {
    let mbps = 0
    // Less than the limit can be the fault of a machine that is busy, more cannot.
    for (let tries = 0; mbps < limit * 0.8 && tries < 4; tries += 1)
      mbps = await rate(outpost, guest, nic, to)
    t.ok(Math.abs(mbps - limit) <= limit / 5, `${way} ${mbps.toFixed(2)} of ${limit} Mbit/s`)
  }
  // An emulated processor sends few datagrams, so each is large.
  const free = await rate(outpost, guest, at(vms.one, 'hidden'), null, 1400)
  t.ok(free > limit * 1.25, `a network without limits: ${free.toFixed(2)} Mbit/s`)
}

/** What is not a VM's own goes nowhere. */
async function judgeSpoofing(t: Test, { outpost, guest, vms }: World): Promise<void> {
  const { space, mac } = at(vms.two, 'default')
  const ip = (...argv: readonly string[]) => guest.run(['ip', '-n', space, ...argv])
  const pings = async (from: string, to: string): Promise<boolean> => {
    const ping = ['ping', '-n', '-q', '-c', '1', '-i', '0.3', '-w', '1', '-I', from, to]
    return (await guest.run(inside(space, ...ping), { allowFailure: true })).exit === 0
  }
  t.ok(await pings('192.0.2.71', '192.0.2.65'), 'its own address')
  for (const [address, what] of [
    ['192.0.2.70/27', 'that of another'],
    ['192.0.2.65/27', 'the gateway’s'],
    ['192.0.2.80/27', 'one that nobody has'],
    ['203.0.113.7/32', 'one of another network'],
  ] as const) {
    await ip('address', 'add', address, 'dev', 'eth0')
    const own = address.replace(/\/.*/, '')
    const to = own === '192.0.2.65' ? '192.0.2.70' : '192.0.2.65'
    t.notOk(await pings(own, to), `${what}, to a MAC that it knows`)
    await ip('neigh', 'flush', 'dev', 'eth0')
    t.notOk(await pings(own, to), `${what}, asking for one`)
    await ip('address', 'delete', address, 'dev', 'eth0')
    t.ok(await pings('192.0.2.71', '192.0.2.65'))
  }
  await ip('address', 'add', '2001:db8:1::16a/124', 'dev', 'eth0', 'nodad')
  t.notOk(await pings('2001:db8:1::16a', '2001:db8:1::161'), 'that of another, IPv6')
  await ip('address', 'delete', '2001:db8:1::16a/124', 'dev', 'eth0')
  await ip('link', 'set', 'eth0', 'address', at(vms.one, 'default').mac)
  t.notOk(await pings('192.0.2.71', '192.0.2.65'), 'the MAC of another with its own address')
  await ip('link', 'set', 'eth0', 'address', mac)
  t.ok(await pings('192.0.2.71', '192.0.2.65'), 'its own MAC')
  const { stdout } = await guest.run(['nft', 'list', 'table', 'bridge', 'garrison_vms'])
  for (const rule of ['one.taken-ipv4', 'one.taken-arp', 'one.arp', 'two.ipv4', 'one.taken-ipv6'])
    t.match(stdout, new RegExp(`packets [1-9]\\d* bytes \\d+ drop comment "default\\.${rule}`), rule)
  const shown = JSON.stringify((await garrison(guest, ['network', 'show', 'one'])).lines)
  t.match(shown, /dropped [1-9]\d* by default\.one\.taken-ipv4/, 'and it is told')
  // The bridge has learned from what it may say to its link where that MAC is, until the one that has it says something.
  t.ok(await reaches(guest, at(vms.one, 'default'), addresses.lan))
  t.ok(await outpost.reaches('lan', '192.0.2.70'), 'whose address it is is still reached')
}

/** The way of a VM's traffic is told as it is. */
async function judgeWays(t: Test, { guest }: World): Promise<void> {
  const shown = await garrison(guest, ['network', 'show', 'one'])
  t.equal(shown.exit, 0, 'nothing stops it')
  t.strictSame(placesOf(shown), {
    'network default': 'guest tap virbr0 kernel rules routes lan answers router router',
    'network hidden': 'guest tap vm-hidden kernel rules routes lan router router',
    'network alone': 'guest tap vm-alone rules',
    'network tagged': 'guest tap vm-tagged kernel rules routes lan.20 answers router',
    'network taghid': 'guest tap vm-taghid kernel rules routes lan.20 router',
  })
  const notes = JSON.stringify(shown.lines[0].paths[0])
  t.match(notes, /was given 192\.0\.2\.70/)
  for (const rule of ['default.metadata', 'default.elsewhere'])
    t.match(notes, new RegExp(`dropped [1-9]\\d* by ${rule}`))
  const why = JSON.stringify(await garrison(guest, ['why', 'vm', 'one', 'network']))
  t.match(why, /The LAN sees it by its own address, at the MAC of the host/)
  t.match(why, /It leaves with the address of the host, and is reached by forwarded ports alone/)
  t.match(why, /Nothing on this host stops its traffic/)
}

/** A bridge on the LNI is refused, once a probe has seen that it cannot work; and it does not. */
async function judgeProbe(t: Test, world: World): Promise<void> {
  const { guest } = world
  const probe = await asked(guest, ['network', 'probe', 'lan', '--address', '192.0.2.200'])
  t.match(probe.lines[0], { secondMac: 'dropped', secondAddress: 'passes' }, JSON.stringify(probe))
  t.comment(JSON.stringify(probe.lines))
  await writeDocument(guest, documentOf({ ...networks, wide: { mode: 'bridge', uplink: 'lan' } }))
  const { lines } = await asked(guest, ['plan'])
  t.match(lines[0].steps, [{ blocked: { code: 'vmnet.second-mac-unproved' } }])
  await writeDocument(guest, documentOf(networks))
  await judgeByHand(t, world)
}

/** A VM on a bridge that somebody makes on the LNI by hand is not reached. */
async function judgeByHand(t: Test, { outpost, guest, lni }: World): Promise<void> {
  await guest.writeFile('/var/tmp/byhand.xml', bridgeXml('byhand', await deviceOf(guest, lni.mac)))
  for (const argv of [
    ['net-define', '/var/tmp/byhand.xml'],
    ['net-start', 'byhand'],
  ])
    await guest.run(['virsh', ...argv])
  await defineVm(guest, 'hand', [{ network: 'byhand' }])
  const nic = at(await startVm(guest, 'hand'), 'byhand')
  await configure(guest, nic, ['192.0.2.40/24'])
  const spoken = await outpost.counter(lni, `ether saddr ${nic.mac}`)
  t.notOk(await reaches(guest, nic, addresses.lan), 'it reaches nobody')
  t.ok((await spoken()) > 0, 'though its frames come as far as the switch')
  t.notOk(await outpost.reaches('lan', '192.0.2.40'), 'nor is it reached')
  for (const argv of [
    ['destroy', 'hand'],
    ['undefine', 'hand'],
    ['net-destroy', 'byhand'],
    ['net-undefine', 'byhand'],
  ])
    await guest.run(['virsh', ...argv])
}

/** VMs with a MAC of the wire: one of its own where a probe has seen that it passes, and one that is the NIC's. */
async function judgeOwnMac(t: Test, { outpost, guest }: World): Promise<void> {
  const side = outpost.port('lan', further.side, { open: true })
  const spare = outpost.port('lan', further.spare)
  const uplinks = Object.fromEntries(
    Object.entries(further).map(([name, mac]) => [name, { match: { mac }, address: 'none' }]),
  )
  const own = {
    wide: { mode: 'bridge', uplink: 'side' },
    whole: { mode: 'passthrough', uplink: 'spare' },
  }
  // Before they are there, so that nobody else configures them.
  await writeDocument(guest, documentOf(networks, uplinks))
  t.match((await asked(guest, ['apply'])).lines.at(-1).left, [
    { blocked: { code: 'uplinks.absent' } },
    { blocked: { code: 'uplinks.absent' } },
  ])
  for (const port of [side, spare]) {
    await guest.attachNic(port)
    t.comment(
      `${await until(async () => (await deviceOf(guest, port.mac)) !== '')} s until there is a device`,
    )
  }
  await writeDocument(guest, documentOf({ ...networks, ...own }, uplinks))
  t.match(
    (await asked(guest, ['plan'])).lines[0].steps.flatMap(
      ({ blocked }: { blocked?: object }) => blocked ?? [],
    ),
    [{ code: 'vmnet.second-mac-unproved' }],
    'no bridge without a proof',
  )
  const probe = await asked(guest, ['network', 'probe', 'side'])
  t.match(probe.lines[0], { secondMac: 'passes' }, JSON.stringify(probe))
  const applied = await asked(guest, ['apply'])
  t.equal(applied.exit, 0, JSON.stringify(applied.lines.at(-1)))
  await defineVm(guest, 'wired', [{ network: 'wide' }, { network: 'whole', mac: spare.mac }])
  const wired = await startVm(guest, 'wired')
  for (const [network, address, mac] of [
    ['wide', '192.0.2.41', at(wired, 'wide').mac],
    ['whole', '192.0.2.42', spare.mac],
  ] as const) {
    await configure(guest, at(wired, network), [`${address}/24`])
    t.ok(await reaches(guest, at(wired, network), addresses.lan), `${network} reaches the LAN`)
    t.ok(await outpost.reaches('lan', address), `${network} is reached`)
    t.equal(await macOnLan(outpost, address), mac, 'under that MAC')
  }
  t.not(at(wired, 'wide').mac, side.mac, 'which is not that of the host')
  t.ok(await outpost.reaches('lan', '192.0.2.70'), 'the others are reached as before')
  t.equal((await asked(guest, ['plan'])).exit, 0)
}

/** What the host has for VMs, in the words of the kernel and libvirt; of routes those in tables of their own. */
async function wiring(guest: Guest): Promise<Readonly<Record<string, string>>> {
  const ways = ['-4', '-6'].flatMap((family) => [
    [`answers ${family}`, ['ip', family, 'neigh', 'show', 'proxy']] as const,
    [`routes ${family}`, ['ip', family, 'route', 'show', 'table', 'all']] as const,
    [`policies ${family}`, ['ip', family, 'rule']] as const,
  ])
  const lists = [
    ['networks', ['virsh', '--quiet', 'net-list', '--all']],
    ['rules', ['nft', '--stateless', 'list', 'ruleset']],
    ...ways,
  ] as const
  const told = lists.map(async ([what, argv]) => {
    const lines = (await guest.run(argv)).stdout.split('\n').map((line) => line.trim())
    const own = what.startsWith('routes') ? lines.filter((line) => / table \d/.test(line)) : lines
    return [what, own.sort().join('\n').replaceAll(' onlink', '')] as const
  })
  return Object.fromEntries(await Promise.all(told))
}

/** The host has what it had for VMs, within a minute. */
async function judgeWiring(t: Test, guest: Guest, before: Readonly<Record<string, string>>): Promise<void> {
  let after = await wiring(guest)
  for (const endMs = performance.now() + 60_000; performance.now() < endMs; await pause(2000)) {
    if (JSON.stringify(after) === JSON.stringify(before)) break
    after = await wiring(guest)
  }
  for (const [what, told] of Object.entries(before)) t.equal(after[what], told, what)
}

/** The power is cut and comes back: all is there before anybody asks a verb, and VMs that are started are reached. */
async function judgePower(t: Test, world: World): Promise<void> {
  const { guest } = world
  const before = await wiring(guest)
  const journal = (await garrison(guest, ['journal'])).lines.length
  await guest.powerCut()
  await guest.powerOn()
  await judgeWiring(t, guest, before)
  world.vms = await startVms(guest)
  await judgeReach(t, world)
  t.equal((await garrison(guest, ['journal'])).lines.length, journal, 'by nothing that was applied')
  t.equal((await asked(guest, ['plan'])).exit, 0, 'and nothing is left to do')
  t.match((await asked(guest, ['instance'])).lines[0], { instance: { instanceId: world.aws.instanceId } })
}

/** The LNI is pulled out, and comes back. */
async function judgePulled(t: Test, { outpost, guest, lni }: World): Promise<void> {
  const before = await wiring(guest)
  await guest.detachNic(lni)
  const why = await garrison(guest, ['network', 'show', 'one'])
  t.equal(why.exit, 3)
  t.match(placesOf(why)['network tagged'], /routes lan\.20$|lan\.20$/, JSON.stringify(placesOf(why)))
  await guest.attachNic(lni)
  await forgetNeighbours(outpost)
  for (const to of ['192.0.2.70', '198.51.100.70', '2001:db8:1::16a', '2001:db8:20::16a'])
    t.comment(`${await until(() => outpost.reaches('lan', to))} s until ${to} is reached again`)
  // The unit of a wire tries every 5 s until the interface takes its routes. A plan asks EC2, too, and takes up to a minute here.
  await judgeWiring(t, guest, before)
  const isSettled = async () => (await asked(guest, ['plan'])).exit === 0
  t.comment(`${await until(isSettled, 60)} s more until nothing is left to do, by nothing that was applied`)
}

/** `python3 -c talker ADDRESS PORT`: connects, and sends a byte each second. */
const talker = `
import socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
while True:
    peer.sendall(b'.')
    time.sleep(1)
`
/** `python3 -c hearer PORT`: says how many bytes it has heard on one connection, each time that there are more; 0 when it is ready. */
const hearer = `
import socket, sys
server, heard = socket.create_server(('0.0.0.0', int(sys.argv[1]))), 0
print(heard, flush=True)
peer = server.accept()[0]
while said := peer.recv(100):
    heard += len(said)
    print(heard, flush=True)
`

/** The cable of the LNI is pulled out and plugged in: that is one finding, and what VMs have goes on. */
async function judgeCable(t: Test, { outpost, guest, lni, vms }: World): Promise<void> {
  const routed = at(vms.one, 'default')
  let heard = -1
  eachLine(outpost.serve('lan', ['/usr/bin/python3', '-c', hearer, '7003']).stdout, (line) => {
    heard = Number(line)
  })
  await until(() => heard === 0)
  const talk = await guest.start(inside(routed.space, 'python3', '-c', talker, addresses.lan, '7003'))
  await until(() => heard > 0)
  const before = (await guest.run(['virsh', 'list'])).stdout
  const reports = await guest.start(['garrison', 'report', '--watch', '--json'])
  await reports.waitForLine(/"findings":/)

  await guest.plugCable(lni, false)
  // By the root side, which knows what it is for.
  await reports.waitForLine(/lan \([^)]+\) has no carrier/, 600_000)
  const heardThen = heard
  t.notOk(await outpost.reaches('lan', '192.0.2.70'))
  t.ok(await reaches(guest, routed, '192.0.2.71'), 'VMs reach each other')
  t.equal((await garrison(guest, ['network', 'show', 'one'])).exit, 3, 'and it is told where it stops')
  // Several looks of the daemon.
  await pause(45_000)

  await guest.plugCable(lni, true)
  for (const to of ['192.0.2.70', '198.51.100.70', '2001:db8:1::16a'])
    t.comment(`${await until(() => outpost.reaches('lan', to))} s until ${to} is reached again`)
  t.comment(`${await until(() => heard > heardThen)} s until a connection that was open goes on`)
  t.equal((await guest.run(['virsh', 'list'])).stdout, before, 'VMs are as they were')
  await until(() => !/"code":"[a-z.]*no-carrier"/.test(reports.lines.at(-1) ?? ''), 600)
  await reports.kill('TERM')
  await talk.kill()
  const [standing = [], ...later] = reports.lines.map((line): readonly string[] =>
    JSON.parse(line).findings.flatMap(({ code, subject, sinceMs }: Told) =>
      /^(nic|uplinks|vmnets|firewall)\./.test(code) ? `${code} ${subject} ${sinceMs}` : [],
    ),
  )
  const told = later.flat().filter((one) => !standing.includes(one))
  const [one, ...others] = new Set(told)
  t.match(one, /^nic\.no-carrier /, `${one} in ${told.length} of ${reports.lines.length} reports`)
  t.same(others, [], 'one finding, which began once')
  t.equal((await asked(guest, ['plan'])).exit, 0, 'and nothing is left to do')
}

/** The host's own way out leads over the LNI: while its cable is out it leads elsewhere, and VMs have all of theirs afterwards. */
async function judgeDefault(t: Test, { outpost, aws, guest, lni, vms }: World): Promise<void> {
  const device = await deviceOf(guest, lni.mac)
  const leads = async (): Promise<string> =>
    JSON.parse((await guest.run(['ip', '-json', 'route', 'get', addresses.outside])).stdout)[0].dev
  // The way by which the lab asks the guest has a default route that comes before every other, and one that NetworkManager gives back.
  await guest.run(['ip', 'route', 'flush', 'exact', 'default', 'dev', await leads()])
  const applies = async (document: string) => {
    await writeDocument(guest, document)
    // Before a power cut that may come next.
    await guest.run(['sync'])
    const { exit, lines } = await asked(guest, ['apply', '--allow', 'disruptive'])
    t.equal(exit, 0, JSON.stringify(lines.at(-1)))
  }
  const isReached = async () =>
    (await outpost.reaches('lan', '192.0.2.70')) && (await outpost.reaches('lan', '2001:db8:1::16a'))
  t.not(await leads(), device)
  const managing = { match: { mac: eniMac }, management: true, address: 'dhcp' }
  await applies(documentOf(networks, { eni: managing, lan: { ...lan, defaultRoute: true } }))
  t.equal(await leads(), device)
  t.ok(await isReached())
  const before = await wiring(guest)

  await guest.plugCable(lni, false)
  t.comment(`${await until(async () => (await leads()) !== device)} s until it leads over ${await leads()}`)
  // NetworkManager waits some seconds before it takes a cable for out.
  await pause(15_000)
  t.not(await leads(), device)
  t.ok(await reaches(guest, at(vms.one, 'default'), '192.0.2.71'), 'VMs reach each other')
  t.match((await asked(guest, ['instance'])).lines[0], { instance: { instanceId: aws.instanceId } })

  await guest.plugCable(lni, true)
  t.comment(`${await until(isReached)} s until VMs are reached again`)
  t.equal(await leads(), device)
  t.same(await wiring(guest), before)
  t.equal((await asked(guest, ['plan'])).exit, 0, 'and nothing is left to do')
  await applies(documentOf(networks))
  t.not(await leads(), device)
  t.ok(await isReached())
}

/** All of it on a guest whose interfaces one backend configures. */
async function scenario(t: Test, backend: Backend): Promise<void> {
  const began = performance.now()
  const told = (what: string) => t.comment(`${what} after ${seconds(began)} s`)
  await ensureRequirements(
    (line) => t.comment(line),
    [
      { package: 'busybox', path: '/usr/bin/busybox' },
      { package: 'iputils-ping', path: '/usr/bin/ping' },
      { package: 'nftables', path: '/usr/sbin/nft' },
      { package: 'python3-minimal', path: '/usr/bin/python3' },
    ],
  )
  await using outpost = await makeOutpost()
  await outpost.speak(vlan.id, [`${vlan.lan}/24`, `${vlan.lan6}/64`])
  const eni = outpost.port('vpc', eniMac)
  await using aws = await makeAws(outpost, eniMac)
  await using guest = await bootGuest({
    instanceId: aws.instanceId,
    prepared: true,
    drives: [],
    nics: [eni],
    memoryMiB: 3072,
  })
  await aws.prepare(guest, backend)
  for (const tool of ['/usr/bin/ping', '/usr/bin/busybox']) await guest.copyIn(tool, tool)
  await guest.copyIn(wirePath, wireInGuest)
  await installGarrison(guest)
  await writeDocument(guest, documentOf(networks))
  // What was there before Garrison has long been on the drive.
  await guest.run(['sync'])
  told('ready for the first apply')
  let attachedMs = 0
  aws.front.onCall = async (action, at) => {
    if (action !== 'AttachNetworkInterface' || at !== 'performed') return
    attachedMs = performance.now()
    await aws.plug(guest)
  }
  const first = await settled(guest)
  told(`settled by ${first.lines.at(-1).performed} steps`)
  const { lni } = aws
  if (lni === null) throw new Error('nothing was attached')
  for (const vm of names)
    await defineVm(
      guest,
      vm,
      Object.keys(configured(vm)).map((network) => ({ network })),
    )
  const world: World = { outpost, aws, guest, lni, vms: await startVms(guest) }
  t.ok(await outpost.reaches('lan', '192.0.2.70'))
  t.comment(
    `${seconds(attachedMs)} s from the attachment to a VM that the LAN reaches, its first start included`,
  )
  // Now their MACs are known.
  t.comment(stepsOf(await settled(guest)).join(', '))
  told('reservations made')

  t.comment(`seed ${seed}`)
  for (const [what, judge] of [
    ['who reaches whom', judgeReach],
    ['under which address and MAC', judgeAddresses],
    ['the host itself', judgeHost],
    ...sample(
      [
        ['frames of the VLAN have its tag on the wire, and no others', judgeTags],
        ['limits', judgeRates],
        ['what is not its own goes nowhere', judgeSpoofing],
        ['the way is told as it is', judgeWays],
        ['a bridge on it is refused, once a probe has seen that it cannot work', judgeProbe],
        ['the cable is pulled out, and plugged in again', judgeCable],
        ['the same where the default route of the host leads over it', judgeDefault],
        ['the interface is pulled out, and comes back', judgePulled],
        ['the power is cut, and comes back', judgePower],
        ['a MAC of the wire', judgeOwnMac],
      ] as const,
      1,
    ),
  ] as const) {
    await t.test(what, (t) => judge(t, world))
    told(what)
  }
}

for (const backend of sample(['networkd', 'networkmanager'] as const, 1))
  t.test(`from an ENI alone to VMs on the LAN and on a VLAN, by ${backend}`, (t) => scenario(t, backend))
