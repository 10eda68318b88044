// What is to be done so that a VM's files are there: its record of ownership, its disks, the images that they begin as, its seed.

import type { Desired } from '../desired.ts'
import { type Action, type Step, stepKey } from '../resource.ts'
import { toldSource } from '../told.ts'
import { exactSize } from './differences.ts'
import { type Image, imageFileName } from './image.ts'
import { originPath } from './images.ts'
import { diskPath, homePool, seedPath } from './names.ts'
import type { ObservedVms } from './observe.ts'
import { nextEpoch, recordActions } from './ownership.ts'
import { convertDisk, createClone, createDisk, foreignFile, resizeDisk } from './qemu-img.ts'
import type { DesiredVms, MachineDisk } from './schema.ts'
import { seedActions } from './seed.ts'
import { after, blockedBy, change, changesOf, minuteMs, type Objection, pathOf, step } from './steps.ts'
import { diskBytes, type Survey } from './survey.ts'

/** The record that this host owns the VM, where it is missing; or why it may not. */
export function ownSteps(
  { name, seen, uuid, ownership, machine }: Survey,
  observed: ObservedVms,
): readonly Step[] {
  const folders = Object.keys(seen.owners)
  const because = [{ path: pathOf(name, 'host'), desired: observed.host, observed: null }]
  const refuse = (objection: Objection, host: string | null): readonly Step[] => [
    step('own', name, {
      summary: 'by this host',
      because: [{ path: pathOf(name, 'host'), desired: observed.host, observed: host }],
      ...blockedBy(objection, { host, vm: name }),
    }),
  ]
  const write = (into: readonly string[], epoch: number): readonly Step[] => [
    step('own', name, {
      summary: `by this host, epoch ${epoch}`,
      because,
      actions: into.flatMap((folder) => recordActions(folder, name, { epoch, host: observed.host, uuid })),
    }),
  ]
  switch (ownership.kind) {
    case 'elsewhere': {
      const { owner, folder } = ownership
      const message = `${name} belongs to ${owner.host} since epoch ${owner.epoch}, says ${folder}`
      return refuse({ code: 'vm.owned-elsewhere', message }, owner.host)
    }
    case 'damaged': {
      const message = `the record of whom ${name} belongs to, in ${ownership.folder}, cannot be read`
      return refuse({ code: 'vm.owner-damaged', message }, null)
    }
    case 'ours':
      return ownership.lacking.length === 0 ? [] : write(ownership.lacking, ownership.owner.epoch)
    case 'unclaimed': {
      if (folders.length === 0) return []
      const made = seen.files.filter(
        ({ path, kind }) =>
          kind !== null && folders.some((folder) => path.startsWith(`${folder}/`)) && seen.domain === null,
      )
      const [first] = made
      if (first !== undefined && Object.values(machine.disks).length > 0)
        return refuse(
          {
            code: 'vm.disk-unowned',
            message: `${first.path} is there, and no record says that it is ${name}'s`,
          },
          null,
        )
      return write(folders, nextEpoch(null) ?? 1)
    }
  }
}

/** The path of the image that a disk begins as, in the disk's pool; null when there is none that the pool keeps. */
function baseImagePath(vms: DesiredVms, { machine }: Survey, { image, pool }: MachineDisk): string | null {
  const place = vms.pools[pool ?? homePool(vms, machine) ?? '']
  return image === undefined || image.copy === 'own' || place === undefined
    ? null
    : `${place.path}/${imageFileName(image)}`
}

const fetching = ({ source, checksum, sizeBytes, format }: Image, path: string): Action => ({
  kind: 'fetch',
  ...{ source, path, format, deadlineMs: 12 * 60 * minuteMs },
  ...(checksum !== undefined && { checksum }),
  ...(sizeBytes !== undefined && { sizeBytes }),
})

/** Steps that fetch the images which missing disks of a VM begin as; `fetched` are those that other VMs have asked for already. */
export function imageSteps(
  vm: Survey,
  missing: readonly string[],
  fetched: Set<string>,
  observed: ObservedVms,
  desired: Desired,
  vms: DesiredVms,
  pools: readonly string[],
): readonly Step[] {
  return missing.flatMap((disk) => {
    const want = vm.machine.disks[disk]
    const path = want && baseImagePath(vms, vm, want)
    if (!want?.image || !path || observed.baseImages[path] !== undefined || fetched.has(path)) return []
    fetched.add(path)
    const source = toldSource(want.image.source)
    return step('image', path, {
      summary: `from ${source}`,
      because: [change(desired, pathOf(vm.name, `disks.${disk}.image.source`), source, null)],
      actions: [fetching(want.image, path)],
      ...after(pools),
    })
  })
}

