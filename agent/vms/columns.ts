// What a list of VMs shows of each, as text for a table and as a value for CSV, and by what it is sorted.

import type { Vm } from './facts.ts'
import { order } from './facts.ts'

/** The words in which the table shows sizes and durations. */
export interface Words {
  bytes(size: number): string
  duration(ms: number): string
}

type Value = string | number | boolean | null

/** One column. `value` is for CSV and for sorting; null is not known, and comes last. */
interface Column {
  value(vm: Vm, nowMs: number): Value
  text?(value: Exclude<Value, null>, words: Words): string
}

const sizeText = (value: Exclude<Value, null>, { bytes }: Words) => bytes(Number(value))

/** `KEY=VALUE` of each tag. */
const tagWords = ({ tags }: Vm): readonly string[] =>
  Object.entries(tags).map(([key, value]) => `${key}=${value}`)

/** Every column by its name. */
export const columns = {
  name: { value: ({ name }) => name },
  power: { value: ({ power }) => power },
  cpus: { value: ({ cpus }) => cpus },
  memory: { value: ({ memoryBytes }) => memoryBytes, text: sizeText },
  age: {
    value: ({ runningSinceMs }, nowMs) => runningSinceMs && Math.max(0, nowMs - runningSinceMs),
    text: (value, { duration }) => duration(Number(value)),
  },
  networks: { value: ({ networks }) => networks.join(' ') },
  tags: { value: (vm) => tagWords(vm).join(' ') },
  reason: { value: ({ reason }) => reason },
  autostart: { value: ({ autostart }) => autostart },
  persistent: { value: ({ persistent }) => persistent },
  saved: { value: ({ saved }) => saved },
  template: { value: ({ template }) => template },
  id: { value: ({ id }) => id },
  uuid: { value: ({ uuid }) => uuid },
} as const satisfies Readonly<Record<string, Column>>

/** The name of a column. */
export type ColumnName = keyof typeof columns

const columnOf = (name: ColumnName): Column => columns[name]

/** The text of a cell; a dash is for what is not known. */
export function cellText(name: ColumnName, vm: Vm, nowMs: number, words: Words): string {
  const { value, text } = columnOf(name)
  const known = value(vm, nowMs)
  if (known === null || known === '') return '-'
  if (typeof known === 'boolean') return known ? 'yes' : 'no'
  return text?.(known, words) ?? String(known)
}

/** The VMs in the order of a column, and those alike in it in that of their names. */
export const sorted = <V extends Vm>(vms: readonly V[], by: ColumnName, nowMs: number): readonly V[] => {
  const { value } = columnOf(by)
  return vms.toSorted((a, b) => {
    const [one, other] = [value(a, nowMs), value(b, nowMs)]
    if (one !== other) {
      if (one === null) return 1
      if (other === null) return -1
      const difference =
        typeof one === 'number' && typeof other === 'number'
          ? one - other
          : order.compare(String(one), String(other))
      if (difference !== 0) return difference
    }
    return order.compare(a.name, b.name)
  })
}

/**
 * A cell of CSV (RFC 4180). What a spreadsheet would take for a formula is given an apostrophe before it, so that a name cannot
 * compute anything.
 */
function csvCell(value: Value): string {
  if (value === null) return ''
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value)
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** The whole list as CSV, with a heading and no line feed at the end. */
export const csvOf = (vms: readonly Vm[], names: readonly ColumnName[], nowMs: number): string =>
  [
    names.join(','),
    ...vms.map((vm) => names.map((name) => csvCell(columnOf(name).value(vm, nowMs))).join(',')),
  ].join('\n')
