// A shell on another host: two daemons and root sides in network namespaces, a real terminal at one, a real shell at the other. Off and for
// nobody until it is said; whole and in order; cut, revoked, stopped, resized; recorded and written down.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
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
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ensureRequirements } from '../lab/requirements.ts'
import { until } from './fleet-world.ts'
import { cable, type Namespace, namespaces } from './namespaces.ts'

await ensureRequirements((line) => t.comment(line), [{ package: 'iproute2', path: '/usr/sbin/ip' }])

t.setTimeout(900_000)

const main = join(import.meta.dirname, '../../agent/main.ts')
const imdsEndpoint = 'http://127.0.0.1:8169'

/** A host: its own namespace and root, its daemon, and a root side as it is. */
class Host {
  readonly name: string
  readonly space: Namespace
  readonly root: string
  readonly processes = new Map<string, ChildProcess>()

  constructor(name: string, space: Namespace, root: string) {
    this.name = name
    this.space = space
    this.root = root
    for (const folder of ['etc/garrison', 'run/garrison', 'var/lib/garrison/fleet'])
      mkdirSync(join(root, folder), { recursive: true, mode: 0o755 })
  }

  get sockets(): string {
    return join(this.root, 'run/garrison')
  }

  get fleetFolder(): string {
    return join(this.root, 'var/lib/garrison/fleet')
  }

  declare(more: string): void {
    const last = this.name.slice(1)
    writeFileSync(
      join(this.root, 'etc/garrison/host.yaml'),
      `version: 1\nfleet:\n  addresses: { lni: 192.0.2.${last} }\n${more}`,
      { mode: 0o644 },
    )
  }

  log = (of: string): string => readFileSync(join(this.root, `${of}.log`), 'utf8')

  begin(name: string, ...argv: readonly string[]): void {
    const output = openSync(join(this.root, `${name}.log`), 'a')
    const child = spawn(
      '/usr/sbin/ip',
      ['netns', 'exec', this.space.name, process.execPath, main, ...argv, '--root', this.root],
      {
        stdio: ['ignore', output, output],
        env: { ...process.env, AWS_EC2_METADATA_SERVICE_ENDPOINT: imdsEndpoint },
      },
    )
    closeSync(output)
    this.processes.set(name, child)
  }

  async start(): Promise<void> {
    for (const door of ['admin', 'operate', 'read', 'shell', 'fleet', 'report'])
      rmSync(join(this.sockets, `${door}.sock`), { force: true })
    this.begin('operate', 'operate', '--sockets', this.sockets, '--idle', '600')
    this.begin('daemon', 'daemon', '--sockets', this.sockets)
    await until(
      `${this.name} watches`,
      () => this.log('daemon').includes('"watching"') && this.log('operate').includes('"serving"'),
      180_000,
    )
  }

  run(...args: readonly string[]) {
    return this.space.run([process.execPath, main, ...args])
  }

