// Three daemons as a fleet, each in a network namespace with two networks, by the verbs that an operator types: enrol, report, act on each
// other, cut, heal, rotate, revoke. No secret is anywhere but in its file.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ask } from '../../agent/api/client.ts'
import type { FleetPeers } from '../../agent/verbs/fleet-peers.ts'
import type { ToldReport } from '../../agent/verbs/fleet-report.ts'
import type { FleetStatus } from '../../agent/verbs/fleet-status.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { writeWorld } from './fake-host.ts'
import { imdsProgram } from './fake-imds.ts'
import { until } from './fleet-world.ts'
import { cable, type Namespace, namespaces } from './namespaces.ts'

await ensureRequirements((line) => t.comment(line), [{ package: 'iproute2', path: '/usr/sbin/ip' }])

t.setTimeout(840_000)

const main = join(import.meta.dirname, '../../agent/main.ts')
const fakeOperate = join(import.meta.dirname, 'fake-operate.ts')
const secretsSeen = new Set(['PRIVATE KEY'])

const imdsAt = { host: '127.0.0.1', port: 8169 }
const imdsEndpoint = `http://${imdsAt.host}:${imdsAt.port}`

/** A host: its own namespace, its own root, its daemon, and doors of a fake root side. */
class Host {
  readonly name: string
  readonly space: Namespace
  readonly root: string
  readonly processes: ChildProcess[] = []

  constructor(name: string, space: Namespace, root: string) {
    this.name = name
    this.space = space
    this.root = root
    for (const folder of ['etc/garrison', 'run/garrison', 'var/lib/garrison/fleet'])
      mkdirSync(join(root, folder), { recursive: true, mode: 0o755 })
    writeFileSync(join(root, 'run/garrison/host.yaml'), 'version: 1\n', { mode: 0o644 })
    writeWorld(join(root, 'run/garrison'), {
      wanted: [{ name: 'one', risk: 'safe', held: false }],
    })
  }

  get fleetFolder(): string {
    return join(this.root, 'var/lib/garrison/fleet')
  }

  get logPath(): string {
    return join(this.root, 'daemon.log')
  }

  declare(last: number): void {
    const networks = `{ lni: 192.0.2.${last}, eni: 192.0.3.${last} }`
    writeFileSync(
      join(this.root, 'etc/garrison/host.yaml'),
      `version: 1\nfleet:\n  addresses: ${networks}\n`,
      { mode: 0o644 },
    )
  }

  #begin(name: string, ...argv: readonly string[]): ChildProcess {
    const output = openSync(join(this.root, `${name}.log`), 'a')
    const child = spawn('/usr/sbin/ip', ['netns', 'exec', this.space.name, process.execPath, ...argv], {
      stdio: ['ignore', output, output],
      env: { ...process.env, AWS_EC2_METADATA_SERVICE_ENDPOINT: imdsEndpoint },
    })
    closeSync(output)
    this.processes.push(child)
    return child
  }

  async start(): Promise<void> {
    const folder = join(this.root, 'run/garrison')
    // systemd keeps the sockets of a daemon that was killed; here they are made anew.
    for (const door of ['admin', 'operate', 'read', 'fleet', 'report'])
      rmSync(join(folder, `${door}.sock`), { force: true })
    const before = existsSync(this.logPath) ? statSync(this.logPath).size : 0
    this.#begin('operate', fakeOperate, folder, '600000')
    this.#begin('daemon', main, 'daemon', '--sockets', folder, '--root', this.root)
    await until(
      `${this.name} watches`,
      () => readFileSync(this.logPath, 'utf8').slice(before).includes('"watching"'),
      60_000,
    )
  }

  /** Runs a verb here as an operator does. */
  run(...args: readonly string[]) {
    return this.space.run([process.execPath, main, ...args])
  }

  /** The answer of a verb of the daemon, or its problem. */
  async asked<T>(verb: string, args: object = {}): Promise<T> {
    const socket = join(this.root, 'run/garrison/report.sock')
    const path = `/v1/${verb.replaceAll(' ', '/')}`
    return JSON.parse((await ask(socket, { path, args, caller: 'the test', onLine: () => {} })).body)
  }

  statuses = async () => (await this.asked<FleetStatus>('fleet status')).hosts
  statusOf = async (name: string) => (await this.statuses()).find(({ host }) => host === name)
  membership = async () => (await this.asked<FleetPeers>('fleet peers')).membership
  reportOf = (peer: string) => this.asked<ToldReport>('fleet report', { peer })

  /** What this host asks another for; `door`: the socket of the daemon here. */
  askedOf(host: string, door: 'report' | 'fleet', ...args: readonly string[]) {
    const socket = join(this.root, `run/garrison/${door}.sock`)
    const { exit, stdout } = this.run('--host', host, ...args, '--json', '--socket', socket)
    const lines = stdout.trim().split('\n')
    return { exit, answer: JSON.parse(lines.at(-1) || 'null') as Readonly<Record<string, unknown>> | null }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    for (const child of this.processes.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const exited = once(child, 'exit')
      child.kill(signal)
      await exited
    }
  }
}

