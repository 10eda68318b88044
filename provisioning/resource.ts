// The vocabulary of Garrison: a resource observes, plans and checks one part of the host; steps and actions are plain data.

import type { Desired } from './desired.ts'
import type { HostReader } from './host.ts'
import type { ProblemCode, ProblemReport } from './problem.ts'

/** A value that survives JSON. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** What a step may cost, in rising order; `apply --allow` names the highest that may be performed. */
export const RISKS = ['safe', 'disruptive', 'destroys-data'] as const

/** One of `RISKS`. */
export type Risk = (typeof RISKS)[number]

/** One difference that a step removes. `path` is dotted as in the desired document; `why` names a source such as `host.yaml:31`. */
export interface Change {
  readonly path: string
  readonly desired: Json
  readonly observed: Json
  readonly why?: string
}

/** What a `wait` action waits for, read through the host reader until it holds or the deadline passes. */
export type Condition =
  /** The path exists. */
  | { readonly kind: 'exists'; readonly path: string }
  /** No process holds a POSIX or flock lock on the file (from /proc/locks); the holder is named on time-out. */
  | { readonly kind: 'unlocked'; readonly path: string }
  /** The query exits with 0 and its standard output matches the regular expression. */
  | { readonly kind: 'answer'; readonly argv: readonly [string, ...string[]]; readonly pattern: string }
  /** A network interface that is a device of its own (no bridge, no VLAN) has this MAC: lower case, with colons. */
  | { readonly kind: 'interface'; readonly mac: string }

/** The closed set of things that Garrison can do to a host. Paths are absolute; deadlines in milliseconds. */
export type Action =
  | {
      readonly kind: 'run'
      readonly argv: readonly [string, ...string[]]
      readonly deadlineMs: number
      /** Written to standard input, which is otherwise empty and closed. */
      readonly stdin?: string
      /** Exit codes that mean success; `[0]` when absent. */
      readonly exits?: readonly number[]
      /** Run in a systemd transient unit, outside the sandbox of the operate service (package transactions, initramfs). */
      readonly unit?: true
      /** Added to the small fixed environment (PATH, LC_ALL=C.UTF-8). */
      readonly environment?: Readonly<Record<string, string>>
    }
  /** Replaces a file whole: temporary file beside it, fsync, rename, fsync of the folder. Parent folders are made (0755). */
  | { readonly kind: 'write'; readonly path: string; readonly content: string; readonly mode: number }
  | { readonly kind: 'remove'; readonly path: string }
  /** Makes a folder if it is missing and sets mode, owner and group (names) where given. */
  | {
      readonly kind: 'folder'
      readonly path: string
      readonly mode?: number
      readonly owner?: string
      readonly group?: string
    }
  /** Renames a file or folder on the same filesystem; refuses when `to` exists. */
  | { readonly kind: 'move'; readonly from: string; readonly to: string }
  | {
      readonly kind: 'wait'
      readonly until: Condition
      readonly summary: string
      readonly deadlineMs: number
    }
  | { readonly kind: 'reboot' }
  | DomainAction
  | PoolAction
  | UndoAction
  | Ec2Action
  | NetworkAction
  /**
   * Fetches a file whole: a path, an http(s) URL or `s3://BUCKET/KEY`. Goes on where an earlier try was cut off, and gives the file
   * its name only when its content is what the checksum (`sha256:…`, `sha512:…`) says. A file that is there already is verified.
   * With a format it is an image: refused when its first bytes say another, or lead to a second file (see vms/qcow2.ts).
   */
  | {
      readonly kind: 'fetch'
      readonly source: string
      readonly path: string
      readonly checksum?: string
      readonly sizeBytes?: number
      readonly format?: 'qcow2' | 'raw'
      readonly deadlineMs: number
    }

