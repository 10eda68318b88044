// What differs between the definition that a VM has and the one that it shall have, each with what makes it as it shall be.
//
// INVARIANTS
// - Only what a declaration can say is compared, so what libvirt adds by itself is no difference.
// - Mending changes what differs and nothing else. Differences are mended in the order in which they are given.

import { at, insert, remove, type XmlElement } from '../libvirt/xml.ts'
import type { Json, Risk } from '../resource.ts'
import { type DeviceModel, deviceElement, deviceElements } from './devices.ts'
import { type DiskModel, diskElement, diskElements, diskWriters, freeTarget, preferTurns } from './disks.ts'
import { type Basics, basicFields, basicNames, type DomainModel, readDomain } from './domain.ts'
import { type NicModel, nicElement, nicElements, nicWriters } from './nics.ts'
import { applyPatch } from './patch.ts'
import type { XmlPatch } from './schema.ts'
import { ensureScsi } from './want.ts'

/** One difference. `path` is that of the declaration below the VM: `memory`, `disks.root.cache`, `xml.0`. */
export interface Difference {
  readonly path: string
  readonly desired: Json
  readonly observed: Json
  /** `disruptive` when the guest may not start as before: what somebody attached is taken away, or it boots in another way. */
  readonly risk: Risk
  /** Makes a definition as it shall be in this one thing; null when nothing but a person may. */
  readonly mend: ((domain: XmlElement) => void) | null
}

