// Every reason for which a drive is refused: it is given when it holds, and not when it does not.

import t from 'tap'
import { arrayUuid, selectDrives } from '../../provisioning/array/drives.ts'
import type { ArrayObserved, Drive } from '../../provisioning/array/observe.ts'
import type { Probed } from '../../provisioning/block/blkid.ts'
import type { Desired } from '../../provisioning/desired.ts'
import { problems } from '../../provisioning/problem.ts'
import { blank, drive, host, rootDrive, wanting } from './array-host.ts'

const sizeBytes = drive(1).sizeBytes

/** A way in which a drive is not fit, and the words that must be in the reason. */
interface Case {
  readonly code: string
  readonly says: RegExp
  readonly drive?: Partial<Drive>
  readonly host?: Partial<ArrayObserved>
  readonly desired?: Desired
  /** The same drive under this document is fit: the reason can be lifted. */
  readonly lifted?: Desired
}

const signature = (type: string, offset: number) => ({ offset, type, uuid: null, label: null })
const withSignatures = (...signatures: ReturnType<typeof signature>[]): Partial<Drive> => ({
  probe: { ...blank, signatures },
})
const nothing = blank.recognised as Probed
const fstab = { kind: 'fstab', file: '/etc/fstab', spec: '/dev/disk/by-id/nvme-x_AWS0001' } as const
const foreign = {
  version: '1.2',
  uuid: 'aaaaaaaa:bbbbbbbb:cccccccc:dddddddd',
  homehost: 'other',
  name: 'data',
  level: 'raid5',
  raidDevices: 3,
  events: 12,
  role: 'active',
  slot: 0,
  dataOffsetSectors: 2048,
  usedSectors: 1000,
  checksumRight: true,
} as const

