// What backups decide without touching anything: manifests, what stands on what, what may go, what is copied, what is defined.

import t from 'tap'
import { chooseDisks, type Known, sinceWhen, whyWhole } from '../../agent/vms/backup/choice.ts'
import { nicsIn, renewed, sourcesIn } from '../../agent/vms/backup/definition.ts'
import {
  backupXml,
  checkpointXml,
  keptOutsideDisks,
  pushedDisks,
} from '../../agent/vms/backup/libvirt-xml.ts'
import {
  type Backup,
  chainOf,
  type Manifest,
  neededBy,
  parseManifest,
  printManifest,
  soundBackups,
} from '../../agent/vms/backup/manifest.ts'
import { folderName } from '../../agent/vms/backup/place.ts'
import { expired } from '../../agent/vms/backup/retention.ts'
import { parseXml } from '../../provisioning/libvirt/xml.ts'
import type { DiskModel } from '../../provisioning/vms/disks.ts'

const dayMs = 86_400_000

/** A backup of one disk, made on that day, that stands on another or on none. */
const backup = (day: number, on: number | null = null, more: Partial<Backup> = {}): Backup => ({
  id: `day-${day}`,
  atMs: day * dayMs,
  consistency: 'crash',
  checkpoint: `garrison-00000000-day-${day}`,
  why: null,
  disks: [
    {
      target: 'vda',
      name: 'root',
      file: `day-${day}.vda.qcow2`,
      kind: on === null ? 'full' : 'incremental',
      on: on === null ? null : `day-${on}`,
      virtualBytes: 100,
      fileBytes: 10,
      sha256: '0',
      source: '/srv/vms/web/root.qcow2',
      format: 'qcow2',
    },
  ],
  firmware: null,
  leftOut: [],
  xml: '<domain/>',
  declaration: null,
  host: 'h07',
  verifiedMs: day * dayMs,
  damage: null,
  ...more,
})

const manifestOf = (...backups: readonly Backup[]): Manifest => ({
  vm: { name: 'web', uuid: '0' },
  backups,
  begun: null,
  removing: [],
})

const ids = (days: readonly number[]) => days.map((day) => `day-${day}`)

t.test('a manifest is read as it was written, and not when one byte of it is another', (t) => {
  const manifest = manifestOf(backup(1), backup(2, 1))
  const text = printManifest(manifest)
  t.same(parseManifest(text, 'm'), manifest)
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes)
    changed[at] = (changed[at] ?? 0) ^ 1
    t.throws(() => parseManifest(changed.toString('latin1'), 'm'), { code: 'backup.manifest-damaged' })
    t.throws(() => parseManifest(text.slice(0, at), 'm'), { code: 'backup.manifest-damaged' })
  }
  t.end()
})

t.test('what stands on what', (t) => {
  const manifest = manifestOf(backup(1), backup(2, 1), backup(3, 2), backup(4, 2), backup(5))
  t.same(
    chainOf(manifest, 'day-4', 'vda')?.map(({ file }) => file),
    ['day-4.vda.qcow2', 'day-2.vda.qcow2', 'day-1.vda.qcow2'],
  )
  t.equal(chainOf(manifest, 'day-4', 'vdb'), null)
  t.equal(chainOf(manifestOf(backup(2, 1)), 'day-2', 'vda'), null)
  t.equal(chainOf(manifestOf(backup(1, 2), backup(2, 1)), 'day-2', 'vda'), null, 'not in circles')
  t.same([...neededBy(manifest, 'day-3')], ids([3, 2, 1]))
  const broken = manifestOf(backup(1), backup(2, 1, { damage: 'gone' }), backup(3, 2), backup(4, 1))
  t.same(
    soundBackups(broken).map(({ id }) => id),
    ids([1, 4]),
  )
  t.end()
})

t.test('what may go', (t) => {
  const chain = manifestOf(backup(1), backup(2, 1), backup(3, 2), backup(4), backup(5, 4), backup(6, 5))
  const goes = (count: number | null, days: number | null, manifest = chain) =>
    expired(manifest, { count, ageMs: days === null ? null : days * dayMs }, 7 * dayMs)
  t.same(goes(null, null), [], 'nothing without being told')
  t.same(goes(1, null), ids([1, 2, 3]))
  t.same(goes(3, null), ids([1, 2, 3]))
  t.same(goes(4, null), [], 'the third stands on the first two')
  t.same(goes(null, 2), ids([1, 2, 3]))
  t.same(goes(null, 4), ids([1, 2, 3]), 'what is four days old is not younger')
  t.same(goes(null, 5), [])
  t.same(goes(1, 5), [], 'what either keeps is kept')
  t.same(goes(null, 0), ids([1, 2, 3]), 'never the last one')
  const damaged = manifestOf(backup(1), backup(2), backup(3, null, { damage: 'gone' }))
  t.same(goes(1, null, damaged), ids([1, 3]), 'the last one is the last sound one')
  t.same(
    goes(1, null, manifestOf(backup(1, null, { damage: 'x' }), backup(2, null, { damage: 'x' }))),
    ids([1, 2]),
  )
  t.end()
})

