// A whole host with one of the backends, and what is at the other ends of its cables: a VPC and a LAN, each with its router.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { stringify } from 'yaml'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { makeBox } from './box.ts'
import { usualPaths } from './fake-imds.ts'
import { attempt, cable, listening, type Namespace, namespaces } from './namespaces.ts'

const eniMac = '02:3a:00:00:00:01'
const lanMac = '02:3a:00:00:00:11'

const mark = 'Written by somebody else'

/** What a host has before Garrison: the first interface by DHCP, configured by those who make images. */
const foreign: Readonly<Record<Backend, Readonly<Record<string, string>>>> = {
  networkd: {
    '/etc/systemd/network/10-netplan-eth0.network': `# ${mark}\n[Match]\nMACAddress=${eniMac}\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=ipv6\n\n[DHCP]\nRouteMetric=100\nUseMTU=true\n`,
  },
  networkmanager: {
    '/etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection': `# ${mark}\n[connection]\nid=cloud-init eth0\nuuid=1dd9a779-d327-56e1-8454-c65e2556c12c\ntype=ethernet\n\n[ethernet]\nmac-address=${eniMac}\n\n[ipv4]\nmethod=auto\n`,
    '/etc/NetworkManager/conf.d/20-site.conf': `# ${mark}\n[main]\nno-auto-default=*\n`,
  },
}

const units: Readonly<Record<Backend, string>> = {
  networkd: 'systemd-networkd.service',
  networkmanager: 'NetworkManager.service',
}

const dhcpServer = (device: string, range: string, options: readonly string[], leases: string) => [
  ...['/usr/sbin/dnsmasq', '--no-daemon', '--conf-file=/dev/null', '--port=0', '--bind-interfaces'],
  ...[`--interface=${device}`, `--dhcp-range=${range},2m`, `--dhcp-leasefile=${leases}`],
  ...['--dhcp-authoritative', '--no-ping', ...options],
]

type Document = { readonly [key: string]: unknown }

const kept = { match: { mac: eniMac }, management: true }
const eni = { ...kept, address: 'dhcp' }
const byMac = { match: { mac: lanMac } }
const fixed = { cidr: '192.0.2.10/24', gateway: '192.0.2.1', dns: ['192.0.2.53'] }

