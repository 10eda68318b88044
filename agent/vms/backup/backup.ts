// Makes one backup of one VM: chooses what is copied, copies it, reads it back, and only then counts it.
//
// INVARIANTS
// - What is begun is in the manifest before it begins, so that the next run can go on with it or clear it away; nothing else is cleared.
// - A checkpoint is kept only for the newest backup. It goes after the manifest says so: a crash leaves one too many, never one too few.

import { stat } from 'node:fs/promises'
import { HostError, type ProblemReport } from '../../../provisioning/problem.ts'
import type { DomainModel } from '../../../provisioning/vms/domain.ts'
import type { Power } from '../../../provisioning/vms/power.ts'
import { parseQemuImg, qemuImg } from '../../../provisioning/vms/qemu-img.ts'
import { removeFile } from '../../host/files.ts'
import { type DomainRef, VIR } from '../../node-libvirt/index.ts'
import { asked, isRefusal } from '../reach.ts'
import { copyAtRest } from './at-rest.ts'
import {
  changedBytes,
  checkpointName,
  checkpointsOf,
  dropCheckpoint,
  isUp,
  keepCheckpoint,
} from './checkpoints.ts'
import { type Chosen, chooseDisks, type Since, sinceWhen, whyWhole } from './choice.ts'
import { backupXml, checkpointXml, keptOutsideDisks } from './libvirt-xml.ts'
import { type BackedDisk, type Backup, type Begun, type BegunDisk, filesOf } from './manifest.ts'
import { type Place, Store } from './place.ts'
import { abortPush, beginPush, followPush, pushStanding } from './push.ts'
import { readBack } from './read-back.ts'
import { expired, type Retention } from './retention.ts'
import { afterFailure, allocatedBytes, copySmall, digestOf, goOn, runTool, type Tools } from './tools.ts'

/** The VM, as it is known when the backup is asked for. */
export interface BackedVm {
  readonly name: string
  readonly uuid: string
  readonly power: Power
  readonly persistent: boolean
  readonly model: DomainModel | null
}

/** How disks are copied. */
export interface CopyOptions {
  /**
   * Where there must be room, and by which id libvirt keeps a record of what changes from then on, for the next backup; with null
   * it keeps none, and files are named by their disks alone.
   */
  readonly place: { readonly path: string; readonly id: string | null }
  /** Copy all, whatever is known of what has changed. */
  readonly full: boolean
  /** The most incremental ones after a full one. */
  readonly mostIncrements: number
  /** Have the guest's agent freeze its filesystems for the moment that is copied. */
  readonly freeze: boolean
  readonly host: string
  /** Where libvirt keeps what it makes for VMs: `/var/lib/libvirt`. */
  readonly kept: string
  readonly declaration: unknown
  /** Why disks of these names are not copied. */
  readonly without?: ReadonlyMap<string, string>
}

/** How a backup is to be made. */
export interface BackupOptions extends CopyOptions {
  readonly place: Place
  readonly retention: Retention
}

/** What became of it. `removed`: ids of backups that went by the retention. `untidy`: why older ones are still there. */
export interface Made {
  readonly backup: Backup
  readonly resumed: boolean
  readonly removed: readonly string[]
  readonly untidy: ProblemReport | null
}

/** What is kept beside the disks, and of them; `firmware` is where its variables are. */
type Common = Pick<Begun, 'leftOut' | 'xml' | 'declaration'> & { readonly firmware: string | null }

/** What is left free where backups are kept. */
const spareBytes = 256 * 2 ** 20

const domOf = ({ name, uuid }: BackedVm): DomainRef => ({ name, uuid })

/** The next id: the second that it is, or the first one after that of the last backup. */
function newId(atMs: number, taken: readonly string[]): string {
  const idOf = (ms: number) => new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '')
  let ms = atMs
  while (taken.includes(idOf(ms))) ms += 1000
  return idOf(ms)
}

/** What one backup needs. */
class Backing {
  readonly #tools: Tools
  readonly #vm: BackedVm
  readonly #options: CopyOptions
  readonly #store: Store
  readonly #dom: DomainRef

  constructor(tools: Tools, vm: BackedVm, options: CopyOptions, store: Store) {
    this.#tools = tools
    this.#vm = vm
    this.#options = options
    this.#store = store
    this.#dom = domOf(vm)
  }

