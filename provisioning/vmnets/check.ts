// Judges the health of the declared networks, and says in one line what there is.

import { parseXml, XmlError } from '../libvirt/xml.ts'
import type { Finding } from '../resource.ts'
import { rulesPath } from './files.ts'
import { frameChains } from './frames.ts'
import { differingParts, readNetwork } from './network.ts'
import { isOfScript, sameTable } from './nft.ts'
import type { ObservedVmnets } from './observe.ts'
import { definedModel, type Resolved, resolveNetworks } from './resolve.ts'
import { chainsFor } from './rules.ts'
import { otherBridges, standingNetworks, usersOf } from './stand.ts'

type Found = (code: string, severity: Finding['severity'], text: string, remedy: string) => Finding

const listed = (words: readonly string[], most = 10): string =>
  words.length <= most
    ? words.join(', ')
    : `${words.slice(0, most).join(', ')} and ${words.length - most} more`

/** Whether a network runs otherwise than it is defined. */
function waits(observed: ObservedVmnets, name: string): boolean {
  const facts = observed.networks.find((one) => one.name === name)
  if (typeof facts?.liveXml !== 'string') return false
  try {
    const defined = definedModel(observed, name)
    return defined !== null && differingParts(readNetwork(parseXml(facts.liveXml).root), defined).length > 0
  } catch (error) {
    if (error instanceof XmlError) return false
    throw error
  }
}

function* networkFindings(observed: ObservedVmnets, one: Resolved): Generator<Finding> {
  const { name, mode, wire, device, uplink, parts } = one
  const found: Found = (code, severity, text, remedy) => ({ code, severity, subject: name, text, remedy })
  const facts = observed.networks.find((network) => network.name === name)
  const users = usersOf(observed, name)
  if (facts !== undefined && !facts.active)
    yield found(
      'vmnets.inactive',
      'high',
      `network ${name} is not active: no VM on it can be started`,
      'See garrison plan for what would start it, or for why it is not started.',
    )
  if (waits(observed, name) && users.length > 0)
    yield found(
      'vmnets.restart-pending',
      'notice',
      `network ${name} runs without what its definition says, as long as these VMs run on it: ${listed(users)}`,
      'Nothing is taken from under a VM that runs. Stop them, apply, and start them again.',
    )
  for (const { family, router } of parts)
    if (
      router === null &&
      device !== null &&
      // Without it there are no routes over it, for that reason.
      uplink?.carrier &&
      !observed.routes.some(
        (route) =>
          route.family === family &&
          route.device === device &&
          (route.to === '0.0.0.0/0' || route.to === '::/0'),
      )
    )
      yield found(
        'vmnets.no-router',
        'warning',
        `VMs of ${name} reach the LAN of ${device} and no further (${family === 'inet' ? 'IPv4' : 'IPv6'}): no router is known there`,
        `Give its router in vmnets.lans.${wire}, or let ${device} learn one by DHCP.`,
      )
  if (mode === 'passthrough' && uplink !== null) {
    const nics = observed.attachments.filter(
      (nic) => nic.kind === 'network' && nic.to === name && !nic.isLive,
    )
    for (const { vm, mac } of nics)
      if (mac !== uplink.mac)
        yield found(
          'vmnets.mac-differs',
          'high',
          `${vm} would give ${device} the MAC ${mac}; the wire expects ${uplink.mac}`,
          `Give the NIC of ${vm} that MAC: mac in vms.machines.${vm}.nics.`,
        )
    if (nics.length > 1)
      yield found(
        'vmnets.taken-twice',
        'warning',
        `${listed(nics.map(({ vm }) => vm))} want ${device}, which one VM alone can have`,
        'Attach the others to another network.',
      )
  }
}

/**
 * An interface that networks lead to and that is cut off, told once for all of them. Of one that is declared as an uplink, that
 * resource tells it.
 */
function* wireFindings({ uplinks }: ObservedVmnets, all: readonly Resolved[]): Generator<Finding> {
  const cut = all.filter(
    ({ wire, device, uplink }) =>
      wire !== null && device !== null && !uplinks.includes(wire) && !uplink?.carrier,
  )
  // A VLAN that is up has a carrier when its interface has.
  const cutOff = ({ device, uplink }: Resolved): string => (uplink?.up ? uplink.parent : null) ?? device ?? ''
  for (const [subject, those] of Map.groupBy(cut, cutOff)) {
    const leadThere = `, where these networks lead: ${listed(those.map(({ name }) => name))}`
    yield those[0]?.uplink == null
      ? {
          code: 'vmnets.uplink-missing',
          severity: 'high',
          subject,
          text: `${subject} is not there${leadThere}`,
          remedy: 'See ip -details link. VMs keep running, and reach each other and this host.',
        }
      : {
          code: 'nic.no-carrier',
          severity: 'high',
          subject,
          text: `${subject} has no carrier${leadThere}`,
          remedy: 'Look at its cable and at the port of the switch. VMs keep running.',
        }
  }
}

