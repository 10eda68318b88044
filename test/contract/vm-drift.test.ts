// Definitions before a real libvirt: what it makes of them by itself is no drift, what a person does to them is, and mending ends it.

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseXml, printXml, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import { type Difference, domainDifferences, patchDifferences } from '../../provisioning/vms/differences.ts'
import { readDomain } from '../../provisioning/vms/domain.ts'
import { newUuid } from '../../provisioning/vms/names.ts'
import { writeOrigin } from '../../provisioning/vms/origin.ts'
import { vmsSchema } from '../../provisioning/vms/schema.ts'
import { wantedDomain } from '../../provisioning/vms/want.ts'
import { startLibvirtd, virsh } from './libvirtd.ts'

t.setTimeout(180_000)

const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())
const ask = (...args: readonly string[]): string => virsh(libvirtd.socketPath, 'qemu:///system', ...args)

const disk = join(libvirtd.folder, 'disk.qcow2')
const other = join(libvirtd.folder, 'other.raw')
execFileSync('/usr/bin/qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M'])
execFileSync('/usr/bin/qemu-img', ['create', '-q', '-f', 'raw', other, '1M'])

const wantedOf = (name: string, machine: object, known: XmlElement | null = null) => {
  const vms = vmsSchema.parse({
    pools: { vms: { path: libvirtd.folder } },
    machines: { [name]: { accelerator: 'tcg', ...machine } },
  })
  const declared = vms.machines[name]
  if (declared === undefined) throw new Error('it is declared')
  const root = wantedDomain(name, declared, {
    vms,
    uuid: newUuid('here', name),
    architecture: 'x86_64',
    known: known && readDomain(known),
  })
  const template = { name: 'linux-server', version: '1.0.0', base: null }
  writeOrigin(root, { template, digest: 'd', tags: declared.tags })
  return { root, declared }
}

const define = (root: XmlElement): void => {
  const path = join(libvirtd.folder, 'definition.xml')
  writeFileSync(path, printXml(root))
  ask('define', '--validate', path)
}

const inactive = (name: string): XmlElement => parseXml(ask('dumpxml', '--inactive', name)).root

const differences = (name: string, machine: object): readonly Difference[] => {
  const have = inactive(name)
  const { root, declared } = wantedOf(name, machine, have)
  return [...domainDifferences(readDomain(root), readDomain(have)), ...patchDifferences(declared.xml, have)]
}

const told = (all: readonly Difference[]) =>
  all.map(({ path, desired, observed }) => `${path}: ${desired} <- ${observed}`)

const root = { size: '1GiB' }

const machines: Readonly<Record<string, object>> = {
  defaults: {},
  bios: { firmware: 'bios', disks: { root } },
  secure: { firmware: 'uefi-secure', disks: { root } },
  i440fx: { firmware: 'bios', machine: 'pc', disks: { root: { ...root, bus: 'sata' } } },
  versioned: { machine: 'pc-q35-7.1' },
  buses: {
    disks: {
      a: root,
      b: { ...root, bus: 'scsi' },
      c: { ...root, bus: 'sata' },
      c2: { ...root, readOnly: true },
      d: { path: '/srv/some.iso', device: 'cdrom', format: 'raw', boot: 1 },
      e: { path: '/dev/vg/lv', format: 'raw', io: 'io_uring' },
      f: { ...root, cache: 'writeback', discard: 'ignore', boot: 2 },
      g: { ...root, bus: 'scsi', cache: 'unsafe', io: 'threads' },
    },
    cloudInit: {},
  },
  nics: {
    nics: { a: {}, b: { bridge: 'br0', model: 'e1000e' }, c: { macvtap: 'eth9', mac: '52:54:00:ab:cd:ef' } },
  },
  cpus: { cpus: 7, memory: '1.5GiB', cpuModel: 'host-model', clock: 'localtime' },
  model: { cpuModel: 'Skylake-Client' },
  display: { console: { serial: false, display: 'vnc' } },
  devices: {
    devices: { gpu: { pci: '0000:3b:00.0' }, vgpu: { mdev: 'c2177883-f1bb-47f0-914d-32a22e3a8804' } },
  },
  tags: { tags: { a: `quotes " and ', ]]>, &amp; and <x>`, 'b/c': '', d: ' blanks  ' } },
  patched: {
    xml: [
      { set: '/domain/devices/memballoon/@model', value: 'none' },
      { set: '/domain/title', value: 'A title & more' },
      { add: '/domain/devices', element: "<watchdog model='i6300esb' action='reset'/>" },
      { add: '/domain/features', element: "<kvm><hidden state='on'/></kvm>" },
      {
        add: '/domain',
        element:
          "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-name'/></qemu:commandline>",
      },
    ],
  },
}

