// The calls about domains; numbers and formats are facts of libvirt's protocol.

import { call, ofQemu, slow, streaming } from './procedure.ts'
import {
  always,
  countedParams,
  domain,
  domainCheckpoint,
  domainSnapshot,
  flags,
  listed,
  paramList,
  paramRecord,
  string,
  stringOrNull,
  typedParam,
  wideFlags,
} from './shapes.ts'
import { chars, count, defaulted, hyper, int, list, opaque, struct, uhyper, uint, uuid, yes } from './xdr.ts'

const dom = domain
const needResults = always(int, 1)
const snap = domainSnapshot
const checkpoint = domainCheckpoint
const params = (most: number) => ({ nparams: always(int, most), flags })
const cpuMap = opaque(2048)
const cpuMaps = opaque(8_388_608)
const bandwidth = defaulted(uhyper, 0)
const securityLabel = struct({ label: chars(4097, 'counted'), enforcing: int })
const cookie = opaque(4_194_304)
const noCookie = defaulted(cookie, new Uint8Array(0))

const statsRecord = struct({ dom, params: paramRecord(262_144) })

const lookups = {
  connectListAllDomains: call(273, { needResults, flags }, listed(domain, 16_384)),
  domainLookupByID: call(22, { id: int }, domain),
  domainLookupByName: call(23, { name: string }, domain),
  domainLookupByUUID: call(24, { uuid }, domain),
  connectGetAllDomainStats: call(
    344,
    { doms: defaulted(list(domain, 16_384), []), stats: flags, flags },
    list(statsRecord, 16_384),
  ),
}

const lives = {
  domainCreateXML: slow(call(10, { xml: string, flags }, domain)),
  domainDefineXML: call(11, { xml: string }, domain),
  domainDefineXMLFlags: call(350, { xml: string, flags }, domain),
  domainUndefine: call(35, { dom }),
  domainUndefineFlags: call(231, { dom, flags }),
  domainCreate: slow(call(9, { dom })),
  domainCreateWithFlags: slow(call(196, { dom, flags }, domain)),
  domainShutdown: call(33, { dom }),
  domainShutdownFlags: call(258, { dom, flags }),
  domainReboot: call(27, { dom, flags }),
  domainReset: call(245, { dom, flags }),
  domainDestroy: call(12, { dom }),
  domainDestroyFlags: call(234, { dom, flags }),
  domainSuspend: call(34, { dom }),
  domainResume: call(28, { dom }),
  domainPMSuspendForDuration: slow(call(261, { dom, target: uint, duration: uhyper, flags })),
  domainPMWakeup: call(267, { dom, flags }),
  domainRename: call(358, { dom, newName: stringOrNull, flags }, int),
  domainGetAutostart: call(15, { dom }, yes),
  domainSetAutostart: call(29, { dom, autostart: yes }),
  domainSetLifecycleAction: call(390, { dom, type: uint, action: uint, flags }),
  domainInjectNMI: call(210, { dom, flags }),
  domainSendKey: call(226, { dom, codeset: uint, holdtime: uint, keycodes: list(uint, 16), flags }),
  domainSendProcessSignal: call(295, { dom, pid: hyper, signum: uint, flags }),
}

const facts = {
  domainGetXMLDesc: call(14, { dom, flags }, string),
  domainGetState: call(212, { dom, flags }, { state: int, reason: int }),
  domainGetInfo: call(
    16,
    { dom },
    { state: int, maxMem: count, memory: count, nrVirtCpu: int, cpuTime: uhyper },
  ),
  domainGetControlInfo: call(229, { dom, flags }, { state: uint, details: uint, stateTime: uhyper }),
  domainGetOSType: call(19, { dom }, string),
  domainGetHostname: slow(call(277, { dom, flags }, string)),
  domainGetMessages: call(426, { dom, flags }, list(string, 2048)),
  domainGetDiskErrors: call(
    263,
    { dom, maxerrors: always(uint, 256), flags },
    listed(struct({ disk: string, error: int }), 256, int),
  ),
  domainIsActive: call(150, { dom }, yes),
  domainIsPersistent: call(151, { dom }, yes),
  domainIsUpdated: call(202, { dom }, yes),
  domainGetSecurityLabel: call(121, { dom }, securityLabel),
  domainGetSecurityLabelList: call(278, { dom }, listed(securityLabel, 64, int)),
  domainGetMetadata: call(265, { dom, type: int, uri: stringOrNull, flags }, string),
  domainSetMetadata: call(264, {
    dom,
    type: int,
    metadata: stringOrNull,
    key: stringOrNull,
    uri: stringOrNull,
    flags,
  }),
  domainGetSchedulerParametersFlags: call(223, { dom, ...params(16) }, paramRecord(16)),
  domainSetSchedulerParametersFlags: call(219, { dom, params: paramList(16), flags }),
  domainGetBlkioParameters: call(206, { dom, ...params(16) }, countedParams(16)),
  domainSetBlkioParameters: call(205, { dom, params: paramList(16), flags }),
  domainGetMemoryParameters: call(198, { dom, ...params(16) }, countedParams(16)),
  domainSetMemoryParameters: call(197, { dom, params: paramList(16), flags }),
  domainGetNumaParameters: call(255, { dom, ...params(16) }, countedParams(16)),
  domainSetNumaParameters: call(254, { dom, params: paramList(16), flags }),
  domainGetPerfEvents: call(365, { dom, flags }, paramRecord(64)),
  domainSetPerfEvents: call(366, { dom, params: paramList(64), flags }),
  domainGetLaunchSecurityInfo: call(396, { dom, flags }, paramRecord(64)),
  domainSetLaunchSecurityState: call(439, { dom, params: paramList(64), flags }),
}

