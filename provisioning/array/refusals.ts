// Why a drive may not become a member: every reason that holds, the gravest first. Unknown is not fine: it is a reason too.

import { formatBytes } from '../block/bytes.ts'
import type { DesiredArray } from '../desired.ts'
import type { LockHolder } from '../host.ts'
import type { ProblemCode } from '../problem.ts'
import type { Naming } from './names.ts'
import { criticalWarnings } from './nvme.ts'
import type { ArrayObserved, Drive, UnfinishedArray } from './observe.ts'
import type { Unread } from './unread.ts'

/** One reason; `message` goes on after the name of the drive. */
export interface Refusal {
  readonly code: ProblemCode
  readonly message: string
}

/** What judging one drive takes beside the drive. */
export interface RefusalContext {
  readonly allow: DesiredArray['allow']
  readonly instance: string
  readonly wantedInstance: string | null
  readonly lockHolder: LockHolder | null
  readonly udevSettled: boolean
  /** Unfinished steps of other plans than this one. */
  readonly unfinished: readonly UnfinishedArray[]
  /** UUIDs of our own creations that never ran: their superblocks may be written over. */
  readonly ownUnfinished: readonly string[]
  /** Arrays (kernel names) that such a creation left in the kernel: they are stopped before anything is written. */
  readonly ownHolders: readonly string[]
  /** Serials that more than one drive of the host has. */
  readonly duplicates: readonly string[]
  /** What the document names this drive by, when it does. */
  readonly listedAs: string | null
  readonly unread: readonly Unread[]
}

/** Reads of this many sectors in a quarter of a second are a user's; LVM and udev read less when they look for superblocks. */
const busyReadSectors = 1024

const tables = new Set([
  'gpt',
  'dos',
  'PMBR',
  'bsd',
  'mac',
  'sun',
  'sgi',
  'minix',
  'solaris-x86',
  'unixware',
  'atari',
  'ultrix',
])

const words: Readonly<Record<string, string>> = {
  LVM2_member: 'LVM',
  LVM1_member: 'LVM',
  linux_raid_member: 'md RAID',
  crypto_LUKS: 'LUKS',
  zfs_member: 'ZFS',
  ceph_bluestore: 'Ceph',
  bcache: 'bcache',
  swap: 'swap',
}

const namedCodes: Readonly<Record<Naming['kind'], ProblemCode>> = {
  fstab: 'drive.named-in-fstab',
  crypttab: 'drive.named-in-crypttab',
  'mdadm-conf': 'drive.named-in-mdadm-conf',
  unit: 'drive.named-in-unit',
}

/** Where a superblock of version 1.2 lies. */
const superblockOffset = 4096

const and = (names: readonly string[]): string => names.join(', ')

/** Whether the superblock on the drive is of a creation of ours that never ran. */
const isOwnUnfinished = ({ superblock }: Drive, { ownUnfinished }: RefusalContext): boolean =>
  superblock?.uuid != null && ownUnfinished.includes(superblock.uuid)

