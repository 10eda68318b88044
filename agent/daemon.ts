// The daemon, a composition root: puts together what looks, judges, remembers and tells, and answers on its socket.
//
// INVARIANTS
// - Nothing is imported here that only a verb needs: what this process takes, a host pays day and night.
// - It needs no rights that a user without any does not have, but to the sockets of libvirt (to read) and of the root side.

import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { hostname, uptime } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { HostError, type ProblemCode, type ProblemReport, problemOf } from '../provisioning/problem.ts'
import { checkedArgs, doorNeeded, pathOf, unknownVerb, verbAt } from './api/arguments.ts'
import { ask } from './api/client.ts'
import { passedSockets } from './api/passed-sockets.ts'
import { type Doorway, serve } from './api/server.ts'
import { carrySession, sessionArgs, wantSession } from './api/session.ts'
import { type Args, type VerbName, verbOf } from './api/verbs.ts'
import { version } from './api/version.ts'
import { Ec2 } from './host/ec2.ts'
import type { TaggedAnswer, TaggedRequest } from './host/ec2-call.ts'
import { type Argv, execute, lastLines } from './host/exec.ts'
import { errnoOf } from './host/files.ts'
import { Imds } from './host/imds.ts'
import { LinuxHost } from './host/linux-host.ts'
import { type Notifier, notifierOf } from './host/notify.ts'
import { reportIn, self } from './host/unit.ts'
import { connectOpenReadOnly } from './node-libvirt/index.ts'
import { Fleet } from './peers/fleet.ts'
import type { DoorFor, SessionDoor } from './peers/relay.ts'
import { hostClock } from './report/clock.ts'
import { CloudWatch, type CloudWatchOptions } from './report/cloudwatch.ts'
import { Exposition } from './report/exposition.ts'
import { History } from './report/history.ts'
import { HostLooker } from './report/host/look.ts'
import { SlowLooker } from './report/host/slow-look.ts'
import { openLogs } from './report/logs-door.ts'
import { openMetrics } from './report/metrics-door.ts'
import { Notices } from './report/notices.ts'
import { anonymousBytes, OwnUseLooker } from './report/own.ts'
import { readNow } from './report/proc-files.ts'
import type { Inventory } from './report/report.ts'
import { Reporter, type ReporterOptions } from './report/reporter.ts'
import { RootAsker, type RootStatus } from './report/root-view.ts'
import { Sampler } from './report/sample.ts'
import { Spool } from './report/spool.ts'
import type { DaemonContext } from './verbs/daemon-context.ts'
import type { DaemonSettings } from './verbs/daemon-settings.ts'
import { namesOf, summaryOf } from './verbs/fleet-words.ts'
import { loadOfDaemon } from './verbs/index.ts'

const beatMs = 10_000
const inventoryDeadlineMs = 60_000
const settingsDeadlineMs = 30_000
const settingsAgainMs = 60_000
const taggedDeadlineMs = 30_000

/** What each socket of the daemon is good for: the one looks, the other also acts on other hosts. */
const doorOf: Readonly<Record<string, 'read' | 'operate'>> = { report: 'read', fleet: 'operate' }

/** Names in a folder; null when it is not there, or not for us. */
function listNow(path: string): readonly string[] | null {
  try {
    return readdirSync(path)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return null
  }
}

/**
 * The name of an array below /dev/md, from what udev wrote down, since the daemon sees no devices; the kernel's where it has none.
 */
function arrayTitle(kernelName: string): string {
  const number = readNow(`/sys/block/${kernelName}/dev`)?.trim() ?? ''
  const known = readNow(`/run/udev/data/b${number}`) ?? ''
  return /^S:(md\/.+)$/m.exec(known)?.[1] ?? kernelName
}

/** What the root side says of the host. Throws what stood in the way, as a HostError. */
async function askRootSide(socketPath: string): Promise<RootStatus> {
  try {
    const { ok, body } = await ask(socketPath, {
      ...{ path: '/v1/status', args: { fresh: true }, caller: 'the daemon', onLine: () => {} },
    })
    if (ok) return JSON.parse(body)
    const { code, message, details } = JSON.parse(body) as ProblemReport
    throw new HostError(code, message, { details: details ?? {} })
  } catch (cause) {
    const errno = errnoOf(cause)
    if (errno === undefined) throw cause
    throw new HostError('door.closed', `${socketPath} cannot be opened (${errno})`, { cause })
  }
}

