// Which VMs are meant: by name, UUID, shell-style pattern, tag, or all of them.

import { HostError } from '../../provisioning/problem.ts'
import { notKnown } from '../../provisioning/written.ts'
import { isPattern, matcherOf } from './pattern.ts'

/** What VMs are chosen by. */
export interface Choosable {
  readonly name: string
  readonly uuid: string
  readonly tags: Readonly<Record<string, string>>
}

/** What was asked for: `names` are names, UUIDs or patterns; `tag` holds `KEY=VALUE` or `KEY`; all of them narrow the choice. */
export interface Choice {
  readonly names: readonly string[]
  readonly all: boolean
  readonly tag: readonly string[]
}

const invalid = (verb: string, message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

/** Whether a VM has a tag: `KEY=VALUE`, or `KEY` with whatever value. */
export function hasTag({ tags }: Pick<Choosable, 'tags'>, wanted: string): boolean {
  const at = wanted.indexOf('=')
  const key = at === -1 ? wanted : wanted.slice(0, at)
  return Object.hasOwn(tags, key) && (at === -1 || tags[key] === wanted.slice(at + 1))
}

/** The VM of that name or UUID. A name comes first: a VM may be named like the UUID of another. Throws `request.no-such-vm`. */
export function findVm<V extends Pick<Choosable, 'name' | 'uuid'>>(vms: readonly V[], word: string): V {
  const found = vms.find(({ name }) => name === word) ?? vms.find(({ uuid }) => uuid === word)
  if (found !== undefined) return found
  throw new HostError(
    'request.no-such-vm',
    notKnown(
      'VM',
      word,
      vms.map(({ name }) => name),
    ),
  )
}

/**
 * The VMs that are meant, each once, in the order of `vms`. Throws `request.no-such-vm` when a word or a tag finds none, so that
 * a slip of the pen is found before anything is done, and `request.invalid` when nothing was asked for, or all and some.
 */
export function chooseVms<V extends Choosable>(
  vms: readonly V[],
  { names, all, tag }: Choice,
  verb: string,
): readonly V[] {
  if (all && names.length > 0) throw invalid(verb, `${verb} takes names or --all, not both`)
  if (!all && names.length === 0 && tag.length === 0)
    throw invalid(verb, `${verb} needs VMs: names, patterns such as 'web-*', --tag KEY=VALUE or --all`)
  const meant = new Set<V>()
  for (const word of names) {
    // What is exactly a name is that name, whatever is in it.
    const isName = vms.some(({ name, uuid }) => name === word || uuid === word)
    if (isName || !isPattern(word)) meant.add(findVm(vms, word))
    else {
      const matches = matcherOf(word)
      const found = vms.filter(({ name }) => matches(name))
      if (found.length === 0)
        throw new HostError('request.no-such-vm', `no VM has a name like ${JSON.stringify(word)}`)
      for (const one of found) meant.add(one)
    }
  }
  const chosen = vms.filter(
    (vm) => (names.length === 0 || meant.has(vm)) && tag.every((one) => hasTag(vm, one)),
  )
  if (chosen.length === 0 && tag.length > 0)
    throw new HostError(
      'request.no-such-vm',
      `no VM ${names.length > 0 ? 'of those ' : ''}has the tag ${tag.map((one) => JSON.stringify(one)).join(' and ')}`,
    )
  return chosen
}

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** How long `90s`, `30m`, `2h` or `7d` is, in milliseconds. Throws `request.invalid`, which names the flag. */
export function durationMs(text: string, flag: string, verb: string): number {
  const [, number, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  if (number === undefined || unit === undefined)
    throw invalid(verb, `--${flag} takes a time such as 90s, 30m, 2h or 7d, not ${text}`)
  return Number(number) * (unitMs[unit] ?? 0)
}
