// The doors over real sockets and real processes: who may do what, what is shared, what a disconnect does, what is refused.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { contextsOf } from '../../agent/api/context.ts'
import { type Served, serve } from '../../agent/api/server.ts'
import { verbOf } from '../../agent/api/verbs.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { fakeParts, letGo, readWorld, type World, writeWorld } from './fake-host.ts'

const main = join(import.meta.dirname, '../../agent/main.ts')
const silent = pino({ level: 'silent' })

interface Ended {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

const ended = async (child: ChildProcess): Promise<Ended> => {
  const said = { stdout: '', stderr: '' }
  child.stdout?.on('data', (bytes) => {
    said.stdout += bytes
  })
  child.stderr?.on('data', (bytes) => {
    said.stderr += bytes
  })
  const [exit] = await once(child, 'close')
  return { exit, ...said }
}

const start = (args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess =>
  spawn(process.execPath, [main, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, TZ: 'UTC', USER: 'alice', ...env },
  })

/** The command line, as a process. */
const garrison = (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> =>
  ended(start(args, env))

const linesOf = (text: string) =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

interface Posted {
  readonly status: number
  readonly headers: NodeJS.Dict<string | string[]>
  readonly body: string
}

/** A request by node:http, as Cockpit and other clients make it. */
function post(socketPath: string, path: string, body: string, method = 'POST'): Promise<Posted> {
  const { promise, resolve, reject } = Promise.withResolvers<Posted>()
  const request = httpRequest({ socketPath, path, method, agent: false }, (response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', (part) => {
      text += part
    })
    response.on('end', () =>
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
    )
    response.on('error', reject)
  })
  request.on('error', reject)
  request.end(body)
  return promise
}

interface Host {
  readonly folder: string
  readonly socket: (door: string) => string
  readonly looks: () => number
  readonly clashes: () => number
  readonly served: Served
}

/** The folder of a fake host; not in the test's own folder, for a socket's path has at most 107 bytes. */
function folderOf(t: Test, world: Partial<World>): string {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-operate-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeWorld(folder, world)
  writeFileSync(join(folder, 'host.yaml'), 'version: 1\n')
  return folder
}

/** A fake host, served in this process so that the test can look into it. */
async function hostOf(t: Test, world: Partial<World>): Promise<Host> {
  const folder = folderOf(t, world)
  const parts = fakeParts(folder)
  const socket = (door: string) => join(folder, `${door}.sock`)
  const served = await serve({
    doorways: (['read', 'operate', 'admin'] as const).map((door) => ({ door, path: socket(door) })),
    contextFor: contextsOf(parts),
    load: loadServed,
    log: silent,
    idleMs: 60_000,
  })
  t.teardown(async () => {
    served.stop()
    await served.left
  })
  return { folder, socket, looks: parts.looks, clashes: parts.clashes, served }
}

const step = (name: string, risk: World['wanted'][number]['risk'] = 'safe') => ({ name, risk, held: false })
const held = (name: string) => ({ ...step(name), held: true })

/** Long enough for a signal or a closed connection to arrive, before what must not happen is looked for. */
const arrival = () => delay(500)

/** Waits until something is so, at most ten seconds. */
async function until(what: () => boolean): Promise<void> {
  for (const startedMs = Date.now(); !what(); await delay(10))
    if (Date.now() - startedMs > 10_000) throw new Error('did not come about in ten seconds')
}

