// VMs against a host in memory: killed or without power before, inside and after every action, they always come to the same end; no
// VM is started beside another that has its disks, and no disk that has content is ever made anew.

import t from 'tap'
import { type Desired, desiredSchema } from '../../provisioning/desired.ts'
import { assess } from '../../provisioning/engine.ts'
import {
  at,
  element,
  elementsOf,
  insert,
  parseXml,
  printXml,
  remove,
  type XmlElement,
} from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource } from '../../provisioning/resource.ts'
import { diskElement } from '../../provisioning/vms/disks.ts'
import { vms } from '../../provisioning/vms/index.ts'
import { apply, boot, desiredVms, emptyWorld, readerOf, type VmWorld } from './vms-host.ts'

const image = { source: 'https://images.example.com/debian-12.qcow2', checksum: `sha256:${'a'.repeat(64)}` }

const web = {
  cpus: 2,
  memory: '2GiB',
  disks: { root: { size: '10GiB', image }, data: { size: '5GiB', format: 'raw' } },
  nics: { lan: {} },
  cloudInit: {},
  tags: { role: 'web' },
}

const look = async (world: VmWorld, desired: Desired) => {
  const observed = await vms.observe(readerOf(world), desired)
  return { observed, steps: vms.plan(observed, desired), findings: vms.check(observed) }
}

const codes = (steps: readonly { id: string; subject?: string; blocked?: { code: string } }[]) =>
  steps.map(({ id, subject, blocked }) => `${id} ${subject}${blocked ? ` ${blocked.code}` : ''}`)

const domainOf = (world: VmWorld, name: string) => {
  const domain = world.domains.get(name)
  if (domain === undefined) throw new Error(`there is no ${name}`)
  return domain
}

/** Changes a definition as a person does with virsh edit. */
function edit(world: VmWorld, name: string, change: (root: XmlElement) => void): void {
  const domain = domainOf(world, name)
  const { root } = parseXml(domain.xml)
  change(root)
  domain.xml = printXml(root)
}

const settled = async (desired: Desired): Promise<VmWorld> => {
  const world = emptyWorld()
  const { outcome, problems, left } = await apply(world, desired)
  if (outcome !== 'settled') throw new Error(JSON.stringify({ outcome, problems, left }))
  return world
}

const shape = (world: VmWorld): unknown => ({
  files: [...world.files].filter(([path]) => !path.endsWith('.new')).sort(),
  domains: [...world.domains.values()].map((domain) => ({ ...domain, reason: '' })),
  pools: [...world.pools.values()],
})

t.test('comes to the same end wherever the power goes', async (t) => {
  const desired = desiredVms({
    'web-3': web,
    // Nothing on its disk begins as the image does.
    full: { ...web, disks: { root: { size: '10GiB', image: { ...image, copy: 'full' } } }, power: 'off' },
  })
  const whole = emptyWorld()
  const { outcome, points, keys } = await apply(whole, desired)
  t.equal(outcome, 'settled')
  t.equal(new Set(keys).size, keys.length, 'no step is done twice')
  t.same((await look(whole, desired)).findings, [])
  t.ok(points > 150, `${points} points`)
  // Every point with --full, else every seventh, which comes to every kind of action.
  const stride = process.env.GARRISON_LAB_FULL ? 1 : 7
  for (let cutAt = 1; cutAt <= points; cutAt += stride) {
    const world = emptyWorld()
    if ((await apply(world, desired, { cutAt })).outcome !== 'cut') t.fail(`point ${cutAt} was not reached`)
    const before = new Map([...world.files].filter(([path]) => /(qcow2|raw)$/.test(path)))
    boot(world)
    const again = await apply(world, desired)
    if (again.outcome !== 'settled') t.fail(`after a cut at ${cutAt}: ${JSON.stringify(again.problems)}`)
    for (const [path, file] of before)
      if (world.files.get(path) !== file) t.fail(`after a cut at ${cutAt}: ${path} was made anew`)
    if (JSON.stringify(shape(world)) !== JSON.stringify(shape(whole)))
      t.same(shape(world), shape(whole), `after a cut at ${cutAt}`)
  }
})

