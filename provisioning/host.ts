// What decisions may know of a host and ask to be done to it: interfaces only, no implementation.

import type { Ec2Question, Ec2Reading, InstanceEvents, InstanceFacts } from './instance.ts'
import type { Action, Risk, Step } from './resource.ts'

/** What a foreign tool answered. A non-zero exit is an answer, not an error: the tool's parser judges it. */
export interface Answer {
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
}

/** Facts of one file, following links. */
export interface FileFacts {
  readonly kind: 'file' | 'folder' | 'block' | 'other'
  readonly sizeBytes: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly modifiedMs: number
}

/** Room on the filesystem of a path (statfs). */
export interface Capacity {
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly inodes: number
  readonly freeInodes: number
}

/** One distinct mount namespace and its /proc/PID/mountinfo. `own` is the agent's. */
export interface MountTable {
  readonly pid: number
  readonly own: boolean
  readonly mountinfo: string
}

/** Bytes read directly from a block device: its first and last 16 MiB and random blocks between. */
export interface DriveSample {
  readonly sampledBytes: number
  /** Offset of the first byte seen that is not zero, or null when all were zero. */
  readonly nonZeroAt: number | null
}

/** I/O that somebody did on a device while we watched (sectors and requests in flight). */
export interface IoActivity {
  readonly readSectors: number
  readonly writtenSectors: number
  readonly inFlight: number
}

/** A step that the journal shows as started and never ended. */
export interface UnfinishedStep {
  readonly apply: string
  readonly key: string
  readonly instance: string
  readonly step: Step
}

/** Who holds the apply lock. */
export interface LockHolder {
  readonly pid: number
  readonly who: string
  readonly sinceMs: number
}

/**
 * What libvirt knows of one VM. `xml` is its definition for the next start, without passwords; `hasSecrets` says that it holds
 * some, which a definition made from `xml` would lose. `liveXml` is null when it does not run. `power` is libvirt's own word.
 */
export interface DomainFacts {
  readonly uuid: string
  readonly name: string
  readonly power: 'running' | 'blocked' | 'paused' | 'shutting-down' | 'off' | 'crashed' | 'suspended'
  /** Why it is so, in libvirt's words (`user`, `I/O error`, `migration`, `booted`, …). */
  readonly reason: string
  /** Whether it is defined, or only runs and is gone when it ends. */
  readonly persistent: boolean
  readonly autostart: boolean
  /** Whether its memory is saved, so that the next start resumes it. */
  readonly managedSave: boolean
  readonly xml: string
  readonly liveXml: string | null
  readonly hasSecrets: boolean
}

/** One storage pool of libvirt. `path` is null where its kind has none. */
export interface PoolFacts {
  readonly name: string
  readonly type: string
  readonly path: string | null
  readonly active: boolean
  readonly autostart: boolean
  readonly capacityBytes: number
  readonly freeBytes: number
}

/**
 * One network of libvirt; `bridge` is the interface that its VMs are attached to, where it has one. `xml` is what it is from its
 * next start on, `liveXml` what it is now, null while it is not active.
 */
export interface NetworkFacts {
  readonly name: string
  readonly uuid: string
  readonly active: boolean
  readonly autostart: boolean
  /** Whether it is defined, or only active and gone when it ends. */
  readonly persistent: boolean
  readonly bridge: string | null
  readonly xml: string
  readonly liveXml: string | null
}

/**
 * Reads the host and changes nothing. Within one round every answer is read once (see `onceEach` in engine.ts).
 * Errors: `host.denied` (needs root), `host.tool-missing`, `host.deadline`, `host.query-refused` (not on the allow-list),
 * `host.unreadable` (anything else). Absence is `null`, never an error.
 */
