// Reads the volume group on the array, its volumes, where they are mounted, and what is in the way.

import { createHash } from 'node:crypto'
import { blkid, probedOf } from '../block/blkid.ts'
import { dumpe2fs, parseDumpe2fs } from '../block/dumpe2fs.ts'
import {
  type LogicalVolume,
  type Lvm,
  observeLvm,
  type PhysicalVolume,
  type VolumeGroup,
} from '../block/lvm.ts'
import { volumesInBackup } from '../block/lvm-backup.ts'
import { type Mount, mountAt, parseMountinfo } from '../block/mountinfo.ts'
import { parseXfsInfo, xfsInfo } from '../block/xfs-info.ts'
import type { Desired, DesiredLogical } from '../desired.ts'
import type { Capacity, HostReader } from '../host.ts'
import { HostError } from '../problem.ts'
import { type MountUnit, mountUnit } from './mount-unit.ts'
import { type Label, observeLabel } from './selinux.ts'

/** LV tag: nothing is on this volume yet, mkfs may write on it. */
export const unformattedTag = 'garrison.unformatted'

/** LV tag: the content of the folder to mount over has been copied onto this volume, and the folder is still to be put aside. */
export const copiedTag = 'garrison.copied'

/** How an array spreads bytes: chunk, and how many members of a stripe hold content and not parity or copies. */
export interface Geometry {
  readonly chunkBytes: number
  readonly dataMembers: number
}

/** What a device is marked as: a filesystem, an LVM or md member, `gpt partition table`, `several signatures`. */
export interface Signature {
  readonly type: string
  readonly uuid: string | null
}

/** What a filesystem is made with. */
export interface Making {
  readonly name: string
  readonly uuid: string
  readonly geometry: Geometry | null
  readonly sizeBytes: number
}

/** The array that the group stands on. */
export interface ArrayDevice {
  readonly path: string
  readonly kernelName: string
  /** Null when the level has no stripes. */
  readonly geometry: Geometry | null
  /** The physical volume on it that belongs to no group. */
  readonly loose: PhysicalVolume | null
  /** What is on it otherwise; null when it is a physical volume. */
  readonly content: { readonly signature: Signature | null; readonly nonZeroAt: number | null } | null
}

/** A user or group by its name here. */
export interface Account {
  readonly name: string
  readonly id: number
}

/** The place where a volume shall be mounted. */
export interface MountPlace {
  readonly path: string
  /** Where `path` leads when its links are followed; it need not exist. */
  readonly realPath: string
  readonly unit: MountUnit
  /** What is in the unit's files; null when there is no such file. */
  readonly unitText: string | null
  readonly deviceText: string | null
  readonly enabled: boolean
  /** The line of /etc/fstab that mounts something here. */
  readonly fstabLine: number | null
  /** What is mounted here now, in the namespace of PID 1. */
  readonly occupant: { readonly source: string; readonly ours: boolean; readonly readOnly: boolean } | null
  /** Names in the folder when nothing is mounted here, `lost+found` left out; null when there is no folder. */
  readonly folder: readonly string[] | null
  /** Whether the folder that an earlier move put aside is there. */
  readonly aside: boolean
  /** Processes that have something open in the folder; read only where its content is to be moved. */
  readonly users: readonly string[]
  /** What is mounted below the folder. */
  readonly below: readonly string[]
  /** Mode, owner and group of the mounted root folder; null when our volume is not mounted here. */
  readonly root: { readonly mode: number; readonly uid: number; readonly gid: number } | null
  readonly owner: Account | null
  readonly group: Account | null
  /** The SELinux label to mend, or null. */
  readonly label: Label | null
  readonly capacity: Capacity | null
}

/** One declared volume as it is. */
export interface ObservedVolume {
  readonly name: string
  /** /dev/GROUP/NAME. */
  readonly device: string
  /** The UUID of a filesystem that Garrison makes on it: the same whenever it is made on this host. */
  readonly ownUuid: string
  readonly logical: LogicalVolume | null
  /** What is on it; null when it is blank, missing or not active. */
  readonly signature: Signature | null
  /** Whether an unformatted one could be opened exclusively. */
  readonly exclusive: 'free' | 'busy' | null
  /** Where it is mounted in the namespace of PID 1. */
  readonly mountpoints: readonly string[]
  /** Size of the filesystem while it is mounted where it shall be. */
  readonly filesystemBytes: number | null
  readonly place: MountPlace | null
}

