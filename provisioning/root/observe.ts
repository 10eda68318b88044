// What / is mounted from and everything under it, down to the disks: from mountinfo, lsblk, sfdisk, LVM and the filesystem's own tool.

import { btrfsFilesystemShow, parseBtrfsFilesystemShow } from '../block/btrfs.ts'
import { dumpe2fs, parseDumpe2fs } from '../block/dumpe2fs.ts'
import { ancestors, type BlockDevice, observeBlockDevices } from '../block/lsblk.ts'
import { observeLvm, type PhysicalVolume } from '../block/lvm.ts'
import { mountAt, parseMountinfo } from '../block/mountinfo.ts'
import { parseXfsInfo, xfsInfo } from '../block/xfs-info.ts'
import type { Answer, Capacity, HostReader } from '../host.ts'
import { HostError, type ProblemCode } from '../problem.ts'
import { type PartitionTable, parseSfdiskJson, sfdiskJson } from './sfdisk.ts'

/** A device that / stands on, directly or through others. */
export interface RootDevice {
  readonly kernelName: string
  readonly path: string
  /** As lsblk says: part, disk, lvm, crypt, raid1, … */
  readonly type: string
  readonly sizeBytes: number
  readonly parents: readonly string[]
  /** Of a disk with partitions: what they leave over. 0 for everything else. */
  readonly unpartitionedBytes: number
}

/** The logical volume of / and the part of its group that it lies on. */
export interface RootVolume {
  readonly group: string
  readonly groupAttributes: string
  readonly extentBytes: number
  readonly path: string
  readonly attributes: string
  readonly layout: readonly string[]
  /** Only those physical volumes that hold a part of it: the disk of /, not every disk of the group. */
  readonly physical: readonly PhysicalVolume[]
}

/** What the filesystem itself says it spans. `members` are the ids of its devices, of btrfs only. */
export interface RootFilesystem {
  readonly sizeBytes: number
  readonly members: readonly number[]
}

/** Everything that planning needs to know of /. */
export interface ObservedRoot {
  readonly fsType: string
  readonly source: string
  /** The whole filesystem is read-only, not only this mount of it. */
  readonly readOnly: boolean
  readonly room: Capacity | null
  /** The device of the filesystem first, then what it stands on; empty when / stands on no block device. */
  readonly devices: readonly RootDevice[]
  readonly filesystem: RootFilesystem | null
  /** One for each disk with partitions that / stands on and that has a table known to sfdisk. */
  readonly tables: readonly PartitionTable[]
  readonly volume: RootVolume | null
  /** Where this distribution keeps partx and btrfs. */
  readonly partx: string
  readonly btrfs: string
  /** Why the sizes within the disks could not be read; then `filesystem`, `tables` and `volume` are empty. */
  readonly unread: { readonly code: ProblemCode; readonly message: string } | null
}

const answered = (argv: readonly string[], { exit, stdout, stderr }: Answer): string => {
  if (exit === 0) return stdout
  throw new HostError(
    /permission denied/i.test(stderr) ? 'host.denied' : 'host.unreadable',
    `${argv.join(' ')} ended with ${exit}: ${stderr.trim()}`,
  )
}

/** Debian keeps some administration tools in /usr/bin that Red Hat's family has in /usr/sbin. */
const toolPath = async (reader: HostReader, name: string): Promise<string> =>
  (await reader.facts(`/usr/bin/${name}`)) === null ? `/usr/sbin/${name}` : `/usr/bin/${name}`

async function observeFilesystem(
  reader: HostReader,
  fsType: string,
  device: string,
  btrfs: string,
): Promise<RootFilesystem | null> {
  const ask = async (argv: [string, ...string[]]) => answered(argv, await reader.query(argv))
  if (fsType === 'ext4') return { sizeBytes: parseDumpe2fs(await ask(dumpe2fs(device))), members: [] }
  if (fsType === 'xfs') return { sizeBytes: parseXfsInfo(await ask(xfsInfo('/'))), members: [] }
  if (fsType !== 'btrfs') return null
  const devices = parseBtrfsFilesystemShow(await ask(btrfsFilesystemShow(btrfs, '/')))
  return {
    sizeBytes: devices.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    members: devices.map(({ id }) => id),
  }
}