t.test('asks nothing of libvirt when no VM is declared', async (t) => {
  const reader = new Proxy({} as ReturnType<typeof readerOf>, {
    get: (_, call) => () => t.fail(`asked ${String(call)}`),
  })
  const observed = await vms.observe(reader, { version: 1, host: {}, sources: {} })
  t.same(vms.plan(observed, { version: 1, host: {}, sources: {} }), [])
  t.same(vms.check(observed), [])
  t.equal(vms.describe(observed, { version: 1, host: {}, sources: {} }), 'not declared')
})

t.test('unknown is not off', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const world = await settled(desired)
  world.unreachable = new HostError('libvirt.unreachable', 'libvirt has not answered for 12 s', {
    details: { answeredMs: 1 },
  })
  const found = await assess(vms as Resource, {
    resources: [],
    reader: readerOf(world),
    desired,
    clock: () => 0,
  })
  t.match(found, {
    standing: 'unknown',
    steps: [],
    summary: /for 12 s/,
    problem: { code: 'libvirt.unreachable', details: { answeredMs: 1 } },
  })
})

t.test('what libvirt adds by itself is no drift', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const world = await settled(desired)
  t.match(domainOf(world, 'web-3').xml, /pc-q35-7\.2/, 'libvirt has changed the definition')
  t.same(await look(world, desired).then(({ steps, findings }) => [steps, findings]), [[], []])
})

t.test('what a person changed is drift, and changed back without losing the rest', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const world = await settled(desired)
  edit(world, 'web-3', (root) => {
    at(root, 'vcpu')?.children.splice(0, 1, { kind: 'text', text: '8' })
    const disk = elementsOf(at(root, 'devices'), 'disk')[0]
    at(disk, 'driver')?.attributes.set('cache', 'unsafe')
    insert(at(root, 'devices') ?? root, element('sound', { model: 'ich9' }))
  })
  const { steps } = await look(world, desired)
  t.match(steps, [
    {
      id: 'vms.redefine',
      subject: 'web-3',
      risk: 'safe',
      summary: 'as it was before somebody changed it, from its next start',
      because: [
        { path: 'vms.machines.web-3.cpus', desired: 2, observed: 8 },
        { path: 'vms.machines.web-3.disks.root.cache', desired: 'none', observed: 'unsafe' },
      ],
    },
  ])
  t.equal((await apply(world, desired)).outcome, 'settled')
  t.match(domainOf(world, 'web-3').xml, /<sound model="ich9"/, 'what is not known stays')
  t.match(domainOf(world, 'web-3').xml, /<address type="pci"/, 'addresses stay')
})

t.test('a definition that changed since it was looked at is not written over', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const world = await settled(desired)
  edit(world, 'web-3', (root) => at(root, 'vcpu')?.children.splice(0, 1, { kind: 'text', text: '8' }))
  const { steps } = await look(world, desired)
  const [action] = steps[0]?.actions ?? []
  t.match(action, { kind: 'domain', operation: 'define', replaces: /^[0-9a-f]{64}$/ })
})

t.test('what a person attached is only taken away when disruption is allowed', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const world = await settled(desired)
  edit(world, 'web-3', (root) => {
    const devices = at(root, 'devices') ?? root
    const usb = { kind: 'file', at: '/srv/vms/rescue.iso' }
    insert(
      devices,
      diskElement({
        ...{ name: null, target: 'sdz', device: 'cdrom', bus: 'sata', source: usb, format: 'raw' },
        ...{ cache: 'none', io: 'native', discard: 'ignore', readOnly: true, serial: null, boot: null },
      }),
    )
    insert(
      devices,
      element('interface', { type: 'bridge' }, [
        element('source', { bridge: 'br9' }),
        element('mac', { address: '52:54:00:00:00:01' }),
      ]),
    )
  })
  const { steps } = await look(world, desired)
  t.match(steps, [
    {
      id: 'vms.reshape',
      risk: 'disruptive',
      because: [
        { path: 'vms.machines.web-3.disks.sdz', desired: null, observed: 'cdrom /srv/vms/rescue.iso' },
        { path: 'vms.machines.web-3.nics.52:54:00:00:00:01', desired: null },
      ],
    },
  ])
  t.equal((await apply(world, desired)).outcome, 'blocked')
  t.equal((await apply(world, desired, { allow: 'disruptive' })).outcome, 'settled')
  t.same((await look(world, desired)).steps, [])
})