const memoryAndCpus = {
  domainGetMaxMemory: call(17, { dom }, count),
  domainSetMaxMemory: call(30, { dom, memory: count }),
  domainSetMemory: call(31, { dom, memory: count }),
  domainSetMemoryFlags: call(204, { dom, memory: count, flags }),
  domainSetMemoryStatsPeriod: call(308, { dom, period: int, flags }),
  domainMemoryStats: call(
    159,
    { dom, maxStats: always(uint, 1024), flags },
    list(struct({ tag: int, val: uhyper }), 1024),
  ),
  domainMemoryPeek: call(104, { dom, offset: uhyper, size: uint, flags }, opaque(4_194_304)),
  domainGetMaxVcpus: call(18, { dom }, int),
  domainGetVcpusFlags: call(200, { dom, flags }, int),
  domainSetVcpusFlags: call(199, { dom, nvcpus: uint, flags }),
  domainSetVcpu: call(384, { dom, cpumap: string, state: int, flags }),
  domainGetVcpus: call(
    20,
    { dom, maxinfo: int, maplen: int },
    { info: list(struct({ number: uint, state: int, cpuTime: uhyper, cpu: int }), 16_384), cpumaps: cpuMaps },
  ),
  domainPinVcpuFlags: call(225, { dom, vcpu: uint, cpumap: cpuMap, flags }),
  domainGetVcpuPinInfo: call(230, { dom, ncpumaps: int, maplen: int, flags }, { cpumaps: cpuMaps, num: int }),
  domainPinEmulator: call(279, { dom, cpumap: cpuMap, flags }),
  domainGetEmulatorPinInfo: call(280, { dom, maplen: int, flags }, { cpumaps: cpuMaps, ret: int }),
  domainGetCPUStats: call(
    262,
    { dom, nparams: uint, startCpu: int, ncpus: uint, flags },
    { params: list(typedParam, 2048), nparams: int },
  ),
  domainGetIOThreadInfo: call(
    351,
    { dom, flags },
    listed(struct({ iothreadId: uint, cpumap: cpuMap }), 16_384),
  ),
  domainPinIOThread: call(352, { dom, iothreadId: uint, cpumap: cpuMap, flags }),
  domainAddIOThread: call(355, { dom, iothreadId: uint, flags }),
  domainDelIOThread: call(356, { dom, iothreadId: uint, flags }),
  domainSetIOThreadParams: call(402, { dom, iothreadId: uint, params: paramList(64), flags }),
  domainGetGuestVcpus: slow(call(371, { dom, flags }, paramRecord(64))),
  domainSetGuestVcpus: slow(call(372, { dom, cpumap: string, state: int, flags })),
}

const devices = {
  domainAttachDeviceFlags: call(160, { dom, xml: string, flags }),
  domainDetachDeviceFlags: call(161, { dom, xml: string, flags }),
  domainDetachDeviceAlias: call(392, { dom, alias: string, flags }),
  domainUpdateDeviceFlags: call(174, { dom, xml: string, flags }),
  domainInterfaceStats: call(
    65,
    { dom, device: string },
    {
      rxBytes: hyper,
      rxPackets: hyper,
      rxErrs: hyper,
      rxDrop: hyper,
      txBytes: hyper,
      txPackets: hyper,
      txErrs: hyper,
      txDrop: hyper,
    },
  ),
  domainGetInterfaceParameters: call(257, { dom, device: string, ...params(16) }, countedParams(16)),
  domainSetInterfaceParameters: call(256, { dom, device: string, params: paramList(16), flags }),
  domainInterfaceAddresses: slow(
    call(
      353,
      { dom, source: uint, flags },
      list(
        struct({
          name: string,
          hwaddr: stringOrNull,
          addrs: list(struct({ type: int, addr: string, prefix: uint }), 2048),
        }),
        2048,
      ),
    ),
  ),
}

