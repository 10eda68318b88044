// How / comes to fill its disk: partition, physical volume, logical volume, filesystem, each grown when what it stands on has room.

import { formatBytes } from '../block/bytes.ts'
import type { PhysicalVolume } from '../block/lvm.ts'
import type { Desired } from '../desired.ts'
import { HostError, type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Json, type Step, stepKey } from '../resource.ts'
import type { ObservedRoot, RootDevice } from './observe.ts'
import { growStdin, type Partition, type PartitionTable, sfdiskGrow, tableJson } from './sfdisk.ts'

const MiB = 2 ** 20

/** Room up to this is not worth a step: alignment, block groups and LVM's metadata leave some MiB that nothing can use. */
const slackBytes = 16 * MiB

const growable = ['ext4', 'xfs', 'btrfs']

/** An MBR has 32 bits for a sector number. */
const mbrSectors = 2 ** 32

const blocked = (code: ProblemCode, message: string): Blocked => ({ code, message, remedy: remedyOf(code) })

/** What keeps the whole of / from being grown, whatever room there is. */
function obstacle({ fsType, source, readOnly, devices, volume, filesystem }: ObservedRoot): Blocked | null {
  const [own] = devices
  if (own === undefined)
    return blocked('root.unsupported', `/ is ${fsType} from ${source}, which is on no disk of this host`)
  const layer = devices.find(({ type }) => type === 'crypt' || type.startsWith('raid') || type === 'linear')
  if (layer?.type === 'crypt')
    return blocked('root.encrypted', `/ stands on the encrypted device ${layer.path}`)
  if (layer !== undefined) return blocked('root.raid', `/ stands on the array ${layer.path} (${layer.type})`)
  const other = devices.find(({ type }) => !['part', 'disk', 'lvm'].includes(type))
  if (other !== undefined)
    return blocked(
      'root.unsupported',
      `/ stands on ${other.path}, a device of the kind ${other.type}, which Garrison cannot grow`,
    )
  if (!growable.includes(fsType))
    return blocked('root.unsupported', `/ is ${fsType}; Garrison grows ext4, xfs and btrfs`)
  if (volume !== null) {
    if (volume.layout.includes('thin'))
      return blocked('root.thin', `/ is the thin volume ${volume.path}: its size is not what its disk holds`)
    if (volume.groupAttributes[3] === 'p')
      return blocked('root.group-incomplete', `volume group ${volume.group} misses a physical volume`)
    if (volume.groupAttributes[0] !== 'w')
      return blocked('root.unsupported', `volume group ${volume.group} is read-only`)
    if (volume.layout.join() !== 'linear' || /^[oO]/.test(volume.attributes))
      return blocked(
        'root.unsupported',
        `${volume.path} is ${volume.layout.join(', ')}${/^[oO]/.test(volume.attributes) ? ' with snapshots' : ''}; Garrison grows linear volumes without snapshots`,
      )
  }
  if (filesystem !== null && filesystem.members.length > 1)
    return blocked('root.several-devices', `/ is one btrfs over ${filesystem.members.length} devices`)
  return readOnly ? blocked('root.read-only', `/ (${source}) is read-only`) : null
}

/** What can be had for one partition: the room it can grow into, and the room of its disk that lies out of its reach. */
interface Reach {
  readonly table: PartitionTable
  readonly partition: Partition
  readonly gainBytes: number
  readonly beyondBytes: number
  readonly behind: Partition | null
  /** Bytes that the table gives it and the kernel does not know of yet. */
  readonly untoldBytes: number
}

function reachOf(part: RootDevice, disk: RootDevice, table: PartitionTable): Reach | null {
  const partition = table.partitions.find(({ node }) => node === part.path)
  if (partition === undefined) return null
  const { sectorBytes, label, lastUsableSector, backupDisplaced } = table
  const diskSectors = Math.floor(disk.sizeBytes / sectorBytes)
  // A GPT ends with its header (one sector) and 16 KiB of entries.
  const gptEnd = diskSectors - 1 - 16384 / sectorBytes
  const tableEnd = label === 'gpt' && !backupDisplaced ? (lastUsableSector ?? gptEnd - 1) + 1 : gptEnd
  const usableEnd = label === 'gpt' ? tableEnd : Math.min(diskSectors, mbrSectors)
  const end = partition.startSector + partition.sectors
  const behind = table.partitions
    .filter(({ startSector }) => startSector >= end)
    .sort((a, b) => a.startSector - b.startSector)
  const lastEnd = behind.reduce(
    (last, { startSector, sectors }) => Math.max(last, startSector + sectors),
    end,
  )
  const reachable = behind[0]?.startSector ?? usableEnd
  return {
    table,
    partition,
    gainBytes: Math.max(0, reachable - end) * sectorBytes,
    beyondBytes:
      Math.max(0, (label === 'gpt' ? gptEnd : diskSectors) - (behind.length > 0 ? lastEnd : usableEnd)) *
      sectorBytes,
    behind: behind[0] ?? null,
    untoldBytes: partition.sectors * sectorBytes - part.sizeBytes,
  }
}

