// A long life in a short time: the daemon's round over a clock that runs fast, with a libvirtd on a real socket that is dropped again
// and again, VMs that come, go and change, and a real history. Memory and files must be as they were.
//
//   node test/bench/soak.ts [SAMPLES [EVENTS [RECONNECTS]]]     10^6, 10^5 and 10^4 when left out

import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { domainEvents } from '../../agent/node-libvirt/events.ts'
import { encodeFrame, frameStatus, frameType } from '../../agent/node-libvirt/frame.ts'
import { connectOpen } from '../../agent/node-libvirt/index.ts'
import { program } from '../../agent/node-libvirt/procedure.ts'
import { answer, encode, FakeLibvirtd } from '../../agent/node-libvirt/test/fake-libvirtd.ts'
import { type Codec, int } from '../../agent/node-libvirt/xdr.ts'
import { type Clock, hostClock } from '../../agent/report/clock.ts'
import { History } from '../../agent/report/history.ts'
import { HostLooker } from '../../agent/report/host/look.ts'
import { SlowLooker } from '../../agent/report/host/slow-look.ts'
import { Notices } from '../../agent/report/notices.ts'
import { OwnUseLooker } from '../../agent/report/own.ts'
import { readNow } from '../../agent/report/proc-files.ts'
import { Reporter } from '../../agent/report/reporter.ts'
import { RootAsker } from '../../agent/report/root-view.ts'
import { Sampler } from '../../agent/report/sample.ts'

/** How much is lived through. A sample is one VM in one round of ten seconds. */
export interface SoakOptions {
  readonly samples: number
  readonly events: number
  readonly reconnects: number
  readonly progress: (line: string) => void
}

/** How things stood at one moment, after everything that may be forgotten was. */
export interface SoakMark {
  readonly samples: number
  readonly events: number
  readonly reconnects: number
  /** Of JavaScript, in bytes. */
  readonly heapBytes: number
  readonly residentBytes: number
  readonly files: number
  readonly generation: number
}

const guests = 100
/** So many times faster than it is. */
const faster = 500

/** A clock that runs fast from a moment on. */
function fastClock(): Clock {
  const beganMs = performance.now()
  const steadyMs = () => (performance.now() - beganMs) * faster
  return {
    steadyMs,
    epochMs: () => Date.UTC(2026, 10, 20) + steadyMs(),
    sleep: (ms, signal) => hostClock.sleep(ms / faster, signal),
  }
}

/** A VM as libvirt tells it. */
interface Guest {
  readonly dom: { name: string; uuid: string; id: number }
  power: number
}

let born = 0
function newGuest(): Guest {
  born += 1
  const uuid = `00000000-0000-4000-8000-${born.toString(16).padStart(12, '0')}`
  return { dom: { name: `guest-${born}`, uuid, id: -1 }, power: 5 }
}

const record = ({ dom, power }: Guest) => ({
  dom,
  params: [
    ...Object.entries({ 'state.state': power, 'state.reason': 1, 'block.count': 1 }).map(
      ([field, value]) => ({
        ...{ field, type: 'int', value },
      }),
    ),
    { field: 'block.0.name', type: 'string', value: 'vda' },
    { field: 'block.0.rd.bytes', type: 'ullong', value: BigInt(born) * 512n },
  ],
})

function lifecycle(callbackID: number, dom: Guest['dom'], event: number): Buffer {
  const { procedure, body } = domainEvents.lifecycle
  const shape = body as Codec<unknown, unknown>
  return encodeFrame(
    {
      ...{ program: program.remote, version: 1, procedure, type: frameType.message, serial: 0 },
      status: frameStatus.ok,
    },
    Buffer.concat([encode(int, callbackID), encode(shape, { dom, event, detail: 0 })]),
  )
}

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