t.test('what libvirt makes of a definition by itself is no drift', async (t) => {
  for (const [name, machine] of Object.entries(machines)) {
    const { root } = wantedOf(name, machine)
    define(root)
    t.not(printXml(inactive(name)), printXml(root), `${name}: libvirt has added to it`)
    t.same(told(differences(name, machine)), [], name)
    t.same(
      readDomain(inactive(name)).origin,
      readDomain(root).origin,
      `${name}: it remembers where it came from`,
    )
    const again = wantedOf(name, machine, inactive(name)).root
    define(again)
    t.same(told(differences(name, machine)), [], `${name}, again`)
    ask('undefine', '--nvram', name)
  }
})

t.test('nor is what it makes of it when the guest runs', async (t) => {
  const machine = {
    firmware: 'bios',
    memory: '64MiB',
    disks: { root: { path: disk } },
    console: { display: 'vnc' },
  }
  define(wantedOf('runs', machine).root)
  ask('start', 'runs', '--paused')
  const live = parseXml(ask('dumpxml', 'runs')).root
  const pending = domainDifferences(readDomain(inactive('runs')), readDomain(live))
  t.same(told(pending.filter(({ path }) => path !== 'cpuModel' && path !== 'machine')), [])
  t.same(told(differences('runs', machine)), [])
  ask('destroy', 'runs')
  ask('undefine', 'runs')
})

t.test('what a person changes is drift, and mending it leaves nothing behind', async (t) => {
  const machine = { firmware: 'bios', cpus: 2, disks: { root: { path: disk } }, nics: { lan: {} } }
  define(wantedOf('edited', machine).root)
  ask('setvcpus', 'edited', '1', '--config')
  ask('setmaxmem', 'edited', '2GiB', '--config')
  ask('attach-disk', 'edited', other, 'vdx', '--config', '--driver', 'qemu', '--subdriver', 'raw')
  ask('attach-interface', 'edited', 'bridge', 'br7', '--config', '--mac', '52:54:00:00:00:07')
  const all = differences('edited', machine)
  t.same(told(all), [
    'memory: 1GiB <- 2GiB',
    'cpus: 2 <- 1',
    `disks.vdx: null <- disk ${other}`,
    'nics.52:54:00:00:00:07: null <- bridge br7, 52:54:00:00:00:07',
  ])
  const mended = inactive('edited')
  for (const { mend } of all) mend?.(mended)
  define(mended)
  t.same(told(differences('edited', machine)), [])
  const more = {
    ...machine,
    cpus: 3,
    firmware: 'uefi',
    clock: 'localtime',
    cpuModel: 'Skylake-Client',
    console: { serial: false, display: 'vnc' },
    disks: {
      root: { path: disk, bus: 'scsi', cache: 'writeback', discard: 'ignore' },
      second: { path: other, format: 'raw' },
    },
    nics: { lan: { bridge: 'br0', model: 'e1000e' }, wan: {} },
    devices: { gpu: { pci: '0000:3b:00.0' } },
  }
  const changed = inactive('edited')
  for (const { mend } of differences('edited', more)) mend?.(changed)
  define(changed)
  t.same(told(differences('edited', more)), [], 'everything that can be declared, changed at once')
  const back = inactive('edited')
  for (const { mend } of differences('edited', machine)) mend?.(back)
  define(back)
  t.same(told(differences('edited', machine)), [], 'and back')
})
