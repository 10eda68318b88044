// The verb `instance`: what the instance metadata tell of this host, and what AWS announces for it.

import type { InstanceEvents, InstanceFacts, MaintenanceEvent } from '../../provisioning/instance.ts'
import type { Context } from '../api/context.ts'
import { moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `instance`. Both are null on a host that is no EC2 instance. */
export interface ShownInstance {
  readonly atMs: number
  readonly instance: InstanceFacts | null
  readonly events: InstanceEvents | null
}

/** Asks the metadata. Throws `imds.…` when they are there and do not answer as they should. */
export async function run({ reader, clock }: Context): Promise<ShownInstance> {
  const instance = await reader.instance()
  return { atMs: clock(), instance, events: instance === null ? null : await reader.instanceEvents() }
}

const column = 14

/** What an event ends, so that nobody has to look it up at night. */
const meanings: Readonly<Record<string, string>> = {
  'instance-retirement':
    'The instance is ended then, and with it everything on its own drives. Move what is to be kept.',
  'instance-stop': 'The instance is stopped then; what is on its own drives is gone at the next start.',
  'instance-reboot': 'The instance is rebooted then; VMs go down with it.',
  'system-reboot': 'The machine under the instance is rebooted then; VMs go down with it.',
  'system-maintenance': 'Network or power of the machine may be away for a moment.',
}

const when = (ms: number | null): string => (ms === null ? 'at a time that is not told' : moment(ms))

function announced({ active, code, description, id, notBeforeMs, notAfterMs }: MaintenanceEvent) {
  const until = notAfterMs === null ? '' : `, until ${moment(notAfterMs)}`
  const meaning = active ? (meanings[code] ?? '') : 'Over or cancelled.'
  return { active, text: `${code} ${when(notBeforeMs)}${until}: ${description} (${id}) ${meaning}`.trimEnd() }
}

/** The answer in words. */
export function render({ instance, events }: ShownInstance, terminal: Terminal): string {
  if (instance === null)
    return paragraph('', 'There are no instance metadata here: this host is no EC2 instance.', 0)
  const { instanceId, region, zone, outpostArn, interfaces } = instance
  const row = (label: string, text: string): string => paragraph(`  ${label}`, text, column)
  const { maintenance = [], spot = null, rebalance = null, lifecycle = null } = events ?? {}
  const ends = lifecycle?.startsWith('Terminat')
  const coming = [
    ...maintenance.map(announced),
    ...(spot === null
      ? []
      : [{ active: true, text: `spot ${spot.action} ${when(spot.atMs)}: AWS takes the instance back.` }]),
    ...(rebalance === null
      ? []
      : [
          {
            active: true,
            text: `rebalance, noticed ${when(rebalance.noticedMs)}: an interruption is likely.`,
          },
        ]),
    ...(ends ? [{ active: true, text: `its Auto Scaling group wants it to be ${lifecycle}.` }] : []),
  ]
  return [
    paint(terminal, 'strong', instanceId),
    row('region', `${region}, zone ${zone}`),
    row('outpost', outpostArn ?? 'none told'),
    ...interfaces.map(({ mac, deviceNumber, interfaceId, subnetId }) =>
      row('interface', `${mac}  index ${deviceNumber ?? '-'}  ${interfaceId ?? '-'}  ${subnetId ?? '-'}`),
    ),
    ...(lifecycle === null ? [] : [row('lifecycle', lifecycle)]),
    ...(coming.length === 0 ? [row('events', 'none announced')] : []),
    ...coming.map(({ active, text }) => row(active ? paint(terminal, 'bad', 'EVENT') : 'event', text)),
  ].join('\n')
}

/** Always 0: what is announced is no fault of the host. */
export const exitOf = (): Exit => EXIT.done
