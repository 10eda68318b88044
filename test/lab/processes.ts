// How the lab starts the machine's own tools: argv arrays, no child outlives this process, locks that die with their holder.
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'

/** A child with three pipes, as `startTool` gives it. */
export type Tool = ChildProcessByStdio<Writable, Readable, Readable>

/** What a finished tool left behind; `exit` is the exit code, or the signal's name. */
export interface Outcome {
  exit: number | NodeJS.Signals
  stdout: string
  stderr: string
}

/** Input, deadline and line sinks for `runTool`. */
export interface ToolOptions {
  stdin?: string | Buffer
  deadlineMs?: number
  allowFailure?: boolean
  env?: Record<string, string>
  /** Called with each line of standard output as it comes. */
  onLine?: (line: string) => void
}

const running = new Set<Tool>()

const endAll = () => {
  for (const child of running) child.kill('SIGKILL')
}
process.on('exit', endAll)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    endAll()
    process.kill(process.pid, signal)
  })
}

/**
 * Starts a tool that ends with this process at the latest. `setpriv --pdeathsig` covers what exit handlers cannot: our own
 * SIGKILL, after which an orphaned QEMU would hold two gigabytes and a core.
 */
export function startTool(argv: readonly string[], env: Record<string, string> = {}): Tool {
  const child = spawn('/usr/bin/setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: process.env.HOME ?? '/root',
      LC_ALL: 'C.UTF-8',
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  running.add(child)
  child.once('close', () => running.delete(child))
  // A child that leaves before reading its input is judged by its exit code, not by the broken pipe.
  child.stdin.on('error', () => child.stdin.destroy())
  return child
}

/** Resolves when the tool has ended and its pipes are closed; rejects when it could not be started. */
export function endOf(child: Tool): Promise<number | NodeJS.Signals> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'SIGKILL'))
  })
}

/** Calls `onLine` for each whole line of a stream, and for the unfinished last one when it ends. */
export function eachLine(stream: Readable, onLine: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) onLine(line)
  })
  stream.on('end', () => {
    if (rest !== '') onLine(rest)
  })
}

/** Asks for the lines of a tool's standard output one by one; throws when it ends before there is another. */
export function linesOf(child: Tool): () => Promise<string> {
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error(`${child.spawnargs.join(' ')}: ended without another word`)
    return value
  }
}

/** Runs a tool to its end. Throws on another exit than 0 unless `allowFailure`, and always when the deadline passes. */
export async function runTool(argv: readonly string[], options: ToolOptions = {}): Promise<Outcome> {
  const child = startTool(argv, options.env)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer | string) => stdout.push(Buffer.from(chunk)))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  if (options.onLine) eachLine(child.stdout, options.onLine)
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, options.deadlineMs ?? 600_000)
  child.stdin.end(options.stdin)
  const exit = await endOf(child).finally(() => clearTimeout(timer))
  const outcome = { exit, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }
  if (late)
    throw new Error(`${argv.join(' ')}: no end within ${options.deadlineMs ?? 600_000} ms\n${outcome.stderr}`)
  if (exit !== 0 && !options.allowFailure) {
    throw new Error(
      `${argv.join(' ')}: exit ${exit}\n${outcome.stdout.slice(-2000)}${outcome.stderr.slice(-4000)}`,
    )
  }
  return outcome
}

/** A file lock held by a child; it is free again after `release` or when this process dies, however it dies. */
export interface Lock {
  release(): Promise<void>
}

/** Takes an flock(2) lock, waiting for it or, with `wait` false, answering undefined when somebody holds it. */
export async function takeLock(path: string, wait: boolean): Promise<Lock | undefined> {
  const child = startTool([
    '/usr/bin/flock',
    ...(wait ? [] : ['--nonblock']),
    '--no-fork',
    path,
    '/usr/bin/cat',
  ])
  const ended = endOf(child)
  // cat only answers once flock has become cat, which is when the lock is held.
  const held = new Promise<boolean>((resolve) => child.stdout.once('data', () => resolve(true)))
  child.stdin.write('\n')
  const exit = await Promise.race([held, ended])
  if (exit === 1) return undefined
  if (exit !== true) throw new Error(`flock ${path}: exit ${exit}`)
  return {
    async release() {
      child.stdin.end()
      await ended
    },
  }
}
