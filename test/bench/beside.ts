// The daemon as built beside what else a site would run for the same: Debian's prometheus-node-exporter with
// prometheus-libvirt-exporter, and collectd with its virt plugin. The same paused guests, one after the other in one run.
//
//   node test/bench/beside.ts [GUESTS [SECONDS]]     as root, needs dist/garrison; 100 guests, 120 s for each

import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../contract/fleet-world.ts'
import { endedChildrenMs, processorMs, startPausedGuests } from './guests.ts'
import { enterOwnNetwork } from './own-network.ts'
import { unpack } from './unpack.ts'

const [guests = 100, seconds = 120] = process.argv.slice(2, 4).map(Number)
/** Made before the network is left, for the packages come over it. */
const folder = process.argv[4] ?? mkdtempSync(join(tmpdir(), 'gb-'))
const started: ChildProcess[] = []
process.once('exit', () => {
  for (const child of started) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
const packages = ['prometheus-node-exporter', 'prometheus-libvirt-exporter', 'collectd-core'] as const
if (process.argv[4] === undefined) for (const name of packages) unpack(folder, name)
enterOwnNetwork(import.meta.filename, [guests, seconds, folder])

/** Prometheus's own example configuration scrapes at this interval. */
const scrapeEveryMs = 15_000
/** What a start costs is over by then. */
const settlingMs = 120_000
const [nodePort, libvirtPort, collectdPort] = [9100, 9177, 25826]
const address = '127.0.0.1'

const [nodeExporter, libvirtExporter] = [packages[0], packages[1]].map((name) =>
  join(folder, name, 'usr/bin', name),
) as [string, string]
const collectd = join(folder, packages[2])
const paused = await startPausedGuests(guests)
const { libvirtd } = paused

const root = join(folder, 'root')
const sockets = join(root, 'sockets')
for (const path of ['etc/garrison', 'run', 'var/lib/garrison', 'sockets'])
  mkdirSync(join(root, path), { recursive: true })
symlinkSync(join(libvirtd.folder, 'run'), join(root, 'run/libvirt'))
writeFileSync(join(root, 'etc/garrison/host.yaml'), 'version: 1\n')

const uri = `qemu:///system?socket=${libvirtd.readOnlySocketPath}`
const collectdConfiguration = join(folder, 'collectd.conf')
writeFileSync(
  collectdConfiguration,
  `Hostname "bench"
BaseDir "${folder}"
PIDFile "${folder}/collectd.pid"
PluginDir "${collectd}/usr/lib/collectd"
TypesDB "${collectd}/usr/share/collectd/types.db"
Interval 10
${['cpu', 'df', 'disk', 'interface', 'load', 'memory'].map((name) => `LoadPlugin ${name}`).join('\n')}
LoadPlugin virt
<Plugin virt>
  Connection "${uri}"
  RefreshInterval 60
  # Of a guest that is paused it tells nothing else.
  ExtraStats "domain_state"
</Plugin>
LoadPlugin network
<Plugin network>
  Server "${address}" "${collectdPort}"
</Plugin>
`,
)

/** Fetches a page, and answers it. */
async function page(where: { socketPath: string } | { host: string; port: number }): Promise<string> {
  const asked = request({ ...where, path: '/metrics' })
  asked.end()
  const [response] = await once(asked, 'response')
  let text = ''
  for await (const part of response) text += part
  return text
}

/** What one way to watch the host cost, by the minute. */
interface Cost {
  readonly own: number
  readonly libvirtd: number
  readonly qemu: number
  readonly memory: string
  readonly bytes: number
}

const statusOf = (pid: number, name: string): number =>
  Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) /
  1024

/** Starts programs, has `work` go on for the time of the bench, and ends them. `work` answers how many bytes were told. */
async function cost(
  programs: readonly (readonly [path: string, ...args: string[]])[],
  isReady: () => Promise<boolean>,
  work: () => Promise<number>,
): Promise<Cost> {
  const children = programs.map(([path, ...args]) => spawn(path, args, { stdio: 'ignore' }))
  started.push(...children)
  const pids = children.map(({ pid }) => pid ?? 0)
  await until(`${programs[0]?.[0]} tells of all guests`, isReady, 180_000)
  await sleep(settlingMs)
  const sum = (of: (pid: number) => number) => pids.reduce((all, pid) => all + of(pid), 0)
  const used = () => [
    sum((pid) => processorMs(pid) + endedChildrenMs(pid)),
    processorMs(libvirtd.pid),
    paused.qemuMs(),
  ]
  const before = used()
  const fromMs = performance.now()
  const bytes = await work()
  const minutes = (performance.now() - fromMs) / 60_000
  const [own = 0, daemon = 0, qemu = 0] = used().map((ms, at) => (ms - (before[at] ?? 0)) / minutes)
  const [resident, anonymous] = ['VmRSS', 'RssAnon'].map((name) =>
    sum((pid) => statusOf(pid, name)).toFixed(0),
  )
  const exits = children.map((child) => once(child, 'exit'))
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(exits)
  return {
    own,
    libvirtd: daemon,
    qemu,
    memory: `${resident} (${anonymous})`,
    bytes: bytes / minutes,
  }
}

/** Scrapes pages as Prometheus would, for the time of the bench. */
async function scraping(...pages: readonly (() => Promise<string>)[]): Promise<number> {
  let bytes = 0
  const endMs = performance.now() + seconds * 1000
  for (let nextMs = performance.now(); nextMs < endMs; ) {
    for (const one of pages) bytes += Buffer.byteLength(await one())
    nextMs += scrapeEveryMs
    await sleep(nextMs - performance.now())
  }
  return bytes
}

const tellsAll = async (one: () => Promise<string>): Promise<boolean> => {
  const text = await one().catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') return ''
    throw error
  })
  return new Set(text.match(/"guest-\d+"/g)).size === guests
}