/** A size that a person can write into the document again, exactly. */
export function exactSize(bytes: number): string {
  const units = [
    ['TiB', 2 ** 40],
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const
  const [unit, size] = units.find(([, size]) => bytes % size === 0 && bytes >= size) ?? ['B', 1]
  return `${bytes / size}${unit}`
}

const booting: ReadonlySet<string> = new Set(['type', 'firmware', 'architecture', 'machine'])

/** What the declaration calls each of the basics. */
const paths: { readonly [Name in keyof Basics]: string } = {
  type: 'accelerator',
  memoryBytes: 'memory',
  cpus: 'cpus',
  firmware: 'firmware',
  architecture: 'architecture',
  machine: 'machine',
  cpuModel: 'cpuModel',
  clock: 'clock',
  serial: 'console.serial',
  display: 'console.display',
  guestAgent: 'guestAgent',
  random: 'random',
}

const shown = (name: keyof Basics, value: string | number | boolean | null): Json => {
  if (name === 'memoryBytes' && typeof value === 'number') return exactSize(value)
  return name === 'type' && value === 'qemu' ? 'tcg' : value
}

function* basicDifferences(wanted: DomainModel, observed: DomainModel): Generator<Difference> {
  for (const name of basicNames) {
    const [desired, have] = [wanted[name], observed[name]]
    const { same, write } = basicFields[name] as {
      same?(desired: unknown, observed: unknown): boolean
      write(domain: XmlElement, value: unknown): void
    }
    if (desired === null || (same ? same(desired, have) : desired === have)) continue
    yield {
      path: paths[name],
      desired: shown(name, desired),
      observed: shown(name, have),
      risk: booting.has(name) ? 'disruptive' : 'safe',
      mend: (domain) => write(domain, desired),
    }
  }
}

/** A disk, NIC or device in a few words. */
const diskText = ({ device, source }: DiskModel): string => `${device} ${source?.at ?? 'without medium'}`
const nicText = ({ source, mac }: NicModel): string => `${source.kind} ${source.at}, ${mac ?? 'no MAC'}`
const deviceText = ({ kind, at: place }: DeviceModel): string => `${kind} ${place}`

interface Pair<Model> {
  readonly wanted: Model
  /** Where the other one is among its like; -1 when there is none. */
  readonly index: number
}

/** Finds for each wanted one its like: by name, or else by what it is; no one twice. */
function paired<Model extends { readonly name: string | null }>(
  wanted: readonly Model[],
  observed: readonly Model[],
  isLike: (one: Model, other: Model) => boolean,
): readonly Pair<Model>[] {
  const taken = new Set<number>()
  const take = (test: (one: Model) => boolean): number => {
    const index = observed.findIndex((one, at) => !taken.has(at) && test(one))
    if (index !== -1) taken.add(index)
    return index
  }
  const byName = wanted.map((one) => take(({ name }) => name !== null && name === one.name))
  return wanted.map((one, at) => ({
    wanted: one,
    index: byName[at] === -1 ? take((other) => isLike(one, other)) : (byName[at] ?? -1),
  }))
}

const isLikeDisk = (one: DiskModel, other: DiskModel): boolean =>
  one.source?.at === other.source?.at || (one.name === null && one.target === other.target)

const isLikeNic = (one: NicModel, other: NicModel): boolean =>
  one.mac === other.mac && (one.mac !== null || one.name === null)

const diskNames = ['device', 'bus', 'format', 'cache', 'io', 'discard', 'readOnly', 'serial', 'boot'] as const

function* diskDifferences(
  wanted: DomainModel,
  observed: DomainModel,
  isSameDisk: (declared: string, observed: string) => boolean,
): Generator<Difference> {
  const pairs = paired(wanted.disks, observed.disks, isLikeDisk)
  for (const { wanted: disk, index } of pairs) {
    const path = `disks.${disk.name ?? disk.target}`
    const have = observed.disks[index]
    if (have === undefined) {
      yield {
        path,
        desired: diskText(disk),
        observed: null,
        risk: 'safe',
        mend(domain) {
          const taken = new Set(readDomain(domain).disks.map(({ target }) => target))
          const target = taken.has(disk.target) ? freeTarget(disk.bus, taken) : disk.target
          const devices = at(domain, 'devices')
          if (devices !== undefined) insert(devices, diskElement({ ...disk, target }))
          ensureScsi(domain)
          preferTurns(domain)
        },
      }
      continue
    }
    const [desiredAt, observedAt] = [disk.source?.at ?? null, have.source?.at ?? null]
    if (desiredAt !== observedAt && !(desiredAt && observedAt && isSameDisk(desiredAt, observedAt)))
      // What the guest has written since is in the other file: no definition is changed to leave it behind.
      yield { path: `${path}.path`, desired: desiredAt, observed: observedAt, risk: 'disruptive', mend: null }
    for (const name of diskNames) {
      // A disk that somebody else attached has no number of ours, and a snapshot is always qcow2.
      if (name === 'serial' && have.name === null) continue
      if (name === 'format' && desiredAt !== observedAt) continue
      if (disk[name] === have[name]) continue
      const write = diskWriters[name] as (disk: XmlElement, value: unknown, target: string) => void
      yield {
        path: `${path}.${name}`,
        desired: disk[name],
        observed: have[name],
        risk: name === 'bus' || name === 'device' || name === 'boot' ? 'disruptive' : 'safe',
        mend(domain) {
          const found = diskElements(domain)[index]
          if (found === undefined) return
          const others = new Set(
            readDomain(domain).disks.flatMap(({ target }, at) => (at === index ? [] : target)),
          )
          write(found, disk[name], others.has(disk.target) ? freeTarget(disk.bus, others) : disk.target)
          ensureScsi(domain)
          preferTurns(domain)
        },
      }
    }
  }
  yield* extras('disks', pairs, observed.disks, diskElements, ({ name, target }) => name ?? target, diskText)
}

/** What is attached and not declared. The last one first, so that taking it away moves no other. */
function* extras<Model>(
  kind: string,
  pairs: readonly Pair<unknown>[],
  observed: readonly Model[],
  elements: (domain: XmlElement) => readonly XmlElement[],
  keyOf: (one: Model) => string,
  text: (one: Model) => string,
): Generator<Difference> {
  const known = new Set(pairs.map(({ index }) => index))
  const left = observed.map((one, index) => ({ one, index })).filter(({ index }) => !known.has(index))
  for (const { one, index } of left.reverse())
    yield {
      path: `${kind}.${keyOf(one)}`,
      desired: null,
      observed: text(one),
      risk: 'disruptive',
      mend(domain) {
        const found = elements(domain)[index]
        const devices = at(domain, 'devices')
        if (found !== undefined && devices !== undefined) remove(devices, found)
      },
    }
}

function* nicDifferences(wanted: DomainModel, observed: DomainModel): Generator<Difference> {
  const pairs = paired(wanted.nics, observed.nics, isLikeNic)
  for (const { wanted: nic, index } of pairs) {
    const path = `nics.${nic.name ?? nic.mac ?? '?'}`
    const have = observed.nics[index]
    if (have === undefined) {
      yield {
        path,
        desired: nicText(nic),
        observed: null,
        risk: 'safe',
        mend(domain) {
          const devices = at(domain, 'devices')
          if (devices !== undefined) insert(devices, nicElement(nic))
        },
      }
      continue
    }
    const changes: readonly (readonly [keyof typeof nicWriters, Json, Json])[] = [
      ['mac', nic.mac, have.mac],
      ['source', `${nic.source.kind} ${nic.source.at}`, `${have.source.kind} ${have.source.at}`],
      ['model', nic.model, have.model],
    ]
    for (const [name, desired, other] of changes) {
      if (desired === other) continue
      const write = nicWriters[name] as (nic: XmlElement, value: unknown) => void
      yield {
        path: `${path}.${name === 'source' ? nic.source.kind : name}`,
        desired,
        observed: other,
        risk: 'safe',
        mend(domain) {
          const found = nicElements(domain)[index]
          if (found !== undefined) write(found, nic[name])
        },
      }
    }
  }
  yield* extras('nics', pairs, observed.nics, nicElements, ({ name, mac }) => name ?? mac ?? '?', nicText)
}

function* deviceDifferences(wanted: DomainModel, observed: DomainModel): Generator<Difference> {
  const isLike = (one: DeviceModel, other: DeviceModel): boolean =>
    one.kind === other.kind && one.at === other.at
  // One that is at another address is another device, whatever its name.
  const unnamed = (all: readonly DeviceModel[]) => all.map((one) => ({ ...one, name: null }))
  const pairs = paired(unnamed(wanted.devices), unnamed(observed.devices), isLike)
  for (const [index, { index: found }] of pairs.entries()) {
    const device = wanted.devices[index]
    if (found !== -1 || device === undefined) continue
    yield {
      path: `devices.${device.name ?? device.at}`,
      desired: deviceText(device),
      observed: null,
      risk: 'safe',
      mend(domain) {
        const devices = at(domain, 'devices')
        if (devices !== undefined) insert(devices, deviceElement(device))
      },
    }
  }
  yield* extras(
    'devices',
    pairs,
    observed.devices,
    deviceElements,
    ({ name, at: place }) => name ?? place,
    deviceText,
  )
}

/** What differs. `isSameDisk` tells whether a disk's content is that of another file which now stands on it (a snapshot). */
export const domainDifferences = (
  wanted: DomainModel,
  observed: DomainModel,
  isSameDisk: (declared: string, observed: string) => boolean = () => false,
): readonly Difference[] => {
  const all = [
    ...basicDifferences(wanted, observed),
    ...diskDifferences(wanted, observed, isSameDisk),
    ...nicDifferences(wanted, observed),
    ...deviceDifferences(wanted, observed),
  ]
  // What is taken away comes last: those before it count from the first.
  return [...all.filter(({ desired }) => desired !== null), ...all.filter(({ desired }) => desired === null)]
}

/** The changes that a declaration asks for and that a definition does not show. */
export const patchDifferences = (patches: readonly XmlPatch[], domain: XmlElement): readonly Difference[] =>
  patches.flatMap((patch, index) => {
    const changed = applyPatch(structuredClone(domain), patch)
    const desired = 'set' in patch ? patch.value : 'add' in patch ? patch.element : 'removed'
    return changed
      ? [
          {
            path: `xml.${index}`,
            desired,
            observed: null,
            risk: 'safe' as const,
            mend: (target: XmlElement) => void applyPatch(target, patch),
          },
        ]
      : []
  })
