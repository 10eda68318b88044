// The choice of drives, the array's identity, and the replacement of a member.

import t from 'tap'
import { duration } from '../../provisioning/array/check.ts'
import { arrayUuid, findOurs, selectDrives } from '../../provisioning/array/drives.ts'
import type { ArrayObserved } from '../../provisioning/array/observe.ts'
import { planReplacement } from '../../provisioning/array/replace.ts'
import type { Step } from '../../provisioning/resource.ts'
import { drive, host, memberDrive, rootDrive, runningArray, wanting } from './array-host.ts'

const tebibyte = 2 ** 40

t.test('the UUID of an array', async (t) => {
  const uuid = arrayUuid('m', 'garrison', ['B', 'A', 'C'])
  t.match(uuid, /^[0-9a-f]{8}(:[0-9a-f]{8}){3}$/)
  t.equal(arrayUuid('m', 'garrison', ['A', 'B', 'C']), uuid, 'whatever the order')
  for (const other of [
    arrayUuid('n', 'garrison', ['A', 'B', 'C']),
    arrayUuid('m', 'other', ['A', 'B', 'C']),
    arrayUuid('m', 'garrison', ['A', 'B']),
    arrayUuid('m', 'garrison', ['A', 'B', 'C,D']),
  ])
    t.not(other, uuid)
})

t.test('sizes', async (t) => {
  const sizes = (...numbers: readonly number[]) => {
    const drives = numbers.map((sizeBytes, index) =>
      drive(index + 1, { sizeBytes: Math.round(sizeBytes * tebibyte) }),
    )
    return selectDrives(host({ drives }), wanting({ minimum: 2 })).chosen.map(({ name }) => name)
  }
  t.same(sizes(1, 1, 1), ['nvme1n1', 'nvme2n1', 'nvme3n1'])
  t.same(sizes(1, 1.009, 1), ['nvme1n1', 'nvme2n1', 'nvme3n1'], 'a hundredth is alike')
  t.same(sizes(1, 1.011, 1), ['nvme1n1', 'nvme3n1'])
  t.same(sizes(1, 1.02, 1, 2), ['nvme1n1', 'nvme3n1'])
  t.same(sizes(1, 2, 1, 2), [], 'neither of two pairs is the right one')
})

t.test('drives are taken in the order of their serials, whatever the kernel calls them', async (t) => {
  const drives = [drive(1, { serial: 'C' }), drive(2, { serial: 'A' }), drive(3, { serial: 'B' })]
  t.same(
    selectDrives(host({ drives }), wanting()).chosen.map(({ name }) => name),
    ['nvme2n1', 'nvme3n1', 'nvme1n1'],
  )
})

t.test('without a document the drives are judged all the same', async (t) => {
  const { verdicts } = selectDrives(host(), { version: 1, host: {}, sources: {} })
  t.same(
    verdicts.map(({ verdict, text }) => `${verdict}: ${text}`),
    [
      'refused: holds / of the running system (and 2 more)',
      'unused: blank, in no array',
      'unused: blank, in no array',
      'unused: blank, in no array',
    ],
  )
})

const withArray = (more: Partial<ArrayObserved> = {}): ArrayObserved =>
  host({
    drives: [rootDrive, memberDrive(1), memberDrive(2), memberDrive(3), drive(4)],
    arrays: [runningArray([1, 2, 3])],
    ...more,
  })

t.test('the UUID in mdadm.conf counts before the name', async (t) => {
  const other = runningArray([4, 5, 6], {
    kernelName: 'md9',
    path: '/dev/md9',
    uuid: '99999999:0:0:0',
    links: ['x'],
    name: 'x',
  })
  const remembered = { device: '/dev/md/garrison', uuid: '99999999:0:0:0', members: [] }
  const observed = withArray({
    arrays: [runningArray([1, 2, 3]), other],
    conf: { ...host().conf, remembered },
  })
  t.match(findOurs(observed, wanting().array as never), { found: 'running', array: { kernelName: 'md9' } })
  const [rootArray] = [runningArray([1, 2, 3], { name: 'x', links: ['x'], system: ['/'] })]
  t.match(
    findOurs(withArray({ arrays: [rootArray] }), wanting().array as never),
    { found: 'none' },
    'the array that the system stands on is not adopted',
  )
})

const replace = (observed: ArrayObserved, older: string, newer: string) =>
  planReplacement(observed, wanting(), older, newer)
const commands = (steps: readonly Step[]) =>
  steps.map(({ id, risk, actions, blocked }) =>
    blocked
      ? `${blocked.code}: ${blocked.message}`
      : `${id} ${risk}: ${actions.map((action) => (action.kind === 'run' ? action.argv.slice(1).join(' ') : action.kind)).join('; ')}`,
  )
