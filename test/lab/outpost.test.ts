// The outpost itself: what the network scenarios take for granted of its switch, its servers and the plugging of an LNI.
import t from 'tap'
import { bootGuest, type Guest } from './guest.ts'
import { makeOutpost } from './outpost.ts'

t.setTimeout(0)

const mac = '02:00:00:00:00:11'

interface Link {
  readonly ifname: string
  readonly address: string
  readonly addr_info: readonly { readonly family: string; readonly local: string }[]
}

/** The name and the IPv4 address of the NIC with a MAC, once DHCP has given it one. */
async function addressed(guest: Guest, mac: string): Promise<{ name: string; own: string }> {
  const deadline = performance.now() + 180_000
  for (;;) {
    const links: Link[] = JSON.parse((await guest.run(['ip', '-json', 'address', 'show'])).stdout)
    const link = links.find(({ address }) => address === mac)
    const own = link?.addr_info.find(({ family }) => family === 'inet')?.local
    if (link !== undefined && own !== undefined) return { name: link.ifname, own }
    if (performance.now() > deadline) throw new Error(`no address for ${mac}: ${JSON.stringify(links)}`)
  }
}

t.test('an LNI carries one MAC and no general broadcast, and an ENI leads to the VPC', async (t) => {
  await using outpost = await makeOutpost()
  const eni = outpost.port('vpc', '02:00:00:00:00:01')
  await using guest = await bootGuest({ drives: [], nics: [eni] })
  for (const [name, address] of [
    ['eni', '02:00:00:00:00:01'],
    ['lni', mac],
  ])
    await guest.writeFile(
      `/etc/systemd/network/20-${name}.network`,
      `[Match]\nMACAddress=${address}\nType=ether\nKind=!macvlan\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n`,
    )
  await guest.run(['networkctl', 'reload'])
  const management = await addressed(guest, eni.mac)
  t.match(management.own, /^10\.20\.0\.1[0-5]\d$/, 'the VPC answers DHCP')
  t.ok(await outpost.reaches('vpc', management.own))

  const lni = outpost.port('lan', mac)
  await guest.attachNic(lni)
  const { name, own } = await addressed(guest, mac)
  t.match(own, /^192\.0\.2\.1[0-5]\d$/, 'the LAN answers DHCP')
  t.ok(await outpost.reaches('lan', own))

  for (const argv of [
    ['ip', 'link', 'add', 'second', 'link', name, 'type', 'macvlan', 'mode', 'bridge'],
    ['ip', 'address', 'add', '192.0.2.77/24', 'dev', 'second'],
    ['ip', 'link', 'set', 'second', 'up'],
    ['sysctl', '--write', 'net.ipv4.conf.all.arp_ignore=1'],
  ])
    await guest.run(argv)
  t.notOk(await outpost.reaches('lan', '192.0.2.77'), 'a second MAC is dropped')
  await guest.run(['ip', 'link', 'delete', 'second'])
  await guest.run(['ip', 'address', 'add', '192.0.2.77/24', 'dev', name])
  t.ok(await outpost.reaches('lan', '192.0.2.77'), 'a second address at the same MAC is not')

  await outpost.cable(lni, false)
  t.notOk(await outpost.reaches('lan', own))
  await outpost.cable(lni, true)
  t.ok(await outpost.reaches('lan', own))
  await guest.powerCut()
  await guest.powerOn()
  t.ok(await outpost.reaches('lan', own), 'it is wired again after a power cut')
  await guest.detachNic(lni)
  t.notMatch((await guest.run(['ip', '-json', 'link', 'show'])).stdout, mac)
})
