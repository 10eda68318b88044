// Judges the interfaces to the networks outside, and says in one line what there is.

import { contains, overlaps, parseCidr } from '../link/address.ts'
import type { Finding } from '../resource.ts'
import { checkLni } from './lni.ts'
import type { ObservedInterface, ObservedUplinks } from './observe.ts'

type Found = (
  code: string,
  severity: Finding['severity'],
  subject: string,
  text: string,
  remedy: string,
) => void

const isIpv4 = (address: string): boolean => !address.includes(':')

function checkInterface(one: ObservedInterface, found: Found): void {
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
  // One that is down is a step of the plan.
  if (link.up && !link.carrier)
    found(
      'uplinks.no-carrier',
      'high',
      key,
      `${key} (${link.name}) has no carrier`,
      'See the cable, the port of the switch, and for a local network interface the Outposts server.',
    )
  if (link.carrier && dhcp && !link.addresses.some(isIpv4))
    found(
      'uplinks.no-lease',
      'high',
      key,
      `${key} (${link.name}) has no address: no DHCP server has answered`,
      'See whether the network has one and knows this MAC; or give a static address in the document.',
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

const metadata = ['169.254.169.254/32', 'fd00:ec2::254/128'].flatMap((text) => parseCidr(text) ?? [])

/** Whether a network that is not that of a default route has the metadata in it. */
const covers = (text: string): boolean => {
  const cidr = parseCidr(text)
  return cidr !== null && cidr.prefix > 0 && metadata.some((service) => contains(cidr, service))
}

/** A lease or an advertisement may put an interface into a network that is another's. */
function checkNetworks(interfaces: readonly ObservedInterface[], found: Found): void {
  const seen: { readonly key: string; readonly address: string }[] = []
  for (const { key, link, management } of interfaces) {
    const nets = [...(link?.addresses ?? []), ...(link?.routes ?? []).map(({ to }) => to)]
    const taken = nets.find((text) => covers(text))
    if (!management && taken !== undefined)
      found(
        'uplinks.takes-metadata',
        'high',
        key,
        `${taken} on ${key} covers the address of the instance metadata`,
        'See who gave it (its DHCP server, ip route); give a static address in the document.',
      )
    for (const address of link?.addresses ?? []) {
      const cidr = parseCidr(address)
      if (cidr === null) continue
      const other = seen.find((earlier) => {
        const network = parseCidr(earlier.address)
        return earlier.key !== key && network !== null && overlaps(network, cidr)
      })
      if (other !== undefined)
        found(
          'uplinks.overlap',
          'high',
          key,
          `${address} on ${key} is in the same network as ${other.address} on ${other.key}`,
          'Answers may leave over the wrong one of them: give each a network of its own.',
        )
      seen.push({ key, address })
    }
  }
}

/** Judges the uplinks. Pure. */
export function check({
  interfaces,
  defaults,
  both,
  backend,
  lni,
  instanceProblem,
}: ObservedUplinks): readonly Finding[] {
  const findings: Finding[] = []
  const found: Found = (code, severity, subject, text, remedy) => {
    findings.push({ code, severity, subject, text, remedy })
  }
  if (lni !== null) findings.push(...checkLni(lni))
  if (instanceProblem !== null)
    found('uplinks.metadata-silent', 'warning', 'imds', instanceProblem.message, instanceProblem.remedy)
  for (const one of interfaces) checkInterface(one, found)
  checkNetworks(interfaces, found)
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
