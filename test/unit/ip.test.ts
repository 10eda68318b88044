// What ip (iproute2) tells: answers of several versions, names that nobody would choose, and what is no answer.

import t from 'tap'
import { parseLinks, parseNeighbours, parseRoutes, parseRules } from '../../provisioning/link/ip.ts'

const json = (...rows: readonly object[]): string => JSON.stringify(rows)

const ether = {
  ifindex: 2,
  ifname: 'ens5',
  flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
  mtu: 9001,
  link_type: 'ether',
  address: '02:3A:00:00:00:11',
}

t.test('interfaces with their addresses', (t) => {
  const [link, tagged, bridge, none] = parseLinks(
    json(
      {
        ...ether,
        altnames: ['enp0s5'],
        permaddr: '02:3a:00:00:00:12',
        addr_info: [
          {
            family: 'inet',
            local: '192.0.2.5',
            prefixlen: 24,
            broadcast: '192.0.2.255',
            scope: 'global',
            dynamic: true,
            label: 'ens5',
            valid_life_time: 3000,
            preferred_life_time: 3000,
          },
          // What older versions print for an address that was filtered out, and a family that is none of ours.
          {},
          { family: 'ipx', local: '1' },
          {
            family: 'inet6',
            local: '2001:db8::5',
            prefixlen: 64,
            scope: 'global',
            tentative: true,
            dadfailed: true,
            valid_life_time: 4294967295,
          },
        ],
      },
      {
        ...ether,
        ifindex: 3,
        link: 'ens5',
        ifname: 'lan.12',
        flags: [],
        linkinfo: { info_kind: 'vlan', info_data: { protocol: '802.1Q', id: 12, flags: ['REORDER_HDR'] } },
      },
      {
        ...ether,
        ifindex: 4,
        ifname: 'br0',
        linkinfo: { info_kind: 'bridge', info_data: { vlan_protocol: '802.1Q' } },
      },
      {
        ifindex: 5,
        link: null,
        ifname: 'sit0',
        flags: ['NOARP'],
        mtu: 1480,
        link_type: 'sit',
        address: '0.0.0.0',
      },
    ),
  )
  t.match(link, {
    name: 'ens5',
    otherNames: ['enp0s5'],
    mac: '02:3a:00:00:00:11',
    permanentMac: '02:3a:00:00:00:12',
    up: true,
    carrier: true,
    kind: null,
    vlan: null,
  })
  t.same(
    link?.addresses.map(({ address, prefix, dynamic, validSeconds, duplicate }) => [
      address,
      prefix,
      dynamic,
      validSeconds,
      duplicate,
    ]),
    [
      ['192.0.2.5', 24, true, 3000, false],
      ['2001:db8::5', 64, false, null, true],
    ],
  )
  t.match(tagged, { kind: 'vlan', parent: 'ens5', vlan: { id: 12, protocol: '802.1Q' }, up: false })
  t.match(bridge, { kind: 'bridge', vlan: null })
  t.match(none, { type: 'sit', mac: null, parent: null })
  t.end()
})

t.test('a name of control characters, quotes and backslashes is read as it is', (t) => {
  // Linux takes every byte but a slash, a colon and white space; iproute2 6.1 escapes quotes and backslashes, others `'` too.
  const named = (written: string) =>
    parseLinks(`[{"ifindex":7,"ifname":"${written}","flags":[],"mtu":1500,"link_type":"ether"}]`)[0]?.name
  t.equal(named('e\u001b[31mx\'\\"'), 'e\u001b[31mx\'"')
  t.equal(named("a\\'b"), "a'b")
  t.equal(named('a\\\\b'), 'a\\b')
  t.equal(named('\u0001\u007f'), '\u0001\u007f')
  t.end()
})

