// The parsers of mdadm's answers and of mdadm.conf against what real machines printed.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type Examined,
  type MdadmDetail,
  type MdSuperblock,
  mdadmDetail,
  mdadmExamine,
  parseMdadmDetail,
  parseMdadmExamine,
} from '../../provisioning/array/mdadm.ts'
import { parseMdadmScan, rememberedArray, withArray } from '../../provisioning/array/mdadm-conf.ts'

const folder = join(import.meta.dirname, '../../../shared/captures/mdadm')
const read = (name: string) => readFileSync(join(folder, name), 'utf8')

const details: Readonly<Record<string, Partial<MdadmDetail> & { conditionsOf: readonly string[] }>> = {
  'jc-detail-raid1-failed-and-flags.txt': {
    path: '/dev/md127',
    level: 'raid1',
    uuid: 'e054553a:fbccdcfe:0ae80bc8:9379377a',
    homehost: 'sysrescue',
    name: '126',
    consistency: 'resync',
    events: 78,
    memberKib: 101376,
    conditions: ['clean'],
    conditionsOf: ['0 active sync', '1 active sync', '- faulty'],
  },
  'jc-detail-raid1-spare-writem-rebuild.txt': {
    conditions: ['clean', 'recovering'],
    raidDevices: 2,
    totalDevices: 3,
    conditionsOf: ['0 active sync', '1 spare rebuilding', '1 active sync'],
  },
  // Named examine, but what --detail prints.
  'jc-examine-raid1-resync.txt': {
    path: '/dev/md126',
    conditions: ['clean', 'resyncing'],
    conditionsOf: ['0 active sync', '1 active sync'],
  },
  'ml-detail-imsm-member-failed-notstarted.txt': {
    version: null,
    level: 'raid5',
    container: false,
    conditions: ['active', 'FAILED', 'Not Started'],
    consistency: 'unknown',
    name: null,
    arrayKib: null,
    chunkKib: 64,
    conditionsOf: ['0 removed', '1 removed', '2 removed', '3 removed', '0 sync', '2 sync', '3 sync'],
  },
  'ml-detail-nvme-check.txt': {
    raidDevices: 9,
    conditions: ['active', 'checking'],
    consistency: null,
    chunkKib: 512,
    homehost: 'dc02-pd-t8-n021',
    conditionsOf: Array.from({ length: 9 }, (_, slot) => `${slot} active sync`),
  },
  'ml-detail-nvme-raid5-faulty.txt': {
    conditions: ['clean', 'degraded'],
    homehost: 'gklab-localhost',
    name: 'vol',
    uuid: '711594e8:73ef988c:87a85085:b30c838d',
    conditionsOf: ['0 removed', '1 active sync', '- faulty'],
  },
  'ml-detail-ppl-clean.txt': {
    consistency: 'ppl',
    level: 'raid5',
    memberKib: 3906883584,
    conditionsOf: Array.from({ length: 6 }, (_, slot) => `${slot} active sync`),
  },
  'ml-detail-ppl-failed.txt': {
    consistency: 'ppl',
    conditions: ['clean', 'FAILED'],
    uuid: null,
    name: null,
    events: null,
    conditionsOf: ['0 removed', '1 removed', '2 removed', '3 removed', '4 removed'],
  },
  'ml-detail-raid1-delayed-090.txt': {
    version: '0.90',
    homehost: null,
    name: null,
    uuid: '7414ac79:580af0ce:e6bbe02b:915fa44a',
    events: 1081,
    conditions: ['clean', 'degraded', 'resyncing'],
    conditionsOf: ['0 spare rebuilding', '1 active sync'],
  },
  'ml-detail-raid4-takeover.txt': {
    path: '/dev/md/volume',
    level: 'raid4',
    conditions: ['clean', 'degraded'],
    uuid: null,
    conditionsOf: [],
  },
  'ml-detail-raid5-recovering.txt': {
    level: 'raid10',
    conditions: ['clean', 'degraded', 'recovering'],
    conditionsOf: ['0 active sync', '1 active sync', '2 spare rebuilding', '3 active sync'],
  },
  'ml-detail-raid5-reshape.txt': {
    level: 'raid5',
    raidDevices: 4,
    conditions: ['clean', 'reshaping'],
    consistency: 'bitmap',
    conditionsOf: ['0 active sync', '1 active sync', '2 active sync', '3 active sync'],
  },
  'ml-detail-raid6-36disks-resync.txt': {
    raidDevices: 36,
    arrayKib: 464838634496,
    conditionsOf: Array.from({ length: 36 }, (_, slot) => `${slot} active sync`),
  },
  'ml-detail-writemostly.txt': {
    homehost: 'any',
    name: 'home',
    events: 864895,
    conditionsOf: ['0 active sync', '1 active sync', '2 active sync'],
  },
}