function* contentRefusals(drive: Drive, context: RefusalContext): Generator<Refusal> {
  const { probe, partitions, superblock } = drive
  const own = isOwnUnfinished(drive, context)
  const signatures = probe?.signatures ?? []
  const partitionTables = signatures.filter(({ type }) => tables.has(type))
  const primary = partitionTables.filter(({ offset }) => offset < drive.sizeBytes / 2)
  const kind = primary.find(({ type }) => type !== 'PMBR')?.type ?? probe?.recognised?.partitionTable
  if (partitions.length > 0)
    yield {
      code: 'drive.partition-table',
      message: `has ${partitions.length === 1 ? 'a partition' : `${partitions.length} partitions`} (${and(partitions)})`,
    }
  else if (kind || primary.length > 0)
    yield { code: 'drive.partition-table', message: `has an empty ${kind ?? 'MBR'} partition table` }
  const [backup] = partitionTables.filter(({ offset }) => offset >= drive.sizeBytes / 2)
  if (backup && primary.length === 0)
    yield { code: 'drive.backup-gpt', message: `has a backup partition table at byte ${backup.offset}` }

  if (superblock && !own)
    yield {
      code: 'drive.signature',
      message: `belongs to md array ${superblock.name ?? '(without a name)'}, UUID ${superblock.uuid ?? 'unreadable'}`,
    }
  if (!superblock)
    for (const name of drive.arrays)
      yield { code: 'drive.signature', message: `is a member of the md array ${name}` }
  for (const { type, offset } of signatures) {
    // Our own superblocks are of version 1.2; one that lies elsewhere is somebody else's.
    const told = type === 'linux_raid_member' && superblock !== null && !(own && offset !== superblockOffset)
    if (tables.has(type) || told) continue
    yield { code: 'drive.signature', message: `has a ${words[type] ?? type} signature at byte ${offset}` }
  }
  const recognised = probe?.recognised
  if (recognised?.ambivalent)
    yield { code: 'drive.signature', message: 'has signatures that contradict each other' }
  const type = recognised?.type
  if (type && !signatures.some((one) => one.type === type) && !(type === 'linux_raid_member' && superblock))
    yield { code: 'drive.signature', message: `looks like ${words[type] ?? type} to blkid` }
  const nonZeroAt = probe?.sample?.nonZeroAt ?? null
  if (nonZeroAt !== null && !own)
    yield {
      code: 'drive.not-zero',
      message: `is not blank: bytes that are not zero, ${formatBytes(nonZeroAt)} from its start`,
    }
}

function* useRefusals(drive: Drive, { unfinished, ownHolders }: RefusalContext): Generator<Refusal> {
  if (drive.system.length > 0)
    yield { code: 'drive.holds-root', message: `holds ${and(drive.system)} of the running system` }
  const here = [...new Set(drive.mounts.filter(({ pid }) => pid === null).map(({ path }) => path))]
  if (here.length > 0) yield { code: 'drive.mounted', message: `is mounted at ${and(here)}` }
  for (const { path, pid } of drive.mounts)
    if (pid !== null && !here.includes(path))
      yield {
        code: 'drive.mounted-elsewhere',
        message: `is mounted at ${path} in the namespace of process ${pid}`,
      }
  if (drive.swaps.length > 0) yield { code: 'drive.swap', message: `is in use as swap (${and(drive.swaps)})` }
  for (const { kind, name, as } of drive.vms)
    yield {
      code: 'drive.used-by-vm',
      message: `is used by ${kind === 'pool' ? 'storage pool' : 'VM'} ${name} as ${as}`,
    }
  for (const { kind, file, spec } of drive.named)
    yield { code: namedCodes[kind], message: `is named in ${file} as ${spec}` }
  const holders = drive.holders.filter((holder) => !ownHolders.includes(holder))
  if (holders.length > 0) yield { code: 'drive.holder', message: `is held by ${and(holders)}` }
  if (drive.probe?.exclusive === 'busy' && holders.length === drive.holders.length)
    yield { code: 'drive.busy', message: 'is in use: it cannot be opened exclusively' }
  const { activity } = drive.probe ?? {}
  if (
    activity &&
    (activity.writtenSectors > 0 || activity.inFlight > 0 || activity.readSectors >= busyReadSectors)
  )
    yield {
      code: 'drive.active',
      message:
        `is being used: ${activity.readSectors} sectors read, ${activity.writtenSectors} written, ` +
        `${activity.inFlight} requests in flight while we watched`,
    }
  for (const { apply, key, instance, members } of unfinished)
    if (drive.serial !== null && members.includes(drive.serial))
      yield {
        code: 'drive.unfinished-apply',
        message: `is part of ${key} of apply ${apply} on ${instance || 'an unknown host'}, which never ended`,
      }
}

