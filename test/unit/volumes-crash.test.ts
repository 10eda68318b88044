// Volumes against a host in memory: killed or without power before, inside and after every action, it always comes to the same end,
// and no byte that Garrison did not write is ever lost, hidden or formatted over.

import t from 'tap'
import { type Desired, type DesiredLogical, desiredSchema } from '../../provisioning/desired.ts'
import { converge } from '../../provisioning/engine.ts'
import type { HostReader, JournalEntry, Performer } from '../../provisioning/host.ts'
import type { Action, Resource } from '../../provisioning/resource.ts'
import { check, describe } from '../../provisioning/volumes/check.ts'
import { mountUnit } from '../../provisioning/volumes/mount-unit.ts'
import { asidePath, type ObservedVolumes } from '../../provisioning/volumes/observe.ts'
import { plan } from '../../provisioning/volumes/plan.ts'
import { PowerCut } from './simulated-host.ts'

const mebibyte = 2 ** 20
const extentBytes = 4 * mebibyte
const groupExtents = 1000

interface Filesystem {
  type: 'xfs' | 'ext4'
  uuid: string
  sizeBytes: number
  readonly files: Set<string>
}

interface Volume {
  extents: number
  readonly tags: Set<string>
  /** `torn`: mkfs was interrupted. */
  filesystem: Filesystem | 'torn' | null
}

/** What survives a power cut, but for `mounts` and the stage folders. */
interface World {
  label: 'blank' | 'torn' | 'orphan' | 'used' | 'grouped'
  readonly volumes: Map<string, Volume>
  /** Folders of the root filesystem by path, with the names in them. */
  readonly folders: Map<string, Set<string>>
  readonly files: Map<string, string>
  readonly enabled: Set<string>
  /** Mountpoint -> volume. */
  readonly mounts: Map<string, string>
  readonly journal: JournalEntry[]
}

const emptyWorld = (): World => ({
  label: 'blank',
  volumes: new Map(),
  folders: new Map(),
  files: new Map(),
  enabled: new Set(),
  mounts: new Map(),
  journal: [],
})

const desiredOf = (logical: Readonly<Record<string, Partial<DesiredLogical>>>): Desired => ({
  ...desiredSchema.parse({ version: 1, array: {}, volumes: { logical } }),
  sources: {},
})

const ownUuid = (name: string): string => `0000-${name}`

const unfinished = (world: World, wanted: string): boolean => {
  const last = world.journal.findLast((entry) => 'key' in entry && entry.key === wanted)
  return last?.kind === 'step-started'
}

function observeWorld(world: World, desired: Desired): ObservedVolumes {
  const grouped = world.label === 'grouped'
  const loose = world.label === 'orphan' || world.label === 'used'
  const physical = {
    uuid: 'pv',
    device: '/dev/md127',
    kernelName: 'md127',
    sizeBytes: groupExtents * extentBytes,
    deviceBytes: groupExtents * extentBytes + mebibyte,
    freeBytes: 0,
    dataOffsetBytes: mebibyte,
    attributes: grouped ? 'a--' : world.label === 'used' ? 'u--' : '---',
  }
  const taken = [...world.volumes.values()].reduce((sum, { extents }) => sum + extents, 0)
  const wanted = desired.volumes?.logical ?? {}
  const logicalOf = (name: string) => {
    const volume = world.volumes.get(name)
    return volume === undefined
      ? null
      : {
          uuid: name,
          name,
          path: `/dev/garrison/${name}`,
          mapperPath: `/dev/mapper/garrison-${name}`,
          attributes: '-wi-a-----',
          sizeBytes: volume.extents * extentBytes,
          layout: ['linear'],
          tags: [...volume.tags],
          active: true,
          number: `253:${name}`,
          pool: null,
          segments: [],
        }
  }
  return {
    groupName: 'garrison',
    groups: grouped
      ? [
          {
            uuid: 'vg',
            name: 'garrison',
            attributes: 'wz--n-',
            sizeBytes: groupExtents * extentBytes,
            freeBytes: (groupExtents - taken) * extentBytes,
            extentBytes,
            tags: [],
            physical: [physical],
            logical: [...world.volumes.keys()].flatMap((name) => logicalOf(name) ?? []),
          },
        ]
      : [],
    nameTaken: false,
    array: {
      path: '/dev/md/garrison',
      kernelName: 'md127',
      geometry: { chunkBytes: 512 * 1024, dataMembers: 2 },
      loose: loose ? physical : null,
      content: grouped || loose ? null : { signature: null, nonZeroAt: world.label === 'torn' ? 4096 : null },
    },
    interrupted: unfinished(world, 'volumes.group'),
    volumes: Object.entries(wanted).map(([name, { mount: path, filesystem }]) => {
      const volume = world.volumes.get(name)
      const made = volume?.filesystem
      const there = made === 'torn' || made === undefined ? null : made
      const mountpoints = [...world.mounts].flatMap(([at, mounted]) => (mounted === name ? [at] : []))
      const unit = mountUnit({
        name,
        group: 'garrison',
        path: path ?? '/',
        uuid: there?.uuid ?? ownUuid(name),
        filesystem,
      })
      const mounted = path === undefined ? undefined : world.mounts.get(path)
      const ours = mounted === name
      return {
        name,
        device: `/dev/garrison/${name}`,
        ownUuid: ownUuid(name),
        logical: logicalOf(name),
        signature: there === null ? null : { type: there.type, uuid: there.uuid },
        exclusive: volume?.tags.has('garrison.unformatted')
          ? mountpoints.length > 0
            ? 'busy'
            : 'free'
          : null,
        mountpoints,
        filesystemBytes: ours ? (there?.sizeBytes ?? null) : null,
        place:
          path === undefined
            ? null
            : {
                path,
                realPath: path,
                unit,
                unitText: world.files.get(unit.path) ?? null,
                deviceText: world.files.get(unit.devicePath) ?? null,
                enabled: world.enabled.has(unit.name),
                fstabLine: null,
                occupant: mounted === undefined ? null : { source: mounted, ours, readOnly: false },
                folder: mounted === undefined ? ([...(world.folders.get(path) ?? [])].sort() ?? null) : null,
                aside: world.folders.has(asidePath(path)),
                users: [],
                below: [],
                root: ours ? { mode: 0o755, uid: 0, gid: 0 } : null,
                owner: { name: 'root', id: 0 },
                group: { name: 'root', id: 0 },
                label: null,
                capacity: null,
              },
      }
    }),
    undeclared: [...world.volumes.keys()].filter((name) => !(name in wanted)),
    lost: [],
  }
}

