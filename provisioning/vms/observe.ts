// Reads what libvirt knows of the declared VMs, their files, the pools that those are in, and who they belong to.

import type { Mount } from '../block/mountinfo.ts'
import type { Desired } from '../desired.ts'
import type { DomainFacts, FileFacts, HostReader, NetworkFacts, PoolFacts } from '../host.ts'
import { XmlError } from '../libvirt/xml.ts'
import { HostError } from '../problem.ts'
import { readDefinition } from './definition.ts'
import { guardPath } from './guard.ts'
import { imageFileName } from './image.ts'
import { diskPath, homePool, machineFolder, seedPath } from './names.ts'
import { observeOwner, type Record, recordedHost } from './ownership.ts'
import { parseQcow2 } from './qcow2.ts'
import { type DiskFacts, type DiskFormat, parseQemuImg, qemuImg } from './qemu-img.ts'
import type { DesiredVms, Machine } from './schema.ts'
import { seedMark } from './seed.ts'
import { failedArrayOf, failedArrayOfDevice, isShared, mountOf, observeMounts } from './storage.ts'

/** A declared pool as it is. */
export interface ObservedPool {
  readonly name: string
  /** What libvirt has under this name. */
  readonly known: PoolFacts | null
  /** Another pool of libvirt's that has the same path. */
  readonly rival: string | null
  /** What must be mounted there, and is not. */
  readonly unmounted: string | null
  readonly readOnly: boolean
  /** The md array below it that has lost more members than it can do without. */
  readonly failedArray: string | null
  readonly folder: FileFacts['kind'] | null
  /** Whether other hosts can have its filesystem mounted at the same time. */
  readonly shared: boolean
}

/** A file or device that a VM has as a disk, by declaration or by definition. */
export interface ObservedFile {
  readonly path: string
  /** Null when there is nothing. */
  readonly kind: FileFacts['kind'] | null
  readonly failedArray: string | null
}

/** What a disk image is, or why that cannot be told. */
export type ObservedImage =
  | Pick<DiskFacts, 'path' | 'format' | 'virtualBytes' | 'backing' | 'dataFile' | 'isCorrupt'>
  | { readonly path: string; readonly objection: string }

/** One declared VM as it is. */
export interface ObservedMachine {
  readonly name: string
  readonly domain: DomainFacts | null
  /** By the folder of each pool that it has files in; the home folder first. */
  readonly owners: Readonly<{ [folder: string]: Record }>
  readonly files: readonly ObservedFile[]
  /** By the name of a disk that Garrison makes: the image that the VM writes to now, which may be a snapshot of the declared file. */
  readonly images: Readonly<{ [disk: string]: ObservedImage }>
  /** By the path that a disk has now where it is not the declared one: the images that it stands on, the nearest first. */
  readonly chains: Readonly<{ [path: string]: readonly string[] }>
  /** The instance-id of the seed that is there, or null. */
  readonly seed: string | null
  /** What the declaration has from its template, as paths below the VM. */
  readonly fromTemplate: readonly string[]
}

/** A VM that is not declared. */
export type Undeclared = Pick<DomainFacts, 'name' | 'uuid' | 'power'>

/** Everything that plan and check know of VMs. */
export interface ObservedVms {
  /** What was declared when it was looked at; null when nothing was, and then nothing was asked. */
  readonly asked: DesiredVms | null
  /** The host's clock where drift is accepted until a day, else null. */
  readonly nowMs: number | null
  /** The EC2 instance-id or machine-id of this host. */
  readonly host: string
  readonly architecture: string
  readonly pools: readonly ObservedPool[]
  readonly networks: readonly Pick<NetworkFacts, 'name' | 'active' | 'autostart' | 'bridge'>[]
  readonly machines: readonly ObservedMachine[]
  readonly undeclared: readonly Undeclared[]
  /** Images that disks begin as, by their path, as far as they are there. */
  readonly baseImages: Readonly<{ [path: string]: ObservedImage }>
  /** The hook that keeps libvirt from starting a VM of another host; null where it is not there, or no pool is shared. */
  readonly guard: string | null
}

const nothing: ObservedVms = {
  asked: null,
  nowMs: null,
  host: '',
  architecture: '',
  pools: [],
  networks: [],
  machines: [],
  undeclared: [],
  baseImages: {},
  guard: null,
}

/** So many VMs are looked at side by side; the host has other things to do. */
const sideBySide = 4

async function inTurns<One, Result>(
  all: readonly One[],
  work: (one: One) => Promise<Result>,
): Promise<readonly Result[]> {
  const results: Result[] = []
  for (let at = 0; at < all.length; at += sideBySide)
    results.push(...(await Promise.all(all.slice(at, at + sideBySide).map(work))))
  return results
}

async function observeArchitecture(reader: HostReader): Promise<string> {
  const { exit, stdout } = await reader.query(['/usr/bin/uname', '--machine'])
  const architecture = stdout.trim()
  if (exit !== 0 || !/^\w+$/.test(architecture))
    throw new HostError('host.unexpected-answer', `uname ended with ${exit} and named no architecture`)
  return architecture
}

