// What every backend must make of the document, tried on a whole host.
import t from 'tap'
import type { Step } from '../../provisioning/resource.ts'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { makeWorld } from './uplinks-world.ts'

const cloudInit = '/etc/cloud/cloud.cfg.d/99-garrison-network.cfg'

/** Runs the suite with one backend. */
export async function suite(backend: Backend): Promise<void> {
  const world = await makeWorld(backend)
  const { host, box, unit, foreign, eni, kept, byMac, lanFixed } = world
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
