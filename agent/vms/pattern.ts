// Shell-style patterns for names: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character that is to be itself.

/** One place of a pattern: any run of characters, or one character that is as wanted. */
type Part = '*' | ((character: string) => boolean)

const any = (): boolean => true

/** The set in brackets that begins at `start`, and where it ends; null when it never does, and the bracket is only itself. */
function setAt(
  characters: readonly string[],
  start: number,
): { readonly part: (character: string) => boolean; readonly end: number } | null {
  let at = start + 1
  const isNegated = characters[at] === '!' || characters[at] === '^'
  if (isNegated) at += 1
  const ranges: (readonly [string, string])[] = []
  for (const first = at; ; at += 1) {
    const from = characters[at]
    if (from === undefined) return null
    // A closing bracket that comes first belongs to the set.
    if (from === ']' && at > first) break
    const to = characters[at + 2]
    if (characters[at + 1] === '-' && to !== undefined && to !== ']') {
      ranges.push([from, to])
      at += 2
    } else ranges.push([from, from])
  }
  return {
    part: (character) => ranges.some(([from, to]) => from <= character && character <= to) !== isNegated,
    end: at,
  }
}

function partsOf(pattern: string): readonly Part[] {
  const characters = [...pattern]
  const parts: Part[] = []
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] as string
    const set = character === '[' ? setAt(characters, at) : null
    if (character === '*') parts.push('*')
    else if (character === '?') parts.push(any)
    else if (set !== null) {
      parts.push(set.part)
      at = set.end
    } else {
      const escaped = character === '\\' ? characters[at + 1] : undefined
      if (escaped !== undefined) at += 1
      const wanted = escaped ?? character
      parts.push((one) => one === wanted)
    }
  }
  return parts
}

/** Whether a word has anything in it that makes it a pattern. */
export const isPattern = (word: string): boolean => /[*?[]/.test(word)

/** Makes a pattern into a test of whole names. It takes at most (characters of the name) x (of the pattern) steps. */
export function matcherOf(pattern: string): (name: string) => boolean {
  const parts = partsOf(pattern)
  return (name) => {
    const characters = [...name]
    let [part, at] = [0, 0]
    // Where the last star is, and how far it has reached so far.
    let star: { readonly part: number; at: number } | null = null
    while (at < characters.length) {
      const wanted = parts[part]
      if (wanted === '*') {
        star = { part, at }
        part += 1
      } else if (wanted?.(characters[at] as string)) {
        part += 1
        at += 1
      } else if (star !== null) {
        star.at += 1
        at = star.at
        part = star.part + 1
      } else return false
    }
    return parts.slice(part).every((rest) => rest === '*')
  }
}
