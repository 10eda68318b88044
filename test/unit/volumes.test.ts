// The foreign interfaces of volumes: systemd's path names against systemd-escape itself, blkid against captures, argv and unit files.

import { execFileSync } from 'node:child_process'
import t from 'tap'
import type { Answer, HostReader } from '../../provisioning/host.ts'
import { mkfsExt4 } from '../../provisioning/volumes/ext4.ts'
import { volumes } from '../../provisioning/volumes/index.ts'
import { escapePath, mountUnit, unitMark } from '../../provisioning/volumes/mount-unit.ts'
import { observeSignature } from '../../provisioning/volumes/observe.ts'
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

t.test('the resource stands on the array and plans nothing that is not declared', async (t) => {
  t.same(volumes.needs, ['array'])
  const desired = { version: 1, host: {}, sources: {} } as const
  t.equal(volumes.declared(desired), false)
})