  /** Ends what an earlier run left: goes on with it when it is whole or still being copied, else takes it away. */
  async settle(): Promise<Begun | null> {
    await this.#store.remove([])
    const { begun } = this.#store.manifest
    if (begun === null) return null
    if (begun.phase === 'copied') return begun
    if (begun.how === 'push') {
      const files = this.#pushed(begun)
      const standing = await pushStanding(this.#tools.to, this.#dom, files)
      if (standing === 'running') return this.#followPush(begun)
      if (standing === 'succeeded' && (await this.#areThere(files))) {
        await this.#copyFiles(begun)
        return this.#copied(begun)
      }
    }
    await this.#clear(begun)
    return null
  }

  #isAtRest(begun: Begun, { isRead }: BegunDisk): boolean {
    return begun.how === 'off' || isRead
  }

  #pathsOf(disks: readonly BegunDisk[]): readonly string[] {
    return disks.map(({ file }) => this.#store.pathOf(file))
  }

  async #areThere(paths: readonly string[]): Promise<boolean> {
    const sizes = await Promise.all(paths.map(allocatedBytes))
    return sizes.every((bytes) => bytes > 0)
  }

  async #copied(begun: Begun): Promise<Begun> {
    const { firmware } = begun
    if (firmware !== null) await copySmall(firmware.path, this.#store.pathOf(firmware.file))
    const copied: Begun = { ...begun, phase: 'copied' }
    await this.#store.change({ begun: copied })
    return copied
  }

