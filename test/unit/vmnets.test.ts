// The networks of VMs over a host in memory: every mode from nothing, every change of mode, and what stays while VMs run.

import t from 'tap'
import type { Desired } from '../../provisioning/desired.ts'
import { parseDocument } from '../../provisioning/document.ts'
import { type Step, stepKey } from '../../provisioning/resource.ts'
import { vmnets } from '../../provisioning/vmnets/index.ts'
import { pathsOf } from '../../provisioning/vmnets/path.ts'
import { observePaths, parseCounts, parseLeases } from '../../provisioning/vmnets/path-facts.ts'
import {
  domainOn,
  lniMac,
  type NetworkHost,
  networkFacts,
  networkReader,
  performedOn,
  probed,
} from './vmnets-host.ts'

const documentOf = (networks: object, more: object = {}): Desired =>
  parseDocument([{ path: 'host.yaml', text: JSON.stringify({ version: 1, vmnets: { networks, ...more } }) }])

async function look(host: NetworkHost, desired: Desired) {
  const observed = await vmnets.observe(networkReader(host), desired)
  return {
    steps: vmnets.plan(observed, desired),
    findings: vmnets.check(observed).map(({ code, severity }) => `${severity} ${code}`),
    summary: vmnets.describe(observed, desired),
  }
}

/** Performs the first step that is not blocked until there is none, as the engine does. */
async function converge(
  host: NetworkHost,
  desired: Desired,
): Promise<readonly [NetworkHost, readonly Step[]]> {
  let now = host
  for (let round = 0; round < 30; round += 1) {
    const { steps } = await look(now, desired)
    const next = steps.find(
      ({ blocked, after = [] }) => !blocked && !after.some((key) => steps.map(stepKey).includes(key)),
    )
    if (next === undefined) return [now, steps]
    now = next.actions.reduce(performedOn, now)
  }
  throw new Error('it does not come to an end')
}

const routed = {
  uplink: 'lni',
  ...{ ipv4: { subnet: '192.0.2.64/27' }, ipv6: { subnet: '2001:db8:1::100/120' } },
}
const modes: Readonly<Record<string, object>> = {
  routed: { mode: 'routed', ...routed },
  'routed elsewhere': { mode: 'routed', uplink: 'lni', ipv4: { subnet: '192.0.2.32/28' } },
  'routed by the router': { mode: 'routed', uplink: 'lni', ipv4: { subnet: '10.5.0.0/16', proxy: false } },
  nat: {
    ...{ mode: 'nat', uplink: 'lni', ipv4: { subnet: '10.77.0.0/24' }, ipv6: { subnet: 'fd77::/64' } },
    forwards: [{ port: 8080, to: '10.77.0.9', toPort: 80, from: ['198.51.100.0/24'] }],
  },
  'nat over the ENI': { mode: 'nat', uplink: 'eni', ipv4: { subnet: '10.78.0.0/24' } },
  guarded: {
    ...{ mode: 'routed', ...routed, antiSpoofing: true, limits: { receive: 100, send: 50 } },
    reservations: { a: { mac: '52:54:00:00:00:0a', ipv4: '192.0.2.70', ipv6: '2001:db8:1::170' } },
  },
  isolated: { mode: 'isolated', ipv4: { subnet: '10.88.0.0/24' } },
  'isolated without addresses': { mode: 'isolated', isolate: true },
  passthrough: { mode: 'passthrough', uplink: 'lni' },
}
const lans = { lni: { ipv4: { subnet: '192.0.2.0/24', router: '192.0.2.1' } } }

t.test('every mode from nothing, and then nothing more', async (t) => {
  for (const [name, net] of Object.entries(modes)) {
    const desired = documentOf({ default: net }, { lans })
    const [host, left] = await converge({}, desired)
    t.strictSame(left, [], name)
    const { findings } = await look(host, desired)
    t.strictSame(
      findings.filter((one) => !one.endsWith('no-router')),
      [],
      name,
    )
  }
})

