// Does to VMs and storage pools what actions say, by libvirt's calls. A refusal or a silence is only overcome by looking again.

import { setTimeout as sleep } from 'node:timers/promises'
import { xmlDigest } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { DomainAction, NetworkAction, PoolAction } from '../../provisioning/resource.ts'
import { isGone, powerOf } from './libvirt-read.ts'

interface Flags {
  readonly flags?: number
}

interface Named {
  readonly name: string
  readonly uuid: string
}

interface OfDomain {
  readonly dom: Named
}

interface OfPool {
  readonly pool: Named
}

interface OfNetwork {
  readonly net: Named
}

/** The calls that are made here, under libvirt's names. */
export interface PerformCalls {
  domainLookupByUUID(args: { readonly uuid: string }): Promise<Named>
  domainGetState(args: OfDomain): Promise<{ readonly state: number; readonly reason: number }>
  domainGetXMLDesc(args: OfDomain & Flags): Promise<string>
  domainGetAutostart(args: OfDomain): Promise<boolean>
  domainIsPersistent(args: OfDomain): Promise<boolean>
  domainDefineXMLFlags(args: { readonly xml: string } & Flags): Promise<Named>
  domainCreateWithFlags(args: OfDomain & Flags): Promise<unknown>
  domainShutdownFlags(args: OfDomain & Flags): Promise<unknown>
  domainDestroyFlags(args: OfDomain & Flags): Promise<unknown>
  domainUndefineFlags(args: OfDomain & Flags): Promise<unknown>
  domainGetBlockInfo(
    args: OfDomain & { readonly path: string },
  ): Promise<{ readonly capacity: number | bigint }>
  domainBlockResize(
    args: OfDomain & Flags & { readonly disk: string; readonly size: number },
  ): Promise<unknown>
  domainSetAutostart(args: OfDomain & { readonly autostart: boolean }): Promise<unknown>
  storagePoolLookupByName(args: { readonly name: string }): Promise<Named>
  storagePoolDefineXML(args: { readonly xml: string } & Flags): Promise<Named>
  storagePoolCreate(args: OfPool & Flags): Promise<unknown>
  storagePoolIsActive(args: OfPool): Promise<boolean>
  storagePoolGetAutostart(args: OfPool): Promise<boolean>
  storagePoolSetAutostart(args: OfPool & { readonly autostart: boolean }): Promise<unknown>
  networkLookupByName(args: { readonly name: string }): Promise<Named>
  networkGetXMLDesc(args: OfNetwork & Flags): Promise<string>
  networkDefineXML(args: { readonly xml: string }): Promise<Named>
  networkCreate(args: OfNetwork): Promise<unknown>
  networkDestroy(args: OfNetwork): Promise<unknown>
  networkIsActive(args: OfNetwork): Promise<boolean>
  networkGetAutostart(args: OfNetwork): Promise<boolean>
  networkSetAutostart(args: OfNetwork & { readonly autostart: boolean }): Promise<unknown>
  networkListAllPorts(args: { readonly network: Named } & Flags): Promise<readonly unknown[]>
  networkUpdate(
    args: OfNetwork &
      Flags & {
        readonly command: number
        readonly section: number
        readonly parentIndex: number
        readonly xml: string
      },
  ): Promise<unknown>
}

/** The way to libvirt, which may have to be found again after each silence. */
export type ToLibvirt = () => Promise<PerformCalls>

const xmlInactive = 2
const defineValidate = 1
/** NVRAM and TPM hold what the guest has put there; only a person removes them. */
const undefineKeepNvram = 8
const undefineKeepTpm = 64
const resizeInBytes = 1
/** virNetworkXMLFlags, virNetworkUpdateCommand, virNetworkUpdateSection, virNetworkUpdateFlags. */
const networkXmlInactive = 1
const networkDelete = 2
const networkAddLast = 3
const dhcpHosts = 4
const liveAndDefined = 3
const pollMs = 250

const isLibvirts = (error: unknown): error is HostError =>
  error instanceof HostError && (error.code === 'libvirt.refused' || error.code === 'libvirt.unreachable')

/**
 * Makes a call. When libvirt refuses, or nobody can tell whether it heard, the world decides: what is so already is done, by
 * whomever.
 */
