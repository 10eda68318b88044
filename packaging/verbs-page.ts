// The page of the verbs, from their table; pages.ts writes it.

import { commonFlags } from '../agent/api/arguments.ts'
import { exitCodes, flagText, shownVerbs, usageOf } from '../agent/api/help.ts'
import type { Field } from '../agent/api/verbs.ts'

const rows = (fields: Readonly<Record<string, Field>>, label: (name: string, field: Field) => string) =>
  Object.entries(fields).map(([name, field]) => `- \`${label(name, field)}\`: ${field.brief}.`)

const doorText = {
  local: 'Runs in the client.',
  read: 'Needs `read.sock`, or runs in the client where there is no root side.',
  operate: 'Needs `operate.sock`, or root where there is no root side.',
  admin: 'Needs `admin.sock`.',
} as const

/** The page as Markdown. */
export function verbsPage(): string {
  const verbs = shownVerbs().flatMap(([name, verb]) => [
    `## garrison ${name}`,
    '',
    `    ${usageOf(name, verb)}`,
    '',
    verb.help,
    '',
    doorText[verb.door],
    '',
    ...rows(verb.operands, (_, field) => (field.kind === 'switch' ? '' : field.placeholder)),
    ...rows(verb.flags, flagText),
    ...(Object.keys({ ...verb.operands, ...verb.flags }).length > 0 ? [''] : []),
    ...verb.examples.flatMap(([command, does]) => [`    ${command}`, `        ${does}`]),
    '',
    verb.streams
      ? `\`--json\`: one object per line, each with \`schema: "${verb.schema}"\`.`
      : '`--json`: one object.',
    '',
    '| field | meaning |',
    '|---|---|',
    ...Object.entries(verb.json).map(([field, meaning]) => `| \`${field}\` | ${meaning} |`),
    '',
  ])
  return [
    '# The verbs',
    '',
    'Every verb has these flags:',
    '',
    ...rows(commonFlags, flagText),
    '',
    'and ends with one of these codes:',
    '',
    '| code | meaning |',
    '|---|---|',
    ...exitCodes.map(([code, , meaning]) => `| ${code} | ${meaning} |`),
    '',
    'An error is three parts on standard error: its code and what happened to what, whether anything was changed, and what to do',
    'next. With `--json` it is one object on standard output: `schema: "garrison/problem/1"`, `code`, `message`, `remedy`, `retry`',
    '(whether the same may work later by itself) and `details`. Every code is explained in [errors.md](../errors.md).',
    '',
    ...verbs,
    '## Over a socket',
    '',
    'Each served verb is one HTTP request to a unix socket in `/run/garrison`: `POST /v1/VERB` with its operands and flags as one',
    'JSON object. A verb that streams answers with NDJSON (`application/x-ndjson`), every other with one object; both are the same',
    'as with `--json`. The exit code is in the header `garrison-exit`. Closing the connection of an apply ends it after the step in',
    'hand. The socket alone decides what may be asked: `read.sock` (group `garrison-read`) looks, `operate.sock` (group `garrison`)',
    'applies up to disruptive steps, `admin.sock` (root) does everything.',
    '',
    '    curl --unix-socket /run/garrison/read.sock -X POST http://garrison/v1/status -d \'{"fresh":true}\'',
    '',
    'This page is made by `npm run pages`.',
    '',
  ].join('\n')
}
