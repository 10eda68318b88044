// Puts a backup back: as a VM of its own, as the VM that was lost, or over the disks of one that is off.
//
// INVARIANTS
// - Nothing is written before every byte that it is made of was found to be what was once read back.
// - A disk is made under another name, and is compared with the backup before it gets its own.
// - Old disks go aside, all of them, before the first new one is in its place: whenever this is cut short, the disks of the VM are
//   all old, or all new, or one is missing and it cannot be started.
// - What is under way is in a record before it begins; only what that names is ever cleared away.

import { randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { HostError } from '../../../provisioning/problem.ts'
import { seedFile } from '../../../provisioning/vms/names.ts'
import { powerOf } from '../../../provisioning/vms/power.ts'
import { convertDisk } from '../../../provisioning/vms/qemu-img.ts'
import { seedMark } from '../../../provisioning/vms/seed.ts'
import { errnoOf, makeFolder, moveFile, removeFile, replaceFile } from '../../host/files.ts'
import { type Domain, type DomainRef, VIR } from '../../node-libvirt/index.ts'
import { asked, isRefusal, reach } from '../reach.ts'
import { leftBesideSeed, macsOf, makeAnotherSeed, seedText } from '../seed.ts'
import { checkpointsOf, forgetCheckpoint } from './checkpoints.ts'
import { nicsIn, renewed, seedIn, sourcesIn } from './definition.ts'
import { isAsMade } from './inventory.ts'
import { type Backup, chainOf, type Manifest } from './manifest.ts'
import { folderName, type Place, Store } from './place.ts'
import { isSameDisk, judgeHead } from './read-back.ts'
import { afterFailure, copySmall, digestOf, goOn, runTool, type Tools, watched } from './tools.ts'

/** What is to be restored, and as what. */
export interface Restoring {
  readonly place: Place
  /** The VM by the name that it had when it was backed up. */
  readonly vm: string
  /** The backup by its id, or null for the newest that is sound. */
  readonly at: string | null
  /** The name of another VM to be made of it; null for the same one. */
  readonly as: string | null
  /** Where the disks of another VM are made; null: beside those of the old one. */
  readonly folder: string | null
  /** Whether disks that are there may be replaced. */
  readonly overwrite: boolean
  /** Where it is written down what is under way. */
  readonly records: string
}

/** What was restored. `defined`: the VM was defined anew. `detached`: disks that the VM's definition does not have. */
export interface Restored {
  readonly vm: string
  readonly uuid: string
  readonly backup: string
  readonly atMs: number
  readonly disks: readonly { readonly target: string; readonly path: string }[]
  /** What became of the cloud-init seed of another VM, in words; null where there is none to be made anew. */
  readonly seed: string | null
  readonly defined: boolean
  readonly resumed: boolean
}

interface RestoredDisk {
  readonly target: string
  readonly path: string
  readonly format: 'qcow2' | 'raw'
  /** Its name until all are made. */
  readonly made: string
  /** Where the disk goes that is in its place; null when there is none. */
  readonly old: string | null
  readonly isMade: boolean
  /** Whether it is the seed of the VM: of another one it is made anew. */
  readonly isSeed: boolean
  /** Of the seed of another VM: what became of it. */
  readonly seed?: string
}

/** What is written down of a restore that is under way. */
interface Record {
  readonly vm: { readonly name: string; readonly uuid: string }
  readonly from: { readonly folder: string; readonly id: string; readonly atMs: number }
  readonly phase: 'making' | 'placing' | 'clearing'
  readonly disks: readonly RestoredDisk[]
  /** What is defined in the end; null when the definition is there and stays. */
  readonly xml: string | null
  /** The variables of the firmware, and where they are put; null when there are none, or they are there. */
  readonly firmware: { readonly from: string; readonly path: string } | null
}

const spareBytes = 256 * 2 ** 20

const noBackup = (message: string): HostError => new HostError('backup.none', message)

/** The backup that is meant. Throws `backup.none`, `backup.damaged`. */
function pick({ vm, backups }: Manifest, at: string | null, folder: string): Backup {
  if (at === null) {
    const newest = backups.findLast(({ damage }) => damage === null)
    if (newest === undefined) throw noBackup(`there is no backup of ${vm.name} in ${folder}`)
    return newest
  }
  const found = backups.find(({ id }) => id === at)
  if (found === undefined)
    throw noBackup(
      `there is no backup ${at} of ${vm.name}; there are ${backups.map(({ id }) => id).join(', ') || 'none'}`,
    )
  return found
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false
    throw error
  }
}

