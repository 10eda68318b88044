// What others than root are told of steps.

import t from 'tap'
import type { Action } from '../../provisioning/resource.ts'
import { told } from '../../provisioning/told.ts'

const actionsTold = (...actions: readonly Action[]): readonly Action[] => told({ actions }).actions

t.test('the content of a file is told to whom may read the file', async (t) => {
  const write = { kind: 'write', path: '/etc/x', content: 'password: hush\n' } as const
  t.same(actionsTold({ ...write, mode: 0o600 }, { ...write, mode: 0o640 }, { ...write, mode: 0o644 }), [
    { ...write, mode: 0o600, content: '(not told)' },
    { ...write, mode: 0o640 },
    { ...write, mode: 0o644 },
  ])
  const empty = { ...write, mode: 0o600, content: '' }
  t.same(actionsTold(empty), [empty])
})

t.test('a definition is told but for its passwords', async (t) => {
  const define = { kind: 'domain', operation: 'define', uuid: 'u', name: 'web', replaces: null } as const
  const xml = (one: string, other: string) =>
    `<domain><graphics type="vnc" passwd=${one} port="1"/><graphics type='spice' passwd=${other}/></domain>`
  t.same(actionsTold({ ...define, xml: xml('"hush"', "'hu\"sh'") }), [
    { ...define, xml: xml('"*****"', '"*****"') },
  ])
  const start = { kind: 'domain', operation: 'start', uuid: 'u', name: 'web' } as const
  t.same(actionsTold(start), [start])
})
