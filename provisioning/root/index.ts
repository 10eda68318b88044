// The resource `root`: / fills the disk that it stands on.

import { formatBytes } from '../block/bytes.ts'
import type { Resource } from '../resource.ts'
import { checkRoot } from './check.ts'
import { type ObservedRoot, observeRoot } from './observe.ts'
import { planRoot, unusedBytes } from './plan.ts'

function describe(observed: ObservedRoot): string {
  const { devices, fsType, volume, filesystem, room, source, unread } = observed
  const [own] = devices
  const sizeBytes = filesystem?.sizeBytes ?? own?.sizeBytes ?? room?.sizeBytes
  const size = sizeBytes === undefined ? '' : `${formatBytes(sizeBytes)} `
  if (own === undefined) return `${size}${fsType} from ${source}`
  const disks = devices.filter(({ type }) => type === 'disk').map(({ kernelName }) => kernelName)
  const place = volume?.path.replace(/^\/dev\//, '') ?? own.kernelName
  const where = disks.join(' and ') || own.kernelName
  if (unread !== null) return `${size}${fsType} on ${place} (${where})`
  const unused = unusedBytes(observed)
  return unused === 0
    ? `${size}${fsType} on ${place}, fills ${where}`
    : `${size}${fsType} on ${place}, ${formatBytes(unused)} of ${where} unused`
}

/** Grows partition, physical volume, logical volume and filesystem of / while it is in use. */
export const root: Resource<ObservedRoot> = {
  id: 'root',
  needs: [],
  declared: (desired) => desired.root !== undefined,
  observe: observeRoot,
  plan: planRoot,
  check: checkRoot,
  describe,
}