const cases: Readonly<Record<string, Case>> = {
  '1 not the planned drive': {
    code: 'drive.unlike-plan',
    says: /leads to, but its serial is AWS0001/,
    host: { links: { '/dev/disk/by-id/nvme-x_AWS9999': 'nvme1n1' } },
    desired: wanting({
      members: [{ byId: '/dev/disk/by-id/nvme-x_AWS9999' }, { serial: 'AWS0002' }, { serial: 'AWS0003' }],
    }),
  },
  '2 EBS': {
    code: 'drive.ebs',
    says: /EBS volume/,
    drive: { model: 'Amazon Elastic Block Store' },
    lifted: wanting({ allow: ['ebs'] }),
  },
  '3 the system stands on it': {
    code: 'drive.holds-root',
    says: /holds \/boot/,
    drive: { system: ['/boot'] },
  },
  '4 partitions': {
    code: 'drive.partition-table',
    says: /2 partitions/,
    drive: { partitions: ['a1', 'a2'] },
  },
  '4 an empty GPT': {
    code: 'drive.partition-table',
    says: /empty gpt/,
    drive: withSignatures(signature('gpt', 512), signature('gpt', sizeBytes - 512), signature('PMBR', 510)),
  },
  '4 an empty MBR': {
    code: 'drive.partition-table',
    says: /empty dos/,
    drive: withSignatures(signature('dos', 510)),
  },
  '4 a table that only blkid knows': {
    code: 'drive.partition-table',
    says: /empty sgi/,
    drive: { probe: { ...blank, recognised: { ...nothing, partitionTable: 'sgi' } } },
  },
  '4 only a backup GPT, 512': {
    code: 'drive.backup-gpt',
    says: new RegExp(`backup partition table at byte ${sizeBytes - 512}`),
    drive: withSignatures(signature('gpt', sizeBytes - 512)),
  },
  '4 only a backup GPT, 4096': {
    code: 'drive.backup-gpt',
    says: /backup/,
    drive: withSignatures(signature('gpt', sizeBytes - 4096)),
  },
  '5 LVM': {
    code: 'drive.signature',
    says: /LVM signature at byte 536/,
    drive: withSignatures(signature('LVM2_member', 536)),
  },
  '5 a filesystem': {
    code: 'drive.signature',
    says: /xfs signature at byte 0/,
    drive: withSignatures(signature('xfs', 0)),
  },
  '5 md, at the end': {
    code: 'drive.signature',
    says: /md RAID signature/,
    drive: withSignatures(signature('linux_raid_member', sizeBytes - 65536)),
  },
  '5 md of another host': { code: 'drive.signature', says: /md array data/, drive: { superblock: foreign } },
  '5 md that runs': {
    code: 'drive.signature',
    says: /member of the md array md9/,
    drive: { arrays: ['md9'], holders: ['md9'], probe: null },
  },
  '5 what blkid alone recognises': {
    code: 'drive.signature',
    says: /looks like drbd/,
    drive: { probe: { ...blank, recognised: { ...nothing, type: 'drbd' } } },
  },
  '5 contradicting signatures': {
    code: 'drive.signature',
    says: /contradict/,
    drive: { probe: { ...blank, recognised: { ...nothing, ambivalent: true } } },
  },
  '6 holders': { code: 'drive.holder', says: /held by dm-3/, drive: { holders: ['dm-3'] } },
  '7 mounted': { code: 'drive.mounted', says: /at \/mnt/, drive: { mounts: [{ path: '/mnt', pid: null }] } },
  '7 mounted elsewhere': {
    code: 'drive.mounted-elsewhere',
    says: /process 4711/,
    drive: { mounts: [{ path: '/mnt', pid: 4711 }] },
  },
  '8 swap': { code: 'drive.swap', says: /\/dev\/nvme1n1/, drive: { swaps: ['/dev/nvme1n1'] } },
  '9 fstab': { code: 'drive.named-in-fstab', says: /\/etc\/fstab as/, drive: { named: [fstab] } },
  '9 crypttab': {
    code: 'drive.named-in-crypttab',
    says: /crypttab/,
    drive: { named: [{ ...fstab, kind: 'crypttab', file: '/etc/crypttab' }] },
  },
  '9 mdadm.conf': {
    code: 'drive.named-in-mdadm-conf',
    says: /mdadm.conf/,
    drive: { named: [{ ...fstab, kind: 'mdadm-conf', file: '/etc/mdadm.conf' }] },
  },
  '9 a unit': {
    code: 'drive.named-in-unit',
    says: /srv.mount/,
    drive: { named: [{ ...fstab, kind: 'unit', file: '/etc/systemd/system/srv.mount' }] },
  },
  '10 a VM': {
    code: 'drive.used-by-vm',
    says: /VM web-1 as \/dev\/nvme1n1/,
    drive: { vms: [{ kind: 'domain', name: 'web-1', as: '/dev/nvme1n1' }] },
  },
  '10 a pool': {
    code: 'drive.used-by-vm',
    says: /storage pool fast/,
    drive: { vms: [{ kind: 'pool', name: 'fast', as: '/dev/nvme1n1' }] },
  },
  '11 busy': { code: 'drive.busy', says: /exclusively/, drive: { probe: { ...blank, exclusive: 'busy' } } },
  '12 read-only': { code: 'drive.read-only', says: /read-only/, drive: { readOnly: true } },
  '13 duplicate serial': {
    code: 'drive.duplicate-serial',
    says: /AWS0001, as another/,
    host: { drives: [rootDrive, drive(1), drive(2), drive(3), drive(4, { serial: 'AWS0001' })] },
  },
  '14 not zero': {
    code: 'drive.not-zero',
    says: /683\.6 KiB from its start/,
    drive: { probe: { ...blank, sample: { sampledBytes: 1, nonZeroAt: 700_000 } } },
  },
  '15 size': { code: 'drive.size-unlike', says: /another size/, drive: { sizeBytes: sizeBytes * 0.98 } },
  '16 count': {
    code: 'drive.count-unlike',
    says: /exactly 4/,
    desired: wanting({ count: 4 }),
  },
  '16 fewer than the minimum': {
    code: 'drive.count-unlike',
    says: /4 are the fewest/,
    desired: wanting({ minimum: 4 }),
  },
  '17 written to': {
    code: 'drive.active',
    says: /8 written/,
    drive: { probe: { ...blank, activity: { readSectors: 0, writtenSectors: 8, inFlight: 0 } } },
  },
  '17 read from': {
    code: 'drive.active',
    says: /4096 sectors read/,
    drive: { probe: { ...blank, activity: { readSectors: 4096, writtenSectors: 0, inFlight: 0 } } },
  },
  '17 requests in flight': {
    code: 'drive.active',
    says: /1 requests in flight/,
    drive: { probe: { ...blank, activity: { readSectors: 0, writtenSectors: 0, inFlight: 1 } } },
  },
  '18 critical warning': {
    code: 'drive.unwell',
    says: /read-only/,
    drive: { smart: { criticalWarning: 8, usedPercent: 1, sparePercent: 1, mediaErrors: 0 } },
  },
  '20 another instance': {
    code: 'drive.other-instance',
    says: /for i-other/,
    host: { wantedInstance: 'i-other' },
  },
  '21 unfinished apply of another plan': {
    code: 'drive.unfinished-apply',
    says: /array.create of apply 7 on i-0/,
    host: {
      unfinished: [{ apply: '7', key: 'array.create', instance: 'i-0', uuid: null, members: ['AWS0001'] }],
    },
    lifted: wanting({ members: [{ serial: 'AWS0001' }, { serial: 'AWS0002' }, { serial: 'AWS0003' }] }),
  },
  '22 another apply': {
    code: 'drive.locked-apply',
    says: /timer, process 77/,
    host: { lockHolder: { pid: 77, who: 'timer', sinceMs: 0 } },
  },
  '23 udev': { code: 'drive.udev-busy', says: /udev/, host: { udevSettled: false } },
  '24 zoned': {
    code: 'drive.zoned',
    says: /host-managed/,
    drive: { zoned: 'host-managed' },
    lifted: wanting({ allow: ['zoned'] }),
  },
  '24 removable': {
    code: 'drive.removable',
    says: /removable/,
    drive: { removable: true },
    lifted: wanting({ allow: ['removable'] }),
  },
  '24 loop': {
    code: 'drive.loop',
    says: /no drive of its own/,
    drive: { kind: 'virtual' },
    lifted: wanting({ allow: ['loop'] }),
  },
  'a fact of the drive is unknown': {
    code: 'drive.unknown',
    says: /signatures could not be read \(I\/O error\)/,
    drive: { unread: [{ fact: 'signatures', code: 'host.unreadable', why: 'I/O error' }] },
  },
  'a fact of the host is unknown': {
    code: 'drive.unknown',
    says: /mount namespaces/,
    host: { unread: [{ fact: 'mount namespaces', code: 'host.denied', why: 'not root' }] },
  },
  'it was not probed though nothing is known against it': {
    code: 'drive.unknown',
    says: /not probed/,
    drive: { probe: null },
  },
  'nothing to know it again by': {
    code: 'drive.unknown',
    says: /neither a serial/,
    drive: { serial: null, wwn: null },
  },
}

