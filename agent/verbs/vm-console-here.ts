// The verb `vm console`, in the client: a terminal and a session joined, until either ends.
//
// INVARIANTS
// - However it ends, the terminal is given back as it was: by the escape key, by the guest, by a signal, by a defect.
// - Nobody is read faster than the other side takes it.

import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { problemOf } from '../../provisioning/problem.ts'
import { CastLines, castHeader } from '../api/asciicast.ts'
import { beforeEscape, escapeByte } from '../api/escape.ts'
import { visible } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { type NewFile, newFile } from '../host/files.ts'

/** How the console is to be had. `title` names the recording. */
interface Console {
  readonly session: Duplex
  readonly key: number | null
  readonly record: string | undefined
  readonly title: string
}

/** How it ended: by the person at the terminal, by the other side, or by a signal; and what went wrong with the recording. */
interface ConsoleEnd {
  readonly by: 'key' | 'input' | 'far' | NodeJS.Signals
  readonly unrecorded: unknown
}

const signals = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const

/** What a guest may have switched on: colours, a hidden cursor, mouse reports, pasting in brackets, another screen, a scroll region. */
const asBefore =
  '\u001b[0m\u001b[?25h\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1006l\u001b[?2004l\u001b[?1049l\u001b[?1l\u001b>\u001b[r\u001b(B'

/** A guest that was sent the end of a pipe has so long to answer. */
const lastWordsMs = 500

/** Keeps what is seen. What goes wrong with that is remembered, and the session goes on. */
async function recorder(path: string, title: string) {
  const file: NewFile = await newFile(path, 0o600)
  const beganMs = Date.now()
  const cast = new CastLines(beganMs)
  let problem: unknown = null
  let writing = Promise.resolve()
  const add = (line: string) => {
    if (line === '') return
    writing = writing
      .then(() => (problem === null ? file.add(line) : undefined))
      .catch((error: unknown) => {
        problem = error
      })
  }
  const { columns: width = 80, rows: height = 24 } = process.stdout
  add(castHeader({ width, height, atMs: beganMs, title, term: process.env.TERM ?? 'dumb' }))
  return {
    output: (bytes: Uint8Array) => add(cast.output(bytes, Date.now())),
    resize: () => add(cast.resize(process.stdout.columns, process.stdout.rows, Date.now())),
    async end(): Promise<unknown> {
      add(cast.end(Date.now()))
      await writing
      await file.close()
      return problem
    },
  }
}

/** Joins this process's terminal to the session, and calls `ready` when what is typed goes there. Throws `file.exists`, `file.unwritable` when nothing can be recorded at all. */
async function join({ session, key, record, title }: Console, ready: () => void): Promise<ConsoleEnd> {
  const { stdin, stdout } = process
  const recording = record === undefined ? null : await recorder(record, title)
  const isRaw = stdin.isTTY === true
  const { promise: ended, resolve: end } = Promise.withResolvers<ConsoleEnd['by']>()

  const restore = () => {
    if (isRaw) stdin.setRawMode(false)
    if (isRaw && stdout.isTTY) stdout.write(asBefore)
  }
  const typed = (bytes: Buffer) => {
    const { typed: before, leaves } = beforeEscape(bytes, key)
    if (before.length > 0 && !session.write(before)) {
      stdin.pause()
      session.once('drain', () => stdin.resume())
    }
    if (leaves) end('key')
  }
  const closed = () => {
    void sleep(lastWordsMs).then(() => end('input'))
  }
  const seen = (bytes: Buffer) => {
    recording?.output(bytes)
    if (!stdout.write(bytes)) {
      session.pause()
      stdout.once('drain', () => session.resume())
    }
  }
  const gone = () => end('far')
  const resized = () => recording?.resize()
  const stopped = () => {
    restore()
    process.kill(process.pid, 'SIGSTOP')
  }
  const continued = () => {
    if (isRaw) stdin.setRawMode(true)
  }

  // Last of all, whatever else happens: also when the process ends by a defect.
  process.once('exit', restore)
  for (const signal of signals) process.once(signal, end)
  process.on('SIGTSTP', stopped)
  process.on('SIGCONT', continued)
  session.on('data', seen)
  session.once('close', gone)
  session.once('error', gone)
  stdin.on('data', typed)
  stdin.once('end', closed)
  // A reader that has gone ends the session as the other side would.
  stdout.once('error', gone)
  if (recording !== null) stdout.on('resize', resized)
  if (isRaw) stdin.setRawMode(true)
  stdin.resume()
  session.resume()
  ready()
  try {
    const by = await ended
    return { by, unrecorded: recording === null ? null : await recording.end() }
  } finally {
    stdin.off('data', typed)
    stdin.pause()
    session.destroy()
    stdout.off('resize', resized)
    process.off('SIGTSTP', stopped)
    process.off('SIGCONT', continued)
    for (const signal of signals) process.off(signal, end)
    process.off('exit', restore)
    restore()
  }
}

/** Sits at a console until it ends; what is to be said to the person goes to `note`. Throws what `open` throws. */
export async function sitAtConsole(
  { vm, escape: leave = '^]', record }: Args<'vm console'>,
  note: (text: string) => void,
  open: () => Promise<Duplex>,
): Promise<Exit> {
  const key = escapeByte(leave)
  const name = visible(vm)
  const session = await open()
  const joined = join({ session, key, record, title: `garrison vm console ${vm}` }, () => {
    if (process.stdin.isTTY) note(key === null ? `At ${name}.` : `At ${name}; ${leave} leaves.`)
  })
  const { by, unrecorded } = await joined
  if (unrecorded !== null) {
    const { code, message } = problemOf(unrecorded)
    note(`garrison: ${code}: ${visible(message)}; what was seen since is not recorded.`)
    return EXIT.error
  }
  if (by === 'far') note(`The console of ${name} has ended: it is off, or somebody else has taken it.`)
  return by === 'key' || by === 'far' || by === 'input' ? EXIT.done : EXIT.error
}