/** The declared volume that a path lies on. */
const declaredMount = ({ volumes }: Desired, path: string): string | null =>
  Object.values(volumes?.logical ?? {})
    .flatMap(({ mount }) => mount ?? [])
    .filter((mount) => path === mount || path.startsWith(`${mount}/`))
    .sort((a, b) => b.length - a.length)[0] ?? null

async function observePool(
  reader: HostReader,
  mounts: readonly Mount[],
  pools: readonly PoolFacts[],
  desired: Desired,
  name: string,
  { path, mountpoint }: DesiredVms['pools'][string],
): Promise<ObservedPool> {
  const needed = mountpoint ?? declaredMount(desired, path)
  const mount = mountOf(mounts, path)
  const isMounted =
    needed === null || mount?.mountpoint === needed || mount?.mountpoint.startsWith(`${needed}/`)
  return {
    name,
    known: pools.find((pool) => pool.name === name) ?? null,
    rival: pools.find((pool) => pool.name !== name && pool.path === path)?.name ?? null,
    unmounted: isMounted ? null : needed,
    readOnly: mount !== undefined && [...mount.options, ...mount.superOptions].includes('ro'),
    failedArray: mount === undefined ? null : await failedArrayOf(reader, mount),
    folder: (await reader.facts(path))?.kind ?? null,
    shared: mount !== undefined && isShared(mount),
  }
}

/** A header with its extensions and the name of a backing file seldom needs more. */
const headerBytes = 4096

/** What qemu-img says of an image whose first bytes do not say it all. */
async function askQemuImg(reader: HostReader, path: string): Promise<ObservedImage> {
  try {
    const { format, virtualBytes, backing, dataFile, isCorrupt } = parseQemuImg(
      await reader.query(qemuImg(path, 'qcow2')),
    )
    return { path, format, virtualBytes, backing, dataFile, isCorrupt }
  } catch (error) {
    // The image says what is wrong with it, and no more can be known of it; the host is no less readable for that.
    if (error instanceof HostError && error.code === 'host.unreadable')
      return { path, objection: error.message }
    throw error
  }
}

/**
 * What an image is that is there, by its header: a host is looked at after every step, and a process for each disk each time would
 * take longer than the steps do.
 */
export async function observeImage(reader: HostReader, path: string, format: string): Promise<ObservedImage> {
  if (format === 'raw') {
    const virtualBytes = (await reader.facts(path))?.sizeBytes ?? 0
    return { path, format, virtualBytes, backing: null, dataFile: null, isCorrupt: false }
  }
  if (format !== 'qcow2') return { path, objection: `its format is ${format}` }
  const header = parseQcow2(Buffer.from((await reader.head(path, headerBytes)) ?? '', 'base64'))
  if (header === null) return { path, objection: 'it does not begin as a qcow2 image does' }
  if (!header.isWhole) return askQemuImg(reader, path)
  const { virtualBytes, backing, backingFormat, hasDataFile, isCorrupt } = header
  // QEMU takes a relative name from the folder of the image, and `json:…` or `nbd:…` for no name at all.
  const isRelative = backing !== null && !backing.startsWith('/') && !/^[\w+.-]+:/.test(backing)
  return {
    ...{ path, format, virtualBytes, isCorrupt },
    backing:
      backing === null
        ? null
        : { path: isRelative ? `${folderOf(path)}/${backing}` : backing, format: backingFormat },
    dataFile: hasDataFile ? 'another file' : null,
  }
}

const longestChain = 64

/** What an image stands on, the nearest first. */
async function observeChain(reader: HostReader, image: ObservedImage): Promise<readonly string[]> {
  const chain: string[] = []
  let top = image
  while ('backing' in top && top.backing !== null && chain.length < longestChain) {
    const { path, format } = top.backing
    chain.push(path)
    if (!path.startsWith('/')) break
    top = await observeImage(reader, path, format ?? 'unknown')
  }
  return chain
}

interface Defined {
  readonly name: string | null
  readonly path: string
  readonly format: string
}

/** The disks of a definition that are files or devices. One that cannot be read has none here; plan says what is wrong with it. */
function definedDisks(domain: DomainFacts | null): readonly Defined[] {
  if (domain === null) return []
  try {
    return readDefinition(domain.xml).model.disks.flatMap(({ name, source, format }) =>
      source !== null && ['file', 'block'].includes(source.kind) ? [{ name, path: source.at, format }] : [],
    )
  } catch (error) {
    if (error instanceof XmlError) return []
    throw error
  }
}

/** What a declaration has from a template: the files of those are named by absolute paths, the document's are not. */
const fromTemplate = ({ sources }: Desired, name: string): readonly string[] => {
  const above = `vms.machines.${name}.`
  return Object.entries(sources).flatMap(([path, source]) =>
    path.startsWith(above) && source.startsWith('/') ? [path.slice(above.length)] : [],
  )
}

const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'))

