// What is to be known of one VM before anything is decided: what it shall be, what it is, what differs, and whose it is.

import { createHash } from 'node:crypto'
import type { DomainFacts } from '../host.ts'
import { type XmlElement, XmlError } from '../libvirt/xml.ts'
import type { ProblemCode } from '../problem.ts'
import type { Json } from '../resource.ts'
import { sizeBytes } from '../values.ts'
import { type Acceptance, acceptanceOf } from './accepted.ts'
import { type Definition, readDefinition } from './definition.ts'
import { type Difference, domainDifferences, exactSize, patchDifferences } from './differences.ts'
import { type DomainModel, readDomain } from './domain.ts'
import { newUuid } from './names.ts'
import type { ObservedMachine, ObservedVms } from './observe.ts'
import { type Origin, writeOrigin } from './origin.ts'
import { type Ownership, ownershipOf } from './ownership.ts'
import type { DesiredVms, Machine } from './schema.ts'
import { type Seed, seedOf } from './seed.ts'
import type { Objection } from './steps.ts'
import { wantedDomain } from './want.ts'

/** Drift that is left as it is, and until when. */
export interface Accepted {
  readonly difference: Difference
  readonly acceptance: Acceptance
}

/** What is known of one declared VM. */
export interface Survey {
  readonly name: string
  readonly machine: Machine
  readonly seen: ObservedMachine
  readonly uuid: string
  readonly ownership: Ownership
  /** The seed that it shall have, or null. */
  readonly seed: Seed | null
  /** What is defined, without passwords; null when nothing is. */
  readonly defined: Definition | null
  /** What shall be defined, with what it remembers; null when `objection` says why it cannot be told. */
  readonly wanted: Definition | null
  readonly objection: Objection | null
  /** Whether what was desired is what it was when Garrison last wrote the definition: then somebody else made the differences. */
  readonly isUnchanged: boolean
  /** What differs and is to be mended. */
  readonly differences: readonly Difference[]
  readonly accepted: readonly Accepted[]
  /** Acceptances that have run out, of drift that is there. */
  readonly overdue: readonly Accepted[]
  /** What differs because the template has another version than the one that the VM was made from, and nobody asked for that. */
  readonly held: readonly Difference[]
  /** What the running guest does not have yet of its definition. */
  readonly pending: readonly Difference[]
}

/** The digest of all that a declaration says of a definition. */
function digestOf({ power, autostart, changes, maintenance, cloudInit, ...rest }: Machine): string {
  const said = { ...rest, hasSeed: cloudInit !== undefined }
  return createHash('sha256').update(JSON.stringify(said)).digest('hex')
}

/** What the definition shall remember. A template that nobody asked to update to stays the one that it was made from. */
function originOf(machine: Machine, known: Origin | null): Origin {
  const { template, tags } = machine
  const digest = digestOf(machine)
  const chosen =
    template === undefined
      ? null
      : { name: template.name, version: template.version ?? '', base: template.base ?? null }
  return { template: isHeld(machine, known) ? (known?.template ?? null) : chosen, digest, tags }
}

/** Whether the VM was made from another version of the template than the declaration now takes, and nobody asked for the change. */
function isHeld({ template }: Machine, known: Origin | null): boolean {
  const made = known?.template
  return (
    made !== null &&
    made !== undefined &&
    template !== undefined &&
    !template.update &&
    made.name === template.name &&
    (made.version !== template.version || made.base !== (template.base ?? null))
  )
}

const sameTags = (one: Origin['tags'], other: Origin['tags']): boolean =>
  JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort())

/** What differs in what the definition remembers. */
function originDifferences(wanted: Origin, observed: Origin | null): readonly Difference[] {
  const mend = (domain: XmlElement): void => writeOrigin(domain, wanted)
  const differs = (path: string, desired: Json, have: Json): Difference => ({
    path,
    desired,
    observed: have,
    risk: 'safe',
    mend,
  })
  if (observed === null) return [differs('metadata', 'garrison', null)]
  const text = ({ template }: Origin): string | null =>
    template && [template.name, template.version, template.base ?? ''].join(' ').trim()
  return [
    ...(text(wanted) === text(observed) ? [] : [differs('template', text(wanted), text(observed))]),
    ...(sameTags(wanted.tags, observed.tags) ? [] : [differs('tags', wanted.tags, observed.tags)]),
  ]
}

