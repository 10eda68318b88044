// The firewall of the host: what the document becomes, how the kernel's rules are held against it, and who would be locked out.
import t from 'tap'
import { nothingDesired } from '../../provisioning/desired.ts'
import { parseDocument } from '../../provisioning/document.ts'
import { firewall } from '../../provisioning/firewall/index.ts'
import { parseTable } from '../../provisioning/firewall/nft.ts'
import { rulesFile } from '../../provisioning/firewall/observe.ts'
import { differences, namedGuard, rulesetOf, transactionOf } from '../../provisioning/firewall/ruleset.ts'
import { type FirewallHost, firewallReader, printedBy, sshLine } from './firewall-host.ts'
import { readsNoCloud } from './no-cloud.ts'

const documentOf = (body: unknown) =>
  parseDocument([{ path: 'host.yaml', text: JSON.stringify({ version: 1, firewall: body }) }])

const desired = documentOf({
  allow: [
    { service: 'ssh', from: ['192.0.2.0/24', '2001:db8::/32'] },
    { protocol: 'udp', port: 5000, to: 5010 },
  ],
})
const wanted = rulesetOf(desired.firewall as NonNullable<typeof desired.firewall>, [namedGuard('lni')])
const loaded: FirewallHost = { table: printedBy(transactionOf(wanted)), file: transactionOf(wanted) }

const look = async (host: FirewallHost, document = desired) => {
  const observed = await firewall.observe(firewallReader(host), document)
  return {
    observed,
    steps: firewall.plan(observed, document),
    findings: firewall.check(observed).map(({ code, severity }) => `${severity} ${code}`),
    summary: firewall.describe(observed, document),
  }
}

t.test('a bare host gets its rules, guarded, from one transaction', async (t) => {
  const { steps, findings, summary } = await look({ unitFile: 'disabled' })
  t.strictSame(
    steps.map(({ id, risk, blocked }) => [id, risk, blocked]),
    [
      ['firewall.rules', 'safe', undefined],
      ['firewall.boot', 'safe', undefined],
    ],
  )
  const [arm, write, load, , confirm] = steps[0]?.actions ?? []
  t.match(arm, {
    operation: 'arm',
    files: [rulesFile],
    reload: [{ content: transactionOf(null) }],
  })
  t.match(write, { path: rulesFile, content: transactionOf(wanted) })
  t.match(load, { argv: ['/usr/sbin/nft', '--json', '--file', rulesFile], unit: true })
  t.match(confirm, { witnesses: [{ kind: 'neighbour', device: 'eni', address: '203.0.113.1' }] })
  t.strictSame(findings, ['high firewall.differs'])
  t.equal(summary, 'nothing guards lni')
})

t.test('loaded and enabled it is settled', async (t) => {
  const { steps, findings, summary } = await look(loaded)
  t.strictSame(steps, [])
  t.strictSame(findings, [])
  t.equal(summary, 'lni: 2 openings')
})

