// A step that undoes itself: what is put around its actions, when a change may stay, and which SSH session counts.
import t from 'tap'
import { converge } from '../../provisioning/engine.ts'
import { carriedAgain, lively, ofPeers, ofSsh, parseSessions } from '../../provisioning/link/ss.ts'
import type { Action, Resource, Step } from '../../provisioning/resource.ts'
import { confirmed, guarded, type Testimony } from '../../provisioning/undo.ts'
import { desired, journalOf, readerOf, type World } from './simulated-host.ts'

const step: Step = {
  id: 'uplinks.gateway',
  summary: 'set the gateway',
  risk: 'safe',
  because: [{ path: 'uplinks.lni.gateway', desired: '192.0.2.1', observed: null }],
  actions: [
    { kind: 'write', path: '/etc/net/lni', content: 'x', mode: 0o644 },
    { kind: 'move', from: '/etc/net/a', to: '/etc/net/b' },
    { kind: 'remove', path: '/etc/net/lni' },
    { kind: 'run', argv: ['/usr/bin/networkctl', 'reload'], deadlineMs: 1000, unit: true },
  ],
}
const reload = [{ argv: ['/usr/bin/networkctl', 'reload'], deadlineMs: 1000 }] as const
const neighbour = { kind: 'neighbour', device: 'lni', address: '192.0.2.1' } as const
const session = { kind: 'session' } as const

t.test('a guarded step is armed first, with every file that it touches, and confirmed last', async (t) => {
  const whole = guarded(step, { files: ['/etc/net/c'], reload, witnesses: [session, neighbour] })
  t.strictSame(whole.actions[0], {
    kind: 'undo',
    operation: 'arm',
    summary: 'set the gateway',
    files: ['/etc/net/lni', '/etc/net/a', '/etc/net/b', '/etc/net/c'],
    reload,
    deadlineMs: 60_000,
  })
  t.strictSame(whole.actions.slice(1, -2), step.actions)
  t.strictSame(whole.actions.slice(-2), [
    { kind: 'undo', operation: 'mark' },
    { kind: 'undo', operation: 'confirm', witnesses: [session, neighbour] },
  ])
  t.strictSame(whole.otherwise, [{ kind: 'undo', operation: 'restore' }])
  t.match(guarded(step, { reload, witnesses: [], deadlineMs: 5000 }).actions[0], { deadlineMs: 5000 })
})

t.test('a change stays when somebody was seen and nobody who could be is silent', async (t) => {
  const said = (...words: Testimony['said'][]) =>
    confirmed(words.map((one) => ({ witness: session, said: one })))
  t.equal(said('seen'), true)
  t.equal(said('seen', 'absent'), true)
  t.equal(said('seen', 'silent'), false)
  t.equal(said('silent'), false)
  t.equal(said('absent'), false)
  t.equal(said(), false)
})

const line = (local: string, peer: string, acked: number, quietMs: number, program = 'sshd'): string =>
  `ESTAB 0      0      ${local} ${peer} users:(("${program}",pid=12,fd=4),("sshd",pid=9,fd=4)) cubic wscale:7,7 rto:204 mss:1448 bytes_sent:${acked} bytes_acked:${acked} bytes_received:9 segs_out:1 lastsnd:5 lastrcv:${quietMs + 40} lastack:${quietMs} pacing_rate 4bps`

t.test('sessions are the connections with others', async (t) => {
  const text = [
    line('192.0.2.7:22', '198.51.100.9:51234', 4711, 16),
    line('[2001:db8::7]:22', '[2001:db8::9]:40000', 12, 90_000, 'sshd-session'),
    line('127.0.0.1:22', '127.0.0.1:40002', 5, 1),
    line('192.0.2.7:443', '198.51.100.9:51235', 5, 1, 'nginx'),
    line('192.0.2.7:7443', '192.0.2.8:50001', 6, 2, 'garrison'),
    line('192.0.2.7:50002', '192.0.2.9:7443', 7, 3).replace(/users:\S+ /, ''),
    line('192.0.2.7:50003', '203.0.113.1:443', 8, 4, 'garrison'),
    line('127.0.0.1:7443', '127.0.0.1:50005', 6, 2, 'garrison'),
    'ESTAB 0 0 192.0.2.7:22 198.51.100.9:1',
    'SYN-RECV 0 0 192.0.2.7:22 198.51.100.9:2 users:(("sshd",pid=1,fd=3))',
    '',
  ].join('\n')
  const found = parseSessions(text)
  const told = (ssh: boolean, local: string, peer: string, ackedBytes: number, quietMs: number) => ({
    ...{ ssh, local, peer, ackedBytes, quietMs },
  })
  t.strictSame(found, [
    told(true, '192.0.2.7:22', '198.51.100.9:51234', 4711, 16),
    told(true, '[2001:db8::7]:22', '[2001:db8::9]:40000', 12, 90_000),
    told(false, '192.0.2.7:443', '198.51.100.9:51235', 5, 1),
    told(false, '192.0.2.7:7443', '192.0.2.8:50001', 6, 2),
    told(false, '192.0.2.7:50002', '192.0.2.9:7443', 7, 3),
    told(false, '192.0.2.7:50003', '203.0.113.1:443', 8, 4),
    told(false, '192.0.2.7:22', '198.51.100.9:1', 0, 0),
  ])
  const peersOf = (sessions: typeof found) => sessions.map(({ peer }) => peer)
  t.strictSame(peersOf(ofSsh(lively(found))), ['198.51.100.9:51234'])
  t.strictSame(peersOf(ofPeers(found, [7443])), ['192.0.2.8:50001', '192.0.2.9:7443'])
  t.strictSame(peersOf(ofPeers(found, [443])), ['198.51.100.9:51235', '203.0.113.1:443'])
})