/** The definition that shall be. */
function wantedDefinition(
  name: string,
  machine: Machine,
  observed: ObservedVms,
  vms: DesiredVms,
  uuid: string,
  known: DomainModel | null,
): Definition | Objection {
  try {
    const root = wantedDomain(name, machine, { vms, uuid, architecture: observed.architecture, known })
    writeOrigin(root, originOf(machine, known?.origin ?? null))
    return { root, model: readDomain(root) }
  } catch (error) {
    return xmlObjection('vm.xml-refused', `the definition of ${name} cannot be made`, error)
  }
}

const settingsOnly: ReadonlySet<string> = new Set(['cpuModel', 'machine', 'metadata', 'template', 'tags'])

/** What a running guest does not have of its definition. What libvirt works out anew at each start is left out. */
function pendingOf(seen: ObservedMachine, defined: Definition): readonly Difference[] {
  const { domain } = seen
  if (domain === null || domain.liveXml === null || !domain.persistent) return []
  const live = readDefinition(domain.liveXml)
  return domainDifferences(defined.model, live.model).filter(({ path }) => !settingsOnly.has(path))
}

/** The UUID that is recorded beside the files of a VM. */
const recordedUuid = (seen: ObservedMachine): string | undefined =>
  Object.values(seen.owners).flatMap((owner) => (typeof owner === 'object' ? owner.uuid : []))[0]

/** Differences that are not in the definition. */
function outerDifferences(
  { domain, images, seed }: ObservedMachine,
  machine: Machine,
  seedId: string | null,
): readonly Difference[] {
  const differs = (path: string, desired: Json, observed: Json): Difference => ({
    path,
    desired,
    observed,
    risk: 'safe',
    mend: null,
  })
  const sizes = Object.entries(machine.disks).flatMap(([disk, { size }]) => {
    const image = images[disk]
    if (size === undefined || image === undefined || 'objection' in image) return []
    const bytes = diskBytes(size)
    return bytes === image.virtualBytes
      ? []
      : [differs(`disks.${disk}.size`, exactSize(bytes), exactSize(image.virtualBytes))]
  })
  return [
    ...sizes,
    ...(seedId === seed ? [] : [differs('cloudInit', seedId, seed)]),
    ...(domain === null || domain.autostart === startsWithHost(machine)
      ? []
      : [differs('autostart', startsWithHost(machine), domain.autostart)]),
    ...(domain === null || isAsWanted(machine.power, domain.power)
      ? []
      : [differs('power', machine.power, domain.power)]),
  ]
}

/** Whether libvirt shall start a VM when the host boots. */
export const startsWithHost = ({ autostart, power }: Machine): boolean => autostart ?? power !== 'off'

const isAsWanted = (wanted: Machine['power'], power: DomainFacts['power']): boolean =>
  wanted === 'kept' ||
  (wanted === 'running' ? power === 'running' || power === 'blocked' : power === 'off' || power === 'crashed')

/** The bytes of a disk of a declared size: whole MiB, which every format can hold. */
export const diskBytes = (size: string): number => Math.ceil(sizeBytes(size) / 2 ** 20) * 2 ** 20

/** The seed that a VM shall have, or null. Its NICs have the MACs of the definition. */
function seedFor(name: string, machine: Machine, model: DomainModel): Seed | null {
  if (machine.cloudInit === undefined) return null
  const nics = Object.entries(machine.nics).map(([part, { addresses, gateways, nameservers }]) => {
    const mac = model.nics.find((one) => one.name === part)?.mac ?? ''
    return [part, { mac, addresses, gateways, nameservers }] as const
  })
  return seedOf(name, machine.cloudInit, Object.fromEntries(nics))
}

