// The images in the pools: what each is, where it came from, what stands on it, and the step that takes one away.

import type { Desired } from '../desired.ts'
import type { DomainFacts, HostReader } from '../host.ts'
import { XmlError } from '../libvirt/xml.ts'
import type { Step } from '../resource.ts'
import { readDefinition } from './definition.ts'
import { imageFileName } from './image.ts'
import { homePool } from './names.ts'
import { type ObservedImage, observeImage } from './observe.ts'
import { parseQcow2 } from './qcow2.ts'
import type { DesiredVms } from './schema.ts'
import { blockedBy, type Objection, step } from './steps.ts'

/** What is written down beside an image that was fetched. `source` is without what may be a secret in a URL. */
export interface Origin {
  readonly source: string
  /** Of all its bytes, as `sha256:…`. */
  readonly checksum: string
  readonly fetchedMs: number
}

/** A file that keeps only the difference to an image, or is the image itself; `vms` have it as a disk, or stand on it. */
export interface ImageUser {
  readonly path: string
  readonly vms: readonly string[]
}

/** One image. Sizes in bytes. */
export interface PoolImage {
  readonly pool: string
  readonly path: string
  readonly format: 'qcow2' | 'raw'
  readonly fileBytes: number
  /** What a guest would see; null when that cannot be told, and `problem` says why. */
  readonly virtualBytes: number | null
  readonly problem: string | null
  readonly origin: Origin | null
  readonly users: readonly ImageUser[]
  /** The declared VMs that have a disk which begins as it. */
  readonly declaredBy: readonly string[]
}

/** Everything that is known of images. */
export interface ObservedImages {
  readonly images: readonly PoolImage[]
  /** Images of which only a part is there, by the path that the whole will have. */
  readonly unfinished: readonly { readonly pool: string; readonly path: string; readonly doneBytes: number }[]
  /** What could not be read and may stand on any image. */
  readonly unread: readonly string[]
}

/** Where it is written down where an image came from. Hidden, so that nobody takes it for an image. */
export const originPath = (path: string): string => {
  const at = path.lastIndexOf('/') + 1
  return `${path.slice(0, at)}.${path.slice(at)}.origin.json`
}

const ending = /^[^.].*\.(qcow2|raw|img|iso)$/i
const formatOf = (path: string): 'qcow2' | 'raw' => (path.endsWith('.qcow2') ? 'qcow2' : 'raw')

/** A header with its extensions and the name of a backing file seldom needs more. */
const headerBytes = 4096

