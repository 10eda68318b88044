// What the array resource reads of a host, against a made-up host of files, links and answers.

import t from 'tap'
import { selectDrives } from '../../provisioning/array/drives.ts'
import { type ArrayObserved, observe } from '../../provisioning/array/observe.ts'
import { volumesInBackup } from '../../provisioning/block/lvm-backup.ts'
import type { Answer, HostReader, UnfinishedStep } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import { wanting } from './array-host.ts'
import { readsNoCloud } from './no-cloud.ts'

/** A host by its files (text), links (path -> real path) and answers (argv -> answer). Folders follow from the files. */
interface World {
  readonly files?: Readonly<Record<string, string>>
  readonly links?: Readonly<Record<string, string>>
  readonly answers?: Readonly<Record<string, Partial<Answer> | HostError>>
  readonly modified?: Readonly<Record<string, number>>
  readonly denied?: readonly string[]
  readonly more?: Partial<HostReader>
}

const deny = (path: string): never => {
  throw new HostError('host.denied', `${path} could not be read (EACCES)`)
}

function readerOf({ files = {}, links = {}, answers = {}, modified = {}, denied = [], more = {} }: World) {
  const asked: string[] = []
  const paths = [...Object.keys(files), ...Object.keys(links), ...Object.keys(modified)]
  const reader: HostReader = {
    async query(argv) {
      const line = argv.join(' ')
      asked.push(line)
      const answer = answers[line]
      if (answer instanceof HostError) throw answer
      if (answer === undefined && line.startsWith('/usr/sbin/wipefs'))
        return { exit: 0, stdout: '', stderr: '' }
      if (answer === undefined && line.startsWith('/usr/sbin/blkid'))
        return { exit: 2, stdout: '', stderr: '' }
      if (answer === undefined && line.startsWith('/usr/bin/udevadm'))
        return { exit: 0, stdout: '', stderr: '' }
      if (answer === undefined) throw new Error(`not asked for: ${line}`)
      return { exit: 0, stdout: '', stderr: '', ...answer }
    },
    readText: async (path) => (denied.includes(path) ? deny(path) : (files[path] ?? null)),
    list: async (path) => {
      if (denied.includes(path)) deny(path)
      const inside = paths
        .filter((one) => one.startsWith(`${path}/`))
        .map((one) => one.slice(path.length + 1))
      return inside.length === 0 ? null : [...new Set(inside.map((one) => one.split('/')[0] ?? ''))].sort()
    },
    resolve: async (path) =>
      links[path] ?? (path.startsWith('/dev/') && files[path] !== undefined ? path : null),
    facts: async (path) =>
      path in modified || paths.some((one) => one === path || one.startsWith(`${path}/`))
        ? {
            kind: path in files || path in modified ? 'file' : 'folder',
            sizeBytes: 1,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modifiedMs: modified[path] ?? 0,
          }
        : null,
    head: async () => null,
    capacity: async () => null,
    mountTables: async () => [{ pid: 1, own: true, mountinfo: files['/proc/1/mountinfo'] ?? '' }],
    sample: async () => ({ sampledBytes: 1, nonZeroAt: null }),
    exclusive: async () => 'free',
    ioActivity: async (names) =>
      Object.fromEntries(names.map((name) => [name, { readSectors: 0, writtenSectors: 0, inFlight: 0 }])),
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
    now: async () => 0,
    domains: async () => [],
    pools: async () => [],
    networks: async () => [],
    ...readsNoCloud,
    ...more,
  }
  return { reader, asked }
}

let minor = 0
const disk = (kname: string, more: Record<string, unknown> = {}) => ({
  name: kname,
  kname,
  path: `/dev/${kname}`,
  'maj:min': `259:${minor++}`,
  type: 'disk',
  size: 1e12,
  ro: false,
  rm: false,
  model: 'Amazon EC2 NVMe Instance Storage',
  serial: `S-${kname}`,
  tran: 'sata',
  wwn: null,
  rota: false,
  zoned: 'none',
  'log-sec': 512,
  'phy-sec': 512,
  mountpoints: [null],
  ...more,
})

const lsblk = (blockdevices: readonly unknown[]) => ({
  '/usr/bin/lsblk --json --bytes --output NAME,KNAME,PATH,MAJ:MIN,TYPE,SIZE,RO,RM,MODEL,SERIAL,TRAN,WWN,ROTA,ZONED,LOG-SEC,PHY-SEC,FSTYPE,UUID,LABEL,PTTYPE,PTUUID,PARTTYPE,PARTUUID,MOUNTPOINTS':
    { stdout: JSON.stringify({ blockdevices }) },
})

