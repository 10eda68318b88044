// xfs: the argv of mkfs.xfs and xfs_growfs (xfsprogs >= 5).

import type { Making } from './observe.ts'

/** The smallest volume that mkfs.xfs takes since xfsprogs 5.19. */
export const smallestXfsBytes = 300 * 2 ** 20

/** With stripes, mkfs.xfs makes at least 8 allocation groups, and in a smaller volume none of them holds the log. */
const smallestStripedBytes = 2 ** 30

/**
 * Makes an xfs, over whatever is there. Stripe unit and width are given, though mkfs.xfs sees them through LVM as well: what the
 * array has is known, what the queue limits of a stack say is a hint. The log takes 8 blocks as stripe unit, since its own
 * limit of 256 KiB is below the default chunk. -K: no discard of blank drives.
 */
export const mkfsXfs = (
  device: string,
  { name, uuid, geometry, sizeBytes }: Making,
): [string, ...string[]] => [
  '/usr/sbin/mkfs.xfs',
  '-f',
  '-K',
  ...['-m', `uuid=${uuid}`],
  // A label of xfs has at most 12 bytes.
  ...['-L', name.slice(0, 12)],
  ...(geometry === null || sizeBytes < smallestStripedBytes
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
