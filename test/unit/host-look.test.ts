// Looks at the host: the parsers of what the kernel and programs tell, and that one part that cannot be read hides no other.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseSynchronised, parseTracking } from '../../agent/report/host/clock-source.ts'
import { parseLoad, parseProcessors } from '../../agent/report/host/cpu.ts'
import { parseDiskstats } from '../../agent/report/host/drives.ts'
import { Filesystems, mountedFilesystems } from '../../agent/report/host/filesystems.ts'
import { HostLooker } from '../../agent/report/host/look.ts'
import { parseMemory, parseOomKills } from '../../agent/report/host/memory.ts'
import { parsePressure } from '../../agent/report/host/pressure.ts'
import { installedSince, namedPackages } from '../../agent/report/host/reboot.ts'
import { SlowLooker } from '../../agent/report/host/slow-look.ts'
import { parseTaint } from '../../agent/report/host/taint.ts'
import { parseFailedUnits } from '../../agent/report/host/units.ts'
import { readNow } from '../../agent/report/proc-files.ts'
import { seenValue } from '../../agent/report/seen.ts'
import { HostError } from '../../provisioning/problem.ts'
import { heldClock } from './held-clock.ts'

const captures = join(import.meta.dirname, '../../../shared/captures')
const unexpected = { code: 'host.unexpected-answer' }

t.test('processors: guest time is counted once, steal is what others took', async (t) => {
  const stat =
    'cpu  100 20 30 400 50 6 4 40 90 10\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\nbtime 1763640000\n'
  t.same(parseProcessors(stat), {
    ticks: { total: 650, busy: 160, steal: 40, ioWait: 50 },
    processors: 2,
    bootedMs: 1763640000000,
  })
  t.throws(() => parseProcessors('cpu  1 2 3\nbtime 1\n'), unexpected)
  t.throws(() => parseProcessors(''), unexpected)
  t.ok(parseProcessors(readFileSync('/proc/stat', 'utf8')).ticks.total > 0)
})

t.test('load, memory, kills', async (t) => {
  t.same(parseLoad('11.66 12.13 9.69 17/375 21415\n'), { one: 11.66, fifteen: 9.69 })
  t.throws(() => parseLoad('busy'), unexpected)
  const meminfo =
    'MemTotal:       24684092 kB\nMemFree:        1 kB\nMemAvailable:   19092468 kB\nSwapTotal:       8 kB\nSwapFree:        2 kB\n'
  t.same(parseMemory(meminfo), {
    totalBytes: 24684092 * 1024,
    availableBytes: 19092468 * 1024,
    swapTotalBytes: 8192,
    swapFreeBytes: 2048,
  })
  t.throws(() => parseMemory('MemTotal: 1 kB\n'), unexpected)
  t.equal(parseOomKills('pgfault 12\noom_kill 3\n'), 3)
  t.equal(parseOomKills('pgfault 12\n'), null, 'an older kernel does not count them')
  t.throws(() => parseOomKills('nothing'), unexpected)
})

t.test('pressure as real machines tell it', async (t) => {
  const read = (name: string) => parsePressure(name, readFileSync(join(captures, 'system', name), 'utf8'))
  t.match(read('procfs-pressure-io.txt'), { someUs: 15, fullUs: 25 })
  t.match(read('telegraf-cgroup-io-pressure.txt'), { someUs: Number, fullUs: Number })
  t.match(parsePressure('/x', 'some avg10=0.00 avg60=0.00 avg300=0.00 total=77\n'), {
    someUs: 77,
    fullUs: null,
  })
  t.throws(() => parsePressure('/x', 'Operation not supported'), unexpected)
})

t.test('drives, not what lies on them', async (t) => {
  const text = ' 259 0 disk 10 1 16 5 20 2 32 7 0 9 12 0 0 0 0 3 4\n 259 1 diskp1 1 1 1 1 1 1 1 1 0 1 1\n'
  t.same(Object.fromEntries(parseDiskstats(text, (name) => name === 'disk')), {
    disk: { reads: 10, readBytes: 8192, readMs: 5, writes: 20, writtenBytes: 16384, writeMs: 7, busyMs: 9 },
  })
  t.equal(parseDiskstats('', () => true).size, 0)
  t.throws(() => parseDiskstats(' 7 0 loop0 1 2\n', () => true), unexpected)
})

t.test('the kernel against itself', async (t) => {
  t.same(parseTaint('0\n'), [])
  t.same(parseTaint('12289\n'), [], 'where modules come from is no reason to look')
  t.match(parseTaint(`${(1 << 9) | (1 << 7)}\n`), [{ severity: 'high' }, { severity: 'notice' }])
  t.throws(() => parseTaint('P\n'), unexpected)
})

