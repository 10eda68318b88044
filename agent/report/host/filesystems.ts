// The filesystems of this host that lie on its own drives, and the room on them: mountinfo (proc(5)) and statfs(2).
//
// INVARIANTS
// - A filesystem that does not answer keeps a thread of this process until it does, of which there are four: so each is asked
//   again only when it has answered, and none at all while two owe an answer.

import { parseMountinfo } from '../../../provisioning/block/mountinfo.ts'
import type { Capacity } from '../../../provisioning/host.ts'
import { HostError } from '../../../provisioning/problem.ts'
import type { Clock } from '../clock.ts'

/** One filesystem. `on` is what it lies on: kernel names of drives and arrays, and its volume group; null when nobody knows. `capacity` is null until it has answered; `silentMs` is how long it has owed an answer, or null. */
export interface Filesystem {
  readonly mountpoint: string
  readonly source: string
  readonly readOnly: boolean
  readonly on: readonly string[] | null
  readonly capacity: Capacity | null
  readonly silentMs: number | null
}

const onDrives: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'vfat', 'f2fs', 'zfs'])
const mostSilent = 2

type Mounted = Pick<Filesystem, 'mountpoint' | 'source' | 'readOnly'> & { readonly number: string }

/** Which filesystems there are, each once, by the shortest path that all of it is mounted at; `number` is its device's. */
export function mountedFilesystems(mountinfo: string): readonly Mounted[] {
  const found = new Map<string, Mounted>()
  const mounts = parseMountinfo(mountinfo).filter(({ fsType }) => onDrives.has(fsType))
  // Of btrfs each subvolume has a number of its own, and none may be mounted whole.
  const whole = mounts.filter(({ root, fsType }) => root === '/' || fsType === 'btrfs')
  for (const { mountpoint, source, number, superOptions } of whole.sort(
    (a, b) => a.mountpoint.length - b.mountpoint.length,
  ))
    if (!found.has(source))
      found.set(source, { mountpoint, source, number, readOnly: superOptions.includes('ro') })
  return [...found.values()]
}

/** The volume group in a name of device-mapper, in which a hyphen of a name itself is doubled. */
const groupOf = (source: string): readonly string[] => {
  const [, group] = /^\/dev\/mapper\/((?:[^-]|--)+)-[^-]/.exec(source) ?? []
  return group === undefined ? [] : [group.replaceAll('--', '-')]
}

/** What asking for the room on a filesystem needs. */
export interface FilesystemsOptions {
  /** Names in a folder; null when it is not there. */
  readonly list: (path: string) => readonly string[] | null
  readonly capacity: (path: string) => Promise<Capacity | null>
  readonly clock: Clock
  readonly deadlineMs: number
}

/** Asks for the room on filesystems, and remembers who owes an answer. */
export class Filesystems {
  readonly #options: FilesystemsOptions
  readonly #askedMs = new Map<string, number>()
  readonly #known = new Map<string, Capacity>()

  constructor(options: FilesystemsOptions) {
    this.#options = options
  }

  /** Looks at every filesystem that is mounted, waiting for none longer than the deadline. */
  async look(mountinfo: string): Promise<readonly Filesystem[]> {
    const { clock } = this.#options
    const mounted = mountedFilesystems(mountinfo)
    const there = new Set(mounted.map(({ mountpoint }) => mountpoint))
    for (const mountpoint of this.#known.keys()) if (!there.has(mountpoint)) this.#known.delete(mountpoint)
    for (const { mountpoint } of mounted) await this.#ask(mountpoint)
    const nowMs = clock.steadyMs()
    return mounted.map(({ number, ...one }) => {
      const askedMs = this.#askedMs.get(one.mountpoint)
      // A device number of btrfs stands for no device.
      const on = number.startsWith('0:')
        ? null
        : [...new Set([...this.#below(`/sys/dev/block/${number}/slaves`), ...groupOf(one.source)])]
      return {
        ...{ ...one, on },
        capacity: this.#known.get(one.mountpoint) ?? null,
        silentMs: askedMs === undefined ? null : nowMs - askedMs,
      }
    })
  }

  /** Everything that a device is made of. */
  #below(slaves: string): readonly string[] {
    const names = this.#options.list(slaves) ?? []
    return names.flatMap((name) => [name, ...this.#below(`/sys/class/block/${name}/slaves`)])
  }

  async #ask(mountpoint: string): Promise<void> {
    const { capacity, clock, deadlineMs } = this.#options
    if (this.#askedMs.has(mountpoint) || this.#askedMs.size >= mostSilent) return
    this.#askedMs.set(mountpoint, clock.steadyMs())
    const answered = new AbortController()
    const asking = capacity(mountpoint)
      .then((room) => {
        if (room === null) this.#known.delete(mountpoint)
        else this.#known.set(mountpoint, room)
      })
      .catch((error: unknown) => {
        if (!(error instanceof HostError)) throw error
        // As one whose room nobody knows.
        this.#known.delete(mountpoint)
      })
      .finally(() => {
        this.#askedMs.delete(mountpoint)
        answered.abort()
      })
    await Promise.race([asking, clock.sleep(deadlineMs, answered.signal)])
  }
}