t.test('accepted drift is left until its day is over, and said', async (t) => {
  const accepted = { 'vms.machines.web-*.cpus': { until: '2027-01-15', why: 'load test' } }
  const desired = desiredVms({ 'web-3': web }, { accepted })
  const world = await settled(desired)
  edit(world, 'web-3', (root) => at(root, 'vcpu')?.children.splice(0, 1, { kind: 'text', text: '8' }))
  const now = await look(world, desired)
  t.same(now.steps, [])
  t.match(now.findings, [
    { code: 'vms.accepted', severity: 'notice', text: /cpus until 2027-01-15 \(load test\)/ },
  ])
  world.nowMs = Date.UTC(2027, 0, 15, 23, 59, 59, 999)
  t.same((await look(world, desired)).steps, [], 'to the end of the day')
  world.nowMs = Date.UTC(2027, 0, 16)
  const later = await look(world, desired)
  t.same(codes(later.steps), ['vms.redefine web-3'])
  t.match(later.findings, [{ code: 'vms.acceptance-over' }])
})

t.test('other drift of the same VM is mended beside what is accepted', async (t) => {
  const accepted = { 'vms.machines.web-3.cpus': { until: '2027-02-28', why: 'load test' } }
  const desired = desiredVms({ 'web-3': web }, { accepted })
  const world = await settled(desired)
  edit(world, 'web-3', (root) => {
    at(root, 'vcpu')?.children.splice(0, 1, { kind: 'text', text: '8' })
    at(root, 'clock')?.attributes.set('offset', 'localtime')
  })
  t.equal((await apply(world, desired)).outcome, 'settled')
  t.match(domainOf(world, 'web-3').xml, /<vcpu[^>]*>8</)
  t.match(domainOf(world, 'web-3').xml, /<clock offset="utc"/)
})

t.test('a change that the running guest does not have yet', async (t) => {
  const before = desiredVms({ 'web-3': web })
  const more = { ...web, cpus: 4 }
  const world = await settled(before)
  const after = desiredVms({ 'web-3': more })
  t.equal((await apply(world, after)).outcome, 'settled')
  t.match((await look(world, after)).findings, [
    { code: 'vms.restart-pending', severity: 'notice', text: /cpus/ },
  ])
  const restart = desiredVms({ 'web-3': { ...more, changes: 'restart' } })
  t.match((await look(world, restart)).steps, [
    {
      id: 'vms.restart',
      risk: 'disruptive',
      because: [{ path: 'vms.machines.web-3.cpus', desired: 4, observed: 2 }],
    },
  ])
  t.equal((await apply(world, restart, { allow: 'disruptive' })).outcome, 'settled')
  t.equal(world.starts.get('web-3'), 2)
})

