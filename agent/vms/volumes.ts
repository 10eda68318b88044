// Volumes of libvirt's storage pools, as disks to be.

import { element, printXml } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Connection, StoragePool } from '../node-libvirt/index.ts'
import { isRefusal } from './reach.ts'

/** `POOL/VOLUME`, taken apart; null when it is not that. */
export function volumeName(text: string): { readonly pool: string; readonly volume: string } | null {
  const at = text.indexOf('/')
  const [pool, volume] = [text.slice(0, at), text.slice(at + 1)]
  // A volume is below its pool's folder, and nowhere else.
  const isPlain = volume !== '' && !volume.includes('/') && volume !== '.' && volume !== '..'
  return at > 0 && isPlain ? { pool, volume } : null
}

/** The formats that disks have here. */
export type Format = 'qcow2' | 'raw'

/**
 * The format of a disk by the name of its file, or null. What is in a raw file is its guest's to write, so what a file looks like
 * says nothing: taken for a qcow2, one could make QEMU read any file of the host.
 */
export const formatOf = (path: string): Format | null => {
  if (path.startsWith('/dev/') || /\.(raw|img|iso)$/i.test(path)) return 'raw'
  return path.endsWith('.qcow2') ? 'qcow2' : null
}

const noSuch = (message: string): HostError => new HostError('request.no-such-part', message)

async function poolOf(libvirt: Connection, name: string): Promise<StoragePool> {
  try {
    return await libvirt.storagePoolLookupByName({ name })
  } catch (error) {
    if (isRefusal(error, 'VIR_ERR_NO_STORAGE_POOL')) throw noSuch(`libvirt has no storage pool ${name}`)
    throw error
  }
}

/** Where a volume of a pool is. Throws `request.no-such-part`. */
export async function volumePath(libvirt: Connection, pool: string, volume: string): Promise<string> {
  try {
    const vol = await libvirt.storageVolLookupByName({ pool: await poolOf(libvirt, pool), name: volume })
    return await libvirt.storageVolGetPath({ vol })
  } catch (error) {
    if (isRefusal(error, 'VIR_ERR_NO_STORAGE_VOL')) throw noSuch(`pool ${pool} has no volume ${volume}`)
    throw error
  }
}

/** Makes a blank volume, and says where it is. Throws `libvirt.refused` when there is one of that name. */
export async function makeVolume(
  libvirt: Connection,
  pool: string,
  volume: string,
  sizeBytes: number,
  format: Format,
): Promise<string> {
  const xml = printXml(
    element('volume', {}, [
      element('name', {}, [volume]),
      element('capacity', { unit: 'bytes' }, [String(sizeBytes)]),
      ...(format === 'qcow2' ? [element('allocation', {}, ['0'])] : []),
      element('target', {}, [element('format', { type: format })]),
    ]),
  )
  const vol = await libvirt.storageVolCreateXML({ pool: await poolOf(libvirt, pool), xml })
  return await libvirt.storageVolGetPath({ vol })
}
