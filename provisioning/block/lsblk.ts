// The block devices of the host as lsblk (util-linux >= 2.37) tells them: the argv that asks, and the parser of the answer.

import { z } from 'zod'
import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'

const columns =
  'NAME,KNAME,PATH,MAJ:MIN,TYPE,SIZE,RO,RM,MODEL,SERIAL,TRAN,WWN,ROTA,ZONED,LOG-SEC,PHY-SEC,' +
  'FSTYPE,UUID,LABEL,PTTYPE,PTUUID,PARTTYPE,PARTUUID,MOUNTPOINTS'

/** Asks for every device as a tree, sizes in bytes. Newer columns (PARTN, START) are left out: RHEL 9 has 2.37. */
export const lsblk = (): [string, ...string[]] => ['/usr/bin/lsblk', '--json', '--bytes', '--output', columns]

/** One block device. `parents` and `children` are kernel names; `path` is /dev/…; text that lsblk leaves empty is null. */
export interface BlockDevice {
  readonly name: string
  readonly kernelName: string
  readonly path: string
  /** `major:minor`. */
  readonly number: string
  /** disk, part, lvm, raid5, crypt, loop, rom, mpath, … as lsblk says. */
  readonly type: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly removable: boolean
  readonly model: string | null
  readonly serial: string | null
  readonly transport: string | null
  readonly wwn: string | null
  readonly rotational: boolean
  /** none, host-aware, host-managed. */
  readonly zoned: string | null
  readonly logicalSector: number
  readonly physicalSector: number
  readonly fsType: string | null
  readonly uuid: string | null
  readonly label: string | null
  readonly partitionTable: string | null
  readonly partitionTableUuid: string | null
  readonly partitionType: string | null
  readonly partitionUuid: string | null
  readonly mountpoints: readonly string[]
  readonly parents: readonly string[]
  readonly children: readonly string[]
}

const text = z
  .string()
  .nullish()
  .transform((value) => value?.trim() || null)
const flag = z
  .union([z.boolean(), z.enum(['0', '1'])])
  .nullish()
  .transform((value) => value === true || value === '1')
const number = z
  .union([z.number(), z.string().regex(/^\d+$/)])
  .nullish()
  .transform((value) => Number(value ?? 0))

const row = z.object({
  name: z.string(),
  kname: z.string(),
  path: z.string(),
  'maj:min': z.string().transform((value) => value.trim()),
  type: z.string(),
  size: number,
  ro: flag,
  rm: flag,
  model: text,
  serial: text,
  tran: text,
  wwn: text,
  rota: flag,
  zoned: text,
  'log-sec': number,
  'phy-sec': number,
  fstype: text,
  uuid: text,
  label: text,
  pttype: text,
  ptuuid: text,
  parttype: text,
  partuuid: text,
  mountpoints: z.array(z.string().nullable()).default([]),
  get children() {
    return z.array(row).default([])
  },
})

const answer = z.object({ blockdevices: z.array(row) })

type Row = z.output<typeof row>

/** Parses `lsblk()`'s answer into devices by kernel name; a device below several parents is one device. */
export function parseLsblk(stdout: string): ReadonlyMap<string, BlockDevice> {
  let rows: readonly Row[]
  try {
    // lsblk prints nothing at all when the machine has no block device.
    rows = stdout.trim() === '' ? [] : answer.parse(JSON.parse(stdout)).blockdevices
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'lsblk answered in a form that is not known', { cause })
  }
  const devices = new Map<string, BlockDevice>()
  const visit = (one: Row, parent: string | null): void => {
    const known = devices.get(one.kname)
    const parents = [...new Set([...(known?.parents ?? []), ...(parent === null ? [] : [parent])])]
    const children = [...new Set([...(known?.children ?? []), ...one.children.map((child) => child.kname)])]
    devices.set(one.kname, {
      name: one.name,
      kernelName: one.kname,
      path: one.path,
      number: one['maj:min'],
      type: one.type,
      sizeBytes: one.size,
      readOnly: one.ro,
      removable: one.rm,
      model: one.model,
      serial: one.serial,
      transport: one.tran,
      wwn: one.wwn,
      rotational: one.rota,
      zoned: one.zoned,
      logicalSector: one['log-sec'],
      physicalSector: one['phy-sec'],
      fsType: one.fstype,
      uuid: one.uuid,
      label: one.label,
      partitionTable: one.pttype,
      partitionTableUuid: one.ptuuid,
      partitionType: one.parttype,
      partitionUuid: one.partuuid,
      mountpoints: one.mountpoints.filter((mountpoint) => mountpoint !== null),
      parents,
      children,
    })
    for (const child of one.children) visit(child, one.kname)
  }
  for (const one of rows) visit(one, null)
  return devices
}

/** Reads the block devices of the host. */
export async function observeBlockDevices(reader: HostReader): Promise<ReadonlyMap<string, BlockDevice>> {
  const { exit, stdout, stderr } = await reader.query(lsblk())
  // 64 is "some of the devices asked for were found"; without operands it comes from a device that vanished meanwhile.
  if (exit !== 0 && exit !== 64)
    throw new HostError('host.unexpected-answer', `lsblk ended with ${exit}: ${stderr.trim()}`)
  return parseLsblk(stdout)
}

/** Kernel names of all devices that `kernelName` stands on, nearest first, itself excluded. */
export function ancestors(devices: ReadonlyMap<string, BlockDevice>, kernelName: string): readonly string[] {
  const found = new Set<string>()
  const visit = (one: string): void => {
    for (const parent of devices.get(one)?.parents ?? []) {
      if (found.has(parent)) continue
      found.add(parent)
      visit(parent)
    }
  }
  visit(kernelName)
  return [...found]
}

/** Kernel names of all devices that stand on `kernelName`, nearest first, itself excluded. */
export function descendants(
  devices: ReadonlyMap<string, BlockDevice>,
  kernelName: string,
): readonly string[] {
  const found = new Set<string>()
  const visit = (one: string): void => {
    for (const child of devices.get(one)?.children ?? []) {
      if (found.has(child)) continue
      found.add(child)
      visit(child)
    }
  }
  visit(kernelName)
  return [...found]
}
