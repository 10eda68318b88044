// The calls about storage pools and volumes; numbers and formats are facts of libvirt's protocol.

import { call, slow, streaming } from './procedure.ts'
import { always, flags, listed, storagePool, storageVol, string, stringOrNull } from './shapes.ts'
import { defaulted, int, uhyper, uint, uuid, yes } from './xdr.ts'

const needResults = always(int, 1)
const pool = storagePool
const vol = storageVol
const part = { offset: defaulted(uhyper, 0), length: defaulted(uhyper, 0) }

/** Calls about storage pools and their volumes. */
export const storageCalls = {
  connectListAllStoragePools: call(281, { needResults, flags }, listed(storagePool, 16_384)),
  connectFindStoragePoolSources: slow(call(75, { type: string, srcSpec: stringOrNull, flags }, string)),
  storagePoolLookupByName: call(84, { name: string }, storagePool),
  storagePoolLookupByUUID: call(85, { uuid }, storagePool),
  storagePoolLookupByVolume: call(86, { vol }, storagePool),
  storagePoolLookupByTargetPath: call(391, { path: string }, storagePool),
  storagePoolCreateXML: slow(call(76, { xml: string, flags }, storagePool)),
  storagePoolDefineXML: call(77, { xml: string, flags }, storagePool),
  storagePoolBuild: slow(call(79, { pool, flags })),
  storagePoolUndefine: call(82, { pool }),
  storagePoolCreate: slow(call(78, { pool, flags })),
  storagePoolDestroy: slow(call(80, { pool })),
  storagePoolDelete: slow(call(81, { pool, flags })),
  storagePoolRefresh: slow(call(83, { pool, flags })),
  storagePoolGetXMLDesc: call(88, { pool, flags }, string),
  storagePoolGetInfo: call(
    87,
    { pool },
    { state: int, capacity: uhyper, allocation: uhyper, available: uhyper },
  ),
  storagePoolGetAutostart: call(89, { pool }, yes),
  storagePoolSetAutostart: call(90, { pool, autostart: yes }),
  storagePoolIsActive: call(154, { pool }, yes),
  storagePoolIsPersistent: call(155, { pool }, yes),
  storagePoolListAllVolumes: call(282, { pool, needResults, flags }, listed(storageVol, 16_384)),
  storageVolLookupByName: call(95, { pool, name: string }, storageVol),
  storageVolLookupByKey: call(96, { key: string }, storageVol),
  storageVolLookupByPath: call(97, { path: string }, storageVol),
  storageVolCreateXML: slow(call(93, { pool, xml: string, flags }, storageVol)),
  storageVolCreateXMLFrom: slow(call(125, { pool, xml: string, clonevol: storageVol, flags }, storageVol)),
  storageVolDelete: slow(call(94, { vol, flags })),
  storageVolWipePattern: slow(call(259, { vol, algorithm: uint, flags })),
  storageVolGetXMLDesc: call(99, { vol, flags }, string),
  storageVolGetInfo: call(98, { vol }, { type: int, capacity: uhyper, allocation: uhyper }),
  storageVolGetInfoFlags: call(378, { vol, flags }, { type: int, capacity: uhyper, allocation: uhyper }),
  storageVolGetPath: call(100, { vol }, string),
  storageVolResize: slow(call(260, { vol, capacity: uhyper, flags })),
}

/** Calls that open a stream to or from a volume. `length` 0 is up to its end. */
export const storageStreams = {
  storageVolUpload: streaming('out', call(208, { vol, ...part, flags })),
  storageVolDownload: streaming('in', call(209, { vol, ...part, flags })),
}
