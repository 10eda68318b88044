// Does to the host what actions say: one entry per kind of action, so that the compiler misses none.

import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, realpath, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ActionOutcome, HostReader, Performer } from '../../provisioning/host.ts'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'
import type { Action, Condition } from '../../provisioning/resource.ts'
import { toldSource } from '../../provisioning/told.ts'
import type { ToEc2 } from './ec2.ts'
import { type Argv, type Execution, execute, lastLines } from './exec.ts'
import { fetchFile } from './fetch.ts'
import { errnoOf, makeFolder, moveFile, removeFile, replaceFile } from './files.ts'
import { performDomain, performNetwork, performPool, type ToLibvirt } from './libvirt-perform.ts'
import type { Claims } from './linux-host.ts'
import { assertGoesOn, begin, type Making, performUndo, type UndoParts } from './undo.ts'
import { undoFolder } from './undo-saved.ts'
import { systemdTimer } from './undo-timer.ts'
import { networkProperties, reportIn, self, systemdRun } from './unit.ts'

type Of<Kind extends Action['kind']> = Extract<Action, { kind: Kind }>

/** What the composition root gives: the reader that waits are read through, and the claims it shares with it. */
export interface LinuxPerformerOptions {
  readonly reader: HostReader
  readonly claims: Claims
  readonly libvirt: ToLibvirt
  /** Where changes to the network are kept until they are confirmed, and what counts their deadlines. */
  readonly undo?: Pick<UndoParts, 'folder' | 'timer'>
  readonly ec2: ToEc2
}

const pollMs = 250

function ec2Summary(action: Of<'ec2'>): string {
  switch (action.operation) {
    case 'enable-lni':
      return `${action.operation} ${action.subnetId} at device index ${action.deviceIndex}`
    case 'create-interface':
      return `${action.operation} in ${action.subnetId}`
    default:
      return `${action.operation} ${action.interfaceId ?? 'the interface of this host'}`
  }
}

/** What an action does, in one line for the journal. */
export function summaryOf(action: Action): string {
  switch (action.kind) {
    case 'run':
      return action.argv.join(' ')
    case 'write':
    case 'remove':
    case 'folder':
      return `${action.kind} ${action.path}`
    case 'move':
      return `move ${action.from} to ${action.to}`
    case 'wait':
      return `wait: ${action.summary}`
    case 'reboot':
      return 'reboot'
    case 'domain':
    case 'pool':
    case 'network':
      return `${action.operation} ${action.kind} ${action.name}`
    case 'undo':
      return `${action.operation} undo`
    case 'ec2':
      return `EC2: ${ec2Summary(action)}`
    case 'fetch':
      return `fetch ${toldSource(action.source)} to ${action.path}`
  }
}

/** What is left out of the outcome of an action that is no process. */
type Result = Pick<ActionOutcome, 'exit' | 'stderrTail'>

const resultOf = ({ exit, stderr, stdout }: Execution): Result => {
  // Some tools (dnf, parted) complain on standard output.
  const said = lastLines(stderr) || (exit === 0 ? '' : lastLines(stdout))
  return { exit, ...(said !== '' && { stderrTail: said }) }
}

/** Why an action failed, with what it had said until then. */
class Failure extends Error {
  readonly code: ProblemCode
  readonly result: Result
  constructor(code: ProblemCode, message: string, result: Result = {}) {
    super(message)
    this.code = code
    this.result = result
  }
}

/** Device and inode of a file as /proc/locks writes them, or null when there is no file. */
async function placeOf(path: string): Promise<{ readonly device: string; readonly inode: string } | null> {
  try {
    const { dev, ino } = await stat(path, { bigint: true })
    // st_dev as gnu_dev_major(3) and gnu_dev_minor(3) take it apart.
    const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
    const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn)
    // The kernel prints its own number where a filesystem shows one per subvolume (btrfs); both are anonymous, with major 0.
    return { device: major === 0n ? '00:' : `${hex(major)}:${hex(minor)}:`, inode: `:${ino}` }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    throw error
  }
}

const hex = (number: bigint): string => number.toString(16).padStart(2, '0')