/** Extents that a physical volume would gain from its device; 4 MiB are left for a second copy of LVM's metadata at its end. */
const physicalGain = (
  { deviceBytes, dataOffsetBytes, sizeBytes }: PhysicalVolume,
  extentBytes: number,
): number =>
  Math.max(0, Math.floor((deviceBytes - dataOffsetBytes - 4 * MiB) / extentBytes) * extentBytes - sizeBytes)

/**
 * Bytes of the disks of / that / does not span, as far as they are known; each place counts only beyond `slackBytes`.
 */
export function unusedBytes({ devices, volume, filesystem }: ObservedRoot): number {
  const physical = volume?.physical ?? []
  const places = [
    ...devices.map(({ unpartitionedBytes }) => unpartitionedBytes),
    ...physical.map((one) => physicalGain(one, volume?.extentBytes ?? 1)),
    physical.reduce((sum, { freeBytes }) => sum + freeBytes, 0),
    filesystem === null ? 0 : (devices[0]?.sizeBytes ?? 0) - filesystem.sizeBytes,
  ]
  return places.filter((bytes) => bytes > slackBytes).reduce((sum, bytes) => sum + bytes, 0)
}

const deadlineMs = 30 * 60_000

// Each runs in a unit of its own, which a killed agent does not take with it: lvextend that dies while / is suspended would
// stop the host.
const run = (argv: [string, ...string[]], stdin?: string): Action => ({
  kind: 'run',
  argv,
  deadlineMs,
  unit: true,
  ...(stdin !== undefined && { stdin }),
})

type Because = (path: string, wanted: Json, seen: Json) => Step['because']

/** Steps that make / fill its disk; one that cannot be is blocked, and without room anywhere there is none. */
export function planRoot(observed: ObservedRoot, desired: Desired): readonly Step[] {
  if (!desired.root?.grow) return []
  if (observed.unread) throw new HostError(observed.unread.code, observed.unread.message)
  const why = desired.sources['root.grow'] ?? desired.sources.root
  const because: Because = (path, wanted, seen) => [
    { path, desired: wanted, observed: seen, ...(why !== undefined && { why }) },
  ]
  const hindered = obstacle(observed)
  if (hindered === null) return growthSteps(observed, because)
  const unused = unusedBytes(observed)
  if (unused === 0 && observed.devices.length > 0) return []
  return [
    {
      id: 'root.grow',
      summary: 'grow / to fill its disk',
      risk: 'safe',
      because: because('root.grow', true, { unusedBytes: unused }),
      actions: [],
      blocked: hindered,
    },
  ]
}

/** The step for one partition under /, or null when it fills its disk as far as there is anything to fill. */
function partitionStep(observed: ObservedRoot, part: RootDevice, because: Because): Step | null {
  const disk = observed.devices.find(
    ({ kernelName, type }) => type === 'disk' && part.parents.includes(kernelName),
  )
  if (disk === undefined) return null
  const table = observed.tables.find((one) => one.disk === disk.path)
  const reach = table === undefined ? null : reachOf(part, disk, table)
  const step = (actions: readonly Action[], hindered?: Blocked): Step => ({
    id: 'root.partition',
    subject: part.kernelName,
    summary: `grow partition ${part.kernelName} to fill ${disk.kernelName}`,
    risk: 'safe',
    // The whole table goes into the journal before it is changed.
    because: because(
      `root.partition.${part.kernelName}`,
      `fills ${disk.kernelName} (${formatBytes(disk.sizeBytes)})`,
      { sizeBytes: part.sizeBytes, table: table === undefined ? null : tableJson(table) },
    ),
    actions,
    ...(hindered !== undefined && { blocked: hindered }),
  })
  if (reach === null || !['gpt', 'dos'].includes(reach.table.label)) {
    if (disk.unpartitionedBytes <= slackBytes) return null
    const what =
      table === undefined ? 'no partition table that sfdisk knows' : `a ${table.label} partition table`
    return step(
      [],
      blocked('root.table-unknown', `${disk.path} has ${what}, in which ${part.path} cannot be grown`),
    )
  }
  const { partition, gainBytes, beyondBytes, behind, untoldBytes } = reach
  const mbr = reach.table.label === 'dos'
  if (mbr && partition.number > 4 && Math.max(gainBytes, beyondBytes) > slackBytes)
    return step([], blocked('root.unsupported', `${part.path} is a logical partition inside an extended one`))
  const tell = run([observed.partx, '--update', '--nr', String(partition.number), '--', disk.path])
  if (gainBytes > slackBytes) return step([run(sfdiskGrow(disk.path, partition.number), growStdin), tell])
  if (untoldBytes > 0) return step([tell])
  if (beyondBytes <= slackBytes) return null
  const lost = formatBytes(beyondBytes)
  if (behind !== null)
    return step(
      [],
      blocked(
        'root.partition-behind',
        `${lost} of ${disk.path} lie behind ${behind.node}, not behind ${part.path}`,
      ),
    )
  return mbr
    ? step([], blocked('root.mbr-limit', `the MBR of ${disk.path} cannot reach its last ${lost}`))
    : step(
        [],
        blocked(
          'root.table-unknown',
          `the GPT of ${disk.path} excludes the last ${lost} of the disk from use`,
        ),
      )
}

