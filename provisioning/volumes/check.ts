// Judges the health of the volumes, and says in one line what there is.

import { formatBytes } from '../block/bytes.ts'
import type { Desired } from '../desired.ts'
import type { Finding } from '../resource.ts'
import { copiedTag, type ObservedVolumes, stagePath, unformattedTag } from './observe.ts'

/** Per cent free below which room is a finding, of bytes and of inodes. */
const scarcePercent = 15
const criticalPercent = 5

const scarcity = (free: number, total: number): 'high' | 'warning' | null => {
  const percent = (100 * free) / total
  return percent < criticalPercent ? 'high' : percent < scarcePercent ? 'warning' : null
}

function checkVolume(volume: ObservedVolumes['volumes'][number], group: string): readonly Finding[] {
  const { name, logical, mountpoints, place } = volume
  if (logical === null || place === null) return []
  const findings: Finding[] = []
  const found = (code: string, severity: Finding['severity'], text: string, remedy: string): void => {
    findings.push({ code, severity, subject: name, text, remedy })
  }
  const { path, occupant, capacity, unit, enabled } = place
  const unfinished = logical.tags.some((tag) => tag === unformattedTag || tag === copiedTag)
  if (enabled && !occupant?.ours && !unfinished)
    found(
      'volumes.not-mounted',
      'high',
      `${name} is not mounted at ${path}`,
      `See systemctl status -- '${unit.name}' for why; garrison plan says what would mount it.`,
    )
  if (occupant?.ours && occupant.readOnly)
    found(
      'volumes.read-only',
      'high',
      `${name} at ${path} is mounted read-only, as after an error of its filesystem`,
      'Look for the error in journalctl -k; save what is on it before you repair it.',
    )
  if (capacity !== null && capacity.sizeBytes > 0) {
    const severity = scarcity(capacity.freeBytes, capacity.sizeBytes)
    if (severity !== null)
      found(
        'volumes.space',
        severity,
        `${name} at ${path} has ${formatBytes(capacity.freeBytes)} of ${formatBytes(capacity.sizeBytes)} left`,
        `Remove what is not needed, or raise its share or size in the document (group ${group}).`,
      )
  }
  // btrfs and some others count no inodes.
  if (capacity !== null && capacity.inodes > 0) {
    const severity = scarcity(capacity.freeInodes, capacity.inodes)
    if (severity !== null)
      found(
        'volumes.inodes',
        severity,
        `${name} at ${path} has ${capacity.freeInodes} of ${capacity.inodes} inodes left`,
        'Remove small files that are not needed; a larger volume has more inodes.',
      )
  }
  const others = mountpoints.filter((mountpoint) => mountpoint !== path && mountpoint !== stagePath(name))
  if (others.length > 0)
    found(
      'volumes.not-declared',
      'notice',
      `${name} is mounted at ${others.join(', ')} too, which the document does not say`,
      'Unmount it there and remove its unit or fstab line, or leave it: Garrison removes no mount.',
    )
  return findings
}

/** Judges the volumes. Pure. */
export function check({ groupName, groups, volumes, undeclared, lost }: ObservedVolumes): readonly Finding[] {
  const missing = groups.flatMap((group) =>
    group.physical.flatMap(({ uuid, device }) =>
      device === null
        ? [
            {
              code: 'volumes.missing-pv',
              severity: 'high',
              subject: group.name,
              text: `physical volume ${uuid} of volume group ${group.name} is missing`,
              remedy: 'See garrison drives and garrison why array: its array is not assembled or lost.',
            } as const,
          ]
        : [],
    ),
  )
  return [
    ...missing,
    ...(lost.length === 0
      ? []
      : [
          {
            code: 'volumes.lost',
            severity: 'high',
            ...(groupName !== null && { subject: groupName }),
            text: `volume group ${groupName} is gone, and with it ${lost.join(', ')}`,
            remedy:
              'See garrison why array for what became of its drives; restore what was on them from a backup.',
          } as const,
        ]),
    ...volumes.flatMap((volume) => checkVolume(volume, groupName ?? '')),
    ...undeclared.map(
      (name) =>
        ({
          code: 'volumes.not-declared',
          severity: 'notice',
          subject: name,
          text: `${groupName}/${name} is not in the document`,
          remedy: 'Declare it under volumes.logical, or leave it: Garrison removes no volume.',
        }) as const,
    ),
  ]
}

const widest = 60

/** What there is, in at most 60 columns. */
export function describe(
  { groupName, groups, volumes, lost }: ObservedVolumes,
  { volumes: wanted }: Pick<Desired, 'volumes'>,
): string {
  const line = (): string => {
    if (groupName === null)
      return groups.length === 0
        ? 'not declared'
        : `not declared; ${groups.map(({ name }) => name).join(', ')}`
    if (lost.length > 0) return `lost: ${lost.join(', ')}`
    if (groups.length === 0) return `no volume group ${groupName} yet`
    const places = volumes.flatMap(({ place }) => (place === null ? [] : [place]))
    const mounted = places.filter(({ occupant }) => occupant?.ours)
    const raw = volumes.filter(({ place, logical }) => place === null && logical !== null).length
    const total = (pick: 'sizeBytes' | 'freeBytes'): number =>
      mounted.reduce((sum, { capacity }) => sum + (capacity?.[pick] ?? 0), 0)
    const size = total('sizeBytes')
    return [
      mounted.length === places.length
        ? `${mounted.length} mounted`
        : `${mounted.length} of ${places.length} mounted`,
      ...(size > 0 ? [`${Math.round((100 * (size - total('freeBytes'))) / size)} % used`] : []),
      ...(raw > 0 ? [`${raw} raw`] : []),
      ...(Object.keys(wanted?.logical ?? {}).length === 0 ? ['none declared'] : []),
    ].join(', ')
  }
  const whole = line()
  return whole.length <= widest ? whole : `${whole.slice(0, widest - 1)}…`
}
