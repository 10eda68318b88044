// What libvirt knows of the VMs, storage pools and networks of this host, read over a connection that only looks.

import type { DomainFacts, NetworkFacts, PoolFacts } from '../../provisioning/host.ts'
import { at, parseXml, textOf, XmlError } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import { powerOf as wordsOf } from '../../provisioning/vms/power.ts'

interface Flags {
  readonly flags?: number
}

/** How long one answer may take. A libvirtd that is stopped takes connections and questions all the same, and says nothing. */
interface Within {
  readonly deadlineMs: number
}

interface Named {
  readonly name: string
  readonly uuid: string
}

/** The calls that are made here, under libvirt's names; 64-bit numbers are a bigint where a number would not be exact. */
export interface ReadCalls {
  connectListAllDomains(args: Flags, within: Within): Promise<readonly Named[]>
  domainGetState(
    args: { readonly dom: Named },
    within: Within,
  ): Promise<{ readonly state: number; readonly reason: number }>
  domainGetXMLDesc(args: { readonly dom: Named } & Flags, within: Within): Promise<string>
  connectListAllStoragePools(args: Flags, within: Within): Promise<readonly Named[]>
  storagePoolGetInfo(
    args: { readonly pool: Named },
    within: Within,
  ): Promise<{ readonly capacity: number | bigint; readonly available: number | bigint }>
  storagePoolGetXMLDesc(args: { readonly pool: Named }, within: Within): Promise<string>
  connectListAllNetworks(args: Flags, within: Within): Promise<readonly Named[]>
  networkGetXMLDesc(args: { readonly net: Named } & Flags, within: Within): Promise<string>
}

const within: Within = { deadlineMs: 10_000 }

/** virDomainXMLFlags. */
const xmlSecure = 1
const xmlInactive = 2
/** virConnectListAllDomainsFlags. */
const domainsPersistent = 4
const domainsManagedSave = 256
const domainsAutostart = 1024
/** The same two in virConnectListAllStoragePoolsFlags and virConnectListAllNetworksFlags. */
const onlyActive = 2
const onlyAutostart = 16
const networksPersistent = 4
/** virNetworkXMLFlags. */
const networkXmlInactive = 1

/** What libvirt's two numbers say in words. */
export function powerOf(numbers: {
  readonly state: number
  readonly reason: number
}): Pick<DomainFacts, 'power' | 'reason'> {
  const { power, reason } = wordsOf(numbers)
  if (power === 'unknown')
    throw new HostError('host.unexpected-answer', `libvirt says that a VM is in state ${numbers.state}`)
  return { power, reason }
}

/** Whether it is libvirt's answer that something is not there: it may have gone since it was listed. */
export const isGone = (error: unknown): boolean =>
  error instanceof HostError &&
  error.code === 'libvirt.refused' &&
  /^VIR_ERR_NO_(DOMAIN|NETWORK|STORAGE_POOL)$/.test(String(error.details.code))

const present = async <T>(reading: Promise<T>): Promise<readonly T[]> => {
  try {
    return [await reading]
  } catch (error) {
    if (isGone(error)) return []
    throw error
  }
}

const uuids = (all: readonly Named[]): ReadonlySet<string> => new Set(all.map(({ uuid }) => uuid))

/** Every VM, in the order of their names. */
export async function readDomains(libvirt: ReadCalls): Promise<readonly DomainFacts[]> {
  const [all, persistent, saved, autostarted] = await Promise.all(
    [0, domainsPersistent, domainsManagedSave, domainsAutostart].map((flags) =>
      libvirt.connectListAllDomains({ flags }, within),
    ),
  )
  const [isPersistent, isSaved, isAutostarted] = [persistent, saved, autostarted].map((some) =>
    uuids(some ?? []),
  )
  const one = async (dom: Named): Promise<DomainFacts> => {
    const { uuid, name } = dom
    const xmlOf = (flags: number) => libvirt.domainGetXMLDesc({ dom, flags }, within)
    const { power, reason } = powerOf(await libvirt.domainGetState({ dom }, within))
    const [xml, whole, liveXml] = await Promise.all([
      xmlOf(xmlInactive),
      xmlOf(xmlInactive | xmlSecure),
      power === 'off' ? null : xmlOf(0),
    ])
    return {
      uuid,
      name,
      power,
      reason,
      persistent: isPersistent?.has(uuid) ?? false,
      autostart: isAutostarted?.has(uuid) ?? false,
      managedSave: isSaved?.has(uuid) ?? false,
      xml,
      liveXml,
      hasSecrets: whole !== xml,
    }
  }
  const found = await Promise.all((all ?? []).map((dom) => present(one(dom))))
  return found.flat().sort(byName)
}

const byName = (a: { readonly name: string }, b: { readonly name: string }): number =>
  a.name < b.name ? -1 : 1

/** The root of what libvirt says of a pool or network. */
function rootOf(name: string, xml: string) {
  try {
    return parseXml(xml).root
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause
    throw new HostError('host.unexpected-answer', `the definition of ${name} is no XML: ${cause.message}`, {
      cause,
    })
  }
}

/** Every storage pool, in the order of their names. */
export async function readPools(libvirt: ReadCalls): Promise<readonly PoolFacts[]> {
  const [all = [], active = [], autostarted = []] = await Promise.all(
    [0, onlyActive, onlyAutostart].map((flags) => libvirt.connectListAllStoragePools({ flags }, within)),
  )
  const [isActive, isAutostarted] = [uuids(active), uuids(autostarted)]
  const one = async (pool: Named): Promise<PoolFacts> => {
    const { name, uuid } = pool
    const [xml, { capacity, available }] = await Promise.all([
      libvirt.storagePoolGetXMLDesc({ pool }, within),
      libvirt.storagePoolGetInfo({ pool }, within),
    ])
    const root = rootOf(name, xml)
    return {
      name,
      type: root.attributes.get('type') ?? '',
      path: textOf(at(root, 'target', 'path')),
      active: isActive.has(uuid),
      autostart: isAutostarted.has(uuid),
      capacityBytes: Number(capacity),
      freeBytes: Number(available),
    }
  }
  const found = await Promise.all(all.map((pool) => present(one(pool))))
  return found.flat().sort(byName)
}

/** Every network, in the order of their names. */
export async function readNetworks(libvirt: ReadCalls): Promise<readonly NetworkFacts[]> {
  const [all = [], active = [], autostarted = [], persistent = []] = await Promise.all(
    [0, onlyActive, onlyAutostart, networksPersistent].map((flags) =>
      libvirt.connectListAllNetworks({ flags }, within),
    ),
  )
  const [isActive, isAutostarted, isPersistent] = [uuids(active), uuids(autostarted), uuids(persistent)]
  const one = async (net: Named): Promise<NetworkFacts> => {
    const { name, uuid } = net
    const active = isActive.has(uuid)
    const persistent = isPersistent.has(uuid)
    const [xml, liveXml] = await Promise.all([
      libvirt.networkGetXMLDesc({ net, flags: persistent ? networkXmlInactive : 0 }, within),
      active ? libvirt.networkGetXMLDesc({ net, flags: 0 }, within) : null,
    ])
    const bridge = at(rootOf(name, liveXml ?? xml), 'bridge')?.attributes.get('name') ?? null
    return { name, uuid, active, autostart: isAutostarted.has(uuid), persistent, bridge, xml, liveXml }
  }
  const found = await Promise.all(all.map((net) => present(one(net))))
  return found.flat().sort(byName)
}
