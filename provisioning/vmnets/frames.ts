// Which frames VMs may not put on the bridges of their networks, as a chain of nftables: those with addresses of somebody else.
//
// INVARIANTS
// - Each rule names an address or a MAC of a declared network: frames on other bridges of the host pass as if there was none.

import { formatCidr, formatIp, parseIp } from '../link/address.ts'
import type { Chain, Rule } from './nft.ts'
import type { ObservedVmnets } from './observe.ts'
import type { Part, Resolved } from './resolve.ts'

/** What only the host is in a network: its gateway and its DHCP server. */
function* ofHost(name: string, { family, subnet, gateway }: Part): Generator<Rule> {
  const rule = (what: string, match: string): Rule => ({ id: `${name}.${what}`, match, verdict: 'drop' })
  if (family === 'inet') {
    yield rule('gateway-ipv4', `ip saddr ${gateway}`)
    yield rule('gateway-arp', `arp saddr ip ${gateway}`)
    yield rule('dhcp-server', `ip saddr ${formatCidr(subnet)} udp sport 67`)
  } else yield rule('gateway-ipv6', `ip6 saddr ${gateway}`)
}

/** An address that is kept for a VM: nobody else has it, and the VM has no other. */
function* ofVm(name: string, vm: string, mac: string, text: string): Generator<Rule> {
  const ip = parseIp(text)
  if (ip === null) return
  const own = formatIp(ip)
  const rule = (what: string, match: string): Rule => ({
    id: `${name}.${vm}.${what}`,
    match,
    verdict: 'drop',
  })
  if (ip.family === 'inet') {
    yield rule('ipv4', `ether saddr ${mac} ip saddr != { 0.0.0.0, ${own} }`)
    yield rule('arp', `ether saddr ${mac} arp saddr ip != { 0.0.0.0, ${own} }`)
    yield rule('taken-ipv4', `ether saddr != ${mac} ip saddr ${own}`)
    yield rule('taken-arp', `ether saddr != ${mac} arp saddr ip ${own}`)
  } else {
    yield rule('ipv6', `ether saddr ${mac} ip6 saddr != { ::, fe80::/10, ${own} }`)
    yield rule('taken-ipv6', `ether saddr != ${mac} ip6 saddr ${own}`)
  }
}

/** The chains for the networks that ask for it; none when none does. What the host itself sends does not come by here. */
export function frameChains({ macs }: ObservedVmnets, all: readonly Resolved[]): readonly Chain[] {
  const kept = all.filter(({ net, bridge, parts }) => net.antiSpoofing && bridge !== null && parts.length > 0)
  if (kept.length === 0) return []
  const rules = kept.flatMap(({ name, net, parts }) => [
    ...parts.flatMap((part) => [...ofHost(name, part)]),
    ...Object.entries(net.reservations).flatMap(([vm, { ipv4 = '', ipv6 = '' }]) => {
      const mac = macs[name]?.[vm]
      if (mac === undefined) return []
      return [ipv4, ipv6].flatMap((text) => [...ofVm(name, vm, mac, text)])
    }),
  ])
  return [{ name: 'frames', hook: { type: 'filter', at: 'prerouting', priority: -300 }, rules }]
}
