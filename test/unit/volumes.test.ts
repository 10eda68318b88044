// The foreign interfaces of volumes: systemd's path names against systemd-escape itself, blkid against captures, argv and unit files.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { blkid } from '../../provisioning/block/blkid.ts'
import { dumpe2fs } from '../../provisioning/block/dumpe2fs.ts'
import { lvmFullReport } from '../../provisioning/block/lvm.ts'
import { type Desired, desiredSchema, nothingDesired } from '../../provisioning/desired.ts'
import type { Answer, HostReader, MountTable } from '../../provisioning/host.ts'
import { mkfsExt4 } from '../../provisioning/volumes/ext4.ts'
import { volumes } from '../../provisioning/volumes/index.ts'
import { extentKiB } from '../../provisioning/volumes/lvm.ts'
import { escapePath, mountUnit, unitMark } from '../../provisioning/volumes/mount-unit.ts'
import { observe, observeSignature } from '../../provisioning/volumes/observe.ts'
import { labelActions, observeLabel, parseMatchpathcon } from '../../provisioning/volumes/selinux.ts'
import { mkfsXfs } from '../../provisioning/volumes/xfs.ts'
import { type Reading, readTranscript, replay } from '../observe/replay.ts'

t.test('unit names are those of systemd-escape --path', async (t) => {
  const paths = [
    '/var/lib/libvirt/images',
    '/srv/a b',
    '/.hidden/.too',
    '/srv/with-dash_and:colon.dot',
    '/srv/é/日本',
    "/srv/'quote'/\\back/%h/@x",
    '/dev/disk/by-uuid/0a1b2c3d-1111-2222-3333-444455556666',
    '/a\tb\u0001',
  ]
  const expected = execFileSync('/usr/bin/systemd-escape', ['--path', '--', ...paths], { encoding: 'utf8' })
  t.same(paths.map(escapePath), expected.trim().split(' '))
})

t.test('what a device is marked as', async (t) => {
  const observe = (exit: number, stdout: string) => {
    const query = async (): Promise<Answer> => ({ exit, stdout, stderr: '' })
    return observeSignature({ query } as unknown as HostReader, '/dev/garrison/images')
  }
  const uuid = '0a1b2c3d-1111-2222-3333-444455556666'
  t.same(await observe(0, `ID_FS_UUID=${uuid}\nID_FS_TYPE=xfs\nID_FS_USAGE=filesystem\n`), {
    type: 'xfs',
    uuid,
  })
  t.same(await observe(0, 'ID_PART_TABLE_UUID=8e9a\nID_PART_TABLE_TYPE=gpt\n'), {
    type: 'gpt partition table',
    uuid: null,
  })
  t.same(await observe(8, ''), { type: 'several signatures', uuid: null })
  t.equal(await observe(2, ''), null)
  await t.rejects(observe(0, 'ID_FS_USAGE=other\n'), { code: 'host.unexpected-answer' })
  await t.rejects(observe(4, ''), { code: 'host.unexpected-answer' })
})

t.test('extents are whole stripes of at least 4 MiB that LVM takes', async (t) => {
  t.equal(extentKiB(null), 4096)
  t.equal(extentKiB({ chunkBytes: 512 * 1024, dataMembers: 2 }), 4096)
  t.equal(extentKiB({ chunkBytes: 512 * 1024, dataMembers: 3 }), 4608)
  for (const chunk of [64, 128, 256, 512, 1024]) {
    for (let dataMembers = 1; dataMembers <= 62; dataMembers += 1) {
      const extent = extentKiB({ chunkBytes: chunk * 1024, dataMembers })
      if (extent % (chunk * dataMembers) !== 0 || extent < 4096 || extent % 128 !== 0)
        t.fail(`${chunk} KiB x ${dataMembers}: ${extent} KiB`)
    }
  }
})

