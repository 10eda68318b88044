// The parsers of what tells about drives: wipefs, blkid, nvme, libvirt's definitions, and the files that name devices.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseVmUses } from '../../provisioning/array/domains.ts'
import { parseCrypttab, parseFstab, parseUnitWhat } from '../../provisioning/array/names.ts'
import { criticalWarnings, parseSmartLog } from '../../provisioning/array/nvme.ts'
import { parseWipefs } from '../../provisioning/array/wipefs.ts'
import { parseBlkid, probedOf } from '../../provisioning/block/blkid.ts'

const captures = join(import.meta.dirname, '../../../shared/captures')
const read = (name: string) => readFileSync(join(captures, name), 'utf8')

t.test('wipefs', async (t) => {
  // util-linux 2.38.1 on a drive of 256 MiB with sectors of 4096 bytes whose primary GPT was zeroed.
  const backup =
    '{\n   "signatures": [\n      {\n         "device": "loop1",\n         "offset": "0xffff000",\n         "type": "gpt",\n         "uuid": null,\n         "label": null\n      }\n   ]\n}\n'
  t.same(parseWipefs(backup), [{ offset: 268431360, type: 'gpt', uuid: null, label: null }])
  t.same(parseWipefs('{\n   "signatures": [\n\n   ]\n}\n'), [], 'blank, 2.38')
  t.same(parseWipefs(''), [], 'blank, 2.37')
  t.throws(() => parseWipefs('{"signatures":[{"offset":"twelve","type":"gpt"}]}'), {
    code: 'host.unexpected-answer',
  })
  // The capture holds only the end of a test of util-linux: not an answer, so not taken for 'no signatures'.
  t.throws(() => parseWipefs(read('volumes/wipefs-wipefs.txt')), { code: 'host.unexpected-answer' })
})

t.test('blkid', async (t) => {
  t.match(parseBlkid(read('volumes/blkid-mdraid-1.txt')), {
    type: 'linux_raid_member',
    version: '1.2',
    uuid: '77e61baf-c0b5-d7d0-39cf-575b64d4878c',
    label: 'host.example.net:0',
    partitionTable: null,
  })
  const [first = '', second = ''] = read('volumes/jc-blkid-ip-udev-multi.txt').split('\n\n')
  t.match(parseBlkid(first), { type: 'ext4', uuid: '011527a0-c72a-4c00-a50e-ee90da26b6e2' })
  t.match(
    parseBlkid(second),
    { type: null, partitionTable: null },
    'what it is a part of is not what is on it',
  )
  t.match(parseBlkid('ID_PART_TABLE_UUID=85a723f5\nID_PART_TABLE_TYPE=gpt\n'), { partitionTable: 'gpt' })
  const answer = { stdout: '', stderr: '' }
  t.match(probedOf({ exit: 2, ...answer }), { type: null, ambivalent: false })
  t.match(probedOf({ exit: 8, ...answer }), { type: null, ambivalent: true })
  t.throws(() => probedOf({ exit: 4, ...answer }), { code: 'host.unexpected-answer' })
})

t.test('nvme smart-log', async (t) => {
  const healthy = { criticalWarning: 0, usedPercent: 2, sparePercent: 100, mediaErrors: 0 }
  for (const name of readdirSync(join(captures, 'nvme')).filter((one) => one.includes('smart-log')))
    t.same(parseSmartLog(read(`nvme/${name}`)), healthy, name)
  t.same(
    parseSmartLog(
      '{"critical_warning":"9","percentage_used":"104","available_spare":"3","media_errors":"12"}',
    ),
    { criticalWarning: 9, usedPercent: 104, sparePercent: 3, mediaErrors: 12 },
    'numbers as strings',
  )
  t.match(parseSmartLog('{"critical_warning":{"value":4,"available_spare":0}}'), {
    criticalWarning: 4,
    usedPercent: null,
  })
  // A list of drives is not a health log, whichever of its shapes.
  for (const name of ['netdata-list-2.11.json', 'netdata-list-empty.json'])
    t.throws(() => parseSmartLog(read(`nvme/${name}`)), { code: 'host.unexpected-answer' }, name)
  t.throws(() => parseSmartLog(read('nvme/libnvme-tree-apple-nvme.txt')), { code: 'host.unexpected-answer' })
  t.same(criticalWarnings({ ...healthy, criticalWarning: 9 }), [
    'spare blocks are low',
    'it has become read-only',
  ])
  t.same(criticalWarnings({ ...healthy, criticalWarning: 64 }), ['unknown warning 64'])
  t.same(criticalWarnings(healthy), [])
})

