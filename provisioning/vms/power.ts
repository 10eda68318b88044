// What libvirt's numbers for the state of a domain and its reason mean (virDomainState, virDomainRunningReason, …).

import type { DomainFacts } from '../host.ts'

/** What a VM does, in the words of the document; `unknown` is what nobody can tell, and never off. */
export type Power = DomainFacts['power'] | 'unknown'

const words = (text: string): readonly string[] => text.split(', ')

const known: readonly (readonly [Power, readonly string[]])[] = [
  ['unknown', ['']],
  [
    'running',
    words(
      'unknown, booted, migrated, restored, from snapshot, unpaused, migration canceled, save canceled, event wakeup, crashed, post-copy, post-copy failed',
    ),
  ],
  ['blocked', ['unknown']],
  [
    'paused',
    words(
      'unknown, user, migrating, saving, dumping, I/O error, watchdog, from snapshot, shutting down, creating snapshot, crashed, starting up, post-copy, post-copy failed, API error',
    ),
  ],
  ['shutting-down', words('unknown, user')],
  ['off', words('unknown, shutdown, destroyed, crashed, migrated, saved, failed, from snapshot, daemon')],
  ['crashed', words('unknown, panicked')],
  ['suspended', ['unknown']],
]

/** Every word for what a VM does. */
export const powers: readonly Power[] = known.map(([power]) => power)

/** What libvirt's two numbers say in words; a number that is not known makes it `unknown`. */
export function powerOf({ state, reason }: { readonly state: number; readonly reason: number }): {
  readonly power: Power
  readonly reason: string
} {
  const [power, reasons] = known[state] ?? ['unknown' as const, []]
  return { power, reason: reasons[reason] ?? `reason ${reason}` }
}
