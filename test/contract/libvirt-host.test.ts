// The host's reader and performer over a real libvirtd and real (emulated, diskless) guests: facts, actions, refusals, silences.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Libvirt } from '../../agent/host/libvirt.ts'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer } from '../../agent/host/perform.ts'
import { type Connection, connectOpen } from '../../agent/node-libvirt/index.ts'
import type { DomainFacts } from '../../provisioning/host.ts'
import { xmlDigest } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action, DomainAction } from '../../provisioning/resource.ts'
import { noCloud } from '../unit/no-cloud.ts'
import { startLibvirtd, virsh } from './libvirtd.ts'

t.setTimeout(120_000)

const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())
const opened: Connection[] = []
const kept = new Libvirt(
  async () => {
    const connection = await connectOpen('qemu:///system', {
      socketPath: libvirtd.socketPath,
      reconnect: { leastMs: 100, mostMs: 1000 },
    })
    opened.push(connection)
    return connection
  },
  Date.now,
  { recall: async () => null, keep: async () => {} },
)
t.teardown(() => {
  for (const connection of opened) connection.close()
})
const claims = new Set<string>()
const reader = new LinuxHost({
  claims,
  unfinishedSteps: async () => [],
  lockHolder: async () => null,
  libvirt: () => kept.connection('monitor'),
  ...noCloud,
})
const performer = new LinuxPerformer({
  reader,
  claims,
  ec2: noCloud.ec2,
  libvirt: () => kept.connection('control'),
})

const ask = (...args: readonly string[]): string => virsh(libvirtd.socketPath, 'qemu:///system', ...args)

const uuid = '6a9be0f0-0d6f-4a8b-9a53-0a6b5a3c8d01'
const web = { kind: 'domain', uuid, name: 'web' } as const

const disk = join(libvirtd.folder, 'web.qcow2')
execFileSync('/usr/bin/qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M'])

const definition = (memoryKib: number, more = ''): string =>
  `<domain type='qemu'><name>web</name><uuid>${uuid}</uuid><memory>${memoryKib}</memory><os><type machine='pc'>hvm</type></os>` +
  `<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/><target dev='vda' bus='virtio'/></disk>${more}</devices></domain>`

const one = async (): Promise<DomainFacts | undefined> =>
  (await reader.domains()).find(({ name }) => name === 'web')

const digest = async (): Promise<string> => xmlDigest((await one())?.xml ?? '')

const perform = (action: Action) => performer.perform(action)

const problem = async (work: Promise<unknown>): Promise<HostError> => {
  const error = await work.then(
    () => new Error('it was done'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof HostError)) throw error
  return error
}