function growthSteps(observed: ObservedRoot, because: Because): readonly Step[] {
  const { devices, volume, filesystem, fsType, btrfs } = observed
  const [own] = devices
  if (own === undefined || filesystem === null) return []
  const steps: Step[] = devices
    .filter(({ type }) => type === 'part')
    .flatMap((part) => partitionStep(observed, part, because) ?? [])
  const pending = (id: string, subject?: string): readonly string[] =>
    steps
      .filter(
        (step) => step.id === id && !step.blocked && (subject === undefined || step.subject === subject),
      )
      .map(stepKey)
  const add = (step: Omit<Step, 'risk'>, after: readonly string[]): void => {
    steps.push({ ...step, risk: 'safe', ...(after.length > 0 && { after }) })
  }

  if (volume !== null) {
    for (const physical of volume.physical) {
      const { device, kernelName, sizeBytes, deviceBytes } = physical
      if (device === null || kernelName === null) continue
      const after = pending('root.partition', kernelName)
      if (after.length === 0 && physicalGain(physical, volume.extentBytes) <= slackBytes) continue
      add(
        {
          id: 'root.physical',
          subject: kernelName,
          summary: `grow physical volume ${device} of ${volume.group} to fill its device`,
          because: because(`root.physical.${kernelName}`, 'fills its device', { sizeBytes, deviceBytes }),
          actions: [run(['/usr/sbin/pvresize', '--', device])],
        },
        after,
      )
    }
    const after = pending('root.physical')
    const freeBytes = volume.physical.reduce((sum, physical) => sum + physical.freeBytes, 0)
    if (after.length > 0 || freeBytes > slackBytes) {
      // Only extents of the disks that / is on already: free room on other disks of the group is not its disk.
      const beneath = volume.physical.flatMap(({ device }) => device ?? [])
      add(
        {
          id: 'root.logical',
          summary: `grow logical volume ${volume.path} over the free room on its disk`,
          because: because('root.logical', 'fills its physical volumes', {
            sizeBytes: own.sizeBytes,
            freeBytes,
          }),
          actions: [run(['/usr/sbin/lvextend', '--extents', '+100%PVS', '--', volume.path, ...beneath])],
        },
        after,
      )
    }
  }

  const after = pending(volume === null ? 'root.partition' : 'root.logical')
  if (after.length > 0 || own.sizeBytes - filesystem.sizeBytes > slackBytes) {
    add(
      {
        id: 'root.filesystem',
        summary: `grow the ${fsType} of / to fill ${volume?.path ?? own.path}`,
        because: because('root.filesystem', `fills ${own.path}`, {
          sizeBytes: filesystem.sizeBytes,
          deviceBytes: own.sizeBytes,
        }),
        actions: [run(growFilesystem(fsType, own.path, btrfs, filesystem.members))],
      },
      after,
    )
  }
  return steps
}

function growFilesystem(
  fsType: string,
  device: string,
  btrfs: string,
  members: readonly number[],
): [string, ...string[]] {
  if (fsType === 'ext4') return ['/usr/sbin/resize2fs', '--', device]
  if (fsType === 'xfs') return ['/usr/sbin/xfs_growfs', '-d', '/']
  // The one device left after a replacement need not have id 1.
  return [btrfs, 'filesystem', 'resize', '--', `${members[0] ?? 1}:max`, '/']
}
