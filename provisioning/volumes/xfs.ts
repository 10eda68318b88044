// xfs: the argv of mkfs.xfs and xfs_growfs (xfsprogs >= 5).

import type { Geometry } from './observe.ts'

/** The smallest volume that mkfs.xfs takes since xfsprogs 5.19. */
export const smallestXfsBytes = 300 * 2 ** 20

/**
 * Makes an xfs, over whatever is there. Stripe unit and width are given, because through LVM mkfs.xfs sees them only as hints. Its log
 * takes 8 blocks as stripe unit, since the log's own limit of 256 KiB is below the default chunk. -K: no discard of blank drives.
 */
export const mkfsXfs = (
  device: string,
  { name, uuid, geometry }: { name: string; uuid: string; geometry: Geometry | null },
): [string, ...string[]] => [
  '/usr/sbin/mkfs.xfs',
  '-f',
  '-K',
  ...['-m', `uuid=${uuid}`],
  // A label of xfs has at most 12 bytes.
  ...['-L', name.slice(0, 12)],
  ...(geometry === null
    ? []
    : ['-d', `su=${geometry.chunkBytes / 1024}k,sw=${geometry.dataMembers}`, '-l', 'su=8b']),
  '--',
  device,
]

/** Grows the xfs mounted at `mountpoint` to its device. */
export const xfsGrowfs = (mountpoint: string): [string, ...string[]] => [
  '/usr/sbin/xfs_growfs',
  '-d',
  '--',
  mountpoint,
]