t.test('disks', async (t) => {
  const bigger = desiredVms({ 'web-3': { ...web, disks: { ...web.disks, root: { size: '20GiB', image } } } })
  const root = '/srv/vms/web-3/root.qcow2'

  t.test('grow while the VM runs, and while it is off', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    t.match((await look(world, bigger)).steps, [
      {
        id: 'vms.grow',
        subject: 'web-3.root',
        risk: 'safe',
        actions: [{ operation: 'grow-disk', target: 'vda' }],
      },
    ])
    t.equal((await apply(world, bigger)).outcome, 'settled')
    const off = desiredVms({
      'web-3': { ...web, power: 'off', disks: { ...web.disks, root: { size: '30GiB', image } } },
    })
    t.equal((await apply(world, off, { allow: 'disruptive' })).outcome, 'settled')
    t.equal(world.files.get(root)?.image?.virtualBytes, 30 * 2 ** 30)
  })
  t.test('never shrink', async (t) => {
    const world = await settled(bigger)
    const { steps } = await look(world, desiredVms({ 'web-3': web }))
    t.same(codes(steps), ['vms.grow web-3.root vm.disk-shrink'])
  })
  t.test('are added to a VM that is there', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    const more = desiredVms({
      'web-3': { ...web, disks: { ...web.disks, logs: { size: '1GiB', bus: 'scsi' } } },
    })
    t.equal((await apply(world, more)).outcome, 'settled')
    t.match(domainOf(world, 'web-3').xml, /ua-disk-logs/)
    t.match(domainOf(world, 'web-3').xml, /<controller type="scsi" index="0" model="virtio-scsi"/)
  })
  t.test('that are lost are not made anew, and the VM is not started', async (t) => {
    const desired = desiredVms({ 'web-3': web })
    const world = await settled(desired)
    world.files.delete('/srv/vms/web-3/data.raw')
    const running = await look(world, desired)
    t.same(running.steps, [])
    t.match(running.findings, [{ code: 'vms.not-startable', severity: 'high', text: /data\.raw/ }])
    const domain = domainOf(world, 'web-3')
    Object.assign(domain, { live: null, power: 'off' })
    t.same(codes((await look(world, desired)).steps), ['vms.start web-3 vm.disk-missing'])
  })
  t.test('that stand on an image which is gone do not start', async (t) => {
    const desired = desiredVms({ 'web-3': web })
    const world = await settled(desired)
    Object.assign(domainOf(world, 'web-3'), { live: null, power: 'off' })
    for (const path of world.files.keys()) if (/debian-12/.test(path)) world.files.delete(path)
    const { steps } = await look(world, desired)
    t.same(codes(steps), ['vms.start web-3 vm.disk-missing'])
    t.match(steps[0]?.blocked?.message, /which .*root\.qcow2 stands on/)
  })
  t.test('that somebody else put there are not taken', async (t) => {
    const world = emptyWorld()
    world.files.set('/srv/vms/web-3', { kind: 'folder', text: '' })
    world.files.set(root, { kind: 'file', text: 'theirs' })
    const { steps } = await look(world, desiredVms({ 'web-3': web }))
    t.match(codes(steps), ['vms.pool vms', 'vms.own web-3 vm.disk-unowned'])
    t.not((await apply(world, desiredVms({ 'web-3': web }))).outcome, 'settled')
    t.equal(world.files.get(root)?.text, 'theirs')
  })
  t.test('that lead out of the pools are not run', async (t) => {
    const desired = desiredVms({ 'web-3': web })
    const world = await settled(desired)
    Object.assign(domainOf(world, 'web-3'), { live: null, power: 'off' })
    const made = world.files.get(root)
    if (made?.image) made.image.backing = '/etc/shadow'
    world.files.set('/etc/shadow', { kind: 'file', text: '' })
    t.same(codes((await look(world, desired)).steps), ['vms.start web-3 vm.disk-foreign'])
  })
  t.test('of which a snapshot was taken are the same disks', async (t) => {
    const desired = desiredVms({ 'web-3': web })
    const world = await settled(desired)
    const overlay = '/srv/vms/web-3/root.snap1'
    world.files.set(overlay, {
      kind: 'file',
      text: '',
      image: { format: 'qcow2', virtualBytes: 10 * 2 ** 30, backing: root },
    })
    const change = (xml: XmlElement): void => {
      const disk = elementsOf(at(xml, 'devices'), 'disk')[0]
      at(disk, 'source')?.attributes.set('file', overlay)
    }
    edit(world, 'web-3', change)
    domainOf(world, 'web-3').live = domainOf(world, 'web-3').xml
    const { steps, findings } = await look(world, desired)
    t.same(steps, [])
    t.match(findings, [{ code: 'vms.on-snapshot', severity: 'notice' }])
  })
  t.test('that are other disks are left to a person', async (t) => {
    const desired = desiredVms({ 'web-3': web })
    const world = await settled(desired)
    world.files.set('/srv/other.qcow2', {
      kind: 'file',
      text: '',
      image: { format: 'qcow2', virtualBytes: 10 * 2 ** 30, backing: null },
    })
    edit(world, 'web-3', (xml) => {
      at(elementsOf(at(xml, 'devices'), 'disk')[0], 'source')?.attributes.set('file', '/srv/other.qcow2')
    })
    t.same(codes((await look(world, desired)).steps), ['vms.disk web-3.root vm.disk-elsewhere'])
  })
})

