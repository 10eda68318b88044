// What libvirt's calls are made of: domains, networks, volumes and the like, typed parameters, and the caps on texts and lists.

import {
  type Codec,
  type Decoded,
  type Defaulted,
  defaulted,
  double,
  type Encoded,
  hyper,
  type Integer,
  int,
  list,
  optional,
  seenAs,
  struct,
  text,
  uhyper,
  uint,
  uuid,
  XdrError,
  type XdrReader,
  yes,
} from './xdr.ts'

/** A text as libvirt sends it: at most 4 MiB, XML documents too. */
export const string = text(4_194_304)

/** A text that may be null, and is when it is left out. */
export const stringOrNull = optional(string)

/** The flags of a call: `VIR.…` constants added together with `|`, which makes a number negative; 0 when left out. */
export const flags: Defaulted<number> = {
  shape: uint.shape,
  absent: { value: 0 },
  encode: (writer, value) => uint.encode(writer, value < 0 && value >= -0x80000000 ? value >>> 0 : value),
  decode: uint.decode,
}

/** Flags of 64 bits, as the older migration calls have them. */
export const wideFlags = defaulted(uhyper, 0)

/** An argument that this client always sends with the same value. */
export const always = <In>(of: Codec<unknown, In>, value: In): Defaulted<unknown, In | undefined> => ({
  shape: of.shape,
  absent: { value },
  encode: (writer) => of.encode(writer, value),
  decode: of.decode,
})

/** A list as the newer calls reply it: followed by its length, which says nothing more. */
export const listed = <Out, In>(
  of: Codec<Out, In>,
  cap: number,
  length: Codec<number> = uint,
): Codec<readonly Out[], readonly In[]> => {
  const values = list(of, cap)
  return {
    shape: `${values.shape},${length.shape}`,
    encode: (writer, value) => {
      values.encode(writer, value)
      length.encode(writer, value.length)
    },
    decode: (reader) => {
      const value = values.decode(reader)
      length.decode(reader)
      return value
    },
  }
}

/** A domain. `uuid` is what libvirt goes by; `id` is -1 unless it runs, and may be left out of what is sent. */
export const domain = struct({ name: string, uuid, id: defaulted(int, -1) })

/** A network. */
export const network = struct({ name: string, uuid })

/** A port of a network: what one interface of a domain is attached to. */
export const networkPort = struct({ net: network, uuid })

/** A network filter. */
export const nwfilter = struct({ name: string, uuid })

/** A binding of a network filter to a device of the host. */
export const nwfilterBinding = struct({ portdev: string, filtername: string })

/** A network interface of the host. */
export const iface = struct({ name: string, mac: string })

/** A storage pool. */
export const storagePool = struct({ name: string, uuid })

/** A storage volume; `pool` is its pool's name. */
export const storageVol = struct({ pool: string, name: string, key: string })

/** A device of the host. */
export const nodeDevice = struct({ name: string })

/** A secret. */
export const secret = struct({ uuid, usageType: int, usageID: string })

/** A checkpoint of a domain's disks. */
export const domainCheckpoint = struct({ name: string, dom: domain })

/** A snapshot of a domain. */
export const domainSnapshot = struct({ name: string, dom: domain })

/** A domain as libvirt gives it. */
export type Domain = Decoded<typeof domain>
/** A domain as calls take it. */
export type DomainRef = Encoded<typeof domain>
/** A network. */
export type Network = Decoded<typeof network>
/** A port of a network. */
export type NetworkPort = Decoded<typeof networkPort>
/** A network filter. */
export type NWFilter = Decoded<typeof nwfilter>
/** A binding of a network filter. */
export type NWFilterBinding = Decoded<typeof nwfilterBinding>
/** A network interface of the host. */
export type Interface = Decoded<typeof iface>
/** A storage pool. */
export type StoragePool = Decoded<typeof storagePool>
/** A storage volume. */
export type StorageVol = Decoded<typeof storageVol>
/** A device of the host. */
export type NodeDevice = Decoded<typeof nodeDevice>
/** A secret. */
export type Secret = Decoded<typeof secret>
/** A checkpoint of a domain's disks. */
export type DomainCheckpoint = Decoded<typeof domainCheckpoint>
/** A snapshot of a domain. */
export type DomainSnapshot = Decoded<typeof domainSnapshot>

/** A parameter with its type, as `virTypedParameter`: a call takes only the type that it documents for the field. */
export type TypedParam =
  | { readonly field: string; readonly type: 'int' | 'uint' | 'double'; readonly value: number }
  | { readonly field: string; readonly type: 'llong' | 'ullong'; readonly value: Integer }
  | { readonly field: string; readonly type: 'boolean'; readonly value: boolean }
  | { readonly field: string; readonly type: 'string'; readonly value: string }

/** The value of a typed parameter. */
export type TypedParamValue = TypedParam['value']

/** Typed parameters by their fields; the object has no prototype. Of a field that comes twice the last value stands. */
export type TypedParams = Readonly<Record<string, TypedParamValue>>

const paramTypes = ['int', 'uint', 'llong', 'ullong', 'double', 'boolean', 'string'] as const

const paramValues: { readonly [T in TypedParam['type']]: Codec<TypedParamValue, never> } = {
  int,
  uint,
  llong: hyper,
  ullong: uhyper,
  double,
  boolean: yes,
  string,
}

const decodeParam = (reader: XdrReader): TypedParam => {
  const field = string.decode(reader)
  const tag = int.decode(reader)
  const type = paramTypes[tag - 1]
  if (type === undefined) throw new XdrError(`a parameter of type ${tag}`)
  return { field, type, value: paramValues[type].decode(reader) } as TypedParam
}

/** A typed parameter. */
export const typedParam: Codec<TypedParam> = {
  shape: `${string.shape},typed`,
  encode: (writer, { field, type, value }) => {
    string.encode(writer, field)
    int.encode(writer, paramTypes.indexOf(type) + 1)
    paramValues[type].encode(writer, value as never)
  },
  decode: decodeParam,
}

/** At most `cap` typed parameters that are sent; none when left out. A field may come more than once. */
export const paramList = (cap: number): Defaulted<readonly TypedParam[]> =>
  defaulted(list(typedParam, cap), [])

/** At most `cap` typed parameters that are received. */
export const paramRecord = (cap: number): Codec<TypedParams, readonly TypedParam[]> =>
  seenAs(list(typedParam, cap), (params) => {
    const record: Record<string, TypedParamValue> = Object.create(null)
    for (const { field, value } of params) record[field] = value
    return record
  })

/** At most `cap` typed parameters followed by how many there are. */
export const countedParams = (cap: number): Codec<TypedParams, readonly TypedParam[]> => {
  const params = paramRecord(cap)
  return {
    shape: `${params.shape},int`,
    encode: (writer, value) => {
      params.encode(writer, value)
      int.encode(writer, value.length)
    },
    decode: (reader) => {
      const value = params.decode(reader)
      int.decode(reader)
      return value
    },
  }
}

/** An error in place of a reply. The objects that it may name are those of long ago; no libvirt of today fills them. */
export const remoteError = struct({
  code: int,
  domain: int,
  message: stringOrNull,
  level: int,
  dom: optional(domain),
  str1: stringOrNull,
  str2: stringOrNull,
  str3: stringOrNull,
  int1: int,
  int2: int,
  net: optional(network),
})