/**
 * What a verb of this executable tells in another process, so that what it takes to tell it is not taken here for long. Throws the
 * problem that it told, or `otherwise` where it told none.
 */
async function askApart<T>(
  verb: VerbName,
  args: readonly string[],
  { deadlineMs, otherwise }: { readonly deadlineMs: number; readonly otherwise: ProblemCode },
): Promise<T> {
  const argv: Argv = [...self, ...verb.split(' '), '--json', ...args]
  const { ended, exit, stdout, stderr } = await execute(argv, { deadlineMs, keep: 'all' })
  if (ended === 'exited' && exit === 0) return JSON.parse(stdout)
  const report = reportIn(stdout)
  if (report === null) throw new HostError(otherwise, `garrison ${verb}: ${lastLines(stderr, 1) || ended}`)
  throw new HostError(report.code, report.message, { details: report.details ?? {} })
}

/** What the host is made of. */
async function readInventory(): Promise<Inventory> {
  const { inventory } = await askApart<{ readonly inventory: Inventory }>('inventory', [], {
    deadlineMs: inventoryDeadlineMs,
    otherwise: 'host.unreadable',
  })
  return inventory
}

/** The addresses of the instances with a tag, asked of EC2. */
async function readTagged(imds: Imds, tag: string): Promise<TaggedAnswer> {
  const instance = await imds.instance()
  if (instance === null) throw new HostError('ec2.no-instance', 'this host is no EC2 instance')
  const request: TaggedRequest = {
    ...{ kind: 'tagged', region: instance.region, tag, deadlineMs: taggedDeadlineMs },
  }
  const { answer } = await askApart<{ readonly answer: TaggedAnswer }>(
    'ec2-call',
    ['--', JSON.stringify(request)],
    { deadlineMs: taggedDeadlineMs + 10_000, otherwise: 'ec2.unreachable' },
  )
  return answer
}

/**
 * What the desired document says to the daemon: read anew when a file of it, or who may read it, has changed. When it could not be read,
 * it is tried again the next time where that may help, and else after a minute, for each try starts a process.
 */
function settingsOf(root: string): () => Promise<DaemonSettings> {
  const folder = join(root, 'etc/garrison')
  const read = async (): Promise<DaemonSettings> => {
    const { settings } = await askApart<{ readonly settings: DaemonSettings }>(
      'daemon settings',
      ['--root', root],
      { deadlineMs: settingsDeadlineMs, otherwise: 'host.unreadable' },
    )
    return settings
  }
  let known: { readonly of: string; readonly settings: Promise<DaemonSettings>; againMs: number } | null =
    null
  return () => {
    const paths = [folder, join(folder, 'host.d'), join(folder, 'templates')].flatMap((one) => [
      one,
      ...(listNow(one) ?? []).map((name) => join(one, name)),
    ])
    const of = JSON.stringify(paths.map((path) => [path, statSync(path, { throwIfNoEntry: false })?.ctimeMs]))
    if (known?.of !== of || hostClock.steadyMs() >= known.againMs) {
      const now = { of, settings: read(), againMs: Number.POSITIVE_INFINITY }
      now.settings.catch((error: unknown) => {
        now.againMs = hostClock.steadyMs() + (problemOf(error).retry ? 0 : settingsAgainMs)
      })
      known = now
    }
    return known.settings
  }
}

/** The door of this host that a verb needs which a peer asks for, and the socket that it is asked at. */
const doorsBelow =
  (folder: string): DoorFor =>
  (path, body) => {
    const name = verbAt(path)
    if (name === null) throw unknownVerb(path)
    const { door } = doorNeeded(name, checkedArgs(name, body))
    return { door, socket: join(folder, verbOf(name).daemon ? 'report.sock' : `${door}.sock`) }
  }

/** The one session that peers may ask for: a shell, at the door that is the daemon's alone. */
const shellsBelow = (folder: string): SessionDoor => ({
  async open(path, request, caller) {
    wantSession(request)
    if (verbAt(path) !== 'shell')
      throw new HostError('request.unknown-verb', `${path} is no session for a peer`)
    const args = checkedArgs('shell', sessionArgs(request.url ?? ''))
    // Few need it.
    const { openSession } = await import('./api/session-client.ts')
    const socketPath = join(folder, 'shell.sock')
    try {
      const opened = await openSession(socketPath, pathOf('shell'), args, caller)
      if ('socket' in opened) return opened.socket
      const { code, message, details } = opened.problem
      throw new HostError(code, message, { details: details ?? {} })
    } catch (cause) {
      const errno = errnoOf(cause)
      if (errno === undefined) throw cause
      throw new HostError('door.closed', `${socketPath} cannot be opened (${errno})`, { cause })
    }
  },
  carry: carrySession,
})