t.test('the command line', async (t) => {
  t.test('applies, says each step, and is settled the second time', async (t) => {
    const { socket, folder } = await hostOf(t, { wanted: [step('one'), step('two')] })
    const first = await garrison(['apply', '--socket', socket('operate')])
    t.equal(first.stderr, '')
    t.equal(first.exit, 0)
    t.match(
      first.stdout.replace(/\d+\.\d s/g, 'N s'),
      /^array\.make one {2}make one\narray\.make one {2} +N s {2}done\narray\.make two {2}make two\n.*done\n2 steps performed in N s\. Settled\.\n$/,
    )
    t.same(readWorld(folder).done, ['one', 'two'])
    const second = await garrison(['apply', '--socket', socket('operate'), '--json'])
    t.equal(second.exit, 0)
    const lines = linesOf(second.stdout)
    t.same(
      lines.map(({ event }) => event),
      ['started', 'assessed', 'finished'],
    )
    t.ok(lines.every(({ schema }) => schema === 'garrison/apply/1'))
    t.equal(lines.at(-1).performed, 0)
    t.equal(lines[0].who, 'operate.sock, says alice')
  })

  t.test('leaves what is not allowed, with the command that allows it', async (t) => {
    const { socket } = await hostOf(t, { wanted: [step('risky', 'disruptive')] })
    const refused = await garrison(['apply', '--socket', socket('operate')])
    t.equal(refused.exit, 3)
    t.match(refused.stdout, 'garrison apply --allow disruptive --only array')
    const allowed = await garrison(['apply', '--allow', 'disruptive', '--socket', socket('operate')])
    t.equal(allowed.exit, 0)
  })

  t.test('tells a failed step with what it said', async (t) => {
    const { socket } = await hostOf(t, { wanted: [step('broken')] })
    const { exit, stdout } = await garrison(['apply', '--socket', socket('admin')])
    t.equal(exit, 1)
    t.match(stdout, /action\.failed: make ended with 2/)
    t.match(stdout, /\| make: \*\*\* \[broken\] Error 2/)
    const journal = await garrison(['journal', '--socket', socket('read')])
    t.match(journal.stdout, /apply {5}for admin\.sock \(root\), says alice, up to\s+safe/)
    t.match(journal.stdout, /failed +array\.make broken/)
    const why = await garrison(['why', 'array', 'broken', '--socket', socket('read')])
    t.equal(why.exit, 0)
    t.match(why.stdout.replace(/\s+/g, ' '), /array\.make broken \(make broken\) was tried for admin\.sock/)
  })

  t.test('exits with what the standing is', async (t) => {
    const settled = await hostOf(t, {})
    t.equal((await garrison(['status', '--socket', settled.socket('read')])).exit, 0)
    t.equal((await garrison(['plan', '--socket', settled.socket('read')])).exit, 0)
    const drifted = await hostOf(t, { wanted: [step('one')] })
    t.equal((await garrison(['status', '--socket', drifted.socket('read')])).exit, 2)
    t.equal((await garrison(['plan', '--socket', drifted.socket('read')])).exit, 2)
    const unknown = await hostOf(t, { unreadable: true })
    t.equal((await garrison(['status', '--json', '--socket', unknown.socket('read')])).exit, 4)
    t.equal((await garrison(['plan', '--socket', unknown.socket('read')])).exit, 4)
    t.equal((await garrison(['apply', '--socket', unknown.socket('operate')])).exit, 4)
  })

  t.test('shows nothing of the host raw', async (t) => {
    const summary = 'disk \u001b]0;owned\u0007\u001b[2J \u202egnp.exe \u009b31m'
    const { socket } = await hostOf(t, { summary })
    const shown = await garrison(['status', '--socket', socket('read')])
    t.match(shown.stdout, 'disk \\x1b]0;owned\\x07\\x1b[2J \\u202egnp.exe \\x9b31m')
    const json = await garrison(['status', '--json', '--socket', socket('read')])
    t.notMatch(json.stdout, /[\u001b\u0007\u009b\u202e]/)
    t.equal(JSON.parse(json.stdout).resources[0].summary, summary)
  })

  t.test('--json has the fields that the documents name', async (t) => {
    const { socket } = await hostOf(t, { wanted: [step('one')] })
    for (const verb of ['status', 'plan', 'why'] as const) {
      const { stdout } = await garrison([verb, '--json', '--socket', socket('read')])
      const { schema, ...rest } = JSON.parse(stdout)
      t.equal(schema, verbOf(verb).schema)
      t.same(Object.keys({ schema, ...rest }).sort(), Object.keys(verbOf(verb).json).sort())
    }
    for (const [args, verb] of [
      [['version'], 'version'],
      [['schema'], 'schema'],
      [['completion', 'fish'], 'completion'],
      [['check', join(import.meta.dirname, '../../packaging/host.yaml')], 'check'],
    ] as const) {
      const { stdout, exit } = await garrison([...args, '--json'])
      t.equal(exit, 0)
      t.same(Object.keys(JSON.parse(stdout)).sort(), Object.keys(verbOf(verb).json).sort())
    }
    const applied = await garrison(['apply', '--json', '--socket', socket('operate')])
    for (const { event } of linesOf(applied.stdout)) t.ok(event in verbOf('apply').json, event)
    const journal = await garrison(['journal', '--json', '--socket', socket('read')])
    t.ok(linesOf(journal.stdout).every(({ schema, entry }) => schema === 'garrison/journal/1' && entry.apply))
  })

  t.test('check names each mistake with its place', async (t) => {
    const folder = t.testdir({ 'host.yaml': 'version: 1\narray:\n  levl: 5\n' })
    const { exit, stdout } = await garrison(['check', join(folder, 'host.yaml')])
    t.equal(exit, 1)
    t.match(
      stdout.replace(/\s+/g, ' '),
      /host\.yaml:3:3: array\.levl: unknown key "levl"; did you mean level\?/,
    )
  })

  t.test('record writes a transcript that is replayed', async (t) => {
    const folder = t.testdir({})
    const dir = join(folder, 'transcript')
    const first = await garrison(['record', dir, '--json'])
    t.equal(first.exit, 0)
    const lines = linesOf(readFileSync(join(dir, 'transcript.jsonl'), 'utf8'))
    t.equal(JSON.parse(first.stdout).queries, lines.length)
    t.ok(lines.every(({ call, args }) => typeof call === 'string' && Array.isArray(args)))
    t.equal(statSync(dir).mode & 0o777, 0o700)
    const second = await garrison(['record', dir])
    t.equal(second.exit, 1)
    t.match(second.stderr, 'file.exists')
  })

  t.test('is quiet when its reader has gone', async (t) => {
    const { socket } = await hostOf(t, { wanted: [step('one')] })
    const child = start(['apply', '--json', '--socket', socket('operate')])
    child.stdout?.once('data', () => child.stdout?.destroy())
    const { stderr } = await ended(child)
    t.equal(stderr, '')
  })

  t.test('refuses to apply where no door opens', async (t) => {
    const { exit, stderr } = await garrison(['apply', '--socket', '/nonexistent/admin.sock'])
    t.equal(exit, 3)
    t.match(stderr, /^garrison: door\.closed: apply needs the root side.*\n.*not there/)
    t.match(stderr, /\n {2}Nothing was changed\.\n {2}Start its doors/)
  })
})

