// LVM (2.03): the steps that make and grow the group and its volumes, and what LVM would not do.

import { formatBytes } from '../block/bytes.ts'
import type { VolumeGroup } from '../block/lvm.ts'
import type { Desired } from '../desired.ts'
import type { Blocked, Step } from '../resource.ts'
import { sizeBytes } from '../values.ts'
import { type ArrayDevice, type Geometry, type ObservedVolumes, unformattedTag } from './observe.ts'
import {
  after,
  blocked,
  change,
  listed,
  lvmName,
  minuteMs,
  pathOf,
  run,
  type Subject,
  step,
} from './subject.ts'
import { smallestXfsBytes } from './xfs.ts'

/** What LVM keeps for itself in names of volumes (lvm(8), VALID NAMES). */
const reservedName =
  /^(snapshot|pvmove)|_(cdata|cmeta|corig|cpool|cvol|imeta|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)/

/**
 * Extent size of a new group: the whole stripes next above LVM's 4 MiB, so that every volume begins and ends on a stripe. LVM takes
 * powers of two and multiples of 128 KiB.
 */
export function extentKiB(geometry: Geometry | null): number {
  if (geometry === null) return 4096
  const stripeKiB = (geometry.chunkBytes / 1024) * geometry.dataMembers
  const unitKiB = stripeKiB % 128 === 0 ? stripeKiB : 2 * stripeKiB
  return unitKiB * Math.ceil(4096 / unitKiB)
}

/** Why no group may be made on the array as it is, or null. */
function arrayObjection({ path, loose, content }: ArrayDevice, interrupted: boolean): Blocked | null {
  if (loose !== null)
    return loose.attributes.startsWith('u') && !interrupted
      ? blocked(
          'volumes.array-not-blank',
          `${path} belongs to a volume group of which LVM knows nothing more`,
          {
            path,
          },
        )
      : null
  if (content === null)
    return blocked('volumes.array-not-blank', `${path} holds another volume group`, { path })
  const { signature, nonZeroAt } = content
  if (signature !== null)
    return blocked('volumes.array-not-blank', `${path} holds something: ${signature.type}`, { path })
  return nonZeroAt !== null && !interrupted
    ? blocked('volumes.array-not-blank', `${path} is not blank at byte ${nonZeroAt}`, { path, nonZeroAt })
    : null
}

/** Steps on the group as a whole: make it, refuse it, or grow it with its array. */
export function planGroup(observed: ObservedVolumes, desired: Desired, groupName: string): readonly Step[] {
  const { array, groups, nameTaken, interrupted } = observed
  const path = `/dev/md/${desired.array?.name}`
  const [group] = groups
  const step = {
    id: 'volumes.group',
    summary: `${groupName} on ${path.slice('/dev/'.length)}`,
    risk: 'safe',
    because: [
      change(desired, 'volumes.group', groupName, group === undefined ? null : `${group.name} ${group.uuid}`),
    ],
    actions: [],
  } as const
  if (group === undefined) {
    const taken = nameTaken
      ? blocked('volumes.name-refused', `/dev/${groupName} is something else, so no group can have this name`)
      : null
    const objection = taken ?? (array === null ? null : arrayObjection(array, interrupted))
    if (objection !== null) return [{ ...step, blocked: objection }]
    if (array === null)
      return [
        {
          ...step,
          // A forecast: the array comes first. Should it be settled and yet not there, this says so.
          actions: [
            {
              kind: 'wait',
              until: { kind: 'exists', path },
              summary: `${path} appears`,
              deadlineMs: minuteMs / 2,
            },
          ],
        },
      ]
    // A label that a crash in the middle of vgcreate left behind without its group; LVM itself refuses to write over it.
    const torn = array.loose?.attributes.startsWith('u')
    return [
      {
        ...step,
        actions: [
          ...(torn ? [run(['/usr/sbin/wipefs', '--all', '--quiet', '--', path])] : []),
          // Should LVM find a signature after all, it asks, and the answer is no.
          run(
            [
              '/usr/sbin/vgcreate',
              '--physicalextentsize',
              `${extentKiB(array.geometry)}k`,
              '--',
              groupName,
              path,
            ],
            2 * minuteMs,
            { stdin: 'n\n' },
          ),
        ],
        claims: [path],
      },
    ]
  }
  if (groups.length > 1)
    return [
      {
        ...step,
        blocked: blocked(
          'volumes.group-elsewhere',
          `there are ${groups.length} volume groups named ${groupName}`,
        ),
      },
    ]
  const own = group.physical.find(({ kernelName }) => kernelName === array?.kernelName)
  if (array !== null && own === undefined) {
    const on = listed(group.physical.map(({ device }) => device ?? 'a missing device'))
    return [
      {
        ...step,
        blocked: blocked('volumes.group-elsewhere', `volume group ${groupName} is on ${on}, not on ${path}`),
      },
    ]
  }
  if (group.attributes[3] === 'p') {
    const missing = group.physical.filter(({ device }) => device === null).map(({ uuid }) => uuid)
    return [
      {
        ...step,
        blocked: blocked('volumes.group-partial', `volume group ${groupName} misses ${listed(missing)}`),
      },
    ]
  }
  if (own === undefined) return []
  const usableBytes =
    Math.floor((own.deviceBytes - own.dataOffsetBytes) / group.extentBytes) * group.extentBytes
  // One extent may be lost to a second metadata area at the end.
  if (usableBytes <= own.sizeBytes + group.extentBytes) return []
  return [
    {
      id: 'volumes.group-grow',
      summary: `${groupName} from ${formatBytes(own.sizeBytes)} to ${formatBytes(usableBytes)} of ${path.slice('/dev/'.length)}`,
      risk: 'safe',
      because: [{ path: 'volumes.group.sizeBytes', desired: usableBytes, observed: own.sizeBytes }],
      actions: [run(['/usr/sbin/pvresize', '--', path])],
    },
  ]
}

