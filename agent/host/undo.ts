// Performs undo actions: arms a change to the network, hears the witnesses, and disarms; the undoing itself needs none of this.
//
// INVARIANTS
// - The timer runs before `armed.json` is there and until after it is gone: at no moment is a change armed without a deadline.
// - After a power cut `armed.json` alone suffices: garrison-network-undo.service looks for it before the network is begun.

import { setTimeout as sleep } from 'node:timers/promises'
import type { HostReader } from '../../provisioning/host.ts'
import { contains, parseCidr, parseIp } from '../../provisioning/link/address.ts'
import { ipNeighbours, ipRoutes, parseNeighbours, parseRoutes } from '../../provisioning/link/ip.ts'
import { carriedAgain, lively, ofPeers, ofSsh, type Session, sessionsOf } from '../../provisioning/link/ss.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action, UndoAction, Witness } from '../../provisioning/resource.ts'
import { confirmed, type Testimony, witnessText } from '../../provisioning/undo.ts'
import {
  assertNonePending,
  keepChange,
  readArmed,
  readEnded,
  readMark,
  readRestoring,
  saved,
  writeArmed,
  writeMark,
} from './undo-saved.ts'
import type { UndoTimer } from './undo-timer.ts'

type Neighbour = Extract<Witness, { kind: 'neighbour' }>
type Run = Extract<Action, { kind: 'run' }>

/** What performing takes. `run` starts a program in a unit of its own, where it may change the network. Throws HostError. */
export interface UndoParts {
  readonly folder: string
  readonly reader: HostReader
  readonly timer: UndoTimer
  readonly run: (action: Run) => Promise<unknown>
}

const pollMs = 250
/** So long a neighbour on a wire may take to answer. */
const askedMs = 50
/** How long after the deadline the undoing may take before nobody waits for it any more. */
const undoingMs = 60_000

const inUnit = (argv: Run['argv'], exits: readonly number[]): Run => ({
  kind: 'run',
  argv,
  deadlineMs: 10_000,
  exits,
  unit: true,
})

/** Forgets what is known of a neighbour, so that what is known afterwards was said afterwards. */
const forget = ({ run }: UndoParts, { address, device }: Neighbour) =>
  run(inUnit(['/usr/sbin/ip', 'neighbour', 'flush', 'to', address, 'dev', device], [0, 1, 255]))

async function neighbourAnswers({ run, reader }: UndoParts, { address, device }: Neighbour) {
  // The kernel is to ask for its link address, as it would to send something. No ping: a gateway need not answer one, and a small
  // image has no program for it.
  await run(inUnit(['/usr/sbin/ip', 'neighbour', 'replace', address, 'dev', device, 'use'], [0, 1, 2, 255]))
  await sleep(askedMs)
  const { stdout } = await reader.query(ipNeighbours())
  const answers = parseNeighbours(stdout).some(
    (one) => one.address === address && one.device === device && one.conditions.includes('REACHABLE'),
  )
  return answers && (await isReached(reader, { address, device }))
}

/**
 * Whether packets to a neighbour leave by the device. That it answers ARP does not say so: without an address there the kernel asks
 * with that of another interface.
 */
async function isReached(reader: HostReader, { address, device }: Pick<Neighbour, 'address' | 'device'>) {
  const ip = parseIp(address)
  if (ip === null) return false
  const { stdout } = await reader.query(ipRoutes(ip.family))
  return parseRoutes(ip.family, stdout).some(({ type, hops, to, via }) => {
    if (type !== 'unicast' || !hops.some((hop) => hop.device === device)) return false
    const network = parseCidr(to)
    return via === address || (via === null && network !== null && contains(network, ip))
  })
}

async function arm(parts: UndoParts, action: Extract<UndoAction, { operation: 'arm' }>): Promise<void> {
  const { folder, reader, timer } = parts
  const { files: paths, summary, reload, deadlineMs } = action
  await assertNonePending(folder)
  const used = lively(await sessionsOf(reader))
  const armed = await saved({ paths, summary, reload, deadlineMs, sessions: used })
  await timer.start(deadlineMs)
  await writeArmed(folder, { ...armed, armedAtMs: await reader.now() })
  // A disk that took its time has used the deadline up.
  if (!(await timer.isRunning())) {
    await keepChange(folder, 'nothing was changed yet', await reader.now())
    throw new HostError('undo.unarmed', 'the timer had ended before the change could begin')
  }
}

const lost = (summary: string, missing: string): HostError =>
  new HostError('undo.undone', `${summary}: undone, because ${missing}`)

/** Waits for what became of a change that somebody else has taken. */
async function becameOf(folder: string, id: string, missing: string, signal?: AbortSignal): Promise<string> {
  const endMs = performance.now() + undoingMs
  for (;;) {
    const ended = await readEnded(folder)
    if (ended?.id === id) {
      if (ended.outcome === 'confirmed') return ended.by
      throw lost(ended.summary, missing)
    }
    if (signal?.aborted || performance.now() >= endMs) break
    await sleep(pollMs)
  }
  const restoring = await readRestoring(folder)
  throw new HostError(
    'undo.incomplete',
    restoring
      ? `${restoring.summary}: it is still being undone`
      : 'nothing tells what became of the change to the network',
  )
}

