// nftables' nft (>= 1.0): the argv that ask for and load Garrison's own table, and the parser of its JSON (libnftables-json(5)).

import { z } from 'zod'
import { HostError } from '../problem.ts'
import type { Json } from '../resource.ts'
import { type Chain, canonical, type Rule, type Ruleset, table } from './ruleset.ts'

const nft = '/usr/sbin/nft'

/** Asks for the table that is Garrison's own; exits with 1 when there is none. */
export const nftList = (): [string, ...string[]] => [nft, '--json', 'list', 'table', table.family, table.name]

/**
 * Loads a file of commands in one transaction. Not standard input: nft opens /dev/stdin, which is refused (ENXIO) where that is a
 * socket, as it is for what Node starts.
 */
export const nftLoad = (...file: readonly [string] | readonly []): [string, ...string[]] => [
  nft,
  '--json',
  '--file',
  ...file,
]

const listing = z.object({ nftables: z.array(z.record(z.string(), z.unknown())) })
const chainRow = z.object({
  name: z.string(),
  type: z.string().optional(),
  hook: z.string().optional(),
  prio: z.number().optional(),
  policy: z.string().optional(),
})
const ruleRow = z.object({
  chain: z.string(),
  comment: z.string().optional(),
  expr: z.array(z.unknown()),
})

const unexpected = (cause: unknown): HostError =>
  new HostError('host.unexpected-answer', 'nft list table did not answer as libnftables-json(5) says', {
    cause,
  })

/** Parses `nftList()`'s answer. Errors: `host.unexpected-answer`. */
export function parseTable(stdout: string): Ruleset {
  const chains: Chain[] = []
  const rules: Rule[] = []
  const other: string[] = []
  try {
    for (const entry of listing.parse(JSON.parse(stdout)).nftables)
      for (const [kind, fields] of Object.entries(entry)) {
        if (kind === 'chain') {
          const { name, type, hook, prio, policy } = chainRow.parse(fields)
          const based = { type, hook, prio, policy }
          const given = Object.entries(based).filter(([, value]) => value !== undefined)
          chains.push({ name, ...Object.fromEntries(given) })
        } else if (kind === 'rule') {
          const { chain, comment, expr } = ruleRow.parse(fields)
          rules.push(
            canonical({ chain, ...(comment !== undefined && { comment }), expr: expr as readonly Json[] }),
          )
        } else if (kind !== 'metainfo' && kind !== 'table') other.push(kind)
      }
  } catch (cause) {
    throw unexpected(cause)
  }
  return { chains, rules, other }
}
