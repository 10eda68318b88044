// One host of a fleet as a process of its own: membership and mesh as the daemon has them, told what to do by lines on standard input.

import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { carrySession } from '../../agent/api/session.ts'
import { Fleet, type FleetDesired, type FleetGround } from '../../agent/peers/fleet.ts'
import { HostError } from '../../provisioning/problem.ts'

/** What the process is started with, as JSON in its only argument. */
export interface FleetHostOptions extends Pick<FleetGround, 'folder' | 'pace'> {
  readonly desired: FleetDesired
  /** The socket of each door that there is. */
  readonly sockets?: Readonly<Record<string, string>>
  /** Which door a verb needs, by its path. */
  readonly doors?: Readonly<Record<string, 'local' | 'read' | 'operate' | 'admin'>>
}

/** One thing to do; answered by a line with the same `id`. */
export type FleetHostAsk =
  | { readonly do: 'publish'; readonly generation: number; readonly report: object }
  | { readonly do: 'tell'; readonly event: object; readonly times?: number }
  | { readonly do: 'hosts' | 'membership' | 'conditions' | 'ask' | 'memory' | 'leave' }
  | { readonly do: 'report'; readonly host: string }

const out = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)
const options: FleetHostOptions = JSON.parse(process.argv[2] ?? '{}')
const { sockets = {}, doors = {}, desired, ...rest } = options

const fleet = await Fleet.open({
  ...rest,
  settings: async () => desired,
  doorFor: (path) => {
    const door = doors[path] ?? 'read'
    return { door, socket: sockets[door] ?? '/nowhere' }
  },
  sessions: {
    open: async (path) => {
      if (path !== '/v1/shell') throw new HostError('request.unknown-verb', `${path} is no session`)
      return connect(sockets.admin ?? '/nowhere')
    },
    carry: carrySession,
  },
  metrics: async () => ({ type: 'text/plain', text: 'garrison_build_info 1\n' }),
  clock: { epochMs: Date.now, steadyMs: () => performance.now() },
  log: {
    info: (what, text) => out({ log: text, ...what }),
    error: (what, text) => out({ failed: text, ...what }),
  },
})
// A host that has not joined yet has nothing to listen to.
try {
  fleet.listen((event) => out({ happened: event, tickMs: Number(process.hrtime.bigint()) / 1e6 }))
} catch (error) {
  out({ log: (error as Error).message })
}
out({ ready: true })

async function answer(ask: FleetHostAsk): Promise<unknown> {
  switch (ask.do) {
    case 'publish':
      return fleet.publish(ask.generation, Date.now(), ask.report)
    case 'tell':
      for (let time = 0; time < (ask.times ?? 1); time += 1)
        fleet.tell({ ...ask.event, time, tickMs: Number(process.hrtime.bigint()) / 1e6 })
      return null
    case 'hosts':
      return fleet.hosts()
    case 'membership':
      return fleet.membership()
    case 'conditions':
      return fleet.conditions()
    case 'ask':
      return fleet.ask()
    case 'report':
      return fleet.reportOf(ask.host)
    case 'memory':
      return { rssBytes: process.memoryUsage.rss(), cpu: process.cpuUsage() }
    case 'leave':
      return fleet.close()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...ask } = JSON.parse(line) as { readonly id: number } & FleetHostAsk
  try {
    out({ id, value: (await answer(ask)) ?? null })
  } catch (error) {
    out({ id, error: (error as Error).message })
  }
}
await fleet.close()
