// What the daemon says that it takes itself.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { anonymousBytes } from '../../agent/report/own.ts'

t.test('memory of its own, not what the kernel keeps of the executable', (t) => {
  t.equal(anonymousBytes('VmRSS:\t  131072 kB\nRssAnon:\t   41984 kB\nRssFile:\t   89088 kB\n'), 41 * 2 ** 20)
  const own = anonymousBytes(readFileSync('/proc/self/status', 'utf8'))
  t.ok(own > 2 ** 20 && own < process.memoryUsage.rss())
  for (const text of ['', 'RssAnon: 1 MB', 'VmRSS:\t 1 kB\n'])
    t.throws(() => anonymousBytes(text), { code: 'host.unexpected-answer' })
  t.end()
})
