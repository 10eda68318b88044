// The sampling of the agent as a process of its own, so that its CPU time can be told from that of who measures; obeys over IPC.

import { connectOpenReadOnly, domainListGetStats, VIR } from '../../agent/node-libvirt/index.ts'
import { hostClock } from '../../agent/report/clock.ts'
import { readNow } from '../../agent/report/proc-files.ts'
import { Sampler } from '../../agent/report/sample.ts'

/** What is asked of this process. `first ask` asks as an agent that has just begun; `run` samples at its usual times for so long, and is the last. */
export type Order =
  | { readonly what: 'six groups' | 'list' | 'look' | 'ask' | 'first ask' }
  | { readonly what: 'run'; readonly forMs: number }

/** How long it took, and how many VMs were told of. */
export interface Done {
  readonly tookMs: number
  readonly vms: number
}

const [socketPath = '', runFolder = '', netDevPath = ''] = process.argv.slice(2)
const connect = () => connectOpenReadOnly('qemu:///system', { socketPath })
const makeSampler = () => new Sampler({ connect, read: readNow, clock: hostClock, runFolder, netDevPath })

const connection = await connect()
const sampler = makeSampler()
const sixGroups =
  VIR.DOMAIN_STATS_STATE |
  VIR.DOMAIN_STATS_CPU_TOTAL |
  VIR.DOMAIN_STATS_BALLOON |
  VIR.DOMAIN_STATS_VCPU |
  VIR.DOMAIN_STATS_INTERFACE |
  VIR.DOMAIN_STATS_BLOCK

const listActive = () => connection.connectListAllDomains({ flags: VIR.CONNECT_LIST_DOMAINS_ACTIVE })

/** The VMs of which everything is known. */
const whole = (by: Sampler): number => {
  const { vms, silence } = by.sample()
  if (silence !== null) throw new Error(silence)
  return vms.filter(({ process: qemu, nics, disks }) => qemu && nics && disks).length
}

async function obey(order: Order): Promise<number> {
  switch (order.what) {
    case 'list':
      return (await listActive()).length
    case 'six groups': {
      const { records, failed } = await domainListGetStats(connection, await listActive(), {
        stats: sixGroups,
      })
      if (failed.length > 0) throw new Error('a part was not answered')
      return records.filter(({ params }) => params['balloon.rss'] !== undefined).length
    }
    case 'ask':
      await sampler.ask()
      return sampler.sample().vms.length
    case 'first ask': {
      const first = makeSampler()
      await first.ask()
      first.close()
      return first.sample().vms.filter(({ memory }) => memory).length
    }
    case 'look':
      sampler.look()
      return whole(sampler)
    case 'run':
      connection.close()
      await sampler.run(AbortSignal.timeout(order.forMs), () => {})
      return whole(sampler)
  }
}

process.on('message', async (order: Order) => {
  const beganMs = performance.now()
  const vms = await obey(order)
  const done: Done = { tookMs: performance.now() - beganMs, vms }
  process.send?.(done)
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
