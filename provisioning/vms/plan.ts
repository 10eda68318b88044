// Decides what is to be done so that the declared pools and VMs are as declared. What is not declared is left alone.

import type { Desired } from '../desired.ts'
import type { DomainFacts } from '../host.ts'
import { printXml, type XmlElement, xmlDigest } from '../libvirt/xml.ts'
import { RISKS, type Step } from '../resource.ts'
import { type Definition, verified } from './definition.ts'
import { type Difference, domainDifferences } from './differences.ts'
import { diskSteps, imageSteps, keysOf, missingDisks, ownSteps, seedSteps, startObjection } from './files.ts'
import { guardSteps } from './guard.ts'
import { diskPath, homePool, seedPath } from './names.ts'
import type { ObservedVms } from './observe.ts'
import { planPools } from './pools.ts'
import type { DesiredVms, Machine } from './schema.ts'
import { after, blockedBy, changesOf, minuteMs, type Objection, pathOf, step } from './steps.ts'
import { type Survey, startsWithHost, survey, xmlObjection } from './survey.ts'

/** How long a guest is given to shut down. */
const shutdownMs = 5 * minuteMs

/** A definition as text, when it is the same one after it was written and read again. */
function written(root: XmlElement, name: string): (Definition & { readonly xml: string }) | Objection {
  try {
    const again = verified(root)
    return 'code' in again ? again : { ...again, xml: printXml(again.root) }
  } catch (error) {
    return xmlObjection('vm.xml-refused', `the definition of ${name} cannot be written`, error)
  }
}

/** What is defined, with some differences mended, as text; or why that would not be what is meant. */
function mended({ name, defined, wanted }: Survey, differences: readonly Difference[]) {
  if (defined === null || wanted === null) throw new Error('nothing is defined that could be mended')
  const root = structuredClone(defined.root)
  for (const { mend } of differences) mend?.(root)
  const made = written(root, name)
  if ('code' in made) return made
  const left = new Set(domainDifferences(wanted.model, made.model).map(({ path }) => path))
  const failed = differences.filter(({ path }) => left.has(path))
  return failed.length === 0
    ? made
    : ({
        code: 'vm.xml-mismatch',
        message: `the definition says otherwise after it was changed: ${failed.map(({ path }) => path).join(', ')}`,
      } as const)
}

const isUp = ({ liveXml }: DomainFacts): boolean => liveXml !== null

/** Why libvirt would refuse the first definition of a VM, or null. */
function definitionObjection({ name, machine, uuid }: Survey, observed: ObservedVms): Objection | null {
  const other = [...observed.undeclared, ...observed.machines.flatMap(({ domain }) => domain ?? [])].find(
    (one) => one.uuid === uuid && one.name !== name,
  )
  if (other !== undefined)
    return { code: 'vm.uuid-taken', message: `${name} would get UUID ${uuid}, which ${other.name} has` }
  if (machine.firmware === 'bios' && observed.architecture === 'aarch64')
    return {
      code: 'vm.firmware',
      message: `${name} is to boot with bios, which ${observed.architecture} does not have`,
    }
  return null
}