t.test('domains and pools', async (t) => {
  const [ovirt] = parseVmUses(read('libvirt/ovirt-before-commit.xml'), 'ovirt-before-commit.xml')
  t.equal(ovirt?.kind, 'domain')
  t.equal(ovirt?.paths.filter((path) => path.startsWith('/rhev/')).length, 3, 'the whole backing chain')
  t.same(parseVmUses(read('libvirt/pool-dir.xml'), 'x'), [
    { kind: 'pool', name: 'pool-dir2', paths: ['/var/lib/libvirt/images/pool-dir2'], pci: [], scsi: [] },
  ])
  t.match(parseVmUses(read('libvirt/pool-logical.xml'), 'x'), [
    { kind: 'pool', name: 'pool-logical', paths: [] },
  ])
  for (const name of ['caps-kvm.xml', 'domcaps.xml', 'kubevirt-domcaps-sevsnp.xml', 'net-open.xml'])
    t.same(
      parseVmUses(read(`libvirt/${name}`), name).flatMap(({ paths, pci }) => [...paths, ...pci]),
      [],
      `${name} uses nothing`,
    )
  // Pieces of a domain without the domain around them are no definition.
  t.throws(() => parseVmUses(read('libvirt/kubevirt-numa.xml'), 'x'), { code: 'host.unexpected-answer' })
})

t.test('a running domain with everything', async (t) => {
  const xml = `<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domstatus state='running'><domain type='kvm'><name>web &amp; db</name><devices>
  <disk type='block' device='disk'><source dev='/dev/nvme1n1'/><backingStore type='file'><source file='/srv/base.qcow2'/></backingStore></disk>
  <disk type='file' device='disk'><source file='/var/lib/libvirt/images/a.qcow2'/><mirror type='block'><source dev='/dev/sdb'/></mirror></disk>
  <disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'><address domain='0x0000' bus='0x81' slot='0x00' function='0x0'/></source></disk>
  <hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x3b' slot='0x0a' function='0x1'/></source></hostdev>
  <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host4'/><address bus='0' target='2' unit='5'/></source></hostdev>
  <hostdev mode='capabilities' type='storage'><source><block>/dev/sdc</block></source></hostdev>
  <filesystem type='mount'><source dir='/srv/share'/></filesystem>
</devices></domain></domstatus>`
  t.same(parseVmUses(xml, 'x'), [
    {
      kind: 'domain',
      name: 'web & db',
      paths: [
        '/dev/nvme1n1',
        '/srv/base.qcow2',
        '/var/lib/libvirt/images/a.qcow2',
        '/dev/sdb',
        '/srv/share',
        '/dev/sdc',
      ],
      pci: ['0000:3b:0a.1', '0000:81:00.0'],
      scsi: ['4:0:2:5'],
    },
  ])
  const pool = `<pool type='disk'><name>fast</name><source><device path='/dev/disk/by-id/nvme-x'/></source><target><path>/dev</path></target></pool>`
  t.match(parseVmUses(pool, 'x'), [{ kind: 'pool', paths: ['/dev/disk/by-id/nvme-x', '/dev'] }])
  t.throws(() => parseVmUses('<domain><name>torn', 'torn.xml'), {
    code: 'host.unexpected-answer',
    message: /torn.xml/,
  })
})

t.test('fstab, crypttab, units', async (t) => {
  t.same(parseFstab(read('volumes/fstab-centos77.txt')), [
    '/dev/mapper/centos-root',
    'UUID=05d927bb-5875-49e3-ada1-7f46cb31c932',
    '/dev/mapper/centos-swap',
  ])
  t.ok(parseFstab(read('volumes/fstab-ubuntu1804.txt')).includes('/swap.img'))
  t.same(parseFstab('LABEL="my\\040data" /srv xfs logdev=/dev/sdz1,noauto 0 0\n'), [
    'LABEL=my data',
    '/dev/sdz1',
  ])
  t.same(parseCrypttab('# c\nx UUID=1-2 none luks\ny /dev/sdb /dev/sdc header=/dev/sdd\n'), [
    'UUID=1-2',
    '/dev/sdb',
    '/dev/sdc',
    '/dev/sdd',
  ])
  t.same(parseUnitWhat('[Mount]\nWhat=/dev/a\nWhat = /dev/b \nWhere=/x\n'), ['/dev/b'])
  t.same(parseUnitWhat('[Unit]\n'), [])
})
