// MACs for NICs that are given none.

import { randomBytes } from 'node:crypto'

/** A locally administered MAC of the range that QEMU's guests have. */
export const anyMac = (): string =>
  ['52:54:00', ...(randomBytes(3).toString('hex').match(/../g) ?? [])].join(':')
