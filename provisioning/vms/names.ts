// Names that follow from what is declared: the files of a VM, its UUID and the MACs of its NICs.

import { createHash } from 'node:crypto'
import type { DiskModel } from './disks.ts'
import type { DesiredVms, Machine } from './schema.ts'

/** The disk of a VM that is its NoCloud seed; no declared disk has this name beside cloudInit. */
export const seedDisk = 'seed'

/** The file of a seed, in the folder of its VM. */
export const seedFile = 'seed.iso'

/** Whether a disk of a definition is its NoCloud seed. A disk that is declared may have the same name; its guest writes to it. */
export const isSeed = ({ name, readOnly }: Pick<DiskModel, 'name' | 'readOnly'>): boolean =>
  name === seedDisk && readOnly

/** The folder that holds everything of a VM in a pool. */
export const machineFolder = (poolPath: string, name: string): string => `${poolPath}/${name}`

/** The pool that the files of a VM are in unless a disk says otherwise, or null when it has none. */
export const homePool = (vms: DesiredVms, { pool }: Machine): string | null =>
  pool ?? Object.keys(vms.pools)[0] ?? null

/** The file or device that a declared disk is; null when its pool is not declared. */
export function diskPath(vms: DesiredVms, name: string, machine: Machine, disk: string): string | null {
  const { path, pool, format } = machine.disks[disk] ?? {}
  if (path !== undefined) return path
  const inPool = vms.pools[pool ?? homePool(vms, machine) ?? '']
  return inPool === undefined ? null : `${machineFolder(inPool.path, name)}/${disk}.${format}`
}

/** Where the seed of a VM is, or null when it has none. */
export function seedPath(vms: DesiredVms, name: string, machine: Machine): string | null {
  const home = vms.pools[homePool(vms, machine) ?? '']
  return machine.cloudInit === undefined || home === undefined
    ? null
    : `${machineFolder(home.path, name)}/${seedFile}`
}

const digest = (...parts: readonly string[]): string =>
  createHash('sha256').update(parts.join('\0')).digest('hex')

/**
 * The UUID of a VM that has none yet. From the host too, since one document may make a VM of the same name on many hosts, and
 * guests take their identity (machine-id, DHCP client) from it.
 */
export function newUuid(host: string, name: string): string {
  // Version 8 of RFC 9562: the bits are our own.
  const [, a, b, c, d, e] = /^(.{8})(.{4}).(.{3}).(.{3})(.{12})/.exec(digest('garrison vm', host, name)) ?? []
  return `${a}-${b}-8${c}-8${d}-${e}`
}

/** The MAC of a NIC that is given none: locally administered, and 40 bits of a digest, so that a fleet has no two alike. */
export const newMac = (uuid: string, nic: string): string =>
  ['52', ...(digest('garrison nic', uuid, nic).slice(0, 10).match(/../g) ?? [])].join(':')