class Restore {
  readonly #tools: Tools
  readonly #asked: Restoring

  constructor(tools: Tools, restoring: Restoring) {
    this.#tools = tools
    this.#asked = restoring
  }

  get #name(): string {
    return this.#asked.as ?? this.#asked.vm
  }

  get #recordPath(): string {
    return join(this.#asked.records, `${folderName(this.#name)}.json`)
  }

  async #readRecord(): Promise<Record | null> {
    try {
      return JSON.parse(await readFile(this.#recordPath, 'utf8')) as Record
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return null
      throw error
    }
  }

  async #write(record: Record): Promise<Record> {
    await replaceFile(this.#recordPath, `${JSON.stringify(record)}\n`, 0o600)
    return record
  }

  /** The VM as libvirt has it now, or null. */
  async #find(): Promise<Domain | null> {
    try {
      return await asked(this.#tools.to, (libvirt) => libvirt.domainLookupByName({ name: this.#name }))
    } catch (error) {
      if (isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return null
      throw error
    }
  }

  async #wantOff(dom: DomainRef): Promise<void> {
    const { power } = powerOf(await asked(this.#tools.to, (libvirt) => libvirt.domainGetState({ dom })))
    if (power === 'off') return
    throw new HostError('vm.wrong-power', `${dom.name} is ${power}, and only a VM that is off is restored`, {
      details: { vm: dom.name, power, command: `garrison vm stop ${dom.name}` },
    })
  }

  /** Reads every image that the disks are made of. Throws `backup.damaged`. */
  async #check(store: Store, backup: Backup): Promise<void> {
    const checked = new Set<string>()
    const { firmware } = backup
    if (firmware !== null && !(await isAsMade(this.#tools, store.pathOf(firmware.file), firmware)))
      throw damaged(store.pathOf(firmware.file), 'is not as it was written')
    for (const { target } of backup.disks) {
      const chain = chainOf(store.manifest, backup.id, target)
      if (chain === null) throw damaged(store.folder, `does not hold all that ${backup.id} stands on`)
      for (const [at, { file, virtualBytes, fileBytes, sha256 }] of chain.entries()) {
        if (checked.has(file)) continue
        checked.add(file)
        const path = store.pathOf(file)
        if (!(await exists(path))) throw damaged(path, 'is not there')
        const read = await digestOf(this.#tools, path, { subject: this.#name, doing: 'checking' })
        if (read.fileBytes !== fileBytes || read.sha256 !== sha256)
          throw damaged(path, 'is not as it was written')
        await judgeHead(this.#tools, { path, virtualBytes, backing: chain[at + 1]?.file ?? null })
      }
    }
  }

  /** Where each disk goes. `known`: what the VM that is there says of its disks. */
  #pathsOf(
    { vm }: Manifest,
    { disks, xml }: Backup,
    known: ReturnType<typeof sourcesIn> | null,
  ): readonly Pick<RestoredDisk, 'target' | 'path' | 'format' | 'isSeed'>[] {
    const { as, folder } = this.#asked
    const seed = seedIn(xml, vm.name)
    return disks.map(({ target, source, format, name }) => {
      const isSeed = target === seed
      if (as === null) {
        if (known === null) return { target, path: source, format, isSeed }
        const there = known[target]
        if (there === undefined || (there.format !== 'qcow2' && there.format !== 'raw'))
          throw new HostError(
            'backup.definition-differs',
            `${vm.name} has no disk ${target} any more that could be restored`,
            { details: { vm: vm.name, target } },
          )
        return { target, path: there.path, format: there.format, isSeed }
      }
      const old = dirname(source)
      // Garrison has a folder for each VM; others have one for all.
      const isOwn = old.endsWith(`/${vm.name}`)
      const into = folder ?? (isOwn ? join(dirname(old), folderName(as)) : old)
      // As a declaration calls it, which then takes it up.
      const file = isSeed ? seedFile : `${name ?? target}.${format}`
      const path = join(into, folder !== null || isOwn ? file : `${folderName(as)}-${file}`)
      return { target, path, format, isSeed }
    })
  }

  /** Throws `file.no-space` with how much is wanted and how much is there. */
  async #wantRoom(store: Store, backup: Backup, disks: readonly RestoredDisk[]): Promise<void> {
    const wanted = new Map<string, number>()
    for (const { target, path } of disks) {
      const chain = chainOf(store.manifest, backup.id, target) ?? []
      const content = chain.reduce((total, { fileBytes }) => total + fileBytes, 0)
      const bytes = Math.min(content, chain[0]?.virtualBytes ?? content)
      let folder = dirname(path)
      while (!(await exists(folder))) folder = dirname(folder)
      const { dev } = await stat(folder)
      wanted.set(`${dev} ${folder}`, (wanted.get(`${dev} ${folder}`) ?? 0) + bytes)
    }
    for (const [key, bytes] of wanted) {
      const folder = key.slice(key.indexOf(' ') + 1)
      const capacity = await this.#tools.reader.capacity(folder)
      if (capacity === null || capacity.freeBytes >= bytes + spareBytes) continue
      throw new HostError(
        'file.no-space',
        `the disks of ${this.#name} take ${bytes} bytes, and of ${folder} ${capacity.freeBytes} are free, of which ${spareBytes} are kept`,
        { details: { path: folder, wantedBytes: bytes, freeBytes: capacity.freeBytes } },
      )
    }
  }

  /** Decides what is done, and refuses before anything is. */
  async #plan(store: Store, backup: Backup): Promise<Record> {
    const { as, overwrite } = this.#asked
    const dom = await this.#find()
    if (dom !== null && as !== null)
      throw new HostError('backup.in-the-way', `there is a VM ${as} already`, { details: { what: as } })
    if (dom !== null) await this.#wantOff(dom)
    const known = dom === null ? null : sourcesIn(await this.#definition(dom))
    const uuid = dom?.uuid ?? (as === null ? store.manifest.vm.uuid : randomUUID())
    const placed = this.#pathsOf(store.manifest, backup, known)
    const disks: RestoredDisk[] = []
    for (const disk of placed) {
      const isThere = await exists(disk.path)
      if (isThere && !(await stat(disk.path)).isFile())
        throw new HostError(
          'backup.disk-unsupported',
          `${disk.path} is no file, and only files are restored`,
          {
            details: { vm: this.#name, target: disk.target },
          },
        )
      if (isThere && (!overwrite || as !== null))
        throw new HostError('backup.in-the-way', `${disk.path} is there already`, {
          details: { what: disk.path },
        })
      const [made, old] = [`${disk.path}.restored`, isThere ? `${disk.path}.replaced` : null]
      for (const one of [made, old])
        if (one !== null && (await exists(one)))
          throw new HostError('backup.in-the-way', `${one} is there, and nobody knows whose it is`, {
            details: { what: one },
          })
      disks.push({ ...disk, made, old, isMade: false })
    }
    await this.#wantRoom(store, backup, disks)
    const sources = Object.fromEntries(disks.map(({ target, path }) => [target, path]))
    const variables = backup.firmware === null ? null : this.#firmwarePath(backup.firmware.path)
    const renew = { name: this.#name, uuid, sources, firmware: variables, isAnother: as !== null }
    const isLacking = backup.firmware !== null && variables !== null && !(await exists(variables))
    return {
      vm: { name: this.#name, uuid },
      from: { folder: store.folder, id: backup.id, atMs: backup.atMs },
      phase: 'making',
      disks,
      xml: dom === null ? renewed(backup.xml, renew) : null,
      firmware:
        isLacking && variables !== null
          ? { from: store.pathOf(backup.firmware?.file ?? ''), path: variables }
          : null,
    }
  }

  /** Where the variables of the firmware go: of another VM beside the old ones, under its name. */
  #firmwarePath(path: string): string {
    return this.#asked.as === null ? path : join(dirname(path), `${folderName(this.#name)}_VARS.fd`)
  }

  #definition(dom: DomainRef): Promise<string> {
    const flags = VIR.DOMAIN_XML_INACTIVE
    return asked(this.#tools.to, (libvirt) => libvirt.domainGetXMLDesc({ dom, flags }))
  }

  /** Makes every disk that is not made yet, and compares it with the backup. */
  async #make(store: Store, backup: Backup, begun: Record): Promise<Record> {
    let record = begun
    for (const disk of begun.disks) {
      if (disk.isMade) continue
      goOn(this.#tools.signal)
      const { target, made, format } = disk
      const chain = chainOf(store.manifest, backup.id, target) ?? []
      const from = { path: store.pathOf(chain[0]?.file ?? ''), format: 'qcow2' as const }
      const totalBytes = chain.reduce((total, { fileBytes }) => total + fileBytes, 0)
      await removeFile(made)
      await makeFolder(dirname(made), (await exists(dirname(made))) ? {} : { mode: 0o711 })
      // qemu-img makes files that everybody may read, and keeps the mode of one that is there.
      await replaceFile(made, '', 0o600)
      await watched(
        this.#tools,
        made,
        { subject: this.#name, doing: 'restoring', totalBytes },
        runTool(this.#tools, convertDisk(from, { path: made, format })),
      )
      await runTool(this.#tools, ['/usr/bin/sync', '--', made])
      if (!(await isSameDisk(this.#tools, from, { path: made, format })))
        throw damaged(made, 'is not what the backup holds')
      const seed = disk.isSeed && this.#asked.as !== null ? await this.#reseed(made, backup, record) : null
      record = await this.#write({
        ...record,
        disks: record.disks.map((one) =>
          one.target === target ? { ...one, isMade: true, ...(seed !== null && { seed }) } : one,
        ),
      })
    }
    return record
  }

  /** Makes the seed of another VM from the old one, in its place; what became of it. */
  async #reseed(image: string, backup: Backup, { xml }: Record): Promise<string> {
    const macs = macsOf(nicsIn(backup.xml), nicsIn(xml ?? ''))
    const another = await makeAnotherSeed(this.#tools, { image, path: image, name: this.#name, macs })
    return seedText(another, this.#asked.vm)
  }

  /** Puts the disks in their places. What was done by an earlier run is done already. */
  async #place(record: Record): Promise<void> {
    const moved = async (from: string, to: string) => {
      if (await exists(from)) await moveFile(from, to)
    }
    // When the new one has gone from its first name it is in its place, and the old one was put aside before.
    for (const { made, path, old } of record.disks)
      if (old !== null && (await exists(made)) && !(await exists(old))) await moved(path, old)
    const dom = await this.#find()
    if (dom !== null && record.disks.some(({ old }) => old !== null))
      try {
        // It can have been started until its first disk was put aside, and not since.
        await this.#wantOff(dom)
      } catch (error) {
        for (const { path, old } of record.disks)
          if (old !== null && !(await exists(path))) await moved(old, path)
        throw error
      }
    if (
      dom !== null &&
      (await asked(this.#tools.to, (libvirt) => libvirt.domainHasManagedSaveImage({ dom })))
    )
      await reach(this.#tools.to, {
        ask: (libvirt) => libvirt.domainManagedSaveRemove({ dom }),
        holds: async (libvirt) => !(await libvirt.domainHasManagedSaveImage({ dom })),
      })
    for (const { made, path, isSeed } of record.disks) {
      // It says which seed was there before.
      if (isSeed && (await exists(made))) await removeFile(seedMark(path))
      await moved(made, path)
      if (isSeed) await moved(seedMark(made), seedMark(path))
    }
    const { xml, vm, firmware } = record
    if (firmware !== null && !(await exists(firmware.path))) {
      const made = `${firmware.path}.restored`
      await copySmall(firmware.from, made)
      await moveFile(made, firmware.path)
    }
    if (xml !== null)
      await reach(this.#tools.to, {
        ask: (libvirt) => libvirt.domainDefineXMLFlags({ xml, flags: VIR.DOMAIN_DEFINE_VALIDATE }),
        holds: async () => (await this.#find())?.uuid === vm.uuid,
      })
  }

  /** Takes away the old disks, and the names of checkpoints whose records went with them. */
  async #clear(record: Record): Promise<void> {
    const { to } = this.#tools
    const dom = record.vm
    if (record.xml === null)
      for (const name of await checkpointsOf(to, dom)) await forgetCheckpoint(to, dom, name)
    for (const { old } of record.disks) if (old !== null) await removeFile(old)
    await removeFile(this.#recordPath)
  }

  /** Takes away what was made of disks; the old ones are where they were. */
  async giveUp(): Promise<void> {
    const record = await this.#readRecord()
    if (record?.phase !== 'making') return
    for (const { made, isSeed } of record.disks) {
      const beside = isSeed ? await leftBesideSeed(this.#tools.reader, made) : []
      for (const path of [made, ...beside]) await removeFile(path)
    }
    await removeFile(this.#recordPath)
  }

  async #end(record: Record): Promise<void> {
    const placing = record.phase === 'making' ? await this.#write({ ...record, phase: 'placing' }) : record
    if (placing.phase === 'placing') await this.#place(placing)
    await this.#clear(await this.#write({ ...placing, phase: 'clearing' }))
  }

  async run(): Promise<Restored> {
    const { place, vm, at } = this.#asked
    const store = await Store.open(place, { name: vm, uuid: '' })
    if (store.isNew) throw noBackup(`there is no backup of ${vm} in ${place.path}`)
    const backup = pick(store.manifest, at, place.path)
    const left = await this.#readRecord()
    const isSame = left?.from.folder === store.folder && left.from.id === backup.id
    const answer = (record: Record): Restored => ({
      vm: record.vm.name,
      uuid: record.vm.uuid,
      backup: backup.id,
      atMs: backup.atMs,
      disks: record.disks.map(({ target, path }) => ({ target, path })),
      seed: record.disks.find(({ seed }) => seed !== undefined)?.seed ?? null,
      defined: record.xml !== null,
      resumed: left !== null && isSame,
    })
    if (left !== null && left.phase !== 'making') {
      await this.#end(left)
      if (isSame) return answer(left)
    } else if (left !== null && !isSame) await this.giveUp()
    if (backup.damage !== null) throw damaged(`${store.folder}, backup ${backup.id},`, backup.damage)
    await this.#check(store, backup)
    const begun = left !== null && isSame ? left : await this.#write(await this.#plan(store, backup))
    const record = await this.#make(store, backup, begun)
    await this.#end(record)
    return answer(record)
  }
}

const damaged = (path: string, why: string): HostError =>
  new HostError('backup.damaged', `${path} ${why}`, { details: { path } })

/**
 * Restores a backup. Errors: `backup.none`, `backup.damaged`, `backup.in-the-way`, `backup.definition-differs`,
 * `backup.disk-unsupported`, `backup.manifest-damaged`, `file.no-space`, `vm.wrong-power`, `libvirt.refused`, `libvirt.unreachable`,
 * `job.cancelled`, `job.interrupted`.
 */
export async function restore(tools: Tools, restoring: Restoring): Promise<Restored> {
  const work = new Restore(tools, restoring)
  try {
    return await work.run()
  } catch (error) {
    await afterFailure(error, () => work.giveUp())
    throw error
  }
}