const mount = (number: string, mountpoint: string, source: string, fsType = 'ext4') =>
  `20 1 ${number} / ${mountpoint} rw - ${fsType} ${source} rw\n`

const base = {
  '/etc/machine-id': 'abc\n',
  '/proc/1/mountinfo': mount('8:1', '/', '/dev/sda1'),
}
const rootDisk = disk('sda', {
  'maj:min': '8:0',
  children: [
    disk('sda1', { type: 'part', 'maj:min': '8:1', serial: null, fstype: 'ext4', uuid: 'root-uuid' }),
  ],
})

const look = async (world: World, array: Record<string, unknown> = {}): Promise<ArrayObserved> =>
  observe(readerOf(world).reader, wanting(array))

const driveIn = (observed: ArrayObserved, name: string) =>
  observed.drives.find((drive) => drive.name === name)

t.test('a bare host', async (t) => {
  const { reader, asked } = readerOf({
    files: { ...base, '/sys/class/dmi/id/board_asset_tag': 'i-0abc\n' },
    answers: lsblk([rootDisk, disk('sdb'), disk('sdc'), disk('sdd')]),
  })
  const observed = await observe(reader, wanting())
  t.match(driveIn(observed, 'sda'), { system: ['/'], partitions: ['sda1'], probe: null })
  t.same(
    selectDrives(observed, wanting()).verdicts.map(({ verdict }) => verdict),
    ['refused', 'chosen', 'chosen', 'chosen'],
  )
  t.same([observed.instance, observed.machineId, observed.unread], ['i-0abc', 'abc', []])
  t.notOk(
    asked.some((line) => line.endsWith('/dev/sda')),
    'a drive in use is not probed',
  )
})

t.test('what / stands on, whatever it is', async (t) => {
  const cases: readonly (readonly [string, string, readonly unknown[], Readonly<Record<string, string>>])[] =
    [
      [
        'LVM over two drives',
        mount('254:0', '/', '/dev/mapper/rl-root', 'xfs'),
        ['sda', 'sdb'].map((name) =>
          disk(name, {
            children: [
              disk('dm-0', { name: 'rl-root', path: '/dev/mapper/rl-root', type: 'lvm', 'maj:min': '254:0' }),
            ],
          }),
        ),
        {},
      ],
      [
        'btrfs over two drives, of which the mount names one',
        mount('0:31', '/', '/dev/sda', 'btrfs'),
        ['sda', 'sdb'].map((name) => disk(name, { fstype: 'btrfs', uuid: 'one' })),
        { '/dev/sda': '/dev/sda' },
      ],
      [
        'a device named by a link',
        mount('0:31', '/', '/dev/disk/by-uuid/one', 'btrfs'),
        ['sda', 'sdb'].map((name) => disk(name, { fstype: 'btrfs', uuid: 'one' })),
        { '/dev/disk/by-uuid/one': '/dev/sdb' },
      ],
      [
        'a zfs pool over two drives',
        mount('0:31', '/', 'rpool/ROOT/debian', 'zfs'),
        ['sda', 'sdb'].map((name) => disk(name, { fstype: 'zfs_member', label: 'rpool' })),
        {},
      ],
    ]
  for (const [name, mountinfo, devices, links] of cases) {
    const observed = await look({
      files: { ...base, '/proc/1/mountinfo': mountinfo },
      links,
      answers: lsblk([...devices, disk('sdc')]),
    })
    t.same(
      observed.drives.map(({ system }) => system),
      [['/'], ['/'], []],
      name,
    )
    t.same(observed.unread, [])
  }
  const overlay = await look({
    files: { ...base, '/proc/1/mountinfo': mount('0:31', '/', 'overlay', 'overlay') },
    answers: lsblk([disk('sdb')]),
  })
  t.match(
    overlay.unread,
    [{ fact: 'drive of /', why: /overlay/ }],
    'a root on no known device makes every drive suspect',
  )
  const network = await look({
    files: { ...base, '/proc/1/mountinfo': mount('0:31', '/', '192.0.2.1:/r', 'nfs4') },
    answers: lsblk([disk('sdb')]),
  })
  t.same(network.unread, [], 'but over the network it stands on none')
})