t.test('a VM from nothing to running and away', async (t) => {
  t.same(await reader.domains(), [])
  const define = { ...web, operation: 'define', xml: definition(65_536), replaces: null } as const
  const outcome = await perform(define)
  t.match(outcome, { kind: 'domain', summary: 'define domain web' })
  t.match(await one(), {
    uuid,
    power: 'off',
    persistent: true,
    autostart: false,
    managedSave: false,
    liveXml: null,
    hasSecrets: false,
  })

  t.test('another definition only over the one that it was made from', async (t) => {
    t.match(await problem(perform(define)), {
      code: 'plan.changed',
      details: { outcome: { kind: 'domain' } },
    })
    t.match(await problem(perform({ ...define, replaces: 'abc' })), { code: 'plan.changed' })
    await perform({ ...define, xml: definition(32_768), replaces: await digest() })
    t.match((await one())?.xml, /<memory unit='KiB'>32768<\/memory>/)
  })
  t.test('what does not fit the schema is refused, with what libvirt calls it', async (t) => {
    const xml = definition(65_536, '<warp/>')
    t.match(await problem(perform({ ...define, xml, replaces: await digest() })), {
      code: 'libvirt.refused',
      details: { code: 'VIR_ERR_XML_INVALID_SCHEMA', procedure: 'domainDefineXMLFlags' },
    })
  })
  t.test('passwords are told of and not told', async (t) => {
    const vnc = "<graphics type='vnc' socket='/tmp/garrison-vnc' passwd='hush'/>"
    await perform({ ...define, xml: definition(32_768, vnc), replaces: await digest() })
    const facts = await one()
    t.equal(facts?.hasSecrets, true)
    t.notMatch(facts?.xml, /hush/)
    await perform({ ...define, xml: definition(32_768), replaces: await digest() })
  })
  t.test('started, twice', async (t) => {
    const start = { ...web, operation: 'start' } as const
    await perform(start)
    t.match(await one(), { power: 'running', reason: 'booted', liveXml: /<domain type='qemu' id='/ })
    await perform(start)
    t.equal(ask('domstate', 'web').trim(), 'running')
  })
  t.test('a guest whose QEMU hangs, with somebody waiting for it, holds up nobody who looks', async (t) => {
    const pid = Number(readFileSync(join(libvirtd.folder, 'run/qemu/web.pid'), 'utf8'))
    process.kill(pid, 'SIGSTOP')
    const uri = `qemu:///system?socket=${libvirtd.socketPath}`
    const waiting = spawn('/usr/bin/virsh', [
      '-q',
      '-c',
      uri,
      'qemu-monitor-command',
      'web',
      '--hmp',
      'info name',
    ])
    await sleep(1000)
    const beganMs = performance.now()
    t.match(await one(), { power: 'running' })
    t.ok(performance.now() - beganMs < 5000)
    t.equal(waiting.exitCode, null, 'it does wait')
    process.kill(pid, 'SIGCONT')
    await once(waiting, 'exit')
  })
  t.test('its disk made larger, twice, and never smaller', async (t) => {
    for (const sizeBytes of [3 * 2 ** 20, 3 * 2 ** 20, 2 ** 20]) {
      await perform({ ...web, operation: 'grow-disk', target: 'vda', sizeBytes })
      t.match(ask('domblkinfo', 'web', 'vda'), /Capacity: +3145728/)
    }
    t.match(await problem(perform({ ...web, operation: 'grow-disk', target: 'vdz', sizeBytes: 2 ** 20 })), {
      code: 'libvirt.refused',
      details: { code: 'VIR_ERR_INVALID_ARG' },
    })
  })
  t.test('autostart, there and back', async (t) => {
    for (const enabled of [true, true, false]) {
      await perform({ ...web, operation: 'autostart', enabled })
      t.equal((await one())?.autostart, enabled)
    }
  })
  t.test('a guest that does not listen is not off by the deadline', async (t) => {
    // No system runs in it that would hear the power button.
    const shutdown = { ...web, operation: 'shutdown', deadlineMs: 600 } as const
    t.match(await problem(perform(shutdown)), {
      code: 'action.deadline',
      message: /web .* not off after 0.6 s/,
    })
    ask('suspend', 'web')
    t.match(await one(), { power: 'paused', reason: 'user' })
    t.match(await problem(perform(shutdown)), {
      code: 'libvirt.refused',
      details: { code: 'VIR_ERR_OPERATION_INVALID' },
    })
    ask('resume', 'web')
  })
  t.test('its power cut, twice', async (t) => {
    await perform({ ...web, operation: 'destroy' })
    t.match(await one(), { power: 'off', reason: 'destroyed' })
    await perform({ ...web, operation: 'destroy' })
    await perform({ ...web, operation: 'shutdown', deadlineMs: 1000 })
  })
  t.test('undefined, twice; then there is nothing to start', async (t) => {
    await perform({ ...web, operation: 'undefine' })
    await perform({ ...web, operation: 'undefine' })
    t.equal(await one(), undefined)
    for (const operation of ['start', 'autostart'] as const)
      t.match(await problem(perform({ ...web, operation, enabled: true } as DomainAction)), {
        code: 'plan.changed',
      })
  })
})

t.test('pools and networks', async (t) => {
  const path = join(libvirtd.folder, 'images')
  mkdirSync(path)
  const pool = { kind: 'pool', name: 'images' } as const
  const xml = `<pool type='dir'><name>images</name><target><path>${path}</path></target></pool>`
  await perform({ ...pool, operation: 'define', xml })
  t.same(await reader.pools(), [
    { name: 'images', type: 'dir', path, active: false, autostart: false, capacityBytes: 0, freeBytes: 0 },
  ])
  for (let time = 0; time < 2; time += 1) {
    await perform({ ...pool, operation: 'start' })
    await perform({ ...pool, operation: 'autostart', enabled: true })
  }
  const [images] = await reader.pools()
  t.match(images, { name: 'images', path, active: true, autostart: true })
  t.ok((images?.capacityBytes ?? 0) >= (images?.freeBytes ?? 0) && (images?.freeBytes ?? 0) > 0)
  const unknown = { ...pool, name: 'none', operation: 'start' } as const
  t.match(await problem(perform(unknown)), {
    code: 'libvirt.refused',
    details: { code: 'VIR_ERR_NO_STORAGE_POOL' },
  })

  const connection = await kept.connection('control')
  await connection.networkDefineXML({ xml: "<network><name>lan</name><bridge name='vb-lan'/></network>" })
  await connection.networkDefineXML({
    xml: "<network><name>direct</name><forward mode='bridge'><interface dev='lo'/></forward></network>",
  })
  const inactive = { active: false, autostart: false, persistent: true, liveXml: null }
  const networks = await reader.networks()
  t.equal(networks.length, 2)
  t.match(networks, [
    { ...inactive, name: 'direct', bridge: null, xml: /<name>direct</ },
    { ...inactive, name: 'lan', bridge: 'vb-lan', xml: /<name>lan</ },
  ])
})

t.test('a libvirtd that is stopped, killed, and comes back', async (t) => {
  await perform({ ...web, operation: 'define', xml: definition(32_768), replaces: null })
  await libvirtd.signal('SIGSTOP')
  const began = Date.now()
  t.match(await problem(reader.domains()), {
    code: 'libvirt.unreachable',
    message: /^libvirt has not answered for 1\d s: /,
    details: { reason: 'deadline', answeredMs: Number },
  })
  t.ok(Date.now() - began < 12_000, 'within the deadline')
  await libvirtd.signal('SIGCONT')
  t.match(await one(), { power: 'off' })

  await libvirtd.signal('SIGKILL')
  t.match(await problem(reader.domains()), { code: 'libvirt.unreachable' })
  t.match(await problem(perform({ ...web, operation: 'start' })), {
    code: 'libvirt.unreachable',
    retry: true,
    details: { outcome: { summary: 'start domain web' } },
  })
  await libvirtd.start()
  t.match(await one(), { power: 'off' })

  t.test('a guest lives on, and nobody starts it twice', async (t) => {
    await perform({ ...web, operation: 'start' })
    const pid = () => ask('qemu-monitor-command', 'web', '--hmp', 'info version') && ask('domid', 'web')
    t.ok(pid())
    await libvirtd.signal('SIGKILL')
    await libvirtd.start()
    t.match(await one(), { power: 'running' })
    await perform({ ...web, operation: 'start' })
    await perform({ ...web, operation: 'destroy' })
    await perform({ ...web, operation: 'undefine' })
  })
})