/** What the tools do, in pieces; between two of them the power may go. Throws what the engine takes for a failed action. */
function tool(world: World, action: Action): readonly (() => void)[] {
  const volumeOf = (path: string | undefined): Volume => {
    const volume = world.volumes.get(path?.split('/').at(-1) ?? '')
    if (volume === undefined) throw new Error(`no volume ${path}`)
    return volume
  }
  const filesystemOf = (name: string): Filesystem => {
    const { filesystem } = volumeOf(name)
    if (filesystem === null || filesystem === 'torn') throw new Error(`${name} cannot be mounted`)
    return filesystem
  }
  switch (action.kind) {
    case 'write':
      return [() => world.files.set(action.path, action.content)]
    case 'folder':
      return [() => world.folders.set(action.path, world.folders.get(action.path) ?? new Set())]
    case 'move':
      return [
        () => {
          const names = world.folders.get(action.from)
          if (names === undefined || world.folders.has(action.to)) throw new Error('cannot be moved')
          world.folders.delete(action.from)
          world.folders.set(action.to, names)
        },
      ]
    case 'run':
      break
    default:
      throw new Error(`the simulated host cannot ${action.kind}`)
  }
  const { argv, stdin } = action
  const [program, ...args] = argv
  const last = args.at(-1) ?? ''
  const optionOf = (option: string): string => args[args.indexOf(option) + 1] ?? ''
  switch (program) {
    case '/usr/sbin/wipefs':
      return [
        () => {
          if (world.label === 'grouped') throw new Error('in use')
          world.label = 'torn'
        },
      ]
    case '/usr/sbin/vgcreate':
      if (stdin !== 'n\n') throw new Error('asks')
      if (world.label === 'used') throw new Error('marked as used')
      return (['torn', 'orphan', 'used', 'grouped'] as const)
        .filter((label) => world.label !== 'orphan' || label !== 'torn')
        .map((label) => () => {
          world.label = label
        })
    case '/usr/sbin/lvcreate': {
      const name = optionOf('--name')
      if (world.volumes.has(name)) throw new Error('exists')
      const tags = new Set(args.includes('--addtag') ? [optionOf('--addtag')] : [])
      return [
        () => world.volumes.set(name, { extents: Number(optionOf('--extents')), tags, filesystem: null }),
      ]
    }
    case '/usr/sbin/lvextend':
      return [
        () => {
          volumeOf(last).extents = Number(optionOf('--extents'))
        },
      ]
    case '/usr/sbin/lvchange':
      return [
        () => {
          const { tags } = volumeOf(last)
          tags.delete(optionOf('--deltag'))
          if (args.includes('--addtag')) tags.add(optionOf('--addtag'))
        },
      ]
    case '/usr/sbin/mkfs.xfs':
    case '/usr/sbin/mkfs.ext4': {
      const volume = volumeOf(last)
      const type = program === '/usr/sbin/mkfs.xfs' ? 'xfs' : 'ext4'
      const uuid = type === 'xfs' ? optionOf('-m').replace('uuid=', '') : optionOf('-U')
      if ([...world.mounts.values()].includes(last.split('/').at(-1) ?? '')) throw new Error('is mounted')
      return [
        () => {
          volume.filesystem = 'torn'
        },
        () => {
          volume.filesystem = { type, uuid, sizeBytes: volume.extents * extentBytes, files: new Set() }
        },
      ]
    }
    case '/usr/bin/mount':
      filesystemOf(args.at(-2) ?? '')
      return [() => world.mounts.set(last, args.at(-2)?.split('/').at(-1) ?? '')]
    case '/usr/bin/umount':
      return [() => world.mounts.delete(last)]
    case '/usr/bin/cp': {
      const names = [...(world.folders.get(args.at(-2) ?? '') ?? [])]
      const { files } = filesystemOf(world.mounts.get(last) ?? '')
      return names.map((name) => () => files.add(name))
    }
    case '/usr/bin/sync':
      return [() => undefined]
    case '/usr/sbin/xfs_growfs':
    case '/usr/sbin/resize2fs':
      return [
        () => {
          const name = program === '/usr/sbin/xfs_growfs' ? (world.mounts.get(last) ?? '') : last
          filesystemOf(name).sizeBytes = volumeOf(name).extents * extentBytes
        },
      ]
    case '/usr/bin/systemctl': {
      if (args[0] === 'daemon-reload') return [() => undefined]
      if (args[0] === 'enable') return [() => world.enabled.add(last)]
      return [() => mountByUnit(world, last)]
    }
    default:
      throw new Error(`the simulated host has no ${program}`)
  }
}