const disks = {
  domainBlockStats: call(
    64,
    { dom, path: string },
    { rdReq: hyper, rdBytes: hyper, wrReq: hyper, wrBytes: hyper, errs: hyper },
  ),
  domainBlockStatsFlags: call(243, { dom, path: string, ...params(16) }, countedParams(16)),
  domainGetBlockInfo: call(
    194,
    { dom, path: string, flags },
    { allocation: uhyper, capacity: uhyper, physical: uhyper },
  ),
  domainBlockPeek: call(103, { dom, path: string, offset: uhyper, size: uint, flags }, opaque(4_194_304)),
  domainBlockResize: slow(call(251, { dom, disk: string, size: uhyper, flags })),
  domainBlockPull: call(240, { dom, path: string, bandwidth, flags }),
  domainBlockRebase: call(266, { dom, path: string, base: stringOrNull, bandwidth, flags }),
  domainBlockCopy: call(345, { dom, path: string, destxml: string, params: paramList(16), flags }),
  domainBlockCommit: call(290, {
    dom,
    disk: string,
    base: stringOrNull,
    top: stringOrNull,
    bandwidth,
    flags,
  }),
  domainBlockJobAbort: slow(call(237, { dom, path: string, flags })),
  domainGetBlockJobInfo: call(
    238,
    { dom, path: string, flags },
    { found: yes, type: int, bandwidth: uhyper, cur: uhyper, end: uhyper },
  ),
  domainBlockJobSetSpeed: call(239, { dom, path: string, bandwidth, flags }),
  domainGetBlockIOTune: call(253, { dom, disk: stringOrNull, ...params(32) }, countedParams(32)),
  domainSetBlockIOTune: call(252, { dom, disk: string, params: paramList(32), flags }),
  domainSetBlockThreshold: call(386, { dom, dev: string, threshold: uhyper, flags }),
}

const saves = {
  domainSave: slow(call(55, { dom, to: string })),
  domainSaveFlags: slow(call(232, { dom, to: string, dxml: stringOrNull, flags })),
  domainSaveParams: slow(call(440, { dom, params: paramList(64), flags })),
  domainRestore: slow(call(54, { from: string })),
  domainRestoreFlags: slow(call(233, { from: string, dxml: stringOrNull, flags })),
  domainRestoreParams: slow(call(441, { params: paramList(64), flags })),
  domainSaveImageGetXMLDesc: call(235, { file: string, flags }, string),
  domainSaveImageDefineXML: call(236, { file: string, dxml: string, flags }),
  domainManagedSave: slow(call(182, { dom, flags })),
  domainHasManagedSaveImage: call(183, { dom, flags }, yes),
  domainManagedSaveRemove: call(184, { dom, flags }),
  domainManagedSaveGetXMLDesc: call(388, { dom, flags }, string),
  domainManagedSaveDefineXML: call(389, { dom, dxml: stringOrNull, flags }),
  domainCoreDump: slow(call(53, { dom, to: string, flags })),
  domainCoreDumpWithFormat: slow(call(334, { dom, to: string, dumpformat: uint, flags })),

  domainSnapshotCreateXML: slow(call(185, { dom, xml: string, flags }, domainSnapshot)),
  domainSnapshotGetXMLDesc: call(186, { snap, flags }, string),
  domainListAllSnapshots: call(274, { dom, needResults, flags }, listed(domainSnapshot, 16_384, int)),
  domainSnapshotListAllChildren: call(275, { snap, needResults, flags }, listed(domainSnapshot, 16_384, int)),
  domainSnapshotLookupByName: call(189, { dom, name: string, flags }, domainSnapshot),
  domainHasCurrentSnapshot: call(190, { dom, flags }, yes),
  domainSnapshotCurrent: call(191, { dom, flags }, domainSnapshot),
  domainSnapshotGetParent: call(244, { snap, flags }, domainSnapshot),
  domainSnapshotIsCurrent: call(271, { snap, flags }, yes),
  domainSnapshotHasMetadata: call(272, { snap, flags }, yes),
  domainRevertToSnapshot: slow(call(192, { snap, flags })),
  domainSnapshotDelete: slow(call(193, { snap, flags })),

  domainCheckpointCreateXML: slow(call(411, { dom, xml: string, flags }, domainCheckpoint)),
  domainCheckpointGetXMLDesc: call(412, { checkpoint, flags }, string),
  domainListAllCheckpoints: call(413, { dom, needResults, flags }, listed(domainCheckpoint, 16_384, int)),
  domainCheckpointListAllChildren: call(
    414,
    { checkpoint, needResults, flags },
    listed(domainCheckpoint, 16_384, int),
  ),
  domainCheckpointLookupByName: call(415, { dom, name: string, flags }, domainCheckpoint),
  domainCheckpointGetParent: call(416, { checkpoint, flags }, domainCheckpoint),
  domainCheckpointDelete: slow(call(417, { checkpoint, flags })),
  domainBackupBegin: slow(call(421, { dom, backupXML: string, checkpointXML: stringOrNull, flags })),
  domainBackupGetXMLDesc: call(422, { dom, flags }, string),
}