async function reach(call: () => Promise<unknown>, holds: () => Promise<boolean>): Promise<void> {
  try {
    await call()
  } catch (error) {
    if (!isLibvirts(error)) throw error
    const isSo = await holds().catch((second: unknown) => {
      // What libvirt said first tells more.
      if (isLibvirts(second)) return false
      throw second
    })
    if (!isSo) throw error
  }
}

/** The VM of that UUID, or null when libvirt has none. */
async function find(libvirt: PerformCalls, uuid: string): Promise<Named | null> {
  try {
    return await libvirt.domainLookupByUUID({ uuid })
  } catch (error) {
    if (isGone(error)) return null
    throw error
  }
}

const changed = (name: string, how: string): HostError =>
  new HostError('plan.changed', `${name} ${how} since it was looked at`, { details: { vm: name } })

async function define(
  libvirt: PerformCalls,
  { uuid, name, xml, replaces }: Extract<DomainAction, { operation: 'define' }>,
): Promise<void> {
  const dom = await find(libvirt, uuid)
  const known = dom && (await libvirt.domainGetXMLDesc({ dom, flags: xmlInactive }))
  if (known !== null && replaces === null) throw changed(name, 'was defined')
  if (known === null && replaces !== null) throw changed(name, 'was undefined')
  if (known !== null && xmlDigest(known) !== replaces) throw changed(name, 'was defined anew')
  await libvirt.domainDefineXMLFlags({ xml, flags: defineValidate })
}

async function isOff(libvirt: PerformCalls, uuid: string): Promise<boolean> {
  const dom = await find(libvirt, uuid)
  return dom === null || powerOf(await libvirt.domainGetState({ dom })).power === 'off'
}

/** Asks the guest once: some take a second press of the power button for something else. */
async function shutDown(to: ToLibvirt, { uuid, name }: DomainAction, deadlineMs: number): Promise<void> {
  const endMs = performance.now() + deadlineMs
  const off = async () => isOff(await to(), uuid)
  const libvirt = await to()
  const dom = await find(libvirt, uuid)
  if (dom === null) return
  await reach(() => libvirt.domainShutdownFlags({ dom }), off)
  for (;;) {
    const isDone = await off().catch((error: unknown) => {
      // It may be started again while the guest shuts down.
      if (error instanceof HostError && error.retry && performance.now() < endMs) return false
      throw error
    })
    if (isDone) return
    if (performance.now() >= endMs)
      throw new HostError(
        'action.deadline',
        `${name} was asked to shut down and is not off after ${deadlineMs / 1000} s`,
      )
    await sleep(pollMs)
  }
}

/** QEMU would also make it smaller, and cut off what is there. */
async function growDisk(
  to: ToLibvirt,
  dom: Named,
  { target, sizeBytes }: Extract<DomainAction, { operation: 'grow-disk' }>,
): Promise<void> {
  const isLarge = async () => {
    const { capacity } = await (await to()).domainGetBlockInfo({ dom, path: target })
    return Number(capacity) >= sizeBytes
  }
  if (await isLarge()) return
  const libvirt = await to()
  await reach(
    () => libvirt.domainBlockResize({ dom, disk: target, size: sizeBytes, flags: resizeInBytes }),
    isLarge,
  )
}

/** Performs what is asked of one VM. Throws `libvirt.refused`, `libvirt.unreachable`, `plan.changed`, `action.deadline`. */
export async function performDomain(to: ToLibvirt, action: DomainAction): Promise<void> {
  const { uuid } = action
  if (action.operation === 'shutdown') return shutDown(to, action, action.deadlineMs)
  const libvirt = await to()
  if (action.operation === 'define') return define(libvirt, action)
  const dom = await find(libvirt, uuid)
  switch (action.operation) {
    case 'start': {
      if (dom === null) throw changed(action.name, 'was undefined')
      const runs = async () => !(await isOff(await to(), uuid))
      return reach(() => libvirt.domainCreateWithFlags({ dom }), runs)
    }
    case 'destroy':
      if (dom === null) return
      return reach(
        () => libvirt.domainDestroyFlags({ dom }),
        async () => isOff(await to(), uuid),
      )
    case 'undefine': {
      if (dom === null) return
      const flags = undefineKeepNvram | undefineKeepTpm
      const isUndefined = async () => {
        const again = await to()
        const still = await find(again, uuid)
        return still === null || !(await again.domainIsPersistent({ dom: still }))
      }
      return reach(() => libvirt.domainUndefineFlags({ dom, flags }), isUndefined)
    }
    case 'autostart': {
      if (dom === null) throw changed(action.name, 'was undefined')
      const { enabled } = action
      return reach(
        () => libvirt.domainSetAutostart({ dom, autostart: enabled }),
        async () => (await (await to()).domainGetAutostart({ dom })) === enabled,
      )
    }
    case 'grow-disk':
      if (dom === null) throw changed(action.name, 'was undefined')
      return growDisk(to, dom, action)
  }
}

