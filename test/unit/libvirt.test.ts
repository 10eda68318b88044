// The way to libvirt over a client that does what the test says: when it is opened, kept, and what its errors become.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type AnswerMemory, answerMemory, Libvirt, libvirtProblem } from '../../agent/host/libvirt.ts'
import { LibvirtConnectionError, LibvirtError } from '../../agent/node-libvirt/index.ts'
import { HostError } from '../../provisioning/problem.ts'

const noDomain = new LibvirtError('domainLookupByName', {
  code: 42,
  domain: 10,
  message: 'Domain not found',
  level: 2,
  str1: null,
  str2: null,
  str3: null,
  int1: -1,
  int2: -1,
})

const problem = async (work: Promise<unknown>): Promise<HostError> => {
  const error = await work.then(
    () => new Error('it was done'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof HostError)) throw error
  return error
}

/** A client whose call answers with `next`, or throws it. */
class Client {
  connected = true
  next: unknown = 'answer'
  waits = 0
  async whenConnected(): Promise<void> {
    this.waits += 1
    if (!this.connected) throw new LibvirtConnectionError('deadline', 'no connection: nobody listens')
  }
  async ask(): Promise<unknown> {
    if (this.next instanceof Error) throw this.next
    return this.next
  }
  plain(): number {
    return 7
  }
}

function host(memory: AnswerMemory = { recall: async () => null, keep: async () => {} }) {
  const opened: { use: string; client: Client }[] = []
  let refuse: Error | null = null
  let nowMs = 1_000_000
  const libvirt = new Libvirt(
    async (use) => {
      if (refuse) throw refuse
      const client = new Client()
      opened.push({ use, client })
      return client
    },
    () => nowMs,
    memory,
  )
  return {
    libvirt,
    opened,
    refuse(error: Error | null) {
      refuse = error
    },
    pass(ms: number) {
      nowMs += ms
    },
  }
}

t.test('opened when it is first asked for, once for each use', async (t) => {
  const { libvirt, opened } = host()
  t.same(opened, [])
  const asked = [libvirt.connection('monitor'), libvirt.connection('monitor'), libvirt.connection('control')]
  for (const connection of await Promise.all(asked)) t.equal(await connection.ask(), 'answer')
  t.same(
    opened.map(({ use }) => use),
    ['monitor', 'control'],
  )
  t.equal((await libvirt.connection('control')).plain(), 7)
})

t.test('after a refusal to open, the next one tries again', async (t) => {
  const { libvirt, opened, refuse } = host()
  refuse(new LibvirtConnectionError('denied', 'cannot connect: EACCES'))
  t.match(await problem(libvirt.connection('control')), {
    code: 'libvirt.denied',
    message: 'cannot connect: EACCES',
  })
  refuse(null)
  await libvirt.connection('control')
  t.equal(opened.length, 1)
})

t.test('what its calls throw is ours, with the age of the last answer', async (t) => {
  const { libvirt, opened, pass } = host()
  const connection = await libvirt.connection('monitor')
  const client = opened[0]?.client as Client
  client.next = noDomain
  t.match(await problem(connection.ask()), {
    code: 'libvirt.refused',
    message: 'Domain not found',
    details: {
      code: 'VIR_ERR_NO_DOMAIN',
      number: 42,
      domain: 'VIR_FROM_QEMU',
      procedure: 'domainLookupByName',
    },
    cause: noDomain,
  })
  client.next = new LibvirtConnectionError('deadline', 'ask: no answer', { sent: true })
  pass(12_400)
  t.match(await problem(connection.ask()), {
    code: 'libvirt.unreachable',
    message: 'libvirt has not answered for 12 s: ask: no answer; what was asked may have been done',
    details: { reason: 'deadline', sent: true, answeredMs: 1_000_000 },
    retry: true,
  })
  const defect = new RangeError('ours')
  client.next = defect
  await t.rejects(connection.ask(), defect)
})

t.test('a connection that was lost is waited for, and not opened again', async (t) => {
  const { libvirt, opened, pass } = host()
  await libvirt.connection('monitor')
  const client = opened[0]?.client as Client
  client.connected = false
  pass(3 * 60_000)
  t.match(await problem(libvirt.connection('monitor')), {
    code: 'libvirt.unreachable',
    message: /^libvirt has not answered for 3 min: no connection: nobody listens$/,
  })
  client.connected = true
  await libvirt.connection('monitor')
  t.equal(opened.length, 1)
})

t.test('what is no answer at all is given back', async (t) => {
  for (const reason of ['aborted', 'invalid'] as const) {
    const error = new LibvirtConnectionError(reason, 'no')
    t.equal(libvirtProblem(error, null, 0), error)
  }
  for (const [answeredMs, told] of [
    [null, 'does not answer'],
    [0, 'has not answered for 2 d'],
    [172_800_000 - 7_300_000, 'has not answered for 2 h'],
  ] as const)
    t.match(libvirtProblem(new LibvirtConnectionError('no-socket', 'gone'), answeredMs, 172_800_000), {
      message: `libvirt ${told}: gone`,
    })
})

t.test('when it last answered outlives the process', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-libvirt-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'run/answered')
  const first = host(answerMemory(path))
  await first.libvirt.connection('monitor')
  t.equal(readFileSync(path, 'utf8'), '1000000\n')
  first.pass(9000)
  await (await first.libvirt.connection('monitor')).ask()
  await first.libvirt.connection('monitor')
  t.equal(readFileSync(path, 'utf8'), '1000000\n', 'not at every answer')
  first.pass(1000)
  await (await first.libvirt.connection('monitor')).ask()
  await first.libvirt.connection('monitor')
  t.equal(readFileSync(path, 'utf8'), '1010000\n')

  const second = host(answerMemory(path))
  second.refuse(new LibvirtConnectionError('no-socket', 'gone'))
  second.pass(40_000)
  t.match(await problem(second.libvirt.connection('monitor')), {
    message: 'libvirt has not answered for 30 s: gone',
  })
  writeFileSync(path, 'yesterday\n')
  t.equal(await answerMemory(path).recall(), null)
  t.equal(await answerMemory(join(folder, 'none')).recall(), null)
  // A file where a folder should be: nothing can be kept, and nothing is lost by it.
  await host(answerMemory(join(path, 'below'))).libvirt.connection('monitor')
})
