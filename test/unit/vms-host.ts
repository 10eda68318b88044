// A host with libvirt in memory: files, pools and VMs that a HostReader reads and a Performer changes, with power cuts at every point.

import { type Desired, desiredSchema } from '../../provisioning/desired.ts'
import { converge } from '../../provisioning/engine.ts'
import type {
  DomainFacts,
  HostReader,
  JournalEntry,
  NetworkFacts,
  Performer,
  PoolFacts,
  Request,
} from '../../provisioning/host.ts'
import {
  at,
  element,
  elementsOf,
  insert,
  parseXml,
  printXml,
  textOf,
  xmlDigest,
} from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action, Resource } from '../../provisioning/resource.ts'
import { vms } from '../../provisioning/vms/index.ts'
import { readsNoCloud } from './no-cloud.ts'
import { PowerCut } from './simulated-host.ts'

/** A file in memory; one with `image` is what qemu-img made. */
export interface FileNode {
  kind: 'file' | 'folder' | 'block'
  text: string
  image?: { format: string; virtualBytes: number; backing: string | null; torn?: boolean }
}

/** One VM as libvirt keeps it. `live` and `power` do not survive a power cut. */
export interface DomainNode {
  readonly uuid: string
  name: string
  xml: string
  live: string | null
  power: DomainFacts['power']
  reason: string
  autostart: boolean
  persistent: boolean
  managedSave: boolean
  hasSecrets: boolean
}

/** The host. Everything but what runs survives a power cut. */
export interface VmWorld {
  readonly files: Map<string, FileNode>
  readonly domains: Map<string, DomainNode>
  readonly pools: Map<string, PoolFacts>
  readonly networks: NetworkFacts[]
  readonly journal: JournalEntry[]
  /** How often each VM was started. */
  readonly starts: Map<string, number>
  mountinfo: string
  nowMs: number
  host: string
  architecture: string
  /** Why libvirt does not answer. */
  unreachable: HostError | null
}

/** The mountinfo of a host with one volume. */
export const mountinfo = `1 0 8:1 / / rw - ext4 /dev/root rw
2 1 253:0 / /srv/vms rw - xfs /dev/mapper/garrison-vms rw
`

/** A host that is ready for VMs and has none. */
export const emptyWorld = (): VmWorld => ({
  files: new Map([
    ['/srv/vms', { kind: 'folder', text: '' }],
    ['/sys/dev/block/253:0', { kind: 'folder', text: '' }],
  ]),
  domains: new Map(),
  pools: new Map(),
  networks: [
    {
      ...{ name: 'default', uuid: 'c0ffee00-0000-4000-8000-000000000001', bridge: 'virbr0' },
      ...{ active: true, autostart: true, persistent: true, xml: '<network/>', liveXml: '<network/>' },
    },
  ],
  journal: [],
  starts: new Map(),
  mountinfo,
  nowMs: Date.UTC(2027, 0, 15),
  host: 'i-0123456789abcdef0',
  architecture: 'x86_64',
  unreachable: null,
})

/** A document with these VMs in a pool at /srv/vms. */
export const desiredVms = (
  machines: Readonly<Record<string, object>>,
  more: object = {},
  sources: Desired['sources'] = {},
): Desired => ({
  ...desiredSchema.parse({
    version: 1,
    vms: { pools: { vms: { path: '/srv/vms', mountpoint: '/srv/vms' } }, machines, ...more },
  }),
  sources,
})

const absent = (world: VmWorld, path: string): boolean => !world.files.has(path)

/** The first bytes of a qcow2 image (QEMU's docs/interop/qcow2.txt), version 3, with its backing file and the format of that. */
function qcow2Head(image: NonNullable<FileNode['image']>, backingFormat: string): Buffer {
  const bytes = Buffer.alloc(1024)
  bytes.write('QFI\xfb', 'latin1')
  bytes.writeUInt32BE(3, 4)
  bytes.writeBigUInt64BE(BigInt(image.virtualBytes), 24)
  bytes.writeUInt32BE(104, 100)
  if (image.backing === null) return bytes
  bytes.writeUInt32BE(0xe2792aca, 104)
  bytes.writeUInt32BE(backingFormat.length, 108)
  bytes.write(backingFormat, 112)
  bytes.writeBigUInt64BE(200n, 8)
  bytes.writeUInt32BE(Buffer.byteLength(image.backing), 16)
  bytes.write(image.backing, 200)
  return bytes
}

