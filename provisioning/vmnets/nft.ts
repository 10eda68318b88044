// The nftables table of the VMs' traffic: nft's language as it is written, and its JSON as it is read (nft 0.9.8 and later).

import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Answer } from '../host.ts'
import { HostError } from '../problem.ts'

/** The table. No other is touched, and nobody else has a reason to touch this one. */
export const tableName = 'garrison_vms'

/** The family of a table: packets of either IP, or frames on a bridge. */
export type TableFamily = 'inet' | 'bridge'

/** Asks for the table. */
export const nftTable = (family: TableFamily): [string, ...string[]] => [
  '/usr/sbin/nft',
  '--json',
  'list',
  'table',
  family,
  tableName,
]

/** One rule. `id` says what it is for and is stable: `default.elsewhere`; `text` is nft's language without counter and comment. */
export interface Rule {
  readonly id: string
  readonly match: string
  readonly verdict: string
}

/** One chain; with a `hook` packets come to it by themselves, else from another. */
export interface Chain {
  readonly name: string
  readonly hook: null | {
    readonly type: 'filter' | 'nat'
    readonly at: 'prerouting' | 'input' | 'forward' | 'postrouting'
    readonly priority: number
  }
  readonly rules: readonly Rule[]
}

/** What a rule is known by: its id, and a digest of what it says. Versions of nft print the same rule in different words. */
export const commentOf = ({ id, match, verdict }: Rule): string =>
  `${id} ${createHash('sha256').update(`${match}\0${verdict}`).digest('hex').slice(0, 8)}`

const ruleText = (rule: Rule): string =>
  `    ${[rule.match, 'counter', rule.verdict, `comment "${commentOf(rule)}"`].filter((part) => part !== '').join(' ')}`

/** The whole table as a script that puts it in the place of the one that is there, at once and wholly or not at all; without chains none. */
export function nftScript(chains: readonly Chain[], family: TableFamily = 'inet'): string {
  const body = chains.flatMap(({ name, hook, rules }) => [
    `  chain ${name} {`,
    ...(hook === null
      ? []
      : [`    type ${hook.type} hook ${hook.at} priority ${hook.priority}; policy accept;`]),
    ...rules.map(ruleText),
    '  }',
  ])
  return [
    `table ${family} ${tableName}`,
    `delete table ${family} ${tableName}`,
    ...(chains.length === 0 ? [] : [`table ${family} ${tableName} {`, ...body, '}']),
    '',
  ].join('\n')
}

/** A rule as it is there: its comment, and what it has counted. */
export interface ObservedRule {
  readonly comment: string
  readonly packets: number
  readonly bytes: number
}

/** A chain as it is there. */
export interface ObservedChain {
  readonly name: string
  readonly hook: string
  readonly rules: readonly ObservedRule[]
}

const hookText = (type: string, at: string, priority: number, policy: string): string =>
  `${type} ${at} ${priority} ${policy}`

const counter = z.object({ packets: z.number(), bytes: z.number() })
const listing = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          name: z.string(),
          type: z.string().default(''),
          hook: z.string().default(''),
          prio: z.number().default(0),
          policy: z.string().default(''),
        })
        .optional(),
      rule: z
        .object({
          chain: z.string(),
          comment: z.string().default(''),
          expr: z.array(z.looseObject({ counter: counter.nullish().catch(null) })).default([]),
        })
        .optional(),
    }),
  ),
})

/** Parses the answer to `nftTable()`; null when there is no such table. Errors: `host.unexpected-answer`. */
export function parseTable({ exit, stdout, stderr }: Answer): readonly ObservedChain[] | null {
  if (exit !== 0 && /No such file or directory/.test(stderr)) return null
  if (exit !== 0)
    throw new HostError(
      'host.unexpected-answer',
      `nft ended with ${exit}: ${stderr.trim().split('\n').at(-1)}`,
    )
  try {
    const { nftables } = listing.parse(JSON.parse(stdout))
    const rules = nftables.flatMap(({ rule }) => rule ?? [])
    return nftables
      .flatMap(({ chain }) => chain ?? [])
      .map(({ name, type, hook, prio, policy }) => ({
        name,
        hook: hook === '' ? '' : hookText(type, hook, prio, policy),
        rules: rules
          .filter((rule) => rule.chain === name)
          .map(({ comment, expr }) => {
            const counted = expr.flatMap((one) => one.counter ?? [])[0]
            return { comment, packets: counted?.packets ?? 0, bytes: counted?.bytes ?? 0 }
          }),
      }))
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'nft told the table in a form that is not known', { cause })
  }
}

/** What a chain is and says, to be compared. */
const said = (name: string, hook: string, comments: readonly string[]): string =>
  JSON.stringify([name, hook, ...comments])

const saidBy = (observed: readonly ObservedChain[] | null): string =>
  (observed ?? [])
    .map(({ name, hook, rules }) =>
      said(
        name,
        hook,
        rules.map(({ comment }) => comment),
      ),
    )
    .toSorted()
    .join()

/** Whether the table that is there says what is wanted. */
export function sameTable(observed: readonly ObservedChain[] | null, wanted: readonly Chain[]): boolean {
  const meant = wanted.map(({ name, hook, rules }) =>
    said(
      name,
      hook === null ? '' : hookText(hook.type, hook.at, hook.priority, 'accept'),
      rules.map(commentOf),
    ),
  )
  return saidBy(observed) === meant.toSorted().join()
}

const writtenChain =
  /^ {2}chain (\S+) \{\n(?: {4}type (\w+) hook (\w+) priority (-?\d+); policy accept;\n)?(.*?)^ {2}\}/gms

/** Whether the table that is there says what a script does that `nftScript` has written. */
export function isOfScript(
  observed: readonly ObservedChain[] | null,
  script: string,
  family: TableFamily,
): boolean {
  const [, body = ''] = new RegExp(`^table ${family} ${tableName} \\{\n(.*?)^\\}`, 'ms').exec(script) ?? []
  const written = [...body.matchAll(writtenChain)].map(([, name = '', type, at = '', priority, rules = '']) =>
    said(
      name,
      type === undefined ? '' : hookText(type, at, Number(priority), 'accept'),
      [...rules.matchAll(/ comment "([^"]*)"$/gm)].map(([, comment = '']) => comment),
    ),
  )
  return saidBy(observed) === written.toSorted().join()
}
