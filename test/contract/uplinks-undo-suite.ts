// A change that cuts the host off, on a whole host with one of the backends: whatever becomes of the agent, the host comes back.
import t from 'tap'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { endOf } from '../lab/processes.ts'
import { makeWorld } from './uplinks-world.ts'

/** Runs the suite with one backend. */
export async function undoSuite(backend: Backend): Promise<void> {
  const {
    box,
    eni,
    kept,
    lanFixed,
    addresses,
    until,
    declare,
    garrison,
    settle,
    settled,
    answersFromFar,
    powerCut,
    bothUp,
  } = await makeWorld(backend)
  t.test('a host that is as it should be', () => settle({ eni, lan: lanFixed }))

  const folder = '/var/lib/garrison/network-undo'
  /** An address of the VPC that nobody routes to, and a router that is none: who manages the host is cut off. */
  const cutOff = {
    eni: { ...kept, address: { cidr: '10.0.1.77/24', gateway: '10.0.1.99' } },
    lan: lanFixed,
  }
  const beginCut = async () => {
    declare(cutOff)
    const apply = box.start(box.garrison('apply', '--allow', 'disruptive', '--json'))
    await until('the change', () => addresses('eth0').includes('10.0.1.77'), 60_000)
    return apply
  }
  const back = () => addresses('eth0').includes('10.0.1.10/24') && !addresses('eth0').includes('10.0.1.77')

  t.test('a change that cuts the host off is undone at once when somebody says so', async (t) => {
    const ended = endOf(await beginCut())
    t.equal((await garrison('network', 'undo')).exit, 0)
    await until('the old address', back)
    t.equal(await ended, 1, 'the apply tells that it failed')
    await settled({ eni, lan: lanFixed })
    answersFromFar()
  })

  t.test('a power cut in the middle of a change: the host starts with the old configuration', async (t) => {
    const ended = endOf(await beginCut())
    await powerCut()
    await ended
    await box.boot()
    await bothUp('eth0', 'eth1')
    t.notOk(addresses('eth0').includes('10.0.1.77'))
    t.match((await garrison('network', 'pending')).answer, {
      pending: null,
      undoing: null,
      last: { outcome: 'undone', by: 'boot' },
    })
    await settled({ eni, lan: lanFixed })
  })

  t.test(
    'the agent is killed right after a change: the old configuration is back at the deadline',
    async (t) => {
      const ended = endOf(await beginCut())
      const { armedAtMs, deadlineMs } = JSON.parse(box.read(`${folder}/armed.json`) ?? '{}')
      await box.run(['/usr/bin/pkill', '--signal', 'KILL', '--full', 'agent/main.ts apply'])
      await ended
      const endMs = armedAtMs + deadlineMs
      await until('the old address', back, endMs - Date.now() + 10_000)
      const lateMs = Date.now() - endMs
      t.comment(`back ${lateMs} ms after the deadline`)
      t.ok(lateMs < 1000, `${lateMs} ms`)
      await until('the record', () => box.read(`${folder}/last.json`)?.includes('"deadline"') ?? false)
      t.match((await garrison('network', 'pending')).answer, {
        pending: null,
        last: { outcome: 'undone', by: 'deadline', problems: [] },
      })
      await settled({ eni, lan: lanFixed })
      answersFromFar()
    },
  )
}