async function observeFile(
  reader: HostReader,
  mounts: readonly Mount[],
  path: string,
): Promise<ObservedFile> {
  const kind = (await reader.facts(path))?.kind ?? null
  const mount = mountOf(mounts, path)
  if (kind === 'block') return { path, kind, failedArray: await failedArrayOfDevice(reader, path) }
  return { path, kind, failedArray: mount === undefined ? null : await failedArrayOf(reader, mount) }
}

async function observeMachine(
  reader: HostReader,
  mounts: readonly Mount[],
  desired: Desired,
  vms: DesiredVms,
  domains: readonly DomainFacts[],
  [name, machine]: readonly [string, Machine],
): Promise<ObservedMachine> {
  const domain = domains.find((one) => one.name === name) ?? null
  const defined = definedDisks(domain)
  const declared = Object.entries(machine.disks).flatMap(([disk, { path, format }]) => {
    const place = diskPath(vms, name, machine, disk)
    return place === null ? [] : [{ disk, path: place, format, isMade: path === undefined }]
  })
  const home = vms.pools[homePool(vms, machine) ?? '']
  const seed = seedPath(vms, name, machine)
  const folders = new Set([
    ...(home === undefined ? [] : [machineFolder(home.path, name)]),
    ...declared.flatMap(({ path, isMade }) => (isMade ? [folderOf(path)] : [])),
  ])
  const owners: { [folder: string]: Record } = {}
  for (const folder of folders) owners[folder] = await observeOwner(reader, folder, name)
  const files: ObservedFile[] = []
  for (const path of new Set([...declared, ...defined].map((one) => one.path)))
    files.push(await observeFile(reader, mounts, path))
  const isSeen = (path: string): boolean => files.some((file) => file.path === path)
  const isThere = (path: string): boolean => files.some((file) => file.path === path && file.kind !== null)
  const images: { [disk: string]: ObservedImage } = {}
  const chains: { [path: string]: readonly string[] } = {}
  for (const { disk, path, format, isMade } of declared) {
    const now = defined.find((one) => one.name === disk) ?? defined.find((one) => one.path === path)
    const top = now ?? { path, format }
    if (!isThere(top.path) || (!isMade && top.path === path)) continue
    const image = await observeImage(reader, top.path, top.format)
    if (isMade) images[disk] = image
    const base = 'backing' in image ? image.backing?.path : undefined
    if (base?.startsWith('/') && !isSeen(base)) files.push(await observeFile(reader, mounts, base))
    if (top.path !== path) chains[top.path] = await observeChain(reader, image)
  }
  return {
    name,
    domain,
    owners,
    files,
    images,
    chains,
    seed:
      seed === null || (await reader.facts(seed)) === null
        ? null
        : ((await reader.readText(seedMark(seed)))?.trim() ?? null),
    fromTemplate: fromTemplate(desired, name),
  }
}

/** The images that declared disks begin as and that are there already. */
async function observeBaseImages(
  reader: HostReader,
  vms: DesiredVms,
): Promise<Readonly<{ [path: string]: ObservedImage }>> {
  const wanted = new Map<string, DiskFormat>()
  for (const machine of Object.values(vms.machines))
    for (const { image, pool } of Object.values(machine.disks)) {
      const place = vms.pools[pool ?? homePool(vms, machine) ?? '']
      if (image !== undefined && place !== undefined)
        wanted.set(`${place.path}/${imageFileName(image)}`, image.format)
    }
  const images: { [path: string]: ObservedImage } = {}
  for (const [path, format] of wanted)
    if ((await reader.facts(path)) !== null) images[path] = await observeImage(reader, path, format)
  return images
}

/** Observes VMs. Asks nothing when none are declared. Throws `libvirt.unreachable`: unknown is not off. */
export async function observe(reader: HostReader, desired: Desired): Promise<ObservedVms> {
  const { vms } = desired
  if (vms === undefined) return nothing
  const [domains, pools, networks] = await Promise.all([reader.domains(), reader.pools(), reader.networks()])
  const mounts = await observeMounts(reader)
  const declared = Object.keys(vms.machines)
  const places = await inTurns(Object.entries(vms.pools), ([name, pool]) =>
    observePool(reader, mounts, pools, desired, name, pool),
  )
  return {
    asked: vms,
    nowMs: Object.keys(vms.accepted).length > 0 ? await reader.now() : null,
    host: await recordedHost(reader),
    architecture: await observeArchitecture(reader),
    pools: places,
    networks: networks.map(({ name, active, autostart, bridge }) => ({ name, active, autostart, bridge })),
    machines: await inTurns(Object.entries(vms.machines), (entry) =>
      observeMachine(reader, mounts, desired, vms, domains, entry),
    ),
    undeclared: domains
      .filter(({ name }) => !declared.includes(name))
      .map(({ name, uuid, power }) => ({ name, uuid, power })),
    baseImages: await observeBaseImages(reader, vms),
    guard: places.some(({ shared }) => shared) ? await reader.readText(guardPath) : null,
  }
}