/** An XmlError as an objection; any other error is thrown again. */
export const xmlObjection = (code: ProblemCode, message: string, error: unknown): Objection => {
  if (error instanceof XmlError) return { code, message: `${message}: ${error.message}` }
  throw error
}

/** What was surveyed of what was observed: plan and check ask for the same. */
const surveyed = new WeakMap<ObservedMachine, { readonly vms: DesiredVms; readonly found: Survey | null }>()

/** Surveys one declared VM; null when it is not declared any more. Pure. */
export function survey(observed: ObservedVms, vms: DesiredVms, seen: ObservedMachine): Survey | null {
  const known = surveyed.get(seen)
  const found = known?.vms === vms ? known.found : surveyOf(observed, vms, seen)
  surveyed.set(seen, { vms, found })
  return found
}

function surveyOf(observed: ObservedVms, vms: DesiredVms, seen: ObservedMachine): Survey | null {
  const { name, domain } = seen
  const machine = vms.machines[name]
  if (machine === undefined) return null
  const uuid = machine.uuid ?? domain?.uuid ?? recordedUuid(seen) ?? newUuid(observed.host, name)
  const bare: Survey = {
    ...{ name, machine, seen, uuid, ownership: ownershipOf(seen.owners, observed.host) },
    ...{ defined: null, wanted: null, seed: null, objection: null, isUnchanged: false },
    ...{ differences: [], accepted: [], overdue: [], held: [], pending: [] },
  }
  let defined: Definition | null = null
  let pending: readonly Difference[] = []
  try {
    if (domain !== null) {
      defined = readDefinition(domain.xml)
      pending = pendingOf(seen, defined)
    }
  } catch (error) {
    const message = `the definition of ${name} that libvirt has cannot be read`
    return { ...bare, objection: xmlObjection('vm.xml-unread', message, error) }
  }
  const known = defined?.model ?? null
  const wanted = wantedDefinition(name, machine, observed, vms, uuid, known)
  if ('code' in wanted) return { ...bare, pending, defined, objection: wanted }
  const { model } = wanted
  const seed = seedFor(name, machine, model)
  const whole: Survey = { ...bare, defined, wanted, seed, pending }
  const outer = outerDifferences(seen, machine, seed?.instanceId ?? null)
  if (defined === null || known === null) return { ...whole, differences: outer }

  let inner: readonly Difference[]
  try {
    const isSameDisk = (declared: string, now: string): boolean =>
      seen.chains[now]?.includes(declared) ?? false
    inner = [
      ...domainDifferences(model, known, isSameDisk),
      ...patchDifferences(machine.xml, defined.root),
      ...(model.origin === null ? [] : originDifferences(model.origin, known.origin)),
    ]
  } catch (error) {
    const message = `what ${name} asks of its definition cannot be done`
    return { ...whole, objection: xmlObjection('vm.xml-refused', message, error) }
  }
  const isOfTemplate = isHeld(machine, known.origin)
    ? (path: string): boolean => seen.fromTemplate.some((one) => one === path || one.startsWith(`${path}.`))
    : () => false
  const all = [...inner, ...outer]
  const judged = all
    .filter(({ path }) => !isOfTemplate(path))
    .map((difference) => {
      const path = `vms.machines.${name}.${difference.path}`
      return { difference, found: acceptanceOf(vms.accepted, path, observed.nowMs ?? 0) }
    })
  const acceptances = (isOver: boolean): readonly Accepted[] =>
    judged.flatMap(({ difference, found }) =>
      found?.isOver === isOver ? [{ difference, acceptance: found.acceptance }] : [],
    )
  return {
    ...whole,
    isUnchanged: model.origin !== null && model.origin.digest === known.origin?.digest,
    differences: judged.flatMap(({ difference, found }) => (found?.isOver === false ? [] : difference)),
    accepted: acceptances(false),
    overdue: acceptances(true),
    held: all.filter(({ path }) => isOfTemplate(path)),
  }
}
