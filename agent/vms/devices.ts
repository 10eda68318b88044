// Disks and NICs plugged into VMs and out of them: at once where the VM runs and takes it, and for its next starts.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseXml, printXml, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import {
  type DiskModel,
  diskElement,
  diskElements,
  freeTarget,
  readDisks,
} from '../../provisioning/vms/disks.ts'
import { type NicModel, nicElement, nicElements, readNics } from '../../provisioning/vms/nics.ts'
import { notKnown } from '../../provisioning/written.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import { vmCommand } from './command.ts'
import type { DefinedVm } from './facts.ts'
import { anyMac } from './mac.ts'
import type { Dom } from './rewrite.ts'
import type { Became, InHand } from './transitions.ts'

/** One VM in hand, with what is known of it. */
export interface KnownInHand extends InHand {
  readonly vm: DefinedVm
}

const domOf = ({ name, uuid }: DefinedVm): Dom => ({ name, uuid })

const isUp = ({ power }: DefinedVm): boolean => power !== 'off'

/** Its definition as it runs and as it starts next; null where there is none. */
async function definitions(libvirt: Connection, vm: DefinedVm) {
  const read = async (flags: number) =>
    parseXml(await libvirt.domainGetXMLDesc({ dom: domOf(vm), flags })).root
  return {
    live: isUp(vm) ? await read(0) : null,
    next: vm.persistent ? await read(VIR.DOMAIN_XML_INACTIVE) : null,
  }
}

/** Plugs a device in: at once and for good, or when the running VM does not take it, from its next start on; how, in words. */
async function plugIn(libvirt: Connection, vm: DefinedVm, device: XmlElement): Promise<string> {
  const dom = domOf(vm)
  const xml = printXml(device)
  const attach = (flags: number) => libvirt.domainAttachDeviceFlags({ dom, xml, flags })
  const { DOMAIN_AFFECT_LIVE: live, DOMAIN_AFFECT_CONFIG: next } = VIR
  if (!isUp(vm)) {
    await attach(next)
    return ''
  }
  if (!vm.persistent) {
    await attach(live)
    return ' until it ends'
  }
  try {
    await attach(live | next)
    return ' at once'
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'libvirt.refused') throw error
    await attach(next)
    return ` from its next start on (not at once: ${error.message})`
  }
}

const pollMs = 250

/** One device of a VM as it is to be plugged out: its elements in both definitions. */
interface Plugged {
  readonly what: string
  readonly live: XmlElement | undefined
  readonly next: XmlElement | undefined
  /** Whether the running VM still has it. */
  isThere(domain: XmlElement): boolean
}

/** Plugs a device out. A running guest is asked, and may take its time: throws `vm.deadline` when it has not let go by then. */
async function plugOut(
  to: InHand['to'],
  vm: DefinedVm,
  { what, live, next, isThere }: Plugged,
  timeoutMs: number,
): Promise<void> {
  const libvirt = await to()
  const dom = domOf(vm)
  if (next !== undefined)
    await libvirt.domainDetachDeviceFlags({ dom, xml: printXml(next), flags: VIR.DOMAIN_AFFECT_CONFIG })
  if (live === undefined) return
  await libvirt.domainDetachDeviceFlags({ dom, xml: printXml(live), flags: VIR.DOMAIN_AFFECT_LIVE })
  const endMs = performance.now() + timeoutMs
  for (;;) {
    const now = parseXml(await (await to()).domainGetXMLDesc({ dom })).root
    if (!isThere(now)) return
    if (performance.now() > endMs)
      throw new HostError(
        'vm.deadline',
        `the guest of ${vm.name} has not let go of ${what} within ${timeoutMs / 1000} s; from its next start on it is gone`,
        { details: { vm: vm.name, command: vmCommand('restart', vm.name) } },
      )
    await sleep(pollMs)
  }
}

/** A disk to attach. `source` is a path, or null for a drive without a medium. */
export type DiskWish = Pick<
  DiskModel,
  'device' | 'bus' | 'source' | 'format' | 'cache' | 'readOnly' | 'serial'
> & {
  readonly target: string | undefined
}

/** Attaches a disk. Throws `vm.disk-in-use` when one of `others` has it and either of the two may write to it. */
export async function attachDisk(
  { to, vm, changes }: KnownInHand,
  wish: DiskWish,
  others: readonly DefinedVm[],
): Promise<Became> {
  const { source, readOnly } = wish
  const rival = others.find((one) =>
    one.model?.disks.some(
      (disk) => source !== null && disk.source?.at === source.at && !(readOnly && disk.readOnly),
    ),
  )
  if (rival !== undefined)
    throw new HostError('vm.disk-in-use', `${source?.at} is a disk of ${rival.name}`, {
      details: { vm: vm.name, path: source?.at, by: rival.name },
    })
  const libvirt = await to()
  const { live, next } = await definitions(libvirt, vm)
  const taken = new Set(
    [live, next].flatMap((one) => (one ? readDisks(one).map(({ target }) => target) : [])),
  )
  const target = wish.target ?? freeTarget(wish.bus, taken)
  const device = diskElement({
    ...wish,
    name: null,
    target,
    io: wish.cache === 'none' || wish.cache === 'directsync' ? 'native' : 'threads',
    discard: 'unmap',
    boot: null,
  })
  const what = source === null ? `an empty ${wish.device}` : source.at
  const how = await changes.make(
    { word: 'attach', vm: vm.name, summary: `attach ${what} as ${target}`, risk: 'safe' },
    () => plugIn(libvirt, vm, device),
  )
  return { changed: true, text: `${what} is ${target}${how}` }
}

