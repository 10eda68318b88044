// What the kernel has to say against itself: /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst).

import { SEVERITIES, type Severity } from '../../../provisioning/resource.ts'
import { unexpected } from '../unexpected.ts'

/**
 * Bits that tell of something that went wrong. Those that only tell where modules come from (proprietary, out of tree, unsigned,
 * staging) are no reason to look.
 */
const marks: readonly (readonly [bit: number, severity: Severity, text: string])[] = [
  [2, 'warning', 'a module was forced out'],
  [4, 'high', 'a processor reported a machine check'],
  [5, 'high', 'a page of memory was found damaged'],
  [7, 'high', 'the kernel has crashed in part (oops) and went on'],
  [9, 'notice', 'the kernel warned of itself'],
  [14, 'warning', 'a processor was stuck in the kernel (soft lockup)'],
]

/** What went wrong since boot, gravest first. */
export function parseTaint(text: string): readonly { readonly severity: Severity; readonly text: string }[] {
  const bits = /^\d+\n?$/.test(text) ? BigInt(text) : null
  if (bits === null) throw unexpected('/proc/sys/kernel/tainted', text)
  return marks
    .filter(([bit]) => (bits >> BigInt(bit)) & 1n)
    .map(([, severity, said]) => ({ severity, text: said }))
    .sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity))
}
