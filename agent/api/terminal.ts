// Text for a person at a terminal of eighty columns: colours, wrapping, tables, units, and nothing raw from the host.

import type { ProblemReport } from '../../provisioning/problem.ts'

/**
 * What the renderers know of the terminal. `colour`: it has colours and NO_COLOR is not set. `live`: a line can be written over.
 * `nowMs` is epoch time.
 */
export interface Terminal {
  readonly colour: boolean
  readonly live: boolean
  readonly nowMs: number
}

/** How wide text is made. A single word that is longer stays whole. */
export const columns = 80

const styles = { good: '32', warn: '33', bad: '31', dim: '2', strong: '1' } as const

/** A meaning that a colour underlines; it is never the only sign. */
export type Style = keyof typeof styles

/** The text in the colour of a style, where the terminal has colours. */
export const paint = (terminal: Terminal, style: Style, text: string): string =>
  terminal.colour && text !== '' ? `\u001b[${styles[style]}m${text}\u001b[0m` : text

// Controls (C0 but newline, DEL, C1), lone surrogates, separators and every mark that turns or hides text. Not made at load: that takes
// longer than all the rest of this file, and an answer with --json is passed on as the root side made it.
const invisible = () =>
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]|\p{Cs}/gu

const escaped = (character: string): string => {
  const code = character.codePointAt(0) ?? 0
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, '0')}`
    : `\\u${code.toString(16).padStart(4, '0')}`
}

/** Text from anywhere with every character that could drive or deceive a terminal made visible; newlines stay. */
export const visible = (text: string): string => text.replace(invisible(), escaped)

/** The same value with every string in it, keys too, made visible. */
export function visibleIn<T>(value: T): T {
  if (typeof value === 'string') return visible(value) as T
  if (Array.isArray(value)) return value.map(visibleIn) as T
  if (value !== null && typeof value === 'object')
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [visible(key), visibleIn(one)])) as T
  return value
}

/** JSON on one line in which every character that a terminal could obey is a `\u` escape; parses to the same value. */
export const safeJson = (value: unknown): string =>
  JSON.stringify(value).replace(invisible(), (character) =>
    [...Array(character.length).keys()]
      .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`)
      .join(''),
  )

/** How many columns a text takes, colours left out. */
export const widthOf = (text: string): number => text.replace(/\u001b\[\d+m/g, '').length

/** Text in lines of at most `width` columns, broken at spaces; every run of white space counts as one. `first`: of line one. */
export function wrap(text: string, width: number, first = width): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/).filter(Boolean)) {
    if (line !== '' && widthOf(line) + 1 + widthOf(word) > (lines.length === 0 ? first : width)) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return line === '' ? lines : [...lines, line]
}

/**
 * A paragraph: `label`, the text from column `indent` on. A longer label is followed by the text all the same, and only the lines
 * after it keep to that column. Where a word is too long for the column, all of the text moves to the left.
 */
export function paragraph(label: string, text: string, indent: number): string {
  const used = widthOf(label)
  const lead = label === '' || used < indent || (used === indent && label.endsWith(' ')) ? indent : used + 2
  const lines = wrap(text, columns - indent, columns - lead)
  const [first = '', ...rest] = lines
  if (first === '') return label.trimEnd()
  const fits = lead + widthOf(first) <= columns && rest.every((line) => indent + widthOf(line) <= columns)
  if (!fits && indent > 2)
    return [label.trimEnd(), ...wrap(text, columns - 2).map((line) => `  ${line}`)].filter(Boolean).join('\n')
  return [label + ' '.repeat(lead - used) + first, ...rest.map((line) => ' '.repeat(indent) + line)].join(
    '\n',
  )
}

/** Text with `tail` at the right edge of its last line, or of a line of its own where it does not fit. */
export function withTail(text: string, tail: string): string {
  const used = widthOf(text.slice(text.lastIndexOf('\n') + 1))
  const room = columns - widthOf(tail)
  return used + 2 <= room
    ? text + ' '.repeat(room - used) + tail
    : `${text}\n${' '.repeat(Math.max(0, room))}${tail}`
}

/** Text cut to `width` by taking out its middle, so that both ends, which tell serials apart, stay. */
export const shorten = (text: string, width: number): string => {
  if (text.length <= width) return text
  const tail = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - tail)}…${text.slice(text.length - tail)}`
}

/** The count and the word, in the plural where it must be: `1 step`, `3 steps`. */
export const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`

/** A duration in the unit that a person would choose: `0.3 s`, `24 min`, `3 h`, `12 days`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  if (seconds < 99.5) return `${Math.round(seconds)} s`
  if (seconds < 99.5 * 60) return `${Math.round(seconds / 60)} min`
  if (seconds < 47.5 * 3600) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} days`
}

/** How long before now a moment was: `4 s ago`; `just now` below one second. */
export const ago = (ms: number): string =>
  ms < 1000 ? 'just now' : `${ms < 9950 ? `${Math.round(ms / 1000)} s` : duration(ms)} ago`

/** A size in binary units: `1.7 TiB`, `38.0 GiB`, `256 GiB`. */
export function bytes(size: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = size
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** A moment in the host's own time zone, to the second: `2026-11-20 21:47:17`. */
export function moment(atMs: number): string {
  const at = new Date(atMs)
  const two = (number: number) => String(number).padStart(2, '0')
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}

/** An error in its parts: what happened to what, whether anything was changed, and what to do next. */
export function problemText(terminal: Terminal, problem: ProblemReport, changed?: string): string {
  const [first = '', ...rest] = wrap(`garrison: ${problem.code}: ${problem.message}`, columns - 2)
  return [
    paint(terminal, 'bad', first),
    ...rest.map((line) => `  ${line}`),
    ...(changed === undefined ? [] : [paragraph('', changed, 2)]),
    paragraph('', problem.remedy, 2),
  ].join('\n')
}
