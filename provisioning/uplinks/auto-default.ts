// The profile that NetworkManager (>= 1.20) makes up for a wired interface that has none: kept from the local network interface.

import type { OwnFile } from './observe.ts'
import { mark } from './want.ts'

/** The file that keeps NetworkManager from making up a profile for the local network interface. */
export const autoDefaultFile = '/etc/NetworkManager/conf.d/90-garrison-lni.conf'

/**
 * Says that the interface with this MAC is given nothing that nobody has asked for. Else it has an address by DHCP as soon as it is
 * attached, before its firewall is loaded; and what has an address is not configured without being asked.
 */
export const noAutoDefault = (mac: string): OwnFile => ({
  path: autoDefaultFile,
  // Added to what others list.
  content: [mark, '[main]', `no-auto-default+=mac:${mac}`, ''].join('\n'),
})
