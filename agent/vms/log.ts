// The log that QEMU and libvirt keep of a VM (/var/log/libvirt/qemu/NAME.log): its last lines, and those that come.

import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { HostError } from '../../provisioning/problem.ts'
import { errnoOf } from '../host/files.ts'

const blockBytes = 64 * 2 ** 10
/** How far back lines are looked for; libvirt begins a new file before one is longer. */
const mostBytes = 16 * 2 ** 20
/** A line that is longer is told in pieces. */
const mostLineBytes = 64 * 2 ** 10
const pollMs = 500
const lineFeed = 0x0a

async function openLog(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    const errno = errnoOf(cause)
    if (errno === 'ENOENT') return null
    throw new HostError(
      errno === 'EACCES' ? 'host.denied' : 'host.unreadable',
      `${path} could not be read (${errno})`,
      { details: { path, errno }, cause },
    )
  }
}

/** Where the last lines begin. */
async function startOf(file: FileHandle, size: number, lines: number): Promise<number> {
  let [from, left] = [size, lines + 1]
  while (from > 0 && size - from < mostBytes) {
    const length = Math.min(blockBytes, from)
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, from - length)
    for (let at = length - 1; at >= 0; at -= 1) {
      // The line feed at the very end belongs to the last line.
      if (buffer[at] !== lineFeed || from - length + at === size - 1) continue
      left -= 1
      if (left === 1) return from - length + at + 1
    }
    from -= length
  }
  return from
}

/** Bytes as lines; `rest` is what has no end yet. */
function linesIn(bytes: Buffer): { readonly lines: readonly string[]; readonly rest: Buffer } {
  const lines: string[] = []
  let from = 0
  for (;;) {
    const feed = bytes.indexOf(lineFeed, from)
    const end = feed === -1 ? (bytes.length - from > mostLineBytes ? from + mostLineBytes : -1) : feed
    if (end === -1) return { lines, rest: bytes.subarray(from) }
    lines.push(bytes.toString('utf8', from, end))
    from = feed === -1 ? end : feed + 1
  }
}

/** Somebody who waits for more, until the signal aborts. */
export interface Following {
  readonly signal: AbortSignal
  /** Waits so many milliseconds, or until the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

/**
 * The last `lines` lines of a log, and with `follow` those that come until it aborts, also when the file is begun anew. Throws
 * `vm.no-log`, `host.denied`, `host.unreadable`.
 */
export async function* logLines(
  folder: string,
  name: string,
  lines: number,
  follow: Following | null,
): AsyncGenerator<string> {
  const path = `${folder}/qemu/${name}.log`
  // libvirt lets no VM of QEMU have such a name; those of other drivers have no log.
  let file = name.includes('/') ? null : await openLog(path)
  if (file === null)
    throw new HostError('vm.no-log', `there is no log of ${name} in ${folder}/qemu`, {
      details: { vm: name },
    })
  try {
    const first = await file.stat()
    let { ino } = first
    let at = await startOf(file, first.size, lines)
    let rest: Buffer = Buffer.alloc(0)
    for (;;) {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(blockBytes), 0, blockBytes, at)
      at += bytesRead
      const found = linesIn(Buffer.concat([rest, buffer.subarray(0, bytesRead)]))
      rest = Buffer.from(found.rest)
      yield* found.lines
      if (bytesRead > 0) continue
      if (follow === null || follow.signal.aborted) {
        if (rest.length > 0) yield rest.toString('utf8')
        return
      }
      await follow.sleep(pollMs, follow.signal)
      const next: FileHandle | null = await openLog(path)
      if (next === null) continue
      const now = await next.stat()
      if (now.ino === ino && now.size >= at) await next.close()
      else {
        await file.close()
        file = next
        ino = now.ino
        at = 0
      }
    }
  } finally {
    await file.close()
  }
}