const sync = (path: string): Action => ({
  kind: 'run',
  argv: ['/usr/bin/sync', '--', path],
  deadlineMs: 30 * minuteMs,
})

const run = (argv: readonly [string, ...string[]], deadlineMs = 2 * minuteMs): Action => ({
  kind: 'run',
  argv,
  deadlineMs,
})

/** Fetches a disk that is an image of its own. It is made larger, where it shall be, once it is there. */
const fetchDisk = (path: string, image: Image): readonly Action[] => {
  const made = `${path}.new`
  return [
    fetching(image, made),
    // Images are only read, and say where they came from.
    run(['/usr/bin/chmod', '0600', '--', made]),
    { kind: 'remove', path: originPath(made) },
    sync(made),
    { kind: 'move', from: made, to: path },
  ]
}

/** Makes a disk under another name, so that what is cut short is never taken for a disk, and nothing is ever written over. */
function makeDisk(
  path: string,
  { size, format, image }: MachineDisk,
  basePath: string | null,
): readonly Action[] {
  if (image?.copy === 'own') return fetchDisk(path, image)
  const made = `${path}.new`
  const sizeBytes = size === undefined ? null : diskBytes(size)
  const isThin = image?.copy === 'thin' && format === 'qcow2'
  const base = image !== undefined && basePath !== null ? { path: basePath, format: image.format } : null
  const making =
    base === null
      ? [run(createDisk({ path: made, sizeBytes: sizeBytes ?? 0 }, format))]
      : isThin
        ? [run(createClone({ path: made, sizeBytes }, base))]
        : [
            run(convertDisk(base, { path: made, format }), 6 * 60 * minuteMs),
            ...(sizeBytes === null ? [] : [run(resizeDisk({ path: made, sizeBytes }, format))]),
          ]
  return [
    // qemu-img makes files that everybody may read, and keeps the mode of one that is there.
    { kind: 'write', path: made, content: '', mode: 0o600 },
    ...making,
    sync(made),
    { kind: 'move', from: made, to: path },
  ]
}

/** Names of disks that are to be made: declared, not there, and not known to a definition, which would mean that they were lost. */
export const missingDisks = (
  vms: DesiredVms,
  { name, machine, seen, defined, held, accepted }: Survey,
): readonly string[] =>
  Object.entries(machine.disks).flatMap(([disk, want]) => {
    const path = diskPath(vms, name, machine, disk)
    const isLeft = [...held, ...accepted.map(({ difference }) => difference)].some(
      (one) => one.path === `disks.${disk}`,
    )
    const isDefined = defined?.model.disks.some((one) => one.name === disk || one.source?.at === path)
    const isThere = seen.files.some((file) => file.path === path && file.kind !== null)
    return want.path !== undefined || isThere || isDefined || isLeft ? [] : [disk]
  })

/** Why a disk cannot begin as its image, or null. */
function imageObjection(
  observed: ObservedVms,
  { size }: MachineDisk,
  basePath: string | null,
): Objection | null {
  const base = basePath === null ? undefined : observed.baseImages[basePath]
  if (base === undefined) return null
  if ('objection' in base) return { code: 'vm.image-unusable', message: `${base.path}: ${base.objection}` }
  if (size !== undefined && diskBytes(size) < base.virtualBytes)
    return {
      code: 'vm.disk-shrink',
      message: `${base.path} is ${exactSize(base.virtualBytes)} large, more than ${size}`,
    }
  return null
}

