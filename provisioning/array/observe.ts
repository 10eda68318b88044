// Looks at every drive and every md array of the host: /proc, sysfs, udev's links, and the tools that read devices themselves.

import { blkid, type Probed, probedOf } from '../block/blkid.ts'
import { type BlockDevice, descendants, observeBlockDevices } from '../block/lsblk.ts'
import { type Mount, parseMountinfo } from '../block/mountinfo.ts'
import type { Desired, DesiredArray } from '../desired.ts'
import type { DriveSample, HostReader, IoActivity, LockHolder } from '../host.ts'
import { HostError } from '../problem.ts'
import { observeArray } from './arrays.ts'
import { Devices, mountOver, natural } from './devices.ts'
import { parseVmUses, type VmUse } from './domains.ts'
import { type MdSuperblock, mdadmExamine, parseMdadmExamine } from './mdadm.ts'
import { parseMdadmScan, rememberedArray } from './mdadm-conf.ts'
import { type MdstatProgress, parseMdstat } from './mdstat.ts'
import { type Naming, parseCrypttab, parseFstab, parseUnitWhat } from './names.ts'
import { nvmeSmartLog, parseSmartLog, type SmartLog } from './nvme.ts'
import { observeConf, observeInitramfs, observeLostVolumes } from './remembered.ts'
import { collect, type Unread } from './unread.ts'
import { parseWipefs, type Signature, wipefs } from './wipefs.ts'

/** What was read from a drive itself. A drive that is plainly in use is not probed; a null inside could not be read. */
export interface Probe {
  readonly signatures: readonly Signature[] | null
  readonly recognised: Probed | null
  readonly sample: DriveSample | null
  readonly exclusive: 'free' | 'busy' | null
  readonly activity: IoActivity | null
}

/** One drive: a whole disk, or a virtual one such as a loop device. Kernel names change between boots; serials do not. */
export interface Drive {
  readonly name: string
  readonly path: string
  readonly kind: 'disk' | 'virtual'
  readonly model: string | null
  readonly serial: string | null
  readonly wwn: string | null
  readonly sizeBytes: number
  readonly transport: string | null
  readonly readOnly: boolean
  readonly removable: boolean
  /** none, host-aware, host-managed. */
  readonly zoned: string | null
  /** Paths of the running system that stand on it: /, /boot, … */
  readonly system: readonly string[]
  /** Kernel names of its partitions. */
  readonly partitions: readonly string[]
  /** Names of what the kernel has stacked directly on it or on its partitions: md127, dm-3 (rl-root), … */
  readonly holders: readonly string[]
  /** Kernel names of the md arrays that it, or a partition of it, belongs to. */
  readonly arrays: readonly string[]
  /** Where it, or anything on it, is mounted; `pid` is a process that sees it when the host's own table does not. */
  readonly mounts: readonly { readonly path: string; readonly pid: number | null }[]
  /** Swap areas in use on it. */
  readonly swaps: readonly string[]
  readonly named: readonly Naming[]
  readonly vms: readonly { readonly kind: VmUse['kind']; readonly name: string; readonly as: string }[]
  readonly superblock: MdSuperblock | null
  readonly probe: Probe | null
  readonly smart: SmartLog | null
  readonly unread: readonly Unread[]
}

/** A member of an array. `drive` is the disk below it, null when the member has gone. */
export interface ArrayMember {
  readonly name: string
  readonly drive: string | null
  readonly slot: number | null
  readonly condition: 'active' | 'spare' | 'rebuilding' | 'replacement' | 'journal' | 'faulty'
}

/** One md array that the kernel knows. Facts that need root are null without it. */
export interface MdArray {
  readonly kernelName: string
  readonly path: string
  readonly active: boolean
  readonly readOnly: 'no' | 'auto' | 'yes'
  /** raid5, …; null for an inactive one, whose level is only in the superblocks. */
  readonly level: string | null
  readonly uuid: string | null
  readonly homehost: string | null
  readonly name: string | null
  readonly metadata: string
  readonly consistency: string | null
  readonly raidDevices: number | null
  readonly workingDevices: number | null
  readonly memberKib: number | null
  readonly dataOffsetSectors: number | null
  readonly failed: boolean
  readonly members: readonly ArrayMember[]
  readonly progress: MdstatProgress | null
  /** Sectors that differed at the last check. */
  readonly mismatches: number | null
  /** Names in /dev/md that lead to it. */
  readonly links: readonly string[]
  /** Whether something stands on it or has it mounted. */
  readonly used: boolean
  readonly system: readonly string[]
}