const sizeField = ({ want }: Subject): 'share' | 'size' => (want.share === undefined ? 'size' : 'share')

/** Size in words: `40 % = 1.4 TiB`. */
function sizeWords({ want, group }: Subject): string {
  if (want.size !== undefined) return want.size
  const share = `${want.share} %`
  return group === undefined
    ? share
    : `${share} = ${formatBytes(Math.floor((group.sizeBytes * (want.share ?? 0)) / 100))}`
}

/** The extents that a volume shall have: a share rounded down, so that shares of 100 per cent fit; a size rounded up, as lvcreate does. */
export function wantedExtents({ want }: Subject, group: VolumeGroup): number {
  const extents =
    want.size === undefined
      ? Math.floor(((group.sizeBytes / group.extentBytes) * (want.share ?? 0)) / 100)
      : Math.ceil(sizeBytes(want.size) / group.extentBytes)
  return Math.max(1, extents)
}

/** Why the group cannot give so many extents more, or null. */
const noRoom = (subject: Subject, neededExtents: number, group: VolumeGroup): Blocked | null => {
  const { volume, freeExtents } = subject
  if (neededExtents <= freeExtents) return null
  const needed = formatBytes(neededExtents * group.extentBytes)
  const free = formatBytes(Math.max(0, freeExtents) * group.extentBytes)
  return blocked('volumes.no-room', `${volume.name} needs ${needed} more, ${group.name} has ${free} left`)
}

/** Why a volume of this size cannot get its filesystem, or null. */
export const tooSmall = ({ volume, want }: Subject, bytes: number): Blocked | null =>
  want.mount !== undefined && want.filesystem === 'xfs' && bytes < smallestXfsBytes
    ? blocked(
        'volumes.no-room',
        `${volume.name} has ${formatBytes(bytes)}, xfs needs ${formatBytes(smallestXfsBytes)}`,
      )
    : null

/** Makes the volume in its group. */
export function createStep(subject: Subject): Step {
  const { volume, want, desired, group, groupName } = subject
  const extents = group === undefined ? null : wantedExtents(subject, group)
  const objection = reservedName.test(volume.name)
    ? blocked('volumes.name-refused', `LVM keeps names such as ${volume.name} for itself`)
    : group === undefined || extents === null
      ? null
      : (noRoom(subject, extents, group) ?? tooSmall(subject, extents * group.extentBytes))
  return step(subject, 'create', {
    summary: `${volume.name}, ${sizeWords(subject)}, ${want.mount === undefined ? 'raw' : want.filesystem}`,
    because: [change(desired, pathOf(subject, sizeField(subject)), want.size ?? want.share ?? null, null)],
    actions: [
      run([
        '/usr/sbin/lvcreate',
        // Signatures of what these extents held before are wiped: they are free extents of our own group.
        '--yes',
        ...['--wipesignatures', 'y', '--zero', 'y'],
        // A raw volume belongs to its VM from the start and is never formatted.
        ...(want.mount === undefined ? [] : ['--addtag', unformattedTag]),
        ...['--name', volume.name],
        // Before the group is there, a forecast in LVM's own words.
        ...(extents !== null
          ? ['--extents', String(extents)]
          : want.size === undefined
            ? ['--extents', `${want.share}%VG`]
            : ['--size', `${sizeBytes(want.size)}b`]),
        '--',
        groupName,
      ]),
    ],
    ...(objection !== null && { blocked: objection }),
    ...after(subject.after),
  })
}

/** Grows the volume, refuses to shrink it, or leaves it alone when it differs by no more than an extent. */
export function sizeSteps(subject: Subject): readonly Step[] {
  const { volume, want, desired, group } = subject
  const { logical } = volume
  if (group === undefined || logical === null) return []
  const extents = logical.sizeBytes / group.extentBytes
  const wanted = wantedExtents(subject, group)
  if (Math.abs(wanted - extents) <= 1) return []
  const because = [
    change(
      desired,
      pathOf(subject, sizeField(subject)),
      want.size ?? want.share ?? null,
      formatBytes(logical.sizeBytes),
    ),
  ]
  const summary = `${volume.name} from ${formatBytes(logical.sizeBytes)} to ${formatBytes(wanted * group.extentBytes)}`
  if (wanted < extents)
    return [
      step(subject, 'shrink', {
        summary,
        because,
        actions: [],
        blocked: blocked(
          'volumes.shrink',
          `${volume.name} is ${formatBytes(logical.sizeBytes)}, the document asks for ${formatBytes(wanted * group.extentBytes)}`,
        ),
      }),
    ]
  const objection = noRoom(subject, wanted - extents, group)
  return [
    step(subject, 'grow', {
      summary,
      because,
      // In a unit, which outlives a killed agent: killed itself, it could leave a mounted volume suspended.
      actions: [
        run(['/usr/sbin/lvextend', '--extents', String(wanted), '--', lvmName(subject)], 2 * minuteMs, {
          unit: true,
        }),
      ],
      ...(objection !== null && { blocked: objection }),
      ...after(subject.after),
    }),
  ]
}
