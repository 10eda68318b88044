// Checks of JSON that somebody else wrote: whether a value is, in each of its parts, what is made of it afterwards.

/** Whether a value is what is wanted. */
export type Check = (value: unknown) => boolean

/** The keys of an object, all of them and no others, each with its check. */
export type Shape = Readonly<Record<string, Check>>

/** Null. */
export const isNull: Check = (value) => value === null

/** A whole number from 0 up. */
export const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0

/** A text that matches. */
export const isText =
  (pattern: RegExp): Check =>
  (value) =>
    typeof value === 'string' && pattern.test(value)

/** An array of at most so many. */
export const isList =
  (most: number, isOne: Check): Check =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every(isOne)

/** An object of that shape. */
export const isShaped =
  (shape: Shape): Check =>
  (value) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
    const keys = Object.keys(value)
    return (
      keys.length === Object.keys(shape).length &&
      keys.every((key) => Object.hasOwn(shape, key) && shape[key]?.((value as Record<string, unknown>)[key]))
    )
  }

/** What one of the checks takes. */
export const isEither =
  (...checks: readonly Check[]): Check =>
  (value) =>
    checks.some((check) => check(value))
