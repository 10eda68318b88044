// Who configures the interfaces of a guest: systemd-networkd as in the images of the lab, or NetworkManager as a Debian host has it.

import type { Backend } from '../../provisioning/uplinks/observe.ts'
import type { Guest } from './guest.ts'
import { scenarioPackages } from './packages.ts'

/** By networkd, as an image of EC2 has it; the metadata are a neighbour of the ENI. */
const eniNetwork = (mac: string): string => `[Match]
MACAddress=${mac}
[Network]
DHCP=ipv4
IPv6AcceptRA=no
[Route]
Destination=169.254.169.254/32
Scope=link
`

const profile = (name: string, mac: string, ipv4: string): string => `[connection]
id=${name}
type=ethernet
[ethernet]
mac-address=${mac}
[ipv4]
${ipv4}
[ipv6]
method=disabled
`

/** As NetworkManager has them from an image: the ENI, and the NIC by which the lab reaches the guest. */
const profiles = (mac: string): Readonly<Record<string, string>> => ({
  eni: profile('eni', mac, 'method=auto\nroute1=169.254.169.254/32'),
  lab: profile('lab', '52:54:00:6c:61:62', 'method=manual\naddress1=10.0.2.15/24,10.0.2.2'),
})

const networkd = ['.service', '.socket', '-wait-online.service'].map((suffix) => `systemd-networkd${suffix}`)

/** Gives a guest the address of its first interface in the VPC, by each backend. */
export const giveAddress: Readonly<Record<Backend, (guest: Guest, mac: string) => Promise<void>>> = {
  async networkd(guest, mac) {
    await guest.writeFile('/etc/systemd/network/20-eni.network', eniNetwork(mac))
    await guest.run(['networkctl', 'reload'])
    await guest.run(['/lib/systemd/systemd-networkd-wait-online', '--ipv4', '--any', '--timeout=120'])
  },
  async networkmanager(guest, mac) {
    for (const [name, text] of Object.entries(profiles(mac))) {
      const path = `/etc/NetworkManager/system-connections/${name}.nmconnection`
      await guest.writeFile(path, text)
      await guest.run(['chmod', '600', path])
    }
    await guest.run(['apt-get', 'update'], { deadlineMs: 300_000 })
    await guest.run(['systemctl', 'mask', '--now', ...networkd])
    await guest.run(['apt-get', 'install', '--yes', ...scenarioPackages], { deadlineMs: 300_000 })
    for (const name of Object.keys(profiles(mac)))
      await guest.run(['nmcli', '--wait', '120', 'connection', 'up', name], { deadlineMs: 180_000 })
  },
}