/** Performs what is asked of one storage pool. Throws `libvirt.refused`, `libvirt.unreachable`. */
export async function performPool(to: ToLibvirt, action: PoolAction): Promise<void> {
  const libvirt = await to()
  if (action.operation === 'define') {
    await libvirt.storagePoolDefineXML({ xml: action.xml })
    return
  }
  const pool = await libvirt.storagePoolLookupByName({ name: action.name })
  switch (action.operation) {
    case 'start':
      return reach(
        () => libvirt.storagePoolCreate({ pool }),
        async () => (await to()).storagePoolIsActive({ pool }),
      )
    case 'autostart':
      return reach(
        () => libvirt.storagePoolSetAutostart({ pool, autostart: action.enabled }),
        async () => (await (await to()).storagePoolGetAutostart({ pool })) === action.enabled,
      )
  }
}

/** The network of that name, or null when libvirt has none. */
async function findNetwork(libvirt: PerformCalls, name: string): Promise<Named | null> {
  try {
    return await libvirt.networkLookupByName({ name })
  } catch (error) {
    if (isGone(error)) return null
    throw error
  }
}

const networkChanged = (name: string, how: string): HostError =>
  new HostError('plan.changed', `network ${name} ${how} since it was looked at`, {
    details: { network: name },
  })

async function defineNetwork(
  libvirt: PerformCalls,
  net: Named | null,
  { name, xml, replaces }: Extract<NetworkAction, { operation: 'define' }>,
): Promise<void> {
  const known = net && (await libvirt.networkGetXMLDesc({ net, flags: networkXmlInactive }))
  if (known !== null && replaces === null) throw networkChanged(name, 'was defined')
  if (known === null && replaces !== null) throw networkChanged(name, 'was undefined')
  if (known !== null && xmlDigest(known) !== replaces) throw networkChanged(name, 'was defined anew')
  await libvirt.networkDefineXML({ xml })
}

/** Performs what is asked of one network. Throws `libvirt.refused`, `libvirt.unreachable`, `plan.changed`. */
export async function performNetwork(to: ToLibvirt, action: NetworkAction): Promise<void> {
  const libvirt = await to()
  const net = await findNetwork(libvirt, action.name)
  if (action.operation === 'define') return defineNetwork(libvirt, net, action)
  if (net === null) throw networkChanged(action.name, 'was undefined')
  const isActive = async () => (await to()).networkIsActive({ net })
  switch (action.operation) {
    case 'start':
      return reach(() => libvirt.networkCreate({ net }), isActive)
    case 'stop': {
      if (!(await isActive())) return
      const attached = (await libvirt.networkListAllPorts({ network: net })).length
      if (attached > 0) throw networkChanged(action.name, 'has got VMs that run on it')
      return reach(
        () => libvirt.networkDestroy({ net }),
        async () => !(await isActive()),
      )
    }
    case 'autostart':
      return reach(
        () => libvirt.networkSetAutostart({ net, autostart: action.enabled }),
        async () => (await (await to()).networkGetAutostart({ net })) === action.enabled,
      )
    case 'reserve':
    case 'release':
      await libvirt.networkUpdate({
        net,
        command: action.operation === 'reserve' ? networkAddLast : networkDelete,
        section: dhcpHosts,
        parentIndex: action.place,
        xml: action.xml,
        flags: liveAndDefined,
      })
  }
}