/** Steps that make the disks that are missing, and make those larger that are too small. */
export function diskSteps(
  vm: Survey,
  missing: readonly string[],
  observed: ObservedVms,
  desired: Desired,
  vms: DesiredVms,
  own: readonly string[],
): readonly Step[] {
  const { name, machine, seen } = vm
  const creating = missing.flatMap((disk) => {
    const want = machine.disks[disk]
    const path = diskPath(vms, name, machine, disk)
    if (want === undefined || path === null) return []
    const basePath = baseImagePath(vms, vm, want)
    const objection = imageObjection(observed, want, basePath)
    const image =
      basePath !== null && observed.baseImages[basePath] === undefined ? [`vms.image ${basePath}`] : []
    return step('disk', `${name}.${disk}`, {
      summary: `${path}${want.size === undefined ? '' : `, ${want.size}`}${want.image === undefined ? '' : `, from ${toldSource(want.image.source)}`}`,
      because: [change(desired, pathOf(name, `disks.${disk}`), path, null)],
      ...(objection === null ? { actions: makeDisk(path, want, basePath) } : blockedBy(objection)),
      ...after([...own, ...image]),
    })
  })
  const growing = Object.entries(seen.images).flatMap(([disk, image]) => {
    const want = machine.disks[disk]
    if (want === undefined) return []
    const subject = `${name}.${disk}`
    if ('objection' in image)
      return step('disk', subject, {
        summary: image.path,
        because: [change(desired, pathOf(name, `disks.${disk}.format`), want.format, null)],
        ...blockedBy({ code: 'vm.image-unusable', message: `${image.path}: ${image.objection}` }),
      })
    const difference = vm.differences.find(({ path }) => path === `disks.${disk}.size`)
    if (difference === undefined || want.size === undefined) return []
    const sizeBytes = diskBytes(want.size)
    const common = { summary: `${image.path} to ${want.size}`, because: changesOf(desired, vm, [difference]) }
    if (sizeBytes < image.virtualBytes)
      return step('grow', subject, {
        ...common,
        ...blockedBy({
          code: 'vm.disk-shrink',
          message: `${image.path} is ${difference.observed} large, and ${want.size} is declared`,
        }),
      })
    const target = vm.defined?.model.disks.find((one) => one.source?.at === image.path)?.target
    const isLive = seen.domain !== null && seen.domain.liveXml !== null && target !== undefined
    return step('grow', subject, {
      ...common,
      actions: isLive
        ? [{ kind: 'domain', operation: 'grow-disk', name, uuid: vm.uuid, target, sizeBytes }]
        : [
            {
              kind: 'run',
              argv: resizeDisk({ path: image.path, sizeBytes }, image.format === 'raw' ? 'raw' : 'qcow2'),
              deadlineMs: 2 * minuteMs,
            },
          ],
      ...after(own),
    })
  })
  return [...creating, ...growing]
}

/** The step that makes the seed, where it is missing or was made for something else. */
export function seedSteps(
  vm: Survey,
  desired: Desired,
  vms: DesiredVms,
  own: readonly string[],
): readonly Step[] {
  const { name, machine, seed, seen } = vm
  const path = seedPath(vms, name, machine)
  const difference = vm.differences.find((one) => one.path === 'cloudInit')
  if (seed === null || path === null || difference === undefined) return []
  return [
    step('seed', name, {
      summary: seen.seed === null ? path : `${path}: cloud-init runs anew at its next start`,
      because: changesOf(desired, vm, [difference]),
      actions: seedActions(seed, path),
      ...after(own),
    }),
  ]
}

/** Why a VM may not be started because of its disks or networks, or null. `coming`: files that earlier steps make. */
export function startObjection(
  vm: Survey,
  observed: ObservedVms,
  vms: DesiredVms,
  coming: ReadonlySet<string> = new Set(),
): Objection | null {
  const { name, seen, wanted, defined } = vm
  const model = defined?.model ?? wanted?.model
  const folders = Object.values(vms.pools).map(({ path }) => path)
  for (const { source } of model?.disks ?? []) {
    const file = seen.files.find(({ path }) => path === source?.at)
    if (file === undefined || coming.has(file.path)) continue
    if (file.kind === null)
      return { code: 'vm.disk-missing', message: `${file.path}, a disk of ${name}, is not there` }
    if (file.failedArray !== null)
      return {
        code: 'vm.array-failed',
        message: `${file.path}, a disk of ${name}, is on ${file.failedArray}, which has failed`,
      }
  }
  for (const image of Object.values(seen.images)) {
    if ('objection' in image)
      return { code: 'vm.image-unusable', message: `${image.path}: ${image.objection}` }
    const foreign = foreignFile(image, folders)
    if (foreign !== null) return { code: 'vm.disk-foreign', message: `${image.path}: ${foreign}` }
    const base = image.backing?.path
    if (base !== undefined && seen.files.some(({ path, kind }) => path === base && kind === null))
      return { code: 'vm.disk-missing', message: `${base}, which ${image.path} stands on, is not there` }
    if (image.isCorrupt) return { code: 'vm.image-unusable', message: `${image.path} is marked as corrupt` }
  }
  for (const { source } of model?.nics ?? []) {
    if (source.kind !== 'network') continue
    const network = observed.networks.find((one) => one.name === source.at)
    if (network === undefined || !network.active)
      return {
        code: 'vm.network-missing',
        message: `network ${source.at}, which ${name} is attached to, is ${network === undefined ? 'not there' : 'not active'}`,
      }
  }
  return null
}

/** Keys of steps that belong to one VM. */
export const keysOf = (steps: readonly Step[]): readonly string[] => steps.map(stepKey)
