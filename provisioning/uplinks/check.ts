// Judges the interfaces to the networks outside, and says in one line what there is.

import { contains, formatCidr, formatIp, leastMtu, notOfHosts, overlaps, parseCidr } from '../link/address.ts'
import type { Finding } from '../resource.ts'
import { checkLni } from './lni.ts'
import type { ObservedInterface, ObservedLink, ObservedUplinks } from './observe.ts'
import { doubtOf, linkLocalServices, toldOn } from './want.ts'

type Found = (
  code: string,
  severity: Finding['severity'],
  subject: string,
  text: string,
  remedy: string,
) => void

const isIpv4 = (address: string): boolean => !address.includes(':')

/** Whether it is a VLAN of an interface that has no carrier itself. */
const isCutBelow = (link: ObservedLink, interfaces: readonly ObservedInterface[]): boolean =>
  interfaces.some((one) => one.link?.carrier === false && one.link.name === link.vlan?.parent)

function checkInterface(one: ObservedInterface, { interfaces }: ObservedUplinks, found: Found): void {
  const { key, mac, found: names, link, dhcp } = one
  if (names.length > 1) {
    found(
      'uplinks.ambiguous',
      'high',
      key,
      `${names.join(' and ')} have the same MAC ${mac}, so neither is ${key} for certain`,
      'Give one of them back its own MAC, or correct the document; garrison plan says what waits for it.',
    )
    return
  }
  if (link === null) {
    if (mac !== null)
      found(
        'uplinks.absent',
        'high',
        key,
        `${key} is not there: no interface has the MAC ${mac}`,
        'See ip -details link and garrison why uplinks; VMs keep running, and have their network again when it is back.',
      )
    return
  }
  if (mac !== null && link.mac !== mac && link.master === null)
    found(
      'uplinks.mac-changed',
      'high',
      key,
      `${key} (${link.name}) sends under the MAC ${link.mac}, and its own is ${mac}`,
      `See who has set it (ip -details link show ${link.name}; a profile, a .link file). The network of EC2 drops what has another: ip link set dev ${link.name} address ${mac}.`,
    )
  // One that is down is a step of the plan.
  if (link.up && !link.carrier && !isCutBelow(link, interfaces))
    // As the daemon says it of every NIC, so that one cable is one finding.
    found(
      'nic.no-carrier',
      'high',
      link.name,
      `${key} (${link.name}) has no carrier`,
      'See the cable, the port of the switch, and for a local network interface the Outposts server. VMs keep running, and have their network again when it is back.',
    )
  if (link.carrier && dhcp && !link.addresses.some(isIpv4))
    found(
      'uplinks.no-lease',
      'high',
      key,
      `${key} (${link.name}) has no address: no DHCP server has given it one that it takes`,
      'See whether the network has one and knows this MAC, and the log of systemd-networkd or NetworkManager; or give a static address in the document.',
    )
  if (link.mtu < leastMtu)
    found(
      'uplinks.mtu-small',
      'high',
      key,
      `${key} (${link.name}) has an MTU of ${link.mtu} bytes, and IPv4 needs ${leastMtu}`,
      'Its DHCP server may have said so: give mtu in the document.',
    )
  if (link.duplicates.length > 0)
    found(
      'uplinks.duplicate-address',
      'high',
      key,
      `another host has the address ${link.duplicates.join(', ')} of ${key}`,
      'Find the other host by its MAC (ip neighbour), or give this one another address in the document.',
    )
}

const linkLocal = Object.values(linkLocalServices)
  .flat()
  .flatMap((text) => parseCidr(text) ?? [])

/** What of AWS's link-local services a network has in it that is not that of a default route. */
const covered = (text: string): string | null => {
  const cidr = parseCidr(text)
  if (cidr === null || cidr.prefix === 0) return null
  // The metadata are the last of them, and those that matter most.
  const place = linkLocal.findLast((one) => contains(cidr, one))
  return place === undefined ? null : formatIp(place)
}

const overlap = (one: string, other: string): boolean => {
  const [first, second] = [parseCidr(one), parseCidr(other)]
  return first !== null && second !== null && overlaps(first, second)
}

const leaseRemedy = 'See who gave it (its DHCP server, ip route); give a static address in the document.'

