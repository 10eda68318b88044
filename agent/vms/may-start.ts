// Whether a VM may be started at all: its disks are there, on storage that is whole, and it belongs to no other host.

import { parseMountinfo } from '../../provisioning/block/mountinfo.ts'
import type { HostReader } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { DomainModel } from '../../provisioning/vms/domain.ts'
import { observeOwner, ownershipOf } from '../../provisioning/vms/ownership.ts'
import { failedArrayOf, failedArrayOfDevice, mountOf } from '../../provisioning/vms/storage.ts'

const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'))

/**
 * Throws why not: `vm.disk-missing`, `vm.array-failed`, `vm.owned-elsewhere`, `vm.owner-damaged`. `host` is what this one is called
 * in the records of owners.
 */
export async function mayStart(
  reader: HostReader,
  host: string,
  name: string,
  { disks }: Pick<DomainModel, 'disks'>,
): Promise<void> {
  const paths = disks.flatMap(({ source }) =>
    source !== null && (source.kind === 'file' || source.kind === 'block') ? [source.at] : [],
  )
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
  const records = Object.fromEntries(
    await Promise.all(
      folders.map(async (folder) => [folder, await observeOwner(reader, folder, name)] as const),
    ),
  )
  const ownership = ownershipOf(records, host)
  if (ownership.kind === 'damaged')
    throw new HostError(
      'vm.owner-damaged',
      `the record of the owner of ${name} in ${ownership.folder} cannot be read`,
      {
        details: { vm: name, folder: ownership.folder },
      },
    )
  if (ownership.kind === 'elsewhere')
    throw new HostError(
      'vm.owned-elsewhere',
      `${name} belongs to ${ownership.owner.host}, says ${ownership.folder}`,
      { details: { vm: name, host: ownership.owner.host } },
    )
}