const verdictOn = (name: string, observed: ArrayObserved, desired: Desired) =>
  selectDrives(observed, desired).verdicts.find((verdict) => verdict.drive === name)

for (const [name, one] of Object.entries(cases))
  t.test(name, async (t) => {
    const drives = [rootDrive, drive(1, one.drive), drive(2), drive(3)]
    const observed = host({ drives, ...one.host })
    const verdict = verdictOn('nvme1n1', observed, one.desired ?? wanting())
    t.equal(verdict?.verdict, 'refused')
    const reason = verdict?.refusals.find(({ code }) => code === one.code)
    t.match(reason?.message, one.says, `${verdict?.refusals.map(({ code }) => code)}`)
    t.ok(one.code in problems(), 'has a remedy')
    if (one.lifted) t.equal(verdictOn('nvme1n1', observed, one.lifted)?.verdict, 'chosen', 'can be lifted')
  })

t.test('none of them holds for a blank drive', async (t) => {
  const { verdicts, chosen } = selectDrives(host(), wanting())
  t.same(
    verdicts.map(({ verdict }) => verdict),
    ['refused', 'chosen', 'chosen', 'chosen'],
  )
  t.same(verdicts[1]?.refusals, [])
  t.same(
    chosen.map(({ name }) => name),
    ['nvme1n1', 'nvme2n1', 'nvme3n1'],
  )
})

t.test('what LVM and udev read does not make a drive busy', async (t) => {
  const probe = { ...blank, activity: { readSectors: 600, writtenSectors: 0, inFlight: 0 } }
  t.equal(
    verdictOn('nvme1n1', host({ drives: [drive(1, { probe }), drive(2), drive(3)] }), wanting())?.verdict,
    'chosen',
  )
})

t.test('an apply of our own that never ended is ours to finish', async (t) => {
  const unfinished = (uuid: string, members: readonly string[]) => ({
    unfinished: [{ apply: '7', key: 'array.create', instance: 'i-0123456789abcdef0', uuid, members }],
  })
  const { machineId } = host()
  const ours = arrayUuid(machineId, 'garrison', ['AWS0001', 'AWS0002'])
  const verdict = (more: Partial<ArrayObserved>) => verdictOn('nvme1n1', host(more), wanting())?.verdict
  t.equal(
    verdict(unfinished(ours, ['AWS0001', 'AWS0002'])),
    'chosen',
    'of this host, for this array, on fewer drives',
  )
  t.equal(verdict(unfinished(ours, ['AWS0001'])), 'refused', 'a UUID that does not follow from its drives')
  const copied = arrayUuid('of the host that the image was made of', 'garrison', ['AWS0001', 'AWS0002'])
  t.equal(verdict(unfinished(copied, ['AWS0001', 'AWS0002'])), 'refused', 'of another host')
  const remembered = { device: '/dev/md/garrison', uuid: copied, members: [] }
  t.equal(
    verdict({ ...unfinished(copied, ['AWS0001', 'AWS0002']), conf: { ...host().conf, remembered } }),
    'chosen',
    'one that was finished after all: mdadm.conf remembers it',
  )
})

t.test('all reasons are listed, the gravest first', async (t) => {
  const worst = drive(1, {
    system: ['/', '/boot'],
    partitions: ['nvme1n1p1'],
    mounts: [{ path: '/', pid: null }],
    named: [fstab],
    readOnly: true,
    probe: null,
  })
  const verdict = verdictOn('nvme1n1', host({ drives: [worst] }), wanting())
  t.same(
    verdict?.refusals.map(({ code }) => code),
    ['drive.holds-root', 'drive.mounted', 'drive.named-in-fstab', 'drive.partition-table', 'drive.read-only'],
  )
  t.match(verdict?.text, /^holds \/, \/boot of the running system \(and 4 more\)$/)
})

t.test('a link to the right drive by serial or by WWN', async (t) => {
  const links = {
    '/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS0001': 'nvme1n1',
    '/dev/disk/by-id/nvme-nvme.1d0f-2': 'nvme2n1',
  }
  const members = [...Object.keys(links).map((byId) => ({ byId })), { serial: 'AWS0003' }]
  const { chosen, missing } = selectDrives(host({ links }), wanting({ members }))
  t.same([chosen.length, missing], [3, []])
})