console.log(`${guests} guests; each ${seconds} s`)
const ourPage = () => page({ socketPath: join(sockets, 'report.sock') })
const nodePage = () => page({ host: address, port: nodePort })
const libvirtPage = () => page({ host: address, port: libvirtPort })

const executable = join(import.meta.dirname, '..', '..', 'dist', 'garrison')
const ours = await cost(
  [[executable, 'daemon', '--sockets', sockets, '--root', root]],
  () => tellsAll(ourPage),
  () => scraping(ourPage),
)
const exporters = await cost(
  [
    [nodeExporter, `--web.listen-address=${address}:${nodePort}`],
    [libvirtExporter, `--web.listen-address=${address}:${libvirtPort}`, `--libvirt.uri=${uri}`],
  ],
  () => tellsAll(libvirtPage),
  () => scraping(nodePage, libvirtPage),
)

const told = createSocket('udp4')
let toldBytes = 0
const seen = new Set<string>()
told.on('message', (datagram) => {
  toldBytes += datagram.length
  for (const [name] of datagram.toString('latin1').matchAll(/guest-\d+/g)) seen.add(name)
})
told.bind(collectdPort, address)
await once(told, 'listening')
const collected = await cost(
  [[join(collectd, 'usr/sbin/collectd'), '-f', '-C', collectdConfiguration]],
  async () => seen.size === guests,
  async () => {
    toldBytes = 0
    await sleep(seconds * 1000)
    return toldBytes
  },
)
told.close()

const row = (name: string, cells: readonly string[]) =>
  `${name.padEnd(44)}${cells.map((cell) => cell.padStart(13)).join('')}`
const costRow = (name: string, { own, libvirtd: daemon, qemu, memory, bytes }: Cost) =>
  row(name, [
    ...[own, daemon, qemu, own + daemon + qemu].map((ms) => ms.toFixed(0)),
    memory,
    (bytes / 1000).toFixed(0),
  ])
console.log(
  `\nby the minute; memory: resident (of that its own)\n${row('', ['own ms', 'libvirtd ms', 'QEMU ms', 'all ms', 'MB', 'kB told'])}`,
)
console.log(costRow('garrison daemon, scraped every 15 s', ours))
console.log(costRow('node and libvirt exporter, every 15 s', exporters))
console.log(costRow('collectd, every 10 s', collected))
const all = ({ own, libvirtd: daemon, qemu }: Cost) => own + daemon + qemu
console.log(
  `\nprocessor time beside ours: exporters ${(all(exporters) / all(ours)).toFixed(1)} x, collectd ${(all(collected) / all(ours)).toFixed(1)} x`,
)
console.log(`${cpus().length} processors, load ${loadavg()[0]?.toFixed(1)}`)
await paused.stop()
process.exit(0)
