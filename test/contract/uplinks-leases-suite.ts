// DHCP servers that nobody vouches for, and what their leases do to a whole host that is managed over another interface.
//
// Every one with GARRISON_LAB_FULL=1, else some, drawn by the seed of the day. GARRISON_LAB_CASES is a pattern for their names.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { RootResource, RootStatus } from '../../agent/report/root-view.ts'
import { profileUuid } from '../../provisioning/uplinks/networkmanager.ts'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { sample, seed } from '../lab/sample.ts'
import { attempt } from './namespaces.ts'
import { answer, bytesOf, type OddServer, seconds, startOddDhcp } from './odd-dhcp.ts'
import { makeWorld } from './uplinks-world.ts'

const mask = (text: string) => ({ 1: bytesOf(text) })
const router = (text: string) => ({ 3: bytesOf(text) })
const text = (words: string) => [...Buffer.from(words)]
const hostile = 'evil\n\u001b[2J\u001b]0;owned\u0007\0host'
const one = (...args: Parameters<typeof answer>): OddServer => ({ answers: [answer(...args)] })

const metadata = '169.254.169.254'
/** Of AWS, in the VPC, and an operator's. */
const endpoint = '10.0.9.9'

interface Case {
  readonly server: OddServer
  /** The finding that tells of it; none of a lease's when it is left out. */
  readonly finds?: string | null
  /** What NetworkManager makes of it otherwise; `dies`: 1.42 ends with SIGSEGV when it begins anew with such a lease. */
  readonly manager?: 'dies' | Partial<Case>
  /** Where an address leads that the lease itself takes, as one of this host or as its router: no route of ours hinders that. */
  readonly ways?: Readonly<Record<string, string>>
}