/** The first bytes of a file; of a raw disk there is nothing to be seen. */
function headOf(world: VmWorld, path: string): string | null {
  const file = world.files.get(path)
  if (file === undefined) return null
  const { image } = file
  if (image === undefined || image.torn || image.format !== 'qcow2')
    return Buffer.from(file.text).toString('base64')
  const backing = image.backing === null ? undefined : world.files.get(image.backing)
  return qcow2Head(image, backing?.image?.format ?? 'qcow2').toString('base64')
}

/** Reads the world. */
export function readerOf(world: VmWorld): HostReader {
  const unused = (): never => {
    throw new Error('the simulated host has no such thing')
  }
  const libvirt = <Answer>(answer: () => Answer) =>
    world.unreachable === null ? Promise.resolve(answer()) : Promise.reject(world.unreachable)
  return {
    async query([program]) {
      if (program === '/usr/bin/uname') return { exit: 0, stdout: `${world.architecture}\n`, stderr: '' }
      throw new Error(`not asked for: ${program}`)
    },
    async readText(path) {
      if (path === '/sys/class/dmi/id/board_asset_tag') return `${world.host}\n`
      return world.files.get(path)?.kind === 'file' ? (world.files.get(path)?.text ?? null) : null
    },
    async list(path) {
      if (world.files.get(path)?.kind !== 'folder') return null
      return [...world.files.keys()]
        .filter((one) => one.startsWith(`${path}/`) && !one.slice(path.length + 1).includes('/'))
        .map((one) => one.slice(path.length + 1))
        .sort()
    },
    resolve: async (path) => (absent(world, path) ? null : path),
    async facts(path) {
      const file = world.files.get(path)
      return file === undefined
        ? null
        : {
            kind: file.kind,
            sizeBytes: file.image?.virtualBytes ?? file.text.length,
            mode: 0,
            uid: 0,
            gid: 0,
            modifiedMs: 0,
          }
    },
    head: async (path) => headOf(world, path),
    capacity: unused,
    mountTables: async () => [{ pid: 1, own: true, mountinfo: world.mountinfo }],
    sample: unused,
    exclusive: unused,
    ioActivity: unused,
    unfinishedSteps: unused,
    lockHolder: unused,
    now: async () => world.nowMs,
    domains: () =>
      libvirt(() =>
        [...world.domains.values()].map(({ live, ...domain }): DomainFacts => ({ ...domain, liveXml: live })),
      ),
    pools: () => libvirt(() => [...world.pools.values()]),
    networks: () => libvirt(() => world.networks),
    ...readsNoCloud,
  }
}

/** What libvirt makes of a definition by itself: versions, addresses, controllers, an emulator. */
export function asLibvirt(xml: string): string {
  const { root } = parseXml(xml)
  const type = at(root, 'os', 'type')
  const machine = type?.attributes.get('machine')
  if (machine === 'q35' || machine === 'virt')
    type?.attributes.set('machine', machine === 'q35' ? 'pc-q35-7.2' : 'virt-7.2')
  if (at(root, 'currentMemory') === undefined)
    insert(root, element('currentMemory', { unit: 'KiB' }, [textOf(at(root, 'memory')) ?? '']))
  at(root, 'vcpu')?.attributes.set('placement', 'static')
  const devices = at(root, 'devices')
  if (devices === undefined) throw new Error('no devices')
  if (at(devices, 'emulator') === undefined)
    devices.children.unshift(element('emulator', {}, ['/usr/bin/qemu-system-x86_64']))
  elementsOf(devices).forEach((device, index) => {
    if (['disk', 'interface', 'serial', 'rng'].includes(device.name) && at(device, 'address') === undefined)
      insert(device, element('address', { type: 'pci', bus: `0x${index.toString(16)}` }))
  })
  if (at(devices, 'memballoon') === undefined) insert(devices, element('memballoon', { model: 'virtio' }))
  return printXml(root)
}

const failed = (message: string): never => {
  throw new HostError('action.failed', message)
}

const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('/'))

function makeFolders(world: VmWorld, path: string): void {
  if (path === '' || world.files.get(path)?.kind === 'folder') return
  if (world.files.has(path)) failed(`${path} is no folder`)
  makeFolders(world, parentOf(path))
  world.files.set(path, { kind: 'folder', text: '' })
}