t.test('routes of every table, with numbers or with names', (t) => {
  const routes = parseRoutes(
    'inet',
    json(
      {
        type: '1',
        dst: '169.254.169.254',
        dev: 'ens5',
        table: '1001',
        protocol: '3',
        scope: '253',
        flags: [],
      },
      {
        type: 'unicast',
        dst: 'default',
        gateway: '192.0.2.1',
        dev: 'ens5',
        protocol: '16',
        metric: 100,
        flags: [],
      },
      {
        type: '1',
        dst: '10.0.0.0/8',
        table: '254',
        protocol: '3',
        flags: [],
        nexthops: [
          { gateway: '192.0.2.2', dev: 'ens5', weight: 1, flags: [] },
          { gateway: '192.0.2.3', dev: 'ens6', weight: 1, flags: ['dead', 'linkdown'] },
        ],
      },
      { type: '6', dst: '203.0.113.0/24', table: '254', protocol: '3', flags: [] },
      { dst: '198.51.100.0/24', via: { family: 'inet6', host: 'fe80::1' }, dev: 'ens5', flags: ['linkdown'] },
    ),
  )
  t.same(
    routes.map(({ to, via, device, table, type, metric, dead }) => [
      to,
      via,
      device,
      table,
      type,
      metric,
      dead,
    ]),
    [
      ['169.254.169.254/32', null, 'ens5', 1001, 'unicast', 0, false],
      ['0.0.0.0/0', '192.0.2.1', 'ens5', 254, 'unicast', 100, false],
      ['10.0.0.0/8', '192.0.2.2', 'ens5', 254, 'unicast', 0, false],
      ['203.0.113.0/24', null, null, 254, 'blackhole', 0, false],
      ['198.51.100.0/24', 'fe80::1', 'ens5', 254, 'unicast', 0, true],
    ],
  )
  t.same(routes[2]?.hops, [
    { via: '192.0.2.2', device: 'ens5' },
    { via: '192.0.2.3', device: 'ens6' },
  ])
  t.equal(parseRoutes('inet6', json({ dst: 'default', gateway: 'fe80::1', dev: 'ens5' }))[0]?.to, '::/0')
  t.end()
})

t.test('rules', (t) => {
  const rules = parseRules(
    'inet',
    json(
      { priority: 0, src: 'all', table: '255', protocol: '2' },
      { priority: 90, not: null, src: 'all', fwmark: '0x1', fwmask: '0xff', iif: 'ens5', table: '77' },
      { priority: 100, src: '192.0.2.5', table: '1001', protocol: '0' },
      {
        priority: 110,
        src: '192.0.2.0',
        srclen: 24,
        dst: '198.51.100.0',
        dstlen: 24,
        action: 'goto',
        goto: 120,
      },
    ),
  )
  t.same(
    rules.map(({ priority, from, to, inverted, mark, markMask, incoming, table }) => [
      priority,
      from,
      to,
      inverted,
      mark,
      markMask,
      incoming,
      table,
    ]),
    [
      [0, null, null, false, null, null, null, 255],
      [90, null, null, true, 1, 255, 'ens5', 77],
      [100, '192.0.2.5/32', null, false, null, null, null, 1001],
      [110, '192.0.2.0/24', '198.51.100.0/24', false, null, null, null, null],
    ],
  )
  t.end()
})

t.test('neighbours and entries of a proxy', (t) => {
  t.same(
    parseNeighbours(
      json(
        { dst: '192.0.2.9', dev: 'ens5', lladdr: '02:00:00:00:00:11', state: ['PERMANENT'] },
        { dst: '192.0.2.10', dev: 'ens5', state: ['FAILED'] },
        { dst: '192.0.2.33', dev: 'ens5', proxy: null },
      ),
    ),
    [
      { address: '192.0.2.9', device: 'ens5', mac: '02:00:00:00:00:11', conditions: ['PERMANENT'] },
      { address: '192.0.2.10', device: 'ens5', mac: null, conditions: ['FAILED'] },
      { address: '192.0.2.33', device: 'ens5', mac: null, conditions: [] },
    ],
  )
  t.end()
})

t.test('nothing is no row, and what is no answer is not taken for one', (t) => {
  for (const parse of [parseLinks, parseNeighbours]) {
    for (const empty of ['', '\n', '[ ]\n', '[{}]']) t.same(parse(empty), [])
    for (const wrong of [
      '{',
      '{}',
      '[1]',
      '[{"ifname":7}]',
      'Object "adress" is unknown',
      '[{"dst":"1.2.3.4"}]',
    ])
      t.throws(() => parse(wrong), { code: 'host.unexpected-answer' }, wrong)
  }
  t.throws(() => parseLinks(json({ ...ether, addr_info: [{ family: 'inet', local: 5 }] })), {
    code: 'host.unexpected-answer',
  })
  t.throws(() => parseRoutes('inet', '[{"dst":"default","table":"lan"}]'), { code: 'host.unexpected-answer' })
  t.throws(() => parseRules('inet', '[{"src":"all","fwmark":"-1"}]'), { code: 'host.unexpected-answer' })
  t.end()
})
