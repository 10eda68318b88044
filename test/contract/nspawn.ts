// A systemd as process 1 in a container of systemd-nspawn, with control groups of its own so that several run at a time. Needs root.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endOf, type Outcome, runTool, startTool, type Tool, type ToolOptions } from '../lab/processes.ts'

/** What it takes. */
export const machineRequirements = [
  { package: 'systemd', path: '/usr/bin/systemctl' },
  { package: 'systemd-container', path: '/usr/bin/systemd-nspawn' },
  { package: 'util-linux', path: '/usr/bin/nsenter' },
]

/** A machine that has started. Everything is run as root in it. */
export interface Machine {
  /** Of its systemd, as it is seen from outside. */
  readonly pid: number
  run(argv: readonly string[], options?: ToolOptions): Promise<Outcome>
  /** Starts a program that is there to be watched or killed. */
  start(argv: readonly string[]): Tool
  /** Where a path of it is to be found from outside. */
  inside(path: string): string
  /** As if its power was cut. */
  cut(): Promise<void>
  /** Shut down in order. */
  halt(): Promise<void>
}

const bootMs = 60_000

/**
 * Control groups below our own, in each hierarchy that systemd-nspawn uses. It calls those of every machine `payload`: two in one
 * place would be one to the kernel, and the systemd of each would wait for, and end, what belongs to the other.
 */
function makeGroups(name: string): readonly string[] {
  const own = readFileSync('/proc/self/cgroup', 'utf8')
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, at = '', type, options = ''] = line.split(' ')
      const isNamed = type === 'cgroup' && /\bname=systemd\b/.test(options)
      const place = type === 'cgroup2' ? /^0::(.*)$/m : isNamed ? /^\d+:name=systemd:(.*)$/m : null
      const within = place?.exec(own)?.[1]
      if (within === undefined) return []
      const folder = join(at, within, name)
      mkdirSync(folder, { recursive: true })
      return folder
    })
}

/** Joins the control groups that are named before `--`, and becomes what comes after it. */
const joinScript = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

/** Reads a file of a process; empty once that has ended. */
function ofProcess(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return ''
    throw error
  }
}

/** The systemd that a process has brought forth; null until there is one. */
function systemdBelow(pid: number): number | null {
  for (const child of ofProcess(`${pid}/task/${pid}/children`).trim().split(' ')) {
    if (child === '') continue
    if (ofProcess(`${child}/comm`) === 'systemd\n') return Number(child)
    const below = systemdBelow(Number(child))
    if (below !== null) return below
  }
  return null
}

/** Starts a machine by an argv that becomes systemd-nspawn --boot --keep-unit, and waits until it has booted. `name` is that of no other. */
export async function startMachine(name: string, argv: readonly string[]): Promise<Machine> {
  const groups = makeGroups(name)
  const child = startTool(['/bin/sh', '-ec', joinScript, 'sh', ...groups, '--', ...argv], {
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '1',
    SYSTEMD_NSPAWN_API_VFS_WRITABLE: 'network',
  })
  const ended = endOf(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => {
      said = `${said}${text}`.slice(-4000)
    })
  let leader: number | null = null
  const started: Tool[] = []
  const enter = (within: readonly string[]): readonly string[] => [
    ...['/usr/bin/nsenter', '--target', `${leader}`, '--all', '--', '/usr/bin/env', '--ignore-environment'],
    ...['PATH=/usr/sbin:/usr/bin', 'HOME=/root', 'LC_ALL=C.UTF-8', ...within],
  ]
  const wake = () => {
    try {
      if (leader !== null) process.kill(leader, 'SIGCHLD')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
  const gone = async () => {
    await ended
    await runTool(['/usr/bin/find', ...groups, '-depth', '-type', 'd', '-delete'])
  }
  const machine: Machine = {
    get pid() {
      return leader ?? Number.NaN
    },
    run: (within, options = {}) => runTool(enter(within), options),
    start(within) {
      const tool = startTool(enter(within))
      started.push(tool)
      return tool
    },
    inside: (path) => join(`/proc/${leader}/root`, path),
    async cut() {
      if (leader === null) child.kill('SIGKILL')
      else process.kill(leader, 'SIGKILL')
      await gone()
    },
    async halt() {
      await endOf(machine.start(['/usr/bin/systemctl', 'poweroff', '--no-block']))
      // systemd stops all processes for the moment in which it ends them. nsenter stops with what it has started, and would then not
      // see that it has ended. Nor does systemd hear of that, whose child it is not: it would look again after 10 s, and after 90.
      const waking = setInterval(() => {
        for (const tool of started) tool.kill('SIGCONT')
        wake()
      }, 100)
      await gone().finally(() => clearInterval(waking))
    },
  }
  try {
    const endMs = performance.now() + bootMs
    for (;;) {
      if (performance.now() > endMs || child.exitCode !== null)
        throw new Error(`the machine does not start: ${said}`)
      leader ??= child.pid === undefined ? null : systemdBelow(child.pid)
      if (leader !== null && existsSync(machine.inside('/run/systemd/private'))) break
      await sleep(50)
    }
    const asked = ['/usr/bin/systemctl', 'is-system-running', '--wait']
    const { stdout } = await machine.run(asked, { allowFailure: true, deadlineMs: bootMs })
    if (!/^(running|degraded)$/m.test(stdout)) throw new Error(`the machine is ${stdout.trim()}: ${said}`)
  } catch (error) {
    await machine.cut()
    throw error
  }
  return machine
}
