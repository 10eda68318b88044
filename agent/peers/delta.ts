// Differences between two JSON trees, and their application: what travels when a peer has the tree before (RFC 8259 values).

/** A JSON value. A tree is never changed once it is made, so trees may share their parts. */
export type Tree = null | boolean | number | string | readonly Tree[] | { readonly [key: string]: Tree }

/** Keys of objects and indices of arrays, from the root down. Never empty in a change. */
export type Path = readonly (string | number)[]

/**
 * One change. With a value: that is there now; the index after the last of an array adds to it. Without: the key is gone, or the
 * array ends before that index.
 */
export type Change = readonly [Path, Tree] | readonly [Path]

type Branch = Record<string, Tree> | Tree[]

const isBranch = (tree: Tree | undefined): tree is Exclude<Tree, null | boolean | number | string> =>
  typeof tree === 'object' && tree !== null

/** The changes that make `after` of `before`; null when they are not of one kind at their root and nothing is shared. */
export function changesBetween(before: Tree, after: Tree): readonly Change[] | null {
  if (!isBranch(before) || !isBranch(after) || Array.isArray(before) !== Array.isArray(after)) return null
  const changes: Change[] = []
  compare(before, after, [], changes)
  return changes
}

function compare(before: Tree, after: Tree, path: Path, changes: Change[]): void {
  if (before === after) return
  if (Array.isArray(before) && Array.isArray(after)) {
    for (const [index, value] of after.entries())
      if (index < before.length) compare(before[index] as Tree, value, [...path, index], changes)
      else changes.push([[...path, index], value])
    if (after.length < before.length) changes.push([[...path, after.length]])
    return
  }
  if (!isBranch(before) || !isBranch(after) || Array.isArray(before) || Array.isArray(after)) {
    changes.push([path, after])
    return
  }
  const [was, is] = [before as Record<string, Tree>, after as Record<string, Tree>]
  for (const key of Object.keys(was)) if (!Object.hasOwn(is, key)) changes.push([[...path, key]])
  for (const [key, value] of Object.entries(is))
    if (Object.hasOwn(was, key)) compare(was[key] as Tree, value, [...path, key], changes)
    else changes.push([[...path, key], value])
}

/** The tree with the changes made, sharing what is unchanged; null when they do not fit it. The tree itself stays as it is. */
export function withChanges(tree: Tree, changes: readonly Change[]): Tree | null {
  const own = new Set<Tree>()
  const owned = (branch: Tree | undefined): Branch | null => {
    if (!isBranch(branch)) return null
    if (own.has(branch)) return branch as Branch
    const copy: Branch = Array.isArray(branch) ? [...branch] : { ...(branch as Record<string, Tree>) }
    own.add(copy)
    return copy
  }
  const root = owned(tree)
  if (root === null) return null
  for (const change of changes) {
    let at = root
    for (const key of change[0].slice(0, -1)) {
      const child = owned(partOf(at, key))
      if (child === null) return null
      put(at, key, child)
      at = child
    }
    const last = change[0].at(-1)
    if (last === undefined || !fits(at, last)) return null
    if (change.length === 2) put(at, last, change[1])
    else if (Array.isArray(at)) at.length = last as number
    else delete at[last]
  }
  return root
}

const partOf = (branch: Branch, key: string | number): Tree | undefined =>
  fits(branch, key) && Object.hasOwn(branch, key) ? (branch as Record<string, Tree>)[key] : undefined

/** An array may be changed where it is and at its end; an object under any key that is no way to its prototype. */
const fits = (branch: Branch, key: string | number): boolean =>
  Array.isArray(branch)
    ? typeof key === 'number' && Number.isInteger(key) && key >= 0 && key <= branch.length
    : typeof key === 'string' && key !== '__proto__'

function put(branch: Branch, key: string | number, value: Tree): void {
  ;(branch as Record<string, Tree>)[key] = value
}