const cases: Readonly<Record<string, Case>> = {
  'a lease of 0 s': { server: one({ 51: seconds(0) }) },
  'a lease of 1 s': { server: one({ 51: seconds(1) }) },
  'a lease for ever': { server: one({ 51: seconds(2 ** 32 - 1) }) },
  'no server id': { server: one({ 54: null }), finds: 'uplinks.no-lease' },
  'no lease time': { server: one({ 51: null }), finds: 'uplinks.no-lease', manager: { finds: null } },
  'no address': { server: one({}, '0.0.0.0'), finds: 'uplinks.no-lease' },
  'the broadcast address': {
    server: one({}, '255.255.255.255'),
    finds: 'uplinks.odd-lease',
    manager: { finds: 'uplinks.no-lease' },
  },
  'a multicast address': {
    server: one({}, '224.0.0.5'),
    finds: 'uplinks.odd-lease',
    manager: { finds: 'uplinks.no-lease' },
  },
  'a loopback address': {
    server: one({}, '127.0.0.5'),
    finds: 'uplinks.odd-lease',
    manager: { finds: 'uplinks.no-lease' },
  },
  'the address of the metadata': {
    server: one({}, '169.254.169.254'),
    finds: 'uplinks.takes-metadata',
    ways: { [metadata]: 'lo' },
  },
  'the network of the metadata': {
    server: one(mask('255.255.0.0'), '169.254.7.7'),
    finds: 'uplinks.takes-metadata',
  },
  'the address of the ENI': { server: one(router('10.0.1.1'), '10.0.1.10'), finds: 'uplinks.overlap' },
  'the network of the ENI': { server: one(router('10.0.1.99'), '10.0.1.50'), finds: 'uplinks.overlap' },
  'half of the network of the ENI': {
    server: one({ ...mask('255.255.255.128'), ...router('10.0.1.99') }, '10.0.1.50'),
    finds: 'uplinks.overlap',
  },
  'the router of the VPC as its address': {
    server: one(router('10.0.1.99'), '10.0.1.1'),
    finds: 'uplinks.overlap',
  },
  'an endpoint as its address': {
    server: one({}, '10.0.9.9'),
    finds: 'uplinks.takes-management',
    ways: { [endpoint]: 'lo' },
  },
  'a network around that of the ENI': {
    server: one({ ...mask('255.0.0.0'), ...router('10.9.9.9') }, '10.7.7.7'),
    finds: 'uplinks.overlap',
  },
  'no network mask': { server: one({ 1: null }) },
  'a mask of 0': { server: one(mask('0.0.0.0')), manager: { finds: 'uplinks.overlap' } },
  'a mask of half the world': { server: one(mask('128.0.0.0'), '64.0.0.5'), finds: 'uplinks.overlap' },
  'a mask of one address': { server: one(mask('255.255.255.255')) },
  'a mask with holes': { server: one(mask('255.0.255.0')) },
  'a router outside the network': { server: one(router('198.18.0.1')) },
  'a router that is this host': { server: one(router('192.0.2.50')), finds: 'uplinks.odd-lease' },
  'the metadata as its router': { server: one(router('169.254.169.254')), finds: 'uplinks.takes-metadata' },
  'the ENI as its router': { server: one(router('10.0.1.10')), finds: 'uplinks.odd-lease' },
  'an endpoint as its router': {
    server: one(router('10.0.9.9')),
    finds: 'uplinks.takes-management',
    ways: { [endpoint]: 'eth1' },
  },
  'loopback as its router': { server: one(router('127.0.0.1')), finds: 'uplinks.odd-lease' },
  'the metadata and an endpoint as name servers': {
    server: one({ 6: [...bytesOf('169.254.169.254'), ...bytesOf('10.0.9.9')] }),
  },
  '200 name servers': {
    server: one({ 6: Array.from({ length: 200 }, (_, at) => bytesOf(`198.51.100.${at}`)).flat() }),
  },
  'routes to the metadata and the VPC': {
    server: one({
      121: [
        ...[32, ...bytesOf('169.254.169.254'), ...bytesOf('192.0.2.1')],
        ...[24, 10, 0, 9, ...bytesOf('192.0.2.1')],
      ],
    }),
    manager: { finds: 'uplinks.takes-metadata', ways: { [endpoint]: 'eth1' } },
  },
  'options longer than the packet': {
    server: one({}, undefined, [12, 250, 65, 66]),
    finds: 'uplinks.no-lease',
    manager: { finds: null },
  },
  'an option of no length where there must be one': {
    server: one({ 51: [] }),
    finds: 'uplinks.no-lease',
    manager: 'dies',
  },
  'names that drive a terminal': {
    server: one({ 12: text(hostile), 15: text(hostile), 67: text(hostile), 119: [4, ...text(hostile)] }),
  },
  'an MTU of 0': { server: one({ 26: [0, 0] }) },
  'an MTU of 68': { server: one({ 26: [0, 68] }), manager: { finds: 'uplinks.mtu-small' } },
  'an MTU of 65535': { server: one({ 26: [255, 255] }) },
  'a storm of refusals': { server: { answers: [answer()], refusals: 50 }, finds: 'uplinks.no-lease' },
  'two servers that disagree': {
    server: {
      answers: [answer(), answer({ 54: bytesOf('192.0.2.2'), ...router('192.0.2.2') }, '192.0.2.60')],
    },
  },
}

