// What AWS announces for the instance: the metadata's events, asked for on a beat of their own, and what is found in them.

import type { InstanceEvents, MaintenanceEvent } from '../../provisioning/instance.ts'
import type { Severity } from '../../provisioning/resource.ts'
import type { Clock } from './clock.ts'
import type { FindingCode } from './findings.ts'
import { type Seen, seenLater } from './seen.ts'
import type { Condition } from './standing-findings.ts'

/** What was announced when it was asked for last; the value is null on a host that is no instance. */
export type SeenNotices = Seen<InstanceEvents | null> & { readonly atMs: number }

/** How notices are asked for. */
export interface NoticesOptions {
  /** Null on a host that is no instance. Throws a HostError. */
  readonly ask: () => Promise<InstanceEvents | null>
  readonly clock: Clock
}

/** Asks what AWS announces. */
export class Notices {
  readonly #options: NoticesOptions
  #seen: SeenNotices | null = null
  #text = ''
  #isAsking = false

  constructor(options: NoticesOptions) {
    this.#options = options
  }

  /** What was announced last; null before the first answer. */
  get seen(): SeenNotices | null {
    return this.#seen
  }

  /** Asks; answers whether what is announced has changed. Answers false while an answer is still owed. */
  async look(): Promise<boolean> {
    if (this.#isAsking) return false
    this.#isAsking = true
    try {
      const seen = await seenLater(this.#options.ask)
      this.#seen = { ...seen, atMs: this.#options.clock.epochMs() }
      // Not being told is no news.
      if ('problem' in seen) return false
      const text = JSON.stringify(seen.value)
      const isNew = text !== this.#text
      this.#text = text
      return isNew
    } finally {
      this.#isAsking = false
    }
  }
}

const [minute, hour, day] = [60_000, 3_600_000, 86_400_000]

/** How long it is until then, in words that do not change with every look. */
function timeLeft(atMs: number | null, nowMs: number): string {
  if (atMs === null) return 'at a time that is not told'
  const date = `${new Date(atMs).toISOString().slice(0, 16).replace('T', ' ')} UTC`
  const leftMs = atMs - nowMs
  if (leftMs <= 0) return `since ${date}`
  const left =
    leftMs >= 2 * day
      ? `${Math.floor(leftMs / day)} days`
      : leftMs >= 2 * hour
        ? `${Math.floor(leftMs / hour)} h`
        : `${Math.ceil(leftMs / minute)} min`
  return `at ${date}, in ${left}`
}

/** What each event of maintenance is found as. One that is not known is told all the same. */
const maintenanceOf: Readonly<
  Record<string, { readonly code: FindingCode; readonly severity: Severity; readonly says: string }>
> = {
  'instance-retirement': {
    code: 'ec2.retirement',
    severity: 'high',
    says: 'AWS ends this instance, and what is on its own drives is gone',
  },
  'instance-stop': {
    code: 'ec2.retirement',
    severity: 'high',
    says: 'AWS stops this instance, and what is on its own drives is gone',
  },
  'instance-reboot': {
    code: 'ec2.maintenance',
    severity: 'warning',
    says: 'AWS reboots this instance, and VMs go down with it',
  },
  'system-reboot': {
    code: 'ec2.maintenance',
    severity: 'warning',
    says: 'AWS reboots the machine of this instance, and VMs go down with it',
  },
  'system-maintenance': {
    code: 'ec2.maintenance',
    severity: 'warning',
    says: 'AWS maintains the network or power of this machine',
  },
}

function maintenance(event: MaintenanceEvent, nowMs: number): readonly Condition[] {
  const { active, id, code: kind, description, notBeforeMs } = event
  if (!active) return []
  const { code, severity, says } = maintenanceOf[kind] ?? {
    code: 'ec2.maintenance',
    severity: 'warning',
    says: `AWS announces ${kind} (${description})`,
  }
  // What takes the VMs down within a day is as grave as it gets, however AWS calls it.
  const isSoon = notBeforeMs !== null && notBeforeMs - nowMs < day && kind.endsWith('reboot')
  const text = `${says} ${timeLeft(notBeforeMs, nowMs)}`
  return [{ code, severity: isSoon ? 'high' : severity, ...(id !== '' && { subject: id }), text }]
}

/** What is found in what AWS announces. */
export function noticed(events: InstanceEvents, nowMs: number): readonly Condition[] {
  const { spot, rebalance, lifecycle } = events
  return [
    ...events.maintenance.flatMap((event) => maintenance(event, nowMs)),
    ...(spot === null
      ? []
      : [
          {
            code: 'ec2.spot-interruption',
            severity: 'high',
            text: `AWS takes this instance back (${spot.action}) ${timeLeft(spot.atMs, nowMs)}`,
          } as const,
        ]),
    ...(rebalance === null
      ? []
      : [
          {
            code: 'ec2.rebalance',
            severity: 'warning',
            text: 'AWS says that an interruption of this instance has become likely',
          } as const,
        ]),
    ...(lifecycle?.startsWith('Terminated')
      ? [
          {
            code: 'ec2.lifecycle',
            severity: 'high',
            text: 'the Auto Scaling group of this instance is ending it',
          } as const,
        ]
      : []),
  ]
}
