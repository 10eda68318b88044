// Everything that libvirt tells of one VM beside its definition: what its disks take, its addresses, its snapshots.

import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import type { DomainModel } from '../../provisioning/vms/domain.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import { isRefusal } from './reach.ts'
import { listSnapshots } from './snapshots.ts'

/** How much a disk holds as the guest sees it, and how much of the host it takes. */
export interface DiskSize {
  readonly capacityBytes: number
  readonly allocationBytes: number
}

/** What was learned, and what could not be. */
export interface Details {
  readonly disks: Readonly<Record<string, DiskSize>>
  readonly addresses: Readonly<Record<string, readonly string[]>>
  /** The oldest first. */
  readonly snapshots: readonly string[]
  readonly unread: readonly { readonly fact: string; readonly problem: ProblemReport }[]
}

const within = { deadlineMs: 10_000 }

/** Where addresses are known from without asking the guest: leases of libvirt's own networks, and who spoke to the host. */
const sources = [VIR.DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, VIR.DOMAIN_INTERFACE_ADDRESSES_SRC_ARP]

/** Reads the details. Throws `libvirt.unreachable`; what libvirt refuses to tell is among the unread. */
export async function readDetails(
  libvirt: Connection,
  dom: { readonly name: string; readonly uuid: string },
  model: DomainModel | null,
  isUp: boolean,
): Promise<Details> {
  const unread: Details['unread'][number][] = []
  const attempt = async <T>(fact: string, reading: Promise<T>): Promise<T | null> => {
    try {
      return await reading
    } catch (error) {
      if (!(error instanceof HostError) || error.code === 'libvirt.unreachable') throw error
      // A driver that has no such thing leaves nothing unread.
      if (!isRefusal(error, 'VIR_ERR_NO_SUPPORT')) unread.push({ fact, problem: error.report() })
      return null
    }
  }
  const disks: Record<string, DiskSize> = {}
  for (const { target, source } of model?.disks ?? []) {
    if (source === null) continue
    const facts = await attempt(`disk ${target}`, libvirt.domainGetBlockInfo({ dom, path: target }, within))
    if (facts !== null)
      disks[target] = {
        capacityBytes: Number(facts.capacity),
        allocationBytes: Number(facts.allocation),
      }
  }
  const addresses: Record<string, string[]> = {}
  for (const source of isUp ? sources : []) {
    const found = await attempt('addresses', libvirt.domainInterfaceAddresses({ dom, source }, within))
    for (const { hwaddr, addrs } of found ?? []) {
      const mac = hwaddr?.toLowerCase() ?? ''
      const known = addresses[mac] ?? []
      addresses[mac] = [...new Set([...known, ...addrs.map(({ addr }) => addr)])]
    }
  }
  const snapshots = await attempt('snapshots', listSnapshots(libvirt, dom))
  return { disks, addresses, snapshots: snapshots?.map(({ name }) => name) ?? [], unread }
}