/** Which host this is to others: its instance-id, which Nitro's firmware gives as the asset tag, or else its machine-id. */
function instanceOf(): string {
  const assetTag = readNow('/sys/class/dmi/id/board_asset_tag')?.trim() ?? ''
  return assetTag.startsWith('i-') ? assetTag : (readNow('/etc/machine-id')?.trim() ?? '')
}

/** The parts of the round on this host. */
function reporterOf(
  root: string,
  history: History,
  imds: Imds,
  others: Pick<ReporterOptions, 'sources' | 'relay'>,
): Reporter {
  const reader = new LinuxHost({
    claims: new Set(),
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
    libvirt: async () => {
      throw new Error('the daemon asks libvirt by itself')
    },
    imds,
    ec2: new Ec2({ imds, memoryPath: join(root, 'var/lib/garrison/ec2.json'), clock: Date.now }),
  })
  const clock = hostClock
  const runFolder = join(root, 'run/libvirt')
  const looking = { read: readNow, list: listNow, exists: existsSync, clock }
  return new Reporter({
    clock,
    sampler: (heard) =>
      new Sampler({
        connect: () =>
          connectOpenReadOnly('qemu:///system', { systemFolder: runFolder, connectDeadlineMs: 5000 }),
        ...{ read: readNow, clock, runFolder, netDevPath: '/proc/net/dev', heard },
      }),
    host: new HostLooker(looking),
    slow: new SlowLooker({
      ...looking,
      query: (argv, deadlineMs) => reader.query(argv, deadlineMs),
      capacity: (path) => reader.capacity(path),
    }),
    notices: new Notices({ ask: () => imds.events(), clock }),
    own: new OwnUseLooker({
      ...{ clock, everyMs: beatMs, list: listNow },
      memoryBytes: () => anonymousBytes(readNow('/proc/self/status') ?? ''),
      cpuMs: () => {
        const { user, system } = process.cpuUsage()
        return (user + system) / 1000
      },
    }),
    root: new RootAsker({ ask: () => askRootSide(join(root, 'run/garrison/read.sock')), clock }),
    history,
    inventory: readInventory,
    arrayTitle,
    run: randomUUID(),
    identity: { name: hostname(), instance: instanceOf(), version },
    ...others,
  })
}

/** The part that tells CloudWatch. `damaged` is called with where a spool is now that could not be read. */
async function cloudWatchOf(
  folder: string,
  imds: Imds,
  settings: CloudWatchOptions['settings'],
  peers: CloudWatchOptions['peers'],
  damaged: (path: string) => void,
): Promise<CloudWatch> {
  const { spool, damagedPath } = await Spool.open({
    path: join(folder, 'spool.sqlite'),
    uptime: {
      boot: readNow('/proc/sys/kernel/random/boot_id')?.trim() ?? '',
      ms: () => uptime() * 1000,
    },
    epochMs: Date.now,
  })
  if (damagedPath !== null) damaged(damagedPath)
  return new CloudWatch({
    ...{ clock: hostClock, spool, openMetrics, openLogs },
    ...{ settings, peers },
    region: async () => (await imds.instance())?.region ?? null,
    ...{ host: hostname(), instance: instanceOf() },
    jitter: Math.random(),
  })
}

/** Tells systemd that this process lives, as long as it does its work; stops when the signal aborts. */
async function tellAlive(
  notifier: Notifier,
  signal: AbortSignal,
  failed: (error: unknown) => void,
): Promise<void> {
  const { watchdogMs } = notifier
  if (watchdogMs === null) return
  while (!signal.aborted) {
    // Three times within its patience: a host that is busy may be late for one.
    await hostClock.sleep(watchdogMs / 3, signal)
    if (!signal.aborted) await notifier.tell('WATCHDOG=1').catch(failed)
  }
}

