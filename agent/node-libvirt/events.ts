// What libvirt tells of itself: the events of each kind of object, by the names of their constants, and how one asks for them.

import { call, ofQemu } from './procedure.ts'
import {
  domain,
  network,
  nodeDevice,
  paramRecord,
  secret,
  storagePool,
  string,
  stringOrNull,
} from './shapes.ts'
import {
  type Codec,
  type DecodedMembers,
  hyper,
  int,
  list,
  type Members,
  nothing,
  optional,
  struct,
  uhyper,
  uint,
} from './xdr.ts'

/** One event: the number by which one registers for it, and the message in which it comes, after the callback's number. */
export interface EventShape<Body> {
  readonly id: number
  readonly procedure: number
  readonly body: Codec<Body, never>
}

/** What a listener is given. */
export type EventOf<E> = E extends EventShape<infer Body> ? Body : never

const event = <const M extends Members>(
  id: number,
  procedure: number,
  members: M,
): EventShape<DecodedMembers<M>> => ({ id, procedure, body: struct(members) })

const dom = domain
const address = struct({ family: int, node: string, service: string })
const identity = struct({ type: string, name: string })

/** What happens to domains. */
export const domainEvents = {
  lifecycle: event(0, 318, { dom, event: int, detail: int }),
  reboot: event(1, 319, { dom }),
  rtcChange: event(2, 320, { dom, offset: hyper }),
  watchdog: event(3, 321, { dom, action: int }),
  ioError: event(4, 322, { dom, srcPath: string, devAlias: string, action: int }),
  graphics: event(5, 323, {
    dom,
    phase: int,
    local: address,
    remote: address,
    authScheme: string,
    subject: list(identity, 20),
  }),
  ioErrorReason: event(6, 324, { dom, srcPath: string, devAlias: string, action: int, reason: string }),
  controlError: event(7, 325, { dom }),
  blockJob: event(8, 326, { dom, path: string, type: int, status: int }),
  diskChange: event(9, 327, {
    dom,
    oldSrcPath: stringOrNull,
    newSrcPath: stringOrNull,
    devAlias: string,
    reason: int,
  }),
  trayChange: event(10, 328, { dom, devAlias: string, reason: int }),
  pmWakeup: event(11, 329, { reason: int, dom }),
  pmSuspend: event(12, 330, { reason: int, dom }),
  balloonChange: event(13, 331, { dom, actual: uhyper }),
  pmSuspendDisk: event(14, 332, { reason: int, dom }),
  deviceRemoved: event(15, 333, { dom, devAlias: string }),
  blockJob2: event(16, 339, { dom, dst: string, type: int, status: int }),
  tunable: event(17, 346, { dom, params: paramRecord(2048) }),
  agentLifecycle: event(18, 348, { dom, state: int, reason: int }),
  deviceAdded: event(19, 354, { dom, devAlias: string }),
  migrationIteration: event(20, 359, { dom, iteration: int }),
  jobCompleted: event(21, 363, { dom, params: paramRecord(64) }),
  deviceRemovalFailed: event(22, 367, { dom, devAlias: string }),
  metadataChange: event(23, 379, { dom, type: int, nsuri: stringOrNull }),
  blockThreshold: event(24, 385, {
    dom,
    dev: string,
    path: stringOrNull,
    threshold: uhyper,
    excess: uhyper,
  }),
  memoryFailure: event(25, 423, { dom, recipient: int, action: int, flags: uint }),
  memoryDeviceSizeChange: event(26, 438, { dom, alias: string, size: uhyper }),
}

/** What happens to networks. */
export const networkEvents = { lifecycle: event(0, 315, { net: network, event: int, detail: int }) }

/** What happens to storage pools. */
export const storagePoolEvents = {
  lifecycle: event(0, 370, { pool: storagePool, event: int, detail: int }),
  refresh: event(1, 373, { pool: storagePool }),
}

/** What happens to the host's devices. */
export const nodeDeviceEvents = {
  lifecycle: event(0, 376, { dev: nodeDevice, event: int, detail: int }),
  update: event(1, 377, { dev: nodeDevice }),
}

/** What happens to secrets. */
export const secretEvents = {
  lifecycle: event(0, 382, { secret, event: int, detail: int }),
  valueChanged: event(1, 383, { secret }),
}

const register = <Out, In>(number: number, object: Codec<Out, In>) =>
  call(number, { eventID: int, object: optional(object) }, int)

const deregister = (number: number) => call(number, { callbackID: int }, nothing)

/** The calls that ask for events, of all objects of a kind or of one, and those that ask for them no more. */
export const registrations = {
  domain: { register: register(316, domain), deregister: deregister(317) },
  network: { register: register(313, network), deregister: deregister(314) },
  storagePool: { register: register(368, storagePool), deregister: deregister(369) },
  nodeDevice: { register: register(374, nodeDevice), deregister: deregister(375) },
  secret: { register: register(380, secret), deregister: deregister(381) },
}

/** What QEMU itself tells over its monitor: `event` is QEMU's name, `details` its JSON. */
export const monitorEvent = event(-1, 6, {
  dom,
  event: string,
  seconds: hyper,
  micros: uint,
  details: stringOrNull,
})

/** The calls that ask for QEMU's own events, of one name or of all. */
export const monitorRegistration = {
  register: ofQemu(call(4, { object: optional(domain), event: stringOrNull, flags: uint }, int)),
  deregister: ofQemu(call(5, { callbackID: int }, nothing)),
}