  async stop(name: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.processes.get(name)
    this.processes.delete(name)
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  journal = (): string =>
    this.run('journal', '--socket', join(this.sockets, 'read.sock')).stdout.replace(/\n +/g, ' ')

  recordings(): readonly string[] {
    const folder = join(this.root, 'var/lib/garrison/shells')
    return existsSync(folder)
      ? readdirSync(folder)
          .sort()
          .map((name) => join(folder, name))
      : []
  }
}

const made = namespaces()
const lan = made.make('lan')
lan.ip('link', 'add', 'switch', 'type', 'bridge')
lan.ip('link', 'set', 'switch', 'up')
const root = t.testdir()
const [h15, h16, h17] = ['h15', 'h16', 'h17'].map((name) => {
  const space = made.make(name)
  cable(space, 'lni', lan, name)
  lan.ip('link', 'set', name, 'master', 'switch')
  space.ip('address', 'add', `192.0.2.${name.slice(1)}/24`, 'dev', 'lni')
  return new Host(name, space, join(root, name))
}) as [Host, Host, Host]
t.teardown(async () => {
  for (const host of [h15, h16, h17]) for (const name of ['daemon', 'operate']) await host.stop(name)
  await made.close()
})

/** Lets a host in at the first one. */
function enrol(host: Host, role: string): void {
  const invited = h15.run(
    ...['fleet', 'invite', '--name', host.name, '--role', role, '--json'],
    ...['--folder', h15.fleetFolder, '--at', '192.0.2.15'],
  )
  const { token } = JSON.parse(invited.stdout)
  const joined = host.run('fleet', 'join', token, '--name', host.name, '--folder', host.fleetFolder, '--json')
  if (joined.exit !== 0) throw new Error(joined.stderr)
}

let seats = 0

/** `garrison shell` on a terminal of its own (script(1)); `type` is what the keyboard sends. */
function seatAt(host: Host, to: string, at: string, ...more: readonly string[]) {
  seats += 1
  const place = join(root, `seat-${seats}`)
  mkdirSync(place)
  const words = [process.execPath, main, 'shell', to, '--at', at, '--folder', host.fleetFolder, ...more]
  const line = words.map((word) => `'${word}'`).join(' ')
  writeFileSync(
    join(place, 'run'),
    `stty rows 30 cols 100\ntty > ${place}/tty\nstty -g > ${place}/before\nsh -c 'echo $$ > ${place}/pid; exec "$@"' sh ${line}\necho "exit $?"\nstty -g > ${place}/after\n`,
  )
  const child = spawn(
    '/usr/sbin/ip',
    ['netns', 'exec', host.space.name, '/usr/bin/script', '-q', '-c', `sh ${place}/run`, '/dev/null'],
    { stdio: ['pipe', 'pipe', 'inherit'], env: { PATH: process.env.PATH, TERM: 'vt220', USER: 'alice' } },
  )
  t.teardown(() => child.kill())
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const closed = once(child, 'close')
  const file = (name: string) => readFileSync(join(place, name), 'utf8').trim()
  const seat = {
    said: () => said,
    type: (text: string) => child.stdin.write(text),
    pid: () => Number(file('pid')),
    resize(columns: number, rows: number) {
      spawnSync('/usr/bin/stty', ['-F', file('tty'), 'columns', `${columns}`, 'rows', `${rows}`])
    },
    says: (what: string | RegExp, ms = 60_000) =>
      until(`${what}`, () => (typeof what === 'string' ? said.includes(what) : what.test(said)), ms),
    /** Runs a line there; answers what it said. */
    async asks(line: string, ms = 60_000): Promise<string> {
      const from = said.length
      const mark = `end-${seats}-${from}`
      // Its echo has the mark in two pieces.
      seat.type(`${line}; echo ${mark.slice(0, 3)}""${mark.slice(3)}\n`)
      await until(`the answer to ${line}`, () => said.slice(from).includes(mark), ms)
      return said.slice(from, said.indexOf(mark, from))
    },
    /** Waits for the end; whether the terminal is as it was, and what the command ended with. */
    async left() {
      await closed
      return {
        restored: file('before') === file('after'),
        exit: Number(/exit (\d+)\r?\n(?!.*exit \d)/s.exec(said)?.[1] ?? Number.NaN),
      }
    },
  }
  return seat
}

const enter = (...more: readonly string[]) => seatAt(h15, 'h16', '192.0.2.16', ...more)

/** On a machine that is busy even a shell takes its time. */
const patiently = (what: string, isSo: () => Promise<boolean> | boolean) => until(what, isSo, 60_000)

/** Whether a program with these words runs anywhere on this machine. */
const runs = (words: string): boolean =>
  readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').includes(words)
    } catch (error) {
      // It has ended since.
      if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
      throw error
    }
  })

await t.test('two hosts, and a third that has only its keys', async () => {
  for (const host of [h15, h16]) host.declare('')
  const begun = h15.run('fleet', 'init', '--name', 'h15', '--folder', h15.fleetFolder)
  if (begun.exit !== 0) throw new Error(begun.stderr)
  await Promise.all([h15.start(), h16.start()])
  enrol(h16, 'operate')
  enrol(h17, 'admin')
  await until('they are linked', () => h16.log('daemon').includes('peer linked'), 60_000)
})

await t.test('is for nobody until the document says so', async (t) => {
  const seat = enter()
  t.match(await seat.left(), { restored: true, exit: 3 })
  t.match(seat.said(), /shell\.off: h\S* *opens no shell|shell\.off/)
  t.match(seat.said(), /Nothing was changed/)
  t.strictSame(h16.recordings(), [])
  t.notMatch(h16.journal(), 'shell')
})

