// The doors over a real libvirtd, served in this process, and the command line as processes that ask them.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { parseCommandLine, pathOf } from '../../agent/api/arguments.ts'
import { ask } from '../../agent/api/client.ts'
import { contextsOf, type Parts, type StreamModule } from '../../agent/api/context.ts'
import { serve } from '../../agent/api/server.ts'
import type { VerbName } from '../../agent/api/verbs.ts'
import { answerMemory, Libvirt } from '../../agent/host/libvirt.ts'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer } from '../../agent/host/perform.ts'
import { type Connection, connectOpen } from '../../agent/node-libvirt/index.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { noCloud } from '../unit/no-cloud.ts'
import { fakeParts } from './fake-host.ts'
import type { Libvirtd } from './libvirtd.ts'

const main = join(import.meta.dirname, '../../agent/main.ts')

/** What a process of the command line came to. */
export interface Ended {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Starts the command line. */
export const start = (args: readonly string[]): ChildProcess =>
  spawn(process.execPath, [main, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, TZ: 'UTC', USER: 'alice' },
  })

/** Waits for the end of a process. */
export async function ended(child: ChildProcess): Promise<Ended> {
  const said = { stdout: '', stderr: '' }
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said.stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said.stderr += text
  })
  const [exit] = await once(child, 'close')
  return { exit, ...said }
}

/** The lines of an answer that streams. */
export const linesOf = (text: string) =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

/** Open doors. */
export interface Doors {
  readonly folder: string
  readonly parts: Parts<Connection>
  readonly socket: (door: 'read' | 'operate' | 'admin') => string
  /** Runs the command line against a door to its end. */
  garrison(door: 'read' | 'operate' | 'admin', ...args: readonly string[]): Promise<Ended>
  /** Asks the same of the door without a process; the lines, and what a process would end with (null for a refusal). */
  json(
    door: 'read' | 'operate' | 'admin',
    ...args: readonly string[]
    // biome-ignore lint/suspicious/noExplicitAny: lines of many shapes, each looked at by its own test
  ): Promise<{ readonly exit: number | null; readonly lines: readonly any[] }>
  close(): Promise<void>
}

/** Serves the doors of a host whose VMs are those of a libvirtd: its `test` or its `qemu` driver. */
export async function openDoors(libvirtd: Libvirtd, uri: string): Promise<Doors> {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-doors-'))
  const open = new Set<Connection>()
  const libvirt = new Libvirt(
    async () => {
      const connection = await connectOpen(uri, {
        socketPath: libvirtd.socketPath,
        connectDeadlineMs: 5000,
        reconnect: { leastMs: 20, mostMs: 500 },
        keepalive: { intervalMs: 1000, count: 3 },
      })
      open.add(connection)
      return connection
    },
    Date.now,
    answerMemory(join(folder, 'libvirt-answered')),
  )
  const reader = new LinuxHost({
    claims: new Set(),
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
    libvirt: () => libvirt.connection('monitor'),
    ...noCloud,
  })
  const parts: Parts<Connection> = {
    ...fakeParts(folder),
    reader,
    performer: new LinuxPerformer({
      reader,
      claims: new Set(),
      libvirt: () => libvirt.connection('control'),
      ec2: noCloud.ec2,
    }),
    libvirt: (use) => libvirt.connection(use),
    ownLibvirt: () => libvirt.own('monitor'),
    libvirtFolders: {
      run: join(libvirtd.folder, 'run'),
      kept: join(libvirtd.folder, 'records'),
      log: join(libvirtd.folder, 'log'),
    },
  }
  const doors = await serveParts(folder, parts)
  return {
    ...doors,
    async close() {
      await doors.close()
      for (const connection of open) connection.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Serves the doors of a host that is made of these parts, in a folder of theirs. */
export async function serveParts(folder: string, parts: Parts<Connection>): Promise<Doors> {
  const socket = (door: string) => join(folder, `${door}.sock`)
  const served = await serve({
    doorways: (['read', 'operate', 'admin'] as const).map((door) => ({ door, path: socket(door) })),
    contextFor: contextsOf(parts),
    load: loadServed,
    log: pino({ level: 'silent' }),
    idleMs: 600_000,
  })
  const garrison: Doors['garrison'] = (door, ...args) => ended(start(['--socket', socket(door), ...args]))
  return {
    folder,
    parts,
    socket,
    garrison,
    async json(door, ...args) {
      const { verb, values } = parseCommandLine(args)
      if (verb === null) throw new Error(`no verb: ${args.join(' ')}`)
      const lines: string[] = []
      const onLine = (line: string) => lines.push(line)
      const reply = await ask(socket(door), { path: pathOf(verb), args: values, caller: 'alice', onLine })
      const answers = linesOf([...lines, reply.body].join('\n'))
      if (!reply.ok) return { exit: null, lines: answers }
      const { exitOf } = (await loadServed(verb)) as StreamModule<VerbName>
      const exit = reply.exit ?? answers.reduce((last, line) => exitOf(line) ?? last, 0)
      return { exit, lines: answers }
    },
    async close() {
      served.stop()
      await served.left
    },
  }
}
