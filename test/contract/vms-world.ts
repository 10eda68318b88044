// A host with a libvirt of its own, a document of two tiny VMs, and the verbs as processes over it: what the tests of VMs stand on.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import { type Libvirtd, startLibvirtd, virsh } from './libvirtd.ts'

/** One line of an answer, as a person reads it too; `exit` where the line decides it. */
export interface Told<Line> {
  readonly line: Line
  readonly text: string | null
  readonly exit: number | null
}

/** The last line of an apply. */
export type Finished = Extract<ApplyLine, { event: 'finished' }>

/** The declared VMs. Neither has a system in it. */
export const names = ['blank', 'clone'] as const

const agentPath = join(import.meta.dirname, 'vms-agent.ts')

/** The command line of a process, or nothing when it has gone. */
function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return ''
    throw error
  }
}

/** The host, its parts, and what can be done to it. */
export interface VmsWorld {
  readonly libvirtd: Libvirtd
  /** The folder of the declared pool. */
  readonly pool: string
  /** The image that `clone` begins as. */
  readonly image: string
  /** The folder that stands for `/` with etc, run and var. */
  readonly root: string
  /** Writes the document; `more` goes to the machine `blank`. */
  declare(more?: Readonly<Record<string, unknown>>): void
  /** virsh. */
  ask(...args: readonly string[]): string
  /** A verb in a process of its own; `told` is called for each line as it comes. */
  begin<Line>(
    verb: string,
    args: object,
    told: (one: Told<Line>, agent: ChildProcess) => void,
  ): Promise<unknown>
  /** Every line of a verb. */
  all<Line>(verb: string, args?: object): Promise<readonly Told<Line>[]>
  /** The whole answer of a verb that has one line. */
  answer<Result>(verb: string, args?: object): Promise<Told<Result>>
  /** Applies to the end; the last line. */
  apply(args?: object): Promise<Told<Finished>>
  /** The QEMU processes of a VM. */
  emulators(name: string): readonly number[]
  /** Takes all VMs, pools and files of theirs away. */
  clear(): void
  stop(): Promise<void>
}

/** Makes such a host. Needs root and what `startLibvirtd` needs. */
export async function vmsWorld(): Promise<VmsWorld> {
  const libvirtd = await startLibvirtd({ network: true })
  const root = mkdtempSync(join(tmpdir(), 'garrison-vms-'))
  const pool = join(libvirtd.folder, 'images')
  const image = join(libvirtd.folder, 'base.qcow2')
  for (const folder of ['run', 'var/lib', 'etc/garrison']) mkdirSync(join(root, folder), { recursive: true })
  symlinkSync(join(libvirtd.folder, 'run'), join(root, 'run/libvirt'))
  symlinkSync(join(libvirtd.folder, 'records'), join(root, 'var/lib/libvirt'))
  execFileSync('/usr/bin/qemu-img', ['create', '-q', '-f', 'qcow2', image, '16M'])
  const checksum = execFileSync('/usr/bin/sha256sum', [image], { encoding: 'utf8' }).slice(0, 64)
  const tiny = { accelerator: 'tcg', firmware: 'bios', memory: '64MiB' }

  const declare: VmsWorld['declare'] = (more) => {
    const document = {
      version: 1,
      vms: {
        pools: { images: { path: pool } },
        machines: {
          blank: { ...tiny, disks: { root: { size: '16MiB' } }, ...more },
          clone: {
            ...tiny,
            disks: { root: { image: { source: image, checksum: `sha256:${checksum}` }, size: '32MiB' } },
            cloudInit: { hostname: 'clone' },
          },
        },
      },
    }
    // Every JSON text is YAML.
    writeFileSync(join(root, 'etc/garrison/host.yaml'), JSON.stringify(document, null, 2))
  }
  declare()

  const ask: VmsWorld['ask'] = (...args) => virsh(libvirtd.socketPath, 'qemu:///system', ...args)
  const listed = (...args: readonly string[]): readonly string[] =>
    ask(...args)
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')

  const begin: VmsWorld['begin'] = (verb, args, told) => {
    const agent = spawn(process.execPath, [agentPath, root, verb, JSON.stringify(args)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    createInterface({ input: agent.stdout }).on('line', (line) => told(JSON.parse(line), agent))
    return once(agent, 'close')
  }
  const all = async <Line>(verb: string, args: object = {}): Promise<readonly Told<Line>[]> => {
    const lines: Told<Line>[] = []
    await begin<Line>(verb, args, (one) => lines.push(one))
    return lines
  }

  return {
    libvirtd,
    pool,
    image,
    root,
    declare,
    ask,
    begin,
    all,
    async answer<Result>(verb: string, args: object = {}) {
      const [one] = await all<Result>(verb, args)
      if (one === undefined) throw new Error(`${verb} said nothing`)
      return one
    },
    async apply(args = {}) {
      const last = (await all<ApplyLine>('apply', args)).at(-1)
      if (last?.line.event !== 'finished') throw new Error(`apply ended with ${JSON.stringify(last)}`)
      return last as Told<Finished>
    },
    emulators: (name) =>
      readdirSync('/proc')
        .filter((pid) => /^\d+$/.test(pid))
        .filter((pid) => {
          const line = commandLine(pid)
          return line.includes(`guest=${name},`) && line.includes(libvirtd.folder)
        })
        .map(Number),
    clear() {
      for (const name of listed('list', '--all', '--name')) {
        if (ask('domstate', name).trim() !== 'shut off') ask('destroy', name)
        ask('undefine', '--nvram', name)
      }
      for (const name of listed('pool-list', '--all', '--name')) {
        if (/running/.test(ask('pool-info', name))) ask('pool-destroy', name)
        ask('pool-undefine', name)
      }
      if (existsSync(pool)) rmSync(pool, { recursive: true })
    },
    async stop() {
      await libvirtd.stop()
      rmSync(root, { recursive: true })
    },
  }
}
