// What verbs work with: one look at the host that several callers share, at most one apply, and the journal.
//
// INVARIANTS
// - At most one observation runs for `look`, and at most one more waits; whoever asks meanwhile shares the one that answers them.
// - A view is served again only while the document is the same and no step began since its observation began.
// - An apply that began is always drained to its end, whether or not anybody still listens.

import type { Duplex } from 'node:stream'
import { type Desired, nothingDesired } from '../../provisioning/desired.ts'
import { assessAll, converge, type EngineEvent } from '../../provisioning/engine.ts'
import type {
  HostReader,
  JournalEntry,
  JournalWriter,
  LockHolder,
  Performer,
} from '../../provisioning/host.ts'
import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import type { Assessment, Resource, Risk } from '../../provisioning/resource.ts'
import type { Catalogue } from '../../provisioning/vms/template.ts'
import type { DocumentFile } from '../../provisioning/written.ts'
import type { Jobs } from './jobs.ts'
import type { Terminal } from './terminal.ts'
import type { Args, Exit, VerbName } from './verbs.ts'

/** The desired document, read and valid, and a digest of its text. */
export interface ReadDocument {
  readonly desired: Desired
  readonly digest: string
}

/** One line of the journal as it is read: an entry, or where a line is damaged and how many bytes of it. */
export type JournalRecord =
  | { readonly kind: 'entry'; readonly entry: JournalEntry }
  | {
      readonly kind: 'damaged'
      readonly damaged: { readonly file: string; readonly line: number; readonly bytes: number }
    }

/** The journal as verbs need it. With `follow` reading goes on until that signal aborts. */
export interface JournalFile extends JournalWriter {
  read(query: { readonly sinceMs?: number; readonly follow?: AbortSignal }): AsyncIterable<JournalRecord>
}

/**
 * Everything that the composition root puts together for one host. `lock` throws `apply.locked`. `Libvirt` is a connection to
 * libvirt, whose client only the composition root and the verbs know.
 */
export interface Parts<Libvirt = unknown> {
  readonly resources: readonly Resource[]
  readonly reader: HostReader
  readonly performer: Performer
  readonly journal: JournalFile
  /** Where the desired document of this host lies. */
  readonly documentFolder: string
  /** Where Garrison writes down what is its own. */
  readonly ownFolder: string
  /** The templates of this host, or those in one folder. Throws `desired.not-trusted`, `host.denied`. */
  readonly templates: (folder?: string) => Promise<Catalogue>
  /**
   * The document of this host, with more drop-ins where they are given, or of one file. Throws `desired.missing`, `desired.invalid`,
   * `host.denied`.
   */
  readonly document: (file?: string, dropIns?: readonly DocumentFile[]) => Promise<ReadDocument>
  readonly lock: (who: string) => Promise<{ release(): Promise<void> }>
  /** Takes a place, a VM or an image for one job alone. Throws `job.busy`. */
  readonly hold: (what: string, who: string) => Promise<{ release(): Promise<void> }>
  readonly jobs: Pick<Jobs, 'begin' | 'list' | 'follow' | 'cancel'>
  readonly instance: () => Promise<string>
  readonly libvirt: LibvirtDoor<Libvirt>
  /** Opens a connection that is the caller's, and the caller closes it: what is asked on it may hang. Its errors are those of `libvirt`. */
  readonly ownLibvirt: () => Promise<Libvirt>
  readonly libvirtFolders: LibvirtFolders
  readonly hostname: string
  readonly version: string
  readonly clock: () => number
}

/**
 * A connection that is kept and not to be closed: for `control`, or for `monitor` what looks and samples, so that neither waits
 * for the other. It and its calls throw `libvirt.unreachable`, `libvirt.denied`, `libvirt.refused` (see agent/host/libvirt.ts).
 */
export type LibvirtDoor<Libvirt> = (use: 'control' | 'monitor') => Promise<Libvirt>

/** Where libvirt writes down what runs (`/run/libvirt`), what it keeps (`/var/lib/libvirt`) and its logs (`/var/log/libvirt`). */
export interface LibvirtFolders {
  readonly kept: string
  readonly run: string
  readonly log: string
}

/** The host, looked at once. `document` is the problem that kept the desired document from being read, or null. */
export interface View {
  readonly atMs: number
  readonly assessments: readonly Assessment[]
  readonly desired: Desired
  readonly document: ProblemReport | null
}

/** What an apply is asked to do. `instead` is planned in the place of the resource with its id. */
export interface AskedApply {
  readonly allow: Risk
  readonly only?: string | undefined
  readonly instead?: Resource
}

/**
 * What a verb may use. `signal` aborts when the caller left or the process must go. A verb that speaks to libvirt takes a
 * `Context<Connection>` with the Connection of agent/node-libvirt.
 */