/** Everything that plan and check know of volumes. */
export interface ObservedVolumes {
  /** The wanted name; null when the document declares no volumes. */
  readonly groupName: string | null
  /** Groups of that name; all of them when none is declared. */
  readonly groups: readonly VolumeGroup[]
  /** /dev/GROUP is there and is no volume group. */
  readonly nameTaken: boolean
  readonly array: ArrayDevice | null
  /** Making the group was begun and never ended, so part of a label on the array is ours. */
  readonly interrupted: boolean
  readonly volumes: readonly ObservedVolume[]
  /** Volumes of the group that are not in the document. */
  readonly undeclared: readonly string[]
  /** Volumes that LVM's own backup lists while the group itself is gone. */
  readonly lost: readonly string[]
}

/** Where the content of a folder is left after it was moved onto the volume mounted there. */
export const asidePath = (path: string): string => `${path}.before-garrison`

/** Where a volume is mounted while it is filled. */
export const stagePath = (name: string): string => `/run/garrison/stage/${name}`

/** The UUID of a filesystem as a digest, so that what a crash left half-made is known as ours, and a forecast is exact. */
function filesystemUuid(machineId: string, group: string, name: string): string {
  const digest = createHash('sha256')
    .update(`garrison filesystem\0${machineId}\0${group}\0${name}`)
    .digest('hex')
  // Version 8 of RFC 9562: the bits are our own.
  const [, a, b, c, d, e] = /^(.{8})(.{4}).(.{3}).(.{3})(.{12})/.exec(digest) ?? []
  return `${a}-${b}-8${c}-8${d}-${e}`
}

/** What a device is marked as; null when blkid finds nothing on it. */
export async function observeSignature(reader: HostReader, device: string): Promise<Signature | null> {
  const answer = await reader.query(blkid(device))
  const { type, uuid, partitionTable, ambivalent } = probedOf(answer)
  if (ambivalent) return { type: 'several signatures', uuid: null }
  if (type !== null) return { type, uuid }
  if (partitionTable !== null) return { type: `${partitionTable} partition table`, uuid: null }
  if (answer.exit === 0) throw new HostError('host.unexpected-answer', `blkid named no type on ${device}`)
  return null
}

const readNumber = async (reader: HostReader, path: string): Promise<number> => {
  // During a reshape sysfs appends the former value: `4 (3)`.
  const number = Number.parseInt((await reader.readText(path)) ?? '', 10)
  if (Number.isNaN(number)) throw new HostError('host.unreadable', `${path} holds no number`)
  return number
}

/** How the md device `kernelName` spreads bytes; null for levels without stripes. */
async function observeGeometry(reader: HostReader, kernelName: string): Promise<Geometry | null> {
  const md = `/sys/block/${kernelName}/md`
  const level = (await reader.readText(`${md}/level`))?.trim()
  if (level === undefined) throw new HostError('host.unreadable', `${kernelName} is no md array`)
  const parity = { raid0: 0, raid4: 1, raid5: 1, raid6: 2, raid10: 0 }[level]
  if (parity === undefined) return null
  const members = await readNumber(reader, `${md}/raid_disks`)
  const chunkBytes = await readNumber(reader, `${md}/chunk_size`)
  if (level !== 'raid10') return { chunkBytes, dataMembers: members - parity }
  // The low byte of a raid10 layout is its number of near copies (md(4)); the kernel counts odd ones as without copies.
  const copies = (await readNumber(reader, `${md}/layout`)) & 0xff
  return { chunkBytes, dataMembers: members % copies === 0 ? members / copies : members }
}

async function observeArray(reader: HostReader, name: string, lvm: Lvm | null): Promise<ArrayDevice | null> {
  const path = `/dev/md/${name}`
  const kernelName = (await reader.resolve(path))?.replace(/^\/dev\//, '')
  if (kernelName === undefined) return null
  if (lvm === null)
    throw new HostError('host.tool-missing', 'lvm2 is not installed, so what is on the array cannot be told')
  const onArray = (volume: PhysicalVolume): boolean => volume.kernelName === kernelName
  const loose = lvm.loose.find(onArray) ?? null
  const grouped = lvm.groups.some((group) => group.physical.some(onArray))
  return {
    path,
    kernelName,
    geometry: await observeGeometry(reader, kernelName),
    loose,
    content:
      loose !== null || grouped
        ? null
        : {
            signature: await observeSignature(reader, path),
            nonZeroAt: (await reader.sample(path)).nonZeroAt,
          },
  }
}

async function observeAccount(
  reader: HostReader,
  database: 'passwd' | 'group',
  name: string,
): Promise<Account | null> {
  const { exit, stdout } = await reader.query(['/usr/bin/getent', database, '--', name])
  if (exit === 2) return null
  const [found, , id] = stdout.split(':')
  if (exit !== 0 || !found || !/^\d+$/.test(id ?? ''))
    throw new HostError('host.unexpected-answer', `getent ${database} ended with ${exit} and named no id`)
  return { name: found, id: Number(id) }
}

/** `path` with the links of its existing part followed. */
async function realPathOf(reader: HostReader, path: string): Promise<string> {
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
    const real = await reader.resolve(path.slice(0, end))
    if (real !== null) return `${real === '/' ? '' : real}${path.slice(end)}`
  }
  return path
}

