// The key that leaves a session: how it is written, and where it is in what is typed.

import { HostError } from '../../provisioning/problem.ts'

/** The byte of a key written as `^]`, `^A`, …; null for `none`. Throws `request.invalid`. */
export function escapeByte(text: string): number | null {
  if (text === 'none') return null
  const [, key] = /^\^([@-_a-z])$/.exec(text) ?? []
  if (key !== undefined) return key.toUpperCase().charCodeAt(0) & 0x1f
  throw new HostError(
    'request.invalid',
    `--escape takes a control key such as ^] or ^A, or none, not ${text}`,
    {
      details: { verb: 'vm console' },
    },
  )
}

/** What of the bytes that were typed comes before the escape key, and whether it is there. */
export function beforeEscape(
  bytes: Buffer,
  key: number | null,
): { readonly typed: Buffer; readonly leaves: boolean } {
  const at = key === null ? -1 : bytes.indexOf(key)
  return at === -1 ? { typed: bytes, leaves: false } : { typed: bytes.subarray(0, at), leaves: true }
}