export interface Context<Libvirt = unknown> {
  /** Who asks, as the journal shows it. */
  readonly who: string
  readonly hostname: string
  readonly version: string
  readonly clock: () => number
  readonly signal: AbortSignal
  /**
   * `fresh`: the observation begins after this call. `file`: plan for this document. `dropIns`: plan for the document of this host as it
   * would be with these files, named as the others are (`host.d/…`).
   */
  look(options: {
    readonly fresh: boolean
    readonly file?: string | undefined
    readonly dropIns?: readonly DocumentFile[] | undefined
  }): Promise<View>
  /** Lines of one apply; throws `apply.locked`, `desired.missing`, `desired.invalid` before the first. */
  apply(asked: AskedApply): AsyncGenerator<ApplyEvent>
  /** Lets the apply of this process stop after the step in hand; false when there is none. */
  stop(): boolean
  applying(): Promise<Pick<LockHolder, 'who' | 'sinceMs'> | null>
  readonly journal: JournalFile
  readonly reader: HostReader
  readonly performer: Performer
  /** The desired document of this host. Throws `desired.missing`, `desired.invalid`, `host.denied`. */
  desired(): Promise<Desired>
  /** What the desired document of this host says of its VMs; nothing when there is none that is valid. */
  declaredMachines(): Promise<Readonly<Record<string, unknown>>>
  readonly documentFolder: string
  readonly ownFolder: string
  readonly hold: (what: string) => Promise<{ release(): Promise<void> }>
  readonly jobs: Parts['jobs']
  readonly instance: () => Promise<string>
  readonly libvirt: LibvirtDoor<Libvirt>
  readonly ownLibvirt: Parts<Libvirt>['ownLibvirt']
  readonly libvirtFolders: LibvirtFolders
}

/** A verb whose answer is one object. `C` is what it works with: that of the root side, unless the daemon serves it. */
export interface AnswerModule<N extends VerbName, Result = unknown, C = Context> {
  run(context: C, args: Args<N>): Promise<Result>
  /** Text for a person; pure. What comes from the host has been made visible before. */
  render(result: Result, terminal: Terminal): string
  exitOf(result: Result): Exit
}

/** A verb whose answer is a stream of lines. */
export interface StreamModule<N extends VerbName, Line = unknown, C = Context> {
  run(context: C, args: Args<N>): AsyncIterable<Line>
  /** Text for a person, or null when the line says nothing to one. */
  render(line: Line, terminal: Terminal): string | null
  /** What a terminal shows with the time that has passed until the next line, or null. */
  live?(line: Line): string | null
  /** The exit code when this is the last line that has one. */
  exitOf(line: Line): Exit | null
}

/** A verb that carries bytes both ways until either side ends. */
export interface SessionModule<N extends VerbName, C = Context> {
  /** Opens the far side. Throws why it cannot be had. */
  open(context: C, args: Args<N>): Promise<Duplex>
}

/** A verb that runs in the client. `parts` loads everything that reads the host, below `root` where that is not `/`. */
export interface LocalModule<N extends VerbName, Result = unknown> {
  run(args: Args<N>, here: { parts(root?: string): Promise<Parts> }): Promise<Result>
  render(result: Result, terminal: Terminal): string
  exitOf(result: Result): Exit
}

/** What an apply tells: who began it, and then what the engine tells. */
export type ApplyEvent =
  | {
      readonly event: 'started'
      readonly apply: string
      readonly who: string
      readonly allow: Risk
      readonly only?: string
    }
  | EngineEvent

/**
 * Each resource is looked at by one look at a time, and by none of others while a step holds its devices: drives that are read
 * by another look of ours would count as used, and one that is probed is busy for the tool that wants it.
 */
class Turns {
  readonly #last = new Map<string, Promise<void>>()

  /** Waits for those who asked before; the answer ends the turn. */
  async take(resource: string): Promise<() => void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const before = this.#last.get(resource)
    this.#last.set(resource, promise)
    await before
    return resolve
  }

  /** The resource, observed in turn unless `isHeld` says that the turn is the caller's already. */
  observing(resource: Resource, isHeld = (): boolean => false): Resource {
    return {
      ...resource,
      observe: async (reader, desired) => {
        if (isHeld()) return resource.observe(reader, desired)
        const end = await this.take(resource.id)
        try {
          return await resource.observe(reader, desired)
        } finally {
          end()
        }
      },
    }
  }
}

/** How old a view may be and still be shown. */
const freshMs = 10_000