/** What PID 1 does with a mount unit: finds the filesystem by its UUID and mounts it. */
function mountByUnit(world: World, unit: string): void {
  const text = world.files.get(`/etc/systemd/system/${unit}`) ?? ''
  const [, uuid] = /^What=\/dev\/disk\/by-uuid\/(.+)$/m.exec(text) ?? []
  const [, where] = /^Where=(.+)$/m.exec(text) ?? []
  const found = [...world.volumes].find(
    ([, { filesystem }]) => filesystem !== null && filesystem !== 'torn' && filesystem.uuid === uuid,
  )
  if (where === undefined || found === undefined) throw new Error(`${unit} failed`)
  world.mounts.set(where, found[0])
}

const unused = (): never => {
  throw new Error('observed by other means')
}

const reader: HostReader = {
  query: unused,
  readText: unused,
  list: unused,
  resolve: unused,
  facts: unused,
  head: unused,
  capacity: unused,
  mountTables: unused,
  sample: unused,
  exclusive: unused,
  ioActivity: unused,
  unfinishedSteps: unused,
  lockHolder: unused,
  now: unused,
  domains: unused,
  pools: unused,
  networks: unused,
  instance: unused,
  instanceEvents: unused,
  ec2Network: unused,
}

const resourceOf = (world: World): Resource<ObservedVolumes> => ({
  id: 'volumes',
  needs: [],
  declared: () => true,
  observe: async (_, desired) => observeWorld(world, desired),
  plan,
  check,
  describe,
})

/** Applies to the end or until the `cutAt`-th point where the power may go. Says how it ended and how many points there were. */
async function apply(world: World, desired: Desired, cutAt = Number.POSITIVE_INFINITY) {
  let points = 0
  const point = (): void => {
    points += 1
    if (points >= cutAt) throw new PowerCut()
  }
  const performer: Performer = {
    async perform(action) {
      point()
      for (const piece of tool(world, action)) {
        piece()
        point()
      }
      return { kind: action.kind, summary: '', durationMs: 0 }
    },
    async claim(devices, work) {
      for (const device of devices)
        if ([...world.mounts.values()].some((name) => device === `/dev/garrison/${name}`))
          throw new Error('busy')
      return work()
    },
  }
  const journal = {
    async append(entry: JournalEntry) {
      point()
      world.journal.push(entry)
      point()
    },
  }
  const keys: string[] = []
  try {
    for await (const event of converge({
      resources: [resourceOf(world) as Resource],
      reader,
      desired,
      clock: () => 0,
      performer,
      journal,
      request: { who: 'test', allow: 'safe' },
      apply: 'a',
      instance: 'i-test',
      desiredDigest: '',
      signal: new AbortController().signal,
    })) {
      if (event.event === 'step-done') keys.push(event.key)
      if (event.event === 'finished')
        return { outcome: event.outcome, points, keys, left: event.left, problems: event.problems }
    }
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error
  }
  return { outcome: 'cut', points, keys, left: [], problems: [] } as const
}

