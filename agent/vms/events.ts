// What happens to VMs as libvirt tells it, as one stream; what was missed is told too.

import type { Connection, Subscription } from '../node-libvirt/index.ts'
import { eventKinds, eventWords, type Told } from './event-words.ts'

/** One thing that happened, at the time at which it was heard of (libvirt tells none), or that some may have been missed. */
export type VmEvent =
  | {
      readonly event: string
      readonly atMs: number
      readonly vm: string
      readonly uuid: string
      readonly what: string
      readonly detail: string
    }
  | { readonly event: 'missed'; readonly atMs: number; readonly why: string }

/** How many wait for a slow reader before some are dropped. */
const mostWaiting = 10_000

type Kind = Parameters<Connection['connectDomainEventRegisterAny']>[0]

/**
 * Everything that happens to the VMs that `isMeant` from now on, until `signal` aborts. Throws `libvirt.unreachable` when that
 * cannot be asked for; afterwards it outlives libvirt.
 */
export async function* vmEvents(
  libvirt: Connection,
  isMeant: (vm: { readonly name: string; readonly uuid: string }) => boolean,
  clock: () => number,
  signal: AbortSignal,
): AsyncGenerator<VmEvent> {
  const waiting: VmEvent[] = []
  let more = Promise.withResolvers<void>()
  const tell = (event: VmEvent) => {
    if (waiting.length < mostWaiting) waiting.push(event)
    else waiting[mostWaiting] = { event: 'missed', atMs: clock(), why: 'too many at once' }
    more.resolve()
  }
  const hear =
    (kind: string) => (told: Told & { readonly dom: { readonly name: string; readonly uuid: string } }) => {
      const { name, uuid } = told.dom
      if (!isMeant({ name, uuid })) return
      const [what, detail] = eventWords(kind, told)
      tell({ event: kind, atMs: clock(), vm: name, uuid, what, detail })
    }
  const lost = (error: Error) => tell({ event: 'missed', atMs: clock(), why: error.message })
  const stop = () => more.resolve()
  const subscriptions: Subscription[] = []
  signal.addEventListener('abort', stop)
  libvirt.on('disconnected', lost)
  try {
    for (const kind of eventKinds)
      subscriptions.push(await libvirt.connectDomainEventRegisterAny(kind as Kind, hear(kind) as never))
    while (!signal.aborted) {
      const event = waiting.shift()
      if (event !== undefined) yield event
      else {
        await more.promise
        more = Promise.withResolvers<void>()
      }
    }
  } finally {
    signal.removeEventListener('abort', stop)
    libvirt.off('disconnected', lost)
    await Promise.allSettled(subscriptions.map((one) => one.deregister()))
  }
}