/** Lives through it; answers how things stood ten times on the way, the first a tenth of the way in. */
export async function soak({
  samples,
  events,
  reconnects,
  progress,
}: SoakOptions): Promise<readonly SoakMark[]> {
  const folder = await mkdtemp(join(tmpdir(), 'garrison-soak-'))
  const clock = fastClock()
  const server = await new FakeLibvirtd().start()
  const all = Array.from({ length: guests }, newGuest)
  let registered = 0
  /** The number that events of life are told by; `lostId` is that of the last connection that was dropped. */
  let [lifecycleId, lostId] = [0, 0]
  server.answers['domain register'] = (received) => {
    registered += 1
    if ((received.args as { readonly eventID: number }).eventID === 0) lifecycleId = registered
    return answer(registered)(received)
  }
  server.answers.connectGetAllDomainStats = (received) => {
    const { doms } = received.args as { readonly doms: readonly { readonly uuid: string }[] }
    const asked = new Set(doms.map(({ uuid }) => uuid))
    return answer(all.filter(({ dom }) => asked.size === 0 || asked.has(dom.uuid)).map(record))(received)
  }
  const { history } = await History.open(join(folder, 'history.sqlite'))
  const looking = { read: readNow, list: () => [], exists: existsSync, clock }
  let sampled = 0
  const reporter = new Reporter({
    clock,
    sampler: (heard) =>
      new Sampler({
        connect: () =>
          connectOpen('qemu:///system', { socketPath: server.path, reconnect: { leastMs: 1, mostMs: 5 } }),
        ...{ read: readNow, clock, heard, runFolder: folder, netDevPath: '/proc/net/dev' },
        // Nobody hangs here: a machine that is busy shall not look like it.
        deadlineMs: 10_000 * faster,
      }),
    host: new HostLooker(looking),
    slow: new SlowLooker({
      ...looking,
      query: async ([path]) => ({ exit: 0, stdout: path.endsWith('systemctl') ? '[]' : 'yes\n', stderr: '' }),
      capacity: async () => ({ sizeBytes: 2 ** 40, freeBytes: 2 ** 39, inodes: 1e6, freeInodes: 5e5 }),
    }),
    notices: new Notices({ ask: async () => null, clock }),
    own: new OwnUseLooker({
      ...{ clock, everyMs: 10_000, memoryBytes: () => process.memoryUsage.rss(), cpuMs: () => 0 },
      list: (path) => readdirSync(path),
    }),
    root: new RootAsker({
      clock,
      ask: async () => ({
        ...{ atMs: clock.epochMs(), standing: 'settled', applying: null, document: null, resources: [] },
      }),
    }),
    history,
    inventory: async () => ({
      system: { distro: '', release: '', kernel: '', arch: '' },
      machine: { vendor: '', model: '' },
      processor: { model: '', sockets: 1, cores: 1, threads: 1 },
      ...{ memoryBytes: 0, drives: [], nics: [] },
    }),
    arrayTitle: (name) => name,
    relay: () => ({ offers: false, by: null }),
    run: 'soak',
    identity: { name: 'soak', instance: 'i-0', version: '0' },
  })
  reporter.onValues(() => {
    sampled += reporter.latest?.vms.length ?? 0
  })
  let told = 0
  reporter.onVm(() => {
    told += 1
  })
  const stop = new AbortController()
  const running = reporter.run(stop.signal)
  let defect: unknown
  running.catch((error: unknown) => {
    defect = error
  })

  const happen = () => {
    const at = Math.floor(Math.random() * guests)
    const guest = all[at]
    if (guest === undefined) return
    // One in ten goes for good, and another comes.
    if (Math.random() < 0.1) {
      all[at] = newGuest()
      server.send(lifecycle(lifecycleId, guest.dom, 1))
    } else {
      guest.power = guest.power === 5 ? 6 : 5
      server.send(lifecycle(lifecycleId, guest.dom, 5))
    }
  }
  const marks: SoakMark[] = []
  let dropped = 0
  while (marks.length < 10) {
    // Not in a race with what runs: a promise that lives for long keeps everything that ever waited for it.
    await sleep(2)
    if (defect !== undefined) throw defect
    server.received.length = 0
    const isThere = server.clients.size > 0 && lifecycleId > lostId
    if (!isThere) continue
    // In step with each other, each up to its own end.
    const part = Math.min(1, sampled / samples)
    for (let left = Math.min(200, Math.ceil(events * part) - told); left > 0; left -= 1) happen()
    const isOver = sampled >= samples && told >= events && dropped >= reconnects
    if (marks.length < 9 ? part >= (marks.length + 1) / 10 : isOver) {
      collect()
      collect()
      const { heapUsed: heapBytes, rss: residentBytes } = process.memoryUsage()
      const mark: SoakMark = {
        ...{ samples: sampled, events: told, reconnects: dropped, heapBytes, residentBytes },
        files: readdirSync('/proc/self/fd').length,
        generation: reporter.latest?.generation ?? 0,
      }
      marks.push(mark)
      progress(
        `${mark.samples} samples, ${mark.events} events, ${mark.reconnects} reconnects: heap ${(heapBytes / 2 ** 20).toFixed(1)} MiB, resident ${(residentBytes / 2 ** 20).toFixed(0)} MiB, ${mark.files} files, generation ${mark.generation}`,
      )
    }
    if (dropped < reconnects * part) {
      lostId = lifecycleId
      dropped += 1
      server.drop()
    }
  }
  stop.abort()
  await running
  const { problem } = history
  history.close()
  await server.stop()
  await rm(folder, { recursive: true })
  if (problem !== null) throw new Error(problem.message)
  return marks
}

if (import.meta.main) {
  const [samples = 1e6, events = 1e5, reconnects = 1e4] = process.argv.slice(2).map(Number)
  const beganMs = performance.now()
  await soak({ samples, events, reconnects, progress: console.log })
  console.log(`lived in ${Math.round((performance.now() - beganMs) / 1000)} s`)
}