t.test('whose it is', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const record = (world: VmWorld, epoch: number, host: string): void => {
    const name = `/srv/vms/web-3/owner-${String(epoch).padStart(10, '0')}.json`
    const text = JSON.stringify({ schema: 'garrison.owner/1', vm: 'web-3', epoch, host, uuid: 'u' })
    world.files.set(name, { kind: 'file', text })
  }
  t.test('another host: nothing is done, and it is said when it runs here', async (t) => {
    const world = await settled(desired)
    record(world, 2, 'i-0123456789abcdef1')
    const { steps, findings } = await look(world, desired)
    t.same(codes(steps), ['vms.own web-3 vm.owned-elsewhere'])
    t.match(steps[0]?.blocked, { remedy: /i-0123456789abcdef1 can never start it again/ })
    t.match(findings, [{ code: 'vms.owned-elsewhere', severity: 'high' }])
    Object.assign(domainOf(world, 'web-3'), { live: null, power: 'off' })
    t.equal((await apply(world, desired)).outcome, 'blocked')
    t.equal(domainOf(world, 'web-3').live, null, 'it is not started')
  })
  t.test('this host again, in a higher epoch', async (t) => {
    const world = await settled(desired)
    record(world, 2, 'i-0123456789abcdef1')
    record(world, 3, world.host)
    t.same((await look(world, desired)).steps, [])
  })
  t.test('nobody can tell', async (t) => {
    const world = await settled(desired)
    for (const text of [
      '',
      '{',
      '[]',
      'null',
      '{"schema":"garrison.owner/2"}',
      JSON.stringify({ schema: 'garrison.owner/1', vm: 'web-4', epoch: 2, host: world.host, uuid: 'u' }),
    ]) {
      world.files.set('/srv/vms/web-3/owner-0000000002.json', { kind: 'file', text })
      t.same(codes((await look(world, desired)).steps), ['vms.own web-3 vm.owner-damaged'], text)
    }
  })
  t.test('of two hosts that take it at once, one fails', async (t) => {
    const world = emptyWorld()
    const other = {
      ...world,
      host: 'i-0123456789abcdef1',
      domains: new Map(),
      journal: [],
      starts: new Map(),
    }
    const [ours, theirs] = [await look(world, desired), await look(other, desired)]
    t.ok([ours, theirs].every(({ steps }) => steps.some(({ id }) => id === 'vms.own')))
    t.equal((await apply(other, desired)).outcome, 'settled')
    const { outcome, left } = await apply(world, desired)
    t.equal(outcome, 'blocked')
    t.match(left, [{ key: 'vms.own web-3' }])
    t.equal(world.domains.size, 0)
  })
  t.test('the same UUID when libvirt has forgotten it', async (t) => {
    const world = await settled(desired)
    const { uuid } = domainOf(world, 'web-3')
    world.domains.clear()
    world.host = 'i-0123456789abcdef0'
    t.equal((await apply(world, desired)).outcome, 'settled')
    t.equal(domainOf(world, 'web-3').uuid, uuid)
  })
})

t.test('storage that is not as it must be', async (t) => {
  const desired = desiredVms({ 'web-3': web })
  const stopped = async (): Promise<VmWorld> => {
    const world = await settled(desired)
    Object.assign(domainOf(world, 'web-3'), { live: null, power: 'off' })
    return world
  }
  t.test('not mounted', async (t) => {
    const world = await stopped()
    world.mountinfo = '1 0 8:1 / / rw - ext4 /dev/root rw\n'
    const { steps, findings } = await look(world, desired)
    t.match(codes(steps)[0], 'vms.pool vms vm.not-mounted')
    t.match(findings[0], { code: 'vms.pool-unusable', severity: 'high' })
    t.equal((await apply(world, desired)).outcome, 'blocked')
    t.equal(domainOf(world, 'web-3').live, null)
  })
  t.test('on an array that has failed', async (t) => {
    const world = await stopped()
    const md = '/sys/class/block/md127'
    const folders = ['/sys/dev/block/253:0/slaves', md, `${md}/md`, `${md}/slaves`]
    for (const path of [...folders, '/sys/dev/block/253:0/slaves/md127'])
      world.files.set(path, { kind: 'folder', text: '' })
    const set = (values: Readonly<Record<string, string>>): void => {
      for (const [name, text] of Object.entries(values))
        world.files.set(`${md}/md/${name}`, { kind: 'file', text: `${text}\n` })
    }
    set({ level: 'raid5', array_state: 'clean', degraded: '1', raid_disks: '3' })
    t.same(codes((await look(world, desired)).steps), ['vms.start web-3'], 'degraded is not failed')
    set({ degraded: '2' })
    t.match(codes((await look(world, desired)).steps), [
      'vms.pool vms vm.array-failed',
      'vms.start web-3 vm.array-failed',
    ])
    t.equal((await apply(world, desired)).outcome, 'blocked')
    t.equal(domainOf(world, 'web-3').live, null)
  })
  t.test('read-only', async (t) => {
    const world = await stopped()
    world.mountinfo = world.mountinfo.replace('rw - xfs', 'ro - xfs')
    t.match(codes((await look(world, desired)).steps)[0], 'vms.pool vms vm.read-only')
  })
  t.test('a network that is not there', async (t) => {
    const world = await stopped()
    world.networks.length = 0
    t.same(codes((await look(world, desired)).steps), ['vms.start web-3 vm.network-missing'])
  })
})

