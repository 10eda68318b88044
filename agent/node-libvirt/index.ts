// A client of libvirt's RPC protocol: what others import.

export {
  type Backoff,
  type CallArgs,
  type CallName,
  type CallReply,
  type Calls,
  type Connection,
  type ConnectionEvents,
  type ConnectOptions,
  connectOpen,
  connectOpenReadOnly,
  type ReadAgain,
  type Subscription,
} from './connection.ts'
export { VIR } from './constants.ts'
export {
  type ConnectionErrorReason,
  type ErrorCode,
  LibvirtConnectionError,
  LibvirtError,
  type RemoteError,
} from './errors.ts'
export type { CallOptions, Keepalive } from './rpc.ts'
export type {
  Domain,
  DomainCheckpoint,
  DomainRef,
  DomainSnapshot,
  Interface,
  Network,
  NetworkPort,
  NodeDevice,
  NWFilter,
  NWFilterBinding,
  Secret,
  StoragePool,
  StorageVol,
  TypedParam,
  TypedParams,
  TypedParamValue,
} from './shapes.ts'
export { type DomainStats, domainListGetStats, type StatsOptions } from './stats.ts'
export type { LibvirtStream } from './stream.ts'
export type { Integer } from './xdr.ts'