/** Who holds a lock on a file, from /proc/locks (proc(5)): `pid 4711 (apt-get)`. */
async function lockHolders(reader: HostReader, path: string): Promise<readonly string[]> {
  const place = await placeOf(path)
  if (place === null) return []
  const pids = ((await reader.readText('/proc/locks')) ?? '').split('\n').flatMap((line) => {
    // `1: POSIX  ADVISORY  WRITE 4711 08:01:131 0 EOF`; one that waits has `->` before the kind.
    const [, kind, , , pid = '', at = ''] = line.split(/\s+/)
    return kind !== '->' && at.startsWith(place.device) && at.endsWith(place.inode) ? pid : []
  })
  return Promise.all(
    [...new Set(pids)].map(async (pid) => {
      const name = (await reader.readText(`/proc/${pid}/comm`))?.trim()
      return name === undefined ? `pid ${pid}` : `pid ${pid} (${name})`
    }),
  )
}

/** Null when the condition holds, else what stands in its way. */
async function obstacle(reader: HostReader, until: Condition): Promise<string | null> {
  switch (until.kind) {
    case 'exists':
      return (await reader.facts(until.path)) === null ? `${until.path} is not there` : null
    case 'unlocked': {
      const holders = await lockHolders(reader, until.path)
      return holders.length === 0 ? null : `${until.path} is locked by ${holders.join(', ')}`
    }
    case 'interface': {
      const names = (await reader.list('/sys/class/net')) ?? []
      for (const name of names) {
        const mac = await reader.readText(`/sys/class/net/${name}/address`)
        if (
          mac?.trim().toLowerCase() === until.mac &&
          (await reader.resolve(`/sys/class/net/${name}/device`))
        )
          return null
      }
      return `no device has the MAC ${until.mac}`
    }
    case 'answer': {
      const { exit, stdout, stderr } = await reader.query(until.argv)
      if (exit === 0 && new RegExp(until.pattern).test(stdout)) return null
      return `${until.argv.join(' ')} answers ${exit}: ${lastLines(stdout, 1) || lastLines(stderr, 1)}`
    }
  }
}

/** Numeric id of a user or group name, as the name service switch knows it. */
async function idOf(reader: HostReader, table: 'passwd' | 'group', name: string): Promise<number> {
  const { stdout } = await reader.query(['/usr/bin/getent', table, name])
  const id = Number(stdout.split(':')[2])
  if (stdout === '' || !Number.isInteger(id))
    throw new Failure('action.failed', `there is no ${table === 'passwd' ? 'user' : 'group'} ${name}`)
  return id
}

/** The Performer of the machine that this process runs on. */
export class LinuxPerformer implements Performer {
  readonly #reader: HostReader
  readonly #claims: Claims
  readonly #libvirt: ToLibvirt
  readonly #undo: UndoParts
  readonly #ec2: ToEc2
  /** The change to the network that the next actions belong to. */
  #making: Making | null = null

  constructor({ reader, claims, libvirt, undo, ec2 }: LinuxPerformerOptions) {
    this.#reader = reader
    this.#claims = claims
    this.#libvirt = libvirt
    this.#ec2 = ec2
    const { folder, timer } = undo ?? { folder: undoFolder, timer: systemdTimer }
    this.#undo = { folder, timer, reader, run: (action) => this.perform(action) }
  }

