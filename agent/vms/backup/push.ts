// Copies disks of a VM that runs, as they are at one moment: QEMU pushes them into files, and libvirt says how far it is.
//
// INVARIANTS
// - libvirt removes the files of a job that failed or was aborted. So files that are there, and a last job that succeeded, are whole.
// - What libvirt remembers of the last job is forgotten before a new one is begun.

import { setTimeout as sleep } from 'node:timers/promises'
import { HostError } from '../../../provisioning/problem.ts'
import { type Connection, type DomainRef, type ErrorCode, VIR } from '../../node-libvirt/index.ts'
import { asked, isRefusal, reach, type ToLibvirt } from '../reach.ts'
import { pushedDisks } from './libvirt-xml.ts'
import { stopOf, type Tools } from './tools.ts'

const within = { deadlineMs: 10_000 }
const [firstPollMs, pollMs] = [20, 500]

/**
 * How a job of these files stands: it runs, the last one succeeded, or neither. `other`: a job that is not this one runs. `unsaid`:
 * libvirt is busy with the VM, as after it was started again, and does not say.
 */
type PushStanding = 'running' | 'succeeded' | 'none' | 'other' | 'unsaid'

/** So long libvirt may be busy with a VM, or a job may copy nothing, before nobody waits any more. */
const patienceMs = 5 * 60_000

/** So long a job may copy nothing before libvirt is asked whether QEMU has it still. */
const doubtMs = 10_000

const sameFiles = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every((file) => other.includes(file))

/** An answer, or how the job stands when libvirt has none for it. Throws what it refuses of a VM that runs, for whatever reason. */
async function unless<T>(
  libvirt: Connection,
  dom: DomainRef,
  none: ErrorCode,
  asking: Promise<T>,
): Promise<T | 'none' | 'unsaid'> {
  try {
    return await asking
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'libvirt.refused') throw error
    if (isRefusal(error, none) || isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return 'none'
    if (isRefusal(error, 'VIR_ERR_OPERATION_TIMEOUT')) return 'unsaid'
    // Of a VM that has just ended it refuses in many words.
    if (!(await libvirt.domainIsActive({ dom }, within))) return 'none'
    throw error
  }
}

/** What libvirt says of the job of these files. */
async function standingOf(
  libvirt: Connection,
  dom: DomainRef,
  files: readonly string[],
): Promise<PushStanding> {
  const asking = libvirt.domainBackupGetXMLDesc({ dom }, within)
  const xml = await unless(libvirt, dom, 'VIR_ERR_NO_DOMAIN_BACKUP', asking)
  if (xml === 'unsaid') return xml
  if (xml !== 'none') {
    const running = pushedDisks(xml).map(({ file }) => file)
    return sameFiles(running, files) ? 'running' : 'other'
  }
  const flags = VIR.DOMAIN_JOB_STATS_COMPLETED | VIR.DOMAIN_JOB_STATS_KEEP_COMPLETED
  const stats = libvirt.domainGetJobStats({ dom, flags }, within)
  const last = await unless(libvirt, dom, 'VIR_ERR_OPERATION_INVALID', stats)
  if (typeof last === 'string') return last
  const isDone =
    last.type === VIR.DOMAIN_JOB_COMPLETED && last.params.operation === VIR.DOMAIN_JOB_OPERATION_BACKUP
  return isDone && last.params.success === true ? 'succeeded' : 'none'
}

/** The same, asked until libvirt says it. Throws `libvirt.unreachable` when it does not within five minutes. */
export async function pushStanding(
  to: ToLibvirt,
  dom: DomainRef,
  files: readonly string[],
): Promise<Exclude<PushStanding, 'unsaid'>> {
  for (const endMs = performance.now() + patienceMs; ; await sleep(pollMs)) {
    const standing = await asked(to, (libvirt) => standingOf(libvirt, dom, files))
    if (standing !== 'unsaid') return standing
    if (performance.now() > endMs)
      throw new HostError(
        'libvirt.unreachable',
        `libvirt is busy with ${dom.name} and does not say with what`,
        {
          details: { vm: dom.name },
        },
      )
  }
}

/** A job to begin. `freeze`: the filesystems of the guest are frozen for the moment, by its agent. */
export interface Push {
  readonly dom: DomainRef
  readonly files: readonly string[]
  readonly xml: string
  readonly checkpointXml: string | null
  readonly freeze: boolean
}

/**
 * Begins a job. Answers libvirt's refusal, after which nothing was begun, or null. Throws `libvirt.unreachable` when nobody can tell,
 * and what the guest's agent says when it cannot freeze.
 */
export async function beginPush(
  to: ToLibvirt,
  { dom, files, xml, checkpointXml, freeze }: Push,
): Promise<HostError | null> {
  const begin = async () => {
    try {
      await reach(to, {
        ask: (libvirt) =>
          libvirt.domainBackupBegin({
            dom,
            backupXML: xml,
            ...(checkpointXml !== null && { checkpointXML: checkpointXml }),
          }),
        holds: async (libvirt) => ['running', 'succeeded'].includes(await standingOf(libvirt, dom, files)),
      })
      return null
    } catch (error) {
      if (error instanceof HostError && error.code === 'libvirt.refused') return error
      throw error
    }
  }
  await asked(to, (libvirt) =>
    libvirt.domainGetJobStats({ dom, flags: VIR.DOMAIN_JOB_STATS_COMPLETED }, within),
  )
  if (!freeze) return begin()
  await (await to()).domainFSFreeze({ dom })
  try {
    return await begin()
  } finally {
    await asked(to, (libvirt) => libvirt.domainFSThaw({ dom }))
  }
}

