// The kinds of value that a desired document is made of, each as a schema with its mistake in words.

import { z } from 'zod'

/** The name of an array, a volume group or a volume: what mdadm and LVM both take. */
export const name = z
  .string()
  .regex(/^[a-z][a-z0-9_]{0,30}$/, 'must be a lower-case letter, then at most 30 letters, digits or _')

/** A path that begins at the root and says one thing in one way. */
export const absolutePath = z
  .string()
  .regex(
    /^\/(?!.*\/\/)(?!.*\/\.{1,2}(\/|$))[^\0\n]*[^/\0\n]$/,
    'must be an absolute path without //, . or ..',
  )

const bytesPerUnit: Readonly<Record<string, number>> = { MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 }

/** The bytes in a size such as `100GiB`, `1.5TiB`; the schema has already refused every other form. */
export const sizeBytes = (size: string): number => {
  const [, number = '', unit = ''] = /^([0-9.]+) ?(MiB|GiB|TiB)$/.exec(size) ?? []
  return Math.round(Number(number) * (bytesPerUnit[unit] ?? Number.NaN))
}

/** A size as text; `sizeBytes` tells its bytes. */
export const size = z
  .string()
  .regex(/^[0-9]+(\.[0-9]+)? ?(MiB|GiB|TiB)$/, 'must be a size such as 100GiB or 1.5TiB')