/** What is on the host beside switches of the kernel, which others may need by now, and unreached routes. */
const remains = ({
  files = {},
  rules = [],
  proxies = [],
  table = null,
  frames = null,
  enabled = [],
}: NetworkHost): object => ({
  ...{ rules, proxies: [...proxies].sort(), table, frames, enabled: [...enabled].sort() },
  files: Object.fromEntries(Object.entries(files).filter(([, text]) => text !== '')),
})

t.test('from each mode to each other nothing is left behind', async (t) => {
  for (const [from, before] of Object.entries(modes)) {
    const [stood] = await converge({}, documentOf({ default: before }, { lans }))
    for (const [to, after] of Object.entries(modes)) {
      const desired = documentOf({ default: after }, { lans })
      const [host, left] = await converge(stood, desired)
      t.strictSame(left, [], `${from} to ${to}`)
      const [fresh] = await converge({}, desired)
      t.strictSame(remains(host), remains(fresh), `${from} to ${to}`)
    }
  }
})

t.test('a switch of the kernel that systemd-networkd has is left to it', async (t) => {
  const desired = documentOf({ default: modes.routed ?? {} }, { lans })
  const key = 'net/ipv6/conf/lni/accept_ra'
  for (const [before, after] of [
    ['0', undefined],
    ['1', '2'],
    ['2', '2'],
  ] as const) {
    const [host] = await converge({ sysctls: { [key]: before } }, desired)
    const text = host.files?.['/etc/sysctl.d/60-garrison-vmnets.conf'] ?? ''
    t.equal(/accept_ra = (\d)/.exec(text)?.[1], after)
  }
})

t.test('the network that libvirt came with becomes the declared one', async (t) => {
  const own = `<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/>
    <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>`
  const desired = documentOf({ default: modes.routed ?? {} }, { lans })
  const idle: NetworkHost = { networks: [networkFacts('default', own)] }
  const [host, left] = await converge(idle, desired)
  t.strictSame(left, [])
  t.match(host.networks?.[0]?.liveXml, /name="virbr0"[\s\S]*mode="open"[\s\S]*address="192.0.2.65"/)

  const busy: NetworkHost = {
    ...idle,
    domains: [
      domainOn('old', "<interface type='network'><source network='default' bridge='virbr0'/></interface>"),
    ],
  }
  const [waiting] = await converge(busy, desired)
  t.equal(waiting.networks?.[0]?.liveXml, own, 'not under a VM that runs')
  t.match(waiting.networks?.[0]?.xml, /mode="open"/)
  t.notMatch(waiting.table ?? '', /spoofed/, 'and no rule for what libvirt leads')
  t.match((await look(waiting, desired)).findings, ['notice vmnets.restart-pending'])
})

t.test('a VM that runs keeps the rules that it runs by', async (t) => {
  const domains = [domainOn('a', "<interface type='network'><source network='default'/></interface>")]
  const [stood] = await converge({}, documentOf({ default: modes.nat ?? {} }, { lans }))
  const [host] = await converge({ ...stood, domains }, documentOf({ default: modes.routed ?? {} }, { lans }))
  t.match(host.files?.['/var/lib/garrison/vmnets/rules.nft'], /ip saddr != 10\.77\.0\.0\/24/)
  t.match(host.files?.['/var/lib/garrison/vmnets/rules.nft'], /masquerade/)
  t.strictSame(host.proxies ?? [], [])
  const [after] = await converge(
    { ...host, domains: [] },
    documentOf({ default: modes.routed ?? {} }, { lans }),
  )
  t.match(after.files?.['/var/lib/garrison/vmnets/rules.nft'], /ip saddr != 192\.0\.2\.64\/27/)
  t.equal(after.proxies?.length, 29 + 254)
})