const made = namespaces()
const lan = made.make('lan')
const vpc = made.make('vpc')
const root = t.testdir()
const hosts = ['h05', 'h06', 'h07'].map((name, at) => {
  const space = made.make(name)
  const host = new Host(name, space, join(root, name))
  for (const [network, wire, subnet] of [
    [lan, 'lni', 2],
    [vpc, 'eni', 3],
  ] as const) {
    if (at === 0) {
      network.ip('link', 'add', 'switch', 'type', 'bridge')
      network.ip('link', 'set', 'switch', 'up')
    }
    cable(space, wire, network, name)
    network.ip('link', 'set', name, 'master', 'switch')
    space.ip('address', 'add', `192.0.${subnet}.${5 + at}/24`, 'dev', wire)
  }
  host.declare(5 + at)
  return host
})
const [h05, h06, h07] = hosts as [Host, Host, Host]
t.teardown(async () => {
  for (const host of hosts) await host.stop()
  await made.close()
})

/** Lets a host in at the first one, with a token that goes from one command to the other. */
function enrol(host: Host, role: string): void {
  const invited = h05.run(
    ...['fleet', 'invite', '--name', host.name, '--role', role, '--json', '--folder', h05.fleetFolder],
    ...['--at', '192.0.2.5', '--at', '192.0.3.5'],
  )
  const { token } = JSON.parse(invited.stdout) as { readonly token: string }
  const [, , secret] = JSON.parse(Buffer.from(token.slice('garrison1.'.length), 'base64url').toString())
  secretsSeen.add(token).add(secret)
  const joined = host.run('fleet', 'join', token, '--name', host.name, '--folder', host.fleetFolder, '--json')
  t.equal(joined.exit, 0, `${host.name} joins ${joined.stderr}`)
  const again = host.run('fleet', 'join', token, '--folder', host.fleetFolder)
  t.match(again.stderr, /fleet\.exists/, 'once')
}

const isLinked = async (one: Host, other: Host) => (await one.statusOf(other.name))?.linked === true
const every = async (isSo: (host: Host) => Promise<boolean>) =>
  (await Promise.all(hosts.map(isSo))).every(Boolean)
const allLinked = () =>
  every(async (host) => {
    const statuses = await host.statuses()
    return statuses.length === hosts.length && statuses.every(({ linked }) => linked)
  })

await t.test('enrol: begun on one, and the others let in by a token', async (t) => {
  const begun = h05.run('fleet', 'init', '--name', 'h05', '--lifetime', '3m', '--folder', h05.fleetFolder)
  t.equal(begun.exit, 0, begun.stderr)
  await h06.space.start([
    process.execPath,
    '--input-type=module',
    '-e',
    imdsProgram(join(h06.root, 'notice'), imdsAt),
  ])
  await Promise.all(hosts.map((host) => host.start()))
  t.match(
    h06.run('fleet', 'status', '--socket', join(h06.root, 'run/garrison/report.sock')).stderr,
    /fleet\.none/,
  )
  enrol(h06, 'operate')
  enrol(h07, 'read')
  await until('all are linked, without a start of anything', allLinked, 60_000)
  t.equal((await h06.statusOf('h07'))?.over, 'lni', 'by the first network of the document')
})