const condition = (slot: number, word: 'faulty' | 'replacement' | 'rebuilding') =>
  runningArray([1, 2, 3], {
    members: runningArray([1, 2, 3]).members.map((member) =>
      member.slot === slot ? { ...member, condition: word } : member,
    ),
  })

t.test('replacing a member', async (t) => {
  t.same(
    commands(replace(withArray(), 'AWS0002', 'AWS0004')),
    [
      'array.replace disruptive: --manage /dev/md127 --add /dev/nvme4n1; --manage /dev/md127 --replace /dev/nvme2n1 --with /dev/nvme4n1',
    ],
    'one that still works is copied',
  )
  t.same(
    commands(replace(withArray({ arrays: [condition(1, 'faulty')] }), 'AWS0002', 'AWS0004')),
    ['array.replace safe: --manage /dev/md127 --remove /dev/nvme2n1; --manage /dev/md127 --add /dev/nvme4n1'],
    'one that has failed',
  )
  t.same(
    commands(replace(withArray({ arrays: [condition(1, 'faulty')] }), 'AWS0002', 'AWS0003')),
    ['array.replace-refused: AWS0003 is in md/garrison already'],
    'a member with a place of its own takes nobody else’s',
  )
  const gone = withArray({
    drives: [rootDrive, memberDrive(1), memberDrive(3), drive(4)],
    arrays: [runningArray([1, 3], { raidDevices: 3, workingDevices: 2 })],
    conf: {
      ...host().conf,
      remembered: {
        device: '/dev/md/garrison',
        uuid: '11111111:22222222:33333333:44444444',
        members: ['AWS0002'],
      },
    },
  })
  t.same(
    commands(replace(gone, 'AWS0002', 'AWS0004')),
    ['array.replace safe: --manage /dev/md127 --add /dev/nvme4n1'],
    'one that is not there any more',
  )
  const copying = withArray({
    drives: [rootDrive, memberDrive(1), memberDrive(2), memberDrive(3), memberDrive(4)],
    arrays: [
      runningArray([1, 2, 3], {
        members: [
          ...runningArray([1, 2, 3]).members,
          { name: 'nvme4n1', drive: 'nvme4n1', slot: 1, condition: 'replacement' },
        ],
      }),
    ],
  })
  t.same(commands(replace(copying, 'AWS0002', 'AWS0004')), [], 'while it is copied')
  const added = {
    ...copying,
    arrays: copying.arrays.map((one) => ({
      ...one,
      members: one.members.map((member) =>
        member.name === 'nvme4n1' ? { ...member, slot: null, condition: 'spare' as const } : member,
      ),
    })),
  }
  t.same(
    commands(replace(added, 'AWS0002', 'AWS0004')),
    ['array.replace disruptive: --manage /dev/md127 --replace /dev/nvme2n1 --with /dev/nvme4n1'],
    'cut short between adding and copying',
  )
  const [array] = copying.arrays
  const copied = {
    ...copying,
    arrays: array
      ? [
          {
            ...array,
            members: array.members.map((one) =>
              one.slot === 1 && one.name === 'nvme2n1' ? { ...one, condition: 'faulty' as const } : one,
            ),
          },
        ]
      : [],
  }
  t.same(commands(replace(copied, 'AWS0002', 'AWS0004')), [
    'array.remove safe: --manage /dev/md127 --remove /dev/nvme2n1',
  ])
})

t.test('a replacement that is not possible', async (t) => {
  const refused = withArray({
    drives: [
      rootDrive,
      memberDrive(1),
      memberDrive(2),
      memberDrive(3),
      drive(4, { readOnly: true }),
      drive(5, { sizeBytes: 1e9 }),
    ],
  })
  t.same(commands(replace(refused, 'AWS0002', 'AWS0004')), [
    'array.replace-refused: nvme4n1 (AWS0004) is read-only',
  ])
  t.match(commands(replace(refused, 'AWS0002', 'AWS0005')), [
    /^array.replace-refused: nvme5n1 \(AWS0005\) is too small/,
  ])
  t.same(commands(replace(refused, 'AWS0002', 'AWS0003')), [
    'array.replace-refused: AWS0003 is in md/garrison already',
  ])
  t.same(commands(replace(refused, 'AWS0009', 'AWS0004')), [
    'array.replace-impossible: AWS0009 is no member of md/garrison',
  ])
  t.same(commands(replace(refused, 'AWS0002', 'AWS0009')), [
    'array.member-absent: no drive has serial AWS0009',
  ])
  t.same(commands(replace(host(), 'AWS0002', 'AWS0001')), [
    'array.replace-impossible: no array of ours is running',
  ])
})

t.test('times', async (t) => {
  t.same([0.2, 24.4, 59.7, 190, 1440 * 2 + 250].map(duration), [
    '1 min',
    '24 min',
    '1 h 0 min',
    '3 h 10 min',
    '2 d 4 h',
  ])
})
