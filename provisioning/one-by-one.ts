// Work that must not overlap within this process: done one after the other, in the order that it was asked for.

/** A queue that does one thing at a time. */
export class OneByOne {
  #last: Promise<unknown> = Promise.resolve()

  /** Does the work once everything before it has ended, however that ended; its outcome is its caller's alone. */
  do<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work)
    // The next waits for this one, however it ends; its caller is told by `done`.
    this.#last = done.catch(() => undefined)
    return done
  }
}