await t.test('report: the same is told of a host wherever it is asked', async (t) => {
  await until(
    'all reports are there',
    () => every(async (host) => (await host.statuses()).every(({ health }) => health)),
    60_000,
  )
  type Body = { readonly schema: string; readonly generation: number }
  const told = (await h07.reportOf('h06')).report as unknown as Body
  t.equal(told.schema, 'garrison/report/1')
  const next = async () => ((await h07.reportOf('h06')).report as unknown as Body).generation
  await until('the next report has come', async () => (await next()) > told.generation, 60_000)
  t.match(await h05.reportOf('h09'), { code: 'fleet.unknown-host' })
})

await t.test('verbs go to another host as far as the certificate allows', async (t) => {
  t.match(h07.askedOf('h06', 'report', 'report'), { answer: { schema: 'garrison/report/1' } })
  t.match(h07.askedOf('h06', 'report', 'status'), { exit: 2, answer: { schema: 'garrison/status/1' } })
  t.match(h07.askedOf('h05', 'fleet', 'apply'), { exit: 3, answer: { code: 'fleet.role-refused' } })
  t.match(
    h07.askedOf('h06', 'report', 'apply'),
    { answer: { code: 'door.refused' } },
    'nor by the door to look',
  )
  const applied = h06.askedOf('h05', 'fleet', 'apply')
  t.equal(applied.exit, 0, `the role operate does: ${JSON.stringify(applied.answer)}`)
  t.match(h05.askedOf('h06', 'report', 'status'), { exit: 2 }, 'and on that host alone')
  t.match(
    h06.askedOf('h05', 'fleet', 'apply', '--allow', 'destroys-data'),
    { exit: 3, answer: { code: 'door.refused' } },
    'what destroys data never',
  )
  const journal = readFileSync(join(h05.root, 'run/garrison/journal/00000001.jsonl'), 'utf8')
  t.match(journal, /on peer h06/, 'the journal says from where it was asked')
})

await t.test('what AWS announces to one is seen on the others within a second', async (t) => {
  const event = { Code: 'instance-retirement', EventId: 'instance-event-1', State: 'active' }
  const times = { NotBefore: '21 Jan 2036 09:00:43 GMT', NotAfter: '', Description: 'the end' }
  writeFileSync(join(h06.root, 'notice'), JSON.stringify([{ ...event, ...times }]))
  const seenMs = new Map<Host, number>()
  await until(
    'all have seen it',
    async () => {
      for (const host of hosts)
        if (!seenMs.has(host) && JSON.stringify(await host.reportOf('h06')).includes('ec2.retirement'))
          seenMs.set(host, performance.now())
      return seenMs.size === hosts.length
    },
    60_000,
  )
  const [there = 0, ...elsewhere] = [h06, h05, h07].map((host) => seenMs.get(host) ?? Number.NaN)
  const lates = elsewhere.map((ms) => ms - there)
  t.comment(`after ${lates.map((ms) => ms.toFixed(0)).join(' and ')} ms`)
  for (const late of lates) t.ok(late < 1000, `${late} ms`)
})

await t.test('cut on one network: the other carries it', async (t) => {
  h07.space.ip('link', 'set', 'lni', 'down')
  await until('it is seen over the other', async () => (await h05.statusOf('h07'))?.over === 'eni', 120_000)
  t.ok(await isLinked(h05, h07))
  h07.space.ip('link', 'set', 'lni', 'up')
})

await t.test('cut on both: not seen, by whom last, and over what; then healed', async (t) => {
  let lines = 0
  let ended: unknown = null
  const watching = { path: '/v1/report', args: { watch: true }, caller: 'the test', host: 'h07' }
  void ask(join(h05.root, 'run/garrison/report.sock'), { ...watching, onLine: () => (lines += 1) }).catch(
    (error) => {
      ended = error
    },
  )
  await until('h07 is watched', () => lines > 0, 60_000)
  for (const wire of ['lni', 'eni']) h07.space.ip('link', 'set', wire, 'down')
  await until(
    'nobody sees it',
    async () => !(await isLinked(h05, h07)) && !(await isLinked(h06, h07)),
    60_000,
  )
  const text = h06.run('fleet', 'status', '--socket', join(h06.root, 'run/garrison/report.sock'))
  t.equal(text.exit, 4)
  t.match(text.stdout, /^h07 +\d+ s +not seen +\? +\? +last by h0[56] over (lni|eni)$/m)
  t.match(text.stdout, /'not seen' is not 'down'/)
  t.match(await h05.reportOf('h07'), { linked: false, report: { schema: 'garrison/report/1' } })
  t.match(h05.askedOf('h07', 'report', 'report'), { answer: { code: 'fleet.unreachable' } })
  await until('what streams from it has ended too', () => ended !== null, 60_000)
  t.match(ended, { code: 'door.lost' })
  for (const wire of ['lni', 'eni']) h07.space.ip('link', 'set', wire, 'up')
  await until('it is back', allLinked, 120_000)
})