t.test('a volume that is declared must be mounted below its pool', async (t) => {
  const desired: Desired = {
    ...desiredSchema.parse({
      version: 1,
      array: {},
      volumes: { logical: { vms: { share: 50, mount: '/srv/vms' }, other: { share: 50, mount: '/srv' } } },
      vms: { pools: { vms: { path: '/srv/vms/pool' } }, machines: {} },
    }),
    sources: {},
  }
  const world = emptyWorld()
  t.same(codes((await look(world, desired)).steps), ['vms.pool vms'])
  world.mountinfo = '1 0 8:1 / / rw - ext4 /dev/root rw\n2 1 8:2 / /srv rw - ext4 /dev/other rw\n'
  t.same(codes((await look(world, desired)).steps), ['vms.pool vms vm.not-mounted'])
})

t.test('a guest is only restarted when it could be started again', async (t) => {
  const world = await settled(desiredVms({ 'web-3': web }))
  const more = desiredVms({ 'web-3': { ...web, cpus: 4, changes: 'restart' } })
  t.equal((await apply(world, more)).outcome, 'blocked', 'disruption is not allowed')
  world.files.delete('/srv/vms/web-3/data.raw')
  t.same(codes((await look(world, more)).steps), ['vms.restart web-3 vm.disk-missing'])
})

t.test('what stands in the way just before a start is seen', async (t) => {
  const desired = desiredVms({
    'web-3': { ...web, disks: { root: { path: '/dev/garrison/web', format: 'raw' } } },
  })
  const world = emptyWorld()
  world.files.set('/dev/garrison/web', { kind: 'block', text: '' })
  const { steps } = await look(world, desired)
  t.match(steps.at(-1), { id: 'vms.start', claims: ['/dev/garrison/web'] })
})

t.test('power', async (t) => {
  const cases = [
    ['running', 'booted', []],
    ['blocked', 'unknown', []],
    ['paused', 'user', ['vms.start web-3 vm.paused']],
    ['paused', 'I/O error', ['vms.start web-3 vm.io-error']],
    ['paused', 'migrating', ['vms.start web-3 vm.busy']],
    ['shutting-down', 'user', ['vms.start web-3 vm.busy']],
    ['suspended', 'unknown', ['vms.start web-3 vm.paused']],
    ['crashed', 'panicked', ['vms.start web-3 vm.paused']],
    ['off', 'destroyed', ['vms.start web-3']],
  ] as const
  for (const [power, reason, expected] of cases)
    t.test(`${power} (${reason})`, async (t) => {
      const desired = desiredVms({ 'web-3': web })
      const world = await settled(desired)
      const domain = domainOf(world, 'web-3')
      Object.assign(domain, { power, reason, ...(power === 'off' && { live: null }) })
      t.same(codes((await look(world, desired)).steps), expected)
      const kept = desiredVms({ 'web-3': { ...web, power: 'kept' } })
      t.same((await look(world, kept)).steps, [], 'kept')
    })
  t.test('off by declaration is disruptive', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    const off = desiredVms({ 'web-3': { ...web, power: 'off' } })
    t.match((await look(world, off)).steps, [
      { id: 'vms.autostart', risk: 'safe' },
      { id: 'vms.stop', risk: 'disruptive' },
    ])
  })
})

