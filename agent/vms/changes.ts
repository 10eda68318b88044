// What a verb changes, of VMs above all, written into the journal before and after, as the steps of an apply are.

import type { JournalWriter } from '../../provisioning/host.ts'
import { problemOf } from '../../provisioning/problem.ts'
import { type Action, type Risk, type Step, stepKey } from '../../provisioning/resource.ts'

/** Who changes something, and where that is written down. `clock` gives epoch milliseconds. */
export interface Witness {
  readonly who: string
  readonly clock: () => number
  readonly journal: JournalWriter
  readonly instance: () => Promise<string>
}

/** One change of one VM, or of another part: `word` follows the part in its id, `vm` is what it is done to. */
export interface Change {
  readonly word: string
  readonly vm: string
  readonly summary: string
  readonly risk: Risk
  readonly actions?: readonly Action[]
}

/** The changes of one verb. */
export interface Changes {
  /** Does it between two lines of the journal. Throws `journal.unwritable`, and then it was not begun, or what the work throws. */
  make<T>(change: Change, work: () => Promise<T>): Promise<T>
  /** Says how it all ended. */
  end(outcome: string): Promise<void>
}

let opened = 0

/** Begins the changes of one verb, which is given as it was typed. Throws `journal.unwritable`. */
export async function openChanges(
  { who, clock, journal, instance }: Witness,
  verb: string,
  allow: Risk,
  part: 'vms' | 'shell' = 'vms',
): Promise<Changes> {
  opened += 1
  const beganMs = clock()
  const apply = `${new Date(beganMs).toISOString().replace(/[-:]|\.\d+/g, '')}-${process.pid}-${opened}`
  const stamp = () => ({ apply, atMs: clock() })
  let steps = 0
  await journal.append({
    ...stamp(),
    kind: 'apply-started',
    // Only a part of what is on the host: it settles nothing.
    request: { who, allow, only: part, verb },
    desired: '',
    instance: await instance(),
  })
  return {
    async make({ word, vm, summary, risk, actions = [] }, work) {
      const step: Step = { id: `${part}.${word}`, subject: vm, summary, risk, because: [], actions }
      const key = stepKey(step)
      const stepBeganMs = clock()
      const ended = () => ({ ...stamp(), key, outcomes: [], durationMs: clock() - stepBeganMs })
      await journal.append({ ...stamp(), kind: 'step-started', key, resource: part, step })
      steps += 1
      try {
        const result = await work()
        await journal.append({ ...ended(), kind: 'step-done' })
        return result
      } catch (error) {
        const { code, message } = problemOf(error)
        await journal.append({ ...ended(), kind: 'step-failed', code, message })
        throw error
      }
    },
    end: (outcome) =>
      journal.append({ ...stamp(), kind: 'apply-ended', outcome, steps, durationMs: clock() - beganMs }),
  }
}