export interface HostReader {
  /** Asks a foreign tool on the allow-list of queries. */
  query(argv: readonly [string, ...string[]], deadlineMs?: number): Promise<Answer>
  /** A text file of at most 16 MiB. */
  readText(path: string): Promise<string | null>
  /** Names in a folder, sorted. */
  list(path: string): Promise<readonly string[] | null>
  /** Where a symbolic link finally leads (realpath). */
  resolve(path: string): Promise<string | null>
  facts(path: string): Promise<FileFacts | null>
  /** The first bytes of a file or device (fewer when it is shorter), at most 64 KiB, in base64. */
  head(path: string, bytes: number): Promise<string | null>
  capacity(path: string): Promise<Capacity | null>
  /** Every distinct mount namespace of the host; needs root for those of others. */
  mountTables(): Promise<readonly MountTable[]>
  sample(device: string): Promise<DriveSample>
  /** `free` when an exclusive open succeeds (or this process already claims it), `busy` when somebody holds it. */
  exclusive(device: string): Promise<'free' | 'busy'>
  /** Watches the counters of the kernel names given for a quarter of a second. */
  ioActivity(kernelNames: readonly string[]): Promise<Readonly<Record<string, IoActivity>>>
  unfinishedSteps(): Promise<readonly UnfinishedStep[]>
  /** The holder of the apply lock when it is not this process. */
  lockHolder(): Promise<LockHolder | null>
  /** The host's clock, epoch milliseconds. */
  now(): Promise<number>
  /**
   * Every VM that libvirt knows. Like the two below it throws `libvirt.unreachable` when libvirt does not answer; the message and
   * `details.answeredMs` (epoch milliseconds, null when never) say when it last did.
   */
  domains(): Promise<readonly DomainFacts[]>
  pools(): Promise<readonly PoolFacts[]>
  networks(): Promise<readonly NetworkFacts[]>
  /** What the metadata tell of this instance; null on a host that is none. Errors: `imds.…`. */
  instance(): Promise<InstanceFacts | null>
  /** What AWS announces for this instance; null on a host that is none. Errors: `imds.…`. */
  instanceEvents(): Promise<InstanceEvents | null>
  /** What EC2 tells of the network of this instance. Never an error: an answer that cannot be had is the last one and why. */
  ec2Network(question: Ec2Question): Promise<Ec2Reading>
}

/** What one action did. `stderrTail` holds at most the last 20 lines. */
export interface ActionOutcome {
  readonly kind: Action['kind']
  readonly summary: string
  readonly durationMs: number
  readonly exit?: number
  readonly stderrTail?: string
}

/** Does to the host what actions say, and nothing else. */
export interface Performer {
  /**
   * Throws a HostError (`action.failed`, `action.deadline`, `wait.deadline`, …) whose details hold the outcome. When the signal
   * aborts, a program that runs is ended, and that is a failure.
   */
  perform(action: Action, signal?: AbortSignal): Promise<ActionOutcome>
  /** Holds exclusive opens of the devices while `work` runs; throws `drive.busy` naming the one that could not be had. */
  claim<T>(devices: readonly string[], work: () => Promise<T>): Promise<T>
}

/**
 * Who asked for an apply: `root over ssh from 192.0.2.7`, `timer`, …; the door tells, not the caller. `verb` is what was typed
 * where it was another verb that changes something.
 */
export interface Request {
  readonly who: string
  readonly allow: Risk
  readonly only?: string
  readonly verb?: string
}

/** One line of the journal. Times are epoch milliseconds; `apply` groups the lines of one apply. */
export type JournalEntry = { readonly apply: string; readonly atMs: number } & (
  | {
      readonly kind: 'apply-started'
      readonly request: Request
      readonly desired: string
      readonly instance: string
    }
  | { readonly kind: 'step-started'; readonly key: string; readonly resource: string; readonly step: Step }
  | {
      readonly kind: 'step-done'
      readonly key: string
      readonly outcomes: readonly ActionOutcome[]
      readonly durationMs: number
    }
  | {
      readonly kind: 'step-failed'
      readonly key: string
      readonly outcomes: readonly ActionOutcome[]
      readonly durationMs: number
      readonly code: string
      readonly message: string
    }
  | {
      readonly kind: 'apply-ended'
      readonly outcome: string
      readonly steps: number
      readonly durationMs: number
    }
)

/** Where steps are written down. `append` returns only when the line is on the disk (fsync). */
export interface JournalWriter {
  append(entry: JournalEntry): Promise<void>
}
