// LVM's volume groups, physical and logical volumes as `lvm fullreport` (LVM 2.03) tells them: the argv, and the parser of the answer.

import { z } from 'zod'
import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'

/** Asks for all groups with what is in them, in one process. LVM reads the devices itself, so it answers root only. */
export const lvmFullReport = (): [string, ...string[]] => [
  '/usr/sbin/lvm',
  'fullreport',
  '--reportformat',
  'json',
  '--units',
  'b',
  '--nosuffix',
  // Each report type takes its own list of columns; one that lacks a list prints all of them.
  ...['--configreport', 'vg', '-o', 'vg_uuid,vg_name,vg_attr,vg_size,vg_free,vg_extent_size,vg_tags'],
  ...['--configreport', 'pv', '-o', 'pv_uuid,pv_name,pv_size,dev_size,pv_free,pe_start,pv_missing,pv_attr'],
  ...[
    '--configreport',
    'lv',
    '-o',
    'lv_uuid,lv_name,lv_path,lv_dm_path,lv_attr,lv_size,lv_layout,lv_tags,lv_active,lv_kernel_major,lv_kernel_minor,pool_lv',
  ],
  ...['--configreport', 'seg', '-o', 'lv_uuid,segtype,seg_size,devices'],
  ...['--configreport', 'pvseg', '-o', 'pv_uuid'],
]

/** A device that LVM uses. `device` (as LVM names it) and `kernelName` are null when the device is missing. */
export interface PhysicalVolume {
  readonly uuid: string
  readonly device: string | null
  readonly kernelName: string | null
  /** What its group uses of it: whole extents; of a volume without a group, all of it. */
  readonly sizeBytes: number
  readonly deviceBytes: number
  readonly freeBytes: number
  /** Where on the device the first extent begins. */
  readonly dataOffsetBytes: number
  /** The ten-odd letters of pvs(8), e.g. `a--`. */
  readonly attributes: string
}

/** A logical volume that is not hidden. `path` is /dev/GROUP/NAME, null for a thin pool, which has none. */
export interface LogicalVolume {
  readonly uuid: string
  readonly name: string
  readonly path: string | null
  /** /dev/mapper/…, the name that mountinfo uses. */
  readonly mapperPath: string
  /** The ten letters of lvs(8), e.g. `-wi-ao----`. */
  readonly attributes: string
  readonly sizeBytes: number
  /** `linear`, `striped`, `raid`, `raid5`, `thin`, `pool`, `sparse`, `cache`, … */
  readonly layout: readonly string[]
  readonly tags: readonly string[]
  readonly active: boolean
  /** `major:minor`, null when not active. */
  readonly number: string | null
  /** The thin pool that it lives in. */
  readonly pool: string | null
}

/** A volume group. Its name is not unique when a drive of another host is plugged in: `uuid` is. */
export interface VolumeGroup {
  readonly uuid: string
  readonly name: string
  /** The six letters of vgs(8), e.g. `wz--n-`: [0] writeable, [2] exported, [3] partial. */
  readonly attributes: string
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly extentBytes: number
  readonly tags: readonly string[]
  readonly physical: readonly PhysicalVolume[]
  readonly logical: readonly LogicalVolume[]
}

/** All that LVM knows. `loose` are physical volumes that belong to no group. */
export interface Lvm {
  readonly groups: readonly VolumeGroup[]
  readonly loose: readonly PhysicalVolume[]
}

const number = z
  .string()
  .regex(/^-?\d+$/)
  .transform(Number)
const list = z.string().transform((text) => (text === '' ? [] : text.split(',')))
const orNull = z.string().transform((text) => text || null)