/** A volume of a lost array, and what stood on it. */
export interface LostVolume {
  readonly name: string
  readonly mount: string | null
  readonly domains: readonly string[]
}

/** A step of the journal that began on these drives and of which no end is written. */
export interface UnfinishedArray {
  readonly apply: string
  readonly key: string
  readonly instance: string
  readonly uuid: string | null
  readonly members: readonly string[]
}

/** Everything that selection, plan and check go by. */
export interface ArrayObserved {
  readonly wanted: DesiredArray | null
  readonly drives: readonly Drive[]
  readonly arrays: readonly MdArray[]
  /** For each by-id link of the document: the kernel name it leads to, or null. */
  readonly links: Readonly<Record<string, string | null>>
  readonly conf: {
    readonly path: string
    readonly text: string
    readonly remembered: {
      readonly device: string
      readonly uuid: string
      readonly members: readonly string[]
    } | null
    /** Drop-in files that name the same array or the same device. */
    readonly conflicts: readonly string[]
  }
  /** `stale`: images older than mdadm.conf. */
  readonly initramfs: {
    readonly tool: 'update-initramfs' | 'dracut' | null
    readonly stale: readonly string[]
  }
  readonly machineId: string
  /** The EC2 instance-id, or the machine-id. */
  readonly instance: string
  readonly wantedInstance: string | null
  readonly lockHolder: LockHolder | null
  readonly unfinished: readonly UnfinishedArray[]
  readonly udevSettled: boolean
  /** Files that a killed mdadm leaves: udev ignores the array as long as one is there. */
  readonly creating: readonly string[]
  readonly lostVolumes: readonly LostVolume[]
  /** Facts of the whole host that could not be read. */
  readonly unread: readonly Unread[]
}

const networkFilesystems = new Set(['nfs', 'nfs4', 'cifs', '9p', 'virtiofs', 'ceph'])
const systemPaths = ['/', '/boot', '/boot/efi', '/usr', '/var', '/etc/garrison', '/var/lib/garrison']
const unitFolders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/run/systemd/generator',
  '/run/systemd/generator.late',
  '/run/systemd/transient',
]

/** Reads the files that name devices; what is missing names nothing. */
async function namings(
  reader: HostReader,
  confs: readonly (readonly [string, string])[],
): Promise<readonly Naming[]> {
  const found: Naming[] = []
  const add = (kind: Naming['kind'], file: string, specs: readonly string[]) => {
    for (const spec of specs) found.push({ kind, file, spec })
  }
  add('fstab', '/etc/fstab', parseFstab((await reader.readText('/etc/fstab')) ?? ''))
  add('crypttab', '/etc/crypttab', parseCrypttab((await reader.readText('/etc/crypttab')) ?? ''))
  for (const [file, text] of confs) {
    const { arrays, devices } = parseMdadmScan(text)
    add('mdadm-conf', file, [
      ...devices,
      ...arrays.flatMap((array) => [
        ...array.devices,
        ...(array.uuid === null ? [] : [`ARRAY UUID=${array.uuid}`]),
      ]),
    ])
  }
  for (const folder of unitFolders)
    for (const name of (await reader.list(folder)) ?? [])
      if (/\.(mount|swap)$/.test(name)) {
        const file = `${folder}/${name}`
        add('unit', file, parseUnitWhat((await reader.readText(file)) ?? ''))
      }
  return found
}

async function vmUses(reader: HostReader): Promise<readonly VmUse[]> {
  const found: VmUse[] = []
  for (const folder of [
    '/etc/libvirt/qemu',
    '/run/libvirt/qemu',
    '/etc/libvirt/storage',
    '/run/libvirt/storage',
  ])
    for (const name of (await reader.list(folder)) ?? []) {
      if (!name.endsWith('.xml')) continue
      const file = `${folder}/${name}`
      const text = await reader.readText(file)
      if (text !== null) found.push(...parseVmUses(text, file))
    }
  return found
}