  /** Takes away what was begun, and the checkpoint that came with it. */
  async #clear(begun: Begun): Promise<void> {
    const { to } = this.#tools
    const pushed = this.#pushed(begun)
    if (begun.how === 'push' && (await pushStanding(to, this.#dom, pushed)) === 'running')
      await abortPush(to, this.#dom, pushed)
    for (const file of filesOf(begun)) await removeFile(this.#store.pathOf(file))
    if (begun.checkpoint !== null) await dropCheckpoint(to, this.#dom, begun.checkpoint)
    await this.#store.change({ begun: null })
  }

  /** Copies every disk; answers when all images are whole. */
  async copy(): Promise<Begun> {
    const { name, power, model } = this.#vm
    if (model === null)
      throw new HostError('backup.disk-unsupported', `the definition of ${name} cannot be read`, {
        details: { vm: name },
      })
    const isUp = power === 'running' || power === 'paused' || power === 'blocked'
    if (!isUp && power !== 'off')
      throw new HostError('vm.busy', `${name} is ${power}`, { details: { vm: name } })
    const { chosen, leftOut } = chooseDisks(name, model.disks, this.#options.without)
    const flags = (this.#vm.persistent ? VIR.DOMAIN_XML_INACTIVE : 0) | VIR.DOMAIN_XML_SECURE
    const xml = await asked(this.#tools.to, (libvirt) => libvirt.domainGetXMLDesc({ dom: this.#dom, flags }))
    const sizes = await this.#sizes()
    const known = {
      manifest: this.#options.full ? { backups: [] } : this.#store.manifest,
      mostIncrements: this.#options.mostIncrements,
      isThere: (file: string, bytes: number) => sizes.get(file) === bytes,
    }
    const { firmware: variables, hasTpm } = keptOutsideDisks(xml, name, this.#options.kept)
    // Made at the first start.
    const firmware = variables !== null && (await allocatedBytes(variables)) > 0 ? variables : null
    const tpm = { target: 'tpm', source: null, why: 'what a TPM keeps is not copied' }
    const common: Common = {
      ...{ xml, firmware, declaration: this.#options.declaration },
      leftOut: hasTpm ? [...leftOut, tpm] : leftOut,
    }
    if (!isUp) return this.#copyOff(chosen, known, common)
    return this.#copyUp(chosen, known, common)
  }

  /** The length of every file that the manifest names and that is there. */
  async #sizes(): Promise<ReadonlyMap<string, number>> {
    const files = this.#store.manifest.backups.flatMap(({ disks }) => disks.map(({ file }) => file))
    const found = await Promise.all(
      files.map(async (file): Promise<readonly [string, number][]> => {
        try {
          return [[file, (await stat(this.#store.pathOf(file))).size]]
        } catch (error) {
          if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
          throw error
        }
      }),
    )
    return new Map(found.flat())
  }

  #begun(
    how: Begun['how'],
    consistency: Begun['consistency'],
    chosen: readonly (readonly [Chosen, Since])[],
    checkpoint: boolean,
    common: Common,
  ): Begun {
    const atMs = this.#tools.clock()
    const { backups } = this.#store.manifest
    const { id: markId } = this.#options.place
    const id = newId(
      atMs,
      backups.map((one) => one.id),
    )
    const disks = chosen.map(([{ target, name, source, format, isRead }, since]): BegunDisk => {
      const kind = 'on' in since ? 'incremental' : 'full'
      return {
        ...{ target, name, source, format, isRead, kind },
        file: markId === null ? `${target}.qcow2` : `${id}.${target}.${kind}.qcow2`,
        on: 'on' in since ? since.on.id : null,
      }
    })
    const reasons = chosen.flatMap(([{ target, isRead }, since]) =>
      'why' in since && !isRead ? [[target, since.why] as const] : [],
    )
    const written = chosen.filter(([{ isRead }]) => !isRead)
    return {
      ...{ id, atMs, how, consistency, phase: 'copying', disks, ...common },
      firmware:
        common.firmware === null
          ? null
          : { path: common.firmware, file: markId === null ? 'firmware.fd' : `${id}.firmware` },
      why: this.#options.full ? 'it was asked for' : whyWhole(reasons, written.length),
      checkpoint: checkpoint && markId !== null ? checkpointName(markId, id) : null,
    }
  }

  async #copyOff(
    chosen: readonly Chosen[],
    known: Omit<Parameters<typeof sinceWhen>[0], 'isUsable'>,
    common: Common,
  ): Promise<Begun> {
    // Nothing has to have kept a record: what differs from the last backup is found by reading both.
    const since = chosen.map(
      (disk) =>
        [disk, sinceWhen({ ...known, isUsable: () => true }, disk, 'no earlier one is sound')] as const,
    )
    const begun = this.#begun('off', 'off', since, false, common)
    await this.#wantRoom(begun, null)
    await this.#store.change({ begun })
    await this.#copyFiles(begun)
    return this.#copied(begun)
  }

  /** Copies what is at rest, each onto the image that it stands on. */
  async #copyFiles(begun: Begun): Promise<void> {
    for (const disk of begun.disks)
      if (this.#isAtRest(begun, disk)) {
        const path = this.#store.pathOf(disk.file)
        // Of an earlier run, which did not come to its end.
        await removeFile(path)
        await copyAtRest(this.#tools, this.#vm.name, disk, path, this.#backingOf(disk))
      }
  }

  /** The name of the image that one stands on. */
  #backingOf({ on, target }: Pick<BegunDisk, 'on' | 'target'>): string | null {
    const disks = this.#store.manifest.backups.find(({ id }) => id === on)?.disks
    return disks?.find((one) => one.target === target)?.file ?? null
  }

  async #copyUp(
    chosen: readonly Chosen[],
    known: Omit<Parameters<typeof sinceWhen>[0], 'isUsable'>,
    common: Common,
  ): Promise<Begun> {
    const { to } = this.#tools
    const checkpoints = await checkpointsOf(to, this.#dom)
    const none = 'nobody kept a record of what has changed since the last one'
    /** Tries in falling order: with a record, with a new one, without any. Each but the first says why. */
    let [isUsable, keepRecord, objection] = [
      ({ checkpoint }: Backup) => checkpoint !== null && checkpoints.includes(checkpoint),
      true,
      none,
    ]
    for (;;) {
      const since = chosen.map((disk) => {
        const isRaw = disk.format === 'raw' && !disk.isRead
        const why = isRaw ? 'it is raw, which keeps no record of what changes' : objection
        return [disk, sinceWhen({ ...known, isUsable: isRaw ? () => false : isUsable }, disk, why)] as const
      })
      const tracked = chosen.filter(({ format, isRead }) => format === 'qcow2' && !isRead)
      const begun = this.#begun(
        'push',
        this.#options.freeze ? 'frozen' : 'crash',
        since,
        keepRecord && tracked.length > 0,
        common,
      )
      await this.#wantRoom(begun, since)
      await this.#store.change({ begun })
      const refusal = await this.#beginPush(begun, since, tracked)
      if (refusal === null) return this.#followPush(begun)
      await this.#clear(begun)
      if (!(await isUp(to, this.#dom)))
        throw new HostError(
          'backup.copy-failed',
          `${this.#vm.name} ended when it was to be copied: ${refusal.message}`,
          { details: { vm: this.#vm.name }, cause: refusal },
        )
      if (isRefusal(refusal, 'VIR_ERR_OPERATION_TIMEOUT') || begun.checkpoint === null) throw refusal
      objection = refusal.message
      const isBroken =
        isRefusal(refusal, 'VIR_ERR_CHECKPOINT_INCONSISTENT') ||
        isRefusal(refusal, 'VIR_ERR_NO_DOMAIN_CHECKPOINT')
      const { id } = this.#options.place
      if (isBroken && id !== null) await keepCheckpoint(to, this.#dom, id, null)
      else keepRecord = false
      isUsable = () => false
    }
  }

  /** Follows what libvirt pushes to its end, and then copies what is at rest. */
  async #followPush(begun: Begun): Promise<Begun> {
    await followPush(this.#tools, this.#dom, this.#pushed(begun))
    await this.#copyFiles(begun)
    return this.#copied(begun)
  }

  /** The files that libvirt pushes. */
  #pushed(begun: Begun): readonly string[] {
    return this.#pathsOf(begun.disks.filter((disk) => !this.#isAtRest(begun, disk)))
  }

  async #beginPush(
    begun: Begun,
    since: readonly (readonly [Chosen, Since])[],
    tracked: readonly Chosen[],
  ): Promise<HostError | null> {
    const targets = this.#vm.model?.disks.map(({ target }) => target) ?? []
    const without = (some: readonly string[]) => targets.filter((target) => !some.includes(target))
    const pushed = begun.disks.filter((disk) => !this.#isAtRest(begun, disk))
    const sinceOf = ({ target }: BegunDisk) => {
      const found = since.find(([disk]) => disk.target === target)?.[1]
      return found !== undefined && 'on' in found ? found.on.checkpoint : null
    }
    const disks = pushed.map((disk) => ({
      target: disk.target,
      path: this.#store.pathOf(disk.file),
      since: sinceOf(disk),
    }))
    const kept = tracked.map(({ target }) => target)
    return beginPush(this.#tools.to, {
      dom: this.#dom,
      files: this.#pushed(begun),
      xml: backupXml(disks, without(disks.map(({ target }) => target))),
      checkpointXml: begun.checkpoint === null ? null : checkpointXml(begun.checkpoint, kept, without(kept)),
      freeze: this.#options.freeze,
    })
  }

  /** Throws `file.no-space` when what is to be copied will not fit, as far as that can be known. */
  async #wantRoom(begun: Begun, since: readonly (readonly [Chosen, Since])[] | null): Promise<void> {
    const { to, reader } = this.#tools
    let wanted = 0
    for (const { target, source, format, kind } of begun.disks) {
      const found = since?.find(([disk]) => disk.target === target)?.[1]
      const checkpoint = found !== undefined && 'on' in found ? found.on.checkpoint : null
      if (kind === 'full') wanted += await this.#contentBytes(source, format)
      else if (checkpoint !== null) wanted += (await changedBytes(to, this.#dom, checkpoint, target)) ?? 0
    }
    const { path } = this.#options.place
    const capacity = await reader.capacity(path)
    if (capacity === null || capacity.freeBytes >= wanted + spareBytes) return
    throw new HostError(
      'file.no-space',
      `a backup of ${this.#vm.name} takes ${wanted} bytes, and of ${path} ${capacity.freeBytes} are free, of which ${spareBytes} are kept`,
      { details: { path, wantedBytes: wanted, freeBytes: capacity.freeBytes } },
    )
  }

  /** The most that a copy of a disk can take: what is allocated in it and below it. */
  async #contentBytes(source: string, format: 'qcow2' | 'raw'): Promise<number> {
    let [path, kind, total, virtualBytes]: [string | null, 'qcow2' | 'raw', number, number] = [
      source,
      format,
      0,
      0,
    ]
    while (path !== null) {
      const facts = parseQemuImg(await this.#tools.reader.query(qemuImg(path, kind)))
      virtualBytes = Math.max(virtualBytes, facts.virtualBytes)
      total +=
        facts.allocatedBytes === 0 && facts.format === 'raw' ? facts.virtualBytes : facts.allocatedBytes
      kind = facts.backing?.format === 'raw' ? 'raw' : 'qcow2'
      path = facts.backing?.path ?? null
    }
    return Math.min(total, virtualBytes)
  }

  /** Puts every image onto the one that it stands on, reads it back, and counts the backup. */
  async finish(begun: Begun): Promise<Backup> {
    const disks: BackedDisk[] = []
    for (const disk of begun.disks) {
      goOn(this.#tools.signal)
      const path = this.#store.pathOf(disk.file)
      const backing = this.#backingOf(disk)
      // QEMU writes down the disk of the VM as what it stands on, which has the same content only at that moment.
      if (backing !== null)
        await runTool(this.#tools, [
          '/usr/bin/qemu-img',
          'rebase',
          '-q',
          '-u',
          ...['-f', 'qcow2', '-F', 'qcow2', '-b', backing],
          '--',
          path,
        ])
      const read = await readBack(this.#tools, { path, virtualBytes: null, backing }, this.#vm.name)
      const { isRead: _, ...kept } = disk
      disks.push({ ...kept, ...read })
    }
    const { how: _how, phase: _phase, firmware, ...kept } = begun
    const about = { subject: this.#vm.name, doing: 'reading back' }
    const backup: Backup = {
      ...kept,
      disks,
      firmware:
        firmware === null
          ? null
          : { ...firmware, ...(await digestOf(this.#tools, this.#store.pathOf(firmware.file), about)) },
      host: this.#options.host,
      verifiedMs: this.#tools.clock(),
      damage: null,
    }
    const { backups } = this.#store.manifest
    await this.#store.change({ backups: [...backups, backup], begun: null })
    return backup
  }

  /** Removes what the retention lets go, and the checkpoints that nothing needs any more. */
  async tidy({ place, retention }: BackupOptions): Promise<Pick<Made, 'removed' | 'untidy'>> {
    const removed = expired(this.#store.manifest, retention, this.#tools.clock())
    try {
      const newest = this.#store.manifest.backups.findLast(({ checkpoint }) => checkpoint !== null)
      await keepCheckpoint(this.#tools.to, this.#dom, place.id, newest?.checkpoint ?? null)
      await this.#store.remove(removed)
      return { removed, untidy: null }
    } catch (error) {
      // The backup is made, and the next run tidies up.
      if (!(error instanceof HostError)) throw error
      return { removed: [], untidy: error.report() }
    }
  }

  /** Takes away what was begun, after it was cancelled or has failed. */
  async giveUp(): Promise<void> {
    const { begun } = this.#store.manifest
    if (begun !== null) await this.#clear(begun)
  }
}

/**
 * Makes a backup of a VM, or ends one that was begun. Errors: `backup.copy-failed`, `backup.damaged`, `backup.disk-unsupported`,
 * `backup.manifest-damaged`, `backup.not-trusted`, `backup.other-vm`, `file.no-space`, `vm.busy`, `libvirt.refused`,
 * `libvirt.unreachable`, `job.cancelled`, `job.interrupted`; after the last two there is something to go on with.
 */
export async function backUp(tools: Tools, vm: BackedVm, options: BackupOptions): Promise<Made> {
  const store = await Store.open(options.place, { name: vm.name, uuid: vm.uuid })
  const { name, uuid } = store.manifest.vm
  if (uuid !== vm.uuid)
    throw new HostError(
      'backup.other-vm',
      `${store.folder} holds the backups of another ${name}, with UUID ${uuid}, not ${vm.uuid}`,
      { details: { vm: name, folder: store.folder } },
    )
  const backing = new Backing(tools, vm, options, store)
  try {
    const left = await backing.settle()
    const backup = await backing.finish(left ?? (await backing.copy()))
    return { backup, resumed: left !== null, ...(await backing.tidy(options)) }
  } catch (error) {
    await afterFailure(error, () => backing.giveUp())
    throw error
  }
}

/**
 * Copies the disks of a VM whole into the folder of a store, or ends what was begun there. Errors are those of `backUp`, but for
 * `backup.other-vm`.
 */
export async function copyOut(
  tools: Tools,
  vm: BackedVm,
  store: Store,
  options: CopyOptions,
): Promise<Pick<Made, 'backup' | 'resumed'>> {
  const [made] = store.manifest.backups
  if (made !== undefined) return { backup: made, resumed: true }
  const backing = new Backing(tools, vm, options, store)
  try {
    const left = await backing.settle()
    return { backup: await backing.finish(left ?? (await backing.copy())), resumed: left !== null }
  } catch (error) {
    await afterFailure(error, () => backing.giveUp())
    throw error
  }
}
