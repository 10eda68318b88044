// The host of the tests of backups: guests that count on their disks, and a folder for what is copied of them.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { contextsOf, type StreamModule } from '../../agent/api/context.ts'
import type { VerbName } from '../../agent/api/verbs.ts'
import { partsOf } from '../../agent/operate.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { problemOf } from '../../provisioning/problem.ts'
import { counted, makeCountingDisk } from './counting-guest.ts'
import { type Told, type VmsWorld, vmsWorld } from './vms-world.ts'

/** The host with guests that count, and a folder for backups. */
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
  readonly counted: typeof counted
  /** Waits until a guest that runs has counted further than that. */
  countsBeyond(guest: string, number: number): Promise<number>
  /** All lines of a verb that is a stream, and the last of them; in this process, until the signal aborts. `hear` gets each as it comes. */
  verb<Line>(
    name: VerbName,
    args: object,
    how?: { readonly signal?: AbortSignal; readonly hear?: (line: Line) => void },
  ): Promise<{ readonly lines: readonly Told<Line>[]; readonly last: Told<Line> }>
}

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

  const folderOf = (guest: string) => join(libvirtd.folder, 'disks', guest)
  const diskOf = (guest: string, format = 'qcow2') => join(folderOf(guest), `root.${format}`)

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
      // With its clusters in place QEMU changes no table of its own, so that what is written can be read from outside at once.
      makeCountingDisk(disk, { format, placed: format === 'qcow2' })
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