t.test('names, mounts and swap of others', async (t) => {
  const observed = await look({
    files: {
      ...base,
      '/etc/fstab':
        'UUID=AAAA-1 /a ext4 noauto 0 0\n/dev/disk/by-id/ata-gone_S-sdc /b xfs noauto 0 0\ntmpfs /tmp tmpfs\n',
      '/etc/crypttab': 'x PARTUUID=pp-1 none\n',
      '/etc/mdadm.conf': 'DEVICE partitions\nARRAY /dev/md5 devices=/dev/disk/by-path/5\n',
      '/etc/systemd/system/srv-x.mount': '[Mount]\nWhat=LABEL=lab\n',
      '/etc/systemd/system/srv-y.service': '[Service]\nWhat=/dev/sdg\n',
      '/proc/swaps': 'Filename Type Size Used Priority\n/dev/sdg partition 1 0 -2\n',
    },
    links: { '/dev/disk/by-path/5': '/dev/sde', '/dev/sdg': '/dev/sdg' },
    answers: {
      ...lsblk([
        rootDisk,
        disk('sdb', { uuid: 'aaaa-1' }),
        disk('sdc'),
        disk('sdd', { children: [disk('sdd1', { type: 'part', partuuid: 'PP-1' })] }),
        disk('sde'),
        disk('sdf', { label: 'lab', 'maj:min': '8:80' }),
        disk('sdg'),
      ]),
      '/usr/sbin/wipefs --no-act --json /dev/sdf': {
        stdout: '{"signatures":[{"offset":"0x0","type":"xfs","uuid":"u","label":"lab"}]}',
      },
    },
    more: {
      mountTables: async () => [
        { pid: 1, own: false, mountinfo: base['/proc/1/mountinfo'] },
        {
          pid: 42,
          own: false,
          mountinfo: mount('8:1', '/private', '/dev/sda1') + mount('8:80', '/hidden', '/dev/sdf'),
        },
        { pid: 77, own: true, mountinfo: base['/proc/1/mountinfo'] },
      ],
    },
  })
  const named = (name: string) => driveIn(observed, name)?.named.map(({ kind, spec }) => `${kind} ${spec}`)
  t.same(named('sdb'), ['fstab UUID=AAAA-1'])
  t.same(
    named('sdc'),
    ['fstab /dev/disk/by-id/ata-gone_S-sdc'],
    'a link that is not there, by the serial in it',
  )
  t.same(named('sdd'), ['crypttab PARTUUID=pp-1'], 'by a partition of it')
  t.same(named('sde'), ['mdadm-conf /dev/disk/by-path/5'])
  t.same(named('sdf'), ['unit LABEL=lab'])
  t.same(named('sdg'), [], 'a service is no mount')
  t.same(driveIn(observed, 'sdg')?.swaps, ['/dev/sdg'])
  t.same(driveIn(observed, 'sdf')?.mounts, [{ path: '/hidden', pid: 42 }])
  t.same(
    driveIn(observed, 'sda')?.mounts,
    [{ path: '/', pid: null }],
    'the same mount seen from a service is no news',
  )
})

t.test('virtual machines', async (t) => {
  const observed = await look({
    files: {
      ...base,
      '/etc/libvirt/qemu/web.xml':
        "<domain><name>web</name><devices><disk><source dev='/dev/disk/by-id/x'/></disk></devices></domain>",
      '/run/libvirt/qemu/db.xml':
        "<domstatus><domain><name>db</name><devices><hostdev type='pci'><source><address domain='0' bus='0x05' slot='0' function='0'/></source></hostdev></devices></domain></domstatus>",
      '/etc/libvirt/storage/fast.xml':
        "<pool type='disk'><name>fast</name><source><device path='/dev/sdd'/></source></pool>",
    },
    links: {
      '/dev/disk/by-id/x': '/dev/sdb',
      '/dev/sdd': '/dev/sdd',
      '/sys/class/block/nvme0n1': '/sys/devices/pci0000:00/0000:00:02.0/0000:05:00.0/nvme/nvme0/nvme0n1',
      '/sys/class/block/loop3': '/sys/devices/virtual/block/loop3',
    },
    answers: {
      ...lsblk([rootDisk, disk('sdb'), disk('nvme0n1'), disk('sdd'), disk('loop3', { type: 'loop' })]),
      '/usr/sbin/nvme smart-log --output-format=json /dev/nvme0n1': { stdout: '{"critical_warning":0}' },
    },
  })
  t.same(
    observed.drives.map(({ name, vms }) =>
      [name, ...vms.map((vm) => `${vm.kind} ${vm.name} ${vm.as}`)].join(': '),
    ),
    [
      'sda',
      'sdb: domain web /dev/disk/by-id/x',
      'nvme0n1: domain db 0000:05:00.0',
      'sdd: pool fast /dev/sdd',
      'loop3',
    ],
  )
  t.equal(driveIn(observed, 'loop3')?.kind, 'virtual')
})

