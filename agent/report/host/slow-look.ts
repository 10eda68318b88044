// The rare look at the host: what takes the start of a program or may make its reader wait, each part at its own time.

import type { Answer, Capacity } from '../../../provisioning/host.ts'
import { HostError } from '../../../provisioning/problem.ts'
import type { Clock } from '../clock.ts'
import type { ReadNow } from '../process.ts'
import { type Seen, seenLater } from '../seen.ts'
import { unexpected } from '../unexpected.ts'
import {
  type ClockSource,
  chronycTracking,
  parseSynchronised,
  parseTracking,
  timedatectlSynchronised,
} from './clock-source.ts'
import { type Filesystem, Filesystems } from './filesystems.ts'
import { installedSince, namedPackages, rpmInstallTimes } from './reboot.ts'
import { type FailedUnit, parseFailedUnits, systemctlFailed } from './units.ts'

/** What was seen last. Null: not looked at yet. `reboot` names the packages that wait for one; null when none does. */
export interface SlowLook {
  readonly filesystems: (Seen<readonly Filesystem[]> & { readonly atMs: number }) | null
  readonly failedUnits: (Seen<readonly FailedUnit[]> & { readonly atMs: number }) | null
  readonly clock: (Seen<ClockSource> & { readonly atMs: number }) | null
  readonly reboot: (Seen<readonly string[] | null> & { readonly atMs: number }) | null
}

/** What the rare look needs. */
export interface SlowLookOptions {
  readonly read: ReadNow
  /** Names in a folder; null when it is not there. */
  readonly list: (path: string) => readonly string[] | null
  readonly exists: (path: string) => boolean
  readonly query: (argv: readonly [string, ...string[]], deadlineMs: number) => Promise<Answer>
  readonly capacity: (path: string) => Promise<Capacity | null>
  readonly clock: Clock
}

const minuteMs = 60_000
const everyMs = { filesystems: minuteMs, failedUnits: minuteMs, clock: 5 * minuteMs, reboot: 60 * minuteMs }
const deadlineMs = 10_000
const roomDeadlineMs = 3000

/** Looks at each part when its time has come. */
export class SlowLooker {
  readonly #options: SlowLookOptions
  readonly #filesystems: Filesystems
  #seen: SlowLook = { filesystems: null, failedUnits: null, clock: null, reboot: null }
  readonly #dueMs = { filesystems: 0, failedUnits: 0, clock: 0, reboot: 0 }

  constructor(options: SlowLookOptions) {
    const { capacity, list, clock } = options
    this.#options = options
    this.#filesystems = new Filesystems({ capacity, list, clock, deadlineMs: roomDeadlineMs })
  }

  /** What was seen last. */
  get seen(): SlowLook {
    return this.#seen
  }

  /** Looks at what is due. `bootedMs` is when the host was started, epoch milliseconds; null when nobody knows. */
  async look(bootedMs: number | null): Promise<void> {
    await Promise.all([
      this.#part('filesystems', () => this.#rooms()),
      this.#part('failedUnits', () => this.#units()),
      this.#part('clock', () => this.#clockSource()),
      this.#part('reboot', () => this.#rebootFor(bootedMs)),
    ])
  }

  async #part<K extends keyof SlowLook>(part: K, look: () => Promise<unknown>): Promise<void> {
    const { clock } = this.#options
    const nowMs = clock.steadyMs()
    if (nowMs < this.#dueMs[part]) return
    this.#dueMs[part] = nowMs + everyMs[part]
    const atMs = clock.epochMs()
    const seen = await seenLater(look)
    this.#seen = { ...this.#seen, [part]: { ...seen, atMs } }
  }

  #rooms(): Promise<readonly Filesystem[]> {
    const path = '/proc/self/mountinfo'
    const text = this.#options.read(path)
    if (text === null) throw unexpected(path, 'nothing: it is not there')
    return this.#filesystems.look(text)
  }

  async #units(): Promise<readonly FailedUnit[]> {
    const argv = systemctlFailed()
    const { exit, stdout, stderr } = await this.#options.query(argv, deadlineMs)
    if (exit !== 0) throw unanswered(argv, stderr)
    return parseFailedUnits(stdout)
  }

  async #clockSource(): Promise<ClockSource> {
    const { exists, query } = this.#options
    const chronyc = chronycTracking()
    if (exists(chronyc[0])) {
      const { exit, stdout } = await query(chronyc, deadlineMs)
      // It may be there and not be the one that keeps the clock.
      if (exit === 0) return parseTracking(stdout)
    }
    const argv = timedatectlSynchronised()
    const { exit, stdout, stderr } = await query(argv, deadlineMs)
    if (exit !== 0) throw unanswered(argv, stderr)
    return parseSynchronised(stdout)
  }

  async #rebootFor(bootedMs: number | null): Promise<readonly string[] | null> {
    const { read, exists, query } = this.#options
    if (exists('/run/reboot-required')) return namedPackages(read('/run/reboot-required.pkgs') ?? '')
    const argv = rpmInstallTimes()
    // With rpm on a Debian, its database is there and empty.
    if (bootedMs === null || !exists(argv[0]) || exists('/var/lib/dpkg/status')) return null
    const names = installedSince((await query(argv, deadlineMs)).stdout, bootedMs)
    return names.length === 0 ? null : names
  }
}

const unanswered = (argv: readonly string[], stderr: string): HostError =>
  new HostError('host.unreadable', `${argv[0]} could not tell: ${stderr.trim().slice(0, 200)}`, {
    details: { argv },
  })