/** Runs the suite with one backend. */
export async function leasesSuite(backend: Backend): Promise<void> {
  const world = await makeWorld(backend, false)
  const { host, box, vpc, lan, eni, kept, byMac, wayTo, until, garrison, settle } = world
  vpc.ip('address', 'add', '10.0.9.8/32', 'dev', 'lo')
  const server = await startOddDhcp(lan, t.testdir({}), '192.0.2.1')
  const isManager = backend === 'networkmanager'
  const askAnew = isManager
    ? ['/usr/bin/nmcli', '--wait', '5', 'connection', 'up', 'uuid', profileUuid('lan')]
    : ['/usr/bin/networkctl', 'reconfigure', 'eth1']
  const only = new RegExp(process.env.GARRISON_LAB_CASES ?? '')
  const named = Object.keys(cases).filter(
    (name) => only.test(name) && !(isManager && cases[name]?.manager === 'dies'),
  )
  const drawn = sample(named, 6)
  const about = /^(the|half of the) network|^a (network around|mask of half)|names that/
  const drawnBeside = sample(
    named.filter((name) => about.test(name) && !name.startsWith('half')),
    2,
  )
  t.comment(`seed ${seed}: ${drawn.length} and ${drawnBeside.length} of ${Object.keys(cases).length} leases`)
  t.setTimeout((drawn.length + drawnBeside.length + 4) * 60_000)

  /** Has the host ask anew; resolves when it has done with the answer. */
  async function lease(name: string): Promise<Case> {
    const one = cases[name]
    if (one === undefined) throw new Error(`no such lease: ${name}`)
    server.serve(one.server)
    await box.run(askAnew, { allowFailure: isManager })
    await until('it is answered', () => server.asked() > 0)
    await sleep(700)
    return isManager && typeof one.manager === 'object' ? { ...one, ...one.manager } : one
  }

  async function look(): Promise<RootResource> {
    const { stderr, answer } = await garrison('status')
    const part = (answer as RootStatus | null)?.resources.find(({ resource }) => resource === 'uplinks')
    if (part === undefined) throw new Error(`no status: ${stderr}`)
    return part
  }

  const leaseCode = /^uplinks\.(odd|takes|overlap|mtu)/

  t.test('on the LAN that carries the default route', async (t) => {
    await settle({ eni: { ...eni, routes: ['10.0.0.0/16'] }, lan: { ...byMac, defaultRoute: true } })
    for (const name of drawn)
      t.test(name, async (t) => {
        const { finds, ways = {} } = await lease(name)
        const first = await look()
        // The backend may be in the middle of it.
        if (first.steps.length > 0) await sleep(3000)
        const { steps, findings } = first.steps.length > 0 ? await look() : first
        t.same(steps, [], 'a lease is no drift')
        const codes = findings.map(({ code }) => code)
        if (finds == null)
          t.notOk(
            codes.some((code) => leaseCode.test(code)),
            codes.join(),
          )
        else t.ok(codes.includes(finds), codes.join())
        for (const address of [metadata, endpoint, '10.0.1.200'])
          t.equal(wayTo(address), ways[address] ?? 'eth0', address)
        // Not from the address that the host takes for its own.
        const from = ways[endpoint] === 'lo' ? '10.0.9.8' : endpoint
        t.equal(attempt(vpc, 'tcp', '10.0.1.10', 22, from), 'open', 'a session over the ENI')
        if (!isManager) t.match(host.ip('link', 'show', 'dev', 'eth1'), /mtu 1500/)
      })
    t.test('what is shown of it drives no terminal', async (t) => {
      await lease('names that drive a terminal')
      for (const verb of [['status'], ['plan'], ['why', 'uplinks']]) {
        const { stdout, stderr } = await box.run(box.garrison(...verb), { allowFailure: true })
        t.notMatch(stdout + stderr, /[\0-\x09\x0b-\x1f\x7f]|evil/, verb.join(' '))
      }
      t.equal((await box.run(['/usr/bin/hostname'])).stdout, 'box\n')
    })
  })

  t.test('where others have configured the ENI, and what the host plans is applied', async (t) => {
    server.serve({ answers: [answer()] })
    await settle({ eni: kept, lan: byMac })
    for (const name of drawnBeside)
      t.test(name, async (t) => {
        const { finds } = await lease(name)
        const { findings } = await look()
        if (finds != null) t.ok(findings.map(({ code }) => code).includes(finds))
        const { exit, answer } = await garrison('apply', '--allow', 'disruptive')
        t.equal(exit, 0, JSON.stringify(answer))
        t.notMatch(host.ip('rule'), /from (10|128|0)\./, 'no rule for addresses that are not of the LAN')
        t.equal(attempt(vpc, 'tcp', '10.0.1.10', 22, '10.0.1.1'), 'open', 'a session over the ENI')
      })
  })
}
