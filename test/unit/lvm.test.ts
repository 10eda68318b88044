// LVM's full report: what real groups answer, warnings inside it, and who may ask.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { lvmFullReport, observeLvm, parseLvmFullReport } from '../../provisioning/block/lvm.ts'
import { replay } from '../observe/replay.ts'

const answer = (name: string): string =>
  readFileSync(new URL(`answers/lvm-${name}.json`, import.meta.url), 'utf8')
const thin = answer('thin')
const missing = answer('missing')

t.test('groups, volumes, tags and thin pools', async (t) => {
  const { groups, loose } = parseLvmFullReport(thin)
  t.same(
    loose.map(({ device }) => device),
    ['/dev/loop3'],
  )
  t.equal(groups.length, 1)
  const [group] = groups
  t.match(group, {
    name: 'rl',
    attributes: 'wz--n-',
    sizeBytes: 620756992,
    extentBytes: 4 * 2 ** 20,
    tags: [],
  })
  t.same(
    group?.physical.map(({ device, deviceBytes, dataOffsetBytes }) => [device, deviceBytes, dataOffsetBytes]),
    [
      ['/dev/loop1', 314572800, 2 ** 20],
      ['/dev/loop2', 314572800, 2 ** 20],
    ],
  )
  t.same(
    group?.logical.map(({ name, path, layout, pool }) => [name, path, layout, pool]),
    [
      ['pool', null, ['thin', 'pool'], null],
      ['root', '/dev/rl/root', ['linear'], null],
      ['swap', '/dev/rl/swap', ['linear'], null],
      ['thinroot', '/dev/rl/thinroot', ['thin', 'sparse'], 'pool'],
    ],
  )
  const root = group?.logical.find(({ name }) => name === 'root')
  t.same(root?.tags, ['garrison.unformatted', 't2'])
  t.equal(root?.number, null, 'not active: no device number')
})

t.test('a missing physical volume has no device', async (t) => {
  const [group] = parseLvmFullReport(missing).groups
  t.equal(group?.attributes[3], 'p', 'partial')
  t.same(
    group?.physical.map(({ device, attributes }) => [device, attributes]),
    [
      ['/dev/loop1', 'a--'],
      [null, 'a-m'],
    ],
  )
})

t.test('warnings before and inside the JSON are not part of it', async (t) => {
  const [first = '', ...rest] = thin.split('\n')
  const warning =
    '  WARNING: Device /dev/sdx not initialized in udev database even after waiting 10000000 microseconds.'
  t.same(
    parseLvmFullReport([warning, first, ...rest.flatMap((line) => [line, warning])].join('\n')),
    parseLvmFullReport(thin),
  )
})

t.test('an unknown form is an error, an empty report is a host without LVM', async (t) => {
  t.same(parseLvmFullReport('  {\n      "report": [\n      ]\n  }\n'), { groups: [], loose: [] })
  for (const other of ['', '{"report": 1}', '{"report":[{"vg":[{"vg_name":"rl"}]}]}', 'File not found']) {
    t.throws(() => parseLvmFullReport(other), { code: 'host.unexpected-answer' })
  }
})

t.test('observing names kernel devices and tells denied from empty', async (t) => {
  const reader = (exit: number, stdout: string, stderr: string) =>
    replay([
      { call: 'query', args: [lvmFullReport()], answer: { exit, stdout, stderr } },
      { call: 'resolve', args: ['/dev/loop1'], answer: '/dev/loop1' },
      { call: 'resolve', args: ['/dev/loop3'], answer: '/dev/dm-3' },
    ])
  const { groups, loose } = await observeLvm(reader(0, missing, ''))
  t.same(
    groups[0]?.physical.map(({ kernelName }) => kernelName),
    ['loop1', null],
  )
  t.equal(loose[0]?.kernelName, 'dm-3')
  const empty = '  {\n      "report": [\n      ]\n  }\n'
  await t.rejects(
    observeLvm(reader(5, empty, '  WARNING: Running as a non-root user. Functionality may be unavailable.')),
    {
      code: 'host.denied',
    },
  )
  await t.rejects(observeLvm(reader(0, empty, '  /run/lock/lvm/V_rl:aux: open failed: Permission denied')), {
    code: 'host.denied',
  })
  await t.rejects(observeLvm(reader(5, empty, '  Volume group "rl" not found')), { code: 'host.unreadable' })
})
