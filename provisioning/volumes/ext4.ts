// ext4: the argv of mkfs.ext4 and resize2fs (e2fsprogs >= 1.46).

import type { Making } from './observe.ts'

const blockBytes = 4096

/** Makes an ext4, over whatever is there (-F), without discarding blank drives; stride and stripe width are in blocks. */
export const mkfsExt4 = (device: string, { name, uuid, geometry }: Making): [string, ...string[]] => {
  const stride = geometry === null ? 0 : geometry.chunkBytes / blockBytes
  const aligned = geometry === null ? '' : `,stride=${stride},stripe_width=${stride * geometry.dataMembers}`
  return [
    '/usr/sbin/mkfs.ext4',
    '-F',
    '-q',
    ...['-b', String(blockBytes)],
    ...['-E', `nodiscard${aligned}`],
    ...['-U', uuid],
    // A label of ext4 has at most 16 bytes.
    ...['-L', name.slice(0, 16)],
    '--',
    device,
  ]
}

/** Grows the mounted ext4 on `device` to its device. */
export const resize2fs = (device: string): [string, ...string[]] => ['/usr/sbin/resize2fs', '--', device]
