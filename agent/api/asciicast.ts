// A recording of a terminal in the format asciicast v2: a header and one line for each piece of output, in JSON.

/** What the header tells. `width` and `height` are in characters, `atMs` is epoch milliseconds. */
export interface CastHeader {
  readonly width: number
  readonly height: number
  readonly atMs: number
  readonly title: string
  readonly term: string
}

/** The first line. */
export const castHeader = ({ width, height, atMs, title, term }: CastHeader): string =>
  `${JSON.stringify({ version: 2, width, height, timestamp: Math.floor(atMs / 1000), title, env: { TERM: term } })}\n`

/** The lines of one recording, from `beganMs` on. Output comes in bytes, cut anywhere; a character is never cut in two. */
export class CastLines {
  readonly #beganMs: number
  readonly #decoder = new TextDecoder('utf-8')

  constructor(beganMs: number) {
    this.#beganMs = beganMs
  }

  #line(nowMs: number, kind: 'o' | 'r', text: string): string {
    const seconds = Math.max(0, nowMs - this.#beganMs) / 1000
    return text === '' ? '' : `${JSON.stringify([seconds, kind, text])}\n`
  }

  /** The line of a piece of output; empty while a character is incomplete. */
  output(bytes: Uint8Array, nowMs: number): string {
    return this.#line(nowMs, 'o', this.#decoder.decode(bytes, { stream: true }))
  }

  /** The line of a terminal that has another size now. */
  resize(width: number, height: number, nowMs: number): string {
    return this.#line(nowMs, 'r', `${width}x${height}`)
  }

  /** What is left at the end. */
  end(nowMs: number): string {
    return this.#line(nowMs, 'o', this.#decoder.decode())
  }
}
