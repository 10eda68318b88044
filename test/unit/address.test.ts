// Addresses and networks as numbers, held against Node's own reading of them.

import { BlockList, isIP, SocketAddress } from 'node:net'
import t from 'tap'
import {
  contains,
  formatCidr,
  formatIp,
  networkOf,
  overlaps,
  parseCidr,
  parseIp,
} from '../../provisioning/link/address.ts'

const cidr = (text: string) => {
  const parsed = parseCidr(text)
  if (parsed === null) throw new Error(`${text} is no network`)
  return parsed
}

t.test('addresses in their canonical form', (t) => {
  for (const [written, canonical] of [
    ['192.0.2.1', '192.0.2.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['2001:DB8::0005', '2001:db8::5'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['fd00:ec2::254', 'fd00:ec2::254'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:1:0:0:0:0:0', '0:0:1::'],
    ['10:0:0:100:0:0:0:1', '10:0:0:100::1'],
  ] as const) {
    const ip = parseIp(written)
    t.equal(ip && formatIp(ip), canonical, written)
  }
  t.end()
})

t.test('what is no address is taken for none', (t) => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '256.1.1.1',
    '1.2.3.4\n',
    ' 1.2.3.4',
    '0x7f.1.1.1',
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    '1::2::3',
    'fe80::1%eth0',
    '::ffff:1.2.3.4',
    '12345::',
    'g::',
  ])
    t.equal(parseIp(text), null, JSON.stringify(text))
  for (const text of [
    '1.2.3.4',
    '1.2.3.4/',
    '1.2.3.4/33',
    '1.2.3.4/-1',
    '1.2.3.4/08',
    '::/129',
    '1.2.3.4/8/8',
    '/8',
  ])
    t.equal(parseCidr(text), null, JSON.stringify(text))
  t.end()
})

t.test('random addresses are what Node reads in them', (t) => {
  let seed = 7
  const next = () => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
    return seed
  }
  for (let round = 0; round < 500; round += 1) {
    const groups = Array.from({ length: 8 }, () => (next() % 3 === 0 ? next() % 65_536 : 0))
    const written = groups.map((group) => group.toString(16).padStart(4, '0')).join(':')
    const ip = parseIp(written)
    const canonical = ip === null ? '' : formatIp(ip)
    const { address } = new SocketAddress({ address: written, family: 'ipv6' })
    // Node writes the last two groups of an IPv4-compatible address with dots.
    if (!address.includes('.')) t.equal(canonical, address, written)
    t.equal(isIP(canonical), 6)
    t.same(parseIp(canonical), ip, canonical)
    const prefix = next() % 129
    const list = new BlockList()
    list.addSubnet(canonical, prefix, 'ipv6')
    const other = Array.from({ length: 8 }, (_, at) =>
      next() % 4 === 0 ? next() % 65_536 : (groups[at] ?? 0),
    )
      .map((group) => group.toString(16))
      .join(':')
    const otherIp = parseIp(other)
    if (otherIp !== null)
      t.equal(
        contains(cidr(`${canonical}/${prefix}`), otherIp),
        list.check(other, 'ipv6'),
        `${canonical}/${prefix} ${other}`,
      )
  }
  t.end()
})

t.test('networks', (t) => {
  t.equal(formatCidr(networkOf(cidr('192.0.2.77/27'))), '192.0.2.64/27')
  t.equal(formatCidr(networkOf(cidr('2001:db8::77/64'))), '2001:db8::/64')
  t.equal(formatCidr(networkOf(cidr('192.0.2.77/0'))), '0.0.0.0/0')
  t.ok(overlaps(cidr('10.0.0.0/8'), cidr('10.1.2.0/24')))
  t.ok(overlaps(cidr('10.1.2.0/24'), cidr('10.0.0.0/8')))
  t.notOk(overlaps(cidr('10.1.2.0/24'), cidr('10.1.3.0/24')))
  t.notOk(overlaps(cidr('0.0.0.0/0'), cidr('::/0')))
  t.end()
})
