// Lines that work tells while it goes on, as a stream.

/** Does work and gives what it tells as it tells it; throws what the work throws, after all that it told. */
export async function* toldBy<Line>(
  work: (tell: (line: Line) => void) => Promise<void>,
): AsyncGenerator<Line> {
  const lines: Line[] = []
  let more = Promise.withResolvers<void>()
  let isDone = false
  const working = work((line) => {
    lines.push(line)
    more.resolve()
  }).finally(() => {
    isDone = true
    more.resolve()
  })
  // Its caller is told by the last await.
  working.catch(() => undefined)
  for (;;) {
    const line = lines.shift()
    if (line !== undefined) yield line
    else if (isDone) break
    else {
      await more.promise
      more = Promise.withResolvers()
    }
  }
  await working
}
