// The parser of /proc/mdstat against what real machines printed.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type MdstatArray, parseMdstat } from '../../provisioning/array/mdstat.ts'

const folder = join(import.meta.dirname, '../../../shared/captures/mdstat')
const read = (name: string) => parseMdstat(readFileSync(join(folder, name), 'utf8'))

/** One array in a line: what it is, `numbers of its members` with flags, slots, progress. */
const digest = (array: MdstatArray): string => {
  const { kernelName, active, readOnly, personality, metadata, members, progress } = array
  const flags = members.map(
    (one) =>
      one.kernelName +
      (one.faulty ? '(F)' : '') +
      (one.spare ? '(S)' : '') +
      (one.replacement ? '(R)' : '') +
      (one.journal ? '(J)' : ''),
  )
  const devices = flags.length > 4 ? `${flags.length} members` : flags.join(' ')
  return [
    kernelName,
    active ? 'active' : 'inactive',
    ...(readOnly === 'no' ? [] : [`read-only:${readOnly}`]),
    personality ?? '-',
    metadata,
    devices,
    array.wantedDevices === null ? '-' : `${array.wantedDevices}/${array.workingDevices} ${array.slots}`,
    ...(progress
      ? [
          `${progress.action} ${progress.waits ?? `${progress.percent} % ${progress.minutesLeft} min ${progress.speedKibPerSecond} K/s`}`,
        ]
      : []),
  ].join(' | ')
}