t.test('an uplink is found by its MAC, whatever it is called', async (t) => {
  const desired = parseDocument([
    {
      path: 'host.yaml',
      text: JSON.stringify({
        version: 1,
        uplinks: { lan: { match: { mac: lniMac } } },
        vmnets: { networks: { default: { ...routed, uplink: 'lan' } }, lans: { lan: lans.lni } },
      }),
    },
  ])
  const [host] = await converge({}, desired)
  t.match(host.files?.['/var/lib/garrison/vmnets/lni.ipv4'], /proxy 192\.0\.2\.70 dev lni/)
  const [renamed, left] = await converge({ ...host, lni: 'ens6', proxies: [] }, desired)
  t.strictSame(left, [])
  t.match(renamed.files?.['/var/lib/garrison/vmnets/ens6.ipv4'], /proxy 192\.0\.2\.70 dev ens6/)
  t.notOk(renamed.files?.['/var/lib/garrison/vmnets/lni.ipv4'])
  const { steps, findings } = await look({ ...host, lni: null, proxies: [] }, desired)
  t.match(
    steps.map(({ blocked }) => blocked?.code),
    ['vmnet.uplink-missing'],
  )
  t.strictSame(findings, [], 'that it is not there is a finding of the uplinks')
})

t.test('an interface that is cut off is one finding, however many networks lead to it', async (t) => {
  const nat = { mode: 'nat', uplink: 'lni', ipv4: { subnet: '10.77.0.0/24' } }
  const tagged = { uplink: 'lan', vlan: 20, ipv4: { subnet: '198.51.100.64/29' } }
  const networks = { default: routed, hidden: nat, tagged }
  const found = async (host: NetworkHost, more: object = {}) => {
    const desired = parseDocument([
      { path: 'host.yaml', text: JSON.stringify({ version: 1, vmnets: { networks, lans }, ...more }) },
    ])
    const observed = await vmnets.observe(networkReader(host), desired)
    return vmnets.check(observed).map(({ code, subject, text }) => `${code} ${subject}: ${text}`)
  }
  const there = { vlan: true, router: true }
  t.same(await found(there), [
    'vmnets.no-router default: VMs of default reach the LAN of lni and no further (IPv6): no router is known there',
    'vmnets.no-router tagged: VMs of tagged reach the LAN of lan.20 and no further (IPv4): no router is known there',
  ])
  t.same(await found({ ...there, carrier: false }), [
    'nic.no-carrier lni: lni has no carrier, where these networks lead: default, hidden, tagged',
  ])
  t.same(await found({ lni: null }), [
    'vmnets.uplink-missing lni: lni is not there, where these networks lead: default, hidden',
    'vmnets.uplink-missing lan.20: lan.20 is not there, where these networks lead: tagged',
  ])
  const uplinks = { lan: { match: { mac: lniMac }, vlans: { work: { id: 20 } } } }
  t.same(
    await found({ ...there, carrier: false }, { uplinks }),
    ['nic.no-carrier lni: lni has no carrier, where these networks lead: default, hidden'],
    'of an uplink of the document the uplinks tell it',
  )
})

t.test('where the default route is, another is to be taken while the cable is out', async (t) => {
  const switches = async (uplink: string) => {
    const net = { mode: 'nat', uplink, ipv4: { subnet: '10.77.0.0/24' } }
    const [host, left] = await converge({ router: true }, documentOf({ default: net }))
    t.same(left, [])
    return Object.entries(host.sysctls ?? {}).filter(([key]) => key.endsWith('linkdown'))
  }
  t.same(await switches('lni'), [])
  t.same(await switches('eni'), [
    ['net/ipv4/conf/eni/ignore_routes_with_linkdown', '1'],
    ['net/ipv6/conf/eni/ignore_routes_with_linkdown', '1'],
  ])
})

t.test('while a cable is out nothing else is wanted than before', async (t) => {
  const nat = { mode: 'nat', uplink: 'lni', ipv4: { subnet: '10.77.0.0/24' } }
  for (const more of [{}, { lans }]) {
    const desired = documentOf({ default: routed, hidden: nat }, more)
    const [host] = await converge({ router: true }, desired)
    t.ok((host.routes ?? []).length > 0, 'by the router that DHCP has told, or the document')
    t.same((await look({ ...host, carrier: false }, desired)).steps, [])
  }
})

const probe = (...found: Parameters<typeof probed>) => ({
  '/var/lib/garrison/network-probe/lni.json': JSON.stringify(probed(...found)),
})