t.test('mkfs is told the geometry, the label is cut, nothing is discarded', async (t) => {
  const uuid = '0a1b2c3d-1111-8222-8333-444455556666'
  const geometry = { chunkBytes: 512 * 1024, dataMembers: 3 }
  const name = 'a_very_long_volume_name'
  t.equal(
    mkfsXfs('/dev/g/v', { name, uuid, geometry, sizeBytes: 2 ** 40 }).join(' '),
    `/usr/sbin/mkfs.xfs -f -K -m uuid=${uuid} -L a_very_long_ -d su=512k,sw=3 -l su=8b -- /dev/g/v`,
  )
  t.equal(
    mkfsExt4('/dev/g/v', { name, uuid, geometry, sizeBytes: 2 ** 40 }).join(' '),
    `/usr/sbin/mkfs.ext4 -F -q -b 4096 -E nodiscard,stride=128,stripe_width=384 -U ${uuid} -L a_very_long_volu -- /dev/g/v`,
  )
  t.notMatch(
    mkfsXfs('/dev/g/v', { name, uuid, geometry, sizeBytes: 400 * 2 ** 20 }),
    ['-d'],
    'no group of a small striped xfs would hold the log',
  )
  t.notMatch(mkfsXfs('/dev/g/v', { name, uuid, geometry: null, sizeBytes: 2 ** 40 }), ['-d'])
  t.match(
    mkfsExt4('/dev/g/v', { name, uuid, geometry: null, sizeBytes: 2 ** 40 }).join(' '),
    ' -E nodiscard -U',
  )
})

t.test('a mount unit', async (t) => {
  const unit = mountUnit({
    name: 'images',
    group: 'garrison',
    path: '/srv/100%/x y',
    uuid: '0a1b-2c',
    filesystem: 'ext4',
  })
  t.equal(unit.name, 'srv-100\\x25-x\\x20y.mount')
  t.equal(unit.path, '/etc/systemd/system/srv-100\\x25-x\\x20y.mount')
  t.equal(unit.wantedPath, '/etc/systemd/system/local-fs.target.wants/srv-100\\x25-x\\x20y.mount')
  t.equal(unit.devicePath, '/etc/systemd/system/dev-disk-by\\x2duuid-0a1b\\x2d2c.device.d/50-garrison.conf')
  t.ok(unit.text.startsWith(`${unitMark}\n[Unit]\n`))
  t.match(unit.text, '\nWhere=/srv/100%%/x y\n')
  t.match(unit.text, '\nOptions=nofail\n')
  t.match(unit.text, '\nRequires=systemd-fsck@dev-disk-by\\x2duuid-0a1b\\x2d2c.service\n')
  t.match(unit.deviceText, '\n[Unit]\nJobRunningTimeoutSec=60\n')
  const xfs = mountUnit({ name: 'a', group: 'g', path: '/a', uuid: '1', filesystem: 'xfs' })
  t.notMatch(xfs.text, 'fsck')
})

t.test('SELinux labels', async (t) => {
  const wrong = {
    observed: 'system_u:object_r:unlabeled_t:s0',
    wanted: 'system_u:object_r:virt_image_t:s0',
  }
  t.equal(parseMatchpathcon('/srv/a verified.\n'), null)
  t.same(parseMatchpathcon(`/srv/a has context ${wrong.observed}, should be ${wrong.wanted}\n`), wrong)
  t.throws(() => parseMatchpathcon('/srv/a error: No such file\n'), { code: 'host.unexpected-answer' })
  const run = (path: string, wanted: string) =>
    labelActions(path, { ...wrong, wanted }).map((action) => action.kind === 'run' && action.argv.join(' '))
  t.same(run('/srv/a', wrong.wanted), ['/usr/sbin/restorecon /srv/a'])
  t.same(run('/vms.1', 'system_u:object_r:default_t:s0'), [
    '/usr/sbin/semanage fcontext --add --type virt_image_t /vms\\.1(/.*)?',
    '/usr/sbin/restorecon /vms.1',
  ])
  const reader = (enabled: boolean, stdout: string) =>
    ({
      facts: async () => (enabled ? { kind: 'file' } : null),
      query: async () => ({ exit: 1, stdout, stderr: '' }),
    }) as unknown as HostReader
  t.equal(await observeLabel(reader(false, ''), '/a'), null, 'SELinux is off: nothing is asked')
  t.equal(await observeLabel(reader(true, '/a has context a:b:c:s0, should be <<none>>\n'), '/a'), null)
  t.match(await observeLabel(reader(true, '/a has context a:b:c:s0, should be a:b:d:s0\n'), '/a'), {
    wanted: 'a:b:d:s0',
  })
})

