// Which interface an uplink of the document is: by its MAC, which the document, a file of ours or the metadata tell.

import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import type { InstanceFacts } from '../instance.ts'
import type { Link } from './ip.ts'

// What the uplinks themselves have written (networkd, NetworkManager), with the MAC that they found.
const ownFiles = (name: string): readonly string[] => [
  `/etc/systemd/network/05-garrison-${name}.network`,
  `/etc/NetworkManager/system-connections/garrison-${name}.nmconnection`,
]
const writtenMac = /^(?:MACAddress|mac-address)=(\S+)$/m

/** The MAC that a file of ours about an interface has; null when it has none, or is not there. */
export const macWritten = (content: string | null): string | null =>
  writtenMac.exec(content ?? '')?.[1]?.toLowerCase() ?? null

/** The MAC of the interface at a device index, as the metadata tell it. */
export const macAtIndex = ({ mac, interfaces }: InstanceFacts, deviceIndex: number): string | null =>
  deviceIndex === 0 ? mac : (interfaces.find(({ deviceNumber }) => deviceNumber === deviceIndex)?.mac ?? null)

/** The MAC of an uplink; null when nobody tells it. Throws `imds.…` where only the metadata can. */
export async function macOfUplink(
  reader: HostReader,
  { uplinks }: Desired,
  name: string,
): Promise<string | null> {
  const { match, lni } = uplinks?.[name] ?? {}
  if (match !== undefined && 'mac' in match) return match.mac.toLowerCase()
  for (const path of ownFiles(name)) {
    const found = macWritten(await reader.readText(path))
    if (found !== null) return found
  }
  // Only one that others configure, or that is new, has no such file.
  const index = match?.deviceIndex ?? lni?.deviceIndex
  const instance = index === undefined ? null : await reader.instance()
  return instance === null || index === undefined ? null : macAtIndex(instance, index)
}

/** Kinds of interface that have the MAC of another: they stand on it, or it is a port of theirs. */
const borrowing: ReadonlySet<string | null> = new Set([
  ...['vlan', 'macvlan', 'macvtap', 'ipvlan', 'bridge', 'bond', 'team'],
])

/** The interfaces with a MAC. That of a device itself decides where another has been set. */
export const withMac = (links: readonly Link[], mac: string): readonly Link[] =>
  links.filter(
    (link) =>
      link.type === 'ether' && !borrowing.has(link.kind) && (link.mac === mac || link.permanentMac === mac),
  )

/**
 * The interface that an uplink of the document is; for a name that no uplink has, the interface of that name. Null when there is
 * none, or more than one has its MAC. Throws `imds.…` where only the metadata can tell.
 */
export async function linkOfUplink(
  reader: HostReader,
  desired: Desired,
  name: string,
  links: readonly Link[],
): Promise<Link | null> {
  if (desired.uplinks?.[name] === undefined) return links.find((link) => link.name === name) ?? null
  const mac = await macOfUplink(reader, desired, name)
  const found = mac === null ? [] : withMac(links, mac)
  return found.length === 1 ? (found[0] ?? null) : null
}
