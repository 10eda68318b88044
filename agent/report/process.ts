// What the kernel counts for one process: /proc/PID/stat and io, and statm for the size of its pages (proc(5)).

import { HostError } from '../../provisioning/problem.ts'
import { unexpected } from './unexpected.ts'

/** What a process has used up since it began; null where the kernel does not let us know. */
export interface ProcessCounters {
  /** On any processor, those of its guest included. */
  readonly cpuMs: number
  /** The part of it that a guest ran by virtualisation of the hardware; 0 where all of it is emulated. */
  readonly guestCpuMs: number
  /** Fetched from and sent to storage, what the page cache gave not included. Only root and the owner may know. */
  readonly readBytes: number | null
  readonly writtenBytes: number | null
}

/** A process as it was when it was looked at. */
export interface ProcessUse {
  readonly pid: number
  /** When it began, in ticks after boot: with its PID this tells it from every other one. */
  readonly startTicks: number
  /** The kernel's letter for what it does: R runs, S and I wait, D waits for a device, T and t are stopped. */
  readonly letter: string
  readonly threads: number
  /** Huge pages are not among them. */
  readonly residentBytes: number
  readonly counters: ProcessCounters
}

/** Reads a file that the kernel makes up while it is read, at once: null when it is not there; throws `host.denied`, `host.unreadable`. */
export type ReadNow = (path: string) => string | null

/** Milliseconds in a clock tick of what the kernel tells user space, on every architecture of today (USER_HZ is 100). */
const tickMs = 10

const isCount = (number: number | undefined): number is number =>
  number !== undefined && number >= 0 && Number.isFinite(number)

/** What /proc/PID/stat tells. */
export interface ProcessStat extends Pick<ProcessUse, 'startTicks' | 'letter' | 'threads'> {
  readonly cpuMs: number
  readonly guestCpuMs: number
  /** All addresses that it has asked for, used or not. */
  readonly virtualBytes: number
  readonly residentPages: number
}

/** Reads /proc/PID/stat. The name of the process, which may hold anything, ends at the last parenthesis. */
export function parseStat(path: string, text: string): ProcessStat {
  const [letter = '', ...rest] = text
    .slice(text.lastIndexOf(')') + 2)
    .trimEnd()
    .split(' ')
  // Counted as in proc(5), where the letter is the third.
  const field = (number: number): number => Number(rest[number - 4] ?? Number.NaN)
  const [user, system, threads, startTicks, virtualBytes, residentPages] = [14, 15, 20, 22, 23, 24].map(field)
  const guest = field(43)
  if (
    !/^[A-Za-z]$/.test(letter) ||
    !isCount(user) ||
    !isCount(system) ||
    !isCount(threads) ||
    !isCount(startTicks) ||
    !isCount(virtualBytes) ||
    !isCount(residentPages) ||
    !isCount(guest)
  )
    throw unexpected(path, text)
  return {
    letter,
    threads,
    startTicks,
    virtualBytes,
    residentPages,
    cpuMs: (user + system) * tickMs,
    guestCpuMs: guest * tickMs,
  }
}

/**
 * How large a page is on this host, which nobody tells: stat counts the addresses of a process in bytes and statm in pages. With
 * it the resident pages in stat are enough, and statm need not be read of every VM.
 */
export function pageBytesOf(read: ReadNow): number {
  const [stat, statm] = [read('/proc/self/stat'), read('/proc/self/statm')]
  const pages = Number(statm?.split(' ')[0])
  const { virtualBytes } = parseStat('/proc/self/stat', stat ?? '')
  if (!(pages > 0)) throw unexpected('/proc/self/statm', statm ?? '')
  // That the process grows between the two makes less of a difference than the next size of pages would.
  return 2 ** Math.round(Math.log2(virtualBytes / pages))
}

const [readLine, writtenLine] = [/^read_bytes: (\d+)$/m, /^write_bytes: (\d+)$/m]

/** Reads /proc/PID/io. */
export function parseIo(path: string, text: string): Pick<ProcessCounters, 'readBytes' | 'writtenBytes'> {
  const of = (line: RegExp): number => {
    const [, digits] = line.exec(text) ?? []
    if (digits === undefined) throw unexpected(path, text)
    return Number(digits)
  }
  return { readBytes: of(readLine), writtenBytes: of(writtenLine) }
}

/** How a process is looked at. `withIo` false leaves out what was denied before. */
export interface Look {
  readonly read: ReadNow
  readonly pageBytes: number
  readonly withIo: boolean
}

/** Looks at a process: null when it has ended, though it may not have been buried. */
export function readProcess(pid: number, { read, pageBytes, withIo }: Look): ProcessUse | null {
  const [statPath, ioPath] = [`/proc/${pid}/stat`, `/proc/${pid}/io`]
  const stat = read(statPath)
  if (stat === null) return null
  const { letter, threads, startTicks, residentPages, cpuMs, guestCpuMs } = parseStat(statPath, stat)
  if (letter === 'Z' || letter === 'X') return null
  const io = withIo ? readIo(read, ioPath) : null
  return {
    pid,
    startTicks,
    letter,
    threads,
    residentBytes: residentPages * pageBytes,
    counters: { cpuMs, guestCpuMs, ...(io ?? { readBytes: null, writtenBytes: null }) },
  }
}

function readIo(read: ReadNow, path: string) {
  try {
    const text = read(path)
    return text === null ? null : parseIo(path, text)
  } catch (error) {
    if (error instanceof HostError && error.code === 'host.denied') return null
    throw error
  }
}
