// Sizes in the words of the desired document: MiB, GiB, TiB.

const units: readonly (readonly [string, number])[] = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
]

/** Bytes for people, with one decimal: `38.0 GiB`; below 1 KiB `512 bytes`. */
export function formatBytes(bytes: number): string {
  // 1023.96 GiB would print as 1024.0 GiB: the larger unit begins where rounding reaches it.
  const [unit, factor] = units.find(([, size]) => bytes >= size * 0.99995) ?? []
  return unit === undefined || factor === undefined
    ? `${bytes} bytes`
    : `${(bytes / factor).toFixed(1)} ${unit}`
}
