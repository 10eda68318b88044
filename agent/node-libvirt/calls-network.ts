// The calls about virtual networks; numbers and formats are facts of libvirt's protocol.

import { call, slow } from './procedure.ts'
import {
  always,
  countedParams,
  flags,
  listed,
  network,
  networkPort,
  paramList,
  string,
  stringOrNull,
} from './shapes.ts'
import { hyper, int, struct, uint, uuid, yes } from './xdr.ts'

const needResults = always(int, 1)
const net = network

const dhcpLease = struct({
  iface: string,
  expirytime: hyper,
  type: int,
  mac: stringOrNull,
  iaid: stringOrNull,
  ipaddr: string,
  prefix: uint,
  hostname: stringOrNull,
  clientid: stringOrNull,
})

/** Calls about networks, their ports and their leases. */
export const networkCalls = {
  connectListAllNetworks: call(283, { needResults, flags }, listed(network, 16_384)),
  networkLookupByName: call(46, { name: string }, network),
  networkLookupByUUID: call(47, { uuid }, network),
  networkCreateXML: slow(call(40, { xml: string }, network)),
  networkCreateXMLFlags: slow(call(437, { xml: string, flags }, network)),
  networkDefineXML: call(41, { xml: string }, network),
  networkDefineXMLFlags: call(432, { xml: string, flags }, network),
  networkUndefine: call(49, { net }),
  networkUpdate: call(291, { net, command: uint, section: uint, parentIndex: int, xml: string, flags }),
  networkCreate: slow(call(39, { net })),
  networkDestroy: slow(call(42, { net })),
  networkGetXMLDesc: call(43, { net, flags }, string),
  networkGetBridgeName: call(45, { net }, string),
  networkGetAutostart: call(44, { net }, yes),
  networkSetAutostart: call(48, { net, autostart: yes }),
  networkIsActive: call(152, { net }, yes),
  networkIsPersistent: call(153, { net }, yes),
  networkGetDHCPLeases: call(341, { net, mac: stringOrNull, needResults, flags }, listed(dhcpLease, 65_536)),
  networkListAllPorts: call(404, { network, needResults, flags }, listed(networkPort, 16_384)),
  networkPortLookupByUUID: call(405, { network, uuid }, networkPort),
  networkPortCreateXML: call(406, { network, xml: string, flags }, networkPort),
  networkPortGetParameters: call(
    407,
    { port: networkPort, nparams: always(int, 16), flags },
    countedParams(16),
  ),
  networkPortSetParameters: call(408, { port: networkPort, params: paramList(16), flags }),
  networkPortGetXMLDesc: call(409, { port: networkPort, flags }, string),
  networkPortDelete: call(410, { port: networkPort, flags }),
}
