// What every backend must make of the document, tried on a whole host.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { RootStatus } from '../../agent/report/root-view.ts'
import type { Step } from '../../provisioning/resource.ts'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { policyLines, proxyLine } from '../../provisioning/vmnets/want.ts'
import { endOf } from '../lab/processes.ts'
import { cable } from './namespaces.ts'
import { makeWorld } from './uplinks-world.ts'

const cloudInit = '/etc/cloud/cloud.cfg.d/99-garrison-network.cfg'

/** Longer than NetworkManager waits for a carrier to come back. */
const outlastMs = 12_000

/** Runs the suite with one backend. */
export async function suite(backend: Backend): Promise<void> {
  const world = await makeWorld(backend)
  const { host, lan, vpc, box, unit, foreign, eni, kept, byMac, lanFixed } = world
  const { addresses, wayTo, until, bothUp, answersFromFar } = world
  const { declare, garrison, settle, settled, rename, goDown } = world

  t.test('a new interface by DHCP is safe, and then settled', async (t) => {
    // As it is where cloud-init is installed.
    box.write('/etc/cloud/cloud.cfg', '')
    declare({ eni: kept, lan: byMac })
    const { exit, stderr, answer } = await garrison('apply')
    t.equal(exit, 0, `${stderr} ${JSON.stringify(answer)}`)
    t.match(addresses('eth1'), /192\.0\.2\.5\d\/24/)
    t.equal((await garrison('plan')).exit, 0)
    t.equal(wayTo('203.0.113.7'), 'eth0', 'the default route stays')
    if (backend === 'networkd') {
      t.equal(wayTo('169.254.169.254'), 'eth0', 'the metadata stay on the ENI whatever a lease says')
      t.match(host.ip('link', 'show', 'dev', 'eth1'), /mtu 1500/)
    } else {
      // It cannot be told to leave these out; that is found.
      const { answer } = await garrison('status')
      t.match(JSON.stringify(answer), 'uplinks.takes-metadata')
      await settle({ eni: kept, lan: { ...byMac, address: 'none' } })
      t.equal(wayTo('169.254.169.254'), 'eth0', 'without an address there is no such route')
    }
    t.equal((await box.run(['/usr/bin/hostname'])).stdout, 'box\n')
    t.match(box.read(cloudInit), /apply_full_imds_network_config: false/)
  })

  t.test('static, another MTU, and the default route on the LAN', async (t) => {
    await settle({ eni, lan: lanFixed })
    t.match(addresses('eth1'), '192.0.2.10/24')
    t.notMatch(addresses('eth1'), /192\.0\.2\.5/)
    t.match(host.ip('link', 'show', 'dev', 'eth1'), /mtu 1400/)
    t.equal(wayTo('203.0.113.7'), 'eth1')
    t.match(box.read(cloudInit), /network: \{config: disabled\}/)
    t.equal(wayTo('169.254.169.254'), 'eth0')
    answersFromFar()
    t.match((await garrison('instance')).answer, { instance: { instanceId: 'i-0123456789abcdef0' } })
  })

  t.test(
    'a renamed interface is the same, and so are two that changed names while the host was down',
    async (t) => {
      rename('eth1', 'ens7')
      await settle({ eni, lan: lanFixed })
      t.match(addresses('ens7'), '192.0.2.10/24')
      answersFromFar()
      await goDown('cut')
      rename('eth0', 'eth9')
      rename('ens7', 'eth0')
      rename('eth9', 'ens7')
      await box.boot()
      await bothUp('ens7', 'eth0')
      await settled({ eni, lan: lanFixed })
      answersFromFar()
      await goDown('cut')
      rename('eth0', 'eth1')
      rename('ens7', 'eth0')
      await box.boot()
      await bothUp('eth0', 'eth1')
    },
  )

  const { defaultRoute, ...lanBeside } = lanFixed
  const plug = (way: 'up' | 'down') => lan.ip('link', 'set', 'lan0', way)
  /** What an uplink has, and what hangs on it, whether or not it has a carrier. */
  const held = (device: string): string =>
    [
      ['-oneline', '-4', 'address', 'show', 'dev', device],
      ['neighbour', 'show', 'proxy'],
      ['route', 'show', 'table', 'all', 'dev', device],
      ['rule'],
    ]
      .map((words) => host.ip(...words).replace(/ (dead|linkdown)\b|valid_lft.*/g, ''))
      .join('')
  /** Codes of everything that is found and planned. */
  const told = async () => {
    const { answer } = await garrison('status')
    return (answer as unknown as RootStatus).resources.flatMap(({ steps, findings }) => [
      ...findings.map(({ code, subject }) => `${code} ${subject}`),
      ...steps.map(({ key, blocked }) => `${key}: ${blocked?.code ?? 'planned'}`),
    ])
  }
  /** What is told of an uplink that is not there. */
  const absent = ['uplinks.absent lan', 'uplinks.configure lan: uplinks.absent']
  /** As VM networks have it, for what is theirs goes with an interface and with its last address. */
  const policy = { family: 'inet', from: '192.0.2.64/27', table: 5210, via: '192.0.2.1' } as const
  const wire = [proxyLine('replace', '192.0.2.70', 'eth1'), ...policyLines(policy, 'eth1')]
  box.write('/root/wire', wire.map((line) => `${line}\n`).join(''))
  const layWire = () =>
    box.run(['/usr/sbin/ip', '-4', '-force', '-batch', '/root/wire'], { allowFailure: true })

  t.test('the cable of the uplink with the default route: another has it until it is back', async (t) => {
    await settled({ eni, lan: lanFixed })
    plug('down')
    await until('no address', () => !addresses('eth1').includes('192.0.2.10'))
    await until('the other one', () => wayTo('203.0.113.7') === 'eth0')
    for (let looks = 0; looks < 3; looks += 1) t.same(await told(), ['nic.no-carrier eth1'])
    plug('up')
    await until('the address', () => addresses('eth1').includes('192.0.2.10/24'))
    await until('the default route', () => wayTo('203.0.113.7') === 'eth1')
    t.same(await told(), [])
    answersFromFar()
  })

  /** NetworkManager matches MACs that a device has of its own, and a veth has none: here its name stands for it. */
  const matchVeth = async () => {
    if (backend !== 'networkmanager') return
    const ours = box.read('/etc/NetworkManager/conf.d/90-garrison-lan-carrier.conf') ?? ''
    t.match(ours, `match-device=mac:${byMac.match.mac}\n`)
    box.write('/etc/NetworkManager/conf.d/95-veth.conf', ours.replace(/mac:.*/, 'interface-name:=eth1'))
    await box.run(['/usr/bin/nmcli', 'general', 'reload', 'conf'])
  }

  t.test(
    'the same where VMs stand on it: it keeps what they need, and another is taken meanwhile',
    async (t) => {
      const networks = { default: { uplink: 'lan', ipv4: { subnet: '192.0.2.64/27' } } }
      declare(
        { eni, lan: lanFixed },
        { vmnets: { networks, lans: { lan: { ipv4: { subnet: '192.0.2.0/24' } } } } },
      )
      // There is no libvirt, so what the networks themselves would do is done by hand.
      const { answer } = await garrison('apply', '--allow', 'disruptive')
      t.match(answer, { outcome: 'unknown', performed: 1 })
      for (const family of ['ipv4', 'ipv6'])
        host.run(['/usr/sbin/sysctl', '-qw', `net.${family}.conf.eth1.ignore_routes_with_linkdown=1`])
      await matchVeth()
      await layWire()
      const before = held('eth1')
      t.match(before, /^192\.0\.2\.70 dev eth1 proxy/m)
      plug('down')
      await until('the other one', () => wayTo('203.0.113.7') === 'eth0')
      await sleep(outlastMs)
      t.equal(held('eth1'), before)
      t.equal(wayTo('203.0.113.7'), 'eth0')
      plug('up')
      await until('the default route', () => wayTo('203.0.113.7') === 'eth1')
      t.equal(held('eth1'), before)
      answersFromFar()
      host.ip('neighbour', 'delete', 'proxy', '192.0.2.70', 'dev', 'eth1')
      host.ip('rule', 'delete', 'priority', '5210')
      host.ip('rule', 'delete', 'priority', '5211')
      host.ip('route', 'flush', 'table', '5210')
    },
  )

  t.test('the cable of another: it keeps what it has', async (t) => {
    await settle({ eni, lan: lanBeside })
    await matchVeth()
    await layWire()
    const before = held('eth1')
    t.match(before, /^192\.0\.2\.70 dev eth1 proxy[\s\S]*^default via 192\.0\.2\.1 .*table 5210/m)
    plug('down')
    for (let looks = 0; looks < 3; looks += 1) {
      await sleep(outlastMs / 3)
      t.same(await told(), ['nic.no-carrier eth1'])
    }
    t.equal(held('eth1'), before)
    plug('up')
    await until('told no more', async () => (await told()).length === 0)
    t.equal(held('eth1'), before)
    answersFromFar()
  })

  t.test('with another MAC it is not there, and nothing takes its place', async (t) => {
    cable(host, 'eth2', lan, 'lan2', '02:3a:00:00:00:12')
    const before = [held('eth0'), held('eth1')]
    host.ip('link', 'set', 'eth1', 'address', '02:3a:00:00:00:99')
    t.same(await told(), absent)
    const { exit, answer } = await garrison('apply', '--allow', 'disruptive')
    t.equal(exit, 3)
    t.match(answer, { outcome: 'blocked', performed: 0 })
    await sleep(outlastMs / 3)
    t.same(await told(), absent)
    t.notMatch(host.ip('-4', 'address', 'show', 'dev', 'eth2'), 'inet')
    host.ip('link', 'delete', 'eth2')
    host.ip('link', 'set', 'eth1', 'address', byMac.match.mac)
    await until('told no more', async () => (await told()).length === 0)
    t.same([held('eth0'), held('eth1')], before)
    answersFromFar()
  })

  t.test('gone and back it has its address, and the wire of VMs once its unit has run', async (t) => {
    const before = held('eth1')
    host.ip('link', 'set', 'eth1', 'netns', lan.name)
    t.same(await told(), absent)
    t.equal(wayTo('203.0.113.7'), 'eth0')
    lan.ip('link', 'set', 'eth1', 'netns', host.name)
    await until('the address', () => addresses('eth1').includes('192.0.2.10/24'))
    await until('told no more', async () => (await told()).length === 0)
    t.notMatch(held('eth1'), /proxy|table 5210/)
    await layWire()
    t.equal(held('eth1'), before)
    answersFromFar()
  })

  t.test('a change of it that is undone gives back the wire of VMs as well', async (t) => {
    const before = held('eth1')
    const lays =
      '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=-/usr/sbin/ip -4 -force -batch /root/wire\n'
    box.write('/etc/systemd/system/garrison-vmnets-eth1.service', lays)
    await box.run(['/usr/bin/systemctl', 'daemon-reload'])
    await box.run(['/usr/bin/systemctl', 'start', 'garrison-vmnets-eth1.service'])
    t.equal(held('eth1'), before)
    // Its router does not testify.
    lan.ip('link', 'set', 'lan0', 'arp', 'off')
    declare({ eni, lan: { ...lanBeside, mtu: 1300 } })
    const apply = endOf(box.start(box.garrison('apply', '--allow', 'disruptive', '--json')))
    await until('the change', () => /mtu 1300/.test(host.ip('link', 'show', 'dev', 'eth1')), 60_000)
    await until('the wire is gone', () => !held('eth1').includes('proxy'))
    t.equal((await garrison('network', 'undo')).exit, 0)
    t.equal(await apply, 1)
    lan.ip('link', 'set', 'lan0', 'arp', 'on')
    await until('all is back', () => held('eth1') === before)
    await settled({ eni, lan: lanBeside })
    box.remove('/etc/systemd/system/garrison-vmnets-eth1.service')
    await box.run(['/usr/bin/systemctl', 'daemon-reload'])
  })

  t.test('what the metadata have told of it is known while they are silent', async (t) => {
    const uplinks = { eni, lan: { ...lanBeside, match: { deviceIndex: 1 } } }
    await settled(uplinks)
    const silence = (verb: 'add' | 'delete') => vpc.ip('address', verb, '169.254.169.254/32', 'dev', 'lo')
    silence('delete')
    t.match((await garrison('instance')).answer, { instance: null })
    t.same(await told(), [])
    silence('add')
    host.ip('rule', 'delete', 'priority', '5210')
    host.ip('rule', 'delete', 'priority', '5211')
    await settle({ eni, lan: lanFixed })
  })

  t.test('a VLAN', async (t) => {
    const vlans = { storage: { id: 20, address: { cidr: '192.0.3.10/24' }, mtu: 1300 } }
    const uplinks = { eni, lan: { ...lanFixed, vlans } }
    const attempted = ['link', 'add', 'link', 'eth1', 'name', 'attempt', 'type', 'vlan', 'id', '9']
    if (host.run(['/usr/sbin/ip', ...attempted]).exit === 0) {
      host.ip('link', 'delete', 'attempt')
      await settle(uplinks)
      t.match(
        host.ip('-details', 'link', 'show', 'dev', 'lan.20'),
        /mtu 1300[\s\S]*vlan protocol 802\.1Q id 20/,
      )
      t.match(addresses('lan.20'), '192.0.3.10/24')
      await settle({ eni, lan: lanFixed })
      t.notMatch(host.ip('link'), 'lan.20')
      return
    }
    t.comment('this kernel has no VLANs: only what the backend makes of the files can be seen')
    declare(uplinks)
    const said = async () =>
      (await box.run(['/usr/bin/journalctl', `--unit=${unit}`, '--output=cat', '--boot'])).stdout
    if (backend === 'networkmanager') {
      const { exit } = await garrison('apply', '--allow', 'disruptive')
      t.equal(exit, 1)
      t.match(await said(), /garrison-lan\.20/)
      t.notMatch(await said(), /failed to load connection/)
      t.notOk(box.read('/etc/NetworkManager/system-connections/garrison-lan.20.nmconnection'), 'undone')
    } else {
      const { answer } = await garrison('plan')
      const steps = (answer?.steps ?? []) as readonly Step[]
      const writes = steps.flatMap(({ actions }) => actions.filter((action) => action.kind === 'write'))
      for (const { path, content, mode } of writes) box.write(path, content, mode)
      await box.run(['/usr/bin/networkctl', 'reload'])
      const refused = /could not create stacked netdev: unknown device type/i
      await until('the kernel refuses the VLAN', async () => refused.test(await said()))
      t.notMatch(await said(), /garrison\S*:\d+: /, 'no line that is not understood')
      for (const { path } of writes) if (path.includes('lan.20')) box.remove(path)
    }
    await settle({ eni, lan: lanFixed })
  })

  t.test('taken out of the document, it is as if Garrison had never been there', async (t) => {
    await settle({ eni: kept })
    await until('no address', () => !addresses('eth1').includes('192.0.2.10'))
    await until('the ENI as before', () => addresses('eth0').includes('10.0.1.10/24'))
    t.equal(wayTo('203.0.113.7'), 'eth0')
    t.notMatch(host.ip('rule'), '20000:')
    t.equal(box.read(cloudInit), null)
  })

  t.test('where the other backend runs too, it leaves these interfaces alone', async (t) => {
    const other = backend === 'networkd' ? 'NetworkManager.service' : 'systemd-networkd.service'
    box.write('/etc/NetworkManager/conf.d/30-site.conf', '[main]\nno-auto-default=*\n')
    await box.run(['/usr/bin/systemctl', 'start', other])
    await settle({ eni, lan: lanFixed })
    const argv =
      backend === 'networkd'
        ? ['/usr/bin/nmcli', '--terse', '--fields', 'DEVICE,STATE', 'device']
        : ['/usr/bin/networkctl', '--no-pager', '--no-legend', 'list', 'eth1']
    t.match((await box.run(argv)).stdout, /eth1\b.*(unmanaged|externally)/)
    t.match(addresses('eth1'), '192.0.2.10/24')
    answersFromFar()
    await box.run(['/usr/bin/systemctl', 'stop', other])
  })

  t.test('of what others have written nothing was touched', async (t) => {
    for (const [path, content] of Object.entries(foreign)) t.equal(box.read(path), content, path)
  })
}
