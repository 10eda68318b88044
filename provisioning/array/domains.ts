// libvirt's domain and storage pool definitions (formatdomain, formatstorage): which devices of the host they use.

import { XMLParser } from 'fast-xml-parser'
import { HostError } from '../problem.ts'

/** What a virtual machine or a storage pool uses of the host. */
export interface VmUse {
  readonly kind: 'domain' | 'pool'
  readonly name: string
  /** Paths of devices, files and folders. */
  readonly paths: readonly string[]
  /** PCI functions that are passed through, as sysfs writes them: 0000:81:00.0. */
  readonly pci: readonly string[]
  /** SCSI devices that are passed through: host:bus:target:unit. */
  readonly scsi: readonly string[]
}

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  parseTagValue: false,
  parseAttributeValue: false,
  isArray: (_name, _path, _leaf, isAttribute) => !isAttribute,
})

type Node = { readonly [key: string]: string | readonly Node[] }

const childrenOf = (node: Node, name: string): readonly Node[] => {
  const children = node[name]
  return Array.isArray(children) ? (children as readonly Node[]) : []
}

const attribute = (node: Node, name: string): string | undefined => {
  const value = node[`@${name}`]
  return typeof value === 'string' ? value : undefined
}

const textOf = (node: Node, name: string): string | undefined => {
  const value: unknown = childrenOf(node, name)[0]
  return typeof value === 'string' ? value : undefined
}

/** Every element of that name below `node`, at any depth. */
function* below(node: unknown, name: string): Generator<Node> {
  if (typeof node !== 'object' || node === null) return
  for (const [key, value] of Object.entries(node)) {
    if (!Array.isArray(value)) continue
    for (const child of value) {
      if (key === name && typeof child === 'object') yield child as Node
      yield* below(child, name)
    }
  }
}

const hex = (text: string | undefined, digits: number): string =>
  Number(text ?? 0)
    .toString(16)
    .padStart(digits, '0')

const pciOf = (address: Node): string =>
  `${hex(attribute(address, 'domain'), 4)}:${hex(attribute(address, 'bus'), 2)}:` +
  `${hex(attribute(address, 'slot'), 2)}.${hex(attribute(address, 'function'), 1)}`

const defined = (values: readonly (string | undefined)[]): readonly string[] =>
  values.filter((value) => value !== undefined && value !== '') as readonly string[]

function domainUse(domain: Node): VmUse {
  const disks = [...below(domain, 'disk')]
  // A source may be a disk's own, of its backing chain, of a mirror, or of a snapshot in progress.
  const sources = disks.flatMap((disk) => [...below(disk, 'source')])
  const hostdevs = [...below(domain, 'hostdev')]
  const hostSources = hostdevs.flatMap((hostdev) => childrenOf(hostdev, 'source'))
  return {
    kind: 'domain',
    name: textOf(domain, 'name') ?? '?',
    paths: defined([
      ...sources.flatMap((source) => [
        attribute(source, 'dev'),
        attribute(source, 'file'),
        attribute(source, 'dir'),
      ]),
      ...[...below(domain, 'filesystem')].flatMap((one) =>
        childrenOf(one, 'source').flatMap((source) => [
          attribute(source, 'dir'),
          attribute(source, 'dev'),
          attribute(source, 'file'),
        ]),
      ),
      ...hostSources.flatMap((source) => [textOf(source, 'block'), textOf(source, 'char')]),
    ]),
    pci: [
      ...hostdevs
        .filter((hostdev) => attribute(hostdev, 'type') === 'pci')
        .flatMap((one) => childrenOf(one, 'source')),
      // <disk type='nvme'> takes the whole controller from the host.
      ...disks
        .filter((disk) => attribute(disk, 'type') === 'nvme')
        .flatMap((disk) => childrenOf(disk, 'source')),
    ]
      .flatMap((source) => childrenOf(source, 'address'))
      .map(pciOf),
    scsi: hostSources.flatMap((source) => {
      const host = /^scsi_host(\d+)$/.exec(
        attribute(childrenOf(source, 'adapter')[0] ?? {}, 'name') ?? '',
      )?.[1]
      return host === undefined
        ? []
        : childrenOf(source, 'address').map(
            (address) =>
              `${host}:${attribute(address, 'bus') ?? 0}:${attribute(address, 'target') ?? 0}:${attribute(address, 'unit') ?? 0}`,
          )
    }),
  }
}

function poolUse(pool: Node): VmUse {
  const sources = childrenOf(pool, 'source')
  const targets = childrenOf(pool, 'target')
  return {
    kind: 'pool',
    name: textOf(pool, 'name') ?? '?',
    paths: defined([
      ...sources.flatMap((source) => childrenOf(source, 'device').map((device) => attribute(device, 'path'))),
      ...sources.flatMap((source) => childrenOf(source, 'dir').map((dir) => attribute(dir, 'path'))),
      ...targets.map((target) => textOf(target, 'path')),
    ]),
    pci: [],
    scsi: [],
  }
}

/** The uses in one file: a definition from /etc/libvirt, or a running domain from /run/libvirt/qemu (wrapped in domstatus). */
export function parseVmUses(xml: string, file: string): readonly VmUse[] {
  let root: Node
  try {
    root = parser.parse(xml, true) as Node
  } catch (cause) {
    throw new HostError('host.unexpected-answer', `${file} is not XML that can be read`, { cause })
  }
  return [...[...below(root, 'domain')].map(domainUse), ...[...below(root, 'pool')].map(poolUse)]
}
