// A part of the long life of test/bench/soak.ts: memory and files stay as they were. The whole of it is in docs/performance.md.
import t from 'tap'
import { soak } from '../bench/soak.ts'

t.test('ten thousand samples, a thousand events and a hundred reconnects leave nothing behind', async (t) => {
  const marks = await soak({
    ...{ samples: 10_000, events: 1000, reconnects: 100 },
    progress: (line) => t.comment(line),
  })
  const [settled, last] = [marks[4], marks.at(-1)]
  if (settled === undefined || last === undefined) throw new Error('it has told of no moment')
  t.ok(last.samples >= 10_000)
  t.ok(last.events >= 1000)
  t.ok(last.reconnects >= 100)
  t.ok(last.generation > settled.generation)
  const grown = last.heapBytes - settled.heapBytes
  t.ok(grown < 2 * 2 ** 20, `${grown} bytes more than half way`)
  t.ok(Math.abs(last.files - settled.files) <= 2, `${last.files} files, ${settled.files} before`)
})