t.test('what cannot be read is named, and hides nothing else', async (t) => {
  const { reader } = readerOf({
    files: { ...base, '/proc/self/mountinfo': base['/proc/1/mountinfo'] },
    denied: ['/etc/libvirt/qemu'],
    answers: {
      ...lsblk([rootDisk, disk('sdb'), disk('sdc')]),
      '/usr/sbin/wipefs --no-act --json /dev/sdb': {
        exit: 1,
        stderr: 'wipefs: error: /dev/sdb: probing failed',
      },
    },
    more: { mountTables: async () => deny('/proc/1/ns/mnt') },
  })
  const observed = await observe(reader, wanting())
  t.same(
    observed.unread.map(({ fact, code }) => `${fact}: ${code}`),
    ['mount namespaces: host.denied', 'libvirt definitions: host.denied'],
  )
  t.match(driveIn(observed, 'sdb')?.unread, [{ fact: 'signatures', why: /probing failed/ }])
  t.same(driveIn(observed, 'sdc')?.unread, [])
  t.same(driveIn(observed, 'sda')?.system, ['/'], 'its own mounts it still sees')
})

const detail = `/dev/md127:
           Version : 1.2
        Raid Level : raid5
      Raid Devices : 3
             State : clean, degraded, recovering
Consistency Policy : ppl
              Name : any:garrison
              UUID : 11111111:22222222:33333333:44444444
    Number   Major   Minor   RaidDevice State
       0       8        16        0      active sync   /dev/sdb
       1       8        32        1      active sync   /dev/sdc
       3       8        48        2      spare rebuilding   /dev/sdd
`
const superblock = (path: string, uuid: string) =>
  `${path}:\n          Magic : a92b4efc\n        Version : 1.2\n     Array UUID : ${uuid}\n           Name : any:garrison\n     Raid Level : raid5\n   Raid Devices : 3\n       Checksum : 1 - correct\n         Events : 0\n   Device Role : Active device 0\n`

t.test('arrays', async (t) => {
  const md = disk('md127', { type: 'raid5', 'maj:min': '9:127', size: 2e12, serial: null })
  const member = (name: string, number: string) => disk(name, { 'maj:min': number, children: [md] })
  const { reader, asked } = readerOf({
    files: {
      ...base,
      '/proc/mdstat':
        'md127 : active raid5 sdd[3] sdc[1] sdb[0]\n 1 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/2] [UU_]\n [=>...]  recovery = 8.5% (1/2) finish=17.0min speed=259783K/sec\n\nmd126 : inactive sde[0]\n 1 blocks super 1.2\n',
      '/sys/block/md127/md/mismatch_cnt': '128\n',
      '/sys/block/md127/md/dev-sdd/offset': '264192\n',
      '/sys/block/md127/md/array_state': 'clean\n',
      '/sys/class/block/sdb/holders/md127': '',
      '/sys/class/block/sde/holders/md126': '',
      '/run/mdadm/creating-md126': '',
    },
    links: { '/dev/md/garrison': '/dev/md127', '/dev/md/stale': '/dev/md99' },
    answers: {
      ...lsblk([rootDisk, member('sdb', '8:16'), member('sdc', '8:32'), member('sdd', '8:48'), disk('sde')]),
      '/usr/sbin/mdadm --detail /dev/md127': { stdout: detail },
      '/usr/sbin/mdadm --detail /dev/md126': {
        stdout: '/dev/md126:\n      Raid Level : raid0\n State : inactive\n',
      },
      '/usr/sbin/mdadm --examine /dev/sde': {
        stdout: superblock('/dev/sde', 'aaaaaaaa:bbbbbbbb:cccccccc:dddddddd'),
      },
    },
  })
  const observed = await observe(reader, wanting())
  t.match(observed.arrays[0], {
    kernelName: 'md127',
    level: 'raid5',
    name: 'garrison',
    links: ['garrison'],
    mismatches: 128,
    dataOffsetSectors: 264192,
    used: false,
    members: [
      { name: 'sdb', drive: 'sdb', slot: 0, condition: 'active' },
      { name: 'sdc', slot: 1, condition: 'active' },
      { name: 'sdd', slot: 2, condition: 'rebuilding' },
    ],
    progress: { action: 'recovery', minutesLeft: 17 },
  })
  t.match(
    observed.arrays[1],
    { active: false, level: null },
    'what an inactive array prints as its level is not it',
  )
  t.match(driveIn(observed, 'sde')?.superblock, { events: 0, uuid: 'aaaaaaaa:bbbbbbbb:cccccccc:dddddddd' })
  t.match(driveIn(observed, 'sde'), { arrays: ['md126'], holders: ['md126'] })
  t.same(observed.creating, ['creating-md126'])
  t.notOk(
    asked.some((line) => line.startsWith('/usr/sbin/wipefs') && /sd[bcd]$/.test(line)),
    'members are not probed',
  )
})

