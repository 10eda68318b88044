// Mounts as the kernel lists them in /proc/PID/mountinfo (proc(5)).

/** One mount. `number` is the device's major:minor; `root` is the part of it that is mounted (`/` unless a bind or subvolume). */
export interface Mount {
  readonly number: string
  readonly root: string
  readonly mountpoint: string
  readonly options: readonly string[]
  readonly fsType: string
  readonly source: string
  readonly superOptions: readonly string[]
}

const unescapeOctal = (field: string): string =>
  field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** Parses mountinfo; a line that is torn is left out, for the file is read while it changes. */
export function parseMountinfo(mountinfo: string): readonly Mount[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ')
    const [, , number, root, mountpoint, options] = before.split(' ')
    const [fsType, source, superOptions] = after.split(' ')
    if (!number || !root || !mountpoint || !options || !fsType || source === undefined) return []
    return {
      number,
      root: unescapeOctal(root),
      mountpoint: unescapeOctal(mountpoint),
      options: options.split(','),
      fsType,
      source: unescapeOctal(source),
      superOptions: (superOptions ?? '').split(','),
    }
  })
}

/** The mount that a path is reached through at its own mountpoint: the last one mounted there, or undefined. */
export const mountAt = (mounts: readonly Mount[], mountpoint: string): Mount | undefined =>
  mounts.findLast((mount) => mount.mountpoint === mountpoint)