await t.test('killed, and back with what it knew', async (t) => {
  await h06.stop('SIGKILL')
  await until('it is gone at once', async () => !(await isLinked(h05, h06)), 10_000)
  await h06.start()
  await until('it is back', allLinked, 60_000)
  t.equal((await h05.membership()).revoked.length, 0)
})

await t.test('rotate: new keys, while everyone stays linked', async (t) => {
  const since = new Map(hosts.map((host) => [host, readFileSync(host.logPath, 'utf8').length]))
  const ends = new Map<Host, number>()
  for (const host of hosts) ends.set(host, (await host.membership()).untilMs)
  const keys = new Set(hosts.map((host) => readFileSync(join(host.fleetFolder, 'identity.pem'), 'utf8')))
  const logOf = (host: Host) => readFileSync(host.logPath, 'utf8').slice(since.get(host))
  await until(
    'all have new certificates, and their ports use them',
    // The file is there before the port has taken it up.
    () =>
      every(
        async (host) =>
          (await host.membership()).untilMs > (ends.get(host) ?? 0) && /new certificate/.test(logOf(host)),
      ),
    180_000,
  )
  for (const host of hosts) {
    keys.add(readFileSync(join(host.fleetFolder, 'identity.pem'), 'utf8'))
    t.notMatch(logOf(host), /peer lost/, `${host.name} lost nobody`)
  }
  t.equal(keys.size, 6)
  t.ok(await allLinked())
})

await t.test('revoke: out everywhere at once, told why, and let in again by a new token', async (t) => {
  const revoked = h05.run('fleet', 'revoke', 'h07', '--folder', h05.fleetFolder)
  t.equal(revoked.exit, 0, revoked.stderr)
  await until(
    'nobody is linked with it',
    async () => !(await h05.statusOf('h07')) && !(await h06.statusOf('h07')),
    20_000,
  )
  t.same(
    (await h06.membership()).revoked.map(({ host }) => host),
    ['h07'],
    'the others have heard',
  )
  await until(
    'it is told why',
    async () => /revoked/.test((await h07.statusOf('h05'))?.problem ?? ''),
    60_000,
  )
  t.match(h07.askedOf('h06', 'report', 'report'), {
    answer: { code: 'peer.refused', message: /revoked/ },
  })
  await h07.stop()
  h07.space.run(['/usr/bin/mv', h07.fleetFolder, `${h07.fleetFolder}.old`])
  mkdirSync(h07.fleetFolder, { mode: 0o700 })
  await h07.start()
  enrol(h07, 'read')
  await until('it is one of them again', allLinked, 60_000)
})

await t.test('no secret is anywhere but in its file', async (t) => {
  for (const host of hosts) {
    for (const entry of readdirSync(host.fleetFolder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name)
      t.equal(statSync(path).mode & 0o077, 0, `${path} is its owner's alone`)
      if (!/(identity|issuer|authority)\.(pem|key)$/.test(path)) continue
      const [, body] = /PRIVATE KEY-----\n([\s\S]*?)-----END/.exec(readFileSync(path, 'utf8')) ?? []
      for (const line of body?.split('\n') ?? []) if (line.length > 20) secretsSeen.add(line)
    }
  }
  const texts = hosts.flatMap((host) =>
    readdirSync(host.root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('/fleet'))
      .map((entry) => join(entry.parentPath, entry.name)),
  )
  t.ok(texts.length > 6)
  const answers = await Promise.all(
    hosts.flatMap((host) => [
      ...['fleet peers', 'fleet status'].map((verb) => host.asked<object>(verb)),
      host.reportOf('h05'),
    ]),
  )
  const hides = (text: string, what: string) =>
    t.notOk(
      [...secretsSeen].find((secret) => text.includes(secret)),
      what,
    )
  for (const path of texts) hides(readFileSync(path, 'latin1'), path.slice(root.length))
  for (const answer of answers) hides(JSON.stringify(answer), Object.keys(answer).join(' '))
})