t.test('mdadm.conf and the initramfs', async (t) => {
  const world = { answers: lsblk([rootDisk]) }
  const debian = await look({
    ...world,
    files: { ...base, '/etc/mdadm/mdadm.conf': 'HOMEHOST <system>\n' },
    modified: {
      '/usr/sbin/update-initramfs': 1,
      '/etc/mdadm/mdadm.conf': 1000,
      '/boot/initrd.img-6.1': 999,
      '/boot/initrd.img-6.2': 1000,
      '/boot/vmlinuz-6.1': 1,
    },
  })
  t.equal(debian.conf.path, '/etc/mdadm/mdadm.conf')
  t.same(debian.initramfs, { tool: 'update-initramfs', stale: ['/boot/initrd.img-6.1'] })
  const both = await look({
    ...world,
    files: { ...base, '/etc/mdadm/mdadm.conf': 'A', '/etc/mdadm.conf': 'B' },
  })
  t.equal(both.conf.path, '/etc/mdadm.conf', 'mdadm reads this one first')
  const rocky = await look({
    ...world,
    files: {
      ...base,
      '/etc/mdadm.conf.d/local.conf': 'ARRAY /dev/md/garrison UUID=11111111:22222222:33333333:44444444\n',
    },
    modified: { '/usr/bin/dracut': 1, '/boot/initramfs-5.14.img': 1 },
  })
  t.equal(rocky.conf.path, '/etc/mdadm.conf')
  t.same(rocky.conf.conflicts, ['/etc/mdadm.conf.d/local.conf'])
  t.same(rocky.initramfs, { tool: 'dracut', stale: [] }, 'no mdadm.conf yet, so nothing is older')
  const older = await look({
    ...world,
    files: { ...base, '/etc/mdadm.conf': 'MAILADDR root\n' },
    modified: {
      '/usr/bin/dracut': 1,
      '/etc/mdadm.conf': 1000,
      '/boot/initramfs-5.14.img': 999,
      '/boot/initramfs-5.14kdump.img': 1,
      '/boot/initramfs-0-rescue-8a3f.img': 1,
    },
  })
  t.same(older.initramfs.stale, ['/boot/initramfs-5.14.img'], 'dracut never remakes rescue and kdump images')
})

t.test('what the journal began, and what was lost', async (t) => {
  const members = [{ serial: 'A' }, { serial: 'B' }]
  const step = (because: readonly unknown[], claims?: readonly string[]) =>
    ({ apply: '1', key: 'k', instance: 'i', step: { because, claims } }) as unknown as UnfinishedStep
  const observed = await look({
    files: {
      ...base,
      '/etc/mdadm.conf':
        '# BEGIN garrison: x\n# members: A B\nARRAY /dev/md/garrison UUID=11111111:22222222:33333333:44444444\n# END garrison\n',
      '/etc/lvm/backup/garrison': `# Generated by LVM2\ncontents = "Text Format Volume Group"\ngarrison {\n\tid = "x"\n\tphysical_volumes {\n\n\t\tpv0 {\n\t\t\tid = "y"\n\t\t}\n\t}\n\tlogical_volumes {\n\n\t\timages {\n\t\t\tid = "z"\n\t\t\tsegment1 {\n\t\t\t\ttype = "striped"\n\t\t\t}\n\t\t}\n\t\tweb-data {\n\t\t}\n\t}\n}\n`,
      '/etc/libvirt/qemu/web.xml':
        "<domain><name>web</name><devices><disk><source dev='/dev/garrison/web-data'/></disk><disk><source dev='/dev/mapper/garrison-web--data'/></disk></devices></domain>",
    },
    answers: lsblk([rootDisk]),
    more: {
      unfinishedSteps: async () => [
        step([{ desired: { uuid: 'u', members } }], ['/dev/sdb']),
        step([{ desired: 5 }], ['/dev/sdc']),
        step([{ desired: { uuid: 'u', members } }]),
      ],
    },
  })
  t.same(observed.unfinished, [
    { apply: '1', key: 'k', instance: 'i', uuid: 'u', members: ['A', 'B'] },
    { apply: '1', key: 'k', instance: 'i', uuid: null, members: [] },
  ])
  t.same(observed.lostVolumes, [
    { name: 'images', mount: null, domains: [] },
    { name: 'web-data', mount: null, domains: ['web'] },
  ])
  t.same(volumesInBackup(''), [])
})
