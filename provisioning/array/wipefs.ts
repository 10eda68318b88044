// Signatures on a device as wipefs (util-linux >= 2.33) finds them by reading the device itself, not from udev's memory.

import { z } from 'zod'
import { HostError } from '../problem.ts'

/** Asks for every signature, also the backup partition table at the end; writes nothing. Needs root. */
export const wipefs = (path: string): [string, ...string[]] => [
  '/usr/sbin/wipefs',
  '--no-act',
  '--json',
  path,
]

/** One signature. `type` is in libblkid's words: gpt, PMBR, dos, LVM2_member, linux_raid_member, crypto_LUKS, xfs, … */
export interface Signature {
  readonly offset: number
  readonly type: string
  readonly uuid: string | null
  readonly label: string | null
}

const text = z
  .string()
  .nullish()
  .transform((value) => value || null)

const answer = z.object({
  signatures: z.array(
    z.object({
      offset: z.string().regex(/^0x[0-9a-f]+$/i),
      type: z.string().min(1),
      uuid: text,
      label: text,
    }),
  ),
})

/** Parses the answer of `wipefs`; older versions print nothing at all for a device without signatures. */
export function parseWipefs(stdout: string): readonly Signature[] {
  if (stdout.trim() === '') return []
  try {
    return answer
      .parse(JSON.parse(stdout))
      .signatures.map(({ offset, type, uuid, label }) => ({ offset: Number(offset), type, uuid, label }))
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'wipefs answered in a form that is not known', {
      cause,
      details: { stdout: stdout.slice(0, 2000) },
    })
  }
}