t.test('whatever the chains are, nothing goes that another needs, nor the last sound one', (t) => {
  let state = 1
  const chance = (below: number) => {
    state = (state * 48_271) % 2_147_483_647
    return state % below
  }
  for (let round = 0; round < 2000; round += 1) {
    const backups = Array.from({ length: 1 + chance(12) }, (_, day) =>
      backup(day, day === 0 || chance(3) === 0 ? null : chance(day), chance(6) === 0 ? { damage: 'x' } : {}),
    )
    const manifest = manifestOf(...backups)
    const gone = expired(
      manifest,
      { count: chance(2) ? chance(5) : null, ageMs: chance(2) ? chance(12) * dayMs : null },
      13 * dayMs,
    )
    const left = backups.filter(({ id }) => !gone.includes(id))
    const isWhole = left.every(({ id }) => [...neededBy(manifest, id)].every((one) => !gone.includes(one)))
    const last = soundBackups(manifest).at(-1)
    if (!isWhole || (last !== undefined && gone.includes(last.id))) t.fail(JSON.stringify({ backups, gone }))
  }
  t.pass('2000 of them')
  t.end()
})

const disk = (target: string, more: Partial<DiskModel> = {}): DiskModel => ({
  name: null,
  target,
  device: 'disk',
  bus: 'virtio',
  source: { kind: 'file', at: `/srv/vms/web/${target}.qcow2` },
  format: 'qcow2',
  cache: 'none',
  io: 'native',
  discard: 'unmap',
  readOnly: false,
  serial: null,
  boot: null,
  ...more,
})

t.test('which disks are copied', (t) => {
  const seed = { device: 'cdrom', readOnly: true, format: 'raw' }
  const { chosen, leftOut } = chooseDisks('web', [
    disk('vda'),
    disk('vdb', { source: { kind: 'block', at: '/dev/garrison/web' }, format: 'raw' }),
    disk('sda', { ...seed, source: { kind: 'file', at: '/srv/vms/web/seed.iso' } }),
    disk('sdb', { ...seed, source: { kind: 'file', at: '/srv/iso/installer.iso' } }),
    disk('sdc', { ...seed, source: null }),
  ])
  t.same(
    chosen.map(({ target, isRead }) => [target, isRead]),
    [
      ['vda', false],
      ['vdb', false],
      ['sda', true],
    ],
  )
  t.match(leftOut, [
    { target: 'sdb', why: /not kept with its other disks/ },
    { target: 'sdc', why: 'it has no medium' },
  ])
  const refused = { code: 'backup.disk-unsupported' }
  t.throws(() => chooseDisks('web', [disk('vda', { source: { kind: 'network', at: 'rbd:x' } })]), refused)
  t.throws(() => chooseDisks('web', [disk('vda', { format: 'vmdk' })]), refused)
  t.throws(() => chooseDisks('web', [disk('../x')]), refused)
  t.throws(() => chooseDisks('web', []), refused)
  t.end()
})

t.test('since when a disk is copied', (t) => {
  const known = (manifest: Manifest, more: Partial<Known> = {}): Known => ({
    manifest,
    mostIncrements: 3,
    isThere: () => true,
    isUsable: () => true,
    ...more,
  })
  const since = (one: Known, target = 'vda') => {
    const found = sinceWhen(one, { target }, 'none can be stood on')
    return 'on' in found ? found.on.id : found.why
  }
  const chain = manifestOf(backup(1), backup(2, 1), backup(3, 2))
  t.equal(since(known(manifestOf())), 'it is the first')
  t.equal(since(known(chain), 'vdb'), 'it is the first')
  t.equal(since(known(chain)), 'day-3')
  t.equal(since(known(chain, { isUsable: ({ id }) => id === 'day-2' })), 'day-2')
  t.equal(since(known(chain, { isUsable: () => false })), 'none can be stood on')
  t.equal(since(known(chain, { mostIncrements: 2 })), '2 stand on the last full one')
  t.equal(since(known(chain, { isThere: (file) => file !== 'day-3.vda.qcow2' })), 'day-2')
  t.equal(since(known(chain, { isThere: () => false })), 'day-1.vda.qcow2 is not there as it was')
  t.equal(since(known(manifestOf(backup(1), backup(2, 1, { damage: 'x' }), backup(3, 2)))), 'day-1')
  t.equal(
    whyWhole(
      [
        ['vda', 'a'],
        ['vdb', 'a'],
      ],
      2,
    ),
    'a',
  )
  t.equal(whyWhole([['vda', 'a']], 2), 'vda: a')
  t.equal(whyWhole([], 2), null)
  t.end()
})

