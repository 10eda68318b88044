// What is at the start and end of a device: `blkid --probe` of util-linux, which reads the device and not udev's memory of it.

import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'

/** Asks for the signature on one device. Needs root, for it reads the device. */
export const blkidProbe = (device: string): [string, ...string[]] => [
  '/usr/sbin/blkid',
  '--probe',
  '--output',
  'export',
  '--',
  device,
]

/** What a device is marked as: a filesystem, an LVM or md member, a partition table (`gpt partition table`), … */
export interface Signature {
  readonly type: string
  readonly uuid: string | null
}

/** Exit codes of blkid(8) besides 0: no signature was found; more than one was. */
const nothing = 2
const ambivalent = 8

/** Parses the answer: the signature, or null when blkid knows of none. Errors: `host.unexpected-answer`. */
export function parseBlkidProbe(exit: number, stdout: string): Signature | null {
  if (exit === ambivalent) return { type: 'several signatures', uuid: null }
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.+)$`, 'm').exec(stdout)?.[1]
  const type = value('TYPE')
  if (exit === 0 && type !== undefined) return { type, uuid: value('UUID') ?? null }
  const table = value('PTTYPE')
  if (exit === 0 && table !== undefined) return { type: `${table} partition table`, uuid: null }
  if (exit === nothing) return null
  throw new HostError('host.unexpected-answer', `blkid ended with ${exit} and named no type`)
}

/** Reads the signature of a device. */
export async function observeSignature(reader: HostReader, device: string): Promise<Signature | null> {
  const { exit, stdout } = await reader.query(blkidProbe(device))
  return parseBlkidProbe(exit, stdout)
}
