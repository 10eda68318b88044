// The verb `shell`, in the client: goes to the port of another host with the keys of this one, and sits at a shell there.
//
// INVARIANTS
// - It needs neither the daemon nor the root side of this host: whoever may read its keys, root, may go.
// - What the other side says of itself is bytes for the terminal only once it is known to be that host, by its certificate.

import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { HostError } from '../../provisioning/problem.ts'
import { escapeByte } from '../api/escape.ts'
import { openSessionOn } from '../api/session-client.ts'
import { beatMs, type Frame, FrameReader, frameBytes, silentMs, sizeIn, termIn } from '../api/shell-frames.ts'
import type { Args, Exit } from '../api/verbs.ts'
import { EXIT } from '../api/verbs.ts'
import { type Address, parseAddress } from '../peers/address.ts'
import { reach } from '../peers/dial.ts'
import { addressIn, usualFleet } from '../peers/fleet.ts'
import type { FleetFolder } from '../peers/folder.ts'
import { Keyring, readCredentials } from '../peers/keyring.ts'
import { enteredFolder, type Here } from './fleet-here.ts'
import { sit } from './seat.ts'

/** The shell as bytes both ways. `exit` is what it ended with; null while it has not, or where nobody can tell. */
interface FarShell {
  readonly session: Duplex
  exit(): number | null
  resize(): void
}

/** Takes the frames of a session apart, and tells the other side that this one is there. */
function farShell(socket: TLSSocket): FarShell {
  const reader = new FrameReader()
  let heardMs = performance.now()
  let exit: number | null = null
  const say = (frame: Frame, done?: (error?: Error | null) => void) => socket.write(frameBytes(frame), done)
  const session = new Duplex({
    read() {
      // While nobody read, nothing could be heard.
      if (socket.isPaused()) heardMs = performance.now()
      socket.resume()
    },
    write: (bytes: Buffer, _, done) => void say({ kind: 'bytes', bytes }, done),
    destroy(error, done) {
      clearInterval(beats)
      socket.destroy()
      done(error)
    },
  })
  // What was said before the end is seen before it.
  const over = () => void session.push(null)
  session.once('end', () => session.destroy())
  const take = (frame: Frame): boolean => {
    if (frame.kind === 'bytes') return session.push(frame.bytes)
    if (frame.kind === 'end') {
      exit = frame.exit
      over()
    }
    return true
  }
  socket.on('data', (bytes: Buffer) => {
    heardMs = performance.now()
    try {
      const isTaken = reader.read(bytes).map(take)
      if (isTaken.includes(false)) socket.pause()
    } catch (error) {
      session.destroy(error as Error)
    }
  })
  socket.once('error', () => socket.destroy())
  socket.once('close', () => {
    if (exit === null) over()
  })
  const beats = setInterval(() => {
    say({ kind: 'beat' })
    if (!socket.isPaused() && performance.now() - heardMs > silentMs) over()
  }, beatMs)
  return {
    session,
    exit: () => exit,
    resize: () => {
      const { columns, rows } = process.stdout
      if (columns > 0 && rows > 0) say({ kind: 'size', columns, rows })
    },
  }
}

/** Where a host is, as the daemon has written it down, and as is said besides. Throws `fleet.unknown-host`. */
async function addressesOf(
  folder: FleetFolder,
  peer: string,
  said: readonly string[],
): Promise<readonly Address[]> {
  const known = (await folder.readKnown()) ?? []
  const told = known.find(({ host }) => host === peer)?.addresses.map(parseAddress)
  if (told === undefined && said.length === 0)
    throw new HostError('fleet.unknown-host', `no host ${peer} is known in the fleet`, {
      details: { host: peer },
    })
  return [...said.map((one) => addressIn('-', one, usualFleet.port)), ...(told ?? [])]
}

/** Sits at a shell until it ends; what is to be said to the person goes to `note`. Throws why it cannot be had. */
export async function sitAtShell(
  { peer, at, escape: leave = '^]', folder: named, term, size }: Args<'shell'>,
  here: Here,
  caller: string,
  note: (text: string) => void,
): Promise<Exit> {
  const { stdin, stdout } = process
  const key = escapeByte(leave)
  if (!stdin.isTTY || !stdout.isTTY)
    throw new HostError('request.invalid', 'a shell on another host needs a terminal here', {
      details: { verb: 'shell' },
    })
  const asked = {
    peer,
    term: termIn(term ?? process.env.TERM ?? 'dumb'),
    size: size ?? `${stdout.columns || 80}x${stdout.rows || 24}`,
  }
  sizeIn(asked.size)
  const folder = await enteredFolder(here, named)
  const credentials = await readCredentials(folder)
  if (credentials === null) throw new HostError('fleet.none', 'this host is in no fleet')
  const keyring = new Keyring(folder, credentials, Date.now)
  await keyring.reload()
  const { socket } = await reach(keyring, peer, await addressesOf(folder, peer, at))
  const opened = await openSessionOn(socket, peer, '/v1/verbs/v1/shell', asked, caller)
  if ('problem' in opened) {
    const { code, message, details } = opened.problem
    throw new HostError(code, message, { details: details ?? {} })
  }
  const { session, exit, resize } = farShell(socket)
  stdout.on('resize', resize)
  const ready = () => {
    note(key === null ? `A shell of root on ${peer}.` : `A shell of root on ${peer}; ${leave} leaves.`)
    // It may have become another while the shell was opened.
    if (size === undefined) resize()
  }
  const by = await sit({ session, key, recording: null, ready })
  stdout.off('resize', resize)
  const code = exit()
  if (code !== null) note(`The shell on ${peer} has ended (exit ${code}).`)
  else if (by === 'far') {
    note(`The connection with ${peer} was lost. What ran in the shell there is ended within seconds.`)
    return EXIT.error
  }
  return by === 'key' || by === 'far' ? EXIT.done : EXIT.error
}
