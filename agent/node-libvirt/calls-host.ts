// The calls about the connection, the host and its devices, in the order of their kinds; numbers and formats are facts of libvirt's protocol.

import { call, slow } from './procedure.ts'
import {
  always,
  countedParams,
  flags,
  iface,
  listed,
  nodeDevice,
  nwfilter,
  nwfilterBinding,
  paramList,
  secret,
  string,
  stringOrNull,
} from './shapes.ts'
import {
  chars,
  count,
  defaulted,
  type Integer,
  int,
  list,
  opaque,
  seenAs,
  struct,
  uhyper,
  uint,
  uuid,
  yes,
} from './xdr.ts'

const needResults = always(int, 1)
const noNames = 65_536
const cells = 1024

/** How many counters are wanted: all of them, for libvirt takes no other number than the one that it tells when it is given 0. */
const nparams = defaulted(int, 0)

const cpuMap = opaque(2048)

const counterList = list(struct({ field: string, value: uhyper }), 16)

/** Counters by name, none when `nparams` was 0, and how many there are; the object of them has no prototype. */
const counters = {
  params: seenAs(counterList, (values) => {
    const record: Record<string, Integer> = Object.create(null)
    for (const { field, value } of values) record[field] = value
    return record
  }),
  nparams: int,
}

/** Authentications that the other side asks for: 0 none, 1 SASL, 2 polkit. */
export const authList = call(66, {}, list(int, 20))

/** Asks polkit, which decides by the process at the other end of the socket. */
export const authPolkit = call(70, {}, yes)

/** Opens the connection to a driver. */
export const open = call(1, { name: stringOrNull, flags })

