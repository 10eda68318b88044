// Starts the tools of the host: the only file that does. Speaks execve(2) through execa; no shell, nothing inherited.

import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { constants as os } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { execa } from 'execa'
import type { Answer } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'

/** A program by its absolute path, and its arguments. */
export type Argv = readonly [string, ...string[]]

/** How a tool is run. */
export interface ExecuteOptions {
  readonly deadlineMs: number
  /** Standard input; empty and closed when absent. */
  readonly stdin?: string
  /** Added to the fixed environment. */
  readonly environment?: Readonly<Record<string, string>>
  /** `all`: more than 16 MiB of output ends the tool. `tail`: only the last 64 KiB are kept and the tool may say what it likes. */
  readonly keep: 'all' | 'tail'
  /** The tool is killed when this process dies, however it dies; else it may outlive it. */
  readonly tethered?: true
  /** When it aborts the tool is ended as at its deadline. */
  readonly signal?: AbortSignal
}

/** What a tool answered and how it came to its end. `exit` is 128 + signal when a signal ended it. */
export interface Execution extends Answer {
  readonly ended: 'exited' | 'signal' | 'deadline' | 'overflow' | 'aborted'
  readonly durationMs: number
}

/** The whole environment of a tool, but for what an action adds. */
const environment = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C.UTF-8',
  LANG: 'C.UTF-8',
  TZ: 'UTC',
  HOME: '/root',
}

const mostBytes = 16 * 2 ** 20
const tailBytes = 64 * 2 ** 10
/** Signals to a process group that must end, and how long each is given. */
const endings = [
  ['SIGTERM', 5000],
  ['SIGKILL', 1000],
] as const
const drainMs = 250
const sttyMs = 2000

let started = 0

/** How many processes this process has started so far. */
export const processesStarted = (): number => started

/** The last `count` lines of a tool's output, without the empty ones at its end. */
export const lastLines = (text: string, count = 20): string =>
  text.trimEnd().split('\n').slice(-count).join('\n')

/** Collects one stream: everything up to a limit, or only its tail. */
function collect(keep: ExecuteOptions['keep'], onOverflow: () => void) {
  let chunks: Buffer[] = []
  let bytes = 0
  return {
    add(chunk: Buffer): void {
      chunks.push(chunk)
      bytes += chunk.length
      if (keep === 'all' && bytes > mostBytes) onOverflow()
      if (keep === 'tail' && bytes > 4 * tailBytes) {
        chunks = [Buffer.concat(chunks).subarray(-tailBytes)]
        bytes = tailBytes
      }
    },
    text: (): string => {
      const all = Buffer.concat(chunks)
      return (keep === 'all' ? all.subarray(0, mostBytes) : all.subarray(-tailBytes)).toString('utf8')
    },
  }
}

const sleep = <T>(ms: number, value: T): { readonly done: Promise<T>; cancel(): void } => {
  const { promise, resolve } = Promise.withResolvers<T>()
  const timer = setTimeout(resolve, ms, value)
  return { done: promise, cancel: () => clearTimeout(timer) }
}

/** Throws `host.tool-missing` or `host.denied` unless the program is there and can be run. */
async function wantProgram(argv: Argv): Promise<void> {
  const [program] = argv
  if (!program.startsWith('/')) throw new TypeError(`not an absolute path: ${program}`)
  await access(program, constants.X_OK).catch((cause: NodeJS.ErrnoException) => {
    const code = cause.code === 'ENOENT' || cause.code === 'ENOTDIR' ? 'host.tool-missing' : 'host.denied'
    throw new HostError(code, `${program} cannot be run (${cause.code})`, { details: { argv }, cause })
  })
}

const tethered = (argv: Argv): Argv => ['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--', ...argv]

/** A program that is spoken with while it runs. */
export interface Running {
  readonly pid: number
  readonly input: Writable
  readonly output: Readable
  /** What it ended with, 128 + signal when by one, and its last words on standard error. */
  readonly ended: Promise<{ readonly exit: number; readonly stderr: string }>
  kill(signal: NodeJS.Signals): void
}

/**
 * Begins a program that is spoken with while it runs, in a session of its own and without a terminal; it is killed when this process
 * dies. Throws `host.tool-missing`, `host.denied`, `host.unreadable`.
 */