  readonly #kinds: {
    readonly [Kind in Action['kind']]: (action: Of<Kind>, signal?: AbortSignal) => Promise<Result>
  } = {
    run: (action, signal) => this.#run(action, signal),
    write: async ({ path, content, mode }) => {
      await replaceFile(path, content, mode)
      return {}
    },
    remove: async ({ path }) => {
      await removeFile(path)
      return {}
    },
    folder: async ({ path, mode, owner, group }) => {
      const uid = owner === undefined ? undefined : await idOf(this.#reader, 'passwd', owner)
      const gid = group === undefined ? undefined : await idOf(this.#reader, 'group', group)
      await makeFolder(path, {
        ...(mode !== undefined && { mode }),
        ...(uid !== undefined && { uid }),
        ...(gid !== undefined && { gid }),
      })
      return {}
    },
    move: async ({ from, to }) => {
      await moveFile(from, to)
      return {}
    },
    wait: (action) => this.#wait(action),
    reboot: () => this.#run({ kind: 'run', argv: ['/usr/bin/systemctl', 'reboot'], deadlineMs: 60_000 }),
    domain: async (action) => {
      await performDomain(this.#libvirt, action)
      return {}
    },
    pool: async (action) => {
      await performPool(this.#libvirt, action)
      return {}
    },
    undo: async (action, signal) => {
      this.#making = null
      if (action.operation === 'arm') {
        this.#making = await begin(this.#undo, action)
        return {}
      }
      const told = await performUndo(this.#undo, action, signal)
      return told === null ? {} : { stderrTail: told }
    },
    ec2: async (action) => {
      await this.#ec2.perform(action)
      return {}
    },
    fetch: (action, signal) => this.#fetch(action, signal),
    network: async (action) => {
      await performNetwork(this.#libvirt, action)
      return {}
    },
  }

  async perform(action: Action, signal?: AbortSignal): Promise<ActionOutcome> {
    const startedMs = performance.now()
    const outcome = (result: Result): ActionOutcome => ({
      kind: action.kind,
      summary: summaryOf(action),
      durationMs: Math.round(performance.now() - startedMs),
      ...result,
    })
    try {
      if (this.#making !== null && action.kind !== 'undo') await assertGoesOn(this.#undo, this.#making)
      // The table and the action agree on the kind, which the compiler cannot follow through an index.
      const perform = this.#kinds[action.kind] as (action: Action, signal?: AbortSignal) => Promise<Result>
      return outcome(await perform(action, signal))
    } catch (error) {
      if (error instanceof Failure)
        throw new HostError(error.code, error.message, { details: { outcome: outcome(error.result) } })
      if (!(error instanceof HostError)) throw error
      const details = { ...error.details, outcome: outcome({}) }
      throw new HostError(error.code, error.message, { details, cause: error })
    }
  }

  async #run(action: Of<'run'>, signal?: AbortSignal): Promise<Result> {
    const { exits = [0], deadlineMs } = action
    const inUnit = action.unit && (await this.#reader.facts('/run/systemd/system')) !== null
    const execution = inUnit
      ? await this.#runInUnit(action)
      : await this.#execute(action.argv, action, deadlineMs, signal)
    const result = resultOf(execution)
    const { ended, exit, durationMs } = execution
    if (ended !== 'deadline' && ended !== 'aborted' && exits.includes(exit)) return result
    const [program] = action.argv
    if (ended === 'aborted') throw new Failure('action.failed', `${program} was stopped`, result)
    // systemd stops a unit at its RuntimeMaxSec and systemd-run only says that it failed.
    if (ended === 'deadline' || durationMs >= deadlineMs)
      throw new Failure(
        'action.deadline',
        `${program} did not end within ${deadlineMs / 1000} s and was stopped`,
        result,
      )
    const last = result.stderrTail === undefined ? '' : `: ${lastLines(result.stderrTail, 1)}`
    throw new Failure('action.failed', `${program} ended with ${exit}${last}`, result)
  }

  #execute(
    argv: Argv,
    { stdin, environment }: Of<'run'>,
    deadlineMs: number,
    signal?: AbortSignal,
  ): Promise<Execution> {
    return execute(argv, {
      deadlineMs,
      ...(signal !== undefined && { signal }),
      keep: 'tail',
      tethered: true,
      ...(stdin !== undefined && { stdin }),
      ...(environment !== undefined && { environment }),
    })
  }

  /** In a unit of its own, where there are units: what speaks to the network has no need of what this process may do, nor the other way. */
  async #fetch(action: Of<'fetch'>, signal?: AbortSignal): Promise<Result> {
    if ((await this.#reader.facts('/run/systemd/system')) === null) {
      await fetchFile(action, { signal })
      return {}
    }
    const execution = await this.#runInUnit(
      {
        kind: 'run',
        argv: [...self, 'fetch', '--json', '--', action.path],
        stdin: JSON.stringify(action),
        // Its own deadline comes first, and says more.
        deadlineMs: action.deadlineMs + 60_000,
      },
      // Files of any owner, and the network.
      ['CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_FOWNER', ...networkProperties],
      signal,
    )
    const result = resultOf(execution)
    if (execution.exit === 0) return result
    const report = reportIn(execution.stdout)
    if (report === null)
      throw new Failure('action.failed', `garrison fetch ended with ${execution.exit}`, result)
    throw new HostError(report.code, report.message, { details: { ...report.details } })
  }

  async #runInUnit(
    action: Of<'run'>,
    properties: readonly string[] = [],
    signal?: AbortSignal,
  ): Promise<Execution> {
    const { argv, deadlineMs, environment = {} } = action
    // A unit outlives an agent that is killed. Under the same name the next agent finds it, and waits rather than run it twice.
    const unit = `garrison-${createHash('sha256').update(JSON.stringify(argv)).digest('hex').slice(0, 16)}.service`
    await this.#wait({
      kind: 'wait',
      summary: `${unit} of an earlier apply has ended`,
      until: {
        kind: 'answer',
        argv: ['/usr/bin/systemctl', 'show', '--property=ActiveState', '--value', unit],
        pattern: '^(inactive|failed)',
      },
      deadlineMs,
    })
    // Ending systemd-run would leave the unit.
    let stopping: Promise<Execution> | undefined
    const stop = () => {
      stopping = execute(['/usr/bin/systemctl', 'stop', '--', unit], { deadlineMs: 120_000, keep: 'tail' })
    }
    signal?.addEventListener('abort', stop)
    try {
      if (signal?.aborted) throw new Failure('action.failed', `${unit} was stopped before it began`)
      return await this.#execute(
        systemdRun({ argv, name: unit, deadlineMs, environment, properties }),
        action,
        deadlineMs + 120_000,
      )
    } finally {
      signal?.removeEventListener('abort', stop)
      await stopping
    }
  }

  async #wait({ until, deadlineMs, summary }: Of<'wait'>): Promise<Result> {
    const endMs = performance.now() + deadlineMs
    for (;;) {
      const inTheWay = await obstacle(this.#reader, until).catch((error: unknown) => {
        if (error instanceof HostError && error.retry) return error.message
        throw error
      })
      if (inTheWay === null) return {}
      if (performance.now() >= endMs)
        throw new Failure(
          until.kind === 'interface' ? 'lni.not-appeared' : 'wait.deadline',
          `waited ${deadlineMs / 1000} s until ${summary}: ${inTheWay}`,
        )
      await sleep(pollMs)
    }
  }

  /**
   * Opens for reading only: closing a device that was open for writing makes udev read its partition table again, which itself
   * claims the device for an instant, and that is when the step's own tool would want it.
   */
  async claim<T>(devices: readonly string[], work: () => Promise<T>): Promise<T> {
    const held: { readonly file: FileHandle; readonly real: string }[] = []
    try {
      for (const device of devices) {
        const { file, real } = await this.#claimOne(device)
        held.push({ file, real })
        this.#claims.add(real)
      }
      return await work()
    } finally {
      for (const { file, real } of held) {
        this.#claims.delete(real)
        await file.close()
      }
    }
  }

  async #claimOne(device: string) {
    try {
      const real = await realpath(device)
      if (!(await stat(real)).isBlockDevice())
        throw new HostError('drive.busy', `${device} is not a block device (any more)`, {
          details: { device },
        })
      return { file: await open(real, constants.O_RDONLY | constants.O_EXCL), real }
    } catch (cause) {
      const errno = errnoOf(cause)
      if (cause instanceof HostError || errno === undefined) throw cause
      const users = errno === 'EBUSY' ? await this.#usersOf(device) : []
      const by = users.length > 0 ? `, used by ${users.join(', ')}` : ''
      throw new HostError('drive.busy', `${device} could not be opened exclusively (${errno}${by})`, {
        details: { device, errno, users },
        cause,
      })
    }
  }

  /** What stands on a device or its partitions, and where it is mounted; a best effort for the message. */
  async #usersOf(device: string): Promise<readonly string[]> {
    const name = basename((await this.#reader.resolve(device)) ?? device)
    const holders = (await this.#reader.list(`/sys/class/block/${name}/holders`)) ?? []
    const number = (await this.#reader.readText(`/sys/class/block/${name}/dev`))?.trim()
    const mounts = ((await this.#reader.readText('/proc/self/mountinfo')) ?? '')
      .split('\n')
      .flatMap((line) => {
        const [, , at, , mountpoint] = line.split(' ')
        return at === number && mountpoint !== undefined ? `mount ${mountpoint}` : []
      })
    return [...holders, ...mounts]
  }
}
