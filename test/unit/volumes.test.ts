// The foreign interfaces of volumes: systemd's path names against systemd-escape itself, blkid against captures, argv and unit files.

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import type { Answer, HostReader } from '../../provisioning/host.ts'
import { observeSignature, parseBlkidProbe } from '../../provisioning/volumes/blkid.ts'
import { mkfsExt4 } from '../../provisioning/volumes/ext4.ts'
import { volumes } from '../../provisioning/volumes/index.ts'
import { escapePath, mountUnit, unitMark } from '../../provisioning/volumes/mount-unit.ts'
import { volumesInBackup } from '../../provisioning/volumes/observe.ts'
import { extentKiB } from '../../provisioning/volumes/plan.ts'
import { labelActions, observeLabel, parseMatchpathcon } from '../../provisioning/volumes/selinux.ts'
import { mkfsXfs } from '../../provisioning/volumes/xfs.ts'

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

t.test('blkid: a type, a partition table, several, nothing, and what is not known', async (t) => {
  const captures = new URL('../../../shared/captures/volumes/', import.meta.url)
  t.ok(readdirSync(captures).length > 0, 'the captures are there')
  const xfs =
    'DEVNAME=/dev/dm-0\nLABEL=images\nUUID=0a1b2c3d-1111-2222-3333-444455556666\nBLOCK_SIZE=512\nTYPE=xfs\nUSAGE=filesystem\n'
  t.same(parseBlkidProbe(0, xfs), { type: 'xfs', uuid: '0a1b2c3d-1111-2222-3333-444455556666' })
  t.same(parseBlkidProbe(0, 'DEVNAME=/dev/md127\nPTUUID=8e9aeed1\nPTTYPE=gpt\n'), {
    type: 'gpt partition table',
    uuid: null,
  })
  t.same(parseBlkidProbe(8, ''), { type: 'several signatures', uuid: null })
  t.equal(parseBlkidProbe(2, ''), null)
  t.throws(() => parseBlkidProbe(0, 'DEVNAME=/dev/md127\n'), { code: 'host.unexpected-answer' })
  t.throws(() => parseBlkidProbe(4, ''), { code: 'host.unexpected-answer' })
  // The same member as another output format tells it must not pass for an answer in this one.
  const udev = readFileSync(new URL('blkid-mdraid-1.txt', captures), 'utf8')
  t.throws(() => parseBlkidProbe(0, udev), { code: 'host.unexpected-answer' })

  const asked: (readonly string[])[] = []
  const query = async (argv: readonly string[]): Promise<Answer> => {
    asked.push(argv)
    return { exit: 0, stdout: xfs, stderr: '' }
  }
  t.match(await observeSignature({ query } as unknown as HostReader, '/dev/garrison/images'), { type: 'xfs' })
  t.same(asked, [['/usr/sbin/blkid', '--probe', '--output', 'export', '--', '/dev/garrison/images']])
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

t.test('the volumes in a backup of LVM', async (t) => {
  const backup = [
    'garrison {\n\tid = "a"\n\tphysical_volumes {\n\n\t\tpv0 {\n\t\t\tid = "b"\n\t\t}\n\t}\n',
    '\tlogical_volumes {\n\n\t\timages {\n\t\t\tid = "c"\n\n\t\t\tsegment1 {\n\t\t\t\tstart_extent = 0\n\t\t\t}\n\t\t}\n',
    '\n\t\tback.up-2 {\n\t\t\tid = "d"\n\t\t}\n\t}\n\n\thistorical {\n\t\told {\n\t\t}\n\t}\n}\n',
  ]
  t.same(volumesInBackup(`contents = "Text Format Volume Group"\n\n${backup.join('\n')}`), [
    'images',
    'back.up-2',
  ])
  t.same(volumesInBackup('garrison {\n\tid = "a"\n}\n'), [])
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

t.test('the resource stands on the array and plans nothing that is not declared', async (t) => {
  t.same(volumes.needs, ['array'])
  const desired = { version: 1, host: {}, sources: {} } as const
  t.equal(volumes.declared(desired), false)
})