/** A disk by its target, its own name or where it is; throws `request.no-such-part`. */
function findDisk(vm: DefinedVm, domains: readonly (XmlElement | null)[], called: string): string {
  const disks = domains.flatMap((domain) => (domain === null ? [] : readDisks(domain)))
  const found = disks.find(({ target, name, source }) => [target, name, source?.at].includes(called))
  if (found !== undefined) return found.target
  const targets = [...new Set(disks.map(({ target }) => target))]
  throw new HostError('request.no-such-part', `${vm.name}: ${notKnown('disk', called, targets)}`, {
    details: { vm: vm.name },
  })
}

const diskAt = (domain: XmlElement | null, target: string): XmlElement | undefined =>
  domain === null
    ? undefined
    : diskElements(domain)[readDisks(domain).findIndex((one) => one.target === target)]

/** Detaches a disk; what is on it stays. */
export async function detachDisk(
  { to, vm, changes }: KnownInHand,
  called: string,
  timeoutMs: number,
): Promise<Became> {
  const { live, next } = await definitions(await to(), vm)
  const target = findDisk(vm, [live, next], called)
  const plugged: Plugged = {
    what: target,
    live: diskAt(live, target),
    next: diskAt(next, target),
    isThere: (domain) => diskAt(domain, target) !== undefined,
  }
  const summary = `detach ${target}`
  await changes.make({ word: 'detach', vm: vm.name, summary, risk: 'disruptive' }, () =>
    plugOut(to, vm, plugged, timeoutMs),
  )
  return { changed: true, text: `${target} is detached; what is on it is kept` }
}

/** Makes a disk larger. `growFile` grows the file of a VM that is off. Throws `vm.disk-shrink`. */
export async function growDisk(
  { to, vm, changes }: KnownInHand,
  called: string,
  sizeBytes: number,
  growFile: (disk: DiskModel) => Promise<void>,
): Promise<Became> {
  const libvirt = await to()
  const dom = domOf(vm)
  const { live, next } = await definitions(libvirt, vm)
  const target = findDisk(vm, [live, next], called)
  const { capacity } = await libvirt.domainGetBlockInfo({ dom, path: target })
  if (Number(capacity) === sizeBytes) return { changed: false, text: `${target} has that size already` }
  if (Number(capacity) > sizeBytes)
    throw new HostError(
      'vm.disk-shrink',
      `${target} of ${vm.name} has ${capacity} bytes, more than ${sizeBytes}`,
      {
        details: { vm: vm.name },
      },
    )
  const disk = readDisks(live ?? next ?? parseXml('<domain/>').root).find((one) => one.target === target)
  await changes.make(
    {
      word: 'grow',
      vm: vm.name,
      summary: `grow ${target} from ${capacity} to ${sizeBytes} bytes`,
      risk: 'safe',
      actions: [{ kind: 'domain', operation: 'grow-disk', name: vm.name, uuid: vm.uuid, target, sizeBytes }],
    },
    async () => {
      if (isUp(vm))
        await libvirt.domainBlockResize({
          dom,
          disk: target,
          size: sizeBytes,
          flags: VIR.DOMAIN_BLOCK_RESIZE_BYTES,
        })
      else if (disk !== undefined) await growFile(disk)
    },
  )
  return { changed: true, text: `${target} is larger; the guest must grow what is on it` }
}

/** Attaches a NIC. */
export async function attachNic(
  { to, vm, changes }: KnownInHand,
  { mac, source, model }: Omit<NicModel, 'name'>,
): Promise<Became> {
  const libvirt = await to()
  const nic = { name: null, mac: mac ?? anyMac(), source, model }
  const what = `${nic.mac} on ${source.kind} ${source.at}`
  const how = await changes.make(
    { word: 'plug', vm: vm.name, summary: `attach NIC ${what}`, risk: 'safe' },
    () => plugIn(libvirt, vm, nicElement(nic)),
  )
  return { changed: true, text: `NIC ${what}${how}` }
}

const nicAt = (domain: XmlElement | null, mac: string): XmlElement | undefined =>
  domain === null ? undefined : nicElements(domain)[readNics(domain).findIndex((one) => one.mac === mac)]

/** Detaches a NIC, by its MAC, its own name, or the network that it alone is on. Throws `request.no-such-part`. */
export async function detachNic(
  { to, vm, changes }: KnownInHand,
  called: string,
  timeoutMs: number,
): Promise<Became> {
  const { live, next } = await definitions(await to(), vm)
  const nics = [live, next].flatMap((domain) => (domain === null ? [] : readNics(domain)))
  const macs = (those: readonly NicModel[]) => [...new Set(those.flatMap(({ mac }) => mac ?? []))]
  const named = macs(nics.filter(({ mac, name }) => mac === called.toLowerCase() || name === called))
  const found = named.length > 0 ? named : macs(nics.filter(({ source }) => source.at === called))
  const [mac] = found
  if (mac === undefined || found.length > 1)
    throw new HostError(
      'request.no-such-part',
      mac === undefined
        ? `${vm.name}: ${notKnown('NIC', called, macs(nics))}`
        : `${vm.name} has several NICs on ${called}: ${found.join(', ')}`,
      { details: { vm: vm.name } },
    )
  const plugged: Plugged = {
    what: `NIC ${mac}`,
    live: nicAt(live, mac),
    next: nicAt(next, mac),
    isThere: (domain) => nicAt(domain, mac) !== undefined,
  }
  await changes.make({ word: 'unplug', vm: vm.name, summary: `detach NIC ${mac}`, risk: 'disruptive' }, () =>
    plugOut(to, vm, plugged, timeoutMs),
  )
  return { changed: true, text: `NIC ${mac} is detached` }
}
