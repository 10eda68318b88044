// `--help`: the table of verbs as text of one screen.

import { commonFlags, verbsUnder } from './arguments.ts'
import { paint, paragraph, type Terminal } from './terminal.ts'
import { type Field, type Verb, type VerbName, verbNames, verbOf } from './verbs.ts'

/** A flag with what follows it: `--allow RISK`. */
export const flagText = (name: string, field: Field): string =>
  field.kind === 'switch' ? `--${name}` : `--${name} ${field.placeholder}`

/** How a verb is typed: `garrison apply [--allow RISK] [--only RESOURCE]`. */
export function usageOf(name: string, { operands, flags }: Verb): string {
  const words = Object.values(operands).flatMap((field) => {
    if (field.kind === 'switch') return []
    const word = 'many' in field ? `${field.placeholder}...` : field.placeholder
    return field.required ? word : `[${word}]`
  })
  const optional = Object.entries(flags).map(([flag, field]) => {
    const text = 'many' in field ? `${flagText(flag, field)}...` : flagText(flag, field)
    return field.kind !== 'switch' && field.required ? text : `[${text}]`
  })
  return ['garrison', name, ...words, ...optional].join(' ')
}

/** Verbs that people type, in the order of the table. */
export const shownVerbs = (): readonly (readonly [VerbName, Verb])[] =>
  verbNames.map((name) => [name, verbOf(name)] as const).filter(([, { hidden }]) => !hidden)

/** What each exit code means, in a word and in a sentence. */
export const exitCodes: readonly (readonly [code: number, word: string, meaning: string])[] = [
  [0, 'settled or done', 'The host is settled, or what was asked for was done.'],
  [1, 'error', 'Something failed; what and what to do next is on standard error.'],
  [2, 'drift', 'There is something to do.'],
  [3, 'blocked or refused', 'A step is blocked or not allowed, or the request was refused.'],
  [4, 'unknown', 'A part could not be read, so it is not known whether it is settled.'],
]

const column = 24

const rowsOf = (fields: Readonly<Record<string, Field>>, label: (name: string, field: Field) => string) =>
  Object.entries(fields).map(([name, field]) => paragraph(`  ${label(name, field)}`, field.brief, column))

/** How many words of a group the overview names, and how many of a larger one. */
const [mostWords, fewWords] = [8, 4]
/** Where the overview says what a verb does: most of it must fit one line. */
const overviewColumn = 17

/** Verbs that are seldom asked for: the overview has one row for all of them. */
const seldom: readonly string[] = ['shell', 'schema', 'instance', 'iam', 'record', 'completion', 'version']

/** A row for each verb of one word, one for those of several words that begin alike, and one for what is seldom asked for. */
function verbRows(): readonly string[] {
  const rows = new Map<string, { brief: string; further: Set<string> }>()
  const often = shownVerbs().filter(([name]) => !seldom.includes(name))
  for (const [name, { brief }] of often) {
    const [first = '', second] = name.split(' ')
    const row = rows.get(first) ?? { brief: '', further: new Set() }
    rows.set(first, row)
    if (second === undefined) row.brief = brief
    else row.further.add(second)
  }
  const further = paragraph('  further', `${seldom.join(', ')}: see garrison VERB --help`, overviewColumn)
  const lines = [...rows].map(([first, { brief, further }]) => {
    const words =
      further.size <= mostWords
        ? [...further].join(', ')
        : `${[...further].slice(0, fewWords).join(', ')}, …: see garrison ${first} --help`
    if (brief === '') return paragraph(`  ${first} WORD`, words, overviewColumn)
    return paragraph(`  ${first}`, words === '' ? brief : `${brief}; ${words}`, overviewColumn)
  })
  return [...lines, further]
}

function overview(terminal: Terminal): string {
  return [
    'Turns a bare host into a VM host from one document, and keeps it one.',
    '',
    `${paint(terminal, 'strong', 'Usage')}  garrison VERB [FLAGS]`,
    '',
    ...verbRows(),
    '',
    ...rowsOf(commonFlags, flagText),
    '',
    `${paint(terminal, 'strong', 'Exit')}   ${exitCodes.map(([code, word]) => `${code} ${word}`).join(', ')}`,
    `${paint(terminal, 'strong', 'Try')}    garrison apply --help    what a verb does, with examples`,
  ].join('\n')
}

/** The help of a word that several verbs begin with. */
export function groupHelpText(group: string, terminal: Terminal): string {
  const verbs = verbsUnder(group)
  const width = Math.max(...verbs.map((name) => name.length)) + 4
  return [
    `${paint(terminal, 'strong', 'Usage')}  garrison ${group} WORD [FLAGS]`,
    '',
    ...verbs.map((name) => paragraph(`  ${name}`, verbOf(name).brief, width)),
    '',
    `${paint(terminal, 'strong', 'Try')}    garrison ${verbs[0]} --help`,
  ].join('\n')
}

/** The help of a verb, or of all of them. */
export function helpText(name: VerbName | null, terminal: Terminal): string {
  if (name === null) return overview(terminal)
  const verb = verbOf(name)
  const { help, brief, operands, examples } = verb
  const operandRows = rowsOf(operands, (_, field) => (field.kind === 'switch' ? '' : field.placeholder))
  return [
    paragraph('', `garrison ${name}: ${brief}.`, 0),
    '',
    paragraph(paint(terminal, 'strong', 'Usage'), usageOf(name, verb), 7),
    '',
    paragraph('', help, 0),
    '',
    ...operandRows,
    ...rowsOf(verb.flags, flagText),
    paragraph(
      '  as for every verb',
      Object.entries(commonFlags)
        .map((flag) => flagText(...flag))
        .join(', '),
      column,
    ),
    ...(examples.length > 0 ? ['', paint(terminal, 'strong', 'Examples')] : []),
    ...examples.flatMap(([command, does]) => [`  ${command}`, paragraph('', `${does}`, 6)]),
  ].join('\n')
}
