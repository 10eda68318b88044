// Snapshots of VMs: made, listed, returned to and deleted.

import { at, element, elementsOf, parseXml, printXml, textOf } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Power, powers } from '../../provisioning/vms/power.ts'
import { notKnown } from '../../provisioning/written.ts'
import { type Connection, type DomainSnapshot, VIR } from '../node-libvirt/index.ts'
import type { Dom } from './rewrite.ts'
import type { Became, InHand } from './transitions.ts'

/** One snapshot. `memory`: whether the memory of the guest is in it; `power` is what the VM did when it was made. */
export interface Snapshot {
  readonly name: string
  readonly description: string
  readonly parent: string | null
  readonly madeMs: number | null
  readonly power: Power | 'disk-snapshot'
  readonly memory: boolean
  readonly current: boolean
  /** Files that it made of its own; none when it is inside the disks. */
  readonly files: readonly string[]
}

/** libvirt's word for what a VM did (virDomainState), in ours. */
const powerWords: Readonly<Record<string, Power | 'disk-snapshot'>> = {
  ...Object.fromEntries(powers.map((power) => [power, power])),
  shutoff: 'off',
  'in shutdown': 'shutting-down',
  pmsuspended: 'suspended',
  'disk-snapshot': 'disk-snapshot',
}

/** What the definition of a snapshot says. */
export function parseSnapshot(xml: string, isCurrent: boolean): Snapshot {
  const { root } = parseXml(xml)
  const made = textOf(at(root, 'creationTime'))
  return {
    name: textOf(at(root, 'name')) ?? '',
    description: textOf(at(root, 'description')) ?? '',
    parent: textOf(at(root, 'parent', 'name')),
    madeMs: made !== null && /^\d{1,12}$/.test(made) ? Number(made) * 1000 : null,
    power: powerWords[textOf(at(root, 'state')) ?? ''] ?? 'unknown',
    memory: ['internal', 'external'].includes(at(root, 'memory')?.attributes.get('snapshot') ?? ''),
    current: isCurrent,
    files: elementsOf(at(root, 'disks'), 'disk').flatMap((disk) => {
      const file =
        disk.attributes.get('snapshot') === 'external' && at(disk, 'source')?.attributes.get('file')
      return file ? [file] : []
    }),
  }
}

const within = { deadlineMs: 10_000 }

/** The snapshots of a VM, the oldest first. */
export async function listSnapshots(libvirt: Connection, dom: Dom): Promise<readonly Snapshot[]> {
  const found = await libvirt.domainListAllSnapshots({ dom }, within)
  const current = (await libvirt.domainHasCurrentSnapshot({ dom }, within))
    ? (await libvirt.domainSnapshotCurrent({ dom }, within)).name
    : null
  const snapshots = await Promise.all(
    found.map(async (snap) =>
      parseSnapshot(await libvirt.domainSnapshotGetXMLDesc({ snap }, within), snap.name === current),
    ),
  )
  return snapshots.sort((a, b) => (a.madeMs ?? 0) - (b.madeMs ?? 0) || (a.name < b.name ? -1 : 1))
}

async function findSnapshot(libvirt: Connection, dom: Dom, name: string): Promise<DomainSnapshot> {
  const found = await libvirt.domainListAllSnapshots({ dom }, within)
  const snapshot = found.find((one) => one.name === name)
  if (snapshot !== undefined) return snapshot
  const names = found.map((one) => one.name)
  throw new HostError('request.no-such-part', `${dom.name}: ${notKnown('snapshot', name, names)}`, {
    details: { vm: dom.name },
  })
}

/** How a snapshot is made. */
export interface Making {
  readonly name: string
  readonly description: string
  /** Only the disks, into files of their own, without the memory. */
  readonly diskOnly: boolean
  /** Its agent brings the guest's filesystems to rest meanwhile. */
  readonly quiesce: boolean
}

/** Makes a snapshot. */
export async function makeSnapshot(
  { to, vm, changes }: InHand,
  { name, description, diskOnly, quiesce }: Making,
): Promise<Became> {
  const dom = { name: vm.name, uuid: vm.uuid }
  await changes.make(
    { word: 'snapshot', vm: vm.name, summary: `make snapshot ${name}`, risk: 'disruptive' },
    async () => {
      const libvirt = await to()
      const xml = printXml(
        element('domainsnapshot', {}, [
          element('name', {}, [name]),
          ...(description === '' ? [] : [element('description', {}, [description])]),
        ]),
      )
      const flags =
        VIR.DOMAIN_SNAPSHOT_CREATE_ATOMIC |
        (diskOnly ? VIR.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY : 0) |
        (quiesce ? VIR.DOMAIN_SNAPSHOT_CREATE_QUIESCE : 0)
      await libvirt.domainSnapshotCreateXML({ dom, xml, flags })
    },
  )
  return { changed: true, text: `snapshot ${name}` }
}

/** Brings a VM back to a snapshot. What was written since is lost. `power`: what it then does, or as it did when it was made. */
export async function revertToSnapshot(
  { to, vm, changes }: InHand,
  name: string,
  power: 'running' | 'paused' | undefined,
): Promise<Became> {
  const dom = { name: vm.name, uuid: vm.uuid }
  const snap = await findSnapshot(await to(), dom, name)
  const flags = {
    running: VIR.DOMAIN_SNAPSHOT_REVERT_RUNNING,
    paused: VIR.DOMAIN_SNAPSHOT_REVERT_PAUSED,
    as: 0,
  }[power ?? 'as']
  await changes.make(
    { word: 'revert', vm: vm.name, summary: `go back to snapshot ${name}`, risk: 'destroys-data' },
    async () => (await to()).domainRevertToSnapshot({ snap, flags }),
  )
  return { changed: true, text: `is as it was at snapshot ${name}` }
}

/** Deletes a snapshot, and with `children` all that were made after it. The VM stays as it is. */
export async function deleteSnapshot(
  { to, vm, changes }: InHand,
  name: string,
  children: boolean,
): Promise<Became> {
  const dom = { name: vm.name, uuid: vm.uuid }
  const snap = await findSnapshot(await to(), dom, name)
  const flags = children ? VIR.DOMAIN_SNAPSHOT_DELETE_CHILDREN : 0
  await changes.make(
    { word: 'unsnapshot', vm: vm.name, summary: `delete snapshot ${name}`, risk: 'disruptive' },
    async () => (await to()).domainSnapshotDelete({ snap, flags }),
  )
  return { changed: true, text: `snapshot ${name} is deleted${children ? ', and those made after it' : ''}` }
}
