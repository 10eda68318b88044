// The verb `journal`: what was done to the host, by whom and why.

import type { JournalEntry } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Context, JournalRecord } from '../api/context.ts'
import { duration, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import type { Args } from '../api/verbs.ts'

/** One line of the answer. */
export type JournalLine =
  | { readonly entry: JournalEntry }
  | { readonly damaged: Extract<JournalRecord, { kind: 'damaged' }>['damaged'] }

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The moment that `90s`, `2h`, `7d` or a date means, in epoch milliseconds. Throws `request.invalid`. */
export function sinceMs(text: string, nowMs: number, verb = 'journal'): number {
  const [, number, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  if (number !== undefined && unit !== undefined) return nowMs - Number(number) * (unitMs[unit] ?? 0)
  const at = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/.test(text)
    ? Date.parse(text)
    : Number.NaN
  if (Number.isNaN(at))
    throw new HostError('request.invalid', `--since takes 90s, 30m, 2h, 7d or a date, not ${text}`, {
      details: { verb },
    })
  return at
}

/** Reads the journal, and goes on with --follow until the caller leaves. */
export async function* run(
  context: Context,
  { follow, since }: Args<'journal'>,
): AsyncGenerator<JournalLine> {
  const records = context.journal.read({
    ...(since !== undefined && { sinceMs: sinceMs(since, context.clock()) }),
    ...(follow && { follow: context.signal }),
  })
  for await (const record of records) {
    if (context.signal.aborted) return
    yield record.kind === 'entry' ? { entry: record.entry } : { damaged: record.damaged }
  }
}

const textColumn = 31

function entryText(terminal: Terminal, entry: JournalEntry): string {
  const row = (word: string, text: string) =>
    paragraph(`${paint(terminal, 'dim', moment(entry.atMs))}  ${word}`, text, textColumn)
  switch (entry.kind) {
    case 'apply-started': {
      const { who, allow, only, verb } = entry.request
      if (verb !== undefined) return row('asked', `${verb}, for ${who}`)
      return row('apply', `for ${who}, up to ${allow}${only === undefined ? '' : `, only ${only}`}`)
    }
    case 'step-started':
      return row('begin', `${entry.key}: ${entry.step.summary}`)
    case 'step-done':
      return row(paint(terminal, 'good', 'done'), `${entry.key} in ${duration(entry.durationMs)}`)
    case 'step-failed': {
      const said = entry.outcomes.at(-1)?.stderrTail
      return [
        row(
          paint(terminal, 'bad', 'failed'),
          `${entry.key} after ${duration(entry.durationMs)}: ${entry.code}: ${entry.message}`,
        ),
        ...(said === undefined ? [] : said.split('\n').map((line) => paragraph('', `| ${line}`, textColumn))),
      ].join('\n')
    }
    case 'apply-ended':
      return row('ended', `${entry.outcome}, ${entry.steps} performed in ${duration(entry.durationMs)}`)
  }
}

/** A line in words. */
export function render(line: JournalLine, terminal: Terminal): string {
  if ('entry' in line) return entryText(terminal, line.entry)
  const { file, line: number, bytes } = line.damaged
  const where = `${file}:${number}`
  return paragraph(
    paint(terminal, 'bad', 'damaged'),
    `${where}: ${bytes} bytes cannot be read; nothing else is lost`,
    10,
  )
}

/** Reading ends well however much was damaged: the damage is told line by line. */
export const exitOf = (): null => null
