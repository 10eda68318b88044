// The contract of HostReader, held against this machine and against the transcript that is recorded of it.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import t, { type Test } from 'tap'
import { appendLine } from '../../agent/host/files.ts'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { recording } from '../../agent/host/record.ts'
import type { HostReader, UnfinishedStep } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import { readTranscript, replay } from '../observe/replay.ts'
import { noCloud } from '../unit/no-cloud.ts'

const isRoot = process.getuid?.() === 0

const step: UnfinishedStep = {
  apply: 'a1',
  key: 'array.create',
  instance: 'i-1',
  step: { id: 'array.create', summary: 's', risk: 'safe', because: [], actions: [] },
}
const holder = { pid: 4711, who: 'timer', sinceMs: 1000 }

const folder = mkdtempSync(`${tmpdir()}/garrison-`)
writeFileSync(`${folder}/file`, 'content\n')
writeFileSync(`${folder}/another`, '')
symlinkSync('file', `${folder}/link`)
symlinkSync('self', `${folder}/self`)
writeFileSync(`${folder}/image`, '')
truncateSync(`${folder}/image`, 40 * 2 ** 20)
const losetup = (...args: string[]) => execFileSync('/usr/sbin/losetup', args, { encoding: 'utf8' }).trim()
const device = isRoot ? losetup('--find', '--show', `${folder}/image`) : null
t.teardown(() => {
  if (device !== null) losetup('--detach', device)
  rmSync(folder, { recursive: true })
})

const host = new LinuxHost({
  claims: new Set(),
  unfinishedSteps: async () => [step],
  lockHolder: async () => holder,
  libvirt: () => Promise.reject(new Error('not asked')),
  ...noCloud,
})

/** What a caller sees of a call: its answer, or the error without the cause and remedy that belong to the code. */
const seen = async (call: Promise<unknown>): Promise<unknown> => {
  try {
    return { answer: await call }
  } catch (error) {
    if (!(error instanceof HostError)) throw error
    const { code, message, details } = error
    return { code, message, details: JSON.parse(JSON.stringify(details)) }
  }
}

/** Every method, in each way in which it can answer here. */
async function contract(t: Test, reader: HostReader): Promise<readonly unknown[]> {
  const answers: unknown[] = []
  const ask = async (call: Promise<unknown>, expected: object): Promise<void> => {
    const outcome = await seen(call)
    t.match(outcome, expected)
    answers.push(outcome)
  }
  await ask(reader.query(['/usr/bin/getent', 'passwd', 'root']), {
    answer: { exit: 0, stdout: /^root:x?:0:0:/, stderr: '' },
  })
  await ask(reader.query(['/usr/bin/getent', 'passwd', 'no-such-user'], 5000), { answer: { exit: 2 } })
  await ask(reader.query(['/usr/bin/getent', 'shadow', 'root']), {
    code: 'host.query-refused',
    details: { argv: Array },
  })
  await ask(reader.query(['/usr/bin/rm', '--', `${folder}/file`]), { code: 'host.query-refused' })
  await ask(reader.readText(`${folder}/file`), { answer: 'content\n' })
  await ask(reader.readText(`${folder}/another`), { answer: '' })
  await ask(reader.readText(`${folder}/absent`), { answer: null })
  await ask(reader.readText(`${folder}/self`), { code: 'host.unreadable', details: { errno: 'ELOOP' } })
  await ask(reader.list(folder), { answer: ['another', 'file', 'image', 'link', 'self'] })
  await ask(reader.list(`${folder}/absent`), { answer: null })
  await ask(reader.resolve(`${folder}/link`), { answer: `${folder}/file` })
  await ask(reader.resolve(`${folder}/absent`), { answer: null })
  await ask(reader.facts(`${folder}/link`), { answer: { kind: 'file', sizeBytes: 8 } })
  await ask(reader.facts(folder), { answer: { kind: 'folder' } })
  await ask(reader.facts(`${folder}/absent`), { answer: null })
  await ask(reader.capacity(folder), {
    answer: { sizeBytes: Number, freeBytes: Number, inodes: Number, freeInodes: Number },
  })
  await ask(reader.capacity(`${folder}/absent`), { answer: null })
  await ask(reader.sample(`${folder}/file`), { code: 'host.unreadable' })
  await ask(reader.exclusive(`${folder}/file`), { code: 'host.unreadable' })
  await ask(reader.ioActivity([]), { answer: {} })
  await ask(reader.ioActivity(['no-such-device']), { code: 'host.unreadable' })
  await ask(reader.unfinishedSteps(), { answer: [step] })
  await ask(reader.lockHolder(), { answer: holder })
  if (device !== null) {
    await ask(reader.facts(device), { answer: { kind: 'block' } })
    await ask(reader.sample(device), { answer: { sampledBytes: 33 * 2 ** 20, nonZeroAt: null } })
    await ask(reader.exclusive(device), { answer: 'free' })
    await ask(reader.ioActivity([device.slice(5)]), { answer: { [device.slice(5)]: { inFlight: 0 } } })
  }
  // Some machines hide processes even from root; then it must be said, not left out.
  const tables = (await seen(reader.mountTables())) as { code?: string; answer?: readonly { own: boolean }[] }
  t.ok(tables.code === 'host.denied' || tables.answer?.filter(({ own }) => own).length === 1)
  answers.push(tables)
  return answers
}

t.test('this machine, its recording, and the replay of that give the same answers', async (t) => {
  const transcript = `${folder}-transcript.jsonl`
  t.teardown(() => rmSync(transcript, { force: true }))
  let recorded: readonly unknown[] = []
  await t.test('recorded', async (t) => {
    recorded = await contract(
      t,
      recording(host, (line) => appendLine(transcript, line, 0o600)),
    )
  })
  const readings = await readTranscript(transcript)
  t.equal(readings.length, recorded.length, 'one line for each call')
  await t.test('replayed', async (t) => {
    t.strictSame(await contract(t, replay(readings)), recorded)
  })
})

t.test('a replay never makes up an answer', async (t) => {
  const reader = replay(await replayable())
  await t.rejects(reader.readText('/etc/other'), /not in the transcript/)
  await t.rejects(reader.query(['/usr/bin/lsblk', '--json']), /not in the transcript/)
  t.equal(await reader.readText('/etc/one'), 'x')
})

/** Readings of a recording of one call. */
async function replayable() {
  const path = `${folder}/one.jsonl`
  const one = { ...host, readText: async () => 'x' } as unknown as HostReader
  await recording(one, (line) => appendLine(path, line, 0o600)).readText('/etc/one')
  return readTranscript(path)
}

t.test('a defect is passed on and not recorded as an answer', async (t) => {
  const lines: string[] = []
  const broken = { readText: () => Promise.reject(new TypeError('defect')) } as unknown as HostReader
  const recorded = recording(broken, async (line) => {
    lines.push(line)
  })
  await t.rejects(recorded.readText('/x'), TypeError)
  t.strictSame(lines, [])
})