/** Active networks that were declared once, or are somebody's own, for which no rules are. */
const unguarded = ({ asked, networks }: ObservedVmnets): readonly string[] =>
  networks.flatMap(({ name, active, liveXml }) =>
    active && asked?.networks[name] === undefined && /<forward mode=['"]open['"]/.test(liveXml ?? '')
      ? name
      : [],
  )

/** Rules that are not those declared: of before, while the document or a VM has changed since, or somebody else's doing. */
function rulesFinding({ table, frames, files }: ObservedVmnets): Finding {
  const script = files[rulesPath] ?? ''
  if (table !== null && isOfScript(table, script, 'inet') && isOfScript(frames, script, 'bridge'))
    return {
      code: 'vmnets.rules-wait',
      severity: 'notice',
      text: 'the rules for the VMs’ traffic are those that Garrison wrote before the document, a VM or an uplink was another',
      remedy: 'garrison apply loads the new ones; garrison plan says what they are.',
    }
  return {
    code: 'vmnets.rules-changed',
    severity: 'high',
    text:
      table === null
        ? 'the rules for the VMs’ traffic are not loaded: VMs may send from any address to anywhere'
        : 'the rules for the VMs’ traffic are neither those that are declared nor those that Garrison wrote',
    remedy: 'garrison apply loads them; nft list table inet garrison_vms shows what is there.',
  }
}

/** Judges the networks. Pure. */
export function check(observed: ObservedVmnets): readonly Finding[] {
  const { asked, attachments, table } = observed
  if (asked === null) return []
  const all = resolveNetworks(observed, asked)
  const isLost = all.some(({ objections }) => objections.some(({ code }) => code === 'vmnet.uplink-missing'))
  const isActive = all.some(({ name }) => observed.networks.some((one) => one.name === name && one.active))
  const others = new Map<string, string>()
  for (const { vm, kind, to, isLive } of attachments)
    if (!isLive && !(kind === 'network' && asked.networks[to] !== undefined))
      others.set(`${vm} on ${kind} ${to}`, vm)
  const standing = standingNetworks(observed, all)
  const isAsDeclared =
    sameTable(table, chainsFor(standing, otherBridges(observed))) &&
    sameTable(observed.frames, frameChains(observed, standing))
  return [
    ...wireFindings(observed, all),
    ...all.flatMap((one) => [...networkFindings(observed, one)]),
    ...(isActive && !isLost && !isAsDeclared ? [rulesFinding(observed)] : []),
    ...unguarded(observed).map(
      (name) =>
        ({
          code: 'vmnets.unguarded',
          severity: 'warning',
          subject: name,
          text: `network ${name} is not declared, and libvirt has no rules for it (mode open): its VMs may send anything anywhere`,
          remedy: `Declare it under vmnets.networks, or end it: virsh net-destroy ${name}; virsh net-undefine ${name}.`,
        }) as const,
    ),
    ...(others.size === 0
      ? []
      : [
          {
            code: 'vmnets.elsewhere',
            severity: 'notice',
            text: `not on a declared network: ${listed([...others.keys()])}`,
            remedy:
              'Nothing is changed of them. Declare that network under vmnets.networks, or attach them to one that is.',
          } as const,
        ]),
  ]
}

const widest = 60

/** What there is, in at most 60 columns. */
export function describe(observed: ObservedVmnets): string {
  const { asked } = observed
  if (asked === null) return 'not declared'
  const all = resolveNetworks(observed, asked)
  const first = all.find(({ name }) => name === 'default') ?? all[0]
  if (first === undefined) return 'none declared'
  const facts = (one: Resolved) => observed.networks.find(({ name }) => name === one.name)
  const down = all.filter((one) => !facts(one)?.active).length
  const line = [
    `${first.name} = ${first.mode}${first.device === null ? '' : ` on ${first.device}`}`,
    ...(all.length > 1 ? [`${all.length - 1} more`] : []),
    ...(down > 0 ? [`${down} not active`] : []),
  ].join(', ')
  return line.length <= widest ? line : `${line.slice(0, widest - 1)}…`
}
