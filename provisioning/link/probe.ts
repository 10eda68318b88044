// What `garrison network probe` has measured on an interface: the record that it leaves behind, and what follows for VMs.

import { z } from 'zod'

/** Where the record of an interface lies. */
export const probePath = (device: string): string => `/var/lib/garrison/network-probe/${device}.json`

const answered = z.enum(['answers', 'silent', 'unknown'])
const passed = z.enum(['passes', 'dropped', 'unknown'])

const measured = z.object({
  /** Epoch milliseconds of its beginning. */
  atMs: z.number(),
  device: z.string(),
  /** The MAC that the interface had then: of another interface nothing is known. */
  mac: z.string(),
  /** The router of the network, by which most of the rest is measured; null when none is known. */
  gateway: z.string().nullable(),
  /** The gateway answers ARP to the interface as it is, without which nothing is proved by silence. */
  arp: answered,
  /** The gateway answers pings. */
  ping: answered,
  /** Frames with another MAC than that of the interface get an answer. */
  secondMac: passed,
  /** Another address with the MAC of the interface gets an answer. */
  secondAddress: passed,
  /** A DHCP server answers. `lease`: the interface has its address from one; `offer`: one made an offer to another MAC. */
  dhcp: answered,
  dhcpBy: z.enum(['lease', 'offer']).nullable(),
  /** What is wrong with what DHCP servers answer; older records have it not. */
  odd: z.array(z.string()).default([]),
  /** The largest packet in bytes that reaches the gateway whole, no more than the MTU of the interface; null: not known. */
  pathMtu: z.number().nullable(),
  mtu: z.number(),
  vlans: z.array(z.object({ id: z.number(), answers: answered })),
  dns: z.array(z.object({ server: z.string(), answers: answered })),
  /** Why something is not known. */
  notes: z.array(z.string()),
})

/** A record. */
export type ProbeRecord = z.output<typeof measured>

/** Parses a record; null when there is none, or one that is in no form that is known: then nothing is proved. */
export function parseProbe(text: string | null): ProbeRecord | null {
  if (text === null) return null
  try {
    const { success, data } = measured.safeParse(JSON.parse(text))
    return success ? data : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

/** What the measurements mean for the modes of VM networks on the interface. */
export function meaningOf({
  arp,
  secondMac,
  secondAddress,
  pathMtu,
  mtu,
  vlans,
  odd,
}: ProbeRecord): readonly string[] {
  const mode =
    secondMac === 'passes'
      ? 'VMs may have MACs of their own here: bridge works, and mode: auto takes it'
      : secondAddress === 'passes'
        ? 'routed works: a slice of the LAN for VMs, all of it with the MAC of this interface'
        : secondAddress === 'dropped'
          ? 'only nat works: nothing but the one address of this interface gets an answer'
          : 'routed and nat need one MAC alone; whether other addresses get an answer (routed) is not known: --address'
  return [
    ...(secondMac === 'dropped' ? ['bridge does not work: frames with a second MAC are dropped'] : []),
    ...(secondMac === 'unknown'
      ? [
          arp === 'answers'
            ? 'whether bridge works is not known, so it is not taken'
            : 'nothing answers here, so nothing is proved; bridge is not taken',
        ]
      : []),
    mode,
    ...(odd.length > 0
      ? ['address: dhcp is not to be relied on here: find that DHCP server, or give a static address']
      : []),
    ...(pathMtu !== null && pathMtu < mtu
      ? [`give it mtu: ${pathMtu}: larger packets are lost on the way`]
      : []),
    ...vlans
      .filter(({ answers }) => answers === 'silent')
      .map(({ id }) => `VLAN ${id}: nobody answers; see whether the port of the switch carries it`),
  ]
}
