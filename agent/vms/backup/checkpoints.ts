// libvirt's checkpoints: from which moment on a VM keeps a record of what changes on its disks.
//
// INVARIANTS
// - Only those that were made for one place are touched; others belong to somebody else.
// - One that is deleted hands its record on to the next. One whose record is lost (its VM was killed) is only a name in libvirt.

import { at, elementsOf, parseXml } from '../../../provisioning/libvirt/xml.ts'
import { type Connection, type DomainRef, VIR } from '../../node-libvirt/index.ts'
import { asked, isRefusal, reach, type ToLibvirt } from '../reach.ts'

/** The name of the checkpoint of a backup in a place. */
export const checkpointName = (place: string, id: string): string => `garrison-${place}-${id}`

const within = { deadlineMs: 10_000 }

/** The names of a VM's checkpoints, all of them. */
export async function checkpointsOf(to: ToLibvirt, dom: DomainRef): Promise<readonly string[]> {
  try {
    const all = await asked(to, (libvirt) => libvirt.domainListAllCheckpoints({ dom }, within))
    return all.map(({ name }) => name)
  } catch (error) {
    // Drivers that know no checkpoints, and VMs that are not defined.
    if (isRefusal(error, 'VIR_ERR_NO_SUPPORT') || isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return []
    throw error
  }
}

/** Those that were made for backups, in whatever place. */
export const ownCheckpoints = async (to: ToLibvirt, dom: DomainRef): Promise<readonly string[]> =>
  (await checkpointsOf(to, dom)).filter((name) => /^garrison-[0-9a-f]{8}-/.test(name))

const isIn = async (libvirt: Connection, dom: DomainRef, name: string): Promise<boolean> =>
  (await libvirt.domainListAllCheckpoints({ dom }, within)).some((one) => one.name === name)

/** Whether QEMU holds the VM's records now; of one that is off they are in its images, where libvirt does not look. */
export async function isUp(to: ToLibvirt, dom: DomainRef): Promise<boolean> {
  try {
    return await asked(to, (libvirt) => libvirt.domainIsActive({ dom }, within))
  } catch (error) {
    if (isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return false
    throw error
  }
}

/**
 * An agent that was killed may have asked for the same just before, and libvirtd 9 dies of two such deletions at a time. So
 * what the VM is busy with is waited for, and then it is looked again.
 */
const remove = (to: ToLibvirt, dom: DomainRef, name: string, flags: number): Promise<void> =>
  reach(to, {
    async ask(libvirt) {
      await libvirt.connectGetAllDomainStats({ doms: [dom], stats: VIR.DOMAIN_STATS_BALLOON, flags: 0 })
      if (await isIn(libvirt, dom, name))
        await libvirt.domainCheckpointDelete({ checkpoint: { dom, name }, flags })
    },
    holds: async (libvirt) => !(await isIn(libvirt, dom, name)),
  })

/** Deletes the name of a checkpoint and leaves its record where it is, if it still is. */
export const forgetCheckpoint = (to: ToLibvirt, dom: DomainRef, name: string): Promise<void> =>
  remove(to, dom, name, VIR.DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)

/** Deletes a checkpoint of a VM that runs. */
async function deleteCheckpoint(to: ToLibvirt, dom: DomainRef, name: string): Promise<void> {
  try {
    await remove(to, dom, name, 0)
  } catch (error) {
    // Its record is lost: what is left is the name.
    if (!isRefusal(error, 'VIR_ERR_INTERNAL_ERROR')) throw error
    await forgetCheckpoint(to, dom, name)
  }
}

/** Deletes a checkpoint if it is there. While its VM is off it stays, until the next backup of one that runs. */
export async function dropCheckpoint(to: ToLibvirt, dom: DomainRef, name: string): Promise<void> {
  if ((await isUp(to, dom)) && (await checkpointsOf(to, dom)).includes(name))
    await deleteCheckpoint(to, dom, name)
}

/** Deletes a place's checkpoints but the one that is kept; not while the VM is off. */
export async function keepCheckpoint(
  to: ToLibvirt,
  dom: DomainRef,
  place: string,
  kept: string | null,
): Promise<void> {
  if (!(await isUp(to, dom))) return
  const prefix = checkpointName(place, '')
  for (const name of await checkpointsOf(to, dom))
    if (name.startsWith(prefix) && name !== kept) await deleteCheckpoint(to, dom, name)
}

/** How much has changed on a disk since a checkpoint, in bytes; null when libvirt cannot tell. */
export async function changedBytes(
  to: ToLibvirt,
  dom: DomainRef,
  name: string,
  target: string,
): Promise<number | null> {
  try {
    const flags = VIR.DOMAIN_CHECKPOINT_XML_SIZE | VIR.DOMAIN_CHECKPOINT_XML_NO_DOMAIN
    const xml = await asked(to, (libvirt) =>
      libvirt.domainCheckpointGetXMLDesc({ checkpoint: { dom, name }, flags }, within),
    )
    const disks = elementsOf(at(parseXml(xml).root, 'disks'), 'disk')
    const size = disks.find(({ attributes }) => attributes.get('name') === target)?.attributes.get('size')
    return size === undefined ? null : Number(size)
  } catch (error) {
    if (isRefusal(error, 'VIR_ERR_CHECKPOINT_INCONSISTENT') || isRefusal(error, 'VIR_ERR_OPERATION_INVALID'))
      return null
    throw error
  }
}