t.test('drift is named rule by rule, and undone to what was there before', async (t) => {
  const without = { ...wanted, rules: wanted.rules.filter(({ comment }) => comment !== 'all else') }
  const host = { ...loaded, table: printedBy(transactionOf(without)) }
  const { observed, steps, findings } = await look(host)
  t.strictSame(observed.differences, ['missing: all else'])
  t.strictSame(findings, ['high firewall.differs'])
  t.match(steps[0]?.actions[0], { reload: [{ content: transactionOf(without) }] })
  const turned = { ...wanted, rules: wanted.rules.toReversed() }
  t.strictSame(differences(turned, wanted), ['its rules are in another order'])
  const foreign = parseTable(
    JSON.stringify({
      nftables: [
        { table: { name: 'garrison' } },
        { set: { name: 'x' } },
        { rule: { chain: 'guarded', expr: [{ accept: null }], handle: 9 } },
      ],
    }),
  )
  t.match(differences(foreign, wanted).join('; '), /its chains are others.*not wanted: \{.*not wanted: set/)
})

t.test('the rules of the next boot count too', async (t) => {
  t.match(await look({ ...loaded, file: 'other' }), {
    steps: [{ id: 'firewall.rules' }],
    findings: ['warning firewall.not-at-boot'],
  })
  t.match(await look({ ...loaded, unitFile: 'masked' }), {
    steps: [
      {
        id: 'firewall.boot',
        actions: [{ argv: [/systemctl/, 'unmask'] }, { argv: [/systemctl/, 'enable'] }],
      },
    ],
  })
  t.match(await look({ ...loaded, firewalld: true }), { findings: ['notice firewall.firewalld-too'] })
  const gone = documentOf({ interfaces: ['lan7'], allow: [{ service: 'ssh' }] })
  t.match((await look({}, gone)).findings, ['high firewall.differs', 'notice firewall.interface-absent'])
})

t.test('nobody who is in over a guarded interface is locked out', async (t) => {
  const blockedBy = async (local: string, peer: string) =>
    (await look({ sessions: sshLine(local, peer) })).steps[0]?.blocked?.message
  t.equal(await blockedBy('192.0.2.10:22', '192.0.2.77:5000'), undefined)
  t.match(await blockedBy('192.0.2.10:22', '198.51.100.7:5000'), /198\.51\.100\.7 over lni/)
  t.match(await blockedBy('192.0.2.10:2222', '192.0.2.77:5000'), /192\.0\.2\.77/, 'another port')
  t.match(await blockedBy('198.51.100.10:22', '198.51.100.7:5000'), /over lni\.100/)
  t.match(await blockedBy('[::ffff:192.0.2.10]:22', '[::ffff:203.0.113.9]:5000'), /203\.0\.113\.9/)
  t.equal(await blockedBy('203.0.113.10:22', '198.51.100.7:5000'), undefined, 'over the ENI')
  const { steps } = await look({ sessions: sshLine('203.0.113.10:22', '198.51.100.7:5000') })
  t.match(steps[0]?.actions.at(-1), { witnesses: [{ kind: 'session' }] })
})

t.test('rules that an earlier document left are told', async (t) => {
  const { steps, findings, summary } = await look({ file: 'x' }, nothingDesired)
  t.strictSame(steps, [])
  t.strictSame(findings, ['notice firewall.left-behind'])
  t.equal(summary, 'not declared')
  t.strictSame((await look({}, nothingDesired)).findings, [])
})

t.test('what would not mean what it says is refused', async (t) => {
  for (const [body, message] of [
    [{ interfaces: [] }, /at least|small/i],
    [{ interfaces: ['lo'] }, /interface/],
    [{ interfaces: ['lni"; drop'] }, /interface/],
    [{ interfaces: ['lni*'] }, /interface/],
    [{ allow: [{ service: 'ssh', from: ['192.0.2.7/24'] }] }, /without bits of a host/],
    [{ allow: [{ service: 'ssh', from: ['::/129'] }] }, /address such as/],
    [{ allow: [{ service: 'telnet' }] }, /./],
    [{ allow: [{ port: 0 }] }, /./],
    [{ allow: [{ port: 70, to: 60 }] }, /larger than port/],
  ] as const) {
    let problems = ''
    try {
      documentOf(body)
    } catch (error) {
      problems = JSON.stringify((error as { details: unknown }).details)
    }
    t.match(problems, message, JSON.stringify(body))
  }
})

t.test('an answer that is none is no firewall and no settled host', async (t) => {
  for (const table of ['', '{}', '[]', '{"nftables":[{"rule":{"chain":7}}]}', '{"nftables":[{"chain":{}}]}'])
    await t.rejects(look({ table }), { code: 'host.unexpected-answer' }, table)
})

t.test(
  'an uplink is guarded by its MAC and whatever it is called, and the managing one is not',
  async (t) => {
    const document = parseDocument([
      {
        path: 'host.yaml',
        text: JSON.stringify({
          version: 1,
          uplinks: {
            eni: { match: { mac: '02:00:00:00:00:01' }, management: true },
            lan: { match: { mac: '02:00:00:00:00:02' } },
            far: { match: { mac: '02:00:00:00:00:77' } },
          },
          firewall: {},
        }),
      },
    ])
    const { wanted, interfaces } = await firewall.observe(firewallReader({}), document)
    t.strictSame(
      wanted?.rules.flatMap(({ chain, comment }) => (chain === 'input' ? [comment] : [])),
      [
        ...['guard lan', 'guard lan.*', 'guard lni', 'guard lni.*', 'guard far', 'guard far.*'],
        ...['guard 02:00:00:00:00:02', 'guard 02:00:00:00:00:77'],
      ],
    )
    t.strictSame(interfaces, [
      { name: 'lan', isThere: true },
      { name: 'far', isThere: false },
    ])
  },
)

t.test('a local network interface is guarded by its MAC as soon as anybody knows it', async (t) => {
  const document = parseDocument([
    { path: 'host.yaml', text: JSON.stringify({ version: 1, uplinks: { lan: { lni: {} } }, firewall: {} }) },
  ])
  const guards = async (file: string | null) => {
    const reader = firewallReader({})
    const readText = async (path: string) =>
      path === '/etc/systemd/network/05-garrison-lan.network' ? file : null
    const { wanted } = await firewall.observe({ ...reader, ...readsNoCloud, readText }, document)
    return wanted?.rules.flatMap(({ chain, comment }) => (chain === 'input' ? [comment] : []))
  }
  t.strictSame(await guards(null), ['guard lan', 'guard lan.*'], 'the metadata do not tell it yet')
  t.strictSame(
    await guards('[Match]\nMACAddress=02:00:00:00:00:02\n'),
    [...['guard lan', 'guard lan.*', 'guard lni', 'guard lni.*'], 'guard 02:00:00:00:00:02'],
    'EC2 has told it, and its uplink is configured',
  )
})
