// Where a peer listens, and over which of its networks.

/** A name or an address with a port. `over` is the label of its network, such as lni or eni. */
export interface Address {
  readonly over: string
  readonly host: string
  readonly port: number
}

/** The label of a network of a host; `-` where nobody has given it one. */
export const overPattern = /^(?:-|[a-z0-9][a-z0-9._-]{0,14})$/

/** A host and its port as a token and the messages write it: `10.0.0.5 7443`, `fd00::5 7443`, `lni 10.0.0.5 7443`. */
export const addressPattern = /^(?:[a-z0-9][a-z0-9._-]{0,14} )?[A-Za-z0-9:.%_-]{1,253} [1-9][0-9]{0,4}$/

/** Reads what `addressPattern` takes. */
export function parseAddress(text: string): Address {
  const words = text.split(' ')
  const port = Number(words.at(-1))
  const host = words.at(-2) ?? ''
  return { over: words.length === 3 ? (words[0] ?? '') : '-', host, port }
}

/** Writes it so that it can be read again. */
export const addressText = ({ over, host, port }: Address): string =>
  `${over === '-' ? '' : `${over} `}${host} ${port}`