/** The PCI functions that a device hangs on. */
async function pciOf(reader: HostReader, kernelName: string): Promise<readonly string[]> {
  const sysfs = (await reader.resolve(`/sys/class/block/${kernelName}`)) ?? ''
  // An NVMe namespace with several paths lies under a virtual subsystem: its controller knows the bus.
  const controller = sysfs.startsWith('/sys/devices/virtual/nvme-subsystem/')
    ? ((await reader.resolve(`/sys/class/nvme/${/^nvme\d+/.exec(kernelName)?.[0]}`)) ?? '')
    : ''
  return [...`${sysfs}/${controller}`.matchAll(/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](?=\/|$)/g)].map(
    ([address]) => address,
  )
}

async function answerOf(reader: HostReader, argv: readonly [string, ...string[]]): Promise<string> {
  const { exit, stdout, stderr } = await reader.query(argv)
  if (exit !== 0)
    throw new HostError('host.unexpected-answer', `${argv.join(' ')} ended with ${exit}: ${stderr.trim()}`, {
      details: { argv, exit },
    })
  return stdout
}

/** Asks the drive itself. Never throws for what one drive does: that is this drive's unread fact. */
async function probe(
  reader: HostReader,
  path: string,
  activity: IoActivity | null,
  unread: Unread[],
): Promise<Probe> {
  const attempt = collect(unread)
  return {
    signatures: await attempt('signatures', async () => parseWipefs(await answerOf(reader, wipefs(path)))),
    recognised: await attempt('content', async () => probedOf(await reader.query(blkid(path)))),
    sample: await attempt('bytes', () => reader.sample(path)),
    exclusive: await attempt('exclusive open', () => reader.exclusive(path)),
    activity,
  }
}

/** The part of a journalled step that tells which array it was about. */
function unfinishedArray(
  because: readonly { readonly desired: unknown }[],
): Pick<UnfinishedArray, 'uuid' | 'members'> {
  for (const { desired } of because) {
    if (typeof desired !== 'object' || desired === null || !('members' in desired)) continue
    const { members } = desired
    if (!Array.isArray(members)) continue
    const uuid = 'uuid' in desired && typeof desired.uuid === 'string' ? desired.uuid : null
    return { uuid, members: members.flatMap((one) => (typeof one?.serial === 'string' ? [one.serial] : [])) }
  }
  return { uuid: null, members: [] }
}