/** After a power cut: what was mounted by hand is gone, enabled units are mounted again, /run is empty. */
function boot(world: World): void {
  world.mounts.clear()
  for (const path of [...world.folders.keys()]) if (path.startsWith('/run/')) world.folders.delete(path)
  for (const unit of world.enabled) mountByUnit(world, unit)
}

/** Everything that must be the same at the end whatever happened on the way. */
const shape = (world: World): unknown => ({
  label: world.label,
  volumes: [...world.volumes].map(([name, { extents, tags, filesystem }]) => [
    name,
    extents,
    [...tags],
    filesystem === 'torn' || filesystem === null
      ? filesystem
      : { ...filesystem, files: [...filesystem.files].sort() },
  ]),
  folders: [...world.folders]
    .filter(([path]) => !path.startsWith('/run/'))
    .map(([path, names]) => [path, [...names].sort()])
    .sort(),
  files: [...world.files].sort(),
  enabled: [...world.enabled].sort(),
  mounts: [...world.mounts].sort(),
})

const images = '/var/lib/libvirt/images'

const scenarios: Readonly<
  Record<string, { desired: Desired; start: () => World; after?: (world: World) => string[] }>
> = {
  'from a blank array': {
    desired: desiredOf({
      images: { share: 40, mount: images },
      backup: { size: '200MiB', filesystem: 'ext4', mount: '/srv/backup' },
      raw: { size: '100MiB' },
    }),
    start: emptyWorld,
  },
  'moving the content of a folder': {
    desired: desiredOf({ images: { share: 40, mount: images, onContent: 'move' } }),
    start: () => {
      const world = emptyWorld()
      world.folders.set(images, new Set(['a.qcow2', 'b.qcow2', 'c.qcow2']))
      return world
    },
  },
  'growing a volume that is in use': {
    desired: desiredOf({ images: { share: 80, mount: images }, raw: { size: '100MiB' } }),
    start: () => {
      const world = emptyWorld()
      world.label = 'grouped'
      world.volumes.set('images', {
        extents: 100,
        tags: new Set(),
        filesystem: {
          type: 'xfs',
          uuid: 'adopted',
          sizeBytes: 100 * extentBytes,
          files: new Set(['vm.qcow2']),
        },
      })
      world.volumes.set('raw', { extents: 25, tags: new Set(), filesystem: null })
      return world
    },
  },
}

for (const [name, { desired, start }] of Object.entries(scenarios)) {
  t.test(name, async (t) => {
    const calm = start()
    const first = await apply(calm, desired)
    t.match(first, { outcome: 'settled', left: [], problems: [] })
    t.ok(first.keys.length > 1, first.keys.join(', '))
    const again = await apply(calm, desired)
    t.same([again.outcome, again.keys], ['settled', []], 'a second apply does nothing')
    const end = shape(calm)
    const precious = [...start().folders.values(), ...[...start().volumes.values()].map(filesOf)].flatMap(
      (names) => [...names],
    )
    let crashes = 0
    for (const kind of ['kill', 'power'] as const) {
      for (let one = 1; one <= first.points; one += 1) {
        for (const two of [Number.POSITIVE_INFINITY, 3, 7, 12]) {
          const world = start()
          for (const cutAt of [one, two]) {
            if ((await apply(world, desired, cutAt)).outcome !== 'cut') continue
            crashes += 1
            if (kind === 'power') boot(world)
            const kept = new Set(
              [...world.folders.values(), ...[...world.volumes.values()].map(filesOf)].flatMap((names) => [
                ...names,
              ]),
            )
            if (!precious.every((file) => kept.has(file))) t.fail(`${kind} at ${one}, ${two} lost content`)
          }
          const last = await apply(world, desired)
          if (last.outcome !== 'settled')
            t.fail(`${kind} at ${one}, ${two}: ${last.outcome}`, { left: last.left, problems: last.problems })
          else if (JSON.stringify(shape(world)) !== JSON.stringify(end))
            t.same(shape(world), end, `${kind} at ${one}, ${two}`)
        }
      }
    }
    t.ok(crashes > 200, `${crashes} crashes`)
  })
}

function filesOf({ filesystem }: Volume): ReadonlySet<string> {
  return filesystem === null || filesystem === 'torn' ? new Set() : filesystem.files
}