function parseOrigin(text: string | null): Origin | null {
  if (text === null) return null
  try {
    const { source, checksum, fetchedMs } = JSON.parse(text) as Partial<Origin>
    return typeof source === 'string' && typeof checksum === 'string' && typeof fetchedMs === 'number'
      ? { source, checksum, fetchedMs }
      : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

/** What each file of the host that was looked at stands on, and who has it as a disk. */
interface Standing {
  readonly backing: Map<string, string | null>
  readonly disks: Map<string, { readonly vm: string; readonly isWritten: boolean }[]>
  readonly unread: string[]
}

/** Follows a file down to what it stands on, as far as that was not looked at yet. */
async function follow(reader: HostReader, from: string, { backing, unread }: Standing): Promise<void> {
  for (let path: string | null = from; path !== null && !backing.has(path); ) {
    const head = await reader.head(path, headerBytes)
    const header = head === null ? null : parseQcow2(Buffer.from(head, 'base64'))
    if (header === null) {
      backing.set(path, null)
      return
    }
    const image: ObservedImage = await observeImage(reader, path, 'qcow2')
    const next: string | null = 'backing' in image ? (image.backing?.path ?? null) : null
    if ('objection' in image) unread.push(`${path}: ${image.objection}`)
    const real: string | null = next?.startsWith('/') ? ((await reader.resolve(next)) ?? next) : next
    backing.set(path, real)
    path = real
  }
}

/** Every disk of a VM, as defined and as it runs. */
function disksOf({ name, xml, liveXml }: DomainFacts, unread: string[]) {
  return [xml, ...(liveXml === null ? [] : [liveXml])].flatMap((one) => {
    try {
      return readDefinition(one).model.disks
    } catch (error) {
      if (!(error instanceof XmlError)) throw error
      unread.push(`the definition of ${name}: ${error.message}`)
      return []
    }
  })
}

async function observeStanding(
  reader: HostReader,
  folders: readonly string[],
): Promise<{ readonly standing: Standing; readonly listed: ReadonlyMap<string, readonly string[]> }> {
  const standing: Standing = { backing: new Map(), disks: new Map(), unread: [] }
  const listed = new Map<string, readonly string[]>()
  for (const domain of await reader.domains())
    for (const { source, readOnly } of disksOf(domain, standing.unread)) {
      if (source === null || !source.at.startsWith('/')) continue
      const path = (await reader.resolve(source.at)) ?? source.at
      const known = standing.disks.get(path) ?? []
      standing.disks.set(path, [...known, { vm: domain.name, isWritten: !readOnly }])
      if (source.kind === 'file') await follow(reader, path, standing)
    }
  for (const folder of folders) {
    const names = (await reader.list(folder)) ?? []
    listed.set(folder, names)
    for (const name of names) {
      const path = `${folder}/${name}`
      const facts = await reader.facts(path)
      if (facts?.kind === 'file') await follow(reader, path, standing)
      // Disks are in a folder for each VM, whether libvirt knows it or not.
      if (facts?.kind !== 'folder') continue
      for (const below of (await reader.list(path)) ?? [])
        if ((await reader.facts(`${path}/${below}`))?.kind === 'file')
          await follow(reader, `${path}/${below}`, standing)
    }
  }
  return { standing, listed }
}

/** Who stands on a file, and on what stands on it. */
function usersOf(path: string, { backing, disks }: Standing): readonly ImageUser[] {
  /** Headers can lead in circles, which QEMU refuses. */
  const above = (base: string): ReadonlySet<string> => {
    const found = new Set([base])
    for (const one of found) for (const [over, on] of backing) if (on === one) found.add(over)
    return found
  }
  const vmsOf = (one: string) => [...above(one)].flatMap((each) => disks.get(each)?.map(({ vm }) => vm) ?? [])
  const direct = [...backing].flatMap(([one, on]) => (on === path ? one : []))
  return [...(disks.has(path) ? [path] : []), ...direct].map((one) => ({
    path: one,
    vms: [...new Set(one === path ? disks.get(path)?.map(({ vm }) => vm) : vmsOf(one))].sort(),
  }))
}

function declaredBy(vms: DesiredVms, pool: string, file: string): readonly string[] {
  return Object.entries(vms.machines).flatMap(([name, machine]) =>
    Object.values(machine.disks).some(
      (disk) =>
        disk.image !== undefined &&
        (disk.pool ?? homePool(vms, machine)) === pool &&
        imageFileName(disk.image) === file,
    )
      ? name
      : [],
  )
}

/**
 * Looks at the images in the declared pools: the files at the top of each that are no disk which a VM writes. Throws
 * `libvirt.unreachable`: then nobody can tell what stands on them.
 */
export async function observeImages(reader: HostReader, { vms }: Desired): Promise<ObservedImages> {
  if (vms === undefined) return { images: [], unfinished: [], unread: [] }
  const pools = await Promise.all(
    Object.entries(vms.pools).map(
      async ([name, { path }]) => [name, (await reader.resolve(path)) ?? path] as const,
    ),
  )
  const { standing, listed } = await observeStanding(
    reader,
    pools.map(([, path]) => path),
  )
  const images: PoolImage[] = []
  const unfinished: ObservedImages['unfinished'][number][] = []
  for (const [pool, folder] of pools)
    for (const name of listed.get(folder) ?? []) {
      const path = `${folder}/${name}`
      const facts = await reader.facts(path)
      if (facts?.kind !== 'file') continue
      if (name.endsWith('.part') && ending.test(name.slice(0, -5)))
        unfinished.push({ pool, path: path.slice(0, -5), doneBytes: facts.sizeBytes })
      if (!ending.test(name)) continue
      const users = usersOf(path, standing)
      const isDisk = standing.disks.get(path)?.some(({ isWritten }) => isWritten)
      if (isDisk && users.every((one) => one.path === path)) continue
      const format = formatOf(name)
      const image = await observeImage(reader, path, format)
      images.push({
        ...{ pool, path, format, users },
        fileBytes: facts.sizeBytes,
        ...('objection' in image
          ? { virtualBytes: null, problem: image.objection }
          : { virtualBytes: image.virtualBytes, problem: null }),
        origin: parseOrigin(await reader.readText(originPath(path))),
        declaredBy: declaredBy(vms, pool, name),
      })
    }
  return { images, unfinished, unread: standing.unread }
}

const removals = (path: string): Step['actions'] =>
  [path, originPath(path), `${path}.part`, `${path}.part.json`].map((one) => ({ kind: 'remove', path: one }))

function inTheWay({ images, unread }: ObservedImages, path: string): Objection | null {
  const users = images.find((one) => one.path === path)?.users ?? []
  if (users.length > 0)
    return {
      code: 'image.in-use',
      message: users
        .map((user) =>
          user.path === path
            ? `it is a disk of ${user.vms.join(', ')}`
            : `${user.path} stands on it${user.vms.length === 0 ? '' : ` (${user.vms.join(', ')})`}`,
        )
        .join('; '),
    }
  return unread.length === 0
    ? null
    : {
        code: 'image.users-unknown',
        message: `it could not be read what this stands on: ${unread.join('; ')}`,
      }
}

/** The step that takes an image away, or what has come of it; none when there is neither. Never part of a plan of its own. */
export function planRemoval(observed: ObservedImages, path: string): readonly Step[] {
  const { images, unfinished } = observed
  const image = images.find((one) => one.path === path)
  const part = unfinished.find((one) => one.path === path)
  if (image === undefined && part === undefined) return []
  const objection = inTheWay(observed, path)
  return [
    step('image-remove', path, {
      summary: `${image?.fileBytes ?? part?.doneBytes ?? 0} bytes${image === undefined ? ' that came of it' : ''}`,
      // It may not be had again where it came from.
      risk: 'destroys-data',
      because: [
        { path: `images.${path}`, desired: null, observed: image?.fileBytes ?? part?.doneBytes ?? 0 },
      ],
      ...(objection === null ? { actions: removals(path) } : blockedBy(objection)),
    }),
  ]
}
