// Which backups may go: by count and by age, and never one that another stands on, nor the last that is sound.

import { type Manifest, neededBy, soundBackups } from './manifest.ts'

/** What is kept: so many of the newest, and all that are younger. What either keeps is kept; without both, all are. */
export interface Retention {
  readonly count: number | null
  readonly ageMs: number | null
}

/** The ids of backups that may go, the oldest first. */
export function expired(
  manifest: Pick<Manifest, 'backups'>,
  { count, ageMs }: Retention,
  nowMs: number,
): readonly string[] {
  if (count === null && ageMs === null) return []
  const sound = soundBackups(manifest)
  const wanted = [
    ...sound.slice(-Math.max(1, count ?? 0)),
    ...sound.filter(({ atMs }) => ageMs !== null && nowMs - atMs < ageMs),
  ]
  const kept = new Set(wanted.flatMap(({ id }) => [...neededBy(manifest, id)]))
  return manifest.backups.flatMap(({ id }) => (kept.has(id) ? [] : id))
}