const examined: Readonly<Record<string, Examined['kind'] | Partial<MdSuperblock>>> = {
  'jc-examine-container1.txt': 'firmware',
  'jc-examine-raid1-moreflags.txt': {
    role: 'active',
    slot: 1,
    events: 78,
    checksumRight: true,
    version: '1.2',
  },
  'jc-examine-raid1-replacing.txt': { role: 'replacement', slot: 1, events: 75 },
  'jc-examine-raid1-spare.txt': { role: 'spare', slot: null, events: 52 },
  'ml-examine-checksum-wrong.txt': { role: 'spare', slot: null, checksumRight: false, level: 'raid6' },
  'ml-examine-imsm-spare.txt': 'firmware',
  'ml-examine-journal-member.txt': { version: '1.1', slot: 3, homehost: 'xs22', name: 'r5_big' },
  'ml-examine-nvme-member.txt': {
    homehost: 'any',
    name: 'home',
    dataOffsetSectors: 67584,
    usedSectors: 67041280,
    uuid: 'f6189e48:e5dadfbd:8a7a9239:c6074410',
  },
  'ml-examine-recovery-offset.txt': { role: 'active', slot: 12, raidDevices: 18, events: 303248 },
  'ml-examine-reshape-backward.txt': { level: 'raid6', slot: 5, usedSectors: 19532626944 },
  // Cut short by whoever sent it: what is not there is not made up.
  'ml-examine-reshape-badblocks.txt': { role: 'unknown', slot: null, events: null, checksumRight: false },
}

t.test('every capture is looked at', async (t) => {
  const others = [
    'ml-arrays-2.txt',
    'ml-arrays-3.txt',
    'ml-scan-inactive-array.txt',
    'ml-udev-md-properties.txt',
  ]
  t.same(readdirSync(folder).sort(), [...Object.keys(details), ...Object.keys(examined), ...others].sort())
})

t.test('--detail', async (t) => {
  for (const [name, { conditionsOf, ...expected }] of Object.entries(details)) {
    const detail = parseMdadmDetail(read(name))
    t.match(detail, expected, name)
    t.same(
      detail.members.map(({ slot, condition }) => `${slot ?? '-'} ${condition}`),
      conditionsOf,
      `${name}: members`,
    )
  }
  t.throws(() => parseMdadmDetail('mdadm: cannot open /dev/md9\n'), { code: 'host.unexpected-answer' })
})

t.test('the level of an interrupted reshape, and numbers that are none', async (t) => {
  const detail = parseMdadmDetail(
    '/dev/md0:\n        Raid Level : raid0\n        Array Size : 18446744073709551615\n     New Level : raid5\n',
  )
  t.match(detail, { level: 'raid5', arrayKib: null })
})

t.test('--examine', async (t) => {
  for (const [name, expected] of Object.entries(examined)) {
    const [found, ...more] = parseMdadmExamine(read(name))
    t.same(more, [], `${name}: one device`)
    if (typeof expected === 'string') t.equal(found?.kind, expected, name)
    else t.match(found, { kind: 'md', superblock: expected }, name)
  }
  t.same(parseMdadmExamine(''), [])
  t.same(
    parseMdadmExamine('/dev/sda:\n   MBR Magic : aa55\nPartition[0] :  131071 sectors at  1 (type ee)\n'),
    [{ kind: 'partitions', path: '/dev/sda' }],
  )
})

t.test('several devices, metadata 0.90', async (t) => {
  const two = parseMdadmExamine(`${read('jc-examine-raid1-spare.txt')}${read('ml-examine-nvme-member.txt')}`)
  t.same(
    two.map(({ path }) => path),
    ['/dev/vda4', '/dev/nvme0n1p3'],
  )
  const [old] = parseMdadmExamine(
    [
      '/dev/vdb:',
      '          Magic : a92b4efc',
      '        Version : 0.90.00',
      '           UUID : 0cae2b1e:8a5cf2c1:e368bf24:bd0fce41 (local to host lab)',
      '     Raid Level : raid1',
      '   Raid Devices : 2',
      '       Checksum : 3b2b1f7e - correct',
      '         Events : 0.7',
      '',
      '      Number   Major   Minor   RaidDevice State',
      'this     0     254       16        0      active sync   /dev/vdb',
      '   0     0     254       16        0      active sync   /dev/vdb',
    ].join('\n'),
  )
  t.match(old, {
    kind: 'md',
    superblock: {
      uuid: '0cae2b1e:8a5cf2c1:e368bf24:bd0fce41',
      events: 7,
      role: 'active',
      slot: 0,
      name: null,
    },
  })
})

