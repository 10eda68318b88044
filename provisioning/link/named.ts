// Which interface an uplink of the document is, for parts of the host that only know the uplink's name.

import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import type { Link } from './ip.ts'

// What the uplinks themselves have written (networkd, NetworkManager), with the MAC that they found.
const ownFiles = (name: string): readonly string[] => [
  `/etc/systemd/network/05-garrison-${name}.network`,
  `/etc/NetworkManager/system-connections/garrison-${name}.nmconnection`,
]
const writtenMac = /^(?:MACAddress|mac-address)=(\S+)$/m

async function macOf(reader: HostReader, { uplinks }: Desired, name: string): Promise<string | null> {
  const match = uplinks?.[name]?.match
  if (match !== undefined && 'mac' in match) return match.mac.toLowerCase()
  for (const path of ownFiles(name)) {
    const found = writtenMac.exec((await reader.readText(path)) ?? '')?.[1]
    if (found !== undefined) return found.toLowerCase()
  }
  // Only one that others configure has no such file.
  const instance = await reader.instance()
  if (instance === null || match === undefined) return null
  if (match.deviceIndex === 0) return instance.mac
  return instance.interfaces.find(({ deviceNumber }) => deviceNumber === match.deviceIndex)?.mac ?? null
}

/** Kinds of interface that have the MAC of another: they stand on it, or it is a port of theirs. */
const borrowing: readonly (string | null)[] = [
  ...['vlan', 'macvlan', 'macvtap', 'ipvlan', 'bridge', 'bond', 'team'],
]

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
  const mac = await macOf(reader, desired, name)
  const found = links.filter(
    (link) =>
      mac !== null &&
      link.type === 'ether' &&
      !borrowing.includes(link.kind) &&
      (link.mac === mac || link.permanentMac === mac),
  )
  return found.length === 1 ? (found[0] ?? null) : null
}