/** A lease may have no sense, and may lead here what the host reaches over the interface that it is managed over. */
function checkLease(observed: ObservedUplinks, { key, link }: ObservedInterface, found: Found): void {
  const addresses = link?.addresses ?? []
  const odd = addresses.find(
    (text) => covered(text) === null && notOfHosts.some((net) => overlap(text, formatCidr(net))),
  )
  const doubts = (['inet', 'inet6'] as const).flatMap((family) =>
    toldOn(observed, key, family).flatMap((told) => doubtOf(observed, key, told) ?? []),
  )
  const why =
    odd === undefined ? doubts.find(({ isAnothers }) => !isAnothers)?.why : `${odd} is in no network of hosts`
  if (why !== undefined)
    found('uplinks.odd-lease', 'high', key, `the lease of ${key} makes no sense: ${why}`, leaseRemedy)
  const managing = observed.interfaces.find(({ management }) => management)
  if (managing === undefined || managing.key === key) return
  const theirs = (managing.link?.routes ?? [])
    .map(({ to }) => to)
    .filter((to) => !to.endsWith('/0') && covered(to) === null)
  const leads = [
    ...(link?.told ?? []).flatMap((to) =>
      [...(managing.link?.addresses ?? []), ...theirs].some((net) => overlap(net, to)) ? to : [],
    ),
    ...addresses.filter((address) => theirs.some((net) => overlap(net, address))),
  ]
  if (leads[0] !== undefined)
    found(
      'uplinks.takes-management',
      'high',
      key,
      `${leads[0]} on ${key} leads away what the host reaches over ${managing.key}`,
      leaseRemedy,
    )
}

/** A lease or an advertisement may put an interface into a network that is another's. */
function checkNetworks(observed: ObservedUplinks, found: Found): void {
  const seen: { readonly key: string; readonly address: string }[] = []
  for (const one of observed.interfaces) {
    const { key, link, management, dhcp } = one
    const addresses = link?.addresses ?? []
    const nets = [...addresses, ...(link?.routes ?? []).map(({ to }) => to)]
    const taken = management ? undefined : nets.find((text) => covered(text) !== null)
    const [both] = addresses.flatMap((address) =>
      seen
        .filter((earlier) => earlier.key !== key && overlap(earlier.address, address))
        .map((earlier) => ({ address, earlier })),
    )
    if (taken !== undefined)
      found(
        'uplinks.takes-metadata',
        'high',
        key,
        `${taken} on ${key} covers ${covered(taken)}, where AWS serves the instance (metadata, names, time)`,
        leaseRemedy,
      )
    if (both !== undefined)
      found(
        'uplinks.overlap',
        'high',
        key,
        `${both.address} on ${key} is in the same network as ${both.earlier.address} on ${both.earlier.key}`,
        'Answers may leave over the wrong one of them: give each a network of its own.',
      )
    if (dhcp && taken === undefined && both === undefined) checkLease(observed, one, found)
    seen.push(...addresses.map((address) => ({ key, address })))
  }
}

/** Judges the uplinks. Pure. */
export function check(observed: ObservedUplinks): readonly Finding[] {
  const { interfaces, defaults, both, backend, lni, instanceProblem } = observed
  const findings: Finding[] = []
  const found: Found = (code, severity, subject, text, remedy) => {
    findings.push({ code, severity, subject, text, remedy })
  }
  // Neither the metadata nor EC2 are reached then, and what is wrong is told of the interface.
  const isCut = interfaces.some(({ management, link }) => management && link?.carrier === false)
  if (lni !== null) findings.push(...checkLni(lni, isCut))
  if (instanceProblem !== null && !isCut)
    found('uplinks.metadata-silent', 'warning', 'imds', instanceProblem.message, instanceProblem.remedy)
  for (const one of interfaces) checkInterface(one, observed, found)
  checkNetworks(observed, found)
  const carrier = interfaces.find(({ carriesDefault }) => carriesDefault)
  if (carrier?.link?.carrier && defaults.inet?.device !== carrier.link.name)
    found(
      'uplinks.default-elsewhere',
      'high',
      carrier.key,
      defaults.inet === null
        ? `there is no default route, and ${carrier.key} shall carry it`
        : `the default route leads over ${defaults.inet.device}, not over ${carrier.key} (${carrier.link.name})`,
      'See ip route: who has set a default route with a lower metric, or that the network of the uplink tells no gateway.',
    )
  const foreign = interfaces.filter(({ holder, kept }) => !kept && holder !== null && holder.by !== backend)
  if (both && foreign.length > 0)
    found(
      'uplinks.two-backends',
      'warning',
      foreign.map(({ key }) => key).join(', '),
      'systemd-networkd and NetworkManager both run, and hold some of the interfaces each',
      'Garrison writes for one and tells the other to leave its interfaces alone; better switch one of them off.',
    )
  return findings
}

const widest = 60

/** What there is, in at most 60 columns. */
export function describe({ declared, interfaces, backend }: ObservedUplinks): string {
  if (!declared) return 'not declared'
  const one = ({ key, link, dhcp }: ObservedInterface): string => {
    if (link === null) return `${key} absent`
    if (!link.carrier) return link.up ? `${key} no carrier` : `${key} down`
    const [first] = link.addresses
    return `${key} ${first ?? (dhcp ? 'no lease' : link.name)}`
  }
  const whole =
    [...(backend === null ? ['no backend'] : []), ...interfaces.map(one)].join(', ') || 'none declared'
  return whole.length <= widest ? whole : `${whole.slice(0, widest - 1)}…`
}