const facts: Readonly<Record<string, readonly string[]>> = {
  'checkraid-issue64.txt': [
    'md2 | active | read-only:auto | raid1 | 1.2 | sdc3 sdd3 | 2/2 UU',
    'md1 | active | raid1 | 1.2 | sdc2 sdd2 | 2/2 UU',
    'md0 | active | read-only:auto | raid1 | 1.2 | sdc1 sdd1 | 2/2 UU',
  ],
  'checkraid-none.txt': [],
  'checkraid-pr185-1.txt': [
    'md1 | active | raid5 | 1.2 | 6 members | 5/5 UUUUU',
    'md2 | active | raid5 | 1.2 | 7 members | 5/5 UUUUU',
  ],
  'checkraid-pr28-2.txt': [
    'md1 | active | raid1 | 0.90 | sda2 sdb2 | 2/1 _U | resync delayed',
    'md0 | active | raid1 | 0.90 | sda1 sdb1 | 2/1 _U | recovery 3.9 % 267 min 12 K/s',
  ],
  'checkraid-pr77.txt': [
    'md1 | active | raid1 | 1.1 | sda2 sdb2 | 2/2 UU | resync delayed',
    'md0 | active | raid1 | 1.0 | sda1 sdb1 | 2/2 UU | check 6.4 % 3.3 min 97293 K/s',
  ],
  'checkraid-raid0.txt': ['md2 | active | raid0 | 1.2 | dm-15 dm-14 | -'],
  'checkraid-readd.txt': [
    'md0 | active | raid6 | 0.90 | 6 members | 6/5 U_UUUU | recovery 0.2 % 1638.2 min 14868 K/s',
  ],
  'checkraid-reshape-superold.txt': [
    'md0 | active | raid6 | 0.91 | 6 members | 6/4 UUUU__ | reshape 48.4 % 1271.8 min 9898 K/s',
  ],
  'ml-imsm-recovery-delayed.txt': [
    'md124 | active | raid5 | external:/md126/0 | sdc sdd sdb sde | 4/3 UU_U | recovery 0.2 % 222.5 min 70515 K/s',
    'md125 | active | raid5 | external:/md126/1 | sdc sdd sdb sde | 4/3 UU_U | resync delayed',
    'md126 | inactive | - | external:imsm | sdc(S) sdb(S) sdd(S) sde(S) | -',
  ],
  'ml-imsm-two-volumes.txt': [
    'md124 | active | raid5 | external:/md126/0 | sdd sdb sda sde | 4/4 UUUU',
    'md125 | active | raid5 | external:/md126/1 | sdd sdb sda sde | 4/4 UUUU',
    'md126 | inactive | - | external:imsm | sda(S) sdb(S) sdd(S) sde(S) | -',
  ],
  'ml-inactive-md480.txt': ['md480 | inactive | - | 1.2 | sdf1 sdd1 sdc1 | -'],
  'ml-inactive-no-flags.txt': ['md0 | inactive | - | 1.2 | 5 members | -'],
  'ml-md127-pending-raid10.txt': [
    'md1 | active | raid10 | 1.2 | sdb1 sdd1 sdc1 sda1 | 4/4 UUUU',
    'md127 | active | read-only:auto | raid10 | 1.2 | 10 members | 10/10 UUUUUUUUUU | resync pending',
  ],
  'ml-mixed-writemostly-nvme.txt': [
    'md1 | active | raid1 | 1.2 | sda2 sdb2 | 2/2 UU',
    'md0 | active | raid1 | 1.2 | sda1 nvme0n1p3 sdb1 | 3/3 UUU',
  ],
  'ml-nvme-broken-raid5.txt': ['md127 | active | raid5 | 1.2 | nvme5n1 nvme4n1(F) | 2/1 _U'],
  'ml-nvme-inactive-journal-missing.txt': [
    'md127 | inactive | - | 1.2 | nvme2n1(S) nvme0n1(S) nvme3n1(S) | -',
  ],
  'ml-nvme-raid10-pending.txt': [
    'md127 | active | raid10 | 1.2 | ram1 ram0 | 2/2 UU',
    'md3 | active | raid10 | 1.2 | 8 members | 8/8 UUUUUUUU | resync 37.2 % 754.4 min 206272 K/s',
    'md1 | active | raid10 | 1.2 | 8 members | 8/8 UUUUUUUU',
    'md0 | active | raid10 | 1.2 | 8 members | 8/8 UUUUUUUU',
    'md2 | active | read-only:auto | raid10 | 1.2 | 8 members | 8/8 UUUUUUUU | resync pending',
  ],
  'ml-nvme24-resync.txt': [
    'md1 | active | raid6 | 1.2 | 12 members | 12/12 UUUUUUUUUUUU',
    'md0 | active | raid6 | 1.2 | 12 members | 12/12 UUUUUUUUUUUU | resync 13.4 % 193 min 1120965 K/s',
  ],
  'ml-raid10-resync-one-device.txt': [
    'md4 | active | raid10 | 1.2 | sdb2 sda2 | 2/1 U_ | resync delayed',
    'md3 | active | raid10 | 1.2 | sda1 | 2/1 U_ | resync 6.8 % null min 0 K/s',
    'md2 | active | raid10 | 1.2 | nvme1n1p5 nvme0n1p5 | 2/1 _U | resync delayed',
    'md6 | active | raid10 | 1.2 | nvme0n1p6 | 2/1 _U | resync 38.3 % null min 0 K/s',
    'md1 | active | raid10 | 1.2 | nvme0n1p4 nvme1n1p4 | 2/2 UU',
    'md0 | active | raid1 | 0.90 | nvme1n1p3 nvme0n1p3 | 2/1 _U | resync delayed',
  ],
  'ml-raid6-check-loop.txt': [
    'md2 | active | raid6 | 1.2 | 16 members | 16/16 UUUUUUUUUUUUUUUU | check 47.1 % 671.8 min 102496 K/s',
    'md1 | active | raid6 | 1.2 | 16 members | 16/16 UUUUUUUUUUUUUUUU | check 38.5 % 811 min 98720 K/s',
    'md0 | active | raid6 | 1.2 | 16 members | 16/16 UUUUUUUUUUUUUUUU | check 42.3 % 911.9 min 82272 K/s',
  ],
  'ml-recovery-and-delayed.txt': [
    'md0 | active | raid1 | 0.90 | sda1 sdb1 | 2/1 _U | resync delayed',
    'md1 | active | raid1 | 0.90 | sda2 sdb2 | 2/1 _U | recovery 0.4 % 184.6 min 87083 K/s',
  ],
  'ml-reshape-99-9.txt': [
    'md0 | active | raid5 | 1.2 | sdf sdb sdd sdc | 4/3 UUU_ | reshape 99.9 % null min 0 K/s',
  ],
  'ml-reshape-slow.txt': [
    'md1 | active | raid10 | 1.2 | sdd1 sdc1 sdb1 sda1 | 4/4 UUUU',
    'md2 | active | raid10 | 1.2 | 10 members | 10/10 UUUUUUUUUU | reshape 22.1 % null min 261 K/s',
  ],
  'procfs-zoo.txt': [
    'md3 | active | raid6 | 1.2 | 10 members | 8/8 UUUUUUUU',
    'md127 | active | raid1 | 0.90 | sdi2 sdj2 | 2/2 UU',
    'md0 | active | raid1 | 0.90 | sdi1 sdj1 | 2/2 UU',
    'md4 | inactive | raid1 | 0.90 | sda3(F) sdb3(S) | 2/2 UU',
    'md6 | active | raid1 | 0.90 | sdb2(F) sdc(S) sda2 | 2/1 U_ | recovery 8.5 % 17 min 259783 K/s',
    'md8 | active | raid1 | 0.90 | sdb1 sda1 sdc(S) sde(S) | 2/2 UU | resync 8.5 % 17 min 259783 K/s',
    'md201 | active | raid1 | 1.2 | sda3 sdb3 | 2/2 UU | check 5.7 % 0.2 min 114176 K/s',
    'md7 | active | raid6 | 1.2 | sdb1 sde1 sdd1 sdc1(F) | 4/3 U_UU',
    'md9 | active | raid1 | 1.2 | 7 members | 4/4 UUUU | resync delayed',
    'md10 | active | raid0 | 0.90 | sda1 sdb1 | -',
    'md11 | active | read-only:auto | raid1 | 1.2 | 5 members | 2/2 UU | resync pending',
    'md12 | active | raid0 | 1.2 | sdc2 sdd2 | -',
    'md126 | active | raid0 | external:/md127/0 | sdb sdc | -',
    'md219 | inactive | - | external:imsm | sdb(S) sdc(S) sda(S) | -',
    'md00 | active | raid0 | 1.2 | xvdb | -',
    'md120 | active | linear | 1.2 | sda1 sdb1 | -',
    'md101 | active | read-only:yes | raid0 | 1.2 | sdb sdd sdc | -',
    'md42 | active | raid5 | 1.2 | sda1(S) sdd1 sde1 | 3/2 UU_ | reshape 56.1 % 1868.1 min 7640 K/s',
  ],
}

t.test('every capture', async (t) => {
  t.same(readdirSync(folder).sort(), Object.keys(facts).sort(), 'each has its facts here')
  for (const [name, expected] of Object.entries(facts)) t.same(read(name).map(digest), expected, name)
})

t.test('the number of a member is not its slot and can repeat', async (t) => {
  const [array] = read('procfs-zoo.txt')
  t.same(
    array?.members.filter(({ number }) => number === 10).map(({ kernelName }) => kernelName),
    ['sdc1', 'sdd1'],
  )
})

t.test('journal and replacement', async (t) => {
  const [array] = parseMdstat(
    'md5 : active raid5 sdd[4](J) sdc[3](R) sdb[1] sda[0]\n      10 blocks super 1.2 level 5 [2/2] [UU]\n',
  )
  t.equal(array && digest(array), 'md5 | active | raid5 | 1.2 | sdd(J) sdc(R) sdb sda | 2/2 UU')
})

t.test('an array that was begun and never got a member', async (t) => {
  const [array] = parseMdstat('Personalities : [raid6]\nmd127 : inactive \n      0 blocks super 1.2\n')
  t.equal(array && digest(array), 'md127 | inactive | - | 1.2 |  | -')
})
