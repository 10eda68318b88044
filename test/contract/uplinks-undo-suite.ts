// Changes that cut the host off, on a whole host with one of the backends: whatever becomes of the agent, the host comes back in time.
//
// Fifty of them with GARRISON_LAB_FULL=1, else one that waits for its deadline and one power cut, drawn by the seed of the day.
// GARRISON_LAB_CASES is a pattern for their names, for one that is looked into.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { endOf } from '../lab/processes.ts'
import { sample, seed } from '../lab/sample.ts'
import { attempt } from './namespaces.ts'
import { makeWorld } from './uplinks-world.ts'

const folder = '/var/lib/garrison/network-undo'

/** A service of somebody else that needs the network and does not end. */
const hanging = `[Unit]
After=network.target systemd-networkd.service NetworkManager.service

[Service]
ExecStart=/usr/bin/sleep infinity
ExecStop=/usr/bin/sleep infinity
`

/** What becomes of the host once the change has cut it off. */
const fates = {
  'the agent goes on': { kills: false, stops: false, ends: null },
  'the agent is killed': { kills: true, stops: false, ends: null },
  'the backend goes down': { kills: false, stops: true, ends: null },
  'the backend goes down and the agent is killed': { kills: true, stops: true, ends: null },
  'the power is cut': { kills: false, stops: false, ends: 'cut' },
  'the host is rebooted': { kills: false, stops: false, ends: 'halt' },
} as const
type Fate = keyof typeof fates

interface Cut {
  /** What the document has instead. */
  readonly document: { readonly eni?: object; readonly lan?: object; readonly firewall?: object }
  /** Who is cut off. */
  readonly side: 'vpc' | 'lan'
  readonly fates: readonly Fate[]
}