/** What is asked of libvirt about one VM. Each is done when libvirt says so, and is no error when it was so already. */
export type DomainAction = { readonly kind: 'domain'; readonly uuid: string; readonly name: string } & (
  | {
      readonly operation: 'define'
      readonly xml: string
      /** The digest (`xmlDigest`) of the definition that this one was made from, null for a new VM; another one is refused. */
      readonly replaces: string | null
    }
  | { readonly operation: 'start' }
  /** Asks the guest and waits until it is off; `action.deadline` when it is not by then. */
  | { readonly operation: 'shutdown'; readonly deadlineMs: number }
  /** Ends it at once, as if its power was cut. */
  | { readonly operation: 'destroy' }
  | { readonly operation: 'undefine' }
  | { readonly operation: 'autostart'; readonly enabled: boolean }
  /** Makes a disk of a running VM larger; the guest is told. `target` is libvirt's name of it (`vda`). */
  | { readonly operation: 'grow-disk'; readonly target: string; readonly sizeBytes: number }
)

/** What is asked of libvirt about one storage pool. */
export type PoolAction = { readonly kind: 'pool'; readonly name: string } & (
  | { readonly operation: 'define'; readonly xml: string }
  | { readonly operation: 'start' }
  | { readonly operation: 'autostart'; readonly enabled: boolean }
)

/** Something other than the agent that can testify that the host is reached after a change to its network. */
export type Witness =
  /** An SSH session that was in use before the change has carried data since; not asked where there was none. */
  | { readonly kind: 'session' }
  /**
   * A host with which there was a connection by one of these TCP ports, those of the fleet, has had data acknowledged since. It is heard where
   * nobody else can testify; a fleet that is silent undoes nothing.
   */
  | { readonly kind: 'peer'; readonly ports: readonly number[] }
  /** The address answers ARP or NDP on the interface. */
  | { readonly kind: 'neighbour'; readonly device: string; readonly address: string }

/** A program that makes the host use files again which were put back. It must do no harm when run twice. */
export interface Reload {
  readonly argv: readonly [string, ...string[]]
  readonly deadlineMs: number
  /** Kept in a file of which the path becomes the last argument. */
  readonly content?: string
  /** Exit codes that mean success; `[0]` when absent. */
  readonly exits?: readonly number[]
}

/** What keeps a change to the network from cutting the host off; `guarded` (undo.ts) puts these around the actions of a step. */
export type UndoAction = { readonly kind: 'undo' } & (
  | {
      /**
       * Saves the files as they are, absent ones too, and sees to it that they are put back and `reload` is run when the deadline
       * has passed, or the host starts again, with or without this agent. `undo.pending` while another change is unconfirmed.
       */
      readonly operation: 'arm'
      readonly summary: string
      readonly files: readonly string[]
      readonly reload: readonly Reload[]
      readonly deadlineMs: number
    }
  /** The change is made: what a witness sees counts from here. */
  | { readonly operation: 'mark' }
  /** Waits until the witnesses have testified, or a person has, and disarms. `undo.undone` when the deadline came first. */
  | { readonly operation: 'confirm'; readonly witnesses: readonly Witness[] }
  /** Puts back at once what is armed; nothing when nothing is. */
  | { readonly operation: 'restore' }
)

/**
 * What is asked of the EC2 API. Each is looked up just before it is asked for, and is no error when it was so already.
 * An `interfaceId` of null is that of the interface with our tag, in a forecast of what follows its making.
 */
export type Ec2Action = { readonly kind: 'ec2' } & (
  | {
      /** Makes every interface of the subnet that is attached at the device index a local network interface. */
      readonly operation: 'enable-lni'
      readonly subnetId: string
      readonly deviceIndex: number
    }
  | {
      readonly operation: 'create-interface'
      readonly instanceId: string
      readonly subnetId: string
      /** EC2 makes one interface for one token, however often it is asked. */
      readonly clientToken: string
      readonly description: string
      readonly tags: Readonly<Record<string, string>>
      /** Interfaces that this one takes the place of; one of them that is there after all is kept, and none is made. */
      readonly gone: readonly string[]
    }
  | {
      readonly operation: 'attach-interface'
      readonly instanceId: string
      readonly interfaceId: string | null
      readonly deviceIndex: number
    }
  | {
      readonly operation: 'delete-on-termination'
      readonly instanceId: string
      readonly interfaceId: string | null
    }
  | {
      readonly operation: 'tag-interface'
      readonly interfaceId: string
      readonly tags: Readonly<Record<string, string>>
    }
)