/** Ends a job that runs, and returns when libvirt has taken its files away. */
export async function abortPush(to: ToLibvirt, dom: DomainRef, files: readonly string[]): Promise<void> {
  await reach(to, {
    ask: (libvirt) => libvirt.domainAbortJob({ dom }),
    holds: async (libvirt) => (await standingOf(libvirt, dom, files)) !== 'running',
  })
  const endMs = performance.now() + patienceMs
  for (; (await pushStanding(to, dom, files)) === 'running'; await sleep(firstPollMs))
    if (performance.now() > endMs) throw stalled(dom)
}

const stalled = ({ name }: DomainRef): HostError =>
  new HostError(
    'libvirt.unreachable',
    `libvirt says that the copy of ${name} goes on, but nothing has been copied for ${patienceMs / 60_000} minutes`,
    { details: { vm: name } },
  )

/**
 * Whether libvirt says that a job runs of which QEMU copies no disk any more. It says so for ever of a disk whose end it had not
 * written down when it was killed: begun again it drops that disk's job, and goes on to wait for it.
 */
async function isMissed(libvirt: Connection, dom: DomainRef): Promise<boolean> {
  const none = 'VIR_ERR_NO_DOMAIN_BACKUP'
  const xml = await unless(libvirt, dom, none, libvirt.domainBackupGetXMLDesc({ dom }, within))
  if (xml === 'none' || xml === 'unsaid') return false
  for (const { target } of pushedDisks(xml)) {
    const job = await unless(libvirt, dom, none, libvirt.domainGetBlockJobInfo({ dom, path: target }, within))
    if (typeof job === 'string' || job.found) return false
  }
  return true
}

const number = (value: unknown): number =>
  typeof value === 'number' || typeof value === 'bigint' ? Number(value) : 0

/**
 * Follows a job to its end, and tells how far it is. Throws `backup.copy-failed`, `job.cancelled` after it was ended,
 * `job.interrupted`, when it goes on without anybody who follows it, and `libvirt.unreachable` when it stands still.
 */
export async function followPush(
  { to, signal, tell }: Pick<Tools, 'to' | 'signal' | 'tell'>,
  dom: DomainRef,
  files: readonly string[],
): Promise<void> {
  let moved = { doneBytes: -1, atMs: performance.now() }
  for (let waitMs = firstPollMs; ; waitMs = Math.min(2 * waitMs, pollMs)) {
    if (signal.aborted) {
      if (signal.reason === 'cancelled') await abortPush(to, dom, files)
      throw stopOf(signal)
    }
    const standing = await pushStanding(to, dom, files)
    if (standing === 'succeeded') return
    if (standing !== 'running') break
    const done = await progressOf(to, dom)
    if (done !== null) tell({ subject: dom.name, doing: 'copying', ...done })
    const atMs = performance.now()
    if (done !== null && done.doneBytes !== moved.doneBytes) moved = { doneBytes: done.doneBytes, atMs }
    if (atMs > moved.atMs + patienceMs) throw stalled(dom)
    if (atMs > moved.atMs + doubtMs && (await asked(to, (libvirt) => isMissed(libvirt, dom)))) {
      await abortPush(to, dom, files)
      throw copyFailed(
        dom,
        'libvirt was ended when the copy was, and cannot tell any more whether it is whole',
      )
    }
    await sleep(waitMs)
  }
  throw copyFailed(dom, await whyFailed(to, dom))
}

const copyFailed = ({ name }: DomainRef, why: string): HostError =>
  new HostError('backup.copy-failed', `${name}: ${why}`, { details: { vm: name } })

/** How far the job is; null when libvirt does not say, as when the VM has just ended: then it is asked how the job stands. */
async function progressOf(
  to: ToLibvirt,
  dom: DomainRef,
): Promise<{ readonly doneBytes: number; readonly totalBytes: number | null } | null> {
  try {
    const { params } = await asked(to, (libvirt) => libvirt.domainGetJobStats({ dom }, within))
    const totalBytes = number(params.disk_total)
    return { doneBytes: number(params.disk_processed), totalBytes: totalBytes === 0 ? null : totalBytes }
  } catch (error) {
    if (error instanceof HostError && error.code === 'libvirt.refused') return null
    throw error
  }
}

/** Why the last job failed, as far as libvirt knows. */
async function whyFailed(to: ToLibvirt, dom: DomainRef): Promise<string> {
  const flags = VIR.DOMAIN_JOB_STATS_COMPLETED | VIR.DOMAIN_JOB_STATS_KEEP_COMPLETED
  try {
    const { params } = await asked(to, (libvirt) => libvirt.domainGetJobStats({ dom, flags }, within))
    return typeof params.errmsg === 'string' ? params.errmsg : 'libvirt does not say why it ended'
  } catch (error) {
    if (error instanceof HostError && error.code === 'libvirt.refused') return `it ended: ${error.message}`
    throw error
  }
}
