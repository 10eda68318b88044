// The man page garrison(8), from the table of verbs, in the macros of man(7).

import { commonFlags } from './arguments.ts'
import { exitCodes, flagText, shownVerbs, usageOf } from './help.ts'
import type { Field } from './verbs.ts'

/** Text with what roff would obey made plain: backslashes, hyphens, and controls at the start of a line. */
const plain = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '\\[u2026]')
    .replaceAll('’', '\\[cq]')
    .replace(/^([.'])/gm, '\\&$1')

/** A brief of the table as a sentence. */
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

const bold = (text: string): string => `.B ${plain(text)}`

const rows = (fields: Readonly<Record<string, Field>>, label: (name: string, field: Field) => string) =>
  Object.entries(fields).flatMap(([name, field]) => [
    '.TP',
    bold(label(name, field)),
    plain(sentence(field.brief)),
  ])

const placeholderOf = (_: string, field: Field): string => (field.kind === 'switch' ? '' : field.placeholder)

/** The page as roff source. `version` is shown in its footer. */
export function manPage(version: string): string {
  const verbs = shownVerbs().flatMap(([name, verb]) => [
    `.SS ${plain(usageOf(name, verb))}`,
    plain(verb.help),
    ...rows(verb.operands, placeholderOf),
    ...rows(verb.flags, flagText),
    ...verb.examples.flatMap(([command, does]) => [
      '.PP',
      plain(sentence(does)),
      '.PP',
      '.EX',
      `    ${plain(command)}`,
      '.EE',
    ]),
  ])
  return [
    `.TH GARRISON 8 "" "garrison ${version}" "Garrison"`,
    '.SH NAME',
    'garrison \\- turn a bare host into a VM host from one document, and keep it one',
    '.SH SYNOPSIS',
    '.B garrison',
    '.I VERB',
    '[\\fIFLAGS\\fR]',
    '.SH DESCRIPTION',
    plain(
      'Garrison reads one desired document, looks at the host, and plans steps that bring the host to what the document asks for. Every step is data: why it is needed, what it may cost, and exactly what would run. garrison apply performs one step at a time and looks again after each.',
    ),
    '.PP',
    plain(
      'The command line is a client of the root side, garrison-operate, which systemd starts when one of its three sockets is opened and which leaves when idle. Where no socket can be opened, verbs that only look run in the client, with the rights of the caller; apply then needs root.',
    ),
    '.SH VERBS',
    ...verbs,
    '.SH FLAGS OF EVERY VERB',
    ...rows(commonFlags, flagText),
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(([code, , meaning]) => ['.TP', bold(String(code)), plain(meaning)]),
    '.SH ENVIRONMENT',
    '.TP',
    bold('NO_COLOR'),
    plain('When set to anything, nothing is coloured. Colours are used only on a terminal.'),
    '.SH FILES',
    ...files.flatMap(([path, what]) => ['.TP', `.I ${plain(path)}`, plain(what)]),
    '.SH SEE ALSO',
    '.BR mdadm (8),',
    '.BR lvm (8),',
    '.BR systemd.socket (5)',
    '',
  ].join('\n')
}

const files = [
  ['/etc/garrison/host.yaml', 'The desired document; garrison schema explains every key.'],
  ['/etc/garrison/host.d/*.yaml', 'Drop-ins, merged over it in the order of their names.'],
  ['/run/garrison/read.sock', 'The door for looking: group garrison-read.'],
  ['/run/garrison/operate.sock', 'The door for applying up to disruptive: group garrison.'],
  ['/run/garrison/admin.sock', 'The door for everything, steps that destroy data too: root.'],
  ['/var/lib/garrison/journal/', 'What was done, by whom and why: garrison journal.'],
] as const
