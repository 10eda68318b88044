// The part of the desired document about who may reach this host over the interfaces that nothing else guards.

import { z } from 'zod'
import { networkOf, parseCidr, parseIp } from '../link/address.ts'

/** Services that an opening may name, with their TCP port. */
export const services = { ssh: 22, cockpit: 9090, peers: 7443 } as const

const interfaceName = z
  .string()
  .regex(
    /^(?!lo$)[A-Za-z0-9][A-Za-z0-9_.-]{0,13}$/,
    'must be the name of an interface, at most 14 letters, digits, dots, - or _, and not lo',
  )

const source = z.string().refine((text) => {
  if (parseIp(text) !== null) return true
  const cidr = parseCidr(text)
  return cidr !== null && networkOf(cidr).value === cidr.value
}, 'must be an address such as 192.0.2.7, or a network such as 192.0.2.0/24 without bits of a host')

const from = z
  .array(source)
  .max(256)
  .default([])
  .describe('Who may: addresses and networks. Default: everybody on the network.')

const port = z.int().min(1).max(65_535)

const opening = z.union([
  z.strictObject({
    service: z
      .enum(Object.keys(services) as [keyof typeof services, ...(keyof typeof services)[]])
      .describe('ssh (TCP 22), cockpit (TCP 9090) or peers (TCP 7443).'),
    from,
  }),
  z
    .strictObject({
      protocol: z.enum(['tcp', 'udp']).default('tcp').describe('The protocol.'),
      port: port.describe('The port of this host, or the first of several.'),
      to: port.optional().describe('The last port, where there are several.'),
      from,
    })
    .refine(({ port, to }) => to === undefined || to > port, {
      message: 'must be larger than port',
      path: ['to'],
    }),
])

/** What may reach the host itself. */
export const firewallSchema = z
  .strictObject({
    interfaces: z
      .array(interfaceName)
      .min(1)
      .max(16)
      .optional()
      .describe(
        'What is guarded, with every VLAN on it: uplinks by their names, or interfaces. Default: every uplink but the managing one; without uplinks the interface lni.',
      ),
    allow: z
      .array(opening)
      .max(64)
      .default([])
      .describe('What may reach the host over them. Whatever is not here is dropped.'),
  })
  .describe(
    'Who may reach the host itself over a network that no security group guards, such as an LNI. Traffic of VMs is not judged here.',
  )

/** The firewall that is wanted, after defaults. */
export type DesiredFirewall = z.output<typeof firewallSchema>

/** One thing that may reach the host. */
export type Opening = DesiredFirewall['allow'][number]