/** Runs the suite with one backend. */
export async function undoSuite(backend: Backend): Promise<void> {
  const world = await makeWorld(backend)
  const { box, unit, vpc, lan, eni, kept, byMac, lanFixed } = world
  const { addresses, until, declare, garrison, settle, settled, goDown } = world
  const good = { eni, lan: lanFixed }

  const every = Object.keys(fates) as Fate[]
  const withBackend = every.filter((fate) => !fates[fate].stops)
  const guard = (allow: readonly object[]) => ({ firewall: { interfaces: ['eni', 'lan'], allow } })
  const onVlan = { id: 20, address: { cidr: '10.0.1.10/24', gateway: '10.0.1.1' } }
  const { address: lanAddress, ...lanRest } = lanFixed
  const cuts: Readonly<Record<string, Cut>> = {
    'another address of the ENI': {
      document: { eni: { ...kept, address: { cidr: '10.0.1.77/24', gateway: '10.0.1.99' } } },
      ...{ side: 'vpc', fates: every },
    },
    'an address of another network': {
      document: { eni: { ...kept, address: { cidr: '10.0.7.10/24', gateway: '10.0.7.1' } } },
      ...{ side: 'vpc', fates: every },
    },
    'no address of the ENI': {
      document: { eni: { ...kept, address: 'none' } },
      ...{ side: 'vpc', fates: every },
    },
    'a wrong router of the ENI': {
      document: { eni: { ...kept, address: { cidr: '10.0.1.10/24', gateway: '10.0.1.99' } } },
      ...{ side: 'vpc', fates: every },
    },
    'a VLAN that the VPC has not': {
      document: { eni: { ...kept, address: 'none', vlans: { tagged: onVlan } } },
      ...{ side: 'vpc', fates: every },
    },
    'a wrong router of the LAN': {
      document: { lan: { ...lanRest, address: { ...lanAddress, gateway: '192.0.2.99' } } },
      ...{ side: 'lan', fates: withBackend },
    },
    'another network on the LAN': {
      document: { lan: { ...lanRest, address: { cidr: '198.18.0.10/24', gateway: '198.18.0.1' } } },
      ...{ side: 'lan', fates: withBackend },
    },
    'a VLAN that the LAN has not': {
      document: {
        lan: {
          ...byMac,
          address: 'none',
          vlans: { tagged: { id: 21, address: lanAddress, defaultRoute: true } },
        },
      },
      ...{ side: 'lan', fates: withBackend },
    },
    'a firewall that lets nobody in': { document: guard([]), side: 'vpc', fates: withBackend },
    'a firewall that lets in somebody else': {
      document: guard([{ service: 'ssh', from: ['203.0.113.200'] }]),
      ...{ side: 'vpc', fates: withBackend },
    },
  }

  /** A new session from far, as an operator opens one. */
  const reached = {
    vpc: () => attempt(vpc, 'tcp', '10.0.1.10', 22, '10.0.9.9') === 'open',
    lan: () => attempt(lan, 'tcp', '192.0.2.10', 22, '198.51.100.9') === 'open',
  }
  const read = (name: string) => JSON.parse(box.read(`${folder}/${name}.json`) ?? 'null')

  async function begin(document: Cut['document']) {
    const { firewall, ...uplinks } = document
    declare({ ...good, ...uplinks }, firewall === undefined ? {} : { firewall })
    const apply = box.start(box.garrison('apply', '--allow', 'disruptive', '--json'))
    let isOver = false
    const ended = endOf(apply).finally(() => {
      isOver = true
    })
    return { ended, isOver: () => isOver }
  }

  t.test('a host that is as it should be', async (t) => {
    await settle(good)
    t.ok(reached.vpc())
    t.ok(reached.lan())
  })

  t.test('a change that cuts the host off is undone at once when somebody says so', async (t) => {
    const { ended } = await begin(cuts['another address of the ENI']?.document ?? {})
    await until('the change', () => addresses('eth0').includes('10.0.1.77'), 60_000)
    t.equal((await garrison('network', 'undo')).exit, 0)
    await until('a session over the ENI', reached.vpc)
    t.equal(await ended, 1, 'the apply tells that it failed')
    await settled(good)
    t.ok(reached.lan())
  })

  t.test('a host that goes down and hangs has the old configuration back before it is down', async (t) => {
    box.write('/etc/systemd/system/hangs.service', hanging)
    // Asked of the root side, which the host stops as it goes down.
    await box.run(['/usr/bin/systemd-sysusers'])
    await box.run(['/usr/bin/systemctl', 'start', 'hangs.service', 'garrison-admin.socket'])
    const { ended } = await begin(cuts['another address of the ENI']?.document ?? {})
    await until('the host is cut off', () => read('armed') !== null && !reached.vpc(), 60_000)
    const { armedAtMs, deadlineMs } = read('armed')
    await box.run(['/usr/bin/systemctl', 'is-active', 'garrison-operate.service'])
    const downMs = Date.now()
    await box.run(['/usr/bin/systemctl', 'poweroff', '--no-block'])
    await until('the host is reached', reached.vpc, armedAtMs + deadlineMs + 1000 - Date.now())
    t.comment(`reached ${Date.now() - downMs} ms after it began to go down`)
    const { stdout } = await box.run(['/usr/bin/systemctl', 'is-system-running'], { allowFailure: true })
    t.equal(stdout, 'stopping\n', 'it hangs')
    await until('the record', () => read('last')?.by === 'shutdown')
    t.equal(await ended, 1, 'the apply tells that it failed')
    const asked = ['/usr/bin/systemctl', 'show', '--value', '--property=Result', 'garrison-operate.service']
    t.equal((await box.run(asked)).stdout, 'success\n', 'the root side has ended by itself')
    box.remove('/etc/systemd/system/hangs.service')
    await goDown('cut')
    await box.boot()
    await until('both sides', () => reached.vpc() && reached.lan())
    t.equal(read('restoring'), null)
    t.match(read('last'), { outcome: 'undone', by: 'boot', problems: [] })
    await settled(good)
  })

  const all = Object.entries(cuts).flatMap(([name, { fates: those, ...cut }]) =>
    those.map((fate) => ({ ...cut, name: `${name}, and ${fate}`, fate: fates[fate] })),
  )
  const only = new RegExp(process.env.GARRISON_LAB_CASES ?? '')
  const named = all.filter(({ name }) => only.test(name))
  const of = (ends: 'cut' | 'halt' | null) => named.filter(({ fate }) => fate.ends === ends)
  // Orderly reboots only in a full run: one that hangs has been shown.
  const drawn = [...sample(of(null), 1), ...sample(of('cut'), 1), ...sample(of('halt'), 0)]
  t.equal(all.length, 50)
  t.comment(`seed ${seed}: ${drawn.length} of ${all.length} changes that cut the host off`)
  t.setTimeout((drawn.length + 4) * 120_000)

  for (const { name, document, side, fate } of drawn)
    t.test(name, async (t) => {
      // The router of the LAN answers ARP whatever rules the host has: where only it could testify, it must not.
      const isGuard = document.firewall !== undefined
      if (isGuard) lan.ip('link', 'set', 'lan0', 'arp', 'off')
      const before = read('last')?.id
      const { ended, isOver } = await begin(document)
      const { armedAtMs, deadlineMs } = await (async () => {
        for (;;) {
          const armed = read('armed')
          // A step that fails is undone before anybody has noticed.
          if (armed !== null || isOver()) return armed ?? { armedAtMs: Date.now(), deadlineMs: 0 }
          await sleep(20)
        }
      })()
      const endMs = armedAtMs + deadlineMs
      await until('the host is cut off', () => isOver() || !reached[side](), 60_000)
      t.comment(`cut off ${Date.now() - armedAtMs} ms after the change was armed`)
      // What has ended by itself is not killed, and has undone its change before the backend could go down with it.
      const goesOn = !isOver()
      if (fate.stops && goesOn) await box.run(['/usr/bin/systemctl', 'stop', ...sockets(backend), unit])
      if (fate.kills && goesOn)
        await box.run(['/usr/bin/pkill', '--signal', 'KILL', '--full', 'agent/main.ts apply'])
      if (fate.ends !== null) await goDown(fate.ends)
      const exit = (fate.kills && goesOn) || fate.ends !== null ? await ended : null
      if (isGuard && exit !== null) lan.ip('link', 'set', 'lan0', 'arp', 'on')
      if (fate.ends !== null) await box.boot()
      await until('the host is reached', reached[side], endMs - Date.now() + 30_000)
      const lateMs = Date.now() - endMs
      t.comment(`reached ${-lateMs} ms before the deadline of ${deadlineMs} ms`)
      t.ok(deadlineMs === 0 || lateMs < 1000, `${lateMs} ms late`)
      if (exit === null) t.equal(await ended, 1, 'the apply tells that it failed')
      if (isGuard) lan.ip('link', 'set', 'lan0', 'arp', 'on')
      await until('the record', async () => read('armed') === null && read('restoring') === null)
      t.match(read('last'), { outcome: 'undone', problems: [] })
      t.not(read('last').id, before, 'there was a change')
      t.match((await garrison('network', 'pending')).answer, { pending: null, undoing: null })
      await until('both sides', () => reached.vpc() && reached.lan())
      await settled(good)
    })
}

/** What would start the backend again by itself. */
const sockets = (backend: Backend): readonly string[] =>
  backend === 'networkd' ? ['systemd-networkd.socket'] : []