/** A VM in a few words: `2 CPUs, 4GiB, uefi, 1 disk, 1 NIC`. */
function outlineOf({ cpus, memory, firmware, disks, nics }: Machine): string {
  const counted = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`
  return [
    counted(cpus, 'CPU'),
    memory,
    firmware,
    counted(Object.keys(disks).length, 'disk'),
    counted(Object.keys(nics).length, 'NIC'),
  ].join(', ')
}

/** What a start begins from. */
function startSummary(domain: DomainFacts | null): string {
  if (domain === null) return 'for the first time'
  if (domain.managedSave) return 'from its saved memory'
  const { power, reason } = domain
  return reason === 'unknown' ? `it is ${power}` : `it is ${power} (${reason})`
}

/** The step that defines a VM that libvirt does not know, or that it would forget when it ends. */
function defineSteps(vm: Survey, observed: ObservedVms, before: readonly string[]): readonly Step[] {
  const { name, uuid, machine, seen, wanted, defined } = vm
  if (wanted === null || seen.domain?.persistent) return []
  const made = written(defined?.root ?? wanted.root, name)
  const objection = definitionObjection(vm, observed) ?? ('code' in made ? made : null)
  const replaces = seen.domain === null ? null : xmlDigest(seen.domain.xml)
  return [
    step('define', name, {
      summary: defined === null ? outlineOf(machine) : 'for good: libvirt would forget it when it ends',
      because: [{ path: pathOf(name), desired: 'defined', observed: defined === null ? null : 'transient' }],
      ...(objection === null && !('code' in made)
        ? { actions: [{ kind: 'domain', operation: 'define', name, uuid, xml: made.xml, replaces } as const] }
        : blockedBy(objection as Objection)),
      ...after(before),
    }),
  ]
}

/** Steps that change the definition: what is safe, and after it what may keep the guest from starting as before. */
function redefineSteps(vm: Survey, desired: Desired, before: readonly string[]): readonly Step[] {
  const { name, uuid, machine, seen, defined, differences, isUnchanged } = vm
  const { domain } = seen
  if (domain === null || defined === null || !domain.persistent) return []
  if (machine.uuid !== undefined && machine.uuid !== domain.uuid)
    return [
      step('redefine', name, {
        summary: 'under another UUID',
        because: [{ path: pathOf(name, 'uuid'), desired: machine.uuid, observed: domain.uuid }],
        ...blockedBy({
          code: 'vm.uuid-differs',
          message: `${name} has UUID ${domain.uuid}, not ${machine.uuid}`,
        }),
      }),
    ]
  const elsewhere = differences.filter(({ path, mend }) => mend === null && /^disks\..*\.path$/.test(path))
  const inner = differences.filter(({ mend }) => mend !== null)
  const safe = inner.filter(({ risk }) => risk === 'safe')
  const hard = inner.filter(({ risk }) => risk !== 'safe')
  const what = isUnchanged ? 'as it was before somebody changed it' : 'as it is declared'
  const next = domain.managedSave ? 'the start after its saved memory was taken up' : 'its next start'
  const when = isUp(domain) || domain.managedSave ? `, from ${next}` : ''
  const one = (
    id: string,
    some: readonly Difference[],
    all: readonly Difference[],
    keys: readonly string[],
  ): readonly Step[] => {
    if (some.length === 0) return []
    const made = mended(vm, all)
    const objection: Objection | null =
      'code' in made
        ? made
        : domain.hasSecrets
          ? { code: 'vm.has-secrets', message: `the definition of ${name} holds a password` }
          : null
    return [
      step(id, name, {
        summary: `${what}${when}`,
        because: changesOf(desired, vm, some),
        risk: RISKS[Math.max(...some.map(({ risk }) => RISKS.indexOf(risk)))] ?? 'safe',
        ...(objection === null && !('code' in made)
          ? {
              actions: [
                {
                  kind: 'domain',
                  operation: 'define',
                  ...{ name, uuid, xml: made.xml, replaces: xmlDigest(domain.xml) },
                } as const,
              ],
            }
          : blockedBy(objection as Objection)),
        ...after(keys),
      }),
    ]
  }
  const redefine = one('redefine', safe, safe, before)
  return [
    ...elsewhere.map((difference) =>
      step('disk', `${name}.${difference.path.split('.')[1]}`, {
        summary: 'as it is declared',
        because: changesOf(desired, vm, [difference]),
        ...blockedBy({
          code: 'vm.disk-elsewhere',
          message: `${name} has ${difference.observed ?? 'no medium'} where ${difference.desired} is declared`,
        }),
      }),
    ),
    ...redefine,
    ...one('reshape', hard, inner, nearest(before, keysOf(redefine))),
  ]
}

/** Reasons of libvirt's for a pause that ends by itself. */
const passing = /migrat|sav|dump|snapshot|starting|shutting/i

/** Why a VM that is neither off nor running is not helped by a start, or null. */
function powerObjection({ name, seen }: Survey): Objection | null {
  const { power, reason } = seen.domain ?? {}
  if (power === 'shutting-down') return { code: 'vm.busy', message: `${name} is shutting down` }
  if (power === 'paused' && passing.test(reason ?? ''))
    return { code: 'vm.busy', message: `${name} is paused (${reason})` }
  if (power === 'paused' && /i\/?o.?error/i.test(reason ?? ''))
    return { code: 'vm.io-error', message: `${name} was halted by an I/O error` }
  if (power === 'paused' || power === 'suspended')
    return { code: 'vm.paused', message: `${name} is ${power} (${reason})` }
  if (power === 'crashed' && seen.domain?.liveXml !== null)
    return { code: 'vm.paused', message: `${name} has crashed and is kept as it was (${reason})` }
  return null
}

/** Steps that start, stop or restart a VM, or turn its autostart on or off. */
function powerSteps(
  vm: Survey,
  observed: ObservedVms,
  desired: Desired,
  vms: DesiredVms,
  coming: ReadonlySet<string>,
  before: readonly string[],
): readonly Step[] {
  const { name, uuid, machine, seen, differences, pending } = vm
  const { domain } = seen
  const steps: Step[] = []
  // Looked at once more just before it is started, with the devices that it gets opened exclusively: a mounted one is refused.
  const claims = seen.files.flatMap(({ path, kind }) => (kind === 'block' ? path : []))
  const autostart = differences.find(({ path }) => path === 'autostart')
  const isWanted = startsWithHost(machine)
  if (domain === null ? isWanted : autostart !== undefined)
    steps.push(
      step('autostart', name, {
        summary: isWanted ? 'with the host' : 'not with the host',
        because: autostart
          ? changesOf(desired, vm, [autostart])
          : [{ path: pathOf(name, 'autostart'), desired: true, observed: null }],
        actions: [{ kind: 'domain', operation: 'autostart', name, uuid, enabled: isWanted }],
        ...after(before),
      }),
    )
  const power = differences.find(({ path }) => path === 'power')
  const because = power
    ? changesOf(desired, vm, [power])
    : [{ path: pathOf(name, 'power'), desired: machine.power, observed: null }]
  const wait = after(nearest(before, keysOf(steps)))
  if (machine.power === 'running' && (domain === null || power !== undefined)) {
    const objection = powerObjection(vm) ?? startObjection(vm, observed, vms, coming)
    steps.push(
      step('start', name, {
        summary: startSummary(domain),
        because,
        ...(objection === null
          ? { actions: [{ kind: 'domain', operation: 'start', name, uuid } as const], claims }
          : blockedBy(objection)),
        ...wait,
      }),
    )
  }
  if (machine.power === 'off' && power !== undefined) {
    const objection = powerObjection(vm)
    steps.push(
      step('stop', name, {
        summary: `by its power button, within ${shutdownMs / minuteMs} min`,
        because,
        risk: 'disruptive',
        ...(objection === null
          ? {
              actions: [
                { kind: 'domain', operation: 'shutdown', name, uuid, deadlineMs: shutdownMs } as const,
              ],
            }
          : blockedBy(objection)),
        ...wait,
      }),
    )
  }
  if (
    machine.changes === 'restart' &&
    machine.power === 'running' &&
    power === undefined &&
    pending.length > 0
  ) {
    // What could not be started again is not shut down.
    const objection = startObjection(vm, observed, vms, coming)
    steps.push(
      step('restart', name, {
        summary: 'so that it gets what its definition says',
        because: changesOf(desired, vm, pending),
        risk: 'disruptive',
        ...(objection === null
          ? {
              actions: [
                { kind: 'domain', operation: 'shutdown', name, uuid, deadlineMs: shutdownMs },
                { kind: 'domain', operation: 'start', name, uuid },
              ] as const,
            }
          : blockedBy(objection)),
        ...wait,
      }),
    )
  }
  return steps
}

/** Keys of the steps of pools that a VM has files in. */
function poolKeys(vms: DesiredVms, { machine }: Survey, pools: readonly Step[]): readonly string[] {
  const used = new Set([
    homePool(vms, machine),
    ...Object.values(machine.disks).map(({ pool }) => pool ?? null),
  ])
  return pools.filter(({ subject }) => used.has(subject ?? null)).map(({ id, subject }) => `${id} ${subject}`)
}

/** The keys that the next steps come after: the latest there are, since those come after the earlier ones. */
const nearest = (earlier: readonly string[], latest: readonly string[]): readonly string[] =>
  latest.length > 0 ? latest : earlier

/** Plans VMs. Pure. Blocked steps carry `vm.…` codes. */
export function plan(observed: ObservedVms, desired: Desired): readonly Step[] {
  const { vms } = desired
  if (vms === undefined || observed.asked === null) return []
  const pools = planPools(observed, desired)
  const machines = observed.machines.flatMap((seen) => {
    const vm = survey(observed, vms, seen)
    return vm === null ? [] : [vm]
  })
  const fetched = new Set<string>()
  const steps = machines.flatMap((vm): readonly Step[] => {
    const { name, machine, objection, seen } = vm
    if (objection !== null)
      return [
        step('define', name, {
          summary: outlineOf(vm.machine),
          because: [
            { path: pathOf(name), desired: 'as declared', observed: seen.domain === null ? null : 'defined' },
          ],
          ...blockedBy(objection),
        }),
      ]
    const waits = poolKeys(vms, vm, pools)
    const own = ownSteps(vm, observed).map((one) => ({ ...one, ...after(waits) }))
    if (own.some(({ blocked }) => blocked !== undefined)) return own
    const owned = nearest(waits, keysOf(own))
    const lacking = missingDisks(vms, vm)
    const files = [
      // After the pool only: other VMs wait for the same image, and not for whoever owns this one.
      ...imageSteps(vm, lacking, fetched, observed, desired, vms, waits),
      ...diskSteps(vm, lacking, observed, desired, vms, owned),
      ...seedSteps(vm, desired, vms, owned),
    ]
    const coming = new Set(
      [
        ...lacking.map((disk) => diskPath(vms, name, machine, disk)),
        ...(files.some(({ id }) => id === 'vms.seed') ? [seedPath(vms, name, machine)] : []),
      ].filter((path) => path !== null),
    )
    const filed = nearest(owned, keysOf(files))
    const defining = defineSteps(vm, observed, filed)
    const redefining = redefineSteps(vm, desired, filed)
    const defined = nearest(filed, keysOf([...defining, ...redefining.filter(({ risk }) => risk === 'safe')]))
    return [
      ...own,
      ...files,
      ...defining,
      ...redefining,
      ...powerSteps(vm, observed, desired, vms, coming, defined),
    ]
  })
  return [...guardSteps(observed), ...pools, ...steps]
}