await t.test('is for the role admin alone', async (t) => {
  h15.declare('  shell: true\n')
  h16.declare('  shell: true\n')
  const seat = seatAt(h16, 'h15', '192.0.2.15')
  t.match(await seat.left(), { restored: true, exit: 3 })
  t.match(seat.said(), /fleet\.role-refused/)
  t.strictSame(h15.recordings(), [])
})

await t.test('needs a terminal, a known host, that host itself, and a session', async (t) => {
  const plain = h15.run('shell', 'h16', '--folder', h15.fleetFolder)
  t.equal(plain.exit, 1)
  t.match(plain.stderr, /request\.invalid: .*terminal/)
  const nobody = seatAt(h15, 'h99', '192.0.2.16')
  t.match(await nobody.left(), { restored: true, exit: 1 })
  t.match(nobody.said(), /fleet\.unreachable: .*h16, and not h99/s, 'another host is not taken for it')
  t.match(
    h15.run('--host', 'h16', 'shell', 'h16', '--socket', join(h15.sockets, 'fleet.sock')).stderr,
    /request\.invalid/,
  )
  const asked = h15.run('shell', 'h16', '--term', '$(id)', '--folder', h15.fleetFolder)
  t.match(asked.stderr, /request\.invalid/)
})

await t.test('is a terminal: of root, of its kind, of its size, and recorded', async (t) => {
  const seat = enter()
  await seat.says('A shell of root on h16; ^] leaves.')
  t.match(await seat.asks('id -u; echo $TERM; stty size; tty'), /0\r\nvt220\r\n30 100\r\n\/dev\/pts\/\d+\r\n/)
  t.match(await seat.asks('ip -brief address show lni'), '192.0.2.16', 'there, and not here')
  seat.resize(132, 41)
  await patiently('the size has come', async () => (await seat.asks('stty size')).includes('41 132'))
  t.match(await seat.asks('echo grüße-日本'), 'grüße-日本')
  seat.type('sleep 4711\n')
  await patiently('it sleeps', () => runs('sleep 4711'))
  seat.type('\u0003')
  await patiently('Ctrl-C is for what runs there', () => !runs('sleep 4711'))
  seat.type('exit 3\n')
  t.match(await seat.left(), { restored: true, exit: 0 })
  t.match(seat.said(), 'The shell on h16 has ended (exit 3).')
  const [path = ''] = h16.recordings()
  t.equal(statSync(path).mode & 0o777, 0o600)
  const [header, ...events] = readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(header, { version: 2, width: 100, height: 30, env: { TERM: 'vt220' } })
  t.ok(events.some(([, kind, text]) => kind === 'r' && text === '132x41'))
  t.match(events.map(([, kind, text]) => (kind === 'o' ? text : '')).join(''), 'grüße-日本')
  await patiently('the journal has its end', () => /ended +done/.test(h16.journal()))
  t.match(h16.journal(), /asked +shell, for shell\.sock \(the daemon\), says alice.* on peer h15/)
  t.match(h16.journal(), `recorded in ${path}`)
})

await t.test('carries a megabyte and more whole and in order, both ways', async (t) => {
  const seat = enter()
  await seat.says('leaves.')
  const numbers = Array.from({ length: 200_000 }, (_, at) => String(at + 1))
  const shown = await seat.asks('seq 1 200000', 60_000)
  t.equal(shown.slice(shown.indexOf('1\r\n2\r\n')), `${numbers.join('\r\n')}\r\n`)
  const typed = `${numbers.slice(0, 60_000).join('\n')}\n`
  seat.type('stty -echo; head -n 60000 | md5sum; stty echo\n')
  await sleep(500)
  seat.type(typed)
  await seat.says(createHash('md5').update(typed).digest('hex'), 60_000)
  seat.type('\u001d')
  t.match(await seat.left(), { restored: true, exit: 0 })
})

await t.test('holds up who writes faster than is read, and nobody keeps it', async (t) => {
  const seat = enter()
  await seat.says('leaves.')
  const pids = ['daemon', 'operate'].map((name) => h16.processes.get(name)?.pid ?? 0)
  const rss = () =>
    pids.map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024)
  const before = rss()
  seat.type('yes garrison-flood\n')
  await seat.says('garrison-flood\r\ngarrison-flood')
  process.kill(seat.pid(), 'SIGSTOP')
  await sleep(3000)
  const [path = ''] = h16.recordings().slice(-1)
  const stood = statSync(path).size
  await sleep(3000)
  t.ok(statSync(path).size - stood < 2 ** 20, `what nobody reads is not said: ${statSync(path).size - stood}`)
  for (const [at, size] of rss().entries())
    t.ok(size - (before[at] ?? 0) < 80, `${size} MiB after ${before[at]}`)
  process.kill(seat.pid(), 'SIGCONT')
  await sleep(200)
  seat.type('\u0003')
  t.match(await seat.asks('echo still here', 60_000), 'still here')
  seat.type('\u001d')
  t.match(await seat.left(), { restored: true, exit: 0 })
})

