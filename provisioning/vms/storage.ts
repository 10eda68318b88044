// What the files of VMs are on: mounts, and whether an md array below them still has its content (/proc, sysfs).

import { type Mount, parseMountinfo } from '../block/mountinfo.ts'
import type { HostReader } from '../host.ts'

/** The mounts of the host: those of PID 1, since the agent may have a namespace of its own. */
export async function observeMounts(reader: HostReader): Promise<readonly Mount[]> {
  const tables = await reader.mountTables()
  const table = tables.find(({ pid }) => pid === 1) ?? tables.find(({ own }) => own)
  return parseMountinfo(table?.mountinfo ?? '')
}

/** Filesystems that several hosts can have mounted at the same time. */
const sharedTypes: ReadonlySet<string> = new Set([
  ...['nfs', 'nfs4', 'cifs', 'smb3', 'ceph', 'fuse.ceph', 'glusterfs', 'fuse.glusterfs', 'gfs2', 'ocfs2'],
  ...['lustre', 'gpfs', 'beegfs', 'orangefs', 'afs', '9p', 'virtiofs', 'fuse.sshfs', 'fuse.s3fs'],
])

/** Whether other hosts can have the filesystem of a mount at the same time. */
export const isShared = ({ fsType }: Mount): boolean => sharedTypes.has(fsType)

/** The mount that a path is on: the deepest, and of those at one place the last. */
export const mountOf = (mounts: readonly Mount[], path: string): Mount | undefined =>
  mounts
    .filter(({ mountpoint: at }) => at === '/' || path === at || path.startsWith(`${at}/`))
    .reduce<Mount | undefined>(
      (deepest, one) =>
        deepest === undefined || one.mountpoint.length >= deepest.mountpoint.length ? one : deepest,
      undefined,
    )

/** How many members an array of a level can do without. Of raid10, where it depends on which, as many as it could at best. */
function tolerance(level: string, members: number): number {
  if (level === 'raid1') return members - 1
  if (level === 'raid10') return Math.floor(members / 2)
  return { raid4: 1, raid5: 1, raid6: 2 }[level] ?? 0
}

const readTrimmed = async (reader: HostReader, path: string): Promise<string> =>
  ((await reader.readText(path)) ?? '').trim()

async function hasFailed(reader: HostReader, md: string): Promise<boolean> {
  const [level, condition, degraded, members] = await Promise.all(
    ['level', 'array_state', 'degraded', 'raid_disks'].map((name) => readTrimmed(reader, `${md}/${name}`)),
  )
  if (['clear', 'inactive', 'broken'].includes(condition ?? '')) return true
  return Number(degraded) > tolerance(level ?? '', Number.parseInt(members ?? '', 10))
}

/** The kernel name of the first md array below a device that has lost more members than it can do without, or null. */
async function failedBelow(reader: HostReader, folder: string, depth = 0): Promise<string | null> {
  const name = folder.slice(folder.lastIndexOf('/') + 1)
  // A partition has no members of its own; the folder above it is its disk.
  if ((await reader.readText(`${folder}/partition`)) !== null)
    return failedBelow(reader, folder.slice(0, folder.lastIndexOf('/')), depth + 1)
  if ((await reader.list(`${folder}/md`)) !== null && (await hasFailed(reader, `${folder}/md`))) return name
  // Devices do not stand on each other in circles, but what is read here is only text.
  if (depth > 16) return null
  for (const below of (await reader.list(`${folder}/slaves`)) ?? []) {
    const real = await reader.resolve(`/sys/class/block/${below}`)
    const failed = real === null ? null : await failedBelow(reader, real, depth + 1)
    if (failed !== null) return failed
  }
  return null
}

/** The same of what a filesystem is on. */
export async function failedArrayOf(reader: HostReader, mount: Mount): Promise<string | null> {
  const known = await reader.resolve(`/sys/dev/block/${mount.number}`)
  if (known !== null) return failedBelow(reader, known)
  // Where the kernel shows a number per subvolume (btrfs), the device is the source.
  return mount.source.startsWith('/dev/') ? failedArrayOfDevice(reader, mount.source) : null
}

/** The same of a block device by its path. */
export async function failedArrayOfDevice(reader: HostReader, path: string): Promise<string | null> {
  const device = await reader.resolve(path)
  if (device === null) return null
  const folder = await reader.resolve(`/sys/class/block/${device.slice('/dev/'.length).replaceAll('/', '!')}`)
  return folder === null ? null : failedBelow(reader, folder)
}