const jobsAndMigration = {
  domainGetJobInfo: call(
    163,
    { dom },
    {
      type: int,
      timeElapsed: uhyper,
      timeRemaining: uhyper,
      dataTotal: uhyper,
      dataProcessed: uhyper,
      dataRemaining: uhyper,
      memTotal: uhyper,
      memProcessed: uhyper,
      memRemaining: uhyper,
      fileTotal: uhyper,
      fileProcessed: uhyper,
      fileRemaining: uhyper,
    },
  ),
  domainGetJobStats: call(298, { dom, flags }, { type: int, params: paramRecord(64) }),
  domainAbortJob: call(164, { dom }),
  domainAbortJobFlags: call(442, { dom, flags }),
  domainMigrateGetMaxDowntime: call(387, { dom, flags }, uhyper),
  domainMigrateSetMaxDowntime: call(166, { dom, downtime: uhyper, flags }),
  domainMigrateGetCompressionCache: call(299, { dom, flags }, uhyper),
  domainMigrateSetCompressionCache: call(300, { dom, cacheSize: uhyper, flags }),
  domainMigrateGetMaxSpeed: call(242, { dom, flags }, uhyper),
  domainMigrateSetMaxSpeed: call(207, { dom, bandwidth: uhyper, flags }),
  domainMigrateStartPostCopy: call(364, { dom, flags }),
  domainStartDirtyRateCalc: call(427, { dom, seconds: int, flags }),
  domainMigratePerform3: slow(
    call(
      216,
      {
        dom,
        xmlin: stringOrNull,
        cookieIn: noCookie,
        dconnuri: stringOrNull,
        uri: stringOrNull,
        flags: wideFlags,
        dname: stringOrNull,
        resource: defaulted(uhyper, 0),
      },
      cookie,
    ),
  ),
  domainMigratePerform3Params: slow(
    call(305, { dom, dconnuri: stringOrNull, params: paramList(64), cookieIn: noCookie, flags }, cookie),
  ),
}

const guests = {
  domainGetTime: slow(call(337, { dom, flags }, { seconds: hyper, nseconds: uint })),
  domainSetTime: slow(call(338, { dom, seconds: hyper, nseconds: uint, flags })),
  domainFSTrim: slow(call(294, { dom, mountPoint: stringOrNull, minimum: defaulted(uhyper, 0), flags })),
  domainFSFreeze: slow(call(335, { dom, mountpoints: defaulted(list(string, 256), []), flags }, int)),
  domainFSThaw: slow(call(336, { dom, mountpoints: defaulted(list(string, 256), []), flags }, int)),
  domainGetFSInfo: slow(
    call(
      349,
      { dom, flags },
      listed(
        struct({ mountpoint: string, name: string, fstype: string, devAliases: list(string, 256) }),
        256,
      ),
    ),
  ),
  domainSetUserPassword: slow(call(357, { dom, user: stringOrNull, password: stringOrNull, flags })),
  domainGetGuestInfo: slow(call(418, { dom, types: flags, flags }, paramRecord(2048))),
  domainAuthorizedSSHKeysGet: slow(call(424, { dom, user: string, flags }, list(string, 2048))),
  domainAuthorizedSSHKeysSet: slow(call(425, { dom, user: string, keys: list(string, 2048), flags })),
  domainAgentSetResponseTimeout: call(420, { dom, timeout: int, flags }, int),
  qemuDomainMonitorCommand: ofQemu(call(1, { dom, cmd: string, flags }, string)),
  qemuDomainAgentCommand: slow(
    ofQemu(call(3, { dom, cmd: string, timeout: defaulted(int, -1), flags }, stringOrNull)),
  ),
}

/** Calls about domains. */
export const domainCalls = {
  ...lookups,
  ...lives,
  ...facts,
  ...memoryAndCpus,
  ...devices,
  ...disks,
  ...saves,
  ...jobsAndMigration,
  ...guests,
}

/** Calls that open a stream to or from a domain. */
export const domainStreams = {
  domainOpenConsole: streaming('both', call(201, { dom, devName: stringOrNull, flags })),
  domainOpenChannel: streaming('both', call(296, { dom, name: stringOrNull, flags })),
  domainScreenshot: streaming('in', call(211, { dom, screen: defaulted(uint, 0), flags }, stringOrNull)),
}