/** What a run of qemu-img does, with a torn file in between. */
function* qemuImg(world: VmWorld, args: readonly string[]): Generator<void> {
  const verb = args[0]
  const operands = args.slice(args.indexOf('--') + 1)
  const option = (name: string): string | undefined =>
    args.includes(name) ? args[args.indexOf(name) + 1] : undefined
  const path = (verb === 'convert' ? operands[1] : operands[0]) ?? ''
  const file = world.files.get(path) ?? { kind: 'file' as const, text: '' }
  if (verb === 'resize') {
    const bytes = Number(operands[1])
    if (file.image === undefined || bytes < file.image.virtualBytes) failed('qemu-img: use --shrink')
    else file.image.virtualBytes = bytes
    return
  }
  if (absent(world, parentOf(path))) failed(`qemu-img: ${path}: No such file or directory`)
  world.files.set(path, { ...file, image: { format: 'raw', virtualBytes: 0, backing: null, torn: true } })
  yield
  if (verb === 'convert') {
    const from = world.files.get(operands[0] ?? '')?.image
    if (from === undefined || from.torn) failed('qemu-img: cannot read the image')
    world.files.set(path, {
      ...file,
      image: { format: option('-O') ?? 'raw', virtualBytes: from?.virtualBytes ?? 0, backing: null },
    })
    return
  }
  const backing = option('-b') ?? null
  const base = backing === null ? undefined : world.files.get(backing)?.image
  if (backing !== null && base === undefined) failed(`qemu-img: ${backing}: No such file or directory`)
  world.files.set(path, {
    ...file,
    image: {
      format: option('-f') ?? 'raw',
      virtualBytes: operands[1] === undefined ? (base?.virtualBytes ?? 0) : Number(operands[1]),
      backing,
    },
  })
}

/** Two hosts never run the same disk: what starts here is told apart by what else has it open. */
function start(world: VmWorld, domain: DomainNode): void {
  if (domain.live !== null) return
  for (const disk of elementsOf(at(parseXml(domain.xml).root, 'devices'), 'disk')) {
    const source = at(disk, 'source')?.attributes
    const path = source?.get('file') ?? source?.get('dev')
    if (path !== undefined && absent(world, path)) failed(`cannot access storage file '${path}'`)
  }
  domain.live = domain.xml
  domain.power = 'running'
  domain.reason = 'booted'
  world.starts.set(domain.name, (world.starts.get(domain.name) ?? 0) + 1)
}

function stop(domain: DomainNode): void {
  domain.live = null
  domain.power = 'off'
  domain.reason = 'shutdown'
}

function libvirt(world: VmWorld, action: Extract<Action, { kind: 'domain' }>): void {
  const domain = [...world.domains.values()].find(({ uuid }) => uuid === action.uuid)
  if (action.operation === 'define') {
    const { uuid, name, xml, replaces } = action
    const namesake = world.domains.get(name)
    if (namesake !== undefined && namesake.uuid !== uuid) failed(`domain '${name}' already exists`)
    if (domain !== undefined && domain.name !== name) failed(`domain ${uuid} is called ${domain.name}`)
    if ((domain === undefined ? null : xmlDigest(domain.xml)) !== replaces)
      failed('somebody else has changed the definition')
    if (domain !== undefined) {
      domain.xml = asLibvirt(xml)
      domain.persistent = true
      return
    }
    world.domains.set(name, {
      ...{ uuid, name, xml: asLibvirt(xml), live: null, power: 'off', reason: 'unknown' },
      ...{ autostart: false, persistent: true, managedSave: false, hasSecrets: false },
    })
    return
  }
  if (domain === undefined) throw new HostError('action.failed', `no domain ${action.uuid}`)
  if (action.operation === 'start') start(world, domain)
  else if (action.operation === 'shutdown' || action.operation === 'destroy') stop(domain)
  else if (action.operation === 'autostart') domain.autostart = action.enabled
  else if (action.operation === 'undefine') world.domains.delete(domain.name)
  else {
    const disk = elementsOf(at(parseXml(domain.live ?? '<a/>').root, 'devices'), 'disk').find(
      (one) => at(one, 'target')?.attributes.get('dev') === action.target,
    )
    const image = world.files.get(at(disk, 'source')?.attributes.get('file') ?? '')?.image
    if (image === undefined || action.sizeBytes < image.virtualBytes) failed('cannot resize')
    else image.virtualBytes = action.sizeBytes
  }
}