const recorded = join(import.meta.dirname, '../observe/volumes/debian12-settled')
const transcript = await readTranscript(join(recorded, 'transcript.jsonl'))
const desired: Desired = {
  ...desiredSchema.parse(parse(readFileSync(join(recorded, 'desired.yaml'), 'utf8'))),
  sources: {},
}

/** What is observed of the recorded host when some answers are others; a later reading of the same call counts. */
const observeWith = (readings: readonly Reading[], wanted: Desired = desired) =>
  observe(replay([...transcript, ...readings]), wanted)

const md = '/sys/block/md127/md'
const reads = (path: string, answer: string | null): Reading => ({ call: 'readText', args: [path], answer })
const tables = transcript.find(({ call }) => call === 'mountTables')?.answer as readonly MountTable[]

t.test('how each level spreads bytes', async (t) => {
  const geometry = async (level: string, members: string, layout = '2') => {
    const { array } = await observeWith([
      reads(`${md}/level`, `${level}\n`),
      reads(`${md}/raid_disks`, `${members}\n`),
      reads(`${md}/layout`, `${layout}\n`),
    ])
    return array?.geometry === null ? null : array?.geometry.dataMembers
  }
  t.equal(await geometry('raid5', '3'), 2)
  t.equal(await geometry('raid5', '4 (3)'), 3, 'while it is reshaped')
  t.equal(await geometry('raid6', '6'), 4)
  t.equal(await geometry('raid0', '3'), 3)
  t.equal(await geometry('raid10', '4', '258'), 2)
  t.equal(await geometry('raid10', '3', '258'), 3)
  t.equal(await geometry('raid1', '2'), null)
  await t.rejects(observeWith([reads(`${md}/level`, null)]), { code: 'host.unreadable' })
  await t.rejects(observeWith([reads(`${md}/chunk_size`, '')]), { code: 'host.unreadable' })
})

t.test('a namespace of the agent that hides a folder is not believed', async (t) => {
  const [host] = tables
  t.ok(host?.own)
  const mountinfo = host?.mountinfo ?? ''
  const inOwn = (more: string): Reading => ({
    call: 'mountTables',
    args: [],
    answer: [
      { pid: 4711, own: true, mountinfo: `${mountinfo}${more}` },
      { pid: 1, own: false, mountinfo },
    ],
  })
  t.match(await observeWith([inOwn('')]), { groupName: 'garrison' })
  await t.rejects(observeWith([inOwn('99 1 0:77 / /srv rw - tmpfs tmpfs rw\n')]), {
    code: 'host.unreadable',
    message: 'the agent does not see /srv/vms as the rest of the host does',
  })
})

t.test('what is in the way of a mount', async (t) => {
  const placeOf = async (...readings: Reading[]) =>
    (await observeWith(readings)).volumes.find(({ name }) => name === 'backup')?.place
  t.match(await placeOf(reads('/etc/fstab', '# a\nUUID=1 /srv/back-up\\040x ext4 defaults 0 0\n')), {
    fstabLine: 2,
  })
  t.match(await placeOf(reads('/etc/fstab', '#UUID=1 /srv/back-up\\040x ext4\n')), { fstabLine: null })
  t.match(await placeOf({ call: 'resolve', args: ['/srv/back-up x'], answer: '/mnt/b' }), {
    realPath: '/mnt/b',
  })
  t.match(
    await placeOf(
      { call: 'resolve', args: ['/srv/back-up x'], answer: null },
      { call: 'resolve', args: ['/srv'], answer: '/data' },
    ),
    { realPath: '/data/back-up x' },
  )
})