const answer = z.object({
  report: z.array(
    z.object({
      vg: z
        .array(
          z.object({
            vg_uuid: z.string(),
            vg_name: z.string(),
            vg_attr: z.string(),
            vg_size: number,
            vg_free: number,
            vg_extent_size: number,
            vg_tags: list,
          }),
        )
        .default([]),
      pv: z
        .array(
          z.object({
            pv_uuid: z.string(),
            pv_name: z.string(),
            pv_size: number,
            dev_size: number,
            pv_free: number,
            pe_start: number,
            pv_missing: z.string(),
            pv_attr: z.string(),
          }),
        )
        .default([]),
      lv: z
        .array(
          z.object({
            lv_uuid: z.string(),
            lv_name: z.string(),
            lv_path: orNull,
            lv_dm_path: z.string(),
            lv_attr: z.string(),
            lv_size: number,
            lv_layout: list,
            lv_tags: list,
            lv_active: z.string(),
            lv_kernel_major: number,
            lv_kernel_minor: number,
            pool_lv: orNull,
          }),
        )
        .default([]),
    }),
  ),
})

/** LVM may print a warning into its JSON (seen before it and between its lines); every line of the JSON begins with one of these. */
const isJsonLine = (line: string): boolean => /^\s*["{}[\],]/.test(line)

/**
 * Parses `lvmFullReport()`'s answer. Kernel names are filled in by `observeLvm`; here they are null.
 * Errors: `host.unexpected-answer`.
 */
export function parseLvmFullReport(stdout: string): Lvm {
  let report: z.output<typeof answer>['report']
  try {
    report = answer.parse(JSON.parse(stdout.split('\n').filter(isJsonLine).join('\n'))).report
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'lvm fullreport answered in a form that is not known', {
      cause,
    })
  }
  const groups: VolumeGroup[] = []
  const loose: PhysicalVolume[] = []
  for (const { vg, pv, lv } of report) {
    const physical = pv.map((one) => ({
      uuid: one.pv_uuid,
      device: one.pv_missing === '' ? one.pv_name : null,
      kernelName: null,
      sizeBytes: one.pv_size,
      deviceBytes: one.dev_size,
      freeBytes: one.pv_free,
      dataOffsetBytes: one.pe_start,
      attributes: one.pv_attr,
    }))
    const [group] = vg
    if (group === undefined) {
      loose.push(...physical)
      continue
    }
    groups.push({
      uuid: group.vg_uuid,
      name: group.vg_name,
      attributes: group.vg_attr,
      sizeBytes: group.vg_size,
      freeBytes: group.vg_free,
      extentBytes: group.vg_extent_size,
      tags: group.vg_tags,
      physical,
      logical: lv.map((one) => ({
        uuid: one.lv_uuid,
        name: one.lv_name,
        path: one.lv_path,
        mapperPath: one.lv_dm_path,
        attributes: one.lv_attr,
        sizeBytes: one.lv_size,
        layout: one.lv_layout,
        tags: one.lv_tags,
        active: one.lv_active === 'active',
        number: one.lv_kernel_major < 0 ? null : `${one.lv_kernel_major}:${one.lv_kernel_minor}`,
        pool: one.pool_lv,
      })),
    })
  }
  return { groups, loose }
}

/**
 * Reads LVM. Needs root: to others LVM shows no group at all, which must not pass for a host without LVM.
 * Errors: `host.denied`, `host.tool-missing` (lvm2 is not installed), `host.unreadable` (a group could not be read).
 */
export async function observeLvm(reader: HostReader): Promise<Lvm> {
  const { exit, stdout, stderr } = await reader.query(lvmFullReport())
  if (/permission denied|as a non-root user/i.test(stderr)) {
    throw new HostError('host.denied', 'lvm shows volume groups to root only')
  }
  if (exit !== 0)
    throw new HostError('host.unreadable', `lvm fullreport ended with ${exit}: ${stderr.trim()}`)
  const { groups, loose } = parseLvmFullReport(stdout)
  // LVM may name a device by any of its links (/dev/md/garrison, /dev/mapper/…).
  const named = async (volume: PhysicalVolume): Promise<PhysicalVolume> => {
    const path = volume.device === null ? null : await reader.resolve(volume.device)
    return { ...volume, kernelName: path?.replace(/^\/dev\//, '') ?? null }
  }
  return {
    groups: await Promise.all(
      groups.map(async (group) => ({ ...group, physical: await Promise.all(group.physical.map(named)) })),
    ),
    loose: await Promise.all(loose.map(named)),
  }
}
