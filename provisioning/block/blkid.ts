// What blkid (util-linux) makes of a device when it probes the device itself instead of its cache.

import type { Answer } from '../host.ts'
import { HostError } from '../problem.ts'

/** Probes one device; with several its answers could not be told apart. Needs root. */
export const blkid = (path: string): [string, ...string[]] => [
  '/usr/sbin/blkid',
  '--probe',
  '--output',
  'udev',
  path,
]

/** What was recognised, in libblkid's words; everything null when nothing was. */
export interface Probed {
  readonly type: string | null
  readonly version: string | null
  readonly uuid: string | null
  readonly label: string | null
  readonly partitionTable: string | null
  /** Signatures that contradict each other: blkid then names none of them. */
  readonly ambivalent: boolean
}

const nothing: Probed = {
  type: null,
  version: null,
  uuid: null,
  label: null,
  partitionTable: null,
  ambivalent: false,
}

/** Parses udev-style lines of one device. */
export function parseBlkid(stdout: string): Probed {
  const values = new Map(
    stdout.split('\n').flatMap((line): [string, string][] => {
      const [, key, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? []
      return key === undefined || value === undefined ? [] : [[key, value]]
    }),
  )
  const of = (key: string): string | null => values.get(key) || null
  return {
    type: of('ID_FS_TYPE'),
    version: of('ID_FS_VERSION'),
    uuid: of('ID_FS_UUID'),
    label: of('ID_FS_LABEL'),
    partitionTable: of('ID_PART_TABLE_TYPE'),
    ambivalent: values.has('ID_FS_AMBIVALENT'),
  }
}

/** Judges a whole answer: exit 2 is 'nothing there' (and also 'not readable', which wipefs tells apart), 8 is 'ambivalent'. */
export function probedOf({ exit, stdout, stderr }: Answer): Probed {
  if (exit === 0) return parseBlkid(stdout)
  if (exit === 2) return nothing
  if (exit === 8) return { ...nothing, ambivalent: true }
  throw new HostError('host.unexpected-answer', `blkid ended with ${exit}: ${stderr.trim()}`)
}