t.test('what cannot be told is said to be so', async (t) => {
  const lvm: Reading = {
    call: 'query',
    args: [lvmFullReport()],
    error: { code: 'host.tool-missing', message: 'no lvm' },
  }
  await t.rejects(observeWith([lvm]), { code: 'host.tool-missing', message: /lvm2 is not installed/ })
  const { groups } = await observeWith([
    lvm,
    { call: 'resolve', args: ['/dev/md/garrison'], answer: null },
    reads('/etc/lvm/backup/garrison', null),
    { call: 'facts', args: ['/dev/garrison'], answer: null },
  ])
  t.same(groups, [], 'without an array it is a forecast')
  await t.rejects(observeWith([{ ...lvm, error: { code: 'host.denied', message: 'root only' } }]), {
    code: 'host.denied',
  })
  await t.rejects(observeWith([reads('/etc/machine-id', '')]), { code: 'host.unreadable' })
  const getent = (exit: number, stdout: string): Reading => ({
    call: 'query',
    args: [['/usr/bin/getent', 'group', '--', 'kvm']],
    answer: { exit, stdout, stderr: '' },
  })
  await t.rejects(observeWith([getent(1, '')]), { code: 'host.unexpected-answer' })
  await t.rejects(observeWith([getent(0, 'kvm:x:\n')]), { code: 'host.unexpected-answer' })
  const size = (argv: readonly string[]): Reading => ({
    call: 'query',
    args: [argv],
    answer: { exit: 1, stdout: '', stderr: 'Input/output error' },
  })
  await t.rejects(observeWith([size(dumpe2fs('/dev/garrison/backup'))]), {
    code: 'host.unreadable',
    message: 'the size of ext4 on /dev/garrison/backup: Input/output error',
  })
})

t.test('a group that is gone, and one that was begun', async (t) => {
  const none: Reading = {
    call: 'query',
    args: [lvmFullReport()],
    answer: { exit: 0, stdout: '{"report": []}', stderr: '' },
  }
  const blank: readonly Reading[] = [
    none,
    { call: 'query', args: [blkid('/dev/md/garrison')], answer: { exit: 2, stdout: '', stderr: '' } },
    { call: 'sample', args: ['/dev/md/garrison'], answer: { sampledBytes: 1, nonZeroAt: 4096 } },
    { call: 'facts', args: ['/dev/garrison'], answer: null },
  ]
  const begun: Reading = { call: 'unfinishedSteps', args: [], answer: [{ key: 'volumes.group' }] }
  const backup = 'garrison {\n\tlogical_volumes {\n\n\t\timages {\n\t\t\tid = "c"\n\t\t}\n\t}\n}\n'
  t.match(await observeWith([...blank, begun, reads('/etc/lvm/backup/garrison', null)]), {
    interrupted: true,
    lost: [],
    array: { content: { signature: null, nonZeroAt: 4096 } },
  })
  t.match(await observeWith([...blank, begun, reads('/etc/lvm/backup/garrison', backup)]), {
    interrupted: false,
    lost: ['images'],
  })
})

t.test('the resource stands on the array and says what it sees when nothing is declared', async (t) => {
  t.same(volumes.needs, ['array'])
  t.equal(volumes.declared(nothingDesired), false)
  const observed = await observeWith([], nothingDesired)
  t.same(volumes.plan(observed, nothingDesired), [])
  t.equal(volumes.describe(observed, nothingDesired), 'not declared; garrison')
  t.equal(volumes.describe({ ...observed, groups: [] }, nothingDesired), 'not declared')
  const lost = Array.from({ length: 20 }, (_, index) => `volume${index}`)
  const line = volumes.describe({ ...observed, groupName: 'garrison', lost }, nothingDesired)
  t.equal(line.length, 60, line)
})