t.test('failed units', async (t) => {
  const json =
    '[{"unit":"a.service","load":"loaded","active":"failed","sub":"failed","description":"The A"},{"unit":"b.mount","load":"loaded","active":"failed","sub":"failed","description":""}]'
  t.same(parseFailedUnits(json), [
    { unit: 'a.service', description: 'The A' },
    { unit: 'b.mount', description: '' },
  ])
  t.same(parseFailedUnits('[]\n'), [])
  const table = readFileSync(join(captures, 'system/jc-systemctl-list-units.txt'), 'utf8')
  t.throws(() => parseFailedUnits(table), unexpected, 'a systemd that knows no JSON prints its table')
  t.throws(() => parseFailedUnits('{}'), unexpected)
})

t.test('the clock', async (t) => {
  const tracking = (offset: string, leap: string) =>
    `A9FEA97B,169.254.169.123,4,1763640000.1,${offset},-0.0000012,0.000005,-8.1,0.0,0.01,0.0003,0.0002,16.1,${leap}\n`
  t.same(parseTracking(tracking('-0.250', 'Normal')), { synchronised: true, offsetMs: -250 })
  t.same(parseTracking(tracking('0.0', 'Not synchronised')), { synchronised: false, offsetMs: 0 })
  t.throws(() => parseTracking('506 Cannot talk to daemon'), unexpected)
  t.same(parseSynchronised('yes\n'), { synchronised: true, offsetMs: null })
  t.throws(() => parseSynchronised(''), unexpected)
})

t.test('what waits for a reboot', async (t) => {
  const rpm = 'kernel-core 100\nkernel-core 300\npackage kernel-rt is not installed\nglibc 400\nsystemd 50\n'
  t.same(installedSince(rpm, 200_000), ['kernel-core', 'glibc'])
  t.throws(() => installedSince('error: cannot open Packages database\n', 0), unexpected)
  t.same(namedPackages('linux-image-6.1\nlibc6\nlibc6\n'), ['linux-image-6.1', 'libc6'])
})

const mountinfo = [
  '1 0 259:2 / / rw,relatime shared:1 - xfs /dev/mapper/rl-root rw,attr2',
  '2 1 259:2 /var/tmp /var/tmp rw - xfs /dev/mapper/rl-root rw,attr2',
  '3 1 253:4 / /var/lib/libvirt/images ro - ext4 /dev/garrison/images ro,errors=remount-ro',
  '4 1 0:30 / /run rw - tmpfs tmpfs rw',
  '5 1 0:31 /@home /home rw - btrfs /dev/bt rw,subvol=/@home',
  '6 1 0:40 / /nfs rw - nfs4 server:/x rw',
  '7 1 253:4 / /mnt/elsewhere rw - ext4 /dev/garrison/images ro',
].join('\n')

t.test('filesystems on drives, each once', async (t) => {
  t.same(mountedFilesystems(mountinfo), [
    { mountpoint: '/', source: '/dev/mapper/rl-root', number: '259:2', readOnly: false },
    { mountpoint: '/home', source: '/dev/bt', number: '0:31', readOnly: false },
    { mountpoint: '/mnt/elsewhere', source: '/dev/garrison/images', number: '253:4', readOnly: true },
  ])
})

t.test('a filesystem that hangs is asked once, and no more than two are waited for', async (t) => {
  const clock = heldClock()
  const asked: string[] = []
  const room = { sizeBytes: 100, freeBytes: 40, inodes: 0, freeInodes: 0 }
  let release = () => {}
  const filesystems = new Filesystems({
    clock,
    list: (path) =>
      ({ '/sys/dev/block/259:2/slaves': ['md127'], '/sys/class/block/md127/slaves': ['sda', 'sdb'] })[path] ??
      null,
    deadlineMs: 3000,
    capacity: (path) => {
      asked.push(path)
      return path === '/home'
        ? new Promise((resolve) => (release = () => resolve(room)))
        : Promise.resolve(room)
    },
  })
  const looking = filesystems.look(mountinfo)
  await clock.pass(3000)
  t.match(await looking, [
    { mountpoint: '/', on: ['md127', 'sda', 'sdb', 'rl'], capacity: room, silentMs: null },
    { mountpoint: '/home', on: null, capacity: null, silentMs: 3000 },
    { mountpoint: '/mnt/elsewhere', on: [], capacity: room },
  ])
  await clock.pass(57_000)
  t.match((await filesystems.look(mountinfo))[1], { capacity: null, silentMs: 60_000 })
  t.equal(asked.filter((path) => path === '/home').length, 1)
  release()
  await clock.pass(0)
  t.match((await filesystems.look('')).length, 0)
  const again = filesystems.look(mountinfo)
  await clock.pass(0)
  release()
  await clock.pass(0)
  t.match((await again)[1], { capacity: room, silentMs: null })
})