/** Names of the processes that have a file below `folder` open or stand in it. */
async function usersOf(reader: HostReader, folder: string): Promise<readonly string[]> {
  const inside = (path: string | null): boolean => path === folder || path?.startsWith(`${folder}/`) === true
  const pids = (await reader.list('/proc'))?.filter((name) => /^\d+$/.test(name)) ?? []
  const users: string[] = []
  for (const pid of pids) {
    const fds = (await reader.list(`/proc/${pid}/fd`)) ?? []
    const links = [`/proc/${pid}/cwd`, ...fds.map((fd) => `/proc/${pid}/fd/${fd}`)]
    if ((await Promise.all(links.map((link) => reader.resolve(link)))).some(inside))
      users.push(`${(await reader.readText(`/proc/${pid}/comm`))?.trim() ?? '?'} (pid ${pid})`)
  }
  return users
}

/** What a path leads to: a device and the path on it. The same in two namespaces when both see the same folder. */
function reached(mounts: readonly Mount[], path: string): string {
  const mount = mounts
    .filter(({ mountpoint: at }) => at === '/' || path === at || path.startsWith(`${at}/`))
    .reduce<Mount | null>(
      (deepest, one) =>
        deepest === null || one.mountpoint.length >= deepest.mountpoint.length ? one : deepest,
      null,
    )
  if (mount === null) return 'nothing'
  const below = mount.mountpoint === '/' ? path : path.slice(mount.mountpoint.length)
  return `${mount.number} ${mount.root === '/' ? '' : mount.root}${below}`
}

/** The mounts of the host: those of PID 1, since the agent may have a namespace of its own. `sees` fails where the two differ. */
async function observeMounts(reader: HostReader) {
  const tables = await reader.mountTables()
  const own = parseMountinfo(tables.find((table) => table.own)?.mountinfo ?? '')
  const first = tables.find(({ pid }) => pid === 1)
  const mounts = first === undefined ? own : parseMountinfo(first.mountinfo)
  return {
    mounts,
    sees(path: string): void {
      if (reached(mounts, path) !== reached(own, path))
        throw new HostError('host.unreadable', `the agent does not see ${path} as the rest of the host does`)
    },
  }
}

const isReadOnly = ({ options, superOptions }: Mount): boolean =>
  options.includes('ro') || superOptions.includes('ro')

