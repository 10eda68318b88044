// The verb `network pending`: the change to the network that waits to be confirmed, and what became of the last one.

import type { Context } from '../api/context.ts'
import { ago, duration, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import {
  type Armed,
  type Ended,
  leadMs,
  readArmed,
  readEnded,
  readRestoring,
  undoFolderIn,
} from '../host/undo-saved.ts'
import { commandText } from './wording.ts'

/** A change that is not confirmed. Times are epoch milliseconds. */
interface Pending {
  readonly summary: string
  readonly armedAtMs: number
  readonly undoneAtMs: number
  readonly files: readonly string[]
  readonly reload: readonly string[]
}

/** The answer of `network pending`. */
export interface NetworkPending {
  readonly pending: Pending | null
  readonly undoing: Pending | null
  readonly last: Ended | null
}

/** Without what the files hold, which only root may read. */
const pendingOf = (armed: Armed | null): Pending | null =>
  armed && {
    summary: armed.summary,
    armedAtMs: armed.armedAtMs,
    undoneAtMs: armed.armedAtMs + armed.deadlineMs - leadMs(armed.deadlineMs),
    files: armed.files.map(({ path }) => path),
    reload: armed.reload.map(({ argv }) => commandText(argv)),
  }

/** Reads what is pending. Throws `undo.damaged`, `host.denied`. */
export async function run({ ownFolder }: Context): Promise<NetworkPending> {
  const folder = undoFolderIn(ownFolder)
  return {
    pending: pendingOf(await readArmed(folder)),
    undoing: pendingOf(await readRestoring(folder)),
    last: await readEnded(folder),
  }
}

const indent = 11

const pendingText = ({ summary, files, reload }: Pending, when: string): readonly string[] => [
  paragraph('', `${summary}: ${when}`, 0),
  paragraph('  files', files.join(', '), indent),
  ...reload.map((command, at) => paragraph(at === 0 ? '  then' : '', command, indent)),
]

/** What became of a change, in words. */
export const endedText = (terminal: Terminal, { summary, outcome, by, atMs, problems }: Ended): string =>
  [
    paragraph('', `${summary}: ${outcome} by ${by}, ${ago(terminal.nowMs - atMs)}.`, 0),
    ...problems.map((problem) => paragraph(`  ${paint(terminal, 'bad', 'failed')}`, problem, indent)),
  ].join('\n')

/** The answer in words. */
export function render({ pending, undoing, last }: NetworkPending, terminal: Terminal): string {
  const lines: string[] = []
  if (pending) {
    const leftMs = pending.undoneAtMs - terminal.nowMs
    const when = leftMs > 0 ? `undone in ${duration(leftMs)}` : 'its deadline has passed'
    lines.push(...pendingText(pending, `${when} unless it is confirmed`))
    lines.push(paragraph('  Next', 'garrison network confirm, or garrison network undo', indent))
  }
  if (undoing) lines.push(...pendingText(undoing, 'is being undone, or could not be whole'))
  if (!pending && !undoing) lines.push('No change waits to be confirmed.')
  if (last) lines.push(endedText(terminal, last))
  return lines.join('\n')
}

/** 2 while one is pending, 1 while one is undone or could not be, else 0. */
export const exitOf = ({ pending, undoing }: NetworkPending): Exit =>
  undoing ? EXIT.error : pending ? EXIT.drift : EXIT.done
