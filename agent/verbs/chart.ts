// A chart for a terminal of eighty columns: one column for each span of time, in eighths of a line; every sign tells without colour.

/** A value that holds from one place to another, each between 0 (left) and 1 (right). */
export interface Mark {
  readonly from: number
  readonly to: number
  readonly value: number
}

const eighths = ' ▁▂▃▄▅▆▇█'

/** A scale that people read easily: 1, 2 or 5 times a power of ten (of 1024 for bytes) above the largest value. */
export function niceTop(largest: number, base: 10 | 1024): number {
  if (!(largest > 0)) return 1
  const unit = base === 10 ? 1 : 1024 ** Math.floor(Math.log(Math.max(1, largest)) / Math.log(1024))
  const inUnit = largest / unit
  const power = 10 ** Math.floor(Math.log10(inUnit))
  const step = [1, 2, 5, 10].find((one) => one * power >= inUnit * (1 - 1e-9)) ?? 10
  return step * power * unit
}

/** The rows of a chart, top first: the highest value of each column; a column without a value stays empty. */
export function chartRows(
  marks: readonly Mark[],
  { columns, rows, top }: { readonly columns: number; readonly rows: number; readonly top: number },
): readonly string[] {
  const highest: (number | null)[] = Array.from({ length: columns }, () => null)
  const columnAt = (place: number) => Math.min(columns - 1, Math.max(0, Math.floor(place * columns)))
  for (const { from, to, value } of marks)
    for (let column = columnAt(from); column <= Math.max(columnAt(from), columnAt(to - 1e-9)); column += 1)
      highest[column] = Math.max(highest[column] ?? Number.NEGATIVE_INFINITY, value)
  // What is there is seen, however little it is.
  const heights = highest.map((value) =>
    value === null ? null : Math.min(rows * 8, Math.max(1, Math.round((value / top) * rows * 8))),
  )
  return Array.from({ length: rows }, (_, row) => {
    const below = (rows - 1 - row) * 8
    return heights
      .map((height) => (height === null ? ' ' : (eighths[Math.min(8, Math.max(0, height - below))] ?? ' ')))
      .join('')
  })
}
