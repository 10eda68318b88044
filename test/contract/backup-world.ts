// Guests whose disks tell what they wrote and in which order: what the tests of backups stand on.
//
// The guest is one sector of machine code. It counts: number n is written into slot (n / 16) mod 128, each slot in a cluster of its
// own, and then into sector 1. So a copy of its disk as it was at one moment holds, with L the largest number in it, in each slot the
// largest number up to L that belongs there; anything else was never on the disk at once.

import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { contextsOf, type StreamModule } from '../../agent/api/context.ts'
import type { VerbName } from '../../agent/api/verbs.ts'
import { partsOf } from '../../agent/operate.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { problemOf } from '../../provisioning/problem.ts'
import { type Told, type VmsWorld, vmsWorld } from './vms-world.ts'

// cli; segments and stack at 0; drive number kept; sector 1 read to 0x8000; then for ever: n + 1, its slot written, sector 1 written.
const machineCode =
  'fa31c08ed88ec08ed0bc007cfb8816f07f66c7066b7c01000000b442e8380066ff06008066a1008066a3fc8166c1e8046683e07f66c1e00766058000' +
  '000066a36b7cb443e8100066c7066b7c01000000b443e80200ebc8b000be637c8a16f07fcd13c3100001000080'

const slots = 128
const slotBytes = 64 * 1024
const diskMiB = 32

/** What is in a disk of such a guest. `last` is the largest number; `isOneMoment`: it was on the disk like this at once. */
export interface Counted {
  readonly last: number
  readonly isOneMoment: boolean
}

/** Reads what a raw copy of the disk holds. */
function countedIn(path: string): Counted {
  const file = openSync(path, 'r')
  const at = (byte: number): number => {
    const sector = Buffer.alloc(512)
    readSync(file, sector, 0, 512, byte)
    return sector.readUInt32LE(0)
  }
  try {
    const found = Array.from({ length: slots }, (_, slot) => at(slotBytes * (slot + 1)))
    const counter = at(512)
    const last = Math.max(counter, ...found)
    const rounds = (slot: number): number => {
      // The largest n <= last with (n >> 4) mod 128 == slot, and 0 where there is none.
      const turn = last >> 4
      const behind = (((turn - slot) % slots) + slots) % slots
      const block = turn - behind
      if (block < 0) return 0
      return behind === 0 ? last : block * 16 + 15
    }
    const isWhole = found.every((number, slot) => {
      const wanted = rounds(slot)
      // The slot is written before sector 1 is.
      return number === wanted
    })
    return { last, isOneMoment: isWhole && (counter === last || counter === last - 1) }
  } finally {
    closeSync(file)
  }
}

/** The host with such guests, and a folder for backups. */
export interface BackupWorld extends VmsWorld {
  /** The folder of a guest's disks. */
  folderOf(guest: string): string
  /** The path of its first disk, which it counts on. */
  diskOf(guest: string): string
  /** Where the QEMU of a guest speaks to others than libvirt (QMP), one at a time. */
  qmpOf(guest: string): string
  /** A folder that may become a place for backups. */
  readonly place: string
  /** Defines a guest; `more` are devices in its definition, and `os` is what else its firmware is. It is off. */
  define(
    guest: string,
    options?: { readonly format?: 'qcow2' | 'raw'; readonly more?: string; readonly os?: string },
  ): void
  /** What an image of a guest's disk holds, with all that it stands on. */
  counted(path: string, format?: 'qcow2' | 'raw'): Counted
  /** Waits until a guest that runs has counted further than that. */
  countsBeyond(guest: string, number: number): Promise<number>
  /** All lines of a verb that is a stream, and the last of them; in this process, until the signal aborts. `hear` gets each as it comes. */
  verb<Line>(
    name: VerbName,
    args: object,
    how?: { readonly signal?: AbortSignal; readonly hear?: (line: Line) => void },
  ): Promise<{ readonly lines: readonly Told<Line>[]; readonly last: Told<Line> }>
}

const run = (program: string, ...args: readonly string[]): string =>
  execFileSync(program, args, { encoding: 'utf8' })