/** Reads everything. Facts that cannot be read are named in `unread`, of one drive or of the host; nothing is guessed. */
export async function observe(reader: HostReader, desired: Desired): Promise<ArrayObserved> {
  const unread: Unread[] = []
  const attempt = collect(unread)
  const devices = new Devices(reader, await observeBlockDevices(reader))
  const mdstat = parseMdstat((await reader.readText('/proc/mdstat')) ?? '')
  const conf = await observeConf(reader)
  const remembered = rememberedArray(conf.text)

  const tables = (await attempt('mount namespaces', () => reader.mountTables())) ?? [
    { pid: 0, own: true, mountinfo: (await reader.readText('/proc/self/mountinfo')) ?? '' },
  ]
  const hostTable = tables.find(({ pid }) => pid === 1) ?? tables.find(({ own }) => own)
  const hostMounts = parseMountinfo(hostTable?.mountinfo ?? '')

  const overSystem = new Map<string, Mount>()
  for (const path of systemPaths) {
    const mount = mountOver(hostMounts, path)
    if (mount) overSystem.set(mount.mountpoint, mount)
  }
  const system: (readonly [string, readonly string[]])[] = []
  for (const [path, mount] of overSystem) {
    const names = await devices.ofMount(mount)
    if (names.length > 0) system.push([path, names])
    else if (path === '/' && !networkFilesystems.has(mount.fsType))
      unread.push({
        fact: 'drive of /',
        code: 'host.unexpected-answer',
        why: `/ is ${mount.fsType} from ${mount.source}, which is no known device`,
      })
  }

  // The private tables of services show the host's mounts again: elsewhere is what the host's own table has not.
  const mounted = new Map<string, { path: string; pid: number | null }[]>()
  for (const table of [...tables].sort(
    (one, other) => Number(other === hostTable) - Number(one === hostTable),
  )) {
    const pid = table === hostTable || table.own ? null : table.pid
    for (const mount of parseMountinfo(table.mountinfo))
      for (const name of await devices.ofMount(mount)) {
        const places = mounted.get(name) ?? []
        if (pid !== null && places.some((place) => place.pid === null)) continue
        if (!places.some(({ path }) => path === mount.mountpoint))
          mounted.set(name, [...places, { path: mount.mountpoint, pid }])
      }
  }

  const swapped: (readonly [string, string])[] = []
  for (const line of ((await reader.readText('/proc/swaps')) ?? '').split('\n').slice(1)) {
    const path = line.split(/\s/)[0]?.replace(/\\040/g, ' ')
    const name = path?.startsWith('/dev/') ? await devices.at(path) : null
    if (path !== undefined && name !== null) swapped.push([name, path])
  }

  const uses = (await attempt('libvirt definitions', () => vmUses(reader))) ?? []
  const naming =
    (await attempt('fstab, crypttab and units', () =>
      namings(reader, [[conf.path, conf.text], ...conf.dropIns]),
    )) ?? []
  const namedDevices: (readonly [Naming, readonly string[]])[] = []
  for (const one of naming) namedDevices.push([one, await devices.named(one.spec)])
  const usedDevices: (readonly [VmUse, string, readonly string[]])[] = []
  for (const use of uses)
    for (const path of use.paths)
      if (path.startsWith('/dev/')) usedDevices.push([use, path, await devices.named(path)])

  const links: (readonly [string, string | null])[] = []
  for (const name of (await reader.list('/dev/md')) ?? [])
    links.push([name, await devices.at(`/dev/md/${name}`)])

  const plain = [...devices.all.values()].filter(
    ({ type, name, mountpoints }) =>
      (type === 'disk' && !/^(zram|ram)\d/.test(name)) || (type === 'loop' && mountpoints.length === 0),
  )
  const bare: Drive[] = []
  for (const device of plain) bare.push(await observeInUse(device))
  const arrayOf = (name: string) => mdstat.find(({ kernelName }) => kernelName === name)
  const candidates = bare.filter(
    (drive) =>
      drive.system.length + drive.partitions.length + drive.mounts.length + drive.swaps.length === 0 &&
      drive.holders.every((holder) => arrayOf(holder)?.active === false) &&
      !drive.arrays.some((name) => arrayOf(name)?.active),
  )
  // Whether udev has settled matters only where something may be written.
  const settle =
    candidates.length === 0
      ? { exit: 0 }
      : await attempt('udev queue', () =>
          reader.query(['/usr/bin/udevadm', 'settle', '--timeout=10'], 15_000),
        )
  const activity =
    candidates.length === 0
      ? {}
      : ((await attempt('I/O counters', () => reader.ioActivity(candidates.map(({ name }) => name)))) ?? {})
  const drives = await Promise.all(
    bare.map(async (drive): Promise<Drive> => {
      const own: Unread[] = []
      const isCandidate = candidates.includes(drive)
      const hasHealth = drive.name.startsWith('nvme') && (isCandidate || drive.arrays.length > 0)
      return {
        ...drive,
        probe: isCandidate ? await probe(reader, drive.path, activity[drive.name] ?? null, own) : null,
        smart: hasHealth
          ? await collect(own)('health', async () =>
              parseSmartLog(await answerOf(reader, nvmeSmartLog(drive.path))),
            )
          : null,
        unread: own,
      }
    }),
  )
  const superblocks = await observeSuperblocks()
  const arrays: MdArray[] = []
  for (const array of mdstat) arrays.push(await observeArray(reader, array, devices, links, system, unread))

  const machineId = (await reader.readText('/etc/machine-id'))?.trim() ?? ''
  const assetTag = (await reader.readText('/sys/class/dmi/id/board_asset_tag'))?.trim() ?? ''
  const members = desired.array?.members ?? 'unused'
  const byId = members === 'unused' ? [] : members.flatMap((one) => ('byId' in one ? [one.byId] : []))
  const unfinished = (await attempt('journal', () => reader.unfinishedSteps())) ?? []
  const isSeen = (uuid: string): boolean =>
    arrays.some((array) => array.uuid === uuid) ||
    [...superblocks.values()].some((superblock) => superblock.uuid === uuid)
  return {
    wanted: desired.array ?? null,
    drives: drives.map((drive) => {
      const superblock = superblocks.get(drive.path) ?? null
      const byUuid = naming.filter(
        ({ spec }) => superblock !== null && spec === `ARRAY UUID=${superblock.uuid}`,
      )
      return { ...drive, superblock, named: [...drive.named, ...byUuid] }
    }),
    arrays,
    links: Object.fromEntries(
      await Promise.all(byId.map(async (path) => [path, await devices.at(path)] as const)),
    ),
    conf: {
      path: conf.path,
      text: conf.text,
      remembered,
      conflicts: conf.dropIns
        .filter(([, text]) =>
          parseMdadmScan(text).arrays.some(
            ({ uuid, device }) =>
              device === `/dev/md/${desired.array?.name}` || (uuid !== null && uuid === remembered?.uuid),
          ),
        )
        .map(([path]) => path),
    },
    initramfs: await observeInitramfs(reader, conf.path),
    machineId,
    instance: assetTag.startsWith('i-') ? assetTag : machineId,
    wantedInstance: desired.host.instance ?? null,
    lockHolder: (await attempt('apply lock', () => reader.lockHolder())) ?? null,
    unfinished: unfinished
      .filter(({ step }) => (step.claims?.length ?? 0) > 0)
      .map(({ apply, key, instance, step }) => ({ apply, key, instance, ...unfinishedArray(step.because) })),
    udevSettled: settle?.exit === 0,
    creating: ((await reader.list('/run/mdadm')) ?? []).filter((name) => name.startsWith('creating-')),
    lostVolumes:
      remembered !== null && !isSeen(remembered.uuid)
        ? ((await attempt('backup of volumes', () => observeLostVolumes(reader, desired, uses))) ?? [])
        : [],
    unread,
  }

  /** What other parts of the host do with a drive; nothing is read from the drive. */
  async function observeInUse(device: BlockDevice): Promise<Drive> {
    const { kernelName } = device
    const above = descendants(devices.all, kernelName)
    const whole = [kernelName, ...above]
    const partitions = above.filter((name) => devices.all.get(name)?.type === 'part')
    const holders: string[] = []
    for (const name of [kernelName, ...partitions])
      for (const holder of (await reader.list(`/sys/class/block/${name}/holders`)) ?? []) holders.push(holder)
    const sysfs = (await reader.resolve(`/sys/class/block/${kernelName}`)) ?? ''
    const pci = uses.some((use) => use.pci.length > 0) ? await pciOf(reader, kernelName) : []
    const scsi = /\/(\d+:\d+:\d+:\d+)\/block\//.exec(sysfs)?.[1]
    return {
      name: kernelName,
      path: device.path,
      kind: sysfs.includes('/devices/virtual/block/') ? 'virtual' : 'disk',
      model: device.model,
      serial: device.serial,
      wwn: device.wwn,
      sizeBytes: device.sizeBytes,
      transport: device.transport,
      readOnly: device.readOnly,
      removable: device.removable || device.transport === 'usb',
      zoned: device.zoned,
      system: system.filter(([, names]) => names.some((name) => whole.includes(name))).map(([path]) => path),
      partitions,
      holders: [...new Set(holders)].sort(natural),
      arrays: mdstat
        .filter(({ members }) =>
          members.some((member) => [kernelName, ...partitions].includes(member.kernelName)),
        )
        .map((array) => array.kernelName),
      mounts: whole.flatMap((name) => mounted.get(name) ?? []),
      swaps: swapped.filter(([name]) => whole.includes(name)).map(([, path]) => path),
      named: namedDevices
        .filter(([, names]) => names.some((name) => whole.includes(name)))
        .map(([one]) => one),
      vms: [
        ...usedDevices
          .filter(([, , names]) => names.some((name) => whole.includes(name)))
          .map(([{ kind, name }, as]) => ({ kind, name, as })),
        ...uses.flatMap(({ kind, name, ...use }) =>
          [...use.pci.filter((one) => pci.includes(one)), ...use.scsi.filter((one) => one === scsi)].map(
            (as) => ({
              kind,
              name,
              as,
            }),
          ),
        ),
      ],
      superblock: null,
      probe: null,
      smart: null,
      unread: [],
    }
  }

  /** Superblocks of drives that are in no running array but look like members, by path. */
  async function observeSuperblocks(): Promise<ReadonlyMap<string, MdSuperblock>> {
    const asked = drives.filter(
      ({ probe: seen, arrays: of }) =>
        of.some((name) => arrayOf(name)?.active === false) ||
        seen?.signatures?.some(({ type }) => type === 'linux_raid_member') ||
        seen?.recognised?.type === 'linux_raid_member',
    )
    if (asked.length === 0) return new Map()
    const answer = await attempt('md superblocks', () =>
      reader.query(mdadmExamine(asked.map(({ path }) => path))),
    )
    return new Map(
      parseMdadmExamine(answer?.stdout ?? '').flatMap((one) =>
        one.kind === 'md' ? [[one.path, one.superblock] as const] : [],
      ),
    )
  }
}
