// Makes a step undo itself unless the host is seen to be reached after it (safety rule 6): pure, the performing is agent/host/undo.ts.

import type { Action, Reload, Step, Witness } from './resource.ts'

/** How a change is undone, and who has to testify that it need not be. */
export interface Guard {
  /** Files that tools write in the step; those that its actions write, remove or move are known. */
  readonly files?: readonly string[]
  /** Run, one after the other and whatever became of those before, once the files are as they were. */
  readonly reload: readonly Reload[]
  /** All of these must testify, but for a session where there was none, and peers. Without any only a person can confirm. */
  readonly witnesses: readonly Witness[]
  /** From the arming to the undoing, the time of the change included; 60 000 when absent. */
  readonly deadlineMs?: number
}

/** What a witness said: `absent` when there is nobody to ask. */
export interface Testimony {
  readonly witness: Witness
  readonly said: 'seen' | 'silent' | 'absent'
}

const usualDeadlineMs = 60_000

const changedBy = (action: Action): readonly string[] => {
  if (action.kind === 'write' || action.kind === 'remove') return [action.path]
  return action.kind === 'move' ? [action.from, action.to] : []
}

/** The step with its change between an undo that is armed and the witnesses that disarm it. */
export function guarded(step: Step, { files = [], reload, witnesses, deadlineMs }: Guard): Step {
  return {
    ...step,
    actions: [
      {
        kind: 'undo',
        operation: 'arm',
        summary: step.summary,
        files: [...new Set([...step.actions.flatMap(changedBy), ...files])],
        reload,
        deadlineMs: deadlineMs ?? usualDeadlineMs,
      },
      ...step.actions,
      { kind: 'undo', operation: 'mark' },
      { kind: 'undo', operation: 'confirm', witnesses },
    ],
    otherwise: [{ kind: 'undo', operation: 'restore' }],
  }
}

/** Whether a change may stay: somebody has seen the host, and nobody who could have is silent. */
export const confirmed = (testimonies: readonly Testimony[]): boolean =>
  testimonies.some(({ said }) => said === 'seen') && testimonies.every(({ said }) => said !== 'silent')

/** A witness in words: `192.0.2.1 on lni`. */
export function witnessText(witness: Witness): string {
  if (witness.kind === 'neighbour') return `${witness.address} on ${witness.device}`
  return witness.kind === 'session' ? 'an SSH session that was in use' : 'a peer'
}