/** A host with an interface to a VPC, which has its address, and one to a LAN, which has none, and a DHCP server unless a test has its own. */
export async function makeWorld(backend: Backend, servesLan = true) {
  await ensureRequirements(
    (line) => t.comment(line),
    [
      { package: 'dnsmasq-base', path: '/usr/sbin/dnsmasq' },
      { package: 'nftables', path: '/usr/sbin/nft' },
    ],
  )
  const made = namespaces()
  const [host, vpc, lan] = ['box', 'vpc', 'lan'].map((name) => made.make(name)) as [
    Namespace,
    Namespace,
    Namespace,
  ]
  t.teardown(() => made.close())
  cable(host, 'eth0', vpc, 'vpc0', eniMac)
  cable(host, 'eth1', lan, 'lan0', lanMac)
  vpc.ip('address', 'add', '10.0.1.1/24', 'dev', 'vpc0')
  for (const address of ['169.254.169.254/32', '10.0.9.9/32', '203.0.113.7/32'])
    vpc.ip('address', 'add', address, 'dev', 'lo')
  lan.ip('address', 'add', '192.0.2.1/24', 'dev', 'lan0')
  for (const address of ['192.0.2.53/32', '198.51.100.9/32', '203.0.113.7/32'])
    lan.ip('address', 'add', address, 'dev', 'lo')
  const scratch = t.testdir({})
  // As that of a VPC: whoever asks with the MAC has the address.
  const reserved = [`--dhcp-host=${eniMac},10.0.1.10`, '--dhcp-ignore-clid']
  await vpc.start(dhcpServer('vpc0', '10.0.1.10,10.0.1.10', reserved, join(scratch, 'vpc')), 'stderr')
  // A server that nobody vouches for: it would take the metadata, rename the host and has words with line ends and escapes.
  if (servesLan)
    await lan.start(
      dhcpServer(
        'lan0',
        '192.0.2.50,192.0.2.60',
        [
          '--dhcp-option=121,169.254.169.254/32,192.0.2.1,0.0.0.0/0,192.0.2.1',
          '--dhcp-option-force=12,evil\n\u001b[2Jhost',
          '--dhcp-option-force=15,"evil\n\u001b[2J.example"',
          '--dhcp-option-force=26,576',
        ],
        join(scratch, 'lan'),
      ),
      'stderr',
    )
  const metadata = { ...usualPaths }
  for (const [path, value] of Object.entries(metadata)) {
    delete metadata[path]
    const ours = (text: string) =>
      text.replaceAll('02:00:00:00:00:10', eniMac).replaceAll('02:00:00:00:00:11', lanMac)
    metadata[ours(path)] = ours(value)
  }
  const imds = join(import.meta.dirname, 'fake-imds.ts')
  await vpc.start([process.execPath, imds, JSON.stringify(metadata)])

  const box = await makeBox(host.name, (line) => t.comment(line))
  t.teardown(() => box.close())
  for (const [path, content] of Object.entries(foreign[backend]))
    box.write(path, content, path.endsWith('.nmconnection') ? 0o600 : 0o644)
  await box.boot()
  await box.run(['/usr/bin/systemctl', 'enable', '--now', units[backend]])
  await box.run([
    '/usr/bin/systemctl',
    'enable',
    'garrison-network-undo.service',
    'garrison-firewall.service',
  ])
  await host.start(listening([22]))

  const until = async (
    what: string,
    holds: () => boolean | Promise<boolean>,
    mostMs = 20_000,
  ): Promise<void> => {
    const endMs = Date.now() + mostMs
    while (!(await holds())) {
      if (Date.now() > endMs) throw new Error(`${what}: not within ${mostMs} ms\n${host.ip('address')}`)
      await sleep(100)
    }
  }
  const addresses = (device: string): string => host.ip('-brief', 'address', 'show', 'dev', device)
  const wayTo = (address: string): string =>
    /\bdev (\S+)/.exec(host.ip('route', 'get', address))?.[1] ?? 'nowhere'
  const declare = (uplinks: Document, more: Document = {}): void =>
    box.write('/etc/garrison/host.yaml', stringify({ version: 1, uplinks, ...more }))
  const garrison = async (...args: readonly string[]) => {
    const { exit, stdout, stderr } = await box.run(box.garrison(...args, '--json'), { allowFailure: true })
    const line = stdout.trim().split('\n').at(-1) ?? ''
    return { exit, stderr, answer: line === '' ? null : (JSON.parse(line) as Record<string, never>) }
  }
  const settle = async (uplinks: Document) => {
    declare(uplinks)
    const { exit, stderr, answer } = await garrison('apply', '--allow', 'disruptive')
    t.equal(exit, 0, `apply: ${stderr}${exit === 0 ? '' : JSON.stringify(answer)}`)
    const again = await garrison('plan')
    t.equal(again.exit, 0, `settled: ${JSON.stringify(again.answer)}`)
  }
  const answersFromFar = (): void => {
    t.equal(attempt(vpc, 'tcp', '10.0.1.10', 22, '10.0.9.9'), 'open', 'a session over the ENI')
    t.equal(attempt(lan, 'tcp', '192.0.2.10', 22, '198.51.100.9'), 'open', 'a session over the LAN')
  }

  await until('a lease', () => addresses('eth0').includes('10.0.1.10/24'))

  const lanFixed = { ...byMac, address: fixed, mtu: 1400, defaultRoute: true }
  const rename = (from: string, to: string): void => {
    host.ip('link', 'set', from, 'down')
    host.ip('link', 'set', from, 'name', to)
    host.ip('link', 'set', to, 'up')
  }
  /** The namespace outlives the host, so what the kernel knew is forgotten by hand. */
  const goDown = async (how: 'cut' | 'halt'): Promise<void> => {
    await box[how]()
    host.run(['/usr/sbin/nft', 'flush', 'ruleset'])
    for (const [device] of host.ip('-brief', 'link').matchAll(/^(?!lo\b)[^\s@]+/gm)) {
      host.ip('address', 'flush', 'dev', device)
      host.ip('link', 'set', device, 'down')
    }
    for (const { priority } of JSON.parse(host.ip('-json', 'rule')))
      if (priority > 0 && priority < 32_766) host.ip('rule', 'delete', 'priority', priority)
  }
  const bothUp = (eniName: string, lanName: string) =>
    until(
      'both addresses',
      () => addresses(lanName).includes('192.0.2.10/24') && addresses(eniName).includes('10.0.1.10/24'),
    )
  const settled = async (uplinks: Document): Promise<void> => {
    declare(uplinks)
    const { exit, answer } = await garrison('plan')
    t.equal(exit, 0, `settled: ${JSON.stringify(answer)}`)
  }

  return {
    ...{ host, vpc, lan, box, unit: units[backend], foreign: foreign[backend] },
    ...{ eni, kept, byMac, lanFixed },
    ...{ addresses, wayTo, until, bothUp, answersFromFar },
    ...{ declare, garrison, settle, settled, rename, goDown },
  }
}