/** Looks, judges, remembers and answers until it is told to stop. Throws when it cannot begin. */
export async function daemon({ sockets, root = '/' }: Args<'daemon'>): Promise<void> {
  const log = pino({ base: null }, pino.destination({ dest: 1, sync: true }))
  const doorways: readonly Doorway[] =
    sockets === undefined
      ? passedSockets(process.env).map(({ name, fd }) => {
          const door = doorOf[name]
          if (door !== undefined) return { door, fd }
          throw new HostError('request.invalid', `systemd passed a socket named ${name}: no door`, {
            details: { verb: 'daemon' },
          })
        })
      : Object.entries(doorOf).map(([name, door]) => ({ door, path: join(sockets, `${name}.sock`) }))
  if (doorways.length === 0)
    throw new HostError('request.invalid', 'systemd passed no socket: start garrison.service', {
      details: { verb: 'daemon' },
    })
  const folder = join(root, 'var/lib/garrison/daemon')
  const { history, damagedPath } = await History.open(join(folder, 'history.sqlite'))
  if (damagedPath !== null) log.error({ path: damagedPath }, 'the history was damaged and is begun anew')
  const settings = settingsOf(root)
  const imds = new Imds()
  const cloudwatch = await cloudWatchOf(
    folder,
    imds,
    async () => (await settings()).cloudwatch,
    {
      offering: () =>
        fleet.linked().filter((host) => summaryOf(fleet.reportOf(host)?.body ?? null).relay.offers),
      ask: (host, errand, stop) => fleet.askBatch(host, errand, stop),
    },
    (path) => log.error({ path }, 'what CloudWatch was still to be told was damaged and is begun anew'),
  )
  const exposition = new Exposition(hostClock.steadyMs)
  const fleet = await Fleet.open({
    folder: join(root, 'var/lib/garrison/fleet'),
    settings: async () => (await settings()).fleet,
    doorFor: doorsBelow(join(root, 'run/garrison')),
    sessions: shellsBelow(join(root, 'run/garrison')),
    tagged: (tag) => readTagged(imds, tag),
    batch(peer, errand) {
      const names = namesOf(fleet.reportOf(peer)?.body ?? null)
      return cloudwatch.relaying.answer(names && { peer, ...names }, errand)
    },
    metrics: () => page(),
    clock: hostClock,
    log,
  })
  const reporter = reporterOf(root, history, imds, {
    sources: [() => fleet.conditions(), () => cloudwatch.conditions()],
    relay: () => cloudwatch.relay(),
  })
  const page = () => exposition.page(reporter.latest, version, cloudwatch.overview().metrics.waiting)
  reporter.onValues((values) => exposition.take(values))
  reporter.onValues((values) => cloudwatch.takeValues(values))
  reporter.onReport((report) => cloudwatch.takeReport(report))
  reporter.onReport((report) => fleet.publish(report.generation, report.atMs, report))
  reporter.onValues(() => {
    fleet
      .resettle()
      .catch((error: unknown) => log.error({ err: problemOf(error) }, 'the fleet was not begun anew'))
  })
  reporter.onVm(({ uuid, name, event, detail, atMs }) =>
    fleet.tell({ kind: 'lifecycle', uuid, name, event, detail, atMs }),
  )
  const served = await serve<DaemonContext>({
    doorways,
    contextFor: (who, signal) => ({
      ...{ who, signal, clock: Date.now, reports: reporter },
      ...{ history, fleet, cloudwatch },
    }),
    load: loadOfDaemon,
    pages: { '/metrics': page },
    relay: ({ host, ...carried }, response) => fleet.askPeer(host, carried, response),
    log,
    idleMs: null,
  })
  // A socket that was made is a test's or an administrator's own: nobody else's to use.
  for (const doorway of doorways) if ('path' in doorway) await chmod(doorway.path, 0o600)
  const stop = new AbortController()
  const stopped = () => stop.abort()
  process.on('SIGTERM', stopped)
  process.on('SIGINT', stopped)
  const notifier = notifierOf(process.env, process.pid)
  const untold = (error: unknown) => log.error({ err: error }, 'systemd was not told')
  log.info({ version }, 'watching')
  await notifier?.tell('READY=1').catch(untold)
  try {
    await Promise.all([
      reporter.run(stop.signal),
      cloudwatch.run(stop.signal),
      notifier === null ? null : tellAlive(notifier, stop.signal, untold),
    ])
  } finally {
    stop.abort()
    await notifier?.tell('STOPPING=1').catch(untold)
    served.stop()
    await fleet.close()
    history.close()
    cloudwatch.close()
    await served.left
    log.info('left')
  }
}