async function observeVolume(
  reader: HostReader,
  [device, ...beneath]: readonly [RootDevice, ...RootDevice[]],
): Promise<RootVolume | null> {
  if (device.type !== 'lvm') return null
  const { groups } = await observeLvm(reader)
  for (const group of groups) {
    const logical = group.logical.find(({ mapperPath }) => mapperPath === device.path)
    if (logical === undefined) continue
    return {
      group: group.name,
      groupAttributes: group.attributes,
      extentBytes: group.extentBytes,
      path: logical.path ?? logical.mapperPath,
      attributes: logical.attributes,
      layout: logical.layout,
      // Not by the volume's own segments: those of thin and mirrored ones name volumes that LVM hides.
      physical: group.physical.filter(({ device }) => beneath.some(({ path }) => path === device)),
    }
  }
  throw new HostError('host.unexpected-answer', `${device.path} is a logical volume that lvm does not list`)
}

/**
 * Reads / and what it stands on. Without root, mount and devices are still told and `unread` says what is missing.
 * Errors: `host.unexpected-answer` (/ is not mounted, lsblk), `host.unreadable`.
 */
export async function observeRoot(reader: HostReader): Promise<ObservedRoot> {
  const mount = mountAt(parseMountinfo((await reader.readText('/proc/self/mountinfo')) ?? ''), '/')
  if (mount === undefined) throw new HostError('host.unexpected-answer', 'mountinfo lists no mount of /')
  const all = await observeBlockDevices(reader)
  // btrfs mounts have an anonymous number; there the source is a device. Elsewhere it may be /dev/root, which does not exist.
  const source = mount.source.startsWith('/') ? await reader.resolve(mount.source) : null
  const own = [...all.values()].find(
    ({ number, kernelName }) => number === mount.number || `/dev/${kernelName}` === source,
  )
  const devices = (own === undefined ? [] : [own.kernelName, ...ancestors(all, own.kernelName)]).flatMap(
    (kernelName) => all.get(kernelName) ?? [],
  )
  const unpartitioned = ({ type, sizeBytes, children }: BlockDevice): number => {
    const parts = children.flatMap((name) => all.get(name) ?? []).filter((child) => child.type === 'part')
    if (type !== 'disk' || parts.length === 0) return 0
    return sizeBytes - parts.reduce((sum, part) => sum + part.sizeBytes, 0)
  }
  const [partx, btrfs] = await Promise.all([toolPath(reader, 'partx'), toolPath(reader, 'btrfs')])
  const shallow = {
    fsType: mount.fsType,
    source: mount.source,
    // A sandbox may mount / read-only for the agent alone; the superblock's options are the same for everybody.
    readOnly: mount.superOptions.includes('ro'),
    room: await reader.capacity('/'),
    devices: devices.map((device) => ({
      kernelName: device.kernelName,
      path: device.path,
      type: device.type,
      sizeBytes: device.sizeBytes,
      parents: device.parents,
      unpartitionedBytes: unpartitioned(device),
    })),
    partx,
    btrfs,
  }
  const nothing = { filesystem: null, tables: [], volume: null, unread: null }
  const [first, ...beneath] = shallow.devices
  if (first === undefined) return { ...shallow, ...nothing }
  const disks = shallow.devices.filter(({ type }) => type === 'disk')
  const partitioned = disks.filter((disk) =>
    shallow.devices.some(({ type, parents }) => type === 'part' && parents.includes(disk.kernelName)),
  )
  try {
    const [filesystem, volume, ...tables] = await Promise.all([
      observeFilesystem(reader, mount.fsType, first.path, btrfs),
      observeVolume(reader, [first, ...beneath]),
      ...partitioned.map(async ({ path }) => parseSfdiskJson(path, await reader.query(sfdiskJson(path)))),
    ])
    return { ...shallow, filesystem, volume, tables: tables.filter((table) => table !== null), unread: null }
  } catch (error) {
    if (!(error instanceof HostError)) throw error
    const { code, message } = error
    return { ...shallow, ...nothing, unread: { code, message } }
  }
}