/** Makes such a host. */
export async function backupWorld(): Promise<BackupWorld> {
  const world = await vmsWorld()
  const { libvirtd, ask } = world
  const place = join(libvirtd.folder, 'backups')
  mkdirSync(place, { mode: 0o711 })
  const parts = partsOf(world.root)
  const contexts = contextsOf(parts)
  const qmpOf = (guest: string) => join(libvirtd.folder, `${guest}.qmp`)
  const formats = new Map<string, 'qcow2' | 'raw'>()
  let read = 0

  const folderOf = (guest: string) => join(libvirtd.folder, 'disks', guest)
  const diskOf = (guest: string, format = 'qcow2') => join(folderOf(guest), `root.${format}`)

  const counted: BackupWorld['counted'] = (path, format = 'qcow2') => {
    read += 1
    const raw = join(libvirtd.folder, `read-${read}.raw`)
    run('/usr/bin/qemu-img', 'convert', '-U', '-q', '-f', format, '-O', 'raw', '--', path, raw)
    try {
      return countedIn(raw)
    } finally {
      rmSync(raw)
    }
  }

  return {
    ...world,
    folderOf,
    diskOf,
    qmpOf,
    place,
    define(guest, { format = 'qcow2', more = '', os = '' } = {}) {
      const disk = diskOf(guest, format)
      formats.set(guest, format)
      mkdirSync(folderOf(guest), { recursive: true })
      const sector = Buffer.alloc(512)
      Buffer.from(machineCode, 'hex').copy(sector)
      sector.writeUInt16LE(0xaa55, 510)
      const image = Buffer.alloc(diskMiB * 2 ** 20)
      sector.copy(image)
      const raw = join(folderOf(guest), 'first.raw')
      writeFileSync(raw, image)
      // With its clusters in place QEMU changes no table of its own, so that what is written can be read from outside at once.
      const placed = format === 'qcow2' ? ['-o', 'preallocation=metadata'] : []
      run('/usr/bin/qemu-img', 'convert', '-q', '-f', 'raw', '-O', format, ...placed, '--', raw, disk)
      rmSync(raw)
      const xml = `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>${guest}</name><memory unit='MiB'>32</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type>${os}</os><features><acpi/></features>
        <devices>
          <disk type='file' device='disk'><driver name='qemu' type='${format}' cache='writeback'/>
            <source file='${disk}'/><target dev='vda' bus='virtio'/><alias name='ua-disk-root'/></disk>
          ${more}
          <interface type='user'><mac address='52:54:00:00:00:01'/></interface>
        </devices>
        <qemu:commandline>
          <qemu:arg value='-qmp'/><qemu:arg value='unix:${qmpOf(guest)},server=on,wait=off'/>
        </qemu:commandline></domain>`
      const path = join(libvirtd.folder, `${guest}.xml`)
      writeFileSync(path, xml)
      ask('define', path)
    },
    counted,
    async countsBeyond(guest, number) {
      const format = formats.get(guest) ?? 'qcow2'
      for (const end = Date.now() + 30_000; Date.now() < end; await sleep(50)) {
        const { last } = counted(diskOf(guest, format), format)
        if (last > number) return last
      }
      throw new Error(
        `${guest} does not count: ${readFileSync(join(libvirtd.folder, 'log/qemu', `${guest}.log`), 'utf8')}`,
      )
    },
    async verb<Line>(
      name: VerbName,
      args: object,
      {
        signal = new AbortController().signal,
        hear,
      }: { signal?: AbortSignal; hear?: (line: Line) => void } = {},
    ) {
      const { run: perform, render, exitOf } = (await loadServed(name)) as StreamModule<VerbName>
      const terminal = { colour: false, live: false, nowMs: Date.now() }
      const lines: Told<Line>[] = []
      try {
        for await (const line of perform(contexts('the test', signal), args as never)) {
          lines.push({ line: line as Line, text: render(line, terminal), exit: exitOf(line) })
          hear?.(line as Line)
        }
      } catch (error) {
        const problem = problemOf(error)
        lines.push({ line: problem as Line, text: `${problem.code}: ${problem.message}`, exit: 1 })
      }
      const last = lines.at(-1)
      if (last === undefined) throw new Error(`${name} said nothing`)
      return { lines, last }
    },
    async stop() {
      for (const use of ['control', 'monitor'] as const) (await parts.libvirt(use)).close()
      await world.stop()
    },
  }
}
