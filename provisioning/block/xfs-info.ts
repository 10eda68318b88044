// The size of a mounted xfs as the kernel has it: `xfs_info MOUNTPOINT` (xfsprogs >= 5).

import { HostError } from '../problem.ts'

/** Asks for the geometry of a mounted filesystem; anybody may. */
export const xfsInfo = (mountpoint: string): [string, ...string[]] => ['/usr/sbin/xfs_info', mountpoint]

/** Bytes of the data section, which is what grows with the device. Errors: `host.unexpected-answer`. */
export function parseXfsInfo(stdout: string): number {
  const [, blockBytes, blocks] = /^data\s+=\s+bsize=(\d+)\s+blocks=(\d+)/m.exec(stdout) ?? []
  if (blockBytes === undefined || blocks === undefined)
    throw new HostError('host.unexpected-answer', 'xfs_info named no data blocks')
  return Number(blockBytes) * Number(blocks)
}