export async function begin(argv: Argv, added: Readonly<Record<string, string>>): Promise<Running> {
  await wantProgram(argv)
  const [file, ...args] = tethered(argv)
  started += 1
  const subprocess = execa(file, args, {
    ...{ stdin: 'pipe', stdout: 'pipe', stderr: 'pipe', buffer: false, encoding: 'buffer', reject: false },
    ...{ env: { ...environment, ...added }, extendEnv: false, cwd: '/', killDescendants: true },
  })
  const child = subprocess.nodeChildProcess
  const { pid, stdin, stdout, stderr } = child
  if (pid === undefined || !stdin || !stdout || !stderr)
    throw new HostError('host.unreadable', `${argv[0]} could not be started`, { details: { argv } })
  const words = collect('tail', () => {})
  stderr.on('data', (chunk: Buffer) => words.add(chunk))
  // Who writes to a program that has ended hears of it by its end.
  stdin.on('error', () => stdin.destroy())
  const { promise: ended, resolve } = Promise.withResolvers<Awaited<Running['ended']>>()
  const end = (code: number | null, signal: NodeJS.Signals | null) =>
    resolve({ exit: code ?? 128 + os.signals[signal ?? 'SIGKILL'], stderr: words.text() })
  // Not its close: what it has said may be read much later.
  child.once('exit', (code, signal) => {
    const late = setTimeout(end, drainMs, code, signal)
    stderr.once('close', () => {
      clearTimeout(late)
      end(code, signal)
    })
  })
  return {
    ...{ pid, input: stdin, output: stdout, ended },
    kill: (signal) => {
      subprocess.kill(signal)
    },
  }
}

/** Tells the terminal at standard input something by stty(1), which needs no right to open it. False when it could not be told. */
export async function setTerminal(...settings: readonly string[]): Promise<boolean> {
  started += 1
  const { failed } = await execa('/usr/bin/stty', settings, {
    ...{ stdin: 'inherit', stdout: 'ignore', stderr: 'ignore', reject: false, timeout: sttyMs },
    // Else a signal that comes now would end this process as if nobody had wanted to hear of it.
    cleanup: false,
    ...{ env: environment, extendEnv: false },
  })
  return !failed
}

/**
 * Runs a tool to its end. Every end is returned, also a bad one; only a tool that cannot be started throws
 * (`host.tool-missing`, `host.denied`, `host.unreadable`). At the deadline its process group gets SIGTERM and five seconds later
 * SIGKILL; a process that even then does not end (uninterruptible on a dead drive) is left behind and not waited for.
 */
export async function execute(argv: Argv, options: ExecuteOptions): Promise<Execution> {
  const [program] = argv
  await wantProgram(argv)
  // A tool that outlived a killed agent would go on writing after the next one has taken the apply lock.
  const [file, ...args] = options.tethered ? tethered(argv) : argv
  started += 1
  const startedMs = performance.now()
  const overflow = Promise.withResolvers<'overflow'>()
  const subprocess = execa(file as string, args, {
    input: options.stdin ?? '',
    env: { ...environment, ...options.environment },
    extendEnv: false,
    cwd: '/',
    buffer: false,
    encoding: 'buffer',
    reject: false,
    killDescendants: true,
    forceKillAfterDelay: false,
  })
  const child = subprocess.nodeChildProcess
  const stdout = collect(options.keep, () => overflow.resolve('overflow'))
  const stderr = collect(options.keep, () => overflow.resolve('overflow'))
  subprocess.stdout.on('data', (chunk: Buffer) => stdout.add(chunk))
  subprocess.stderr.on('data', (chunk: Buffer) => stderr.add(chunk))

  // A daemon that the tool leaves behind can hold its pipes open for ever, so its own exit ends the wait, after a short drain.
  const exited = Promise.withResolvers<'exited'>()
  let drain: NodeJS.Timeout | undefined
  child.once('exit', () => {
    drain = setTimeout(exited.resolve, drainMs, 'exited')
  })
  const closed = subprocess.then((result) => {
    if (result.exitCode === undefined && result.signal === undefined)
      throw new HostError('host.unreadable', `${program} could not be started: ${result.shortMessage}`, {
        details: { argv },
        cause: result.cause,
      })
    return 'exited' as const
  })
  const deadline = sleep(options.deadlineMs, 'deadline' as const)
  const aborted = Promise.withResolvers<'aborted'>()
  const abort = () => aborted.resolve('aborted')
  options.signal?.addEventListener('abort', abort)
  if (options.signal?.aborted) abort()
  let ended: Execution['ended'] = await Promise.race([
    closed,
    exited.promise,
    deadline.done,
    overflow.promise,
    aborted.promise,
  ]).finally(() => {
    deadline.cancel()
    options.signal?.removeEventListener('abort', abort)
  })
  for (const [signal, graceMs] of ended === 'exited' ? [] : endings) {
    subprocess.kill(signal)
    const grace = sleep(graceMs, undefined)
    await Promise.race([exited.promise, grace.done]).finally(grace.cancel)
  }
  clearTimeout(drain)
  child.stdout?.destroy()
  child.stderr?.destroy()
  child.unref()
  const { exitCode, signalCode } = child
  if (ended === 'exited' && signalCode !== null) ended = 'signal'
  return {
    ended,
    exit: exitCode ?? 128 + (signalCode === null ? os.signals.SIGKILL : os.signals[signalCode]),
    stdout: stdout.text(),
    stderr: stderr.text(),
    durationMs: Math.round(performance.now() - startedMs),
  }
}
