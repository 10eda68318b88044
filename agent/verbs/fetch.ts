// The verb `fetch`: one fetch action from standard input, performed in this process.

import { readFileSync } from 'node:fs'
import type { Action } from '../../provisioning/resource.ts'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { fetchFile } from '../host/fetch.ts'

/** The answer of `fetch`. */
export interface Fetched {
  readonly path: string
}

/** Fetches what the action says to PATH. Throws what `fetchFile` throws. */
export async function run({ path }: Args<'fetch'>): Promise<Fetched> {
  const action = JSON.parse(readFileSync(0, 'utf8')) as Extract<Action, { kind: 'fetch' }>
  await fetchFile({ ...action, path })
  return { path }
}

/** The answer in words. */
export const render = ({ path }: Fetched): string => paragraph('', `${path} is there.`, 0)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