/** What is asked of libvirt about one network. */
export type NetworkAction = { readonly kind: 'network'; readonly name: string } & (
  | {
      readonly operation: 'define'
      readonly xml: string
      /** The digest (`xmlDigest`) of the definition that this one was made from, null for a new network; another one is refused. */
      readonly replaces: string | null
    }
  | { readonly operation: 'start' }
  /** Ends it; refused (`plan.changed`) while a VM that runs is attached to it. What is attached loses its network until it starts anew. */
  | { readonly operation: 'stop' }
  | { readonly operation: 'autostart'; readonly enabled: boolean }
  /** Adds an address reservation (`<host>`) to the `<ip>` of that place, as it is now and as it is defined, or takes it away. */
  | { readonly operation: 'reserve' | 'release'; readonly place: number; readonly xml: string }
)

/** Why a step cannot be performed, in the words of the problem table. */
export interface Blocked {
  readonly code: ProblemCode
  readonly message: string
  readonly remedy: string
  readonly details?: Json
}

/**
 * One thing to do. `id` is dotted and stable (`volumes.create`); `subject` tells steps of one id apart (`images`).
 * `after` lists keys (see `stepKey`) of steps of the same resource that must be gone first.
 * `claims` lists block devices: just before the first action the engine opens them exclusively, observes and plans again,
 * and goes on only if this step is still what the plan says (safety rule 8).
 */
export interface Step {
  readonly id: string
  readonly subject?: string
  readonly summary: string
  readonly risk: Risk
  readonly because: readonly Change[]
  readonly actions: readonly Action[]
  readonly after?: readonly string[]
  readonly blocked?: Blocked
  /** Performed when an action failed after the first was performed: what the first armed is undone at once. */
  readonly otherwise?: readonly Action[]
  readonly claims?: readonly string[]
}

/** How much a finding matters, gravest first: `high` stops rollouts, `warning` wants a look, `notice` is good to know. */
export const SEVERITIES = ['high', 'warning', 'notice'] as const

/** One of `SEVERITIES`. */
export type Severity = (typeof SEVERITIES)[number]

/** Something about the host that is not as healthy as it could be. `code` is dotted and stable. */
export interface Finding {
  readonly code: string
  readonly severity: Severity
  readonly subject?: string
  readonly text: string
  readonly remedy: string
}

/** One part of the host. `plan`, `check` and `describe` are pure. */
export interface Resource<Observed = unknown> {
  readonly id: string
  /** Ids of resources that must be settled before a step of this one is performed. */
  readonly needs: readonly string[]
  /** Whether the desired document says anything of this part; if not, its plan is empty. */
  declared(desired: Desired): boolean
  /** The only place that reads the host. A part that cannot be read is a HostError, or an unknown inside `Observed`. */
  observe(reader: HostReader, desired: Desired): Promise<Observed>
  plan(observed: Observed, desired: Desired): readonly Step[]
  check(observed: Observed): readonly Finding[]
  /** What is there, in one line of at most 60 columns, for `garrison status`. */
  describe(observed: Observed, desired: Desired): string
}

/** `settled`: the plan is empty. `drifted`: it is not. `unknown`: it could not be read, and is neither. */
export type Standing = 'settled' | 'drifted' | 'unknown'

/** One resource, observed once. `atMs` is the epoch time of the observation. */
export interface Assessment {
  readonly resource: string
  readonly needs: readonly string[]
  readonly declared: boolean
  readonly standing: Standing
  readonly summary: string
  readonly steps: readonly Step[]
  readonly findings: readonly Finding[]
  readonly observed: unknown
  readonly problem?: ProblemReport
  readonly atMs: number
}

/** The identity of a step within its plan: `volumes.create images`. */
export const stepKey = (step: Pick<Step, 'id' | 'subject'>): string =>
  step.subject === undefined ? step.id : `${step.id} ${step.subject}`