t.test('templates', async (t) => {
  const template = (version: string, update = false) => ({ name: 'linux-server', version, update })
  const sources = { 'vms.machines.web-3.cpus': '/usr/share/garrison/templates/linux-server.yaml:12' }
  const world = await settled(desiredVms({ 'web-3': { ...web, template: template('1.0.0') } }, {}, sources))
  const newer = { ...web, cpus: 4, memory: '3GiB', template: template('1.1.0') }

  const held = await look(world, desiredVms({ 'web-3': newer }, {}, sources))
  t.match(
    held.steps,
    [{ id: 'vms.redefine', because: [{ path: 'vms.machines.web-3.memory' }] }],
    'what the document itself says is changed',
  )
  t.equal(held.steps[0]?.because.length, 1)
  t.match(held.findings, [
    {
      code: 'vms.template-newer',
      severity: 'notice',
      text: /from linux-server 1\.0\.0, and there is 1\.1\.0, which differs in cpus/,
    },
  ])
  const asked = desiredVms({ 'web-3': { ...newer, template: template('1.1.0', true) } }, {}, sources)
  t.match((await look(world, asked)).steps, [
    {
      because: [
        { path: 'vms.machines.web-3.memory' },
        { path: 'vms.machines.web-3.cpus', why: '/usr/share/garrison/templates/linux-server.yaml:12' },
        {
          path: 'vms.machines.web-3.template',
          desired: 'linux-server 1.1.0',
          observed: 'linux-server 1.0.0',
        },
      ],
    },
  ])
  t.equal((await apply(world, asked)).outcome, 'settled')
  t.same((await look(world, desiredVms({ 'web-3': newer }, {}, sources))).steps, [], 'and asking is over')
})

t.test('definitions that are left alone', async (t) => {
  const desired = desiredVms({ 'web-3': { ...web, cpus: 3 } })
  t.test('with a password in them', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    domainOf(world, 'web-3').hasSecrets = true
    t.same(codes((await look(world, desired)).steps), ['vms.redefine web-3 vm.has-secrets'])
  })
  t.test('of VMs that are not declared', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web, other: web }))
    const { steps, findings } = await look(world, desiredVms({ 'web-3': web }))
    t.same(steps, [])
    t.match(findings, [{ code: 'vms.undeclared', severity: 'notice', text: /other/ }])
  })
  t.test('that cannot be read', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    domainOf(world, 'web-3').xml = '<!DOCTYPE domain [<!ENTITY a "b">]><domain>&a;</domain>'
    t.match(codes((await look(world, desired)).steps), ['vms.define web-3 vm.xml-unread'])
  })
  t.test('under another name', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    const domain = domainOf(world, 'web-3')
    world.domains.clear()
    world.domains.set('web-4', { ...domain, name: 'web-4' })
    t.match(codes((await look(world, desiredVms({ 'web-3': web }))).steps), [
      'vms.define web-3 vm.uuid-taken',
      'vms.autostart web-3',
      'vms.start web-3',
    ])
  })
  t.test('with another UUID', async (t) => {
    const world = await settled(desiredVms({ 'web-3': web }))
    const other = desiredVms({ 'web-3': { ...web, uuid: '00000000-0000-4000-8000-000000000001' } })
    t.same(codes((await look(world, other)).steps), ['vms.redefine web-3 vm.uuid-differs'])
  })
})

t.test('changes for what has no key', async (t) => {
  const xml = [
    { set: '/domain/devices/memballoon/@model', value: 'none' },
    { add: '/domain/devices', element: "<watchdog model='i6300esb' action='reset'/>" },
  ]
  const desired = desiredVms({ 'web-3': { ...web, xml } })
  const world = await settled(desired)
  t.match(domainOf(world, 'web-3').xml, /<memballoon model="none"\/>/)
  edit(world, 'web-3', (root) => {
    const watchdog = at(root, 'devices', 'watchdog')
    const devices = at(root, 'devices')
    if (watchdog && devices) remove(devices, watchdog)
  })
  t.match((await look(world, desired)).steps, [
    { id: 'vms.redefine', because: [{ path: 'vms.machines.web-3.xml.1', observed: null }] },
  ])
  t.equal((await apply(world, desired)).outcome, 'settled')
  for (const [why, patch] of Object.entries({
    'an element that is no XML': { add: '/domain/devices', element: '<a>' },
    'a path that is none': { remove: '/domain/devices/disk[last()]' },
    'a path that finds nothing': { set: "/domain/devices/disk[target/@dev='vdz']/@x", value: '1' },
  })) {
    const { steps } = await look(emptyWorld(), desiredVms({ 'web-3': { ...web, xml: [patch] } }))
    t.same(codes(steps).slice(1), ['vms.define web-3 vm.xml-refused'], why)
  }
})
