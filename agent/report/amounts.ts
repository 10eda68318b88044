// Values of metrics in words with their unit, as findings and charts say them.

import { formatBytes } from '../../provisioning/block/bytes.ts'
import type { Unit } from '../../provisioning/metrics.ts'

const brief = (value: number): string =>
  Number.isInteger(value) || Math.abs(value) >= 99.5 ? String(Math.round(value)) : value.toPrecision(2)

const inTime = (ms: number): string => {
  if (Math.abs(ms) < 1000) return `${brief(ms)} ms`
  const seconds = ms / 1000
  return Math.abs(seconds) < 120 ? `${brief(seconds)} s` : `${brief(seconds / 60)} min`
}

const words: Readonly<Record<Unit, (value: number) => string>> = {
  percent: (value) => `${brief(value)} %`,
  bytes: (value) => formatBytes(Math.round(value)),
  'bytes-per-second': (value) => `${formatBytes(Math.round(value))}/s`,
  'per-second': (value) => `${brief(value)}/s`,
  count: brief,
  milliseconds: inTime,
  seconds: (value) => inTime(value * 1000),
}

/** A value in words: `85 %`, `1.2 GiB/s`, `3.4 ms`. */
export const amount = (unit: Unit, value: number): string => words[unit](value)