const files: Record<string, string | Error> = {
  '/proc/stat': 'cpu  1 0 0 1 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\nbtime 5\n',
  '/proc/loadavg': 'nonsense',
  '/proc/meminfo': new HostError('host.denied', '/proc/meminfo could not be read (EACCES)'),
  '/proc/vmstat': 'pgfault 1\noom_kill 0\n',
  '/proc/diskstats': ' 259 0 disk 10 1 16 5 20 2 32 7 0 9 12\n 7 0 loop0 1 1 1 1 1 1 1 1 0 1 1\n',
  '/proc/net/dev':
    'Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    up: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n  vnet0: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n   off: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n',
  '/sys/class/net/up/flags': '0x1003\n',
  '/sys/class/net/up/carrier': '0\n',
  '/sys/class/net/off/flags': '0x1002\n',
  '/proc/sys/kernel/tainted': '0\n',
}
const read = (path: string): string | null => {
  const found = files[path]
  if (found instanceof Error) throw found
  return found ?? null
}

t.test('a look: a part that cannot be read says so, and no other part is lost with it', async (t) => {
  const looker = new HostLooker({
    read,
    list: (path) => (path === '/sys/block' ? ['disk', 'loop0'] : null),
    exists: (path) => /net\/(up|off)\/device$/.test(path),
    clock: heldClock(),
  })
  const look = looker.look()
  t.match(seenValue(look.processors), { processors: 1 })
  t.match(look.load, { problem: { code: 'host.unexpected-answer' } })
  t.match(look.memory, { problem: { code: 'host.denied' } })
  t.same([...(seenValue(look.drives)?.keys() ?? [])], ['disk'])
  t.same([...(seenValue(look.nics)?.keys() ?? [])], ['up', 'off'], 'those of VMs are none of the host')
  t.same(seenValue(look.links), [
    { name: 'up', carrier: false },
    { name: 'off', carrier: null },
  ])
  t.same(look.arrays, { value: [] }, 'no md at all')
  t.same(look.pressure.cpu, { value: null }, 'a kernel without it')
})

t.test('this very machine can be looked at', async (t) => {
  const looker = new HostLooker({ read: readNow, list: () => [], exists: () => true, clock: heldClock() })
  const look = looker.look()
  for (const part of [
    'processors',
    'load',
    'memory',
    'oomKills',
    'drives',
    'nics',
    'arrays',
    'taint',
  ] as const)
    t.ok('value' in look[part], part)
})

t.test('the rare look: each part at its time, and a program that fails is no settled part', async (t) => {
  const clock = heldClock()
  const asked: string[] = []
  let chrony = true
  const slow = new SlowLooker({
    read: (path) => (path === '/proc/self/mountinfo' ? mountinfo : null),
    list: () => null,
    exists: (path) => (path === '/usr/bin/chronyc' ? chrony : path === '/usr/bin/rpm'),
    capacity: async () => null,
    clock,
    async query([program, ...args]) {
      asked.push(program.split('/').at(-1) ?? '')
      if (program.endsWith('systemctl')) return { exit: 1, stdout: '', stderr: 'Failed to connect to bus' }
      if (program.endsWith('chronyc')) return { exit: 1, stdout: '506 Cannot talk to daemon', stderr: '' }
      if (program.endsWith('timedatectl')) return { exit: 0, stdout: 'no\n', stderr: '' }
      t.ok(args.includes('--query'))
      return { exit: 8, stdout: 'kernel-core 50\nglibc 9\n', stderr: '' }
    },
  })
  await slow.look(20_000)
  t.match(slow.seen, {
    failedUnits: { problem: { code: 'host.unreadable', message: /Failed to connect to bus/ } },
    clock: { value: { synchronised: false, offsetMs: null } },
    reboot: { value: ['kernel-core'] },
  })
  t.same(asked.sort(), ['chronyc', 'rpm', 'systemctl', 'timedatectl'])
  asked.length = 0
  await clock.pass(59_000)
  await slow.look(20_000)
  t.same(asked, [])
  await clock.pass(1000)
  await slow.look(20_000)
  t.same(asked, ['systemctl'])
  asked.length = 0
  chrony = false
  await clock.pass(3_600_000)
  await slow.look(20_000)
  t.same(asked.sort(), ['rpm', 'systemctl', 'timedatectl'])
})
