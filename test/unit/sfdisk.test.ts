// Parsers of what sfdisk, dumpe2fs, xfs_info and btrfs say of the disk under /, against answers of real tools.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { parseBtrfsFilesystemShow } from '../../provisioning/block/btrfs.ts'
import { formatBytes } from '../../provisioning/block/bytes.ts'
import { parseDumpe2fs } from '../../provisioning/block/dumpe2fs.ts'
import { parseXfsInfo } from '../../provisioning/block/xfs-info.ts'
import { parseSfdiskJson, sfdiskGrow, tableJson } from '../../provisioning/root/sfdisk.ts'

const capture = (name: string): string =>
  readFileSync(new URL(`../../../shared/captures/volumes/${name}`, import.meta.url), 'utf8')

const parse = (stdout: string, stderr = '', exit = 0) => parseSfdiskJson('/dev/sda', { exit, stdout, stderr })

t.test('a GPT', async (t) => {
  const table = parse(capture('sfdisk-gpt-write-json.json'))
  t.match(table, {
    disk: '/dev/sda',
    label: 'gpt',
    sectorBytes: 512,
    lastUsableSector: 102366,
    backupDisplaced: false,
  })
  t.same(
    table?.partitions.map(({ number, startSector, sectors }) => [number, startSector, sectors]),
    [
      [1, 2048, 6144],
      [2, 8192, 6144],
      [3, 14336, 6144],
      [4, 20480, 81887],
    ],
  )
  t.equal(table?.partitions[3]?.uuid, 'D2A29B0A-FDEE-40C3-9BAE-B9FA782C986C')
  t.match(table && tableJson(table), { label: 'gpt', partitions: [{ startSector: 2048 }] })
})

t.test('an MBR has no last sector and no partition uuids', async (t) => {
  const table = parse(capture('sfdisk-dos-write-json.json'))
  t.match(table, { label: 'dos', lastUsableSector: null, backupDisplaced: false })
  t.same(
    table?.partitions.map(({ number, type, uuid }) => [number, type, uuid]),
    [
      [1, '83', null],
      [2, '82', null],
      [3, '83', null],
      [4, '5', null],
      [5, '83', null],
      [6, '83', null],
    ],
  )
})

t.test('a displaced backup header is told on stderr only', async (t) => {
  const stdout = capture('sfdisk-gpt-write-json.json')
  const pmbr = 'GPT PMBR size mismatch (2097151 != 4194303) will be corrected by write.\n'
  for (const end of ['.', '. This problem will be corrected by write.']) {
    const told = parse(stdout, `${pmbr}The backup GPT table is not on the end of the device${end}\n`)
    t.equal(told?.backupDisplaced, true)
  }
  t.equal(
    parse(stdout, 'The backup GPT table is corrupt, but the primary appears OK, so that will be used.\n')
      ?.backupDisplaced,
    false,
  )
})

t.test('no table, no permission, no sense', async (t) => {
  t.equal(parse('', 'sfdisk: /dev/sda: does not contain a recognized partition table\n', 1), null)
  t.throws(() => parse('', 'sfdisk: cannot open /dev/sda: Permission denied\n', 1), { code: 'host.denied' })
  t.throws(() => parse('', 'sfdisk: cannot open /dev/sda: Input/output error\n', 1), {
    code: 'host.unexpected-answer',
    message: /Input\/output error/,
  })
  t.throws(() => parse('{"partitiontable": {"label": "gpt", "unit": "cylinders"}}'), {
    code: 'host.unexpected-answer',
  })
})

t.test('growing names the partition by number and never writes another', async (t) => {
  t.same(sfdiskGrow('/dev/nvme0n1', 127).slice(-4), ['--partno', '127', '--', '/dev/nvme0n1'])
})

t.test('filesystem sizes', async (t) => {
  const superblock = `Filesystem features:      has_journal extent 64bit
Inode count:              51200
Block count:              204800
Reserved block count:     10240
First block:              1
Block size:               1024
Blocks per group:         8192
Inode blocks per group:   512
`
  t.equal(parseDumpe2fs(superblock), 204800 * 1024)
  t.throws(() => parseDumpe2fs('dumpe2fs 1.47.0 (5-Feb-2023)\n'), { code: 'host.unexpected-answer' })
  const geometry = `meta-data=/dev/mapper/rl-root    isize=512    agcount=4, agsize=25600 blks
         =                       sectsz=512   attr=2, projid32bit=1
data     =                       bsize=4096   blocks=102400, imaxpct=25
         =                       sunit=0      swidth=0 blks
log      =internal log           bsize=4096   blocks=16384, version=2
realtime =none                   extsz=4096   blocks=0, rtextents=0
`
  t.equal(parseXfsInfo(geometry), 102400 * 4096)
  t.throws(() => parseXfsInfo(''), { code: 'host.unexpected-answer' })
})

t.test('btrfs devices, one missing', async (t) => {
  const one = `Label: none  uuid: 359a7986-b1f4-4bc1-9b59-1b586b16a1c0
\tTotal devices 1 FS bytes used 147456
\tdevid    2 size 209715200 used 92274688 path /dev/nvme0n1p2

`
  t.same(parseBtrfsFilesystemShow(one), [{ id: 2, path: '/dev/nvme0n1p2', sizeBytes: 209715200 }])
  const two = one.replace('Total devices 1', 'Total devices 2')
  t.throws(() => parseBtrfsFilesystemShow(two), { code: 'host.unexpected-answer' })
  const missing = two.replace('\n\n', '\n\tdevid    3 size 0 used 0 path <missing disk> MISSING\n\n')
  t.throws(() => parseBtrfsFilesystemShow(missing), { code: 'host.unexpected-answer' })
})

t.test('sizes for people', async (t) => {
  t.same([0, 1023, 1024, 38 * 2 ** 30, 1.9e12, 2 ** 40 - 1].map(formatBytes), [
    '0 bytes',
    '1023 bytes',
    '1.0 KiB',
    '38.0 GiB',
    '1.7 TiB',
    '1.0 TiB',
  ])
})
