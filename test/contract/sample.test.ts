// Sampling against a real libvirtd and real guests of QEMU (32 MiB, no operating system): ones that hang, a libvirtd that does.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type Connection, connectOpen, connectOpenReadOnly, VIR } from '../../agent/node-libvirt/index.ts'
import { hostClock } from '../../agent/report/clock.ts'
import { readNow } from '../../agent/report/proc-files.ts'
import { Sampler, type VmSample } from '../../agent/report/sample.ts'
import { startLibvirtd } from './libvirtd.ts'

const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())
const { folder, socketPath } = libvirtd
writeFileSync(join(folder, 'disk.img'), Buffer.alloc(1024 * 1024))
const reconnect = { leastMs: 20, mostMs: 200 }
const control = await connectOpen('qemu:///system', { socketPath, reconnect })
t.teardown(() => control.close())

const names = ['one', 'two', 'three', 'four', 'five']
const xmlOf = (name: string) => `<domain type='qemu'><name>${name}</name>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${folder}/disk.img'/>
      <target dev='vda' bus='virtio'/><shareable/></disk>
    <interface type='ethernet'><model type='virtio'/></interface><memballoon model='virtio'/>
  </devices></domain>`
const begin = (name: string) =>
  control.domainCreateXML({ xml: xmlOf(name), flags: VIR.DOMAIN_START_PAUSED }, { deadlineMs: 60_000 })

const pidOf = (name: string) => Number(readFileSync(join(folder, 'run/qemu', `${name}.pid`), 'utf8'))

function samplerOf({ opened = [] as Connection[], deadlineMs = 1000 } = {}) {
  const sampler = new Sampler({
    connect: async () => {
      const connection = await connectOpenReadOnly('qemu:///system', {
        socketPath: libvirtd.readOnlySocketPath,
        connectDeadlineMs: 5000,
        keepalive: { intervalMs: 500, count: 4 },
        reconnect,
      })
      opened.push(connection)
      return connection
    },
    read: readNow,
    clock: hostClock,
    runFolder: join(folder, 'run'),
    netDevPath: '/proc/net/dev',
    everyMs: { look: 100, ask: 600 },
    deadlineMs,
    skip: { leastMs: 1000, mostMs: 4000 },
  })
  t.teardown(() => sampler.close())
  return sampler
}

const vmOf = (sampler: Sampler, name: string): VmSample => {
  const found = sampler.sample().vms.find((vm) => vm.name === name)
  if (found === undefined) throw new Error(`${name} is not known`)
  return found
}

async function until(what: string, check: () => unknown): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(20)) if (check()) return
  throw new Error(`${what} has not come`)
}

for (const name of names) await begin(name)

t.test('what is told is what libvirt and the kernel tell', async (t) => {
  const sampler = samplerOf()
  await sampler.ask()
  sampler.look()
  t.same(
    sampler.sample().vms.map(({ name }) => name),
    [...names].sort(),
  )
  t.equal(sampler.sample().silence, null)
  const [record] = await control.connectGetAllDomainStats({
    doms: [await control.domainLookupByName({ name: 'one' })],
    stats: VIR.DOMAIN_STATS_INTERFACE | VIR.DOMAIN_STATS_BLOCK | VIR.DOMAIN_STATS_BALLOON,
    flags: 0,
  })
  const params = record?.params ?? {}
  const { power, process: qemu, nics, memory, disks, problem, stuckSinceMs } = vmOf(sampler, 'one')
  t.match(power?.value, { power: 'paused', reason: 'user' })
  t.equal(problem, null)
  t.equal(stuckSinceMs, null)
  t.equal(qemu?.value.pid, pidOf('one'))
  // libvirt reads the same file, in KiB of 4 KiB pages.
  const rss = Number(params['balloon.rss']) * 1024
  t.ok(Math.abs((qemu?.value.residentBytes ?? 0) - rss) < 4 * 2 ** 20, `${qemu?.value.residentBytes} ${rss}`)
  t.ok((qemu?.value.counters.total.cpuMs ?? 0) > 0)
  t.ok((qemu?.value.counters.total.readBytes ?? -1) >= 0)
  const [nic] = nics?.value ?? []
  t.equal(nic?.device, params['net.0.name'])
  // The host greets on each new device, so that what the guest received is not what it sent.
  t.ok(Number(params['net.0.rx.bytes']) > Number(params['net.0.tx.bytes']))
  t.ok((nic?.counters?.total.receivedBytes ?? 0) > 0)
  t.equal(nic?.counters?.total.sentBytes, params['net.0.tx.bytes'])
  t.match(memory?.value, {
    currentBytes: 32 * 2 ** 20,
    maximumBytes: 32 * 2 ** 20,
    toldMs: null,
    unusedBytes: null,
  })
  const [disk] = disks?.value ?? []
  t.match(disk, { target: 'vda', source: `${folder}/disk.img`, capacityBytes: 2 ** 20 })
  t.equal(disk?.counters.total.readBytes, params['block.0.rd.bytes'])
  t.equal(disk?.counters.perSecond, null)
  await sampler.ask()
  sampler.look()
  const again = vmOf(sampler, 'one')
  t.equal(again.disks?.value[0]?.counters.perSecond?.reads, 0)
  t.ok((again.process?.value.counters.perSecond?.cpuMs ?? -1) >= 0)
})

