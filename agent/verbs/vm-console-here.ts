// The verb `vm console`, in the client: sits at the console of a VM.

import type { Duplex } from 'node:stream'
import { problemOf } from '../../provisioning/problem.ts'
import { escapeByte } from '../api/escape.ts'
import { visible } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { beginRecording } from './recording.ts'
import { sit } from './seat.ts'

/** Sits at a console until it ends; what is to be said to the person goes to `note`. Throws what `open` throws, and `file.exists`, `file.unwritable` when nothing can be recorded at all. */
export async function sitAtConsole(
  { vm, escape: leave = '^]', record }: Args<'vm console'>,
  note: (text: string) => void,
  open: () => Promise<Duplex>,
): Promise<Exit> {
  const key = escapeByte(leave)
  const name = visible(vm)
  const session = await open()
  const { columns = 80, rows = 24 } = process.stdout
  const term = process.env.TERM ?? 'dumb'
  const recording =
    record === undefined
      ? null
      : await beginRecording(record, { title: `garrison vm console ${vm}`, term, columns, rows })
  const ready = () => {
    if (process.stdin.isTTY) note(key === null ? `At ${name}.` : `At ${name}; ${leave} leaves.`)
  }
  const by = await sit({ session, key, recording, ready })
  const unrecorded = (await recording?.end()) ?? null
  if (unrecorded !== null) {
    const { code, message } = problemOf(unrecorded)
    note(`garrison: ${code}: ${visible(message)}; what was seen since is not recorded.`)
    return EXIT.error
  }
  if (by === 'far')
    note(
      `The console of ${name} has ended: it is off, somebody else has taken it, or Garrison's root side has ended. garrison vm list tells whether it is off.`,
    )
  return by === 'key' || by === 'far' || by === 'input' ? EXIT.done : EXIT.error
}
