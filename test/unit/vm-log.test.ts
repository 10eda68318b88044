// The log of a VM as it is followed: lines as they come, from a file that is begun anew too, until whoever follows leaves.

import { appendFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { hostClock } from '../../agent/report/clock.ts'
import { logLines } from '../../agent/vms/log.ts'

/** A log of two lines, and what is done in each wait for more. */
function followed(folder: string, waits: readonly ((path: string) => void)[]) {
  const path = join(folder, 'qemu', 'web.log')
  writeFileSync(path, 'one\ntwo\n')
  const left = new AbortController()
  const { signal } = left
  const todo = [...waits]
  const sleep = async () => {
    const next = todo.shift()
    if (next === undefined) left.abort()
    else next(path)
  }
  return { left, lines: logLines(folder, 'web', 1, { signal, sleep }) }
}

t.test('what comes is told, also of a file that is begun anew, and half a line when it ends', async (t) => {
  const { lines } = followed(t.testdir({ qemu: {} }), [
    (path) => appendFileSync(path, 'three\nfo'),
    (path) => appendFileSync(path, 'ur\n'),
    (path) => {
      renameSync(path, `${path}.0`)
      writeFileSync(path, 'five\nhalf')
    },
  ])
  t.same(await Array.fromAsync(lines), ['two', 'three', 'four', 'five', 'half'])
})

t.test('who leaves ends the wait, and that is no error', async (t) => {
  const folder = t.testdir({ qemu: { 'web.log': 'one\n' } })
  const left = new AbortController()
  const lines = logLines(folder, 'web', 1, { signal: left.signal, sleep: hostClock.sleep })
  t.same(await lines.next(), { done: false, value: 'one' })
  const next = lines.next()
  setTimeout(() => left.abort(), 20)
  t.same(await next, { done: true, value: undefined })
})

t.test('a wait that fails is an error', async (t) => {
  const { lines } = followed(t.testdir({ qemu: {} }), [
    () => {
      throw new Error('no timer')
    },
  ])
  t.same(await lines.next(), { done: false, value: 'two' })
  await t.rejects(lines.next(), { message: 'no timer' })
})
