// Makes one guarded change to real files; run as a program, node undo-host.ts FOLDER, it is there to be killed.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer } from '../../agent/host/perform.ts'
import type { UndoTimer } from '../../agent/host/undo-timer.ts'
import type { Step } from '../../provisioning/resource.ts'
import { guarded } from '../../provisioning/undo.ts'
import { noCloud } from '../unit/no-cloud.ts'

/** The program, as systemd would start it. */
export const restoreArgv = (folder: string): [string, ...string[]] => [
  process.execPath,
  join(import.meta.dirname, '..', '..', 'agent', 'main.ts'),
  'network',
  'restore',
  '--json',
  '--',
  folder,
]

/** Counts in a process of its own, as systemd does: this one may be killed. */
export function detachedTimer(folder: string): UndoTimer {
  let pid: number | undefined
  const alive = () => {
    if (pid === undefined) return false
    try {
      return process.kill(pid, 0)
    } catch {
      return false
    }
  }
  const begin = (afterMs: number) =>
    spawn('/bin/sh', ['-c', 'sleep "$0"; exec "$@"', `${afterMs / 1000}`, ...restoreArgv(folder)], {
      detached: true,
      stdio: 'ignore',
    })
  return {
    async start(deadlineMs) {
      const child = begin(deadlineMs)
      child.unref()
      pid = child.pid
    },
    isRunning: async () => alive(),
    async stop() {
      if (pid !== undefined && alive()) process.kill(-pid, 'SIGKILL')
    },
    async restoreNow() {
      const { promise, resolve } = Promise.withResolvers<void>()
      begin(0).once('exit', () => resolve())
      await promise
    },
  }
}

/** For a host that goes down before its deadline. */
export const endlessTimer: UndoTimer = {
  start: async () => {},
  isRunning: async () => true,
  stop: async () => {},
  restoreNow: async () => {},
}

/** The performer of this machine with its undo in `folder`. */
export function undoPerformer(folder: string, timer = detachedTimer(folder)): LinuxPerformer {
  const libvirt = () => Promise.reject(new Error('not asked'))
  const claims = new Set<string>()
  const reader = new LinuxHost({
    claims,
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
    libvirt,
    ...noCloud,
  })
  return new LinuxPerformer({ reader, claims, libvirt, ec2: noCloud.ec2, undo: { folder, timer } })
}

/** A change to a file, a new one, one that goes, one behind a link, one that moves; `etc` is where they are. */
export const changeOf = (etc: string, deadlineMs: number, reload: string): Step =>
  guarded(
    {
      id: 'test.change',
      summary: 'change it all',
      risk: 'safe',
      because: [],
      actions: [
        { kind: 'write', path: `${etc}/changed`, content: 'new\n', mode: 0o600 },
        { kind: 'write', path: `${etc}/made/here`, content: 'new\n', mode: 0o644 },
        { kind: 'remove', path: `${etc}/removed` },
        { kind: 'write', path: `${etc}/link`, content: 'new\n', mode: 0o644 },
        { kind: 'move', from: `${etc}/moved`, to: `${etc}/elsewhere` },
      ],
    },
    {
      reload: [{ argv: ['/usr/bin/touch', '--', reload], deadlineMs: 5000 }],
      witnesses: [],
      deadlineMs,
    },
  )

if (process.argv[1] === import.meta.filename) {
  const [, , base = ''] = process.argv
  const performer = undoPerformer(`${base}/undo`, endlessTimer)
  const { actions } = changeOf(`${base}/etc`, 60_000, `${base}/reloaded`)
  for (const action of actions.slice(0, -1)) await performer.perform(action)
}
