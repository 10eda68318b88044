// Commands that a person may copy into a shell, whatever a VM is called.

const escapes: Readonly<Record<string, string>> = { "'": "\\'", '\\': '\\\\' }

/**
 * A word as a shell reads it. One with characters that a terminal could obey or that cannot be seen is written with escapes
 * (`$'…'`), so that it survives being shown.
 */
function quoted(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word
  if (/^[\p{L}\p{N}\p{P}\p{S} ]*$/u.test(word)) return `'${word.replaceAll("'", "'\\''")}'`
  const plain = word.replace(/['\\]|[^\p{L}\p{N}\p{P}\p{S} ]/gu, (one) => {
    const code = one.codePointAt(0) ?? 0
    return escapes[one] ?? `\\U${code.toString(16).padStart(8, '0')}`
  })
  return `$'${plain}'`
}

/** A command of Garrison's about VMs: `garrison vm start web-1`. A name that looks like a flag comes after `--`. */
export const vmCommand = (verb: string, ...operands: readonly string[]): string =>
  [
    'garrison vm',
    verb,
    ...(operands.some((one) => one.startsWith('-')) ? ['--'] : []),
    ...operands.map(quoted),
  ].join(' ')