t.test('auto goes by the probe of this very interface', async (t) => {
  const auto = documentOf({ default: routed }, { lans })
  const natted = documentOf({ default: { uplink: 'lni', ipv4: { subnet: '10.1.0.0/24' } } }, { lans })
  const summaryOf = async (files: Record<string, string>, desired = auto) =>
    (await look({ files }, desired)).steps.find(({ id }) => id === 'vmnets.define')?.summary
  t.match(await summaryOf({}), /^routed on lni: no probe has proved .* slice of the LAN$/)
  t.match(await summaryOf({}, natted), /^nat on lni: .* no slice of the LAN$/)
  t.match(await summaryOf(probe('dropped')), /^routed on lni: a probe saw a second MAC dropped/)
  t.match(await summaryOf(probe('passes')), /^bridge on lni: a probe saw a second MAC pass/)
  t.match(
    await summaryOf(probe('passes', '02:00:00:00:00:99')),
    /^routed/,
    'not by that of another interface',
  )
  t.match(
    await summaryOf({ '/var/lib/garrison/network-probe/lni.json': '{"secondMac":"passes"}' }),
    /^routed/,
  )
})

t.test('what the kernel and dnsmasq write down', async (t) => {
  const line = (name: string): string => `${name}: 100 7 0 1 0 0 0 0 200 9 0 2 0 0 0 0`
  t.strictSame(
    parseCounts(`Inter-|   Receive\n face |bytes\n${line('  lni.20')}\n${line('vnet0')}\nbad: 1 2\n`),
    {
      'lni.20': { receivedBytes: 100, receivedPackets: 7, sentBytes: 200, sentPackets: 9, dropped: 3 },
      vnet0: { receivedBytes: 100, receivedPackets: 7, sentBytes: 200, sentPackets: 9, dropped: 3 },
    },
  )
  const lease = (more: object) =>
    JSON.stringify([
      { 'ip-address': '192.0.2.70', 'mac-address': '52:54:00:00:00:0A', 'expiry-time': 20, ...more },
    ])
  t.strictSame(parseLeases(lease({}), 10_000), [{ mac: '52:54:00:00:00:0a', address: '192.0.2.70' }])
  for (const text of [null, '', '[', '{}', lease({ 'expiry-time': 5 }), lease({ 'ip-address': '\u001b[2J' })])
    t.strictSame(parseLeases(text, 10_000), [], String(text))
})

t.test('the way of a VM that is nowhere declared, or does not run', async (t) => {
  const paths = async (host: NetworkHost, desired: Desired, vm?: string) =>
    pathsOf(await observePaths({ ...networkReader(host), now: async () => 0 }, desired), vm)
  const nic =
    "<interface type='bridge'><mac address='52:54:00:00:00:0a'/><source bridge='br0'/><target dev='vnet0'/></interface>"
  const nothing = parseDocument([{ path: 'host.yaml', text: '{"version": 1}' }])
  t.match(await paths({ domains: [domainOn('a', nic)] }, nothing), [
    {
      vm: 'a',
      to: 'bridge br0',
      mode: null,
      hops: [{ at: 'guest' }, { at: 'vnet0', stop: { text: /no interface vnet0/ } }],
    },
  ])
  t.match(await paths({ domains: [domainOn('a', nic, false)] }, nothing), [
    { hops: [{ stop: { text: 'a does not run', remedy: 'garrison vm start a' } }] },
  ])
  t.strictSame(await paths({ domains: [domainOn('a', nic)] }, nothing, 'b'), [])
  const dropped = await paths(
    {
      files: probe('dropped'),
      isInstance: false,
      domains: [
        domainOn(
          'm',
          `<interface type='network'><mac address='52:54:00:00:00:0a'/><source network='wide' dev='lni'/><target dev='macvtap0'/></interface>`,
        ),
      ],
      networks: [
        networkFacts(
          'wide',
          "<network><name>wide</name><forward mode='bridge'><interface dev='lni'/></forward></network>",
        ),
      ],
      taps: ['macvtap0'],
    },
    documentOf({ wide: { mode: 'bridge', uplink: 'lni' } }),
  )
  t.match(dropped[0]?.hops.at(-1), { at: 'wire', stop: { text: /drops frames with another MAC/ } })
})
