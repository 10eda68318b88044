// The health log of an NVMe drive as `nvme smart-log` (nvme-cli 1.x and 2.x) prints it in JSON.

import { z } from 'zod'
import { HostError } from '../problem.ts'

/** Asks one drive for its health; needs root. */
export const nvmeSmartLog = (path: string): [string, ...string[]] => [
  '/usr/sbin/nvme',
  'smart-log',
  '--output-format=json',
  path,
]

/** A drive's health. Percentages as the drive gives them: `usedPercent` can exceed 100. */
export interface SmartLog {
  /** Bits: 1 spare low, 2 temperature, 4 reliability, 8 read-only, 16 backup power, 32 persistent memory. */
  readonly criticalWarning: number
  readonly usedPercent: number | null
  readonly sparePercent: number | null
  readonly mediaErrors: number | null
}

/** Numbers come as integers, floats or (above 2^53 and in some versions throughout) as strings; with -v as an object. */
const number = z.union([z.number(), z.string().regex(/^\d+(\.\d+)?$/)]).transform(Number)
const warning = z.union([number, z.object({ value: number }).transform(({ value }) => value)])

const answer = z.object({
  critical_warning: warning,
  percent_used: number.optional(),
  percentage_used: number.optional(),
  avail_spare: number.optional(),
  available_spare: number.optional(),
  media_errors: number.optional(),
})

/** Parses the answer of `nvmeSmartLog`. */
export function parseSmartLog(stdout: string): SmartLog {
  try {
    const log = answer.parse(JSON.parse(stdout))
    return {
      criticalWarning: log.critical_warning,
      usedPercent: log.percent_used ?? log.percentage_used ?? null,
      sparePercent: log.avail_spare ?? log.available_spare ?? null,
      mediaErrors: log.media_errors ?? null,
    }
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'nvme smart-log answered in a form that is not known', {
      cause,
      details: { stdout: stdout.slice(0, 2000) },
    })
  }
}

const warningWords = [
  'spare blocks are low',
  'too hot or too cold',
  'its reliability is degraded',
  'it has become read-only',
  'its backup power has failed',
  'its persistent memory is unreliable',
]

/** The bits of a critical warning in words; empty when there is none. */
export const criticalWarnings = ({ criticalWarning }: SmartLog): readonly string[] => {
  const known = warningWords.filter((_, bit) => criticalWarning & (1 << bit))
  return criticalWarning >= 1 << warningWords.length
    ? [...known, `unknown warning ${criticalWarning}`]
    : known
}