/** Calls that are made by the connection itself or by anybody. */
export const hostCalls = {
  connectSupportsFeature: call(60, { feature: int }, yes),
  connectGetType: call(3, {}, string),
  connectGetVersion: call(4, {}, count),
  connectGetLibVersion: call(157, {}, count),
  connectGetHostname: call(59, {}, string),
  connectGetURI: call(110, {}, string),
  connectGetSysinfo: call(203, { flags }, string),
  connectGetMaxVcpus: call(5, { type: stringOrNull }, int),
  connectIsSecure: call(149, {}, yes),
  connectGetCapabilities: call(7, {}, string),
  connectGetDomainCapabilities: call(
    342,
    { emulatorbin: stringOrNull, arch: stringOrNull, machine: stringOrNull, virttype: stringOrNull, flags },
    string,
  ),
  connectGetStoragePoolCapabilities: call(403, { flags }, string),
  connectGetCPUModelNames: call(312, { arch: string, needResults, flags }, listed(string, 8192, int)),
  connectCompareCPU: call(158, { xml: string, flags }, int),
  connectBaselineCPU: call(162, { xmlCPUs: list(string, 256), flags }, string),
  connectCompareHypervisorCPU: call(
    393,
    {
      emulator: stringOrNull,
      arch: stringOrNull,
      machine: stringOrNull,
      virttype: stringOrNull,
      xmlCPU: string,
      flags,
    },
    int,
  ),
  connectBaselineHypervisorCPU: call(
    394,
    {
      emulator: stringOrNull,
      arch: stringOrNull,
      machine: stringOrNull,
      virttype: stringOrNull,
      xmlCPUs: list(string, 256),
      flags,
    },
    string,
  ),
  connectDomainXMLFromNative: call(135, { nativeFormat: string, nativeConfig: string, flags }, string),
  connectDomainXMLToNative: call(136, { nativeFormat: string, domainXml: string, flags }, string),
  connectSetIdentity: call(419, { params: paramList(20), flags }),

  nodeGetInfo: call(
    6,
    {},
    {
      model: chars(32, 'fixed'),
      memory: count,
      cpus: int,
      mhz: int,
      nodes: int,
      sockets: int,
      cores: int,
      threads: int,
    },
  ),
  nodeGetCPUStats: call(227, { cpuNum: int, nparams, flags }, counters),
  nodeGetMemoryStats: call(228, { nparams, cellNum: int, flags }, counters),
  nodeGetCellsFreeMemory: call(101, { startCell: int, maxcells: int }, list(uhyper, cells)),
  nodeGetFreeMemory: call(102, {}, uhyper),
  nodeGetFreePages: call(
    340,
    { pages: list(uint, cells), startCell: int, cellCount: uint, flags },
    list(uhyper, cells),
  ),
  nodeAllocPages: call(
    347,
    { pageSizes: list(uint, cells), pageCounts: list(uhyper, cells), startCell: int, cellCount: uint, flags },
    int,
  ),
  nodeGetCPUMap: call(
    293,
    { needMap: always(int, 1), needOnline: always(int, 1), flags },
    { cpumap: cpuMap, online: uint, ret: int },
  ),
  nodeGetMemoryParameters: call(289, { nparams: always(int, 64), flags }, countedParams(64)),
  nodeSetMemoryParameters: call(288, { params: paramList(64), flags }),
  nodeGetSEVInfo: call(395, { nparams: always(int, 64), flags }, countedParams(64)),
  nodeGetSecurityModel: call(122, {}, { model: chars(257, 'counted'), doi: chars(257, 'counted') }),
  nodeSuspendForDuration: call(250, { target: uint, duration: uhyper, flags }),

  connectListAllNodeDevices: call(285, { needResults, flags }, listed(nodeDevice, noNames)),
  nodeDeviceLookupByName: call(113, { name: string }, nodeDevice),
  nodeDeviceLookupSCSIHostByWWN: call(297, { wwnn: string, wwpn: string, flags }, nodeDevice),
  nodeDeviceGetXMLDesc: call(114, { name: string, flags }, string),
  nodeDeviceGetParent: call(115, { name: string }, stringOrNull),
  nodeDeviceListCaps: call(117, { name: string, maxnames: always(int, noNames) }, list(string, noNames)),
  nodeDeviceDetachFlags: call(301, { name: string, driverName: stringOrNull, flags }),
  nodeDeviceReAttach: call(119, { name: string }),
  nodeDeviceReset: call(120, { name: string }),
  nodeDeviceCreateXML: call(123, { xml: string, flags }, nodeDevice),
  nodeDeviceDestroy: call(124, { name: string }),
  nodeDeviceDefineXML: call(428, { xml: string, flags }, nodeDevice),
  nodeDeviceUndefine: call(429, { name: string, flags }),
  nodeDeviceCreate: call(430, { name: string, flags }),
  nodeDeviceGetAutostart: call(433, { name: string }, yes),
  nodeDeviceSetAutostart: call(434, { name: string, autostart: yes }),
  nodeDeviceIsPersistent: call(435, { name: string }, yes),
  nodeDeviceIsActive: call(436, { name: string }, yes),

  connectListAllInterfaces: call(284, { needResults, flags }, listed(iface, 16_384)),
  interfaceLookupByName: call(128, { name: string }, iface),
  interfaceLookupByMACString: call(129, { mac: string }, iface),
  interfaceGetXMLDesc: call(130, { iface, flags }, string),
  interfaceDefineXML: call(131, { xml: string, flags }, iface),
  interfaceUndefine: call(132, { iface }),
  interfaceCreate: slow(call(133, { iface, flags })),
  interfaceDestroy: slow(call(134, { iface, flags })),
  interfaceIsActive: call(156, { iface }, yes),
  interfaceChangeBegin: call(220, { flags }),
  interfaceChangeCommit: call(221, { flags }),
  interfaceChangeRollback: call(222, { flags }),

  connectListAllSecrets: call(287, { needResults, flags }, listed(secret, 16_384)),
  secretLookupByUUID: call(141, { uuid }, secret),
  secretLookupByUsage: call(147, { usageType: int, usageID: string }, secret),
  secretDefineXML: call(142, { xml: string, flags }, secret),
  secretGetXMLDesc: call(143, { secret, flags }, string),
  secretSetValue: call(144, { secret, value: opaque(65_536), flags }),
  secretGetValue: call(145, { secret, flags }, opaque(65_536)),
  secretUndefine: call(146, { secret }),

  connectListAllNWFilters: call(286, { needResults, flags }, listed(nwfilter, 16_384)),
  nwfilterLookupByName: call(175, { name: string }, nwfilter),
  nwfilterLookupByUUID: call(176, { uuid }, nwfilter),
  nwfilterGetXMLDesc: call(177, { nwfilter, flags }, string),
  nwfilterDefineXML: call(180, { xml: string }, nwfilter),
  nwfilterDefineXMLFlags: call(431, { xml: string, flags }, nwfilter),
  nwfilterUndefine: call(181, { nwfilter }),
  connectListAllNWFilterBindings: call(401, { needResults, flags }, listed(nwfilterBinding, 16_384)),
  nwfilterBindingLookupByPortDev: call(397, { name: string }, nwfilterBinding),
  nwfilterBindingGetXMLDesc: call(398, { nwfilter: nwfilterBinding, flags }, string),
  nwfilterBindingCreateXML: call(399, { xml: string, flags }, nwfilterBinding),
  nwfilterBindingDelete: call(400, { nwfilter: nwfilterBinding }),
}