t.test('doors', async (t) => {
  const { socket } = await hostOf(t, { wanted: [step('one')] })
  const codeOf = ({ body }: Posted) => JSON.parse(body).code
  t.test('read may look and nothing else', async (t) => {
    t.equal((await post(socket('read'), '/v1/plan', '{}')).status, 200)
    const applied = await post(socket('read'), '/v1/apply', '{}')
    t.equal(applied.status, 403)
    t.equal(codeOf(applied), 'door.refused')
    t.equal((await post(socket('read'), '/v1/stop', '{}')).status, 403)
    t.equal((await post(socket('read'), '/v1/drives/replace', '{"old":"a","new":"b"}')).status, 403)
  })
  t.test('operate may not destroy data', async (t) => {
    const refused = await post(socket('operate'), '/v1/apply', '{"allow":"destroys-data"}')
    t.equal(refused.status, 403)
    t.match(JSON.parse(refused.body).message, /destroys-data needs admin\.sock/)
    t.equal((await post(socket('admin'), '/v1/apply', '{"allow":"destroys-data"}')).status, 200)
  })
  t.test('no door runs what belongs into the client', async (t) => {
    for (const [path, body] of [
      ['/v1/check', '{"file":"/etc/shadow"}'],
      ['/v1/record', '{"dir":"/etc/cron.d"}'],
      ['/v1/plan', '{"desired":"/etc/shadow"}'],
      ['/v1/operate', '{}'],
      ['/v1/completion', '{"shell":"bash"}'],
    ] as const) {
      const refused = await post(socket('admin'), path, body)
      t.equal(refused.status, 403, path)
      t.equal(codeOf(refused), 'door.refused')
    }
  })
  t.test('what is no request of ours is refused with a remedy', async (t) => {
    for (const [path, body, status, code] of [
      ['/v1/nothing', '{}', 404, 'request.unknown-verb'],
      ['//', '', 404, 'request.unknown-verb'],
      ['/', '', 404, 'request.unknown-verb'],
      ['/v1/constructor', '{}', 404, 'request.unknown-verb'],
      ['/v2/status', '{}', 404, 'request.unknown-verb'],
      ['/v1/status', '{', 400, 'request.invalid'],
      ['/v1/status', '[]', 400, 'request.invalid'],
      ['/v1/status', 'null', 400, 'request.invalid'],
      ['/v1/status', '{"fresh":"yes"}', 400, 'request.invalid'],
      ['/v1/status', '{"__proto__":{"fresh":true},"x":1}', 400, 'request.invalid'],
      ['/v1/apply', '{"alow":"safe"}', 400, 'request.invalid'],
      ['/v1/apply', '{"allow":"everything"}', 400, 'request.invalid'],
      ['/v1/journal', '{"since":"yesterday"}', 400, 'request.invalid'],
      ['/v1/why', '{"subject":"array","name":"a\\nb"}', 400, 'request.invalid'],
      ['/v1/status', JSON.stringify({ fresh: 'x'.repeat(70_000) }), 413, 'request.too-large'],
    ] as const) {
      const refused = await post(socket('admin'), path, body)
      t.equal(refused.status, status, `${path} ${body.slice(0, 40)}`)
      const problem = JSON.parse(refused.body)
      t.equal(problem.code, code)
      t.equal(problem.schema, 'garrison/problem/1')
      t.type(problem.remedy, 'string')
    }
    t.equal((await post(socket('admin'), '/v1/status', '', 'GET')).status, 400)
  })
  t.test('a claimed name cannot forge another', async (t) => {
    const { folder, socket: at } = await hostOf(t, { wanted: [step('one')] })
    const raw = connect(at('operate'))
    const body = '{}'
    raw.write(
      `POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ngarrison-caller: ${'admin.sock (root)'.repeat(20)}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    )
    let said = ''
    raw.on('data', (bytes) => {
      said += bytes
    })
    await once(raw, 'close')
    t.match(said, /"who":"operate\.sock"/)
    t.same(readWorld(folder).done, ['one'])
  })
  t.test('what is not HTTP at all ends the connection', async (t) => {
    const raw = connect(socket('read'))
    raw.write(`${'\0\u0001garbage '.repeat(5000)}\r\n\r\n`)
    raw.on('error', () => raw.destroy())
    raw.resume()
    await once(raw, 'close')
    t.equal((await post(socket('read'), '/v1/status', '{}')).status, 200)
  })
})

t.test('looks are shared', async (t) => {
  t.test('by those who ask at once, and for ten seconds', async (t) => {
    const { socket, looks } = await hostOf(t, { observationMs: 200 })
    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => post(socket('read'), '/v1/status', '{}')))
    t.ok(answers.every(({ status }) => status === 200))
    t.equal(looks(), 1)
    const later = JSON.parse((await post(socket('read'), '/v1/status', '{}')).body)
    t.equal(looks(), 1)
    t.ok(later.ageMs >= 200, 'the answer says how old it is')
    await Promise.all([1, 2, 3, 4, 5].map(() => post(socket('read'), '/v1/status', '{"fresh":true}')))
    t.ok(looks() <= 3, 'those who want a fresh look share it too')
    t.ok(looks() >= 2)
  })
  t.test('but not after something was done, or the document was changed', async (t) => {
    const { socket, looks, folder } = await hostOf(t, { wanted: [step('one')] })
    const standing = async () => JSON.parse((await post(socket('read'), '/v1/status', '{}')).body).standing
    t.equal(await standing(), 'drifted')
    await post(socket('operate'), '/v1/apply', '{}')
    t.equal(await standing(), 'settled')
    const before = looks()
    t.equal(await standing(), 'settled')
    t.equal(looks(), before)
    writeFileSync(join(folder, 'host.yaml'), 'version: 1 # changed\n')
    await standing()
    t.equal(looks(), before + 1)
  })
})

t.test('nobody looks beside another look, nor beside a step that has devices to itself', async (t) => {
  const { socket, folder, clashes, looks } = await hostOf(t, {
    wanted: [{ ...held('one'), claims: true }, step('two')],
    observationMs: 100,
  })
  const applied = post(socket('operate'), '/v1/apply', '{}')
  const asked: Promise<Posted>[] = []
  for (let round = 0; round < 10; round += 1) {
    asked.push(post(socket('read'), '/v1/status', '{"fresh":true}'))
    await delay(50)
  }
  const begun = () =>
    globSync(join(folder, 'journal/*.jsonl')).some((file) =>
      readFileSync(file, 'utf8').includes('"step-started"'),
    )
  await until(begun)
  const before = looks()
  await arrival()
  t.equal(looks(), before, 'those who ask meanwhile wait')
  letGo(folder, 'one')
  t.equal((await applied).status, 200)
  t.ok((await Promise.all(asked)).every(({ status }) => status === 200))
  t.same(readWorld(folder).done, ['one', 'two'])
  t.equal(clashes(), 0)
})

t.test('two applies at once: the second says who holds the lock', async (t) => {
  const { socket, folder } = await hostOf(t, { wanted: [held('one')] })
  const first = garrison(['apply', '--json', '--socket', socket('operate')])
  await until(() => existsSync(join(folder, 'apply.lock')))
  const second = await garrison(['apply', '--socket', socket('admin')], { USER: 'bob' })
  t.equal(second.exit, 3)
  t.match(
    second.stderr.replace(/\s+/g, ' '),
    /apply\.locked: an apply is running for operate\.sock, says alice \(pid \d+\) since 20\d\d-/,
  )
  t.match(second.stderr, 'garrison journal --follow')
  const status = JSON.parse((await post(socket('read'), '/v1/status', '{}')).body)
  t.equal(status.applying.who, 'operate.sock, says alice')
  letGo(folder, 'one')
  t.equal((await first).exit, 0)
})

t.test('leaving', async (t) => {
  t.test('Ctrl-C ends the apply after the step in hand', async (t) => {
    const { socket, folder } = await hostOf(t, { wanted: [held('one'), step('two')] })
    const child = start(['apply', '--socket', socket('operate')])
    const done = ended(child)
    child.stdout?.once('data', async () => {
      child.kill('SIGINT')
      await arrival()
      letGo(folder, 'one')
    })
    const { exit, stdout, stderr } = await done
    t.equal(exit, 2)
    t.match(stderr, /^Stopping after the step in hand/)
    t.match(
      stdout.replace(/\s+/g, ' '),
      /1 step performed in .* Stopped after the step in hand; the host is sound/,
    )
    t.same(readWorld(folder).done, ['one'])
  })
  t.test('a second Ctrl-C leaves at once, and the step still ends', async (t) => {
    const { socket, folder } = await hostOf(t, { wanted: [held('one'), step('two')] })
    const child = start(['apply', '--socket', socket('operate')])
    const done = ended(child)
    child.stderr?.once('data', () => child.kill('SIGINT'))
    child.stdout?.once('data', () => child.kill('SIGINT'))
    t.equal((await done).exit, 1)
    await arrival()
    letGo(folder, 'one')
    await until(() => readWorld(folder).done.length > 0 && !existsSync(join(folder, 'apply.lock')))
    t.same(readWorld(folder).done, ['one'])
  })
  t.test('a client that is killed stops the apply after the step in hand', async (t) => {
    const { socket, folder } = await hostOf(t, { wanted: [held('one'), step('two')] })
    const child = start(['apply', '--socket', socket('operate')])
    child.stdout?.once('data', () => child.kill('SIGKILL'))
    await ended(child)
    await arrival()
    letGo(folder, 'one')
    await until(() => readWorld(folder).done.length > 0 && !existsSync(join(folder, 'apply.lock')))
    t.same(readWorld(folder).done, ['one'])
    const { stdout } = await garrison(['journal', '--json', '--socket', socket('read')])
    t.equal(linesOf(stdout).at(-1).entry.outcome, 'stopped')
  })
  t.test('journal --follow goes on until Ctrl-C', async (t) => {
    const { socket } = await hostOf(t, { wanted: [step('one')] })
    const child = start(['journal', '--follow', '--json', '--socket', socket('read')])
    const done = ended(child)
    let said = ''
    child.stdout?.on('data', (bytes) => {
      said += bytes
    })
    await garrison(['apply', '--socket', socket('operate')])
    await until(() => said.includes('apply-ended'))
    child.kill('SIGINT')
    t.equal((await done).exit, 0)
  })
})

t.test('the process', async (t) => {
  const operate = async (folder: string, idleMs: number) => {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'fake-operate.ts'), folder, `${idleMs}`],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    const done = ended(child)
    await until(() => existsSync(join(folder, 'admin.sock')))
    return { child, done }
  }
  t.test('ends the step in hand when it is told to stop', async (t) => {
    const folder = folderOf(t, { wanted: [held('one'), step('two')] })
    const { child, done } = await operate(folder, 60_000)
    const client = start(['apply', '--json', '--socket', join(folder, 'operate.sock')])
    const applied = ended(client)
    let said = ''
    client.stdout?.on('data', (bytes) => {
      said += bytes
    })
    await until(() => said.includes('step-started'))
    child.kill('SIGTERM')
    await arrival()
    letGo(folder, 'one')
    t.equal((await done).exit, 0)
    const { exit, stdout } = await applied
    t.equal(linesOf(stdout).at(-1).outcome, 'stopped', 'its caller hears the end')
    t.equal(exit, 2)
    t.same(readWorld(folder).done, ['one'])
    t.notOk(existsSync(join(folder, 'apply.lock')))
  })
  t.test('leaves when idle, not while somebody follows', async (t) => {
    const folder = folderOf(t, {})
    const { child, done } = await operate(folder, 1000)
    const follower = httpRequest({
      socketPath: join(folder, 'read.sock'),
      path: '/v1/journal',
      method: 'POST',
    })
    follower.on('error', () => {})
    follower.end('{"follow":true}')
    await delay(3000)
    t.equal(child.exitCode, null)
    follower.destroy()
    t.equal((await done).exit, 0)
  })
  t.test('is told by the client when it dies', async (t) => {
    const folder = folderOf(t, { wanted: [held('one')] })
    const { child, done } = await operate(folder, 60_000)
    const client = start(['apply', '--socket', join(folder, 'operate.sock')])
    const applied = ended(client)
    client.stdout?.once('data', () => child.kill('SIGKILL'))
    await done
    const { exit, stderr } = await applied
    t.equal(exit, 1)
    t.match(stderr, /door\.lost/)
    t.notMatch(stderr, /Nothing was changed/)
  })
  t.test('serves the sockets that systemd passes, each as the door that it is named', async (t) => {
    const folder = folderOf(t, {})
    mkdirSync(join(folder, 'etc/garrison'), { recursive: true })
    const socket = (door: string) => join(folder, `${door}.sock`)
    const child = spawn(
      '/usr/bin/systemd-socket-activate',
      [
        ...['admin', 'read', 'operate'].flatMap((door) => ['--listen', socket(door)]),
        '--fdname=admin:read:operate',
        process.execPath,
        main,
        'operate',
        '--root',
        folder,
        '--idle',
        '1',
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    const done = ended(child)
    await until(() => existsSync(socket('operate')))
    const refused = await post(socket('read'), '/v1/apply', '{}')
    t.match(JSON.parse(refused.body).message, /needs operate\.sock; this came in on read\.sock/)
    const missing = await post(socket('operate'), '/v1/apply', '{}')
    t.equal(missing.status, 409)
    t.equal(JSON.parse(missing.body).code, 'desired.missing')
    const { exit, stdout } = await done
    t.equal(exit, 0)
    t.match(stdout, /"doors":\["admin","read","operate"\]/)
  })
  t.test('does not start without a socket', async (t) => {
    const { exit, stderr } = await garrison(['operate'])
    t.equal(exit, 1)
    t.match(stderr, /systemd passed no socket/)
  })
})
