// The verb `shell`, on the root side of the host that is entered: a shell of root on a terminal of its own, recorded and written down.
//
// INVARIANTS
// - Nothing is begun before the document of this host allows it, and the journal and the recording have their first lines.
// - Nobody is read faster than the other side takes it, nor faster than it is recorded.
// - What has not been heard of for a while is gone: its shell ends.

import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import { Duplex } from 'node:stream'
import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import {
  beatMs,
  type Frame,
  FrameReader,
  frameBytes,
  type Size,
  silentMs,
  sizeIn,
  termIn,
} from '../api/shell-frames.ts'
import type { Args } from '../api/verbs.ts'
import { makeFolder } from '../host/files.ts'
import { openShell, type Shell } from '../host/shell.ts'
import { openChanges } from '../vms/changes.ts'
import { beginRecording, type Recording } from './recording.ts'

const mostShells = 8
const mostMs = 12 * 3_600_000
const mostRecordedBytes = 64 * 2 ** 20
/** A client that was told of the end has so long to leave by itself, so that the end is not lost on its way. */
const leaveMs = 2000

let shells = 0

/** The session of a shell: frames, cut anywhere, both ways. */
function sessionOf(shell: Shell, recording: Recording): Duplex {
  const reader = new FrameReader()
  let heardMs = performance.now()
  let taking = false
  let shown = Promise.resolve()
  let over = false

  const take = async (frame: Frame): Promise<void> => {
    if (frame.kind === 'bytes') {
      if (shell.input.write(frame.bytes) || shell.input.destroyed) return
      await new Promise<void>((resolve) => {
        for (const event of ['drain', 'close']) shell.input.once(event, resolve)
      })
    } else if (frame.kind === 'size') {
      shell.resize(frame.columns, frame.rows)
      recording.resize(frame.columns, frame.rows)
    } else if (frame.kind === 'end')
      throw new HostError('request.invalid', 'a shell is ended here, and by leaving', {
        details: { verb: 'shell' },
      })
  }
  const takeAll = async (bytes: Buffer): Promise<void> => {
    taking = true
    for (const frame of reader.read(bytes)) await take(frame)
    taking = false
    heardMs = performance.now()
  }
  const session = new Duplex({
    read: () => shell.output.resume(),
    write: (bytes: Buffer, _, done) => void takeAll(bytes).then(() => done(), done),
    destroy(error, done) {
      clearInterval(beats)
      shell.input.destroy()
      shell.output.destroy()
      done(error)
    },
  })
  const say = (frame: Frame): boolean => session.push(frameBytes(frame))
  const show = async (bytes: Buffer): Promise<void> => {
    shell.output.pause()
    await recording.output(bytes)
    if (say({ kind: 'bytes', bytes })) shell.output.resume()
  }
  const leave = () => {
    if (!over) session.push(null)
    over = true
  }
  shell.output.on('data', (bytes: Buffer) => {
    shown = show(bytes)
  })
  shell.output.once('end', () => {
    void Promise.all([shell.ended, shown]).then(([exit]) => {
      say({ kind: 'end', exit })
      setTimeout(leave, leaveMs).unref()
    })
  })
  session.once('finish', leave)
  const beats = setInterval(() => {
    if (session.readableLength < session.readableHighWaterMark) say({ kind: 'beat' })
    // While the shell does not take what was typed, the other side is not read, and its beats are not heard.
    if (!taking && performance.now() - heardMs > silentMs) session.destroy()
  }, beatMs)
  return session
}

/** Runs one shell from its opening, when `opened` is called, to the end of its session. */
async function runShell(
  context: Context,
  path: string,
  { term, columns, rows }: Size & { readonly term: string },
  opened: (session: Duplex) => void,
): Promise<void> {
  await makeFolder(dirname(path), { mode: 0o700 })
  const title = `garrison shell ${context.hostname}, for ${context.who}`
  const recorded = { title, term, columns, rows, mostBytes: mostRecordedBytes }
  const recording = await beginRecording(path, recorded)
  let unrecorded: unknown = null
  try {
    const shell = await openShell({ term, columns, rows, mostMs })
    const session = sessionOf(shell, recording)
    // Whoever carries it sees its errors; here only its end matters.
    session.on('error', () => session.destroy())
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    session.once('close', resolve)
    opened(session)
    await closed
    await shell.close()
  } finally {
    unrecorded = await recording.end()
  }
  if (unrecorded !== null) throw unrecorded
}

/**
 * Opens a shell. Throws `shell.off`, `request.invalid`, `fleet.busy`, `shell.not-begun`, `journal.unwritable`, what is wrong with the
 * document, and `file.no-space` and its like when nothing can be recorded.
 */
export async function open(
  context: Context,
  { term = 'xterm-256color', size = '80x24' }: Args<'shell'>,
): Promise<Duplex> {
  const terminal = { term: termIn(term), ...sizeIn(size) }
  if ((await context.desired()).fleet?.shell !== true)
    throw new HostError(
      'shell.off',
      `${context.hostname} opens no shell: fleet.shell is not on in its document`,
      {
        details: { host: context.hostname },
      },
    )
  if (shells >= mostShells)
    throw new HostError('fleet.busy', `${context.hostname} has ${shells} shells open already`)
  shells += 1
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
  const began = new Date(context.clock()).toISOString().replace(/[-:]|\.\d+/g, '')
  const path = join(context.ownFolder, 'shells', `${began}-${randomBytes(3).toString('hex')}.cast`)
  const run = async (): Promise<void> => {
    const changes = await openChanges(context, 'shell', 'destroys-data', 'shell')
    const summary = `a shell of root, recorded in ${path}`
    const change = { word: 'open', vm: context.hostname, summary, risk: 'destroys-data' } as const
    const outcome = await changes
      .make(change, () => runShell(context, path, terminal, resolve))
      .then(
        () => 'done',
        (error: unknown) => {
          reject(error)
          return 'failed'
        },
      )
    await changes.end(outcome)
  }
  run()
    // Once the session is over, nobody is left to be told that its end could not be written.
    .catch(reject)
    .finally(() => {
      shells -= 1
    })
  return promise
}