t.test('ARRAY lines', async (t) => {
  t.same(
    parseMdadmScan(read('ml-arrays-2.txt')).arrays.map(({ device, uuid }) => `${device} ${uuid}`),
    [
      '/dev/md0 230f126b:0d2a4439:c44c77eb:7ee19756',
      '/dev/md1 90f0aede:03a99d2a:bd811544:edcdae81',
      '/dev/md/2 ca0e0cc2:de96d489:d07fd26c:685aef08',
      '/dev/md/3 2f327db6:af6ce8e0:954fbaa8:10e20661',
    ],
  )
  t.same(
    parseMdadmScan(read('ml-arrays-3.txt')).arrays.map(({ device, uuid }) => [device, uuid]),
    [
      ['/dev/md/117', null],
      ['/dev/md/118', null],
    ],
  )
  t.same(parseMdadmScan(read('ml-scan-inactive-array.txt')).arrays, [
    {
      device: '/dev/md127',
      uuid: '8a021a34:f19bbc01:7bcf6f8e:3bea43a9',
      name: 'meat:z',
      devices: [],
      inactive: true,
      lines: [0, 1],
    },
  ])
  t.same(
    parseMdadmScan(read('ml-udev-md-properties.txt')),
    { arrays: [], devices: [] },
    'no such lines at all',
  )
})

t.test('a written-out mdadm.conf', async (t) => {
  const conf = parseMdadmScan(
    [
      '# DEVICE /dev/not-this',
      'DEV partitions containers /dev/sd*   # all of them',
      'MAILADDR root',
      'arr /dev/md/data name="the data"',
      '   devices=/dev/sda,/dev/sdb',
      '   UUID=089300E1:45b54872:31a11457:a41ad66a',
      'ARRAY <ignore> uuid=089300e145b5487231a11457a41ad66b',
    ].join('\n'),
  )
  t.same(conf.devices, ['/dev/sd*'])
  t.same(conf.arrays, [
    {
      device: '/dev/md/data',
      uuid: '089300e1:45b54872:31a11457:a41ad66a',
      name: 'the data',
      devices: ['/dev/sda', '/dev/sdb'],
      inactive: false,
      lines: [3, 5],
    },
    {
      device: '<ignore>',
      uuid: '089300e1:45b54872:31a11457:a41ad66b',
      name: null,
      devices: [],
      inactive: false,
      lines: [6, 6],
    },
  ])
})

t.test('remembering an array', async (t) => {
  const array = {
    device: '/dev/md/garrison',
    uuid: '11111111:22222222:33333333:44444444',
    members: ['A', 'B', 'C'],
  }
  const debian = '# mdadm.conf\nHOMEHOST <system>\nMAILADDR root\n'
  const once = withArray(debian, array)
  t.ok(once.startsWith(debian), 'what was there stays')
  t.same(rememberedArray(once), array)
  t.equal(withArray(once, array), once, 'the same again')
  t.equal(
    withArray('', array).split('\n')[0]?.startsWith('# BEGIN garrison'),
    true,
    'an empty file gets no empty line',
  )

  const appended = `${once}ARRAY /dev/md/garrison metadata=1.2 UUID=11111111:22222222:33333333:44444444\nARRAY /dev/md/other UUID=55555555:22222222:33333333:44444444\n`
  const mended = withArray(appended, array)
  t.same(
    parseMdadmScan(mended).arrays.map(({ device }) => device),
    ['/dev/md/other', '/dev/md/garrison'],
    'a second line for it goes, another array stays',
  )
  const replaced = withArray(mended, { ...array, uuid: '99999999:22222222:33333333:44444444', members: [] })
  t.same(
    parseMdadmScan(replaced).arrays.map(({ uuid }) => uuid?.slice(0, 8)),
    ['55555555', '99999999'],
  )
  t.equal(rememberedArray('ARRAY /dev/md/garrison UUID=11111111:22222222:33333333:44444444\n'), null)
  t.equal(rememberedArray('# BEGIN garrison\nARRAY /dev/md/x UUID=1\n'), null, 'a block without end is none')
})

t.test('what is asked', async (t) => {
  t.same(mdadmDetail('/dev/md127'), ['/usr/sbin/mdadm', '--detail', '/dev/md127'])
  t.same(mdadmExamine(['/dev/a', '/dev/b']), ['/usr/sbin/mdadm', '--examine', '/dev/a', '/dev/b'])
})
