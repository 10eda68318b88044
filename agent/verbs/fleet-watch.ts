// The verb `fleet watch`: what happens in the fleet, as it happens.

import { count, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import type { MeshEvent } from '../peers/mesh.ts'
import { eventWords } from '../vms/event-words.ts'
import type { DaemonContext } from './daemon-context.ts'
import { summaryOf } from './fleet-words.ts'

/** A line of the watch: what happens; of a report only what has changed of how the host is. */
export type WatchLine =
  | Exclude<MeshEvent, { readonly what: 'report' }>
  | {
      readonly what: 'report'
      readonly host: string
      readonly atMs: number
      readonly generation: number
      readonly health: string | null
      readonly standing: string | null
    }

const mostWaiting = 1024

/** Tells until the caller leaves. One who is too slow misses what happened meanwhile, and is told of each host how it is then. */
export async function* run({ fleet, signal }: DaemonContext): AsyncGenerator<WatchLine> {
  const waiting: WatchLine[] = []
  const said = new Map<string, string>()
  let wake = Promise.withResolvers<void>()
  const stop = fleet.listen((event) => {
    if (waiting.length >= mostWaiting) return
    if (event.what !== 'report') waiting.push(event)
    else {
      const held = fleet.reportOf(event.host)
      if (held === null) return
      const { health, standing } = summaryOf(held.body)
      const now = `${health} ${standing}`
      if (said.get(event.host) === now) return
      said.set(event.host, now)
      waiting.push({ ...event, health, standing })
    }
    wake.resolve()
  })
  const left = () => wake.resolve()
  signal.addEventListener('abort', left)
  try {
    while (!signal.aborted) {
      const next = waiting.shift()
      if (next !== undefined) yield next
      else {
        await wake.promise
        wake = Promise.withResolvers()
      }
    }
  } finally {
    stop()
    signal.removeEventListener('abort', left)
  }
}

const textColumn = 36

function eventText(event: unknown): string {
  const { kind, name, ...told } = event as Readonly<Record<string, unknown>>
  if (typeof kind !== 'string' || typeof name !== 'string') return JSON.stringify(event)
  const [what, detail] = eventWords(kind, told)
  return `${name} ${what}${detail === '' ? '' : ` (${detail})`}`
}

/** A line in words. */
export function render(line: WatchLine, terminal: Terminal): string {
  const label = `${paint(terminal, 'dim', moment(line.atMs))}  ${line.host}`
  switch (line.what) {
    case 'linked':
      return paragraph(label, `seen${line.why === '-' ? '' : ` over ${line.why}`}`, textColumn)
    case 'lost':
      return paragraph(label, paint(terminal, 'bad', `not seen any more: ${line.why}`), textColumn)
    case 'report':
      return paragraph(label, `health ${line.health ?? '?'}, ${line.standing ?? '?'}`, textColumn)
    case 'event': {
      const missed = line.missed === 0 ? '' : ` (and ${count(line.missed, 'event')} before it)`
      return paragraph(label, `${eventText(line.event)}${missed}`, textColumn)
    }
  }
}

/** Whatever happens to hosts, listening ends well. */
export const exitOf = (): null => null
