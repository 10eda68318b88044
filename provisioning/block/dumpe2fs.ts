// The size of an ext4 filesystem as its superblock has it: `dumpe2fs -h` (e2fsprogs >= 1.46).

import { HostError } from '../problem.ts'

/** Asks for the superblock of a device. Needs root, for it reads the device. */
export const dumpe2fs = (device: string): [string, ...string[]] => ['/usr/sbin/dumpe2fs', '-h', '--', device]

/** Bytes that the filesystem spans; statfs leaves its own tables out. Errors: `host.unexpected-answer`. */
export function parseDumpe2fs(stdout: string): number {
  const value = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)$`, 'm').exec(stdout)?.[1])
  const sizeBytes = value('Block count') * value('Block size')
  if (Number.isNaN(sizeBytes))
    throw new HostError('host.unexpected-answer', 'dumpe2fs named no block count and block size')
  return sizeBytes
}
