// What the kernel counts for one process: /proc/PID/stat, statm and io (proc(5)).

import { HostError } from '../../provisioning/problem.ts'

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
  /** The part of it that is files and shared memory. */
  readonly sharedBytes: number
  readonly counters: ProcessCounters
}

/** Reads a file that the kernel makes up while it is read, at once: null when it is not there; throws `host.denied`, `host.unreadable`. */
export type ReadNow = (path: string) => string | null

/** Milliseconds in a clock tick of what the kernel tells user space, on every architecture of today (USER_HZ is 100). */
const tickMs = 10

const unexpected = (path: string, text: string): HostError =>
  new HostError('host.unexpected-answer', `${path} says what is not known there: ${text.slice(0, 200)}`, {
    details: { path },
  })

const isCount = (number: number | undefined): number is number =>
  number !== undefined && number >= 0 && Number.isFinite(number)

/** What /proc/PID/stat tells. */
export interface ProcessStat extends Pick<ProcessUse, 'startTicks' | 'letter' | 'threads'> {
  readonly cpuMs: number
  readonly guestCpuMs: number
  /** All addresses that it has asked for, used or not. */
  readonly virtualBytes: number
}

/** Reads /proc/PID/stat. The name of the process, which may hold anything, ends at the last parenthesis. */
export function parseStat(path: string, text: string): ProcessStat {
  const [letter = '', ...rest] = text
    .slice(text.lastIndexOf(')') + 2)
    .trimEnd()
    .split(' ')
  // Counted as in proc(5), where the letter is the third.
  const field = (number: number): number => Number(rest[number - 4] ?? Number.NaN)
  const [user, system, threads, startTicks, virtualBytes] = [14, 15, 20, 22, 23].map(field)
  const guest = field(43)
  if (
    !/^[A-Za-z]$/.test(letter) ||
    !isCount(user) ||
    !isCount(system) ||
    !isCount(threads) ||
    !isCount(startTicks) ||
    !isCount(virtualBytes) ||
    !isCount(guest)
  )
    throw unexpected(path, text)
  return {
    letter,
    threads,
    startTicks,
    virtualBytes,
    cpuMs: (user + system) * tickMs,
    guestCpuMs: guest * tickMs,
  }
}

/** Reads /proc/PID/statm, which counts pages. How large one is follows from `virtualBytes`, which both files tell. */
export function parseStatm(
  path: string,
  text: string,
  virtualBytes: number,
): Pick<ProcessUse, 'residentBytes' | 'sharedBytes'> {
  const [size, resident, shared] = text.split(' ').map(Number)
  if (!isCount(size) || !isCount(resident) || !isCount(shared)) throw unexpected(path, text)
  // A process that grows between the two looks makes them differ by less than a page's next size would.
  const pageBytes = size === 0 ? 0 : 2 ** Math.round(Math.log2(virtualBytes / size))
  return { residentBytes: resident * pageBytes, sharedBytes: shared * pageBytes }
}

/** Reads /proc/PID/io. */
export function parseIo(path: string, text: string): Pick<ProcessCounters, 'readBytes' | 'writtenBytes'> {
  const of = (name: string): number => {
    const [, digits] = new RegExp(`^${name}: (\\d+)$`, 'm').exec(text) ?? []
    if (digits === undefined) throw unexpected(path, text)
    return Number(digits)
  }
  return { readBytes: of('read_bytes'), writtenBytes: of('write_bytes') }
}

/** Looks at a process: null when it has ended, though it may not have been buried. `withIo` false leaves out what was denied before. */
export function readProcess(read: ReadNow, pid: number, withIo: boolean): ProcessUse | null {
  const path = (name: string) => `/proc/${pid}/${name}`
  const [stat, statm] = [read(path('stat')), read(path('statm'))]
  if (stat === null || statm === null) return null
  const { cpuMs, guestCpuMs, virtualBytes, ...whole } = parseStat(path('stat'), stat)
  if (whole.letter === 'Z' || whole.letter === 'X') return null
  return {
    pid,
    ...whole,
    ...parseStatm(path('statm'), statm, virtualBytes),
    counters: {
      cpuMs,
      guestCpuMs,
      ...((withIo && readIo(read, path('io'))) || { readBytes: null, writtenBytes: null }),
    },
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
