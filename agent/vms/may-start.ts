// Whether a VM may be started at all: its disks are there, on storage that is whole, and it belongs to no other host.

import { parseMountinfo } from '../../provisioning/block/mountinfo.ts'
import type { HostReader } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { DomainModel } from '../../provisioning/vms/domain.ts'
import { recordedHost } from '../../provisioning/vms/ownership.ts'
import { failedArrayOf, failedArrayOfDevice, mountOf } from '../../provisioning/vms/storage.ts'
import { folderOf, ownedFolders, recordsIn, wantOurs } from './site.ts'

const pathsOf = ({ disks }: Pick<DomainModel, 'disks'>): readonly string[] =>
  disks.flatMap(({ source }) =>
    source !== null && (source.kind === 'file' || source.kind === 'block') ? [source.at] : [],
  )

/**
 * Throws `vm.owned-elsewhere`, `vm.owner-damaged` where a record beside a disk of a VM that libvirt is about to start names another
 * host. Records of other VMs count as well: a VM may be given the disk of another one, but not one that another host has.
 */
export async function mayTouch(
  reader: HostReader,
  name: string,
  model: Pick<DomainModel, 'disks'>,
): Promise<void> {
  const host = await recordedHost(reader)
  const records = await recordsIn(reader, [...new Set(pathsOf(model).map(folderOf))], null)
  // The highest record counts among those of one VM, and says nothing of another's.
  const byVm = Map.groupBy(Object.entries(records), ([, one]) => (typeof one === 'object' ? one.uuid : one))
  for (const group of byVm.values()) wantOurs(name, Object.fromEntries(group), host)
}

/** Throws why not: `vm.disk-missing`, `vm.array-failed`, `vm.owned-elsewhere`, `vm.owner-damaged`. */
export async function mayStart(
  reader: HostReader,
  name: string,
  model: Pick<DomainModel, 'disks'>,
): Promise<void> {
  const paths = pathsOf(model)
  // The agent may have a mount namespace of its own; VMs are started in that of PID 1.
  const mounts = parseMountinfo((await reader.readText('/proc/1/mountinfo')) ?? '')
  for (const path of paths) {
    const facts = await reader.facts(path)
    if (facts === null)
      throw new HostError('vm.disk-missing', `${path}, a disk of ${name}, is not there`, {
        details: { vm: name, path },
      })
    const mount = mountOf(mounts, path)
    const failed =
      facts.kind === 'block'
        ? await failedArrayOfDevice(reader, path)
        : mount === undefined
          ? null
          : await failedArrayOf(reader, mount)
    if (failed !== null)
      throw new HostError(
        'vm.array-failed',
        `${path}, a disk of ${name}, is on ${failed}, which has failed`,
        {
          details: { vm: name, path },
        },
      )
  }
  const folders = [...new Set(paths.map(folderOf))]
  await ownedFolders(name, folders, { reader, host: await recordedHost(reader) })
}