/** Makes contexts, one for each request, that share what they know of the host. */
export function contextsOf<Libvirt>(
  parts: Parts<Libvirt>,
): (who: string, signal: AbortSignal) => Context<Libvirt> {
  const { reader, performer, journal, clock } = parts
  const turns = new Turns()
  const resources = parts.resources.map((one) => turns.observing(one))
  let begun = 0
  let running: { readonly view: Promise<View>; readonly begun: number } | null = null
  let next: Promise<View> | null = null
  let last: { readonly view: View; readonly digest: string; readonly begun: number } | null = null
  let applying: { readonly who: string; readonly sinceMs: number; readonly stop: () => void } | null = null

  const read = async (file?: string, dropIns?: readonly DocumentFile[]) => {
    try {
      return { ...(await parts.document(file, dropIns)), problem: null }
    } catch (error) {
      const problem = problemOf(error)
      return { desired: nothingDesired, digest: `${problem.code}: ${problem.message}`, problem }
    }
  }
  type Read = Awaited<ReturnType<typeof read>>

  const observe = async ({ desired, problem }: Read): Promise<View> => {
    const atMs = clock()
    return {
      atMs,
      assessments: await assessAll({ resources, reader, desired, clock }),
      desired,
      document: problem,
    }
  }
  const shared = (): Promise<View> => {
    const begunBefore = begun
    const look = async () => {
      const document = await read()
      const view = await observe(document)
      last = { view, digest: document.digest, begun: begunBefore }
      return view
    }
    const view = look().finally(() => {
      running = null
    })
    running = { view, begun: begunBefore }
    return view
  }
  const afterThis = (): Promise<View> => {
    if (running === null) return shared()
    const ended = () => {
      next = null
      return shared()
    }
    next ??= running.view.then(ended, ended)
    return next
  }

  async function* apply(who: string, { allow, only: onlyName, instead }: AskedApply, signal: AbortSignal) {
    const { desired, digest } = await parts.document()
    const instance = await parts.instance()
    const only = onlyName === undefined ? {} : { only: onlyName }
    const lock = await parts.lock(who)
    const controller = new AbortController()
    applying = { who, sinceMs: clock(), stop: () => controller.abort() }
    let held: { readonly resource: string; readonly end: () => void } | null = null
    try {
      const id = `${new Date(clock()).toISOString().replace(/[-:]|\.\d+/g, '')}-${process.pid}`
      yield { event: 'started' as const, apply: id, who, allow, ...only }
      const events = converge({
        resources: parts.resources
          .map((one) => (one.id === instead?.id ? instead : one))
          .map((one) => turns.observing(one, () => held?.resource === one.id)),
        reader,
        performer,
        journal,
        desired,
        request: { who, allow, ...only },
        apply: id,
        instance,
        desiredDigest: digest,
        clock,
        signal: AbortSignal.any([signal, controller.signal]),
      })
      for await (const event of events) {
        if (event.event !== 'assessed') begun += 1
        if (event.event === 'step-started' && event.step.claims)
          held = { resource: event.resource, end: await turns.take(event.resource) }
        if (event.event === 'step-done' || event.event === 'step-failed') {
          held?.end()
          held = null
        }
        yield event
      }
    } finally {
      held?.end()
      begun += 1
      applying = null
      await lock.release()
    }
  }

  return (who, signal) => ({
    who,
    hostname: parts.hostname,
    version: parts.version,
    clock,
    signal,
    journal,
    reader,
    performer,
    desired: async () => (await parts.document()).desired,
    declaredMachines: async () => (await read()).desired.vms?.machines ?? {},
    documentFolder: parts.documentFolder,
    ownFolder: parts.ownFolder,
    hold: (what) => parts.hold(what, who),
    jobs: parts.jobs,
    instance: parts.instance,
    libvirt: parts.libvirt,
    ownLibvirt: parts.ownLibvirt,
    libvirtFolders: parts.libvirtFolders,
    async look({ fresh, file, dropIns }) {
      if (file !== undefined || dropIns !== undefined) {
        const document = await read(file, dropIns)
        if (document.problem)
          throw new HostError(document.problem.code, document.problem.message, document.problem)
        return observe(document)
      }
      if (fresh || (running && running.begun !== begun)) return afterThis()
      if (running) return running.view
      const young = last !== null && last.begun === begun && clock() - last.view.atMs < freshMs ? last : null
      if (young && (await read()).digest === young.digest) return young.view
      // Another caller may have begun to look while the document was read.
      return afterThis()
    },
    apply: (asked) => apply(who, asked, signal),
    stop() {
      applying?.stop()
      return applying !== null
    },
    applying: async () => {
      if (applying) return { who: applying.who, sinceMs: applying.sinceMs }
      const holder = await reader.lockHolder()
      return holder && { who: holder.who, sinceMs: holder.sinceMs }
    },
  })
}