t.test('a guest that hangs delays nobody, and is asked again when it goes on', async (t) => {
  for (const name of names) await control.domainResume({ dom: await control.domainLookupByName({ name }) })
  const sampler = samplerOf()
  const stop = new AbortController()
  const running = sampler.run(stop.signal, () => {})
  await until('all', () => sampler.sample().vms.filter(({ disks }) => disks !== null).length === 5)
  process.kill(pidOf('three'), 'SIGSTOP')
  const stoppedMs = Date.now()
  await until('a verdict', () => vmOf(sampler, 'three').stuckSinceMs !== null)
  t.comment(`known to hang after ${Date.now() - stoppedMs} ms`)
  const healthy = names.filter((name) => name !== 'three')
  let oldestMs = 0
  for (const end = Date.now() + 2500; Date.now() < end; await sleep(20))
    for (const name of healthy) oldestMs = Math.max(oldestMs, vmOf(sampler, name).disks?.ageMs ?? Number.NaN)
  t.comment(`others at most ${oldestMs} ms old`)
  t.ok(oldestMs < 3 * 600, 'others are asked every 600 ms')
  const stuck = vmOf(sampler, 'three')
  t.ok((stuck.disks?.ageMs ?? 0) >= 2500 && stuck.disks?.stale, 'its own age')
  t.ok((stuck.process?.ageMs ?? Number.NaN) < 1000, 'the kernel still tells of it')
  t.equal(stuck.process?.value.letter, 'T')
  t.equal(stuck.power?.value.power, 'running')
  t.ok((stuck.power?.ageMs ?? Number.NaN) < 3 * 600)
  t.equal(sampler.sample().silence, null, 'a guest that hangs is no silence of libvirt')
  process.kill(pidOf('three'), 'SIGCONT')
  await until('its return', () => vmOf(sampler, 'three').stuckSinceMs === null)
  t.equal(vmOf(sampler, 'three').disks?.stale, false)
  stop.abort()
  await running
})

t.test(
  'a libvirtd that hangs: the kernel goes on telling, the rest ages, and all is well when it is back',
  async (t) => {
    const opened: Connection[] = []
    const sampler = samplerOf({ opened })
    const stop = new AbortController()
    const running = sampler.run(stop.signal, () => {})
    await until('all', () => sampler.sample().vms.filter(({ disks }) => disks !== null).length === 5)
    await libvirtd.signal('SIGSTOP')
    await sleep(4000)
    const hung = sampler.sample()
    t.type(hung.silence, 'string')
    t.comment(hung.silence)
    t.ok((hung.listed?.ageMs ?? 0) > 3000 && hung.listed?.stale)
    for (const { name, process: qemu, nics, disks, power } of hung.vms) {
      t.ok((qemu?.ageMs ?? Number.NaN) < 1000, `${name}: the process`)
      t.ok((nics?.ageMs ?? Number.NaN) < 1000, `${name}: NICs`)
      t.ok((disks?.ageMs ?? 0) > 3000 && disks?.stale, `${name}: disks`)
      t.equal(power?.value.power, 'running', `${name}: what it did`)
      t.ok(power?.stale, `${name}: and that is old`)
    }
    await libvirtd.signal('SIGCONT')
    const isWell = () => {
      const { silence, vms } = sampler.sample()
      return (
        silence === null &&
        vms.length === 5 &&
        vms.every(({ disks, power }) => !disks?.stale && !power?.stale)
      )
    }
    await until('answers', isWell)
    await libvirtd.signal('SIGKILL')
    await until('silence', () => sampler.sample().silence !== null)
    const died = vmOf(sampler, 'two').process?.value.pid ?? 0
    process.kill(died, 'SIGKILL')
    await until('its end', () => vmOf(sampler, 'two').process === null)
    t.match(vmOf(sampler, 'two').power?.value, { power: 'unknown', reason: 'its process has ended' })
    t.equal(vmOf(sampler, 'one').power?.value.power, 'running')
    await libvirtd.start()
    await until('answers', () => sampler.sample().silence === null && sampler.sample().vms.length === 4)
    t.same(
      sampler.sample().vms.map(({ name }) => name),
      ['five', 'four', 'one', 'three'],
      'one that was never defined is gone with its process',
    )
    await until('all others', () => sampler.sample().vms.every(({ disks }) => !disks?.stale))
    stop.abort()
    await running
    t.ok(
      opened.every((connection) => !connection.connected),
      'nothing stays open',
    )
  },
)

t.test('one that is started anew counts anew, one that is stopped is off and has no numbers', async (t) => {
  const sampler = samplerOf()
  const stop = new AbortController()
  const running = sampler.run(stop.signal, () => {})
  const dom = await control.domainDefineXMLFlags({ xml: xmlOf('kept') })
  await until('it', () => sampler.sample().vms.some(({ name }) => name === 'kept'))
  t.equal(vmOf(sampler, 'kept').power?.value.power, 'off')
  t.equal(vmOf(sampler, 'kept').process, null)
  await control.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
  await until('its numbers', () => vmOf(sampler, 'kept').nics && vmOf(sampler, 'kept').disks)
  const first = vmOf(sampler, 'kept').process?.value.pid
  t.equal(first, pidOf('kept'))
  await control.domainDestroy({ dom })
  await until('its end', () => vmOf(sampler, 'kept').power?.value.power === 'off')
  t.match(vmOf(sampler, 'kept'), { process: null, nics: null, disks: null, memory: null })
  await control.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
  await until('another process', () => vmOf(sampler, 'kept').process)
  t.not(vmOf(sampler, 'kept').process?.value.pid, first)
  await control.domainDestroy({ dom })
  await control.domainUndefineFlags({ dom })
  await until('nothing', () => sampler.sample().vms.every(({ name }) => name !== 'kept'))
  stop.abort()
  await running
})
