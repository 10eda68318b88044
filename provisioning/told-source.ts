// What is told of where a file comes from.

/** A path or URL without what of a presigned URL is a secret: its query. What is told, shown or written down names a source like this. */
export const toldSource = (source: string): string =>
  /^https?:/i.test(source) ? source.replace(/[?#].*$/s, '') : source
