// How healthy / is: room, inodes, and whether it can be written at all.

import { formatBytes } from '../block/bytes.ts'
import type { Finding } from '../resource.ts'
import type { ObservedRoot } from './observe.ts'

/** Per cent of room or inodes left below which / is a warning, and below which it is high. */
const low = { warning: 10, high: 5 } as const

const severityOf = (free: number, all: number): 'warning' | 'high' | null => {
  const percent = (100 * free) / all
  if (percent < low.high) return 'high'
  return percent < low.warning ? 'warning' : null
}

/** Findings `root.small`, `root.inodes`, `root.read-only`. */
export function checkRoot({ room, readOnly, source }: ObservedRoot): readonly Finding[] {
  const findings: Finding[] = []
  if (readOnly)
    findings.push({
      code: 'root.read-only',
      severity: 'high',
      subject: source,
      text: `/ is read-only, so nothing on this host can be changed`,
      remedy:
        'Look for errors of its disk in journalctl -k; a filesystem with errors turns itself read-only.',
    })
  if (room === null) return findings
  const full = room.sizeBytes > 0 ? severityOf(room.freeBytes, room.sizeBytes) : null
  if (full !== null)
    findings.push({
      code: 'root.small',
      severity: full,
      text: `${formatBytes(room.freeBytes)} of ${formatBytes(room.sizeBytes)} are free on /`,
      remedy:
        'Find what fills it (du -xh --max-depth=2 /), or let garrison apply grow / if its disk has room.',
    })
  // Filesystems that make inodes as they need them (btrfs) say that they have none.
  const inodes = room.inodes > 0 ? severityOf(room.freeInodes, room.inodes) : null
  if (inodes !== null)
    findings.push({
      code: 'root.inodes',
      severity: inodes,
      text: `${room.freeInodes} of ${room.inodes} inodes are free on /`,
      remedy: 'Find the folder with very many files (du -x --inodes --max-depth=3 / | sort -n).',
    })
  return findings
}
