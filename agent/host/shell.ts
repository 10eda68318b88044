// A shell of root on a pseudo-terminal of its own: script(1) of util-linux, in a transient unit of systemd outside this process's sandbox.
//
// INVARIANTS
// - The unit ends with its session: it is stopped by `close`, bound to the unit of this process, and bounded in time.
// - Only a terminal that the unit itself has is ever given another size.

import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { HostError } from '../../provisioning/problem.ts'
import { type Argv, begin, execute, lastLines, type Running } from './exec.ts'
import { errnoOf } from './files.ts'
import { hasUnits, systemdRun } from './unit.ts'

/** What the shell is told of the terminal at its other end, and how long it may last at most. */
export interface ShellOptions {
  readonly term: string
  readonly columns: number
  readonly rows: number
  readonly mostMs: number
}

/** A shell that runs. */
export interface Shell {
  /** What is typed. */
  readonly input: Writable
  /** What is to be seen; it ends when the shell does. */
  readonly output: Readable
  /** What the shell ended with. */
  readonly ended: Promise<number>
  /** The newest size wins; what it cannot be told is its own loss. */
  resize(columns: number, rows: number): void
  /** Hangs up on everything that runs there; after five seconds it is killed. Resolves when nothing is left. */
  close(): Promise<void>
}

const script: Argv = ['/usr/bin/script', '--quiet', '--flush', '--return', '/dev/null']
const ownUnit = 'garrison-operate.service'
const beginMs = 15_000
const pollMs = 50
const hangupSeconds = 5
const sttyMs = 5000

/** A file of /proc; null when the process is not there (any more). */
async function ofProcess(path: string): Promise<string | null> {
  try {
    return await readFile(`/proc/${path}`, 'utf8')
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(errnoOf(error) ?? '')) return null
    throw error
  }
}

const majorOfPts = 136

/** The pseudo-terminal that the first child of a process has, by /proc/PID/stat (proc(5)); null when it has none (yet). */
async function terminalBelow(pid: number): Promise<string | null> {
  const [child = ''] = (await ofProcess(`${pid}/task/${pid}/children`))?.trim().split(' ') ?? []
  const stat = child === '' ? null : await ofProcess(`${child}/stat`)
  if (stat === null) return null
  // The name of the program, in parentheses, may hold anything.
  const [, , , , number = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const device = Number(number)
  const [major, minor] = [(device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00)]
  return major === majorOfPts ? `/dev/pts/${minor}` : null
}

/** The shell of root by passwd(5), as script(1) is told of it; nothing where root has none, and then script takes the system's. */
async function loginShell(): Promise<Readonly<Record<string, string>>> {
  const [, shell = ''] =
    /^root:(?:[^:\n]*:){5}(\/[^:\n]*)$/m.exec(await readFile('/etc/passwd', 'utf8')) ?? []
  return shell === '' || /\/(nologin|false|sync|halt|shutdown)$/.test(shell) ? {} : { SHELL: shell }
}

const mainPid = async (unit: string): Promise<number> => {
  const argv: Argv = ['/usr/bin/systemctl', 'show', '--property=MainPID', '--value', '--', unit]
  const { stdout } = await execute(argv, { deadlineMs: beginMs, keep: 'tail' })
  return Number(stdout.trim()) || 0
}

/** Where the shell runs: in a unit, or, where there are none (a container, a test), below this process. */
interface Place {
  readonly running: Running
  pid(): Promise<number>
  hangUp(): Promise<void>
}

async function inUnit(environment: Readonly<Record<string, string>>, mostMs: number): Promise<Place> {
  const unit = `garrison-shell-${randomBytes(6).toString('hex')}.service`
  const isBound = (await ofProcess('self/cgroup'))?.includes(`/${ownUnit}`) ?? false
  const properties = [
    'WorkingDirectory=/root',
    'KillSignal=SIGHUP',
    `TimeoutStopSec=${hangupSeconds}`,
    // A session that nobody carries any more must not go on.
    ...(isBound ? [`BindsTo=${ownUnit}`, `After=${ownUnit}`] : []),
  ]
  const running = await begin(
    systemdRun({ argv: script, name: unit, deadlineMs: mostMs, environment, properties }),
    {},
  )
  return {
    running,
    pid: () => mainPid(unit),
    async hangUp() {
      const deadlineMs = (hangupSeconds + 30) * 1000
      await execute(['/usr/bin/systemctl', 'stop', '--', unit], { deadlineMs, keep: 'tail' })
    },
  }
}

async function belowThis(environment: Readonly<Record<string, string>>): Promise<Place> {
  const running = await begin(script, environment)
  return {
    running,
    pid: async () => running.pid,
    async hangUp() {
      running.kill('SIGHUP')
      const hung = await Promise.race([running.ended, sleep(hangupSeconds * 1000, null, { ref: false })])
      if (hung === null) running.kill('SIGKILL')
    },
  }
}

/** Tells a terminal its size, one after the other; of those that wait only the newest. */
function sizer(terminal: string) {
  let next: readonly [columns: number, rows: number] | null = null
  let telling: Promise<void> | null = null
  const tell = async () => {
    while (next !== null) {
      const [columns, rows] = next
      next = null
      const size = ['columns', String(columns), 'rows', String(rows)]
      // A terminal that is gone needs no size.
      await execute(['/usr/bin/stty', '-F', terminal, ...size], { deadlineMs: sttyMs, keep: 'tail' })
    }
  }
  return (columns: number, rows: number): Promise<void> => {
    next = [columns, rows]
    telling ??= tell().finally(() => {
      telling = null
    })
    return telling
  }
}

/** Opens a shell, and returns when its terminal is there and has its size. Throws `shell.not-begun`, `host.tool-missing`, `host.denied`. */
export async function openShell({ term, columns, rows, mostMs }: ShellOptions): Promise<Shell> {
  const environment = {
    ...{ TERM: term, HOME: '/root', USER: 'root', LOGNAME: 'root', ...(await loginShell()) },
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  }
  const { running, pid, hangUp } = (await hasUnits())
    ? await inUnit(environment, mostMs)
    : await belowThis(environment)
  let over: { readonly exit: number; readonly stderr: string } | null = null
  const ended = running.ended.then((end) => {
    over = end
    return end
  })
  const endMs = performance.now() + beginMs
  let terminal: string | null = null
  while (terminal === null) {
    terminal = await terminalBelow(await pid())
    if (terminal !== null) break
    if (over !== null || performance.now() > endMs) {
      await hangUp()
      const why =
        over === null ? `no terminal within ${beginMs / 1000} s` : lastLines((await ended).stderr, 1)
      throw new HostError('shell.not-begun', `no shell could be begun: ${why || 'it ended at once'}`)
    }
    await sleep(pollMs)
  }
  const tellSize = sizer(terminal)
  await tellSize(columns, rows)
  return {
    input: running.input,
    output: running.output,
    ended: ended.then(({ exit }) => exit),
    resize(newColumns, newRows) {
      // Another may have the number of its terminal by now. Where stty(1) does not run, the shell keeps the size that it has.
      if (over === null) tellSize(newColumns, newRows).catch(() => undefined)
    },
    async close() {
      if (over === null) await hangUp()
      await ended
    },
  }
}
