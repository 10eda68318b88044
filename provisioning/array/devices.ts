// Names of block devices of every kind and the devices they lead to: kernel names, numbers, links, tags, mounts.

import { ancestors, type BlockDevice } from '../block/lsblk.ts'
import type { Mount } from '../block/mountinfo.ts'
import type { HostReader } from '../host.ts'

/** Order of names in which nvme2n1 comes before nvme10n1. */
export const natural = new Intl.Collator('en', { numeric: true }).compare

/** Devices by kernel name and by number, and where names of any kind lead. */
export class Devices {
  readonly #reader: HostReader
  readonly all: ReadonlyMap<string, BlockDevice>
  readonly #byNumber: ReadonlyMap<string, BlockDevice>

  constructor(reader: HostReader, all: ReadonlyMap<string, BlockDevice>) {
    this.#reader = reader
    this.all = all
    this.#byNumber = new Map([...all.values()].map((device) => [device.number, device]))
  }

  /** The disks under a device, itself included. */
  disksUnder(kernelName: string): readonly string[] {
    return [kernelName, ...ancestors(this.all, kernelName)].filter((name) =>
      ['disk', 'loop'].includes(this.all.get(name)?.type ?? ''),
    )
  }

  /** The kernel name that a path in /dev leads to, or null. */
  async at(path: string): Promise<string | null> {
    const real = await this.#reader.resolve(path)
    const name = real?.startsWith('/dev/') ? real.slice('/dev/'.length) : null
    return name !== null && this.all.has(name) ? name : null
  }

  /** Kernel names of what a mount stands on; several for a filesystem over several devices. */
  async ofMount({ number, source, fsType }: Mount): Promise<readonly string[]> {
    const direct = this.#byNumber.get(number)
    const paths = source.split(':').filter((path) => path.startsWith('/dev/'))
    const named = direct ? [direct.kernelName] : await Promise.all(paths.map((path) => this.at(path)))
    const found = named.filter((name) => name !== null)
    // btrfs mounts have a number of their own and name one of their devices only; zfs names the pool.
    const uuids = new Set(
      found.map((name) => this.all.get(name)?.uuid ?? null).filter((uuid) => uuid !== null),
    )
    const siblings = [...this.all.values()].filter(
      (device) =>
        (fsType === 'btrfs' && device.fsType === 'btrfs' && device.uuid !== null && uuids.has(device.uuid)) ||
        (fsType === 'zfs' && device.fsType === 'zfs_member' && device.label === source.split('/')[0]),
    )
    return [...new Set([...found, ...siblings.map(({ kernelName }) => kernelName)])]
  }

  /** Kernel names of what `UUID=…`, `LABEL=…` or a path names. */
  async named(spec: string): Promise<readonly string[]> {
    const [, tag, value] = /^(UUID|LABEL|PARTUUID|PARTLABEL|ID)=(.*)$/.exec(spec) ?? []
    if (tag === undefined || value === undefined) {
      if (!spec.startsWith('/dev/')) return []
      const found = await this.at(spec)
      return found === null ? this.#bySerial(spec) : [found]
    }
    const found = await this.at(`/dev/disk/by-${tag.toLowerCase()}/${value}`)
    const same = [...this.all.values()].filter((device) =>
      tag === 'UUID'
        ? device.uuid?.toLowerCase() === value.toLowerCase()
        : tag === 'LABEL'
          ? device.label === value
          : tag === 'PARTUUID' && device.partitionUuid?.toLowerCase() === value.toLowerCase(),
    )
    return [...new Set([...(found === null ? [] : [found]), ...same.map(({ kernelName }) => kernelName)])]
  }

  /** A link that udev has not made names its drive by the serial in it. */
  #bySerial(path: string): readonly string[] {
    return [...this.all.values()]
      .filter(({ serial }) => serial !== null && serial.length >= 4 && path.includes(serial))
      .map(({ kernelName }) => kernelName)
  }
}

/** The mount through which a path is reached. */
export const mountOver = (mounts: readonly Mount[], path: string): Mount | undefined =>
  mounts
    .filter(
      ({ mountpoint }) => mountpoint === '/' || path === mountpoint || path.startsWith(`${mountpoint}/`),
    )
    .reduce<Mount | undefined>(
      (best, mount) =>
        best === undefined || mount.mountpoint.length >= best.mountpoint.length ? mount : best,
      undefined,
    )
