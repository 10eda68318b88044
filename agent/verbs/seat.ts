// Sits at the far end of a session in the client: a terminal and the session joined, until either ends.
//
// INVARIANTS
// - However it ends, the terminal is given back as it was: by the escape key, by the other side, by a signal, by a defect.
// - Nobody is read faster than the other side takes it.

import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeEscape } from '../api/escape.ts'
import { setTerminal } from '../host/exec.ts'
import type { Recording } from './recording.ts'

/** What is sat at. `key` leaves it; `ready` is called when what is typed goes there. */
interface Seat {
  readonly session: Duplex
  readonly key: number | null
  readonly recording: Recording | null
  ready(): void
}

/** How it ended: by the person at the terminal, by the other side, or by a signal. */
type SeatEnd = 'key' | 'input' | 'far' | NodeJS.Signals

const signals = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const

/** What the other side may have switched on: colours, a hidden cursor, mouse reports, pasting in brackets, another screen, a scroll region. */
const asBefore =
  '\u001b[0m\u001b[?25h\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1006l\u001b[?2004l\u001b[?1049l\u001b[?1l\u001b>\u001b[r\u001b(B'

/** A side that was sent the end of a pipe has so long to answer. */
const lastWordsMs = 500

/** Joins this process's terminal to the session until it ends. */
export async function sit({ session, key, recording, ready }: Seat): Promise<SeatEnd> {
  const { stdin, stdout } = process
  const isRaw = stdin.isTTY === true
  const { promise: ended, resolve: end } = Promise.withResolvers<SeatEnd>()

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
    void recording?.output(bytes)
    if (!stdout.write(bytes)) {
      session.pause()
      stdout.once('drain', () => session.resume())
    }
  }
  const gone = () => end('far')
  const resized = () => recording?.resize(stdout.columns, stdout.rows)
  const stopped = () => {
    restore()
    process.kill(process.pid, 'SIGSTOP')
  }
  // Node's raw mode still turns each line feed into two characters, which is wrong for whatever draws on the whole screen. Giving the
  // terminal back undoes this too; where it cannot be told, the lines of such a program stand askew.
  const raw = async () => {
    stdin.setRawMode(true)
    await setTerminal('-opost')
  }
  const continued = () => {
    if (isRaw) void raw()
  }

  // Last of all, whatever else happens: also when the process ends by a defect.
  process.once('exit', restore)
  for (const signal of signals) process.once(signal, end)
  process.on('SIGTSTP', stopped)
  process.on('SIGCONT', continued)
  session.once('close', gone)
  session.once('error', gone)
  stdin.on('data', typed)
  stdin.once('end', closed)
  // A reader that has gone ends the session as the other side would.
  stdout.once('error', gone)
  if (recording !== null) stdout.on('resize', resized)
  ready()
  if (isRaw) await raw()
  session.on('data', seen)
  stdin.resume()
  session.resume()
  try {
    return await ended
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
