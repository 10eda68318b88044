// What is read beside the networks themselves to follow the traffic of VMs: every interface with its counters, neighbours, leases.

import { z } from 'zod'
import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import { formatIp, parseIp } from '../link/address.ts'
import {
  ipAddresses,
  ipNeighbours,
  type Link,
  type Neighbour,
  parseLinks,
  parseNeighbours,
} from '../link/ip.ts'
import { ask, type ObservedVmnets, observe } from './observe.ts'

/** What the kernel has counted on an interface since it is there. */
export interface Counts {
  readonly receivedPackets: number
  readonly receivedBytes: number
  readonly sentPackets: number
  readonly sentBytes: number
  readonly dropped: number
}

/** An address that dnsmasq has given out. */
export interface Lease {
  readonly mac: string
  readonly address: string
}

/** Everything that the ways of VMs are told from. */
export interface ObservedPaths {
  readonly observed: ObservedVmnets
  readonly links: readonly Link[]
  readonly neighbours: readonly Neighbour[]
  readonly counts: Readonly<Record<string, Counts>>
  readonly leases: readonly Lease[]
}

/** Parses /proc/net/dev, by interface. */
export function parseCounts(text: string): Readonly<Record<string, Counts>> {
  const counted = text.split('\n').flatMap((line): (readonly [string, Counts])[] => {
    const [, name, numbers] = /^\s*([^\s:][^\s]*?):\s*((?:\d+\s*){16})$/.exec(line) ?? []
    if (name === undefined || numbers === undefined) return []
    const of = numbers.trim().split(/\s+/).map(Number)
    const at = (place: number): number => of[place] ?? 0
    return [
      [
        name,
        {
          ...{ receivedBytes: at(0), receivedPackets: at(1), sentBytes: at(8), sentPackets: at(9) },
          dropped: at(3) + at(11),
        },
      ],
    ]
  })
  return Object.fromEntries(counted)
}

const leaseFile = z.array(
  z.object({ 'ip-address': z.string(), 'mac-address': z.string().optional(), 'expiry-time': z.number() }),
)

/** What libvirt's helper of dnsmasq has written down of a bridge; nothing when it has written nothing that is known. */
export function parseLeases(text: string | null, nowMs: number): readonly Lease[] {
  if (text === null || text.trim() === '') return []
  try {
    const { success, data } = leaseFile.safeParse(JSON.parse(text))
    if (!success) return []
    return data.flatMap((row) => {
      const ip = parseIp(row['ip-address'])
      const mac = row['mac-address']?.toLowerCase()
      if (ip === null || mac === undefined || row['expiry-time'] * 1000 < nowMs) return []
      return { mac, address: formatIp(ip) }
    })
  } catch (error) {
    // It is being written, or is not its own any more.
    if (error instanceof SyntaxError) return []
    throw error
  }
}

/** Reads all of it, also where no network is declared. Throws as the observation of the networks does. */
export async function observePaths(reader: HostReader, desired: Desired): Promise<ObservedPaths> {
  const observed = await observe(reader, { ...desired, vmnets: desired.vmnets ?? { networks: {}, lans: {} } })
  const links = parseLinks(await ask(reader, ipAddresses()))
  const nowMs = await reader.now()
  const counts = parseCounts((await reader.readText('/proc/net/dev')) ?? '')
  const leases = await Promise.all(
    observed.networks.map(async ({ bridge }) =>
      bridge === null
        ? []
        : parseLeases(await reader.readText(`/var/lib/libvirt/dnsmasq/${bridge}.status`), nowMs),
    ),
  )
  const neighbours = parseNeighbours(await ask(reader, ipNeighbours()))
  return { observed, links, neighbours, counts, leases: leases.flat() }
}