async function observePlace(
  reader: HostReader,
  volume: { readonly unit: MountUnit; readonly want: DesiredLogical; readonly logical: LogicalVolume | null },
  { mounts, sees }: Awaited<ReturnType<typeof observeMounts>>,
  path: string,
): Promise<MountPlace> {
  const { unit, want, logical } = volume
  sees(path)
  const realPath = await realPathOf(reader, path)
  const mount = mountAt(mounts, path)
  const ours = mount !== undefined && mount.number === logical?.number
  const folder =
    mount === undefined ? ((await reader.list(path))?.filter((name) => name !== 'lost+found') ?? null) : null
  const facts = ours ? await reader.facts(path) : null
  const fstab = (await reader.readText('/etc/fstab'))?.split('\n') ?? []
  // fstab(5) writes blanks of a path in octal.
  const inFstab = path.replace(/[ \t\\]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`)
  const fstabIndex = fstab.findIndex((line) => /^\s*[^#\s]\S*\s+(\S+)/.exec(line)?.[1] === inFstab)
  const movable = logical === null || logical.tags.some((tag) => tag === unformattedTag || tag === copiedTag)
  return {
    path,
    realPath,
    unit,
    unitText: await reader.readText(unit.path),
    deviceText: await reader.readText(unit.devicePath),
    enabled: (await reader.resolve(unit.wantedPath)) === unit.path,
    fstabLine: fstabIndex < 0 ? null : fstabIndex + 1,
    occupant: mount === undefined ? null : { source: mount.source, ours, readOnly: isReadOnly(mount) },
    folder,
    aside: (await reader.facts(asidePath(path))) !== null,
    users: want.onContent === 'move' && movable && folder?.length ? await usersOf(reader, realPath) : [],
    below: mounts.flatMap(({ mountpoint }) => (mountpoint.startsWith(`${path}/`) ? [mountpoint] : [])),
    root: facts === null ? null : { mode: facts.mode, uid: facts.uid, gid: facts.gid },
    owner: await observeAccount(reader, 'passwd', want.owner),
    group: await observeAccount(reader, 'group', want.group),
    label: ours ? await observeLabel(reader, path) : null,
    capacity: ours ? await reader.capacity(path) : null,
  }
}

async function filesystemBytesOf(reader: HostReader, type: string | undefined, device: string, path: string) {
  if (type !== 'xfs' && type !== 'ext4') return null
  const { exit, stdout, stderr } = await reader.query(type === 'xfs' ? xfsInfo(path) : dumpe2fs(device))
  if (exit !== 0)
    throw new HostError(
      'host.unreadable',
      `the size of ${type} on ${device}: ${stderr.trim() || `exit ${exit}`}`,
    )
  return type === 'xfs' ? parseXfsInfo(stdout) : parseDumpe2fs(stdout)
}

/** A host without LVM has no group. Errors other than that are passed on. */
async function observeLvmIfThere(reader: HostReader): Promise<Lvm | null> {
  try {
    return await observeLvm(reader)
  } catch (error) {
    if (error instanceof HostError && error.code === 'host.tool-missing') return null
    throw error
  }
}

/** Observes volumes. Needs root (LVM, devices). Errors: those of the reader. */
export async function observe(reader: HostReader, desired: Desired): Promise<ObservedVolumes> {
  const lvm = await observeLvmIfThere(reader)
  const { volumes: wanted, array: wantedArray } = desired
  if (wanted === undefined || wantedArray === undefined)
    return {
      groupName: null,
      groups: lvm?.groups ?? [],
      nameTaken: false,
      array: null,
      interrupted: false,
      volumes: [],
      undeclared: [],
      lost: [],
    }
  const { group: groupName, logical: wantedVolumes } = wanted
  const groups = lvm?.groups.filter(({ name }) => name === groupName) ?? []
  const [group] = groups
  const array = await observeArray(reader, wantedArray.name, lvm)
  const mounts = await observeMounts(reader)
  const machineId = (await reader.readText('/etc/machine-id'))?.trim()
  if (!machineId) throw new HostError('host.unreadable', '/etc/machine-id is missing or empty')

  const volumes: ObservedVolume[] = []
  for (const [name, want] of Object.entries(wantedVolumes)) {
    const device = `/dev/${groupName}/${name}`
    const logical = group?.logical.find((one) => one.name === name) ?? null
    const signature = logical?.active && logical.path !== null ? await observeSignature(reader, device) : null
    const ownUuid = filesystemUuid(machineId, groupName, name)
    const uuid = signature?.uuid ?? ownUuid
    const { mount: path, filesystem } = want
    const place =
      path === undefined
        ? null
        : await observePlace(
            reader,
            { unit: mountUnit({ name, group: groupName, path, uuid, filesystem }), want, logical },
            mounts,
            path,
          )
    volumes.push({
      name,
      device,
      ownUuid,
      logical,
      signature,
      exclusive:
        logical?.active && logical.tags.includes(unformattedTag) ? await reader.exclusive(device) : null,
      mountpoints: mounts.mounts.flatMap(({ number, mountpoint }) =>
        number === logical?.number ? [mountpoint] : [],
      ),
      filesystemBytes: place?.occupant?.ours
        ? await filesystemBytesOf(reader, signature?.type, device, place.path)
        : null,
      place,
    })
  }
  const backup = group === undefined ? await reader.readText(`/etc/lvm/backup/${groupName}`) : null
  return {
    groupName,
    groups,
    nameTaken: group === undefined && (await reader.facts(`/dev/${groupName}`)) !== null,
    array,
    // The journal never forgets an unfinished step, but LVM writes its backup as soon as a group is whole.
    interrupted:
      backup === null && (await reader.unfinishedSteps()).some(({ key }) => key === 'volumes.group'),
    volumes,
    undeclared: group?.logical.flatMap(({ name }) => (name in wantedVolumes ? [] : [name])) ?? [],
    lost: backup === null ? [] : volumesInBackup(backup),
  }
}
