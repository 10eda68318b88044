// The devices of a mounted btrfs and what it uses of each: `btrfs filesystem show --raw` (btrfs-progs >= 5).

import { HostError } from '../problem.ts'

/** Asks for the devices of the filesystem at a mountpoint; needs root. `tool` is the path of btrfs, which distributions place apart. */
export const btrfsFilesystemShow = (tool: string, mountpoint: string): [string, ...string[]] => [
  tool,
  'filesystem',
  'show',
  '--raw',
  '--',
  mountpoint,
]

/** One device of a btrfs. `sizeBytes` is how much of it the filesystem spans. */
export interface BtrfsDevice {
  readonly id: number
  readonly path: string
  readonly sizeBytes: number
}

/** Parses the answer; a missing device is an error, for its size is not known. Errors: `host.unexpected-answer`. */
export function parseBtrfsFilesystemShow(stdout: string): readonly BtrfsDevice[] {
  const total = Number(/Total devices (\d+)/.exec(stdout)?.[1])
  const devices = [...stdout.matchAll(/^\s*devid\s+(\d+) size (\d+) used \d+ path (\/\S+)/gm)].map(
    ([, id, size, path = '']) => ({ id: Number(id), path, sizeBytes: Number(size) }),
  )
  if (devices.length === 0 || devices.length !== total)
    throw new HostError(
      'host.unexpected-answer',
      `btrfs filesystem show named ${devices.length} of ${total} devices`,
    )
  return devices
}
