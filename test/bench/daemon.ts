// The daemon as built, on a real libvirtd with paused guests and with peers that are processes of their own: what it takes by day and
// night, and how long a lifecycle event of a VM takes to a peer and to a watcher here (DESIGN 7). In a network namespace of its own.
//
//   node test/bench/daemon.ts [GUESTS [PEERS [SECONDS [EVENTS]]]]     as root; 100 guests, 16 peers, 120 s, 300 events

import { type ChildProcess, spawn } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectOpen } from '../../agent/node-libvirt/index.ts'
import type { Report } from '../../agent/report/report-schema.ts'
import { FleetWorld, until } from '../contract/fleet-world.ts'
import { runTool } from '../lab/processes.ts'
import { endedChildrenMs, processorMs, startPausedGuests } from './guests.ts'
import { enterOwnNetwork } from './own-network.ts'

const [guests = 100, peers = 16, seconds = 120, events = 300] = process.argv.slice(2).map(Number)
enterOwnNetwork(import.meta.filename, [guests, peers, seconds, events])

const project = join(import.meta.dirname, '..', '..')
const executable = join(project, 'dist', 'garrison')
const folder = mkdtempSync(join(tmpdir(), 'gb-'))
const started: ChildProcess[] = []
process.once('exit', () => {
  for (const child of started) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

const paused = await startPausedGuests(guests)
const { libvirtd, control, domains } = paused

const root = join(folder, 'root')
for (const path of ['etc/garrison', 'run', 'var/lib/garrison', 'sockets'])
  mkdirSync(join(root, path), { recursive: true })
symlinkSync(join(libvirtd.folder, 'run'), join(root, 'run/libvirt'))
symlinkSync(join(folder, 'fleet/bench'), join(root, 'var/lib/garrison/fleet'))
const address = '127.0.0.1'
writeFileSync(
  join(root, 'etc/garrison/host.yaml'),
  `version: 1\nfleet: { port: 7946, listen: ${address}, addresses: { lo: ${address} } }\n`,
)
const world = new FleetWorld(join(folder, 'fleet'), { pace: {} })
await world.begin('peer-0')
const first = await world.start('peer-0')
await world.join('bench', first, 'operate')
for (let number = 1; number < peers; number += 1) {
  await world.join(`peer-${number}`, first)
  await world.start(`peer-${number}`)
}
console.log(`${peers} peers`)

const sockets = join(root, 'sockets')
const daemon = spawn(executable, ['daemon', '--sockets', sockets, '--root', root], {
  stdio: ['ignore', 'ignore', 'inherit'],
})
started.push(daemon)
const pid = daemon.pid ?? 0
const socket = join(sockets, 'report.sock')
async function report(): Promise<Report | null> {
  const argv = [executable, 'report', '--json', '--socket', socket]
  const { stdout } = await runTool(argv, { allowFailure: true })
  return stdout === '' ? null : JSON.parse(stdout)
}
await until(
  'every VM is known',
  async () => {
    const vms = (await report())?.vms?.filter(
      ({ cpuPercent, readPerSecond }) => cpuPercent !== null && readPerSecond !== null,
    )
    return vms?.length === guests
  },
  180_000,
)
await until(
  'every peer sees it',
  async () => {
    for (const host of world.hosts.values()) if ((await host.known('bench'))?.link == null) return false
    return true
  },
  60_000,
)
console.log('the daemon knows every VM, and every peer knows it')

const statusOf = (name: string): number =>
  Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) /
  1024
const memory = () =>
  `${statusOf('VmRSS').toFixed(1)} MB resident, of which ${statusOf('RssAnon').toFixed(1)} its own and the rest the executable, ${readdirSync(`/proc/${pid}/fd`).length} files`
const used = () =>
  [processorMs(pid), endedChildrenMs(pid), processorMs(libvirtd.pid), paused.qemuMs()] as const

console.log(`memory when it begins: ${memory()}`)
const before = used()
await sleep(seconds * 1000)
const spent = used().map((ms, at) => ms - (before[at] ?? 0))
const percent = spent.map((ms) => ((100 * ms) / (seconds * 1000)).toFixed(2))
console.log(
  `processor time over ${seconds} s, in % of one: daemon ${percent[0]}, programs it started ${percent[1]}, libvirtd ${percent[2]}, QEMU ${percent[3]}`,
)
console.log(`memory then: ${memory()}`)

/** When a watcher on this host heard of a change, by its line. */
const heard: { readonly atMs: number; readonly line: string }[] = []
const nowMs = () => Number(process.hrtime.bigint()) / 1e6
const watcher = spawn(executable, ['report', '--watch', '--json', '--socket', socket], {
  stdio: ['ignore', 'pipe', 'inherit'],
})
started.push(watcher)
createInterface({ input: watcher.stdout }).on('line', (line) => heard.push({ atMs: nowMs(), line }))
await until('the watcher hears', () => heard.length > 0)

// What libvirt itself takes, by the same clock: a client beside the daemon that hears the same events.
const plain = await connectOpen('qemu:///system', { socketPath: libvirtd.socketPath })
const plainly: { readonly atMs: number; readonly uuid: string }[] = []
await plain.connectDomainEventRegisterAny('lifecycle', ({ dom }) =>
  plainly.push({ atMs: nowMs(), uuid: dom.uuid }),
)

const toPlain: number[] = []
const toPeers: number[] = []
/** How much later than that client. */
const beyond: number[] = []
const toFirst: number[] = []
const toLast: number[] = []
const toReport: number[] = []
let missed = 0
for (let number = 0; number < events; number += 1) {
  const dom = domains[number % domains.length]
  if (dom === undefined) break
  const isSuspended = Math.floor(number / domains.length) % 2 === 0
  for (const host of world.hosts.values()) host.printed.length = 0
  heard.length = 0
  plainly.length = 0
  const fromMs = nowMs()
  await (isSuspended ? control.domainResume({ dom }) : control.domainSuspend({ dom }))
  const wanted = isSuspended ? 'running' : 'paused'
  const isTold = () =>
    heard.find(({ line }) =>
      JSON.parse(line).vms.some((vm: Report['vms'][number]) => vm.uuid === dom.uuid && vm.power === wanted),
    )
  const told = () =>
    [...world.hosts.values()].map((host) =>
      host.printed.find(
        ({ happened }) =>
          happened?.what === 'event' && (happened.event as { uuid?: string }).uuid === dom.uuid,
      ),
    )
  await until('told', () => told().every(Boolean) && isTold() !== undefined, 5000).catch(() => {})
  const plainMs = plainly.find(({ uuid }) => uuid === dom.uuid)?.atMs
  if (plainMs !== undefined) toPlain.push(plainMs - fromMs)
  const took = told().flatMap((line) => (line?.tickMs === undefined ? [] : [line.tickMs - fromMs]))
  missed += peers - took.length
  toPeers.push(...took)
  if (plainMs !== undefined) beyond.push(...took.map((ms) => ms - (plainMs - fromMs)))
  if (took.length > 0) {
    toFirst.push(Math.min(...took))
    toLast.push(Math.max(...took))
  }
  const seenMs = isTold()?.atMs
  if (seenMs !== undefined) toReport.push(seenMs - fromMs)
}
const at = (values: readonly number[], part: number): string =>
  (
    values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ??
    Number.NaN
  ).toFixed(1)
const row = (name: string, values: readonly number[]) =>
  `${name.padEnd(44)}${[0.5, 0.9, 0.99, 1].map((part) => at(values, part).padStart(8)).join('')}   of ${values.length}`
console.log(
  `\nfrom the call that suspends or resumes a guest, in ms${' '.repeat(5)}p50     p90     p99     max`,
)
console.log(row('to a plain client of libvirt', toPlain))
console.log(row('to a peer', toPeers))
console.log(row('to a peer, beyond that plain client', beyond))
console.log(row('to the first peer', toFirst))
console.log(row('to the last peer', toLast))
console.log(row('to the report of who watches here', toReport))
console.log(`missed ${missed}; memory then: ${memory()}`)
console.log(
  `${cpus().length} processors, load ${loadavg()
    .map((one) => one.toFixed(1))
    .join(' ')}`,
)

plain.close()
watcher.kill()
daemon.kill('SIGTERM')
await world.end()
await paused.stop()
process.exit(0)
