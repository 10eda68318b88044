// The verb `vm disk attach`: attaches a disk to a VM, one that is there or a blank one.

import { HostError } from '../../provisioning/problem.ts'
import { absolutePath } from '../../provisioning/values.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { attachDisk } from '../vms/devices.ts'
import { type Format, formatOf, makeVolume, volumeName, volumePath } from '../vms/volumes.ts'
import { changeVms, type VmLine } from './vm-batch.ts'
import { bytesOf } from './vm-set.ts'

const verb = 'vm disk attach'

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

function formatFor(place: string, given: Format | undefined): Format {
  const format = given ?? formatOf(place)
  if (format !== null) return format
  throw invalid(`the name of ${place} does not say its format, and it is never guessed: give --format`)
}

/** What the flags name: a path or a volume, that is there or to be made. */
function wishOf(args: Args<'vm disk attach'>) {
  const { volume, path, size, target } = args
  if ((volume === undefined) === (path === undefined))
    throw invalid('vm disk attach needs one of --volume POOL/VOLUME and --path PATH')
  if (path !== undefined && !absolutePath.safeParse(path).success)
    throw invalid(`--path takes an absolute path, not ${path}`)
  if (size !== undefined && volume === undefined)
    throw invalid('--size makes a new volume: it needs --volume')
  const named = volume === undefined ? null : volumeName(volume)
  if (volume !== undefined && named === null) throw invalid(`--volume takes POOL/VOLUME, not ${volume}`)
  if (target !== undefined && !/^(vd|sd|hd)[a-z]{1,2}$/.test(target))
    throw invalid(`--target takes a name such as vdb, not ${target}`)
  const format = formatFor(path ?? volume ?? '', args.format)
  return { named, path, format, sizeBytes: size === undefined ? null : bytesOf(size, 'size', verb) }
}

/** Attaches the disk. */
export async function* run(
  context: Context<Connection>,
  args: Args<'vm disk attach'>,
): AsyncGenerator<VmLine> {
  const { named, path, format, sizeBytes } = wishOf(args)
  const { cdrom, cache = 'none', target } = args
  const placeOf = async (): Promise<string> => {
    if (named === null) return path ?? ''
    const libvirt = await context.libvirt('control')
    return sizeBytes === null
      ? volumePath(libvirt, named.pool, named.volume)
      : makeVolume(libvirt, named.pool, named.volume, sizeBytes, format)
  }
  yield* changeVms(context, args, {
    verb,
    risk: 'safe',
    parallel: 1,
    async work(hand, all) {
      const place = await placeOf()
      return attachDisk(
        hand,
        {
          device: cdrom ? 'cdrom' : 'disk',
          bus: args.bus ?? (cdrom ? 'sata' : 'virtio'),
          source: { kind: place.startsWith('/dev/') ? 'block' : 'file', at: place },
          format,
          cache,
          readOnly: cdrom || args['read-only'],
          serial: null,
          target,
        },
        all,
      )
    },
  })
}

export { exitOf, live, render } from './vm-batch.ts'