/** A change that is being made. `until` is performance.now() after which it is undone rather than gone on with. */
export interface Making {
  readonly id: string
  readonly until: number
}

/** Before its deadline nothing more is changed for so long: what is written while it is undone would stay. */
const restMs = 500

/** Arms, and answers what is being made from now on. */
export async function begin(
  parts: UndoParts,
  action: Extract<UndoAction, { operation: 'arm' }>,
): Promise<Making> {
  const until = performance.now() + action.deadlineMs - restMs
  await arm(parts, action)
  return { id: (await readArmed(parts.folder))?.id ?? '', until }
}

/** Throws `undo.undone` when a change may not be gone on with, since it has been undone meanwhile or is about to be. */
export async function assertGoesOn({ folder }: UndoParts, { id, until }: Making): Promise<void> {
  const late = 'making it took longer than its deadline'
  const armed = await readArmed(folder)
  if (armed?.id !== id) await becameOf(folder, id, late)
  else if (performance.now() >= until) throw lost(armed.summary, late)
}

async function testimony(
  parts: UndoParts,
  witness: Witness,
  used: readonly Session[],
): Promise<Testimony['said']> {
  if (witness.kind === 'neighbour') return (await neighbourAnswers(parts, witness)) ? 'seen' : 'silent'
  const asked = witness.kind === 'session' ? ofSsh(used) : ofPeers(used, witness.ports)
  if (asked.length === 0) return 'absent'
  const [{ sessions }, now] = [await readMark(parts.folder), await sessionsOf(parts.reader)]
  if (carriedAgain(asked, sessions, now)) return 'seen'
  return witness.kind === 'session' ? 'silent' : 'absent'
}

/** Waits for the witnesses; answers who confirmed. Throws `undo.undone`, at once when the signal comes. */
async function confirm(
  parts: UndoParts,
  witnesses: readonly Witness[],
  signal?: AbortSignal,
): Promise<string> {
  const { folder, timer, reader } = parts
  const { id } = await readMark(folder)
  const armed = await readArmed(folder)
  if (armed?.id !== id) return becameOf(folder, id, 'making it took longer than its deadline', signal)
  const heard = new Map<Witness, Testimony>()
  const unasked = new Map<Witness, string>()
  // A program that is asked when systemd has gone is waited for in vain, and a host that goes down waits for this process.
  const aborted = new Promise<void>((resolve) => {
    signal?.addEventListener('abort', () => resolve(), { once: true })
  })
  const forgotten = new Set<Witness>()
  const hear = async (witness: Witness): Promise<void> => {
    try {
      if (witness.kind === 'neighbour' && !forgotten.has(witness)) {
        await forget(parts, witness)
        forgotten.add(witness)
      }
      heard.set(witness, { witness, said: await testimony(parts, witness, armed.sessions) })
      unasked.delete(witness)
    } catch (error) {
      // That a host with much to do could not ask in time is no reason to undo the change: it is asked again.
      if (!(error instanceof HostError)) throw error
      unasked.set(witness, error.message)
    }
  }
  const missing = (): string => {
    const silent = witnesses.filter((one) => heard.get(one)?.said !== 'seen')
    if (silent.length === 0) return 'nobody could testify'
    const failed = [...new Set(unasked.values())]
    return `${silent.map(witnessText).join(', ')} did not answer${failed.length === 0 ? '' : ` (${failed.join('; ')})`}`
  }
  while ((await readArmed(folder))?.id === id) {
    if (signal?.aborted) throw lost(armed.summary, 'the apply was ended while it waited to be confirmed')
    for (const witness of witnesses)
      if (heard.get(witness)?.said !== 'seen' && !signal?.aborted)
        await Promise.race([hear(witness), aborted])
    if (heard.size === witnesses.length && confirmed([...heard.values()])) {
      const by = witnesses
        .filter((one) => heard.get(one)?.said === 'seen')
        .map(witnessText)
        .join(', ')
      if (!(await keepChange(folder, by, await reader.now()))) break
      await timer.stop()
      return by
    }
    await sleep(pollMs)
  }
  return becameOf(folder, id, missing(), signal)
}

/** Performs one undo action after the first, `begin`; what to tell of it, if anything. Throws codes that begin with `undo.`. */
export async function performUndo(
  parts: UndoParts,
  action: Exclude<UndoAction, { operation: 'arm' }>,
  signal?: AbortSignal,
): Promise<string | null> {
  switch (action.operation) {
    case 'mark':
      await writeMark(parts.folder, await sessionsOf(parts.reader))
      return null
    case 'confirm':
      return `confirmed by ${await confirm(parts, action.witnesses, signal)}`
    case 'restore':
      if ((await readArmed(parts.folder)) ?? (await readRestoring(parts.folder)))
        await parts.timer.restoreNow()
      return null
  }
}