/** Does one action in pieces; the power may go between any two. */
function* pieces(world: VmWorld, action: Action): Generator<void> {
  switch (action.kind) {
    case 'folder':
      return makeFolders(world, action.path)
    case 'write':
      makeFolders(world, parentOf(action.path))
      world.files.set(action.path, { kind: 'file', text: action.content })
      return
    case 'remove':
      if ([...world.files.keys()].some((path) => path.startsWith(`${action.path}/`))) failed('not empty')
      world.files.delete(action.path)
      return
    case 'move': {
      const file = world.files.get(action.from)
      if (file === undefined) return failed(`${action.from} is not there`)
      if (world.files.has(action.to)) throw new HostError('file.exists', `${action.to} exists already`)
      world.files.set(action.to, file)
      world.files.delete(action.from)
      return
    }
    case 'fetch':
      if (world.files.has(action.path)) return
      world.files.set(action.path, {
        kind: 'file',
        text: action.source,
        image: { format: action.format ?? 'raw', virtualBytes: 2 ** 30, backing: null },
      })
      return
    case 'run': {
      const [program, ...args] = action.argv
      if (program === '/usr/bin/qemu-img') return yield* qemuImg(world, args)
      if (program === '/usr/bin/xorriso') {
        const folder = args.at(-1) ?? ''
        const text = [...world.files].flatMap(([path, file]) =>
          path.startsWith(`${folder}/`) ? file.text : [],
        )
        world.files.set(args[args.indexOf('-o') + 1] ?? '', { kind: 'file', text: text.sort().join('') })
        return
      }
      if (program === '/usr/bin/sync')
        return absent(world, args.at(-1) ?? '') ? failed('sync: no file') : undefined
      return failed(`not simulated: ${program}`)
    }
    case 'domain':
      return libvirt(world, action)
    case 'pool': {
      const known = world.pools.get(action.name)
      if (action.operation === 'define') {
        const path = textOf(at(parseXml(action.xml).root, 'target', 'path'))
        const made = { name: action.name, type: 'dir', path, active: false, autostart: false }
        world.pools.set(action.name, { ...made, capacityBytes: 0, freeBytes: 0 })
      } else if (known === undefined) failed(`no pool ${action.name}`)
      else if (action.operation === 'start') world.pools.set(action.name, { ...known, active: true })
      else world.pools.set(action.name, { ...known, autostart: action.enabled })
      return
    }
    default:
      return failed(`not simulated: ${action.kind}`)
  }
}

/** Applies to the end, or until the `cutAt`-th point where the power may go. */
export async function apply(
  world: VmWorld,
  desired: Desired,
  options: { readonly cutAt?: number; readonly allow?: Request['allow'] } = {},
) {
  const { cutAt = Number.POSITIVE_INFINITY, allow = 'safe' } = options
  let points = 0
  const point = (): void => {
    points += 1
    if (points >= cutAt) throw new PowerCut()
  }
  const performer: Performer = {
    async perform(action) {
      point()
      for (const _ of pieces(world, action)) point()
      point()
      return { kind: action.kind, summary: '', durationMs: 0 }
    },
    claim: (_, work) => work(),
  }
  const keys: string[] = []
  try {
    for await (const event of converge({
      ...{ resources: [{ ...vms, needs: [] } as Resource], reader: readerOf(world), desired, clock: () => 0 },
      performer,
      journal: {
        async append(entry) {
          point()
          world.journal.push(entry)
          point()
        },
      },
      ...{ request: { who: 'test', allow }, apply: 'a', instance: world.host, desiredDigest: '' },
      signal: new AbortController().signal,
    })) {
      if (event.event === 'step-done') keys.push(event.key)
      if (event.event === 'finished') return { ...event, points, keys }
    }
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error
  }
  return { outcome: 'cut', points, keys, left: [], problems: [], assessments: [] } as const
}

/** After a power cut: nothing runs but what starts with the host. */
export function boot(world: VmWorld): void {
  for (const domain of world.domains.values()) stop(domain)
  for (const domain of world.domains.values()) if (domain.autostart) start(world, domain)
}