function* kindRefusals(drive: Drive, { allow, duplicates, listedAs }: RefusalContext): Generator<Refusal> {
  const { serial, model, smart } = drive
  if (drive.readOnly) yield { code: 'drive.read-only', message: 'is read-only' }
  if (serial !== null && duplicates.includes(serial))
    yield { code: 'drive.duplicate-serial', message: `has serial ${serial}, as another drive has` }
  if (serial === null && drive.wwn === null)
    yield { code: 'drive.unknown', message: 'has neither a serial number nor a WWN to know it again by' }
  const cleaned = serial?.replaceAll(' ', '_')
  const worldwide = drive.wwn?.replace(/^0x/, '')
  if (
    listedAs?.startsWith('/') &&
    ![cleaned, worldwide].some((one) => one !== undefined && listedAs.includes(one))
  )
    yield {
      code: 'drive.unlike-plan',
      message: `is what ${listedAs} leads to, but its serial is ${serial ?? 'unknown'}`,
    }
  if (model?.startsWith('Amazon Elastic Block Store') && !allow.includes('ebs'))
    yield { code: 'drive.ebs', message: 'is an EBS volume, not instance store' }
  if (drive.zoned !== null && drive.zoned !== 'none' && !allow.includes('zoned'))
    yield { code: 'drive.zoned', message: `is a zoned drive (${drive.zoned})` }
  if (drive.removable && !allow.includes('removable'))
    yield { code: 'drive.removable', message: 'is removable' }
  if (drive.kind === 'virtual' && !allow.includes('loop'))
    yield { code: 'drive.loop', message: 'is no drive of its own (loop, network or memory device)' }
  const warnings = smart ? criticalWarnings(smart) : []
  if (warnings.length > 0) yield { code: 'drive.unwell', message: `warns of itself: ${and(warnings)}` }
}

function* hostRefusals(context: RefusalContext): Generator<Refusal> {
  const { instance, wantedInstance, lockHolder } = context
  if (wantedInstance !== null && wantedInstance !== instance)
    yield {
      code: 'drive.other-instance',
      message: `is on ${instance}, the document is for ${wantedInstance}`,
    }
  if (lockHolder)
    yield {
      code: 'drive.locked-apply',
      message: `may be changed by another apply now (${lockHolder.who}, process ${lockHolder.pid})`,
    }
  if (!context.udevSettled)
    yield { code: 'drive.udev-busy', message: 'may still change: udev has not settled' }
}

/** Health is asked with a tool that the software resource installs: until then the plan goes on, guarded by that tool. */
export const isToolMissing = ({ fact, code }: Unread): boolean =>
  fact === 'health' && code === 'host.tool-missing'

/**
 * Every reason against the drive, the headline first; empty when it is provably blank and free. Size and count, which
 * depend on the other drives, are judged by `selectDrives`.
 */
export function refusals(drive: Drive, context: RefusalContext): readonly Refusal[] {
  const found = [
    ...useRefusals(drive, context),
    ...contentRefusals(drive, context),
    ...kindRefusals(drive, context),
    ...hostRefusals(context),
  ]
  const unread = [...drive.unread.filter((one) => !isToolMissing(one)), ...context.unread]
  const missing = [
    ...unread.map(({ fact, why }) => `${fact} could not be read (${why})`),
    // A drive that is plainly in use is not probed; one against which nothing is known must have been.
    ...(drive.probe === null && found.length === 0 ? ['it was not probed'] : []),
  ]
  return [
    ...found,
    ...missing.map(
      (message): Refusal => ({ code: 'drive.unknown', message: `cannot be judged: ${message}` }),
    ),
  ]
}

/** The part of the context that is the same for every drive. */
export function contextOf(
  observed: ArrayObserved,
  allow: DesiredArray['allow'],
): Omit<RefusalContext, 'unfinished' | 'ownUnfinished' | 'ownHolders' | 'listedAs'> {
  const serials = observed.drives.flatMap(({ serial }) => (serial === null ? [] : [serial]))
  return {
    allow,
    instance: observed.instance,
    wantedInstance: observed.wantedInstance,
    lockHolder: observed.lockHolder,
    udevSettled: observed.udevSettled,
    duplicates: serials.filter((serial, index) => serials.indexOf(serial) !== index),
    unread: observed.unread,
  }
}
