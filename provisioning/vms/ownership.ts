// Which host a VM belongs to: records in the VM's folder, one per epoch, of which the highest counts.
//
// INVARIANTS
// - A record is made whole under another name and then linked to its own, which must not be there: of two hosts that take the same
//   epoch one fails, also on a filesystem that both have mounted.
// - No record is ever changed or removed here. Who takes a VM over makes the next epoch; who finds a higher one has lost it.
// - A VM is defined and started only while the highest record in each of its folders names this host.

import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'
import type { Action } from '../resource.ts'

/** Who a VM belongs to. `epoch` counts how often it was taken. */
export interface Owner {
  readonly epoch: number
  /** The EC2 instance-id or machine-id of the host. */
  readonly host: string
  readonly uuid: string
}

/** What a folder says of its VM's owner. `none`: nothing was ever recorded. `damaged`: the highest record says nothing that is known. */
export type Record = Owner | 'none' | 'damaged'

const schema = 'garrison.owner/1'
const recordName = /^owner-(\d{10})\.json$/
const mostEpochs = 9_999_999_999

const nameOf = (epoch: number): string => `owner-${String(epoch).padStart(10, '0')}.json`

const isRecord = (value: unknown): value is { [key: string]: unknown } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * What this host is called in records: the EC2 instance-id that Nitro's firmware gives as the board's asset tag, else the
 * machine-id. Throws `host.unreadable` when there is neither. The metadata are not asked: it must be told without a network.
 */
export async function recordedHost(reader: Pick<HostReader, 'readText'>): Promise<string> {
  const assetTag = (await reader.readText('/sys/class/dmi/id/board_asset_tag'))?.trim() ?? ''
  if (assetTag.startsWith('i-')) return assetTag
  const machineId = (await reader.readText('/etc/machine-id'))?.trim()
  if (!machineId) throw new HostError('host.unreadable', '/etc/machine-id is missing or empty')
  return machineId
}

/** Parses one record; `damaged` unless it says of exactly this epoch and VM (`null`: whichever it is of) whose it is. */
export function parseOwner(text: string, epoch: number, vm: string | null): Record {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) return 'damaged'
    throw error
  }
  if (!isRecord(value) || value.schema !== schema || value.epoch !== epoch) return 'damaged'
  const { host, uuid } = value
  if (vm !== null && value.vm !== vm) return 'damaged'
  return typeof host === 'string' && host !== '' && typeof uuid === 'string' && uuid !== ''
    ? { epoch, host, uuid }
    : 'damaged'
}

/** Reads the highest record of a folder; of `null`, whichever VM it is of. */
export async function observeOwner(reader: HostReader, folder: string, vm: string | null): Promise<Record> {
  const names = ((await reader.list(folder)) ?? []).filter((name) => recordName.test(name))
  const last = names.at(-1)
  if (last === undefined) return 'none'
  const text = await reader.readText(`${folder}/${last}`)
  return text === null ? 'damaged' : parseOwner(text, Number(recordName.exec(last)?.[1]), vm)
}

/** Actions that record an owner, in a folder that is made for it. `file.exists` when somebody else took that epoch meanwhile. */
export function recordActions(folder: string, vm: string, owner: Owner): readonly Action[] {
  const path = `${folder}/${nameOf(owner.epoch)}`
  // Named after the host: two hosts that write at the same time must not write the same file.
  const draft = `${path}.${owner.host.replace(/[^A-Za-z0-9-]/g, '_')}.new`
  const content = `${JSON.stringify({ schema, vm, ...owner })}\n`
  return [
    // QEMU runs as another user and only passes through.
    { kind: 'folder', path: folder, mode: 0o711 },
    { kind: 'write', path: draft, content, mode: 0o644 },
    { kind: 'move', from: draft, to: path },
  ]
}

/** What the records of all folders of a VM come to. */
export type Ownership =
  | { readonly kind: 'ours'; readonly owner: Owner; readonly lacking: readonly string[] }
  | { readonly kind: 'unclaimed' }
  | { readonly kind: 'elsewhere'; readonly owner: Owner; readonly folder: string }
  | { readonly kind: 'damaged'; readonly folder: string }

/** Judges the records by folder. `lacking` are folders whose record is missing or of a lower epoch than the highest, which is ours. */
export function ownershipOf(records: Readonly<{ [folder: string]: Record }>, host: string): Ownership {
  const all = Object.entries(records)
  const damaged = all.find(([, record]) => record === 'damaged')
  if (damaged !== undefined) return { kind: 'damaged', folder: damaged[0] }
  const owners = all.flatMap(([folder, record]) =>
    typeof record === 'object' ? [{ folder, owner: record }] : [],
  )
  const highest = Math.max(0, ...owners.map(({ owner }) => owner.epoch))
  const first = owners.filter(({ owner }) => owner.epoch === highest)
  const other = first.find(({ owner }) => owner.host !== host)
  if (other !== undefined) return { kind: 'elsewhere', owner: other.owner, folder: other.folder }
  const [ours] = first
  if (ours === undefined) return { kind: 'unclaimed' }
  const lacking = all.flatMap(([folder, record]) =>
    typeof record === 'object' && record.epoch === highest ? [] : [folder],
  )
  return { kind: 'ours', owner: ours.owner, lacking }
}

/** The epoch in which a VM is taken over from its present owner; null when there is none left to take. */
export const nextEpoch = (owner: Owner | null): number | null => {
  const epoch = (owner?.epoch ?? 0) + 1
  return epoch > mostEpochs ? null : epoch
}