t.test('only data acknowledged after the change counts, or a new session from the same place', async (t) => {
  const one = (peer: string, ackedBytes: number, ssh = true) => ({
    ...{ ssh, local: '192.0.2.7:22', peer, ackedBytes, quietMs: 0 },
  })
  const used = [one('198.51.100.9:1', 100)]
  const mark = [one('198.51.100.9:1', 150)]
  t.equal(carriedAgain(used, mark, [one('198.51.100.9:1', 150)]), false)
  t.equal(carriedAgain(used, mark, [one('198.51.100.9:1', 151)]), true)
  t.equal(carriedAgain(used, mark, []), false)
  t.equal(carriedAgain(used, mark, [one('198.51.100.9:2', 0)]), false, 'nothing has reached it yet')
  t.equal(carriedAgain(used, mark, [one('198.51.100.9:2', 21)]), true)
  t.equal(carriedAgain(used, mark, [one('203.0.113.5:2', 2100)]), false, 'somebody else')
  t.equal(carriedAgain(used, mark, [one('198.51.100.9:2', 21, false)]), false, 'something else')
})

/** Applies one step of which the action `fails`; what was performed, and what was told. */
async function applied(fails: (action: Action) => boolean) {
  const world: World = { files: new Map(), journal: [] }
  const performed: string[] = []
  const events: string[] = []
  let message = ''
  const guardedStep = guarded(step, { reload, witnesses: [session] })
  const resource: Resource = {
    id: 'uplinks',
    needs: [],
    declared: () => true,
    observe: async () => performed.length,
    plan: (observed) => (observed === 0 ? [guardedStep] : []),
    check: () => [],
    describe: () => '',
  }
  const run = converge({
    resources: [resource],
    reader: readerOf(world),
    desired,
    clock: () => 0,
    performer: {
      async perform(action) {
        const name = action.kind === 'undo' ? action.operation : action.kind
        if (fails(action)) throw new Error(`${name} failed`)
        performed.push(name)
        return { kind: action.kind, summary: name, durationMs: 0 }
      },
      claim: (_, work) => work(),
    },
    journal: journalOf(world),
    request: { who: 'test', allow: 'safe' },
    apply: 'a',
    instance: 'i',
    desiredDigest: '',
    signal: new AbortController().signal,
  })
  for await (const event of run) {
    events.push(event.event)
    if (event.event === 'step-failed') message = event.problem.message
  }
  return { performed, events, message }
}

t.test(
  'what was begun is undone at once when an action fails, and nothing when none was performed',
  async (t) => {
    const well = await applied(() => false)
    t.strictSame(well.performed, ['arm', 'write', 'move', 'remove', 'run', 'mark', 'confirm'])
    t.strictSame(well.events.slice(1, -1), ['step-started', 'step-confirming', 'step-done'])
    const torn = await applied(({ kind }) => kind === 'run')
    t.strictSame(torn.performed, ['arm', 'write', 'move', 'remove', 'restore'])
    t.match(torn.message, /^Error: run failed$/)
    const unarmed = await applied((action) => action.kind === 'undo')
    t.strictSame(unarmed.performed, [])
    const worst = await applied(
      (action) => action.kind === 'run' || (action.kind === 'undo' && action.operation === 'restore'),
    )
    t.match(worst.message, /run failed; and it could not be undone: Error: restore failed/)
  },
)
