// The executable: argv to verb, answers to the terminal, exit codes. Asks the root side, or looks itself where there is none.
//
// INVARIANTS
// - On the way to an answer with --json nothing is loaded but the table of verbs, the client and the terminal.
// - Text of the host reaches the terminal only through `visibleIn` or `safeJson`.

import { writeSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { HostError, type ProblemReport, problemOf } from '../provisioning/problem.ts'
import { checkedArgs, doorNeeded, parseCommandLine, pathOf } from './api/arguments.ts'
import { ask } from './api/client.ts'
import type { AnswerModule, SessionModule, StreamModule } from './api/context.ts'
import { isJob, isJobLine, type JobLine, jobLines } from './api/job-lines.ts'
import type { BegunJob } from './api/jobs.ts'
import { isProgress } from './api/progress.ts'
import {
  duration,
  paragraph,
  problemText,
  safeJson,
  shorten,
  type Terminal,
  visibleIn,
} from './api/terminal.ts'
import { type Args, EXIT, type Exit, isVerb, type VerbName, verbOf } from './api/verbs.ts'
import { loadLocal, loadOfDaemon, loadServed } from './verbs/index.ts'

const socketPaths = ['admin', 'operate', 'read'].map((door) => `/run/garrison/${door}.sock`)
const daemonSocketPath = '/run/garrison/report.sock'
/** Where the daemon is asked to act on another host. */
const fleetSocketPath = '/run/garrison/fleet.sock'
const problemSchema = 'garrison/problem/1'
const [stdout, stderr] = [1, 2]
const slowMs = 1000
const redrawMs = 200

/** Writes all of a text at once. A reader that has gone ends the process quietly, as it ends the other tools of a pipe. */
function write(fd: number, text: string): void {
  let rest = Buffer.from(text)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EPIPE' || code === 'EIO') process.exit(EXIT.error)
      if (code !== 'EAGAIN') throw error
      // The pipe is full, and somebody made it non-blocking.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}

function terminalOf(fd: number): Terminal {
  // Not imported: it would cost every --json answer 2 ms.
  const live = process.getBuiltinModule('node:tty').isatty(fd) && process.env.TERM !== 'dumb'
  return { colour: live && !process.env.NO_COLOR, live, nowMs: Date.now() }
}

const note = (text: string): void => write(stderr, `${paragraph('', text, 0)}\n`)

/** Who the person at the terminal is by their own environment; the journal marks it as said. */
function callerOf({ SUDO_USER, USER, LOGNAME, SSH_CONNECTION }: NodeJS.ProcessEnv): string {
  const name = SUDO_USER || USER || LOGNAME || `uid ${process.getuid?.()}`
  const from = SSH_CONNECTION ? ` over ssh from ${SSH_CONNECTION.split(' ')[0]}` : ''
  return `${name}${from}`.replace(/[^\x20-\x7e]/g, '?').slice(0, 128)
}

/** With --json a problem is an answer like any other; for a person it goes to standard error, in three parts. */
function tellProblem(problem: ProblemReport, json: boolean, changes: boolean): Exit {
  if (json) write(stdout, `${safeJson({ schema: problemSchema, ...problem })}\n`)
  else
    write(
      stderr,
      `${problemText(terminalOf(stderr), visibleIn(problem), changes ? 'Nothing was changed.' : undefined)}\n`,
    )
  if (problem.code === 'libvirt.unreachable') return EXIT.unknown
  return refusals.has(problem.code) ? EXIT.refused : EXIT.error
}

const refusals: ReadonlySet<string> = new Set([
  'door.closed',
  'door.refused',
  'apply.locked',
  'plan.other-instance',
  'fleet.denied',
  'fleet.exists',
  'fleet.name-taken',
  'fleet.role-refused',
  'fleet.token-refused',
  'shell.off',
])

/** The last line of a terminal: what goes on and for how long, written over until the next line is said. */
function liveLine(on: boolean) {
  let text: string | null = null
  let sinceMs = 0
  const draw = () => {
    if (text === null) return
    const passed = duration(Date.now() - sinceMs)
    write(stdout, `\r\u001b[K${shorten(text, 77 - passed.length)}  ${passed}`)
  }
  const clear = () => {
    if (text !== null) write(stdout, '\r\u001b[K')
  }
  const timer = on ? setInterval(draw, redrawMs) : undefined
  return {
    say(lines: string) {
      clear()
      write(stdout, `${lines}\n`)
    },
    /** `goesOn`: it is the same that was shown before. */
    show(now: string | null, goesOn = false) {
      clear()
      if (!goesOn || text === null) sinceMs = Date.now()
      text = on ? now : null
      draw()
    },
    end() {
      clear()
      text = null
      clearInterval(timer)
    },
  }
}

/** The module of a verb that another process answers; what answers it is not used here. */
const loadAnswered = async (name: VerbName) => (await loadServed(name)) ?? (await loadOfDaemon(name))

/** Prints an answer of one object. `body` is its JSON as the root side sent it. */
async function printAnswer(name: VerbName, body: string, json: boolean): Promise<void> {
  if (json) write(stdout, body)
  else {
    const { render } = (await loadAnswered(name)) as AnswerModule<VerbName>
    write(stdout, `${render(visibleIn(JSON.parse(body)), terminalOf(stdout))}\n`)
  }
}

/** Prints the lines of a stream as they come and remembers what the process ends with. */
async function streamPrinter(name: VerbName, json: boolean) {
  const { render, exitOf, live } = (await loadAnswered(name)) as StreamModule<VerbName>
  const terminal = terminalOf(stdout)
  const below = liveLine(terminal.live && !json)
  let exit: Exit = EXIT.done
  let begun = false
  return {
    line(line: unknown) {
      const { schema, ...problem } = line as { readonly schema: string } & ProblemReport
      if (schema === problemSchema) {
        below.end()
        exit = tellProblem(problem, json, false)
        return
      }
      begun = true
      if (!isJobLine(line as object)) exit = exitOf(line) ?? exit
      if (json) write(stdout, `${safeJson(line)}\n`)
      else if (isJobLine(line as object))
        below.say(
          paragraph('', `Job ${(line as JobLine).job}: garrison jobs follow, garrison jobs cancel.`, 0),
        )
      else {
        const shown = visibleIn(line)
        const text = render(shown, { ...terminal, nowMs: Date.now() })
        if (text !== null) below.say(text)
        below.show(live?.(shown) ?? null, isProgress(line as object))
      }
    },
    /** Takes the live line away; answers whether any line has come. */
    end(): boolean {
      below.end()
      return begun
    },
    exit: () => exit,
  }
}

const changesHost = (name: VerbName): boolean => ['operate', 'admin'].includes(verbOf(name).door)

const interrupts = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Calls `first` at the first Ctrl-C (or lost terminal) and ends the process at the second; answers how to end that. */
function onInterrupt(first: () => void): () => void {
  let asked = false
  const interrupted = () => {
    if (asked) process.exit(EXIT.error)
    asked = true
    first()
  }
  for (const signal of interrupts) process.on(signal, interrupted)
  return () => {
    for (const signal of interrupts) process.off(signal, interrupted)
  }
}

const leaving =
  'What is in hand ends unseen, and no further is begun; garrison journal tells what became of it.'

const goingOn = 'It goes on by itself: garrison jobs follow shows it again, garrison jobs cancel ends it.'

const interrupting =
  'Interrupted. What is there is kept: ask for the same again, and it goes on or begins anew.'

const stopping =
  'Stopping after the step in hand. Ctrl-C again leaves at once; what the step does it may then do unseen.'

/** The verb asked of the root side through the first door that opens; what stood in the way when none does. */
async function askRootSide<N extends VerbName>(
  name: N,
  args: Args<N>,
  json: boolean,
  paths: readonly string[],
  host?: string,
): Promise<Exit | { readonly closed: string }> {
  const printer = verbOf(name).streams ? await streamPrinter(name, json) : null
  const isLive = !printer && !json && terminalOf(stdout).live
  const slow = liveLine(isLive)
  const timer = isLive ? setTimeout(() => slow.show('looking at the host'), slowMs) : undefined
  const closed: string[] = []
  try {
    for (const path of paths) {
      const asking = {
        caller: callerOf(process.env),
        host,
        onLine: (line: string) => printer?.line(JSON.parse(line)),
      }
      const interrupted = () => {
        if (!changesHost(name)) process.exit(EXIT.done)
        if (!verbOf(name).steps) {
          note(verbOf(name).job ? goingOn : leaving)
          process.exit(EXIT.error)
        }
        note(stopping)
        ask(path, { ...asking, path: pathOf('stop'), args: {} }).catch((error: unknown) =>
          tellProblem(problemOf(error), json, false),
        )
      }
      const release = printer ? onInterrupt(interrupted) : () => {}
      try {
        const reply = await ask(path, { ...asking, path: pathOf(name), args })
        printer?.end()
        slow.end()
        if (!reply.ok) return tellProblem(JSON.parse(reply.body), json, changesHost(name))
        if (printer) return printer.exit()
        await printAnswer(name, reply.body, json)
        return (reply.exit ?? EXIT.error) as Exit
      } catch (error) {
        const { code = '' } = error as NodeJS.ErrnoException
        const why: string | undefined =
          error instanceof HostError ? undefined : notThere[code as keyof typeof notThere]
        if (why === undefined) {
          printer?.end()
          slow.end()
          // What was done before the connection was lost is not known here.
          return tellProblem(problemOf(error), json, false)
        }
        closed.push(`${path}: ${why}`)
      } finally {
        release()
      }
    }
    // The last door asks for the least.
    return { closed: closed.at(-1) ?? 'no socket' }
  } finally {
    clearTimeout(timer)
    printer?.end()
    slow.end()
  }
}

const notThere = { ENOENT: 'not there', ECONNREFUSED: 'nobody listens', EACCES: 'permission denied' } as const

/** The verb run in this process, with what this user may read. */
async function runHere<N extends VerbName>(name: N, args: Args<N>, json: boolean): Promise<Exit> {
  const [{ partsOf }, { contextsOf }] = await Promise.all([
    import('./operate.ts'),
    import('./api/context.ts'),
  ])
  const left = new AbortController()
  const who = `the command line, says ${callerOf(process.env)}`
  const contextFor = (signal: AbortSignal) => contexts(who, signal)
  const contexts = contextsOf(partsOf())
  const context = contextFor(left.signal)
  const { schema, streams, steps } = verbOf(name)
  const job = isJob(name, args)
  const module = await loadServed(name)
  if (streams) {
    const printer = await streamPrinter(name, json)
    let begun: BegunJob | null = null
    onInterrupt(() => {
      if (job) note(interrupting)
      else if (changesHost(name)) note(steps ? stopping : leaving)
      if (begun === null) left.abort()
      else begun.stop('interrupted')
    })
    const { run, exitOf } = module as StreamModule<N, object>
    const lines = job
      ? jobLines({
          ...{ name, args, module: { run, exitOf }, context, contextFor },
          begun: (one) => {
            begun = one
          },
        })
      : run(context, args)
    try {
      for await (const line of lines) printer.line({ schema, ...line })
      return printer.exit()
    } catch (error) {
      return tellProblem(problemOf(error), json, changesHost(name) && !printer.end())
    } finally {
      printer.end()
    }
  }
  const { run, exitOf } = module as AnswerModule<N>
  const result = await run(context, args)
  await printAnswer(name, `${safeJson({ schema, ...(result as object) })}\n`, json)
  return exitOf(result)
}

/** The far side of a session, through the first door that opens; as root without any, by this process itself. */
async function openSession<N extends VerbName>(
  name: N,
  args: Args<N>,
  paths: readonly string[],
): Promise<Duplex> {
  const { openSession: openAt } = await import('./api/session-client.ts')
  const { flags, operands } = verbOf(name)
  const isKept = (key: string): boolean => 'kept' in ({ ...operands, ...flags }[key] ?? {})
  const sent = Object.fromEntries(Object.entries(args).filter(([key]) => !isKept(key)))
  const closed: string[] = []
  for (const path of paths)
    try {
      const opened = await openAt(path, pathOf(name), sent, callerOf(process.env))
      if ('socket' in opened) return opened.socket
      const { code, message, details } = opened.problem
      throw new HostError(code, message, { details: details ?? {} })
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      const why = error instanceof HostError ? undefined : notThere[code as keyof typeof notThere]
      if (why === undefined) throw error
      closed.push(`${path}: ${why}`)
    }
  const last = closed.at(-1) ?? 'no socket'
  if (paths !== socketPaths || process.getuid?.() !== 0)
    throw new HostError(
      last.endsWith(notThere.EACCES) ? 'door.refused' : 'door.closed',
      `${name} needs the root side, and no door of it opens (${last})`,
    )
  const [{ partsOf }, { contextsOf }] = await Promise.all([
    import('./operate.ts'),
    import('./api/context.ts'),
  ])
  const who = `the command line, says ${callerOf(process.env)}`
  const context = contextsOf(partsOf())(who, new AbortController().signal)
  return ((await loadServed(name)) as SessionModule<N>).open(context, args)
}

/** The verb asked of the daemon. Throws `daemon.absent` when it is not there, `door.refused` when this user may not ask. */
async function askDaemon<N extends VerbName>(
  name: N,
  args: Args<N>,
  json: boolean,
  path: string,
  host?: string,
): Promise<Exit> {
  const asked = await askRootSide(name, args, json, [path], host)
  if (typeof asked === 'number') return asked
  throw new HostError(
    asked.closed.endsWith(notThere.EACCES) ? 'door.refused' : 'daemon.absent',
    `${name} is answered by the daemon, and its door does not open (${asked.closed})`,
  )
}

/** The verb asked of another host of the fleet, through the daemon of this one. Throws as `askDaemon` does. */
async function askHost<N extends VerbName>(
  name: N,
  args: Args<N>,
  json: boolean,
  host: string,
  socket: string | undefined,
): Promise<Exit> {
  const { door } = doorNeeded(name, args)
  if (door === 'local' || verbOf(name).session)
    throw new HostError('request.invalid', `${name} is not asked of another host: it runs in the client`, {
      details: { verb: name },
    })
  return askDaemon(name, args, json, socket ?? (door === 'read' ? daemonSocketPath : fleetSocketPath), host)
}

async function main(argv: readonly string[]): Promise<Exit> {
  // What follows is libvirt's, names of VMs among it, and no command line.
  if (argv[0] === 'libvirt-hook') {
    const { answerHook } = await import('./verbs/libvirt-hook.ts')
    await answerHook(
      argv.slice(1),
      process.stdin,
      async () => (await import('./operate.ts')).partsOf().reader,
    )
    return EXIT.done
  }
  const { verb: name, group, values, json, help, socket, host } = parseCommandLine(argv)
  if (name === null || help) {
    const { groupHelpText, helpText } = await import('./api/help.ts')
    const terminal = terminalOf(stdout)
    write(stdout, `${group === null ? helpText(name, terminal) : groupHelpText(group, terminal)}\n`)
    return EXIT.done
  }
  const args = checkedArgs(name, values)
  if (host !== undefined) return askHost(name, args, json, host, socket)
  if (name === 'operate') {
    const { operate } = await import('./operate.ts')
    await operate(args as Args<'operate'>)
    return EXIT.done
  }
  if (name === 'daemon') {
    const { daemon } = await import('./daemon.ts')
    await daemon(args as Args<'daemon'>)
    return EXIT.done
  }
  const local = await loadLocal(name)
  if (local) {
    const parts = async (root?: string) => (await import('./operate.ts')).partsOf(root)
    const result = await local.run(args, { parts })
    const text = json
      ? safeJson({ schema: verbOf(name).schema, ...(result as object) })
      : local.render(visibleIn(result), terminalOf(stdout))
    write(stdout, `${text}\n`)
    return local.exitOf(result)
  }
  if (name === 'vm console') {
    const { sitAtConsole } = await import('./verbs/vm-console-here.ts')
    const paths = socket === undefined ? socketPaths : [socket]
    return sitAtConsole(args as Args<'vm console'>, note, () => openSession(name, args, paths))
  }
  if (name === 'shell') {
    const { sitAtShell } = await import('./verbs/shell-here.ts')
    const parts = async (root?: string) => (await import('./operate.ts')).partsOf(root)
    return sitAtShell(args as Args<'shell'>, { parts }, callerOf(process.env), note)
  }
  if (doorNeeded(name, args).door === 'local') return runHere(name, args, json)
  if (verbOf(name).daemon) return askDaemon(name, args, json, socket ?? daemonSocketPath)
  const asked = await askRootSide(name, args, json, socket === undefined ? socketPaths : [socket])
  if (typeof asked === 'number') return asked
  if (socket !== undefined || (changesHost(name) && process.getuid?.() !== 0))
    throw new HostError(
      asked.closed.endsWith(notThere.EACCES) ? 'door.refused' : 'door.closed',
      `${name} needs the root side, and no door of it opens (${asked.closed})`,
    )
  note(`garrison: no root side (${asked.closed}): looking from here`)
  return runHere(name, args, json)
}

const argv = process.argv.slice(2)
main(argv)
  .catch((error: unknown) => {
    const verb = argv.find((word) => !word.startsWith('-')) ?? ''
    const changes = isVerb(verb) && changesHost(verb)
    return tellProblem(problemOf(error), argv.includes('--json'), changes)
  })
  .then((exit) => process.exit(exit))
