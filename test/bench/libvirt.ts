// What sampling a hundred VMs costs beside virsh and Debian's prometheus-libvirt-exporter: CPU time of the client, libvirtd and
// every QEMU (utime + stime), and time on the wall (DESIGN 7). All in one run, on a libvirtd and guests of its own.
//
//   node test/bench/libvirt.ts [GUESTS [SECONDS [DISKS]]]
//
// As root. 100 guests of one disk each when left out, and 120 s for each of the phases at their usual times.

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from '../contract/moto.ts'
import type { Done, Order } from './agent.ts'
import { endedChildrenMs, processorMs, startPausedGuests } from './guests.ts'
import { unpack } from './unpack.ts'

const guests = Number(process.argv[2] ?? 100)
const phaseMs = Number(process.argv[3] ?? 120) * 1000
const disks = Number(process.argv[4] ?? 1)
/** Each way is taken so often in a row, and then the next, so that all of them meet what else the machine does. */
const [inARow, blocks] = [5, 4]
/** Prometheus's own example configuration scrapes at this interval. */
const scrapeEveryMs = 15_000
const minuteMs = 60_000
/** A user without rights, on every distribution. */
const nobody = 65_534

const run = promisify(execFile)
const folder = mkdtempSync(join(tmpdir(), 'garrison-bench-'))
const started: ChildProcess[] = []
process.once('exit', () => {
  for (const child of started) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

const exporterName = 'prometheus-libvirt-exporter'
unpack(folder, exporterName)
const exporterPath = join(folder, exporterName, 'usr/bin', exporterName)
const paused = await startPausedGuests(guests, { disks, network: true })
const { libvirtd } = paused
const { readOnlySocketPath } = libvirtd
// Its keep-alive would be counted as well.
paused.control.close()
// As on a host, where the daemon is nobody in particular: what only root may read of a process is not read.
chmodSync(libvirtd.folder, 0o711)
const agent = spawn(
  process.execPath,
  [
    join(import.meta.dirname, 'agent.ts'),
    readOnlySocketPath,
    join(libvirtd.folder, 'run'),
    // The guests' taps are in the network namespace of their libvirtd.
    `/proc/${libvirtd.pid}/net/dev`,
  ],
  { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], uid: nobody, gid: nobody },
)
started.push(agent)
await once(agent, 'message')
const order = async (what: Order): Promise<number> => {
  agent.send(what)
  const [done] = (await once(agent, 'message')) as [Done]
  if (done.vms !== guests) throw new Error(`${what.what} told of ${done.vms} VMs, not of ${guests}`)
  return done.tookMs
}

const port = await freePort()
const exporter = spawn(
  exporterPath,
  [`--web.listen-address=127.0.0.1:${port}`, `--libvirt.uri=qemu:///system?socket=${readOnlySocketPath}`],
  { stdio: ['ignore', 'ignore', 'inherit'] },
)
started.push(exporter)
async function scrape(): Promise<number> {
  const fromMs = performance.now()
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  const tookMs = performance.now() - fromMs
  const seen = text.match(/^libvirt_domain_block_stats_read_bytes_total\{/gm)?.length
  if (seen !== guests * disks)
    throw new Error(`the exporter tells of ${seen} disks, not of ${guests * disks}`)
  return tookMs
}

async function virsh(...args: readonly string[]): Promise<number> {
  const fromMs = performance.now()
  const { stdout } = await run(
    '/usr/bin/virsh',
    ['-c', `qemu:///system?socket=${readOnlySocketPath}`, ...args],
    {
      maxBuffer: 2 ** 26,
    },
  )
  const tookMs = performance.now() - fromMs
  const seen = stdout.match(/guest-\d+/g)?.length
  if (seen !== guests) throw new Error(`virsh tells of ${seen} VMs, not of ${guests}`)
  return tookMs
}

/** CPU time so far, in milliseconds. */
interface Cpu {
  readonly client: number
  readonly libvirtd: number
  readonly qemu: number
}

const cpuNow = (client: () => number): Cpu => ({
  client: client(),
  libvirtd: processorMs(libvirtd.pid),
  qemu: paused.qemuMs(),
})
const spent = (from: Cpu, to: Cpu): Cpu => ({
  client: to.client - from.client,
  libvirtd: to.libvirtd - from.libvirtd,
  qemu: to.qemu - from.qemu,
})
const totalOf = ({ client, libvirtd: daemon, qemu }: Cpu): number => client + daemon + qemu
const add = (a: Cpu, b: Cpu): Cpu => ({
  client: a.client + b.client,
  libvirtd: a.libvirtd + b.libvirtd,
  qemu: a.qemu + b.qemu,
})
const none: Cpu = { client: 0, libvirtd: 0, qemu: 0 }
const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN

const virshCpu = () => endedChildrenMs('self')
const agentCpu = () => processorMs(agent.pid ?? 0)
const exporterCpu = () => processorMs(exporter.pid ?? 0)

/** The ways to learn something, each done once by calling it. */
const groups = ['--state', '--cpu-total', '--balloon', '--vcpu', '--interface', '--block']
const ways = {
  'six groups, node-libvirt': [agentCpu, () => order({ what: 'six groups' })],
  'six groups, virsh domstats': [virshCpu, () => virsh('domstats', ...groups)],
  'six groups, virsh domstats --nowait': [virshCpu, () => virsh('domstats', '--nowait', ...groups)],
  'all groups, virsh domstats': [virshCpu, () => virsh('domstats')],
  'list, node-libvirt': [agentCpu, () => order({ what: 'list' })],
  'list, virsh list': [virshCpu, () => virsh('list')],
  'our dear tier, once': [agentCpu, () => order({ what: 'ask' })],
  'our dear tier, with all the memory': [agentCpu, () => order({ what: 'first ask' })],
  'our cheap tier, once': [agentCpu, () => order({ what: 'look' })],
  'exporter, one scrape': [exporterCpu, scrape],
} as const satisfies Record<string, readonly [() => number, () => Promise<number>]>
type Way = keyof typeof ways
const names = Object.keys(ways) as Way[]

console.log('warming up')
for (let round = 0; round < 3; round++) for (const name of names) await ways[name][1]()

const measured = new Map(names.map((name) => [name, { tookMs: [] as number[], cpu: none }]))
for (let block = 0; block < blocks; block++)
  for (const name of names) {
    const [client, way] = ways[name]
    const result = measured.get(name)
    if (result === undefined) continue
    const from = cpuNow(client)
    for (let round = 0; round < inARow; round++) result.tookMs.push(await way())
    result.cpu = add(result.cpu, spent(from, cpuNow(client)))
  }

const pad = (cells: readonly string[]): string =>
  cells.map((cell, at) => (at === 0 ? cell.padEnd(40) : cell.padStart(10))).join('')
const row = (name: string, cpu: Cpu, times: number, tookMs?: number): string =>
  pad([
    name,
    ...[cpu.client, cpu.libvirtd, cpu.qemu, totalOf(cpu)].map((ms) => (ms / times).toFixed(1)),
    tookMs === undefined ? '' : tookMs.toFixed(1),
  ])
const titles = pad(['', 'client', 'libvirtd', 'QEMU', 'CPU ms', 'wall ms'])

console.log(
  `\n${guests} guests, disks of each: ${disks}; each way ${inARow * blocks} times; CPU ms for one, median of wall ms\n${titles}`,
)
for (const [name, { cpu, tookMs }] of measured) console.log(row(name, cpu, tookMs.length, median(tookMs)))
const wall = (name: Way) => median(measured.get(name)?.tookMs ?? [])
const ratio = (a: number, b: number) => `${(a / b).toFixed(2)} x`
console.log(
  `\nsix groups: virsh domstats takes ${ratio(wall('six groups, virsh domstats'), wall('six groups, node-libvirt'))} as long` +
    ` (budget: at least 1.80 x)\nlist: virsh list takes ${ratio(wall('list, virsh list'), wall('list, node-libvirt'))} as long`,
)

/** One phase at usual times: what it cost in a minute. */
async function phase(client: () => number, work: () => Promise<unknown>): Promise<Cpu> {
  const from = cpuNow(client)
  const fromMs = performance.now()
  await work()
  const cpu = spent(from, cpuNow(client))
  const minutes = (performance.now() - fromMs) / minuteMs
  return { client: cpu.client / minutes, libvirtd: cpu.libvirtd / minutes, qemu: cpu.qemu / minutes }
}

async function scrapeOnAndOn(): Promise<void> {
  const endMs = performance.now() + phaseMs
  for (let nextMs = performance.now(); nextMs < endMs; ) {
    await scrape()
    nextMs += scrapeEveryMs
    await sleep(nextMs - performance.now())
  }
}

console.log(`\nat their usual times, ${phaseMs / 1000} s each; CPU ms in a minute\n${titles}`)
const idle = await phase(
  () => 0,
  () => sleep(phaseMs / 2),
)
console.log(row('nobody asks', idle, 1))
// Just before the next question would begin.
const ours = await phase(agentCpu, () => order({ what: 'run', forMs: phaseMs - 500 }))
console.log(row('ours: 6 looks, 1 question', ours, 1))
const theirs = await phase(exporterCpu, scrapeOnAndOn)
console.log(row(`exporter, every ${scrapeEveryMs / 1000} s`, theirs, 1))

for (const everyMs of [10_000, scrapeEveryMs, 30_000, minuteMs])
  console.log(
    `exporter every ${everyMs / 1000} s: ${ratio((totalOf(theirs) * scrapeEveryMs) / everyMs, totalOf(ours))} the CPU of ours`,
  )

const { model } = cpus()[0] ?? {}
const version = execFileSync('/usr/sbin/libvirtd', ['--version'], { encoding: 'utf8' }).trim()
console.log(
  `\n${cpus().length} x ${model}, load ${loadavg()[0]?.toFixed(1)}; Node ${process.versions.node}; ${version}`,
)
agent.disconnect()
exporter.kill()
await Promise.all([once(exporter, 'exit'), once(agent, 'exit')])
await paused.stop()