await t.test('leaves by its key, and what ran there ends', async (t) => {
  const seat = enter('--escape', '^A')
  await seat.says('^A leaves.')
  // Longer than a side may be silent: it is not, though nobody says anything.
  await sleep(25_000)
  seat.type('sleep 4712 & sleep 4713\n')
  await patiently('both sleep', () => runs('sleep 4712') && runs('sleep 4713'))
  seat.type('\u001d')
  await sleep(500)
  t.ok(runs('sleep 4713'), '^] is what runs there’s')
  seat.type('\u0001')
  t.match(await seat.left(), { restored: true, exit: 0 })
  await patiently('nothing is left', () => !runs('sleep 4712') && !runs('sleep 4713'))
})

for (const signal of ['SIGTERM', 'SIGHUP', 'SIGKILL'] as const)
  await t.test(`at ${signal} of the client what ran there ends`, async (t) => {
    const seat = enter()
    await seat.says('leaves.')
    seat.type('sleep 4714\n')
    await patiently('it sleeps', () => runs('sleep 4714'))
    process.kill(seat.pid(), signal)
    if (signal !== 'SIGKILL') t.match(await seat.left(), { restored: true, exit: 1 })
    await patiently('nothing is left', () => !runs('sleep 4714'))
  })

await t.test('cut in the middle: both sides notice, the terminal is back', async (t) => {
  const seat = enter()
  await seat.says('leaves.')
  seat.type('sleep 4715\n')
  await patiently('it sleeps', () => runs('sleep 4715'))
  h16.space.ip('link', 'set', 'lni', 'down')
  const beganMs = performance.now()
  t.match(await seat.left(), { restored: true, exit: 1 })
  t.match(seat.said(), /The connection with h16 was lost/)
  await until('the shell there has ended', () => !runs('sleep 4715'), 40_000)
  t.comment(`after ${Math.round(performance.now() - beganMs)} ms`)
  h16.space.ip('link', 'set', 'lni', 'up')
})

await t.test('when the daemon there is killed, so is the shell', async (t) => {
  const seat = enter()
  await seat.says('leaves.', 60_000)
  seat.type('sleep 4716\n')
  await patiently('it sleeps', () => runs('sleep 4716'))
  await h16.stop('daemon', 'SIGKILL')
  t.match(await seat.left(), { restored: true, exit: 1 })
  await patiently('nothing is left', () => !runs('sleep 4716'))
  await h16.stop('operate')
  rmSync(join(h16.root, 'daemon.log'))
  rmSync(join(h16.root, 'operate.log'))
  await h16.start()
})

await t.test('a host that is put out is out of its shells too', async (t) => {
  const seat = seatAt(h17, 'h16', '192.0.2.16')
  await seat.says('leaves.', 60_000)
  seat.type('sleep 4717\n')
  await patiently('it sleeps', () => runs('sleep 4717'))
  await until('h16 is linked with the issuer', () => h16.log('daemon').includes('peer linked'), 60_000)
  const revoked = h15.run('fleet', 'revoke', 'h17', '--folder', h15.fleetFolder)
  t.equal(revoked.exit, 0, revoked.stderr)
  t.match(await seat.left(), { restored: true, exit: 1 })
  await patiently('nothing is left', () => !runs('sleep 4717'))
  const again = seatAt(h17, 'h16', '192.0.2.16')
  t.match(await again.left(), { restored: true, exit: 1 })
  t.match(again.said(), /revoked/)
})

await t.test('the door of the daemon is for shells alone', async (t) => {
  const socket = join(h16.sockets, 'shell.sock')
  t.equal(statSync(socket).mode & 0o777, 0o600)
  for (const verb of [['status'], ['apply'], ['vm', 'list']])
    t.match(h16.run(...verb, '--json', '--socket', socket), { exit: 3, stdout: /door\.refused/ })
})