t.test('what libvirt is told holds whatever a path or name is', (t) => {
  const path = `/srv/"&'<b>/${'x'.repeat(50)}\u00e9]]>.qcow2`
  const xml = backupXml(
    [
      { target: 'vda', path, since: null },
      { target: 'vdb', path: '/b', since: 'cp "1"' },
    ],
    ['sda'],
  )
  t.same(pushedDisks(xml), [
    { target: 'vda', file: path },
    { target: 'vdb', file: '/b' },
  ])
  t.match(xml, /name="sda" backup="no"/)
  t.match(xml, /backupmode="full"/)
  t.match(xml, /backupmode="incremental" incremental="cp &quot;1&quot;"/)
  t.match(checkpointXml('cp', ['vda'], ['sda']), /<name>cp<\/name>.*vda.*bitmap.*sda.*no/s)
  const kept = (xml: string) => keptOutsideDisks(xml, 'web-1', '/var/lib/libvirt')
  t.same(kept('<domain><os><nvram>/v/x.fd</nvram></os><devices><tpm/></devices></domain>'), {
    firmware: '/v/x.fd',
    hasTpm: true,
  })
  t.same(kept('<domain><os><nvram><source file="/v/y"/></nvram></os></domain>'), {
    firmware: '/v/y',
    hasTpm: false,
  })
  t.same(
    kept('<domain><os firmware="efi"/></domain>'),
    { firmware: '/var/lib/libvirt/qemu/nvram/web-1_VARS.fd', hasTpm: false },
    'libvirt 9.0 does not name the file that it chose',
  )
  t.same(kept('<domain><os/></domain>'), { firmware: null, hasTpm: false })
  t.end()
})

t.test('the folder of a VM is a plain name, whatever the VM is called', (t) => {
  t.equal(folderName('web-1.prod_x'), 'web-1.prod_x')
  for (const name of ['.', '..', '../x', 'a/b', '.hidden', 'a\nb', 'é', '%', 'a b'])
    t.match(folderName(name), /^[A-Za-z0-9_%-][A-Za-z0-9_.%-]*$/, name)
  t.equal(new Set(['a%', 'a%25', 'a/', 'a%2F'].map(folderName)).size, 4)
  t.end()
})

t.test('a definition is renewed without losing what is not known', (t) => {
  const xml = `<domain type='kvm' id='3' xmlns:q='urn:q'><name>web</name><uuid>1</uuid><q:x/>
    <os><nvram>/v/web.fd</nvram></os><devices>
    <disk type='block' device='disk'><source dev='/dev/x' index='2'/><backingStore/><target dev='vda'/></disk>
    <disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>
    <channel type='unix'><source path='/run/web.sock'/><target name='org.qemu.guest_agent.0'/></channel>
    </devices></domain>`
  const other = renewed(xml, {
    ...{ name: 'web & 2', uuid: '2', sources: { vda: '/srv/<2>/root.qcow2' }, firmware: '/v/2.fd' },
    isAnother: true,
  })
  t.match(other, /<name>web &amp; 2<\/name><uuid>2<\/uuid><q:x/)
  t.match(sourcesIn(other), { vda: { kind: 'file', path: '/srv/<2>/root.qcow2' }, sda: { path: '/iso' } })
  t.notMatch(other, /52:54:00:00:00:01|backingStore|web\.sock| id=|\/dev\/x/)
  t.match(nicsIn(other), [{ mac: /^52:54:00(:[0-9a-f]{2}){3}$/ }])
  t.match(other, '<nvram>/v/2.fd</nvram>')
  const same = renewed(xml, { name: 'web', uuid: '1', sources: {}, firmware: null, isAnother: false })
  t.match(same, /52:54:00:00:00:01/)
  t.match(sourcesIn(same), { vda: { kind: 'block', path: '/dev/x' } })
  t.equal(parseXml(same).root.attributes.get('id'), undefined)
  t.throws(
    () => renewed('<domain', { name: 'x', uuid: 'x', sources: {}, firmware: null, isAnother: false }),
    {
      code: 'host.unexpected-answer',
    },
  )
  t.end()
})
